"""Lines of text as columns: by number, by label, and nothing but numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.columns import MOST_COLUMNS, cells, labelled, number, numbers


@pytest.mark.parametrize(
    ("line", "separator", "expected"),
    [
        ("1,2.5,-3", ",", ["1", "2.5", "-3"]),
        (" 1 , 2.5 ,", ",", ["1", "2.5", ""]),
        ("1\t2", "\t", ["1", "2"]),
        ("  1   2 \t 3", " ", ["1", "2", "3"]),
        ("1::2", "::", ["1", "2"]),
        ("", ",", [""]),
        ("1;2", ",", ["1;2"]),
    ],
)
def test_a_separator_tells_columns_apart(line: str, separator: str, expected: list[str]) -> None:
    assert cells(line, separator) == expected


def test_columns_have_numbers_from_1_and_labels() -> None:
    assert labelled(["7", "ax:0.5", "gyro y = -2e3"]) == {
        "1": "7",
        "2": "0.5",
        "ax": "0.5",
        "3": "-2e3",
        "gyro y": "-2e3",
    }
    assert labelled(["ax:1", "ax:2"])["ax"] == "2"
    assert labelled(["12:30:01"]) == {"1": "12:30:01"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("-1.5", -1.5),
        ("+.5", 0.5),
        ("3.", 3.0),
        (" 1e-3 ", 0.001),
        ("1698501144401932800", 1.6985011444019328e18),
        *(
            (each, None)
            for each in ("", "nan", "inf", "-Infinity", "1_000", "0x1f", "1,5", "1e999", "1e", "--1", "\uff11")
        ),
        ("1" * 41, None),
    ],
)
def test_a_number_is_plain_or_none(text: str, value: float | None) -> None:
    assert number(text) == value


def test_all_columns_of_a_signal_are_numbers_or_there_is_none() -> None:
    table = labelled(["1", "x", "3"])
    assert numbers(table, ["3", "1"]) == [3.0, 1.0]
    assert numbers(table, ["1", "2"]) is None
    assert numbers(table, ["1", "4"]) is None


@given(st.text(max_size=600), st.sampled_from([",", " ", "\t", ";", "::"]))
def test_whatever_a_line_is_its_columns_are_few_and_its_numbers_finite(line: str, separator: str) -> None:
    parts = cells(line, separator)
    assert len(parts) <= MOST_COLUMNS
    table = labelled(parts)
    assert len(table) <= 2 * MOST_COLUMNS
    for text in table.values():
        told = number(text)
        assert told is None or math.isfinite(told)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e37, max_value=1e37))
def test_what_python_writes_is_read_as_it_was(value: float) -> None:
    assert number(repr(value)) == value


def test_a_line_of_separators_has_no_more_columns_than_allowed() -> None:
    assert len(cells("," * 100_000, ",")) == len(cells("1 " * 100_000, " ")) == MOST_COLUMNS
