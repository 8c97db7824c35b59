"""What the settings of every camera have in common: sizes in pixels, the part that is kept, what it becomes. Pure."""

from collections.abc import Sequence
from typing import Annotated

from mekt.modality import Side
from mekt.schema import Bounds
from sensors.reduction import Reduction

FrameSide = Annotated[int, Bounds(low=8, high=4096)]
# Rows and columns of the small frame.
Shape = Annotated[tuple[Side, ...], Bounds(shortest=2, longest=2)]
# Left, top, right and bottom edge as shares of width and height; empty for the whole frame.
Crop = Annotated[tuple[Annotated[float, Bounds(low=0, high=1)], ...], Bounds(longest=4)]
Rate = Annotated[float, Bounds(low=0.1, high=240)]


def check_frames(size: tuple[int, int], shape: Sequence[int], crop: Sequence[float]) -> None:
    """Raise ValueError, as settings do, when frames of `size` (H, W) cannot be cropped so or become `shape`."""
    if crop and (len(crop) != 4 or not crop[0] < crop[2] or not crop[1] < crop[3]):
        raise ValueError("crop: expected left, top, right and bottom edge as shares, such as [0.1, 0.0, 0.9, 1.0]")
    try:
        Reduction(size, pair(shape), crop)
    except ValueError as error:
        raise ValueError(f"shape: {error}; ask for larger frames, or lower it") from error


def pair(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a checked shape."""
    rows, columns = shape
    return rows, columns
