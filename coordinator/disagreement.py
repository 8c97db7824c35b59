"""How far each device's knowledge lies from that of the others in a round: one number for each, by its modality. Pure.

    distance      d_i = median over rows n of |k_in - r_in| / (|k_in| + |r_in|), between 0 (the same) and 1 (opposite,
                  constant, or out of all scale), where k_i is the device's centred knowledge and r_i the median, per
                  coordinate, of all others'
    disagreement  d_i / median over devices of d

A modality's distances are divided by its own median, so that 1 is usual in each, however hard it is to learn and
whatever its encoders. The reference holds as long as less than half of the devices err, alike or not.

Shapes: K devices, N rows, D width of an embedding.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mekt.learning import Arrays

Exact = NDArray[np.float64]

# Of two, nobody can tell which one errs.
FEWEST_COMPARED = 3
# Distances whose median is below this, as where knowledge is all but equal, are told apart by rounding alone.
LEAST_USUAL = 0.02
# Values of all devices that are held at once; bounds the memory, and changes no result.
VALUES_AT_ONCE = 1 << 22

_TINY = 1e-300


def disagreement(knowledge: Mapping[str, Arrays]) -> dict[str, dict[str, float]]:
    """Device -> modality -> how far it is from the others as a multiple of what is usual; in order of names.

    `knowledge`: per device and modality (N, D), of the same rows. Modalities that fewer than three devices have are
    left out.
    """
    devices = sorted(knowledge)
    found: dict[str, dict[str, float]] = {device: {} for device in devices}
    for name in sorted({name for arrays in knowledge.values() for name in arrays}):
        having = [device for device in devices if name in knowledge[device]]
        if len(having) < FEWEST_COMPARED:
            continue
        far = distances([knowledge[device][name] for device in having])
        usual = max(LEAST_USUAL, float(np.median(far)))
        for device, distance in zip(having, far.tolist(), strict=True):
            found[device][name] = distance / usual
    return {device: scores for device, scores in found.items() if scores}


def distances(arrays: list[NDArray[np.float32]]) -> Exact:
    """(K,): each one's distance, from 0 to 1, from the median of the others; K arrays (N, D), two at least."""
    means_KD = np.stack([array.mean(axis=0, dtype=np.float64) for array in arrays])
    rows = max(1, VALUES_AT_ONCE // (len(arrays) * arrays[0].shape[1]))
    parts = [
        _row_distances(np.stack([array[first : first + rows] for array in arrays]) - means_KD[:, None])
        for first in range(0, len(arrays[0]), rows)
    ]
    whole: Exact = np.median(np.concatenate(parts, axis=1), axis=1)
    return whole


def _row_distances(x_KND: Exact) -> Exact:
    """(K, N): of every row the distance from the median of the other devices' rows, by the length of both."""
    apart = _size(x_KND - median_of_others(x_KND))
    both = _size(x_KND) + _size(median_of_others(x_KND))
    # Where both are nothing they agree.
    rows: Exact = apart / np.maximum(both, _TINY)
    return rows


def median_of_others(x_KND: Exact) -> Exact:
    """(K, N, D): per coordinate the median over all devices but the one itself, found in one sorting of all."""
    count = len(x_KND)
    order = np.argsort(x_KND, axis=0, kind="stable")
    values = np.take_along_axis(x_KND, order, axis=0)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(count)[:, None, None], axis=0)
    # Without the value of this rank, those behind it move up by one.
    low, high = (count - 2) // 2, (count - 1) // 2
    both = (np.take_along_axis(values, at + (rank <= at), axis=0) for at in (low, high))
    others: Exact = sum(both) / 2  # type: ignore[assignment]
    return others


def _size(x_KND: Exact) -> Exact:
    size: Exact = np.sqrt(np.square(x_KND).sum(axis=2))
    return size
