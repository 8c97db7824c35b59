"""Weighted numbers as whole ones, so that sums of them wrap around and come out exact. Pure.

Shapes: N rows, D embedding width, L = N * D + 1 words: a weighted matrix, row after row, and its weight behind it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Words = NDArray[np.unsignedinteger[Any]]
UNSIGNED: dict[int, np.dtype[Any]] = {bits: np.dtype(f"<u{bits // 8}") for bits in (16, 32, 64)}
SIGNED: dict[int, np.dtype[Any]] = {bits: np.dtype(f"<i{bits // 8}") for bits in (16, 32, 64)}


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedPoint:
    """How a device's matrix and its weight become words of `bits`.

    A value in [-largest, largest] is rounded to a multiple of 2^-fraction and times the weight, from 0 to
    `most_weight`; the sum over `most_devices` of those fits into a word with its sign. So a weighted mean differs from
    the exact one by at most 2^-(fraction + 1): 0.0005 as it is here, which is what float16 keeps of numbers near 1.

    Raises:
        ValueError: when such sums do not fit into a word.
    """

    bits: Literal[16, 32, 64] = 32
    fraction: int = 10
    largest: int = 16
    most_weight: int = 4096
    most_devices: int = 31

    def __post_init__(self) -> None:
        if self.fraction < 0 or min(self.largest, self.most_weight, self.most_devices) < 1:
            raise ValueError("fixed point: every limit is 1 or more")
        # Minus the largest sum has to be there as well.
        if (self.largest << self.fraction) * self.most_weight * self.most_devices >= 1 << (self.bits - 1):
            raise ValueError(f"fixed point: sums of {self.most_devices} devices do not fit into {self.bits} bits")

    def size_bytes(self, shape: tuple[int, int]) -> int:
        """Of the words of a matrix of this shape, with its weight."""
        return (shape[0] * shape[1] + 1) * self.bits // 8

    @property
    def precision(self) -> float:
        """How far a weighted mean may lie from the exact one, where no value was over `largest`."""
        return 2.0 ** -(self.fraction + 1)

    def words(self, rows_ND: Floats, weight: int) -> Words:
        """The matrix times its weight, and the weight (L,). Values over `largest` count as that.

        Raises:
            ValueError: when the weight is out of bounds, or a value is not finite.
        """
        if not 0 <= weight <= self.most_weight:
            raise ValueError(f"fixed point: a weight of {weight} is none of 0 to {self.most_weight}")
        if not np.isfinite(rows_ND).all():
            raise ValueError("fixed point: a value is not finite")
        kept_ND = np.clip(rows_ND.astype(np.float64), -self.largest, self.largest)
        steps_ND = np.rint(kept_ND * 2.0**self.fraction).astype(np.int64)
        words_L: Words = np.append(steps_ND.ravel() * weight, weight).astype(UNSIGNED[self.bits])
        return words_L

    def mean(self, sum_L: Words, shape: tuple[int, int]) -> tuple[Floats, int]:
        """The weighted mean (N, D) that a sum of words stands for, and the sum of the weights.

        Raises:
            ValueError: when the sum is of another size, or of no weight that such a sum can have.
        """
        if len(sum_L) != shape[0] * shape[1] + 1:
            raise ValueError(f"fixed point: {len(sum_L)} words are no sum of matrices of shape {shape}")
        signed_L = sum_L.view(SIGNED[self.bits]).astype(np.int64)
        weight = int(signed_L[-1])
        if not 0 < weight <= self.most_weight * self.most_devices:
            raise ValueError(f"fixed point: {weight} is no sum of weights")
        mean_ND = signed_L[:-1].reshape(shape).astype(np.float64) / (weight * 2.0**self.fraction)
        return mean_ND.astype(np.float32), weight


# What devices' knowledge is summed in.
FINE = FixedPoint()
# Half the bytes, for few devices whose weights are told in fifteenths. It is finer than int4, which no score was seen
# to mind, of every dimension whose largest value is over 0.44.
COARSE = FixedPoint(bits=16, fraction=4, largest=8, most_weight=15, most_devices=15)
