"""Windows as rows of files: for each modality one file of rows of one size, and an index of what each row is.

    index      HEADER: magic, which windows these are; then an entry of 32 bytes a row: ENTRY
    <name>     the rows of one modality: a window's float32 numbers, or these sealed (`sensors.seal`)

A row is written before its entry, and the entry has the checksums of both: whatever is cut short, by a crash or when
the power goes, is found by them, and is no window any more. Rows are read through the system's page cache, mapped, and
written by calls that fail with an error where a store to mapped memory would end the process: a full disk does that.
Nothing is forced onto the disk, which would be worn by it: a process that ends loses nothing that it has written, and a
machine whose power fails the windows of its last 40 s at most, as Linux and ext4 are set and where the disk keeps up.
The kernel writes out what is older than 30 s (vm.dirty_expire_centisecs), for which it looks every 5 s
(vm.dirty_writeback_centisecs), and every 5 s the file system notes where it lies (commit). What a torn window was
written over was to go in any case.
"""

import hashlib
import json
import mmap
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import StateError
from mekt.files import make_folder
from sensors.seal import Seal
from sensors.source import Floats, Values

INDEX = "index"
MAGIC = b"mektwin1"
HEADER_BYTES = 64
# Number of the window from 1 on, 0 where there is none; its start on the source's clock; when it was kept, by the
# clock of the machine; checksums of the row's content and of the entry.
ENTRY = np.dtype([("number", "<u8"), ("start_s", "<f8"), ("kept_at_s", "<f8"), ("content", "<u4"), ("check", "<u4")])
CHECKED_BYTES = 28
ROW = np.dtype("<f4")
Entries = NDArray[np.void]


