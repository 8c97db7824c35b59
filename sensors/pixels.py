"""The pixel formats that are read: where in a camera's bytes the brightness or distance of a pixel stands. Pure.

After the kernel's documentation, "Image Formats" (userspace-api/media/v4l/pixfmt.html). Of a picture with colours only
its brightness is taken: the luma where the format has one, else the weights of ITU-R BT.601. A sample's whole range is
0..1, also where luma keeps to 16..235 of 255: drivers seldom say which of both they give, nothing is clipped, and what
learns from it takes out mean and spread anyway.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sensors.reduction import Plane

Content = Literal["depth", "grey"]
Format = Literal["z16", "y16", "grey", "yuyv", "uyvy", "nv12", "yu12", "rgb24", "bgr24", "mjpeg"]

RED, GREEN, BLUE = 0.299, 0.587, 0.114
COMPRESSED: Format = "mjpeg"
# What is tried first when the settings name no format: what needs the fewest bytes and steps per frame.
PREFERENCE: dict[Content, tuple[Format, ...]] = {
    "depth": ("z16", "y16"),
    "grey": ("grey", "yuyv", "uyvy", "nv12", "yu12", "rgb24", "bgr24", "y16", "mjpeg"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a frame's bytes are laid out: rows of `pixel_bytes` a pixel, then perhaps others.

    `samples` are the bytes at which a pixel's samples begin, with the weight that each has; `white` is the largest
    sample. A frame has `halves` / 2 rows of bytes for each row of pixels (colours behind the luma).
    """

    pixel_bytes: int
    samples: tuple[tuple[int, float], ...] = ((0, 1.0),)
    white: int = 255
    halves: int = 2

    def stride(self, width: int, told: int) -> int:
        """Bytes from a row to the next one: what the driver told, if it can be."""
        return max(told, width * self.pixel_bytes)

    def frame_bytes(self, width: int, height: int, stride: int) -> int:
        """How many bytes a whole frame has at least; behind its last row there may be no padding."""
        return stride * (height * self.halves // 2 - 1) + width * self.pixel_bytes

    def planes(self, data: memoryview, width: int, height: int, stride: int) -> list[tuple[Plane, float]]:
        """The frame's samples (height, width) as they lie in `data`, each with its weight; nothing is copied."""
        kind = np.dtype("<u2" if self.white > 255 else "u1")
        strides = (stride, self.pixel_bytes)
        return [(np.ndarray((height, width), kind, data, start, strides), weight) for start, weight in self.samples]


LAYOUTS: dict[Format, Layout] = {
    "z16": Layout(pixel_bytes=2, white=65_535),
    "y16": Layout(pixel_bytes=2, white=65_535),
    "grey": Layout(pixel_bytes=1),
    "yuyv": Layout(pixel_bytes=2),
    "uyvy": Layout(pixel_bytes=2, samples=((1, 1.0),)),
    "nv12": Layout(pixel_bytes=1, halves=3),
    "yu12": Layout(pixel_bytes=1, halves=3),
    "rgb24": Layout(pixel_bytes=3, samples=((0, RED), (1, GREEN), (2, BLUE))),
    "bgr24": Layout(pixel_bytes=3, samples=((0, BLUE), (1, GREEN), (2, RED))),
}
