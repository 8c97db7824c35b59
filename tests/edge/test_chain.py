"""Chains of lines: whatever is done to one, the first entry that is not as it was written is named."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.chain import GENESIS, BrokenChainError, Head, pack_anchor, read_anchor, read_line, write_line

SAYS: Any = st.fixed_dictionaries(
    {"kind": st.text(max_size=8), "bytes": st.integers(0, 10**6), "contained": st.text(max_size=20)}
)
CHAINS = st.lists(SAYS, min_size=1, max_size=6)


def lines_of(chain: list[dict[str, Any]]) -> tuple[list[bytes], Head]:
    lines, head = [], Head()
    for says in chain:
        line, head = write_line(head, says)
        lines.append(line)
    return lines, head


def broken_at(lines: list[bytes]) -> int | None:
    """The place of the first line, from 0, that does not follow; None when all do."""
    head = Head()
    for place, line in enumerate(lines):
        try:
            head = read_line(head, line).head
        except BrokenChainError:
            return place
    return None


@given(CHAINS)
def test_a_chain_is_read_as_it_was_written(chain: list[dict[str, Any]]) -> None:
    lines, end = lines_of(chain)
    head = Head()
    for says, line in zip(chain, lines, strict=True):
        assert line.isascii() and line.count(b"\n") == 1 and line.endswith(b"\n")
        entry = read_line(head, line)
        assert entry.says == says and entry.kind == says["kind"] and entry.previous == head.hash
        assert json.loads(line) == {"n": entry.number, **says, "hash": entry.hash}
        head = entry.head
    assert head == end and end.count == len(chain)


def test_sha256_alone_proves_a_line() -> None:
    line, head = write_line(Head(), {"kind": "offer"})
    body = b'{"n":1,"kind":"offer"}'
    assert head.hash == hashlib.sha256(GENESIS.encode() + body).hexdigest()
    assert line == body[:-1] + b',"hash":"' + head.hash.encode() + b'"}\n'


@given(CHAINS, st.data())
def test_a_byte_that_was_changed_is_named_by_its_entry(chain: list[dict[str, Any]], data: st.DataObject) -> None:
    lines, _ = lines_of(chain)
    place = data.draw(st.integers(0, len(lines) - 1))
    at, change = data.draw(st.integers(0, len(lines[place]) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(lines[place])
    changed[at] ^= change
    lines[place] = bytes(changed)
    assert broken_at(lines) == place


@given(CHAINS, st.data())
def test_an_entry_that_was_removed_repeated_moved_or_put_in_is_named(
    chain: list[dict[str, Any]], data: st.DataObject
) -> None:
    lines, _ = lines_of(chain)
    place = data.draw(st.integers(0, len(lines) - 1))
    if place < len(lines) - 1:
        assert broken_at(lines[:place] + lines[place + 1 :]) == place
        other = data.draw(st.integers(place + 1, len(lines) - 1))
        moved = list(lines)
        moved[place], moved[other] = moved[other], moved[place]
        assert broken_at(moved) == place
    assert broken_at(lines[: place + 1] + lines[place:]) == place + 1
    foreign, _ = write_line(Head(count=place), data.draw(SAYS))
    if foreign not in lines:
        assert broken_at([*lines[:place], foreign, *lines[place:]]) is not None


@given(CHAINS, st.integers(1, 200))
def test_a_line_that_is_not_whole_is_none(chain: list[dict[str, Any]], cut: int) -> None:
    lines, _ = lines_of(chain)
    lines[-1] = lines[-1][: -min(cut, len(lines[-1]))]
    assert broken_at(lines) == len(lines) - 1


def test_the_words_say_which_entries_are_missing_or_moved() -> None:
    lines, _ = lines_of([{"kind": "offer"}] * 5)
    head = read_line(Head(), lines[0]).head
    for place, words in (
        (2, "entry 2 is missing before entry 3"),
        (4, "entries 2 to 4 are missing before entry 5"),
        (0, "entry 1 stands where entry 2 is due"),
    ):
        with pytest.raises(BrokenChainError, match=words):
            read_line(head, lines[place])


@given(
    st.binary(max_size=200)
    | st.builds(lambda value: json.dumps(value).encode() + b"\n", st.dictionaries(st.text(), st.none()))
)
def test_anything_else_is_no_line_and_no_other_error(raw: bytes) -> None:
    for head in (Head(), None):
        with pytest.raises(BrokenChainError):
            read_line(head, raw)


def test_without_a_head_the_first_line_of_a_file_says_what_it_follows() -> None:
    former = Head(count=7, hash="ab" * 32)
    line, head = write_line(former, {"kind": "continue", "previous": former.hash})
    entry = read_line(None, line)
    assert entry.head == head and entry.previous == former.hash
    for says in ({"kind": "offer"}, {"kind": "continue", "previous": 5}, {"kind": "continue", "previous": "ab"}):
        with pytest.raises(BrokenChainError, match="does not say what it follows"):
            read_line(None, write_line(former, says)[0])
    with pytest.raises(BrokenChainError, match="not what was written"):
        read_line(None, write_line(former, {"kind": "continue", "previous": "cd" * 32})[0])


@given(st.integers(0, 2**53), st.binary(min_size=32, max_size=32), st.data())
def test_an_anchor_is_read_as_it_was_written_or_not_at_all(count: int, sha256: bytes, data: st.DataObject) -> None:
    head = Head(count=count, hash=sha256.hex())
    raw = pack_anchor(head)
    assert read_anchor(raw) == head
    changed = bytearray(raw)
    changed[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    assert read_anchor(bytes(changed)) != head
    assert read_anchor(raw[: data.draw(st.integers(0, len(raw) - 1))]) is None
