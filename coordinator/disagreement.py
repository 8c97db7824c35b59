"""How far each device's knowledge lies from that of the fleet in a round: one number by modality. Pure.

    distance      d_i = median over rows n of |k_in - r_n| / (|k_in| + |r_n|), between 0 (the same) and 1 (opposite,
                  constant, or out of all scale); unrelated of one size: 0.71. k_i is the device's centred knowledge,
                  r the median, per coordinate, of all voices'
    disagreement  d_i / median over trusted devices of d

A modality's distances are divided by its own median, so that 1 is usual in each, however hard it is to learn and
whatever its encoders. Voices are the trusted devices: who is in quarantine is measured and says nothing, so that what
earlier rounds told holds where those that err meet in one round. The global knowledge that the round began with is one
more voice: with it one of two devices that errs is seen, and two of four. The reference is of all and not of all
others: of five of which two err, each of the three honest ones would see as many wrong as right (docs/lab.md,
2026-11-26).

Shapes: K devices and perhaps the global knowledge, N rows, D width of an embedding.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt.learning import Arrays

Exact = NDArray[np.float64]

# Of two, nobody can tell which one errs.
FEWEST_VOICES = 3
# Distances whose median is below this, as where knowledge is all but equal, are told apart by rounding alone.
LEAST_USUAL = 0.02
# Values of all devices that are held at once; bounds the memory, and changes no result.
VALUES_AT_ONCE = 1 << 22

_TINY = 1e-300


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """Of one device and modality: from the fleet, 0 to 1; and how many times what is usual that is."""

    distance: float
    disagreement: float


def disagreement(
    knowledge: Mapping[str, Arrays], known: Arrays | None = None, unheard: Container[str] = ()
) -> dict[str, dict[str, Distance]]:
    """Device -> modality -> how far it is from the fleet, in order of names.

    Args:
        knowledge: per device and modality (N, D), of the same rows.
        known: the global knowledge of these rows, per modality, where it has been learned.
        unheard: devices that are measured and have no voice.

    Modalities with fewer than three voices are left out, and devices that have no other.
    """
    devices = sorted(knowledge)
    found: dict[str, dict[str, Distance]] = {device: {} for device in devices}
    for name in sorted({name for arrays in knowledge.values() for name in arrays}):
        having = [device for device in devices if name in knowledge[device]]
        heard = [device not in unheard for device in having]
        arrays = [knowledge[device][name] for device in having]
        is_known = known is not None and name in known
        if known is not None and is_known:
            arrays.append(known[name])
        if not any(heard) or sum(heard) + is_known < FEWEST_VOICES:
            continue
        far = distances(arrays, [*heard, *[True] * is_known])[: len(having)]
        # The lower one of two in the middle, so that half of the devices may err.
        trusted = np.sort(far[heard])
        usual = max(LEAST_USUAL, float(trusted[(len(trusted) - 1) // 2]))
        for device, each in zip(having, far.tolist(), strict=True):
            found[device][name] = Distance(distance=each, disagreement=each / usual)
    return {device: scores for device, scores in found.items() if scores}


def worst(scores: Mapping[str, Mapping[str, Distance]]) -> dict[str, float]:
    """Each device's disagreement in the modality in which it is largest."""
    return {device: max(each.disagreement for each in of.values()) for device, of in scores.items()}


def distances(arrays: Sequence[NDArray[np.float32]], heard: Sequence[bool] | None = None) -> Exact:
    """(K,): each one's distance, from 0 to 1, from the median of those that are heard (None: all); K arrays (N, D)."""
    voices = np.ones(len(arrays), dtype=bool) if heard is None else np.array(heard, dtype=bool)
    means_KD = np.stack([array.mean(axis=0, dtype=np.float64) for array in arrays])
    rows = max(1, VALUES_AT_ONCE // (len(arrays) * arrays[0].shape[1]))
    parts = [
        _of_rows(np.stack([array[first : first + rows] for array in arrays]) - means_KD[:, None], voices)
        for first in range(0, len(arrays[0]), rows)
    ]
    whole: Exact = np.median(np.concatenate(parts, axis=1), axis=1)
    return whole


def _of_rows(x_KND: Exact, voices: NDArray[np.bool_]) -> Exact:
    """(K, N): of every row the distance from the median of the voices, by the length of both."""
    middle_ND = np.median(x_KND[voices], axis=0)
    # Where both are nothing they agree.
    both = np.maximum(_size(x_KND) + _size(middle_ND), _TINY)
    rows: Exact = _size(x_KND - middle_ND) / both
    return rows


def _size(x_ND: Exact) -> Exact:
    size: Exact = np.sqrt(np.square(x_ND).sum(axis=-1))
    return size
