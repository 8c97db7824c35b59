"""A camera's JPEG pictures: what decodes, what is damaged, and that no bytes cost more than a picture."""

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mekt.errors import MissingPackageError
from sensors.jpeg import decoder
from sensors.miniatures import Miniatures

image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
SIZE = (320, 240)


def scene(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A smooth picture in colours, (height, width, 3)."""
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return np.stack([255 * x, 255 * y, 255 * (1 - x) * y], axis=2).astype(np.uint8)


def jpeg(width: int = SIZE[0], height: int = SIZE[1], **options: object) -> bytes:
    file = io.BytesIO()
    image.fromarray(scene(width, height)).save(file, "JPEG", **({"quality": 90} | options))
    return file.getvalue()


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """The header's segments (marker, bytes with the marker), the last with all that follows."""
    place, given = 2, []
    while data[place + 1] != 0xDA:
        length = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        given.append((data[place + 1], data[place : place + length]))
        place += length
    return [*given, (0xDA, data[place:])]


def miniatures(shape: tuple[int, int] = (12, 16), crop: tuple[float, ...] = ()) -> Miniatures:
    return Miniatures("mjpeg", "grey", (SIZE[1], SIZE[0]), 0, shape=shape, crop=crop, scale=1)


@pytest.mark.parametrize(
    ("shape", "crop"),
    [
        ((3, 4), ()),
        ((24, 32), ()),
        ((3, 160), ()),
        ((120, 4), ()),
        ((240, 320), ()),
        ((3, 4), (0.25, 0.1, 0.75, 1)),
        ((24, 32), (0.25, 0.1, 0.75, 1)),
    ],
)
def test_a_picture_becomes_its_brightness_like_the_uncompressed_one(
    shape: tuple[int, int], crop: tuple[float, ...]
) -> None:
    raw = Miniatures("rgb24", "grey", (SIZE[1], SIZE[0]), 0, shape=shape, crop=crop, scale=1)
    expected, got = raw.of(memoryview(scene().tobytes())), miniatures(shape, crop).of(memoryview(jpeg()))
    assert expected is not None
    assert got is not None
    np.testing.assert_allclose(got, expected, atol=0.02)


def test_a_picture_without_tables_as_webcams_send_it_decodes_all_the_same() -> None:
    whole = jpeg()
    bare = whole[:2] + b"".join(part for marker, part in segments(whole) if marker != 0xC4)
    assert len(bare) < len(whole)
    np.testing.assert_array_equal(decoder()(bare, SIZE, SIZE), decoder()(whole, SIZE, SIZE))


def test_padding_behind_a_picture_does_no_harm() -> None:
    np.testing.assert_array_equal(decoder()(jpeg() + bytes(1000), SIZE, SIZE), decoder()(jpeg(), SIZE, SIZE))


def test_no_more_is_decoded_than_is_enough() -> None:
    grey = decoder()(jpeg(), SIZE, (32, 24))
    assert grey is not None
    assert grey.shape == (30, 40)


def lying_about_its_size() -> bytes:
    """A picture that claims to have 65,500 pixels on a side."""
    whole = bytearray(jpeg())
    place = whole.index(b"\xff\xc0")
    whole[place + 5 : place + 9] = (65_500).to_bytes(2, "big") * 2
    return bytes(whole)


def many_scans() -> bytes:
    """A picture that would be gone over a thousand times."""
    *header, (_, scan) = segments(jpeg(progressive=True))
    return b"\xff\xd8" + b"".join(part for _, part in header) + scan[:-2] * 1000 + b"\xff\xd9"


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"\xff\xd8\xff\xd9",
        lambda: jpeg()[: len(jpeg()) // 2],
        lambda: jpeg(width=640),
        lying_about_its_size,
        lambda: jpeg(progressive=True),
        many_scans,
        lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
    ids=["nothing", "no picture", "cut", "another size", "a bomb", "progressive", "many scans", "another format"],
)
def test_what_is_no_whole_picture_of_the_cameras_size_is_damaged(make: Callable[[], bytes]) -> None:
    assert decoder()(make(), SIZE, SIZE) is None


@given(st.integers(0, 2**32), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_spoilt_pictures_give_a_frame_or_nothing_and_never_an_error(
    seed: int, spoilt: list[tuple[float, int]], length: float
) -> None:
    data = bytearray(jpeg(quality=seed % 60 + 20))[: 1 + int(length * 20_000)]
    for where, what in spoilt:
        data[int(where * (len(data) - 1))] = what
    got = miniatures().of(memoryview(bytes(data)))
    assert got is None or (got.shape == (12, 16) and got.min() >= 0 and got.max() <= 1)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_picture_are_damaged(data: bytes) -> None:
    assert decoder()(b"\xff\xd8" + data, SIZE, SIZE) is None


def test_where_pillow_is_missing_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.JpegImagePlugin", None)
    with pytest.raises(MissingPackageError, match=r'Pillow, which is not installed .*; in the folder .*"\.\[jpeg\]"'):
        decoder()
