"""Bounds that learn from labels end to end: from the coordinator's few alone, and from everybody's in one place.

One set of encoders, and a linear head for each group of modalities on its embeddings side by side; the loss is the sum
of all heads' cross entropies. In tables the heads' own answers count, as is usual for supervised baselines; the probe
on the same embeddings is there too.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bench.arena import Arena
from bench.contender import Payload
from bench.contenders.local import global_architectures, pooled_windows
from bench.engine import groups_of
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, Windows, batch_count, batches, knowledge_of, tensors
from mekt.plan import Plan, derived_seed
from mekt.solvers import Adam
from sensors.windows import UNLABELLED, WindowSet

# A few hundred windows are seen as often as it takes; thousands need fewer visits.
LABELS_EPOCHS = 100
POOLED_EPOCHS = 20
# A batch of normalised windows, (B, T, ...) per modality, changed as another wearing of the sensors would.
Augment = Callable[[Windows, torch.Generator], Windows]


def labelled_windows(arena: Arena) -> WindowSet:
    """The coordinator's.

    Raises:
        ValueError: when it has none.
    """
    if arena.datasets.labelled is None:
        raise ValueError(f"{arena.protocol}: no labelled windows to learn from")
    return arena.datasets.labelled


def all_labelled_windows(arena: Arena) -> WindowSet:
    """The coordinator's, and all private ones that have a label."""
    few, pooled = labelled_windows(arena), pooled_windows(arena)
    many = pooled.select(pooled.labels != UNLABELLED)
    return WindowSet(
        arrays={name: np.concatenate([few.arrays[name], many.arrays[name]]) for name in few.arrays},
        labels=np.concatenate([few.labels, many.labels]),
    )


class Supervised:
    """Encoders and heads, learned in the first round; the rate falls to zero along the way."""

    uses_proxy = False

    def __init__(
        self, arena: Arena, plan: Plan, windows: WindowSet, epochs: int, augment: Augment | None = None
    ) -> None:
        self._plan = plan
        self._windows, self._labels = tensors(windows.arrays), torch.from_numpy(windows.labels)
        self._epochs = epochs
        self._augment = augment
        self._model = SplitAutoencoder(plan, global_architectures(arena))
        groups = groups_of(self._model.modalities)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(plan.seed, "heads"))
            width, classes = plan.method.embedding, len(arena.datasets.classes)
            self._heads = nn.ModuleDict(
                {_key(group): nn.Linear(width * len(group), classes) for group in groups.values()}
            )
        self._groups = tuple(groups.values())

    def announce(self, number: int, device: str) -> Payload:
        """Nothing."""
        return {}

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """Nothing."""
        return {}

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """All learning, in the first round."""
        if number > 0:
            return
        method = self._plan.method
        generator = torch.Generator().manual_seed(derived_seed(self._plan.seed, "supervised"))
        parameters = [*self._model.encoders.parameters(), *self._heads.parameters()]
        optimizer = Adam(parameters, lr=method.local_rate, fused=True)
        steps = self._epochs * batch_count(len(self._labels), method.batch)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
        for _ in range(self._epochs):
            for rows in batches(len(self._labels), method.batch, generator):
                batch: Windows = {name: array[rows] for name, array in self._windows.items()}
                if self._augment is not None:
                    batch = self._augment(batch, generator)
                _, embeddings = self._model.encode(batch)
                losses = [
                    functional.cross_entropy(scores, self._labels[rows]) for scores in self._scores(embeddings).values()
                ]
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(torch.stack(losses).sum())
                optimizer.step()
                falling.step()

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By the encoders below the heads."""
        known = knowledge_of(self._model, tensors(windows), sends_hidden=False)
        return ({name: each.embedding for name, each in known.items()},)

    def predict(self, windows: Arrays) -> Mapping[tuple[str, ...], NDArray[np.int64]]:
        """What the heads say."""
        [embedded] = self.embed(windows)
        with torch.no_grad():
            scores = self._scores(tensors(embedded))
        return {group: each.argmax(dim=1).numpy() for group, each in scores.items()}

    def _scores(self, embeddings: Windows) -> dict[tuple[str, ...], Tensor]:
        """Class scores (N, K) by each group."""
        return {
            group: self._heads[_key(group)](torch.cat([embeddings[name] for name in group], dim=1))
            for group in self._groups
        }


def _key(group: tuple[str, ...]) -> str:
    return "+".join(group)
