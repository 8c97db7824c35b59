"""Large frames as small ones, against the same computed pixel by pixel in whole numbers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.reduction import LEAST_READINGS, Plane, Reduction, edges

REFERENCE_LIMIT = 40


@st.composite
def frames(draw: st.DrawFn) -> tuple[Plane, tuple[int, int], tuple[float, ...]]:
    """A plane, perhaps with steps between its pixels, a shape that fits, and a crop or none."""
    height, width = draw(st.integers(1, REFERENCE_LIMIT)), draw(st.integers(1, REFERENCE_LIMIT))
    kind, largest = draw(st.sampled_from([(np.uint8, 255), (np.uint16, 65535)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = draw(st.sampled_from([1, 2, 255, largest]))
    step = draw(st.integers(1, 3))
    plane: Plane = rng.integers(0, most, (height, width * step), endpoint=True).astype(kind)[:, ::step]
    crop: tuple[float, ...] = ()
    rows, columns = height, width
    if draw(st.booleans()):
        top, bottom = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
        left, right = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
        rows, columns = round(bottom * height) - round(top * height), round(right * width) - round(left * width)
        if rows and columns:
            crop = (left, top, right, bottom)
        else:
            rows, columns = height, width
    return plane, (draw(st.integers(1, rows)), draw(st.integers(1, columns))), crop


def boxes(plane: Plane, shape: tuple[int, int], crop: tuple[float, ...]) -> list[list[list[int]]]:
    """The pixels of each box, row by row."""
    height, width = plane.shape
    left, top, right, bottom = crop or (0, 0, 1, 1)
    first_row, first_column = round(top * height), round(left * width)
    rows, columns = round(bottom * height) - first_row, round(right * width) - first_column
    given: list[list[list[int]]] = [[[] for _ in range(shape[1])] for _ in range(shape[0])]
    for i in range(shape[0]):
        for j in range(shape[1]):
            for row in range(i * rows // shape[0], (i + 1) * rows // shape[0]):
                for column in range(j * columns // shape[1], (j + 1) * columns // shape[1]):
                    given[i][j].append(int(plane[first_row + row, first_column + column]))
    return given


@given(frames(), st.sampled_from([255, 65535]))
@settings(max_examples=200, deadline=None)
def test_grey_is_the_mean_of_each_box_rounded_once(
    frame: tuple[Plane, tuple[int, int], tuple[float, ...]], white: int
) -> None:
    plane, shape, crop = frame
    expected = [[float(Fraction(sum(box), len(box) * white)) for box in row] for row in boxes(plane, shape, crop)]
    got = Reduction((plane.shape[0], plane.shape[1]), shape, crop).grey([(plane, 1.0)], white)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array(expected, dtype=np.float32))


@given(frames(), st.sampled_from([0.001, 1.0, 0.0125]))
@settings(max_examples=200, deadline=None)
def test_depth_is_the_mean_of_the_readings_in_each_box_and_0_where_they_are_few(
    frame: tuple[Plane, tuple[int, int], tuple[float, ...]], scale: float
) -> None:
    plane, shape, crop = frame
    expected = np.zeros(shape, dtype=np.float32)
    for i, row in enumerate(boxes(plane, shape, crop)):
        for j, box in enumerate(row):
            readings = [each for each in box if each]
            if readings and len(readings) * LEAST_READINGS >= len(box):
                expected[i, j] = np.float32(sum(readings) / len(readings) * scale)
    got = Reduction((plane.shape[0], plane.shape[1]), shape, crop).depth(plane, scale)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


@given(st.integers(1, 4096), st.data())
def test_boxes_tile_the_pixels_and_are_equally_large_but_for_one(pixels: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, pixels))
    sizes = np.diff(edges(pixels, count))
    assert sizes.sum() == pixels
    assert sizes.max() - sizes.min() <= 1


def test_the_largest_frame_of_the_largest_values_does_not_overflow() -> None:
    plane = np.full((4096, 4096), 65535, dtype=np.uint16)
    reduction = Reduction((4096, 4096), (1, 1))
    assert reduction.grey([(plane, 1.0)], 65535).item() == 1.0
    assert reduction.depth(plane, 1.0).item() == 65535.0


def test_planes_count_by_their_weights() -> None:
    planes = [(np.full((4, 6), value, dtype=np.uint8), weight) for value, weight in ((10, 0.5), (20, 0.25), (40, 0.25))]
    np.testing.assert_array_equal(Reduction((4, 6), (2, 3)).grey(planes, 100), np.full((2, 3), 0.2, dtype=np.float32))


def test_a_reduction_keeps_nothing_of_the_frame_before() -> None:
    reduction = Reduction((4, 4), (2, 2))
    first = reduction.grey([(np.full((4, 4), 255, dtype=np.uint8), 1.0)], 255)
    reduction.grey([(np.zeros((4, 4), dtype=np.uint8), 1.0)], 255)
    assert first.min() == 1.0
    assert reduction.depth(np.zeros((4, 4), dtype=np.uint16), 1.0).max() == 0.0


def test_a_contour_is_a_distance_between_and_a_hole_in_a_figure_is_filled_by_its_neighbours() -> None:
    plane = np.full((4, 12), 4000, dtype=np.uint16)
    plane[:, :6] = 2000  # The second box has half of each.
    plane[:, 8:] = 0
    plane[0, 0] = 0  # A hole of one pixel.
    plane[0, 8] = 1000  # One reading of sixteen is none.
    np.testing.assert_allclose(Reduction((4, 12), (1, 3)).depth(plane, 0.001), [[2.0, 3.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "crop", "problem"),
    [
        ((1, 4), (), "4 x 1 pixels are too few for 2 x 2 values"),
        ((4, 4), (0.4, 0.0, 0.5, 1.0), "0 x 4 pixels are too few for 2 x 2 values"),
        ((4, 20_000), (), "20000 x 4 pixels are more than 16384 on a side"),
    ],
)
def test_frames_that_do_not_fit_are_refused(size: tuple[int, int], crop: tuple[float, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Reduction(size, (2, 2), crop)