class Rows:
    """Rows of windows in `folder`, for the owner alone. One thread at a time writes; any reads what is not written.

    `entries` is the index as it is on the disk; rows with a number of 0 are free. What is there and is not `kind` of
    windows, of these shapes, under this seal, is removed.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        shapes: Mapping[str, tuple[int, ...]],
        count: int,
        *,
        seal: Seal | None = None,
        afresh: bool = False,
    ) -> None:
        """Take up what is there, or begin with nothing: `afresh`, or where it is something else.

        Raises:
            StateError: when the folder or its files cannot be used.
        """
        self.folder = folder
        self._shapes, self._count, self._seal = dict(shapes), count, seal
        self._files: dict[str, int] = {}
        about = [kind, sorted((name, list(shape)) for name, shape in shapes.items()), seal and seal.identity]
        self._header = (MAGIC + hashlib.sha256(json.dumps(about).encode()).digest()).ljust(HEADER_BYTES, b"\0")
        try:
            make_folder(folder)
            if afresh or not self._is_taken_up():
                discard(folder)
                make_folder(folder)
            self.entries = self._open()
        except OSError as error:
            self.close()
            raise self._trouble(error) from error

    def close(self) -> None:
        """Write no more; what was mapped is still read."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def row_bytes(self, name: str) -> int:
        """What one row of a modality takes."""
        return row_bytes(self._shapes[name], self._seal)

    def write(self, row: int, number: int, start_s: float, kept_at_s: float, values: Mapping[str, Values]) -> None:
        """Put a window, whose shapes are right, into this row.

        Raises:
            StateError: when the disk does not take it; the row is no window then.
        """
        content = 0
        try:
            for name in self._shapes:
                offset = row * self.row_bytes(name)
                for part in self._parts(values[name], _about(name, number)):
                    content = zlib.crc32(part, content)
                    _write_all(self._files[name], part, offset)
                    offset += len(part)
            entry = np.array([(number, start_s, kept_at_s, content, 0)], dtype=ENTRY)
            entry["check"] = zlib.crc32(entry.tobytes()[:CHECKED_BYTES])
            self.entries[row] = entry[0]
            self._write_entry(row)
        except OSError as error:
            self.entries[row] = np.zeros((), dtype=ENTRY)
            raise self._trouble(error) from error

    def clear(self, row: int) -> None:
        """Have no window in this row, and nothing of it.

        Raises:
            StateError: when the disk does not take that.
        """
        self.entries[row] = np.zeros((), dtype=ENTRY)
        try:
            self._write_entry(row)
            for name in self._shapes:
                _write_all(self._files[name], bytes(self.row_bytes(name)), row * self.row_bytes(name))
        except OSError as error:
            raise self._trouble(error) from error

    def is_whole(self, row: int) -> bool:
        """Whether the row's content is what was written, and what was sealed."""
        content = 0
        for name in self._shapes:
            content = zlib.crc32(self._maps[name][row], content)
        if self.entries[row]["content"] != content:
            return False
        try:
            self.take([row])
        except StateError:
            return False
        return True

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> dict[str, Floats]:
        """A copy of the windows in these rows, in this order: per modality (n, T, ...).

        Raises:
            StateError: when a sealed row is not what was sealed.
        """
        index = np.asarray(rows, dtype=np.int64)
        if self._seal is None:
            return {
                name: self._maps[name][index].view(ROW).reshape(len(index), *shape).astype(np.float32, copy=False)
                for name, shape in self._shapes.items()
            }
        taken = {}
        for name, shape in self._shapes.items():
            taken[name] = np.empty((len(index), *shape), dtype=np.float32)
            for place, row in enumerate(index.tolist()):
                about = _about(name, int(self.entries[row]["number"]))
                plain = self._seal.open(self._maps[name][row].tobytes(), about)
                taken[name][place] = np.frombuffer(plain, dtype=ROW).reshape(shape)
        return taken

    def forget_read(self) -> None:
        """Give back the memory in which rows that were read are mapped; the system may keep them in its cache."""
        # On other systems than Linux this advice may throw away what was written.
        if sys.platform == "linux":
            for each in self._mapped:
                each.madvise(mmap.MADV_DONTNEED)

    def _is_taken_up(self) -> bool:
        """Whether there are rows of this kind, all files of them."""
        try:
            with (self.folder / INDEX).open("rb") as file:
                header = file.read(HEADER_BYTES)
        except FileNotFoundError:
            return False
        return header == self._header and all((self.folder / name).is_file() for name in self._shapes)

    def _open(self) -> Entries:
        self._mapped: list[mmap.mmap] = []
        self._maps: dict[str, NDArray[np.uint8]] = {}
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        for name in (INDEX, *self._shapes):
            self._files[name] = os.open(self.folder / name, flags, 0o600)
        index = self._files[INDEX]
        there = (os.fstat(index).st_size - HEADER_BYTES) // ENTRY.itemsize
        entries = np.zeros(self._count, dtype=ENTRY)
        if there > 0:
            kept = os.pread(index, min(there, self._count) * ENTRY.itemsize, HEADER_BYTES)
            known = np.frombuffer(kept[: len(kept) // ENTRY.itemsize * ENTRY.itemsize], dtype=ENTRY)
            entries[: len(known)] = known
        for row in np.flatnonzero(entries["number"]).tolist():
            if zlib.crc32(entries[row].tobytes()[:CHECKED_BYTES]) != entries[row]["check"]:
                entries[row] = np.zeros((), dtype=ENTRY)
        # The index is written whole, so that the disk has room for it later too. Rows take theirs as they are written.
        _write_all(index, self._header + entries.tobytes(), 0)
        os.ftruncate(index, HEADER_BYTES + entries.nbytes)
        for name in self._shapes:
            size = self.row_bytes(name)
            os.ftruncate(self._files[name], self._count * size)
            mapped = mmap.mmap(self._files[name], self._count * size, access=mmap.ACCESS_READ)
            self._mapped.append(mapped)
            self._maps[name] = np.frombuffer(mapped, dtype=np.uint8).reshape(self._count, size)
        return entries

    def _parts(self, values: Values, about: bytes) -> Iterator[bytes | memoryview]:
        """What is written of a modality, part by part: frames as they are, without a copy of all of them."""
        arrays = [values] if isinstance(values, np.ndarray) else values
        parts = (np.ascontiguousarray(array, dtype=ROW).data.cast("B") for array in arrays)
        if self._seal is None:
            yield from parts
        else:
            yield self._seal.close(b"".join(parts), about)

    def _write_entry(self, row: int) -> None:
        _write_all(self._files[INDEX], self.entries[row].tobytes(), HEADER_BYTES + row * ENTRY.itemsize)

    def _trouble(self, error: OSError) -> StateError:
        return StateError(
            f"{self.folder}: private windows cannot be kept ({error.strerror}); free space or mend permissions",
            catalogue.of_disk(error),
        )


def row_bytes(shape: Sequence[int], seal: Seal | None = None) -> int:
    """What a row of windows of this shape takes."""
    return ROW.itemsize * int(np.prod(shape, dtype=np.int64)) + (0 if seal is None else seal.overhead)


def discard(folder: Path) -> None:
    """Remove the rows in a folder, and the folder.

    Raises:
        OSError: when one cannot be removed.
    """
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _about(name: str, number: int) -> bytes:
    return f"{name}/{number}".encode()


def _write_all(file: int, data: bytes | memoryview, offset: int) -> None:
    left = memoryview(data)
    while len(left):
        count = os.pwrite(file, left, offset)
        left, offset = left[count:], offset + count
