"""The log of every message that a device hands to its link, written before the message can leave.

In the state folder lie `audit/`, files of chained lines (`edge/chain.py`), and beside it `audit.anchor`, which names an
entry that is durable: what is cut off the log's end before it, or the whole of it, is then missed.

- What carries knowledge or a key is on the disk, and anchored, before it leaves. Other entries are in the kernel's
  hands before: `kill -9` loses none, a power cut at most those since the last synchronisation, which each message
  makes that comes `SYNC_S` after the one before.
- An entry that was being written when the machine stopped is cut off at the next start, which is an entry itself.
- A full file is closed and compressed; the next begins with the hash of its last entry. None is ever removed.
- A message that cannot be logged does not leave (`StateError`), nor does one that is none of a device's (`WireError`).

The other way round, a message in the log may not have left, as when the broker was away until the device ended. MQTT
may repeat it, and each connection repeats the will, with the same bytes; that is not listed again.
"""

import contextlib
import fcntl
import gzip
import hashlib
import logging
import os
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge.chain import BrokenChainError, Entry, Head, pack_anchor, read_anchor, read_line, write_line
from edge.contents import read, words
from mekt import catalogue
from mekt.errors import StateError
from mekt.files import make_folder, write_atomically
from mekt.messages import Fitness, Offer, Presence, Want
from mekt.outgoing import Message

log = logging.getLogger(__name__)

