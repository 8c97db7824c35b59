"""Many devices' knowledge as one, per modality, in four ways; none depends on the devices' order.

    mean              sum_i w_i K_i / sum_i w_i; one device moves it as far as it likes
    trimmed-mean      per coordinate the mean of what is left when a third of the weight is cut off at either end
    median            per coordinate the value with half of the weight on either side (both: Yin et al., ICML 2018,
                      arXiv 1803.01498)
    geometric-median  per proxy row the point with the least weighted sum of distances to the devices' embeddings, by
                      smoothed Weiszfeld (RFA: Pillutla et al., IEEE TSP 2022, arXiv 1912.13445)

The median and the geometric median hold as long as the devices that err have less than half of the weight, the trimmed
mean less than a third; the mean never. How many windows a device has is its own word, so in the three that shall hold
nobody counts for more than the median device does. Of one device all give its own knowledge. Of two all give their
mean: nobody can tell which of them errs. With three, one may err.

The geometric median is taken row by row, not once over the whole matrix as RFA does over a model's parameters. The
whole is nearly as far from every honest device as from those that err, as in any space of many dimensions, and weighs
them nearly alike; a row has few dimensions, and there a device that errs is told apart (docs/lab.md, 2026-11-26).

Shapes: K devices, N rows, D width of an embedding or hidden layer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mekt.learning import Knowledge

Aggregator = Literal["mean", "trimmed-mean", "median", "geometric-median"]
Exact = NDArray[np.float64]

# Share of the weight that is cut off at either end: as many may err on the same side.
TRIMMED = 1 / 3
# Two sums of weights that differ by less are the same.
ROUNDING = 1e-9
# Weiszfeld ends once no row has moved by more than this share of its devices' median distance from where it began, and
# in any case after so many steps: it then is that near to the minimum, or as near as these steps lead.
CONVERGED = 1e-6
MOST_STEPS = 100
# Distances below this share of the same are taken for it, so that a device's own point does not hold the search up.
SMOOTHING = 1e-6
# Values of all devices that are held at once; bounds the memory, and changes no result.
VALUES_AT_ONCE = 1 << 22

_TINY = 1e-300


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


def aggregate(contributions: Sequence[Contribution], kind: Aggregator = "mean") -> dict[str, Knowledge]:
    """A_m, the aggregate over the devices that have m; modalities nobody has are absent.

    Laws: any permutation of `contributions`, one of each device, gives the same bits; but for rounding, a device with
    weight w equals w devices of weight 1 in the mean.
    """
    ordered = sorted(contributions, key=lambda each: each.device)
    names = sorted({name for each in ordered for name in each.knowledge})
    return {name: _one([each for each in ordered if name in each.knowledge], name, kind) for name in names}


def _one(contributions: Sequence[Contribution], name: str, kind: Aggregator) -> Knowledge:
    weights = np.array([each.weight for each in contributions], dtype=np.float64)
    sent = [each.knowledge[name] for each in contributions]
    hidden = [each.hidden for each in sent if each.hidden is not None]
    return Knowledge(
        embedding=_combined(kind, weights, [each.embedding for each in sent]),
        hidden=_combined(kind, weights, hidden) if len(hidden) == len(sent) else None,
    )


def _combined(kind: Aggregator, weights_K: Exact, arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """K arrays (N, D) as one."""
    if kind == "mean":
        return _mean(weights_K.tolist(), arrays)
    if len(arrays) == 1:
        return arrays[0].astype(np.float32)
    weights_K = np.minimum(weights_K, np.median(weights_K) if len(arrays) > 2 else weights_K.min())
    combine = _ROBUST[kind]
    rows = max(1, VALUES_AT_ONCE // (len(arrays) * arrays[0].shape[1]))
    parts = [
        combine(np.stack([array[first : first + rows].astype(np.float64) for array in arrays]), weights_K)
        for first in range(0, len(arrays[0]), rows)
    ]
    return np.concatenate(parts).astype(np.float32)


def _mean(weights: Sequence[float], arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    total = np.zeros(arrays[0].shape, dtype=np.float64)
    for weight, array in zip(weights, arrays, strict=True):
        total += weight * array.astype(np.float64)
    return (total / sum(weights)).astype(np.float32)


def _sorted(x_KND: Exact, weights_K: Exact) -> tuple[Exact, Exact]:
    """Each coordinate's values in ascending order, and the weight of each and all before it."""
    order = np.argsort(x_KND, axis=0, kind="stable")
    return np.take_along_axis(x_KND, order, axis=0), np.cumsum(weights_K[order], axis=0)


def trimmed_mean(x_KND: Exact, weights_K: Exact) -> Exact:
    """(N, D): per coordinate the weighted mean without `TRIMMED` of the weight at either end.

    A device on the edge counts with the part of its weight that is within.
    """
    values, reached = _sorted(x_KND, weights_K)
    whole = reached[-1]
    before = np.concatenate([np.zeros_like(reached[:1]), reached[:-1]])
    within = np.minimum(reached, (1 - TRIMMED) * whole) - np.maximum(before, TRIMMED * whole)
    # What rounding leaves of a device that is all but cut off would let a huge value back in.
    within[within < ROUNDING * whole] = 0.0
    trimmed: Exact = (within * values).sum(axis=0) / within.sum(axis=0)
    return trimmed


def median(x_KND: Exact, weights_K: Exact) -> Exact:
    """(N, D): per coordinate the weighted median; midway where exactly half of the weight is on either side."""
    values, reached = _sorted(x_KND, weights_K)
    half = reached[-1] / 2
    low = (reached < half * (1 - ROUNDING)).sum(axis=0, keepdims=True)
    high = (reached <= half * (1 + ROUNDING)).sum(axis=0, keepdims=True)
    both = (np.take_along_axis(values, at, axis=0)[0] for at in (low, high))
    middle: Exact = sum(both) / 2  # type: ignore[assignment]
    return middle


def geometric_median(x_KND: Exact, weights_K: Exact) -> Exact:
    """(N, D): per row the weighted geometric median, from the median on by smoothed Weiszfeld steps."""
    z_ND = median(x_KND, weights_K)
    began_KN = _distances(x_KND, z_ND)
    scale_N = np.maximum(np.median(began_KN, axis=0), _TINY)
    moving = np.arange(len(z_ND))
    for _ in range(MOST_STEPS):
        far_KM = np.maximum(_distances(x_KND[:, moving], z_ND[moving]), SMOOTHING * scale_N[moving])
        pull_KM = weights_K[:, None] / far_KM
        pull_KM /= pull_KM.sum(axis=0)
        moved_MD = (pull_KM[:, :, None] * x_KND[:, moving]).sum(axis=0)
        step_M = np.sqrt(np.square(moved_MD - z_ND[moving]).sum(axis=1))
        z_ND[moving] = moved_MD
        moving = moving[step_M > CONVERGED * scale_N[moving]]
        if not len(moving):
            break
    return z_ND


def _distances(x_KND: Exact, z_ND: Exact) -> Exact:
    """(K, N): how far each device's row is from that of `z_ND`."""
    distances: Exact = np.sqrt(np.square(x_KND - z_ND).sum(axis=2))
    return distances


_ROBUST: Mapping[str, Callable[[Exact, Exact], Exact]] = {
    "trimmed-mean": trimmed_mean,
    "median": median,
    "geometric-median": geometric_median,
}
