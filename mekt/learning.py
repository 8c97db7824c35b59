"""The two terms that local learning and global distillation share: reconstruction and knowledge transfer.

Shapes: B windows of a batch, N proxy windows, H hidden width, D embedding width.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mekt.augment import Augmentation
from mekt.encoders import SplitAutoencoder
from mekt.losses import contrast, reconstruction_distance, redundancy, transfer_loss
from mekt.plan import Method, Reconstruction

Windows = Mapping[str, Tensor]
Arrays = Mapping[str, NDArray[np.float32]]
# Windows that are encoded at once without being learned from; bounds the memory, frames take megabytes each.
ENCODED_AT_ONCE = 64
# Knowledge that varies less is constant.
SMALLEST_SPREAD = 1e-4
# Is told (batches done, batches in all) after each batch; what it raises ends the learning.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge:
    """One modality's embeddings (N, D) of the whole proxy set, and the hidden layer's (N, H) when it is shared."""

    embedding: NDArray[np.float32]
    hidden: NDArray[np.float32] | None = None


def reconstruction_loss(kind: Reconstruction, model: SplitAutoencoder, windows: Windows, embeddings: Windows) -> Tensor:
    """Sum over all pairs (m, k) of the distance from D_k(E_m(x_m)) to x_k: each embedding rebuilds every modality."""
    sources = [embeddings[name] for name in sorted(embeddings)]
    stacked = torch.cat(sources)
    total = stacked.new_zeros(())
    for name in sorted(windows):
        rebuilt = model.decoders[name](stacked)
        target = windows[name].repeat(len(sources), *[1] * (windows[name].dim() - 1))
        total = total + reconstruction_distance(kind, rebuilt, target) * len(sources)
    return total


def own_loss(
    model: SplitAutoencoder, windows: Windows, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What a model learns from windows (B, ...) by itself: the loss, and the part of it that is reconstruction.

    With contrast, two changed copies of the windows are encoded: the first is rebuilt, every modality's projection of
    the one has to find every modality's of the other, and embeddings have to use all their dimensions. Few would hold
    nearly all variance otherwise, and the rest would be lost when knowledge is averaged and followed.
    """
    method = model.method
    if method.contrast == 0:
        rebuilt = reconstruction_loss(method.reconstruction, model, windows, model.encode(windows)[1])
        return rebuilt, rebuilt
    one, other = augmentation(windows, generator), augmentation(windows, generator)
    count = len(next(iter(windows.values())))
    _, both = model.encode({name: torch.cat([one[name], other[name]]) for name in one})
    rebuilt = reconstruction_loss(
        method.reconstruction, model, one, {name: each[:count] for name, each in both.items()}
    )
    projected = {name: model.projectors[name](each) for name, each in both.items()}
    pairs = [
        contrast(first[:count], second[count:], method.contrast_temperature)
        for first in projected.values()
        for second in projected.values()
    ]
    redundant = torch.stack([redundancy(each) for each in both.values()]).sum()
    return rebuilt + method.contrast * torch.stack(pairs).sum() + method.decorrelate * redundant, rebuilt


def spreads(teacher: Windows) -> dict[str, Tensor]:
    """How much each modality's knowledge (N, D) varies over the proxy set: the root of its mean variance over D."""
    return {
        name: (each - each.mean(dim=0)).detach().pow(2).mean().sqrt().clamp(min=SMALLEST_SPREAD)
        for name, each in teacher.items()
    }


def knowledge_loss(method: Method, student: Windows, teacher: Windows, spread: Windows) -> Tensor:
    """Sum over the modalities that both have of the transfer distance from student to teacher, in units of `spread`.

    With "mse" that is the share of the knowledge's variance that is not explained. Encoders begin with embeddings that
    vary by a tenth; in their own units they would hardly be followed, and shrinking them would count as agreement.
    """
    losses = [
        transfer_loss(method.transfer, student[name] / spread[name], teacher[name] / spread[name], method.temperature)
        for name in sorted(set(student) & set(teacher))
    ]
    return torch.stack(losses).sum() if losses else next(iter(student.values())).new_zeros(())


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index tensors that visit 0..count-1 once each in random order, `size` at a time, the last one perhaps shorter."""
    order = torch.randperm(count, generator=generator)
    yield from (order[first : first + size] for first in range(0, count, size))


def batch_count(count: int, size: int) -> int:
    """How many batches of at most `size` hold `count` rows."""
    return -(-count // size)


def endless_batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """`batches`, epoch after epoch without end."""
    while True:
        yield from batches(count, size, generator)


def knowledge_of(model: SplitAutoencoder, windows: Windows, sends_hidden: bool) -> dict[str, Knowledge]:
    """What the model makes of normalised windows, such as the proxy set, of every modality it has."""
    return {name: _knowledge(model, name, windows[name], sends_hidden) for name in model.modalities if name in windows}


def _knowledge(model: SplitAutoencoder, name: str, windows: Tensor, sends_hidden: bool) -> Knowledge:
    encoder = model.encoders[name]
    device = next(encoder.parameters()).device
    with torch.no_grad():
        parts = [encoder(part.to(device)) for part in torch.split(windows, ENCODED_AT_ONCE)]
    return Knowledge(
        embedding=torch.cat([embedding for _, embedding in parts]).cpu().numpy(),
        hidden=torch.cat([hidden for hidden, _ in parts]).cpu().numpy() if sends_hidden else None,
    )


def tensors(arrays: Arrays, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The arrays as float32 tensors on `device`, without a copy where memory allows it."""
    # Torch takes no memory that must not be written, such as that of a mapped file.
    owned = {name: np.require(array, np.float32, ["C", "W"]) for name, array in arrays.items()}
    return {name: torch.from_numpy(array).to(device) for name, array in owned.items()}


def teachers(knowledge: Mapping[str, Knowledge], device: torch.device | str = "cpu") -> tuple[Windows, Windows]:
    """Hidden layers and embeddings of received knowledge, as targets; hidden layers only where sent."""
    hidden = {name: each.hidden for name, each in knowledge.items() if each.hidden is not None}
    return tensors(hidden, device), tensors({name: each.embedding for name, each in knowledge.items()}, device)
