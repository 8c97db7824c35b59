"""Pixel formats, each against a picture that was packed byte by byte as the kernel's documentation draws it."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.miniatures import Miniatures
from sensors.pixels import COMPRESSED, LAYOUTS, PREFERENCE, Content, Format

# 4 x 2 pixels; luma (or depth) 1..8 by row, colours from 100 on.
LUMA = [[1, 2, 3, 4], [5, 6, 7, 8]]
PACKED: dict[Format, list[list[int]]] = {
    "grey": LUMA,
    "z16": [[1, 0, 2, 0, 3, 0, 4, 1], [5, 0, 6, 0, 7, 0, 8, 0]],
    "y16": [[1, 0, 2, 0, 3, 0, 4, 1], [5, 0, 6, 0, 7, 0, 8, 0]],
    "yuyv": [[1, 100, 2, 101, 3, 102, 4, 103], [5, 104, 6, 105, 7, 106, 8, 107]],
    "uyvy": [[100, 1, 101, 2, 102, 3, 103, 4], [104, 5, 105, 6, 106, 7, 107, 8]],
    "nv12": [*LUMA, [100, 101, 102, 103]],
    "yu12": [*LUMA, [100, 101], [102, 103]],
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("padding", [0, 3])
def test_brightness_and_distance_stand_where_the_format_has_them(name: Format, padding: int) -> None:
    layout = LAYOUTS[name]
    stride = layout.stride(4, 4 * layout.pixel_bytes + padding)
    # The chroma planes of yu12 have rows half as long, padding included.
    data = b"".join(bytes(row) + bytes([255] * (padding if len(row) > 2 else 0)) for row in PACKED[name])
    [(plane, weight)] = layout.planes(memoryview(data), 4, 2, stride)
    expected = np.array(LUMA)
    if layout.white > 255:
        expected = expected + np.array([[0, 0, 0, 256], [0, 0, 0, 0]])
    np.testing.assert_array_equal(plane, expected)
    assert weight == 1.0


@pytest.mark.parametrize(("bits", "brightness"), [(16, 1023 / 65535), (10, 1.0)])
def test_a_grey_pixel_of_fewer_bits_than_it_is_stored_in_is_white_at_its_own_largest_value(
    bits: int, brightness: float
) -> None:
    small = Miniatures("y16", "grey", (2, 4), 0, shape=(1, 2), crop=(), scale=1, bits=bits)
    image = small.of(memoryview(b"\xff\x03" * 8))
    assert image is not None
    np.testing.assert_allclose(image, np.full((1, 2), brightness), rtol=1e-6)


@pytest.mark.parametrize(("name", "order"), [("rgb24", "rgb"), ("bgr24", "bgr")])
def test_colours_have_the_weights_of_bt_601(name: Format, order: str) -> None:
    data = memoryview(bytes([10, 20, 30, 40, 50, 60]))
    planes = LAYOUTS[name].planes(data, 2, 1, 6)
    weights = {"r": 0.299, "g": 0.587, "b": 0.114}
    assert [weight for _, weight in planes] == [weights[each] for each in order]
    assert [plane.tolist() for plane, _ in planes] == [[[10, 40]], [[20, 50]], [[30, 60]]]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_frame_of_the_least_bytes_is_whole_and_one_byte_less_is_not(name: Format) -> None:
    layout = LAYOUTS[name]
    for width, height, padding in ((4, 2, 0), (6, 4, 5), (640, 480, 64)):
        stride = layout.stride(width, width * layout.pixel_bytes + padding)
        whole = bytes(layout.frame_bytes(width, height, stride))
        rows = height * 3 // 2 if name in ("nv12", "yu12") else height
        assert len(whole) + padding == stride * rows
        for plane, _ in layout.planes(memoryview(whole), width, height, stride):
            assert plane.shape == (height, width)


@given(st.sampled_from(sorted(LAYOUTS)), st.integers(1, 9), st.integers(1, 9), st.integers(0, 40))
def test_no_plane_reaches_beyond_a_whole_frame(name: Format, width: int, height: int, told: int) -> None:
    layout = LAYOUTS[name]
    stride = layout.stride(width, told)
    planes = layout.planes(memoryview(bytes(layout.frame_bytes(width, height, stride))), width, height, stride)
    assert all(plane.shape == (height, width) and not plane.any() for plane, _ in planes)


def test_every_format_is_preferred_somewhere_and_can_be_read() -> None:
    assert {name for names in PREFERENCE.values() for name in names} == set(get_args(Format))
    assert set(LAYOUTS) == set(get_args(Format)) - {COMPRESSED}
    assert set(PREFERENCE) == set(get_args(Content))
    assert PREFERENCE["depth"][0] == "z16"
    assert PREFERENCE["grey"][-1] == COMPRESSED
