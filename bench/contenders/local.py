"""What all contenders share: a device's private windows, and what a model learns from windows by itself.

Shapes: B windows of a batch. The encoders, the optimiser, its rate, the epochs, and the objective (reconstruction, and
contrast where the method has it) are those of the plan's method, and so the same for everybody.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.arena import Arena, Device
from mekt.augment import augmentation_of
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, Windows, batches, own_loss, tensors
from mekt.plan import Architecture, Plan
from mekt.solvers import Adam
from sensors.normalise import normalise
from sensors.windows import WindowSet

# What a method adds to a step's loss: the rows (B,) of the windows learned from -> a number.
Term = Callable[[Tensor], Tensor]


def private_windows(arena: Arena, device: Device) -> Arrays:
    """The device's private windows, normalised as the product does it."""
    return {name: normalise(array, arena.datasets.scaling[name]) for name, array in device.private.arrays.items()}


def pooled_windows(arena: Arena) -> WindowSet:
    """All modalities of all devices' private windows, normalised, device after device; for bounds alone."""
    sets = [each.whole for each in arena.devices]
    return WindowSet(
        arrays={
            each.name: normalise(
                np.concatenate([windows.arrays[each.name] for windows in sets]), arena.datasets.scaling[each.name]
            )
            for each in arena.modalities
        },
        labels=np.concatenate([windows.labels for windows in sets]),
    )


def global_architectures(arena: Arena) -> dict[str, Architecture]:
    """Of each modality the architecture that most devices have; of equally many the first by name."""
    chosen: dict[str, Architecture] = {}
    for modality in arena.modalities:
        counts = Counter(
            each.architectures[modality.name] for each in arena.devices if modality.name in each.architectures
        )
        chosen[modality.name] = min(counts, key=lambda name: (-counts[name], name)) if counts else "conv"
    return chosen


def learn_locally(
    model: SplitAutoencoder, windows: Arrays, plan: Plan, round: int, seed: int, term: Term | None = None
) -> None:
    """Train for the plan's local epochs on the plan's own loss, and `term`; equal inputs and seed give equal weights.

    Args:
        model: is changed.
        windows: private, normalised, per modality (N, T, ...), one at least.
        plan: gives epochs, rate, batch and what is learned.
        round: counted from 0; the rate falls with it.
        seed: orders the batches, and draws how windows are changed.
        term: what the method adds to the loss of each batch.
    """
    method = plan.method
    generator = torch.Generator().manual_seed(seed)
    private = tensors(windows)
    count = len(next(iter(private.values())))
    optimizer = Adam(model.parameters(), lr=plan.local_rate(round), fused=True)
    for _ in range(method.local_epochs):
        for rows in batches(count, method.batch, generator):
            step(model, private, rows, plan, optimizer, generator, term)


def step(
    model: SplitAutoencoder,
    windows: Windows,
    rows: Tensor,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    term: Term | None = None,
) -> None:
    """One step of what every model learns by itself from these rows of `windows`, and of `term`."""
    batch = {name: array[rows] for name, array in windows.items()}
    loss, _ = own_loss(model, batch, augmentation_of(plan), generator)
    if term is not None:
        loss = loss + term(rows)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()
