"""Weighted numbers as whole ones: sums of words are sums of numbers, to the precision that is promised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mekt.fixedpoint import COARSE, FixedPoint, Words

SHAPE = (4, 3)
WIDE = FixedPoint(bits=64, fraction=20, largest=1024, most_weight=2**20, most_devices=2**12)


@given(st.data(), st.sampled_from([FixedPoint(), WIDE, COARSE]))
def test_the_mean_of_a_sum_of_words_is_the_weighted_mean_to_the_promised_precision(
    data: st.DataObject, fixed: FixedPoint
) -> None:
    rows = hnp.arrays(np.float32, SHAPE, elements=st.floats(-fixed.largest, fixed.largest, width=32))
    one = st.tuples(rows, st.integers(1, fixed.most_weight))
    given = data.draw(st.lists(one, min_size=1, max_size=min(31, fixed.most_devices)))
    total: Words = np.zeros(13, np.dtype(f"<u{fixed.bits // 8}"))
    for matrix, weight in given:
        total = total + fixed.words(matrix, weight)
    mean, weight = fixed.mean(total, SHAPE)
    exact = np.average(
        np.stack([matrix.astype(np.float64) for matrix, _ in given]), axis=0, weights=[w for _, w in given]
    )
    assert weight == sum(each for _, each in given)
    # And float32's own rounding of numbers up to the largest.
    assert np.abs(mean - exact).max() <= fixed.precision + fixed.largest * 2.0**-24


def test_a_worked_example() -> None:
    fixed = FixedPoint(fraction=1, largest=4, most_weight=8, most_devices=2)
    rows = np.array([[0.5, -1.0], [3.7, -100.0]], np.float32)
    assert fixed.words(rows, 3).view("<i4").tolist() == [3, -6, 21, -24, 3]
    assert fixed.precision == 0.25


def test_the_largest_sum_fits_and_one_device_more_is_refused() -> None:
    fixed = FixedPoint()
    rows = np.full(SHAPE, -16.0, np.float32)
    total: Words = np.sum([fixed.words(rows, 4096) for _ in range(31)], axis=0, dtype=np.uint32)
    assert (fixed.mean(total, SHAPE)[0] == -16.0).all()
    with pytest.raises(ValueError, match="sums of 32 devices do not fit into 32 bits"):
        FixedPoint(most_devices=32)


@pytest.mark.parametrize("weight", [-1, 4097])
def test_a_weight_out_of_bounds_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match="none of 0 to 4096"):
        FixedPoint().words(np.zeros(SHAPE, np.float32), weight)


def test_what_is_no_number_or_no_sum_is_refused() -> None:
    fixed = FixedPoint()
    with pytest.raises(ValueError, match="not finite"):
        fixed.words(np.full(SHAPE, np.nan, np.float32), 1)
    with pytest.raises(ValueError, match="no sum of matrices"):
        fixed.mean(np.zeros(5, np.uint32), SHAPE)
    for weight in (0, 2**31, 31 * 4096 + 1):
        with pytest.raises(ValueError, match="no sum of weights"):
            fixed.mean(np.array([*[0] * 12, weight], np.uint32), SHAPE)
    with pytest.raises(ValueError, match="1 or more"):
        FixedPoint(most_weight=0)
