"""What a sensor's signal looks like: its name, shape, rate and unit, and how it is cut into windows."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from mekt.schema import Bounds, Positive

# 64 x 64 x 300 frames and 4096 x 64 samples are both far above any modality in use; a peer cannot ask for more.
LARGEST_WINDOW_VALUES = 4_000_000
# Windows that may share a sample: a stride of one percent of a window is more than anything in use needs.
MOST_OVERLAPS = 100

ModalityName = Annotated[str, Bounds(pattern=r"[a-z][a-z0-9_]{0,15}")]
Side = Annotated[int, Bounds(low=1, high=1024)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """One kind of signal. `shape` is that of one sample: (C,) for a signal of C channels, (H, W) for a frame."""

    name: ModalityName
    shape: Annotated[tuple[Side, ...], Bounds(shortest=1, longest=2)]
    rate_hz: Positive
    unit: Annotated[str, Bounds(longest=16)]

    @property
    def is_frames(self) -> bool:
        """True for image sequences, False for signals."""
        return len(self.shape) == 2

    @property
    def channels(self) -> int:
        """Values that are normalised apart: C of a signal, 1 of a frame."""
        return 1 if self.is_frames else self.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowSpec:
    """A window's length and the distance between the starts of two windows, in seconds."""

    window_s: Positive
    stride_s: Positive

    def __post_init__(self) -> None:
        if self.stride_s * MOST_OVERLAPS < self.window_s:
            raise ValueError(
                f"stride_s: {self.stride_s:g} s makes every sample part of more than {MOST_OVERLAPS} windows; "
                f"expected at least {self.window_s / MOST_OVERLAPS:g}"
            )

    def samples(self, modality: Modality) -> int:
        """T, the samples of `modality` in one window."""
        return max(1, round(self.window_s * modality.rate_hz))

    def shape(self, modality: Modality) -> tuple[int, ...]:
        """A window's shape: (T, C) or (T, H, W)."""
        return (self.samples(modality), *modality.shape)

    def values(self, modality: Modality) -> int:
        """How many numbers one window of `modality` holds."""
        return math.prod(self.shape(modality))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """Per channel: normalised = (value - mean) / std. One entry for frames, C for signals."""

    mean: Annotated[tuple[float, ...], Bounds(shortest=1, longest=1024)]
    std: Annotated[tuple[Positive, ...], Bounds(shortest=1, longest=1024)]

    def normalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(values - mean) / std in float32: `values` (..., C), or frames of any shape when there is one channel."""
        mean, std = (np.asarray(each, dtype=np.float32) for each in (self.mean, self.std))
        scaled: NDArray[np.float32] = (np.asarray(values, dtype=np.float32) - mean) / std
        return scaled
