"""One stream's frames, as a camera gives their bytes, into the small frames of a modality."""

from collections.abc import Sequence

from sensors.frames import pair
from sensors.jpeg import Decoder, decoder
from sensors.pixels import COMPRESSED, LAYOUTS, Content, Format
from sensors.reduction import Reduction
from sensors.source import Floats

# A compressed picture is decoded so large at least, in pixels on each side of a box.
PIXELS_OF_BOX = 2


class Miniatures:
    """Makes them one after the other, and holds nothing of a frame in between."""

    def __init__(
        self,
        name: Format,
        content: Content,
        size: tuple[int, int],
        stride: int,
        *,
        shape: Sequence[int],
        crop: Sequence[float],
        scale: float,
        bits: int = 16,
    ) -> None:
        """What to make of what.

        Args:
            name: the frames' format.
            content: what their pixels are.
            size: height and width in pixels.
            stride: bytes from a row to the next one as the driver tells it, 0 where it does not.
            shape: rows and columns of what they become.
            crop: the part that is kept.
            scale: of a step of depth.
            bits: of a sample that is stored in 16.

        Raises:
            ValueError: when frames like these cannot become that.
            MissingPackageError: when a decoder is missing.
        """
        self._size, self._shape, self._crop = size, pair(shape), crop
        self._content, self._scale = content, scale
        self._white = min(LAYOUTS[name].white, (1 << bits) - 1) if name != COMPRESSED else 255
        self._reduction = Reduction(size, self._shape, crop)
        self._decode: Decoder | None = None
        if name == COMPRESSED:
            self._decode = decoder()
            left, top, right, bottom = crop or (0.0, 0.0, 1.0, 1.0)
            columns, rows = self._shape[1] / (right - left), self._shape[0] / (bottom - top)
            self._enough = (int(PIXELS_OF_BOX * columns) + 1, int(PIXELS_OF_BOX * rows) + 1)
            self._decoded = size
        else:
            self._layout = LAYOUTS[name]
            self._stride = self._layout.stride(size[1], stride)
            self._least_bytes = self._layout.frame_bytes(size[1], size[0], self._stride)

    def of(self, data: memoryview) -> Floats | None:
        """The small frame (rows, columns); None when these bytes are no whole frame."""
        height, width = self._size
        if self._decode is not None:
            grey = self._decode(bytes(data), (width, height), self._enough)
            if grey is None:
                return None
            if grey.shape != self._decoded:
                # A decoder that was asked for less gives always the same less.
                self._decoded = (grey.shape[0], grey.shape[1])
                self._reduction = Reduction(self._decoded, self._shape, self._crop)
            return self._reduction.grey([(grey, 1.0)], self._white)
        if len(data) < self._least_bytes:
            return None
        planes = self._layout.planes(data, width, height, self._stride)
        if self._content == "depth":
            return self._reduction.depth(planes[0][0], self._scale)
        return self._reduction.grey(planes, self._white)