FOLDER, ANCHOR = "audit", "audit.anchor"
SEGMENT_BYTES = 1024 * 1024
SYNC_S = 10.0
MODE = 0o600
# Of so many blobs it is known what they are knowledge of; of older ones a chunk's entry has the hash alone.
BLOBS_REMEMBERED = 256
# Of these, an entry may be lost by a power cut; of all others, none.
PASSING = (Presence, Want, Fitness)
# Entries that are about the log itself; all others are messages.
BEGINS, CONTINUES, REPAIR, GAP = "begin", "continue", "repair", "gap"
OWN_KINDS = (BEGINS, CONTINUES, REPAIR, GAP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One file of the log, open and growing or closed and compressed."""

    path: Path

    def read(self) -> bytes:
        """Its lines.

        Raises:
            OSError, EOFError, zlib.error: when they cannot be read.
        """
        raw = self.path.read_bytes()
        return gzip.decompress(raw) if self.path.suffix == ".gz" else raw


@dataclass(slots=True)
class Content:
    """What a segment's bytes are: entries that follow each other, and what is behind the last of them."""

    entries: list[Entry] = field(default_factory=list)
    rest: bytes = b""
    problem: BrokenChainError | None = None


def segments(folder: Path) -> list[Segment]:
    """The files of the log in `folder`, the oldest first; one that is being compressed counts once."""
    names = {path.name for path in folder.glob("*.jsonl*")}
    return [
        Segment(path=folder / name)
        for name in sorted(names)
        if name.endswith((".jsonl", ".jsonl.gz")) and not (name.endswith(".gz") and name[: -len(".gz")] in names)
    ]


def content(raw: bytes, head: Head | None = None) -> Content:
    """The entries in a segment's bytes up to the first that does not follow; `head`: what the first one follows."""
    found, begin = Content(), 0
    while begin < len(raw):
        end = raw.find(b"\n", begin) + 1 or len(raw)
        try:
            entry = read_line(head, raw[begin:end])
        except BrokenChainError as problem:
            found.rest, found.problem = raw[begin:], problem
            break
        found.entries.append(entry)
        head, begin = entry.head, end
    return found


def utc(time_s: float) -> str:
    """Seconds since 1970 as text, to the millisecond."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Audit:
    """The log in `folder`, of one device: the witness of its link. Any thread may call it; one process has it."""

    def __init__(self, folder: Path, device: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Take up the log that is there, or begin one.

        Raises:
            StateError: when it cannot be read or written, or another process has it.
        """
        self._device = device
        self._folder = make_folder(folder / FOLDER)
        self._anchor = folder / ANCHOR
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._modality_of: dict[str, str] = {}
        self._head = Head()
        self._file, self._size_bytes = -1, 0
        self._synced_s = time.monotonic()
        self._failure: StateError | None = None
        try:
            self._open()
        except OSError as error:
            self.close()
            raise self._unusable(error) from error
        except BaseException:
            self.close()
            raise

    def saw(self, message: Message, *, is_will: bool = False) -> None:
        """Log a message that is about to leave.

        Raises:
            StateError: when it cannot be logged.
            WireError: when it is no message of this device. It may not leave then, either way.
        """
        envelope = read(message.topic, message.payload, self._device)
        with self._lock:
            says: dict[str, Any] = {
                "kind": "will" if is_will else envelope.kind,
                "round": envelope.round,
                "bytes": len(message.payload),
                "sha256": hashlib.sha256(message.payload).hexdigest(),
                "contained": words(envelope, self._modality_of, is_will=is_will),
            }
            if isinstance(envelope.body, Offer):
                says["blobs"] = {name: ref.sha256.hex() for name, ref in envelope.body.knowledge.items()}
                if envelope.body.masked:
                    says["masked"] = True
            self._append(says)
            self._learn_blobs(says)
            passing = isinstance(envelope.body, PASSING) and not is_will
            if not passing or time.monotonic() - self._synced_s >= SYNC_S:
                self._sync()

    def close(self) -> None:
        """Make all of it durable, and let it go."""
        with self._lock:
            if self._file < 0:
                return
            try:
                # A disk that refused before is not asked again: whoever ends because of it has said so.
                if self._failure is None:
                    self._sync()
            except StateError as error:
                log.warning("the newest entries of the audit log may not be on the disk: %s", error)
            finally:
                os.close(self._file)
                self._file = -1

    # What is there at the start

    def _open(self) -> None:
        for left in (*self._folder.glob(".*.tmp"), *self._anchor.parent.glob(f".{ANCHOR}.*.tmp")):
            left.unlink()
        found = segments(self._folder)
        anchor = self._read_anchor()
        if not found and anchor is None and not self._anchor.exists():
            # First of all, so that a log without an anchor is one that was robbed of it.
            anchor = Head()
            write_atomically(self._anchor, pack_anchor(anchor), MODE)
        if not found and anchor == Head():
            self._begin_segment(BEGINS, f"the log of {self._device} begins")
            self._sync()
            return
        raw = b""
        with contextlib.suppress(EOFError, gzip.BadGzipFile, zlib.error):
            raw = found[-1].read() if found else b""
        there = content(raw)
        if not there.entries or not self._continues(there, anchor):
            self._begin_after_gap(there, anchor)
            return
        for entry in there.entries:
            self._learn_blobs(entry.says)
        self._head = there.entries[-1].head
        for each in found[:-1]:
            self._compress(each)
        if found[-1].path.suffix == ".gz":
            self._begin_segment(CONTINUES, "the file before this one is closed")
        else:
            if there.rest:
                self._repair(found[-1], raw, there.rest)
            self._use(found[-1].path)
        self._sync()

    def _read_anchor(self) -> Head | None:
        try:
            return read_anchor(self._anchor.read_bytes())
        except FileNotFoundError:
            return None

    def _continues(self, there: Content, anchor: Head | None) -> bool:
        """Whether the newest segment has the entry that was durable last."""
        first = there.entries[0]
        heads = {each.head for each in there.entries} | {Head(count=first.number - 1, hash=first.previous)}
        return anchor in heads

    def _begin_after_gap(self, there: Content, anchor: Head | None) -> None:
        """Go on behind what is broken or missing: it stays as it is, and the log says so for good."""
        last = there.entries[-1].head if there.entries else Head()
        if anchor is None:
            text = f"the anchor is gone or damaged; what was after entry {last.count} cannot be known"
        else:
            text = f"entry {anchor.count} was durable, and is not where it was; the last that follows is {last.count}"
        newest = max((last, anchor or Head()), key=lambda head: head.count)
        # Behind everything, even where an older file has lines that cannot be read.
        numbers = [int(digits) for each in segments(self._folder) if (digits := each.path.name.split(".")[0]).isdigit()]
        self._head = Head(count=max(newest.count, *numbers, 0), hash=newest.hash)
        log.error("the audit log has a gap: %s; `mekt audit --verify` will name it", text)
        self._begin_segment(GAP, text)
        self._sync()

    def _repair(self, segment: Segment, raw: bytes, rest: bytes) -> None:
        """Cut off what is behind the last entry, and say so, in one step."""
        text = (
            f"{len(rest)} bytes behind entry {self._head.count} were no whole entry, and are cut off "
            f"(sha256 {hashlib.sha256(rest).hexdigest()}): the machine stopped while they were written"
        )
        log.warning("the audit log: %s", text)
        line, head = write_line(self._head, self._about_itself(REPAIR, text))
        write_atomically(segment.path, raw[: len(raw) - len(rest)] + line, MODE)
        self._head = head

    # Writing

    def _append(self, says: Mapping[str, Any]) -> None:
        if self._failure is not None:
            raise self._failure
        if self._size_bytes >= self._segment_bytes:
            self._rotate()
        line, head = write_line(self._head, {"time": utc(time.time()), **says})
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size_bytes)
            raise self._failed(error) from error
        self._size_bytes += len(line)
        self._head = head

    def _sync(self) -> None:
        """Make all entries durable, then anchor them: in this order, the anchor never names what a power cut took."""
        try:
            os.fsync(self._file)
            write_atomically(self._anchor, pack_anchor(self._head), MODE)
        except OSError as error:
            raise self._failed(error) from error
        except StateError as error:
            self._failure = error
            raise
        self._synced_s = time.monotonic()

    def _rotate(self) -> None:
        """Begin the next file; the one before is compressed when that one is there."""
        self._sync()
        former = segments(self._folder)[-1]
        try:
            self._begin_segment(CONTINUES, "the file before this one is closed")
            self._compress(former)
        except OSError as error:
            raise self._failed(error) from error
        except StateError as error:
            self._failure = error
            raise

    def _begin_segment(self, kind: str, text: str) -> None:
        """Make the next file, durable with its first line: it names the hash that it follows."""
        path = self._folder / f"{self._head.count + 1:012d}.jsonl"
        line, head = write_line(self._head, {**self._about_itself(kind, text), "previous": self._head.hash})
        write_atomically(path, line, MODE)
        self._head = head
        self._use(path)

    def _compress(self, segment: Segment) -> None:
        if segment.path.suffix == ".gz":
            return
        packed = gzip.compress(segment.path.read_bytes(), mtime=0)
        write_atomically(segment.path.with_name(f"{segment.path.name}.gz"), packed, MODE)
        segment.path.unlink()

    def _use(self, path: Path) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise StateError(f"{path}: another process writes it; end that", catalogue.STATE_IN_USE) from error
        self._file, self._size_bytes = file, os.fstat(file).st_size

    def _about_itself(self, kind: str, text: str) -> dict[str, Any]:
        return {"time": utc(time.time()), "kind": kind, "contained": text}

    def _learn_blobs(self, says: Mapping[str, Any]) -> None:
        """What the chunks of an offer will be knowledge of."""
        blobs = says.get("blobs")
        if isinstance(blobs, dict):
            how = ", masked" if says.get("masked") else ""
            self._modality_of |= {str(sha256): f"{name}{how}" for name, sha256 in blobs.items()}
        while len(self._modality_of) > BLOBS_REMEMBERED:
            del self._modality_of[next(iter(self._modality_of))]

    def _failed(self, error: OSError) -> StateError:
        self._failure = self._unusable(error)
        return self._failure

    def _unusable(self, error: OSError) -> StateError:
        text = f"{self._folder}: what leaves cannot be logged ({error.strerror}), so nothing leaves; free space"
        return StateError(f"{text} or mend permissions", catalogue.of_disk(error))
