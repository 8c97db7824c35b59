"""Many devices' knowledge as one, per modality, in four ways; none depends on the devices' order.

    mean              sum_i w_i K_i / sum_i w_i; one device moves it as far as it likes
    trimmed-mean      per coordinate the mean of what is left when a third of the weight is cut off at either end
    median            per coordinate the value with half of the weight on either side (both: Yin et al., ICML 2018,
                      arXiv 1803.01498)
    geometric-median  the (N, D) with the least weighted sum of distances to the devices' whole knowledge (RFA: Pillutla
                      et al., IEEE TSP 2022, arXiv 1912.13445), by Weiszfeld's steps (Vardi and Zhang, PNAS 2000)

The median and the geometric median hold as long as the devices that err have less than half of the weight, the trimmed
mean less than a third; the mean never. How many windows a device has is its own word, so in the three that shall hold
nobody counts for more than the median device does. Of one device all give its own knowledge. Of two all give their
mean: nobody can tell which of them errs. With three, one may err.

The geometric median is taken once over the whole matrix and not row by row, which has its own minimum in each row: what
errs errs in most rows, and is told apart better by all of them together. Knowledge of HAPT's devices with one or two
attackers of five came up to 0.03 of the variance nearer to the honest mean that way (docs/lab.md, 2026-11-26).

Shapes: K devices, N rows, D width of an embedding or hidden layer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.round import Aggregator
from mekt.learning import Knowledge

Floats = NDArray[np.float32]
Exact = NDArray[np.float64]
# The devices' embeddings or hidden layers, (N, D) each.
Arrays = Sequence[Floats]

# Share of the weight that is cut off at either end: as many may err on the same side.
TRIMMED = 1 / 3
# Two sums of weights that differ by less are the same.
ROUNDING = 1e-9
# Weiszfeld ends once it moves by no more than this share of the devices' median distance from where it began, and in
# any case after so many steps. Each step lowers the sum of distances, so that it is of use wherever it ends.
CONVERGED = 1e-6
MOST_STEPS = 100
# Nearer than this share of the same it is at a device's own knowledge.
AT_DEVICE = 1e-9
# Values of all devices that are held at once; bounds the memory, and changes no result.
VALUES_AT_ONCE = 1 << 22


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


def _combined(kind: Aggregator, weights_K: Exact, arrays: Arrays) -> Floats:
    if kind == "mean":
        return _mean(weights_K.tolist(), arrays)
    weights_K = np.minimum(weights_K, np.median(weights_K) if len(arrays) > 2 else weights_K.min())
    combined = _ROBUST[kind](arrays, weights_K)
    return combined.astype(np.float32)


def _mean(weights: Sequence[float], arrays: Arrays) -> Floats:
    total = np.zeros(arrays[0].shape, dtype=np.float64)
    for weight, array in zip(weights, arrays, strict=True):
        total += weight * array.astype(np.float64)
    return (total / sum(weights)).astype(np.float32)


def trimmed_mean(arrays: Arrays, weights_K: Exact) -> Exact:
    """(N, D): per coordinate the weighted mean without `TRIMMED` of the weight at either end.

    A device on the edge counts with the part of its weight that is within.
    """
    return _by_coordinates(_trimmed, arrays, weights_K)


def median(arrays: Arrays, weights_K: Exact) -> Exact:
    """(N, D): per coordinate the weighted median; midway where exactly half of the weight is on either side."""
    return _by_coordinates(_middle, arrays, weights_K)


def geometric_median(arrays: Arrays, weights_K: Exact) -> Exact:
    """(N, D): the weighted geometric median, from the median on by Weiszfeld's steps.

    RFA's smoothed steps would stay at a device's own knowledge where the search comes by it. Vardi and Zhang's leave
    it, unless its weight is more than the pull of all others, and then that is the minimum.
    """
    z_ND = median(arrays, weights_K)
    far_K = _distances(arrays, z_ND)
    scale = float(np.median(far_K))
    for _ in range(MOST_STEPS if scale > 0 else 0):
        here_K = far_K <= AT_DEVICE * scale
        pull_K = np.where(here_K, 0.0, weights_K / np.maximum(far_K, AT_DEVICE * scale))
        to_ND = np.zeros_like(z_ND)
        for pull, array in zip((pull_K / pull_K.sum()).tolist(), arrays, strict=True):
            to_ND += pull * array.astype(np.float64)
        step_ND = to_ND - z_ND
        weight, away = float(weights_K[here_K].sum()), float(pull_K.sum()) * _length(step_ND)
        if weight >= away:
            break
        step_ND *= 1 - weight / away
        z_ND = z_ND + step_ND
        if _length(step_ND) <= CONVERGED * scale:
            break
        far_K = _distances(arrays, z_ND)
    return z_ND


def _by_coordinates(combine: Callable[[Exact, Exact], Exact], arrays: Arrays, weights_K: Exact) -> Exact:
    """What `combine` makes of (K, n, D) and weights, for some rows at a time."""
    rows = max(1, VALUES_AT_ONCE // (len(arrays) * arrays[0].shape[1]))
    parts = [
        combine(np.stack([array[first : first + rows].astype(np.float64) for array in arrays]), weights_K)
        for first in range(0, len(arrays[0]), rows)
    ]
    return np.concatenate(parts)


def _sorted(x_KND: Exact, weights_K: Exact) -> tuple[Exact, Exact]:
    """Each coordinate's values in ascending order, and the weight of each and all before it."""
    order = np.argsort(x_KND, axis=0, kind="stable")
    return np.take_along_axis(x_KND, order, axis=0), np.cumsum(weights_K[order], axis=0)


def _trimmed(x_KND: Exact, weights_K: Exact) -> Exact:
    values, reached = _sorted(x_KND, weights_K)
    whole = reached[-1]
    before = np.concatenate([np.zeros_like(reached[:1]), reached[:-1]])
    within = np.minimum(reached, (1 - TRIMMED) * whole) - np.maximum(before, TRIMMED * whole)
    # What rounding leaves of a device that is all but cut off would let a huge value back in.
    within[within < ROUNDING * whole] = 0.0
    trimmed: Exact = (within * values).sum(axis=0) / within.sum(axis=0)
    return trimmed


def _middle(x_KND: Exact, weights_K: Exact) -> Exact:
    values, reached = _sorted(x_KND, weights_K)
    half = reached[-1] / 2
    low = (reached < half * (1 - ROUNDING)).sum(axis=0, keepdims=True)
    high = (reached <= half * (1 + ROUNDING)).sum(axis=0, keepdims=True)
    first, second = (np.take_along_axis(values, at, axis=0)[0] for at in (low, high))
    middle: Exact = first + (second - first) / 2
    return middle


def _distances(arrays: Arrays, z_ND: Exact) -> Exact:
    """(K,): how far each device's whole knowledge is from `z_ND`."""
    return np.array([_length(array - z_ND) for array in arrays], dtype=np.float64)


def _length(x_ND: Exact) -> float:
    return float(np.sqrt(np.square(x_ND).sum()))


_ROBUST: Mapping[str, Callable[[Arrays, Exact], Exact]] = {
    "trimmed-mean": trimmed_mean,
    "median": median,
    "geometric-median": geometric_median,
}
