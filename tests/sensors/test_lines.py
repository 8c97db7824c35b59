"""Bytes as lines: however they are cut, and whatever they are."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sensors.lines import LONGEST_LINE_BYTES, Lines


def fed(lines: Lines, *pieces: bytes) -> list[str]:
    return [line for piece in pieces for line in lines.feed(piece)]


def test_what_stands_before_the_first_end_of_a_line_is_left_out() -> None:
    assert fed(Lines(), b"5,6\n1,2\r\n3,4\n7,") == ["1,2", "3,4"]


def test_a_line_that_comes_in_parts_is_whole() -> None:
    assert fed(Lines(), b"\n", b"1", b",", b"2", b"\n") == ["1,2"]


def test_a_return_alone_ends_a_line_and_empty_lines_are_none() -> None:
    assert fed(Lines(), b"\r1\r2\n\n \n3\r\n") == ["1", "2", "3"]


def test_a_line_that_is_too_long_is_counted_and_the_next_one_is_whole() -> None:
    lines = Lines()
    assert fed(lines, b"\n", b"x" * (LONGEST_LINE_BYTES + 1), b"yyy\nok\n") == ["ok"]
    assert fed(lines, b"x" * (3 * LONGEST_LINE_BYTES) + b"\n" + b"z" * LONGEST_LINE_BYTES + b"\n") == [
        "z" * LONGEST_LINE_BYTES
    ]
    assert lines.overlong == 2


def test_a_line_that_never_ends_is_not_kept() -> None:
    lines = Lines()
    lines.feed(b"\n")
    for _ in range(1000):
        lines.feed(b"x" * 1000)
        assert len(lines._part) <= LONGEST_LINE_BYTES
    assert lines.overlong == 1


def test_what_is_no_text_is_counted() -> None:
    lines = Lines()
    assert fed(lines, b"\n\xff\xfe\n1\n\x80\n") == ["1"]
    assert lines.garbled == 2


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=20))
def test_lines_do_not_depend_on_how_the_bytes_are_cut(data: bytes, cuts: list[int]) -> None:
    whole, parts = Lines(), Lines()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert fed(parts, *pieces) == whole.feed(data)
    assert (parts.garbled, parts.overlong) == (whole.garbled, whole.overlong)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40), max_size=10))
def test_every_line_that_is_text_comes_out(texts: list[str]) -> None:
    sent = "\n" + "".join(text + "\n" for text in texts)
    assert Lines().feed(sent.encode()) == [text.strip() for text in texts if text.strip()]
