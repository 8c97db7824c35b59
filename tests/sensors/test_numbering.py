"""Frames that were lost, by the numbers of those that came."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.numbering import Numbering


def lost(numbers: Iterable[int]) -> int:
    numbering = Numbering()
    for each in numbers:
        numbering.take(each)
    return numbering.lost


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], 0),
        ([0, 1, 2], 0),
        ([57, 58, 60], 1),
        ([2**32 - 2, 2**32 - 1, 0, 1], 0),
        ([2**32 - 2, 1], 2),
        ([0, 2, 1, 3], 0),
        ([0, 3, 1, 4, 2, 5], 0),
        ([0, 4, 2, 5], 2),
        ([0, 0, 0, 0], 0),
        ([5, 5, 6], 0),
        ([1000, 1001, 0, 1, 2], 0),
        ([0, 3_000_000_000, 3_000_000_001, 3_000_000_003], 1),
    ],
)
def test_what_never_came_is_counted_once(numbers: list[int], expected: int) -> None:
    assert lost(numbers) == expected


@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=1, max_size=200))
def test_whatever_is_left_out_between_the_first_and_the_last_is_lost_across_the_wrap_too(
    first: int, there: list[bool]
) -> None:
    numbers = [(first + step) % 2**32 for step, comes in enumerate([True, *there, True]) if comes]
    assert lost(numbers) == there.count(False)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_no_numbers_make_it_less_than_none(numbers: list[int]) -> None:
    assert lost(numbers) >= 0
