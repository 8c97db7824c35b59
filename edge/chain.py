"""Entries of a log as lines of text, each bound to all before it by a hash. Pure.

A line is a JSON object that ends with `"hash"`: the SHA-256, in hexadecimal, over the hash of the line before it and
the line's own bytes up to `,"hash"` and a closing brace. So anybody can check a log with sha256 alone:

    sha256(previous hash + '{"n":7,...,"contained":"..."}')

Whatever is flipped, removed, repeated, inserted or exchanged, one line's hash or number is then wrong, and it is the
first one that is not as it was written. What is cut off at the end leaves no trace here; for that there is an `Anchor`.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64
LARGEST_COUNT = 2**53
_TAIL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n')
_TAIL_BYTES = len(',"hash":""}\n') + 64
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Where a chain ends: after so many entries, with this hash of the last one."""

    count: int = 0
    hash: str = GENESIS

    def __post_init__(self) -> None:
        if not 0 <= self.count <= LARGEST_COUNT or not _HASH.fullmatch(self.hash):
            raise ValueError("no head of a chain")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line: its number from 1, the hashes before and behind it, and what it says."""

    number: int
    previous: str
    hash: str
    says: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What the line is about."""
        return str(self.says["kind"])

    @property
    def head(self) -> Head:
        """The end of the chain with this entry."""
        return Head(count=self.number, hash=self.hash)


class BrokenChainError(Exception):
    """A line is not what follows the ones before it. `entry` is what it says all the same, if it says anything."""

    def __init__(self, text: str, entry: Entry | None = None) -> None:
        super().__init__(text)
        self.entry = entry


def write_line(head: Head, says: Mapping[str, Any]) -> tuple[bytes, Head]:
    """The line of the entry that follows this head, and the head with it."""
    number = head.count + 1
    body = json.dumps({"n": number, **says}, ensure_ascii=True, separators=(",", ":")).encode()
    own = _hash(head.hash, body)
    return b'%s,"hash":"%s"}\n' % (body[:-1], own.encode()), Head(count=number, hash=own)


def read_line(head: Head | None, line: bytes) -> Entry:
    """The entry in a line, newline included, that follows `head`; without one, the line names the hash before it.

    Raises:
        BrokenChainError: when it is none, or does not follow.
    """
    due = "an entry" if head is None else f"entry {head.count + 1}"
    found = _TAIL.fullmatch(line[-_TAIL_BYTES:])
    body = line[:-_TAIL_BYTES] + b"}"
    says: Any = {}
    number, kind = None, None
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        says = json.loads(body)
        number, kind = says.pop("n"), says["kind"]
    if found is None or type(number) is not int or type(kind) is not str or not 1 <= number <= LARGEST_COUNT:
        raise BrokenChainError(f"{due} cannot be read: it was changed")
    said = says.get("previous") if head is None else None
    if head is None and not (isinstance(said, str) and _HASH.fullmatch(said)):
        raise BrokenChainError(f"entry {number} does not say what it follows, as the first of a file does")
    previous = head.hash if head is not None else str(said)
    entry = Entry(number=number, previous=previous, hash=found[1].decode(), says=says)
    if head is not None and number != head.count + 1:
        raise BrokenChainError(_displaced(head.count + 1, number), entry)
    if _hash(previous, body) != entry.hash:
        raise BrokenChainError(f"entry {number} is not what was written, or follows another one", entry)
    return entry


def pack_anchor(head: Head) -> bytes:
    """A head as it is kept beside the log."""
    return json.dumps({"count": head.count, "hash": head.hash}).encode() + b"\n"


def read_anchor(raw: bytes) -> Head | None:
    """The head that was kept, or None when these bytes are none."""
    try:
        data = json.loads(raw)
        head = Head(count=data["count"], hash=data["hash"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    # Every byte counts: what says the same in other bytes was not written by `pack_anchor`.
    return head if pack_anchor(head) == raw else None


def _hash(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode() + body).hexdigest()


def _displaced(due: int, found: int) -> str:
    if found < due:
        return f"entry {found} stands where entry {due} is due: it was repeated or moved"
    missing = f"entry {due} is" if found == due + 1 else f"entries {due} to {found - 1} are"
    return f"{missing} missing before entry {found}: removed or moved"
