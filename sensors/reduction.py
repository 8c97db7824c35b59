"""Large frames as small ones: each value is the mean over a box of pixels. Pure.

Shapes: planes (H, W) of uint8 or uint16 as a camera gives them, small frames (h, w). The boxes tile the part of the
frame that is kept: box i of h covers the rows from i * H // h up to (i + 1) * H // h, columns alike, so that every
pixel counts in exactly one box and boxes differ by one row or column at most. Sums are whole numbers and exact.

Of depth, the mean of the readings in a box is taken and 0, which is no reading, does not count. A mean over hundreds of
readings has a small part of their noise, and moves steadily with what moves, where the one pixel in the middle would
flicker and a thin limb come and go. Its price is a contour of boxes, one wide, that hold a distance between figure and
wall. A box with too few readings has none: they stand at the edge of a hole, where a depth camera errs most.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sensors.source import Floats

Plane = NDArray[np.uint8] | NDArray[np.uint16]
Sums = NDArray[np.uint64]

# Sums over the rows of a box stay below 2**32 up to 65,537 rows of 16 bits.
LARGEST_SIDE = 16_384
# A box of depth needs so many of its readings: one in eight.
LEAST_READINGS = 8


class Reduction:
    """From frames of one size to frames of another, over and over: it holds the room that its sums need."""

    def __init__(self, size: tuple[int, int], shape: tuple[int, int], crop: Sequence[float] = ()) -> None:
        """What to make of what.

        Args:
            size: (H, W), of the camera's frames.
            shape: (h, w), of what they become.
            crop: left, top, right and bottom edge of the part that is kept, as shares of the frame's width and height;
                empty for all of it. Edges lie between the nearest pixels.

        Raises:
            ValueError: when there are fewer pixels than boxes, or more than sums can hold.
        """
        left, top, right, bottom = crop or (0.0, 0.0, 1.0, 1.0)
        self._rows = slice(round(top * size[0]), round(bottom * size[0]))
        self._columns = slice(round(left * size[1]), round(right * size[1]))
        kept = (self._rows.stop - self._rows.start, self._columns.stop - self._columns.start)
        if kept[0] < shape[0] or kept[1] < shape[1]:
            raise ValueError(f"{kept[1]} x {kept[0]} pixels are too few for {shape[1]} x {shape[0]} values")
        if max(size) > LARGEST_SIDE:
            raise ValueError(f"{size[1]} x {size[0]} pixels are more than {LARGEST_SIDE} on a side")
        self._row_edges, self._column_edges = edges(kept[0], shape[0]), edges(kept[1], shape[1])
        self._pixels = np.outer(np.diff(self._row_edges), np.diff(self._column_edges)).astype(np.uint64)
        self._sums_of_rows = np.empty((shape[0], kept[1]), dtype=np.uint32)

    def grey(self, planes: Sequence[tuple[Plane, float]], white: int) -> Floats:
        """The weighted sum of planes (H, W) as (h, w), of which `white` becomes 1."""
        total = sum(weight * self._sums(plane) for plane, weight in planes)
        mean: Floats = (total / (self._pixels * float(white))).astype(np.float32)
        return mean

    def depth(self, plane: Plane, scale: float) -> Floats:
        """Distances (h, w), a step of the plane (H, W) being `scale`; 0 where too few pixels have a reading."""
        readings = self._sums((plane != 0).view(np.uint8))
        enough = readings * LEAST_READINGS >= self._pixels
        # What has no reading is 0 and adds nothing.
        mean: Floats = np.where(enough, self._sums(plane) / np.maximum(readings, 1) * scale, 0).astype(np.float32)
        return mean

    def _sums(self, plane: Plane) -> Sums:
        kept = plane[self._rows, self._columns]
        for box, (first, end) in enumerate(zip(self._row_edges[:-1], self._row_edges[1:], strict=True)):
            np.add.reduce(kept[first:end], axis=0, dtype=np.uint32, out=self._sums_of_rows[box])
        sums: Sums = np.add.reduceat(self._sums_of_rows, self._column_edges[:-1], axis=1, dtype=np.uint64)
        return sums


def edges(pixels: int, boxes: int) -> NDArray[np.intp]:
    """Where `boxes` boxes of `pixels` pixels begin (boxes + 1,), the end of the last included."""
    return np.arange(boxes + 1) * pixels // boxes
