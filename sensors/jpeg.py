"""A camera's JPEG pictures as brightness, decoded by Pillow, which is an extra; whatever the bytes, work is bounded."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import MissingPackageError

REMEDY = 'in the folder of Mekt: pip install -c constraints.txt -e ".[jpeg]"'
# A camera's picture is coded in one pass over all pixels, or in one for each colour. Each more costs as much again.
MOST_SCANS = 3
START_OF_SCAN = b"\xff\xda"

# Bytes, the (width, height) they must have, and what is enough: brightness (H, W), or None for a damaged picture.
Decoder = Callable[[bytes, tuple[int, int], tuple[int, int]], NDArray[np.uint8] | None]


def decoder() -> Decoder:
    """What decodes pictures.

    Raises:
        MissingPackageError: when Pillow is not installed.
    """
    try:
        from PIL.JpegImagePlugin import JpegImageFile
    except ImportError as error:
        raise MissingPackageError(
            f"pictures in JPEG need Pillow, which is not installed ({error}); {REMEDY}", catalogue.PACKAGE_MISSING
        ) from error

    def decode(data: bytes, size: tuple[int, int], enough: tuple[int, int]) -> NDArray[np.uint8] | None:
        if data.count(START_OF_SCAN) > MOST_SCANS:
            return None
        try:
            # The header alone is read until the picture is known to be of the camera's size.
            picture: Any = JpegImageFile(io.BytesIO(data))
            if picture.size != size:
                return None
            # A half, a quarter or an eighth as large where that is enough, which is a mean over the pixels as well.
            picture.draft("L", enough)
            grey: NDArray[np.uint8] = np.asarray(picture.convert("L"))
        except Exception:
            # A decoder may raise anything at a stranger's bytes, and all of it means the same.
            return None
        return grey

    return decode
