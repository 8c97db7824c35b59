"""Many devices' knowledge as one: a weighted mean per modality that does not depend on the devices' order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt.learning import Knowledge


@dataclass(frozen=True, kw_only=True, slots=True)
class Contribution:
    """What one device sent: its knowledge per modality, learned from so many private windows `age` rounds ago."""

    device: str
    windows: int
    knowledge: Mapping[str, Knowledge]
    age: int = 0

    @property
    def weight(self) -> float:
        """w_i = windows / sqrt(1 + age): what was learned longer ago counts less (Nguyen et al., arXiv 2106.06639)."""
        return self.windows / math.sqrt(1 + self.age)


def aggregate(contributions: Sequence[Contribution]) -> dict[str, Knowledge]:
    """A_m = sum_i w_i K_im / sum_i w_i over the devices that have m; modalities nobody has are absent.

    Laws: any permutation of `contributions`, one of each device, gives the same bits; but for rounding, a device with
    weight w equals w devices of weight 1.
    """
    ordered = sorted(contributions, key=lambda each: each.device)
    names = sorted({name for each in ordered for name in each.knowledge})
    return {
        name: _mean([(each.weight, each.knowledge[name]) for each in ordered if name in each.knowledge])
        for name in names
    }


def _mean(weighted: list[tuple[float, Knowledge]]) -> Knowledge:
    hidden = [(weight, each.hidden) for weight, each in weighted if each.hidden is not None]
    return Knowledge(
        embedding=_weighted([(weight, each.embedding) for weight, each in weighted]),
        hidden=_weighted(hidden) if len(hidden) == len(weighted) else None,
    )


def _weighted(weighted: list[tuple[float, NDArray[np.float32]]]) -> NDArray[np.float32]:
    total = np.zeros(weighted[0][1].shape, dtype=np.float64)
    for weight, array in weighted:
        total += weight * array.astype(np.float64)
    return (total / sum(weight for weight, _ in weighted)).astype(np.float32)
