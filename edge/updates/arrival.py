"""A release on its way to a wearable: chunks that have come are on the disk, so that a restart goes on where it was.

The file `arriving` is a row of chunks, each behind its number and a checksum. What a power cut left of the last one
does not fit that and is cut off; the whole is checked by its hash all the same.
"""

import contextlib
import logging
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from edge.fetching import ARRIVING_BYTES
from mekt.blobs import ChunkError, Fetch, chunk_count
from mekt.messages import CHUNK_BYTES, Chunk, Want
from mekt.plan import BlobRef

log = logging.getLogger(__name__)

ARRIVING = "arriving"
# The hash of the whole comes first; before each chunk its number and the CRC-32 of its bytes.
HEAD_BYTES = 32
RECORD = struct.Struct("<II")


class Arrival:
    """One release at a time, of at most `most_bytes`; its chunks are kept in `folder`. Times are monotonic seconds."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._path = folder / ARRIVING
        self._fetch = Fetch(most_bytes)
        self._file: BinaryIO | None = None
        self._arrived_bytes = 0

    def begin(self, ref: BlobRef) -> bytes | None:
        """Turn to this release, with the chunks of it that are there; its bytes when those are all.

        Raises:
            WireError: when it is larger than this wearable may fetch.
        """
        self._let_go()
        self._fetch.forget()
        self._fetch.want(ref)
        data = None
        with contextlib.suppress(OSError):
            self._file = self._path.open("r+b") if self._path.exists() else self._path.open("w+b")
            data = self._resume(self._file, ref)
        return data

    def forget(self) -> None:
        """Fetch nothing any more, and keep nothing of it. What still comes is passed over."""
        self._let_go()
        self._fetch.forget()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def ask_again(self) -> None:
        """The coordinator is back: what it was asked for before may be lost."""
        self._fetch.ask_again()

    def due(self, now_s: float, arrived_bytes: int) -> list[Want]:
        """What to ask for now; `arrived_bytes`: all that has come over the connection, of chunks or not."""
        if arrived_bytes - self._arrived_bytes >= ARRIVING_BYTES:
            self._arrived_bytes = arrived_bytes
            self._fetch.arriving(now_s)
        return self._fetch.due(now_s)

    def take(self, chunk: Chunk) -> bytes | None:
        """Accept a chunk; the release's bytes when it was the last one.

        Raises:
            ChunkError: when it does not belong, or the whole was damaged and is asked for again.
        """
        before = self._fetch.arrived
        try:
            data = self._fetch.take(chunk)
        except ChunkError:
            if self._fetch.arrived < before:
                self._cut(HEAD_BYTES)
            raise
        if data is None and self._fetch.arrived > before:
            self._append(chunk)
        return data

    def close(self) -> None:
        """Let the file go; what is in it is taken up again."""
        self._let_go()

    # The disk: what it does not take has to be fetched again after a restart, and nothing worse.

    def _resume(self, file: BinaryIO, ref: BlobRef) -> bytes | None:
        if file.read(HEAD_BYTES) != ref.sha256:
            file.seek(0)
            file.truncate()
            file.write(ref.sha256)
            file.flush()
            return None
        count, end = chunk_count(ref), HEAD_BYTES
        while len(head := file.read(RECORD.size)) == RECORD.size:
            index, checksum = RECORD.unpack(head)
            size = CHUNK_BYTES if index < count - 1 else ref.size_bytes - (count - 1) * CHUNK_BYTES
            part = file.read(size) if index < count else b""
            if not part or len(part) != size or zlib.crc32(part) != checksum:
                break
            end = file.tell()
            with contextlib.suppress(ChunkError):
                data = self._fetch.take(Chunk(sha256=ref.sha256, index=index, count=count, data=part))
                if data is not None:
                    return data
        self._cut(end if self._fetch.arrived else HEAD_BYTES)
        if self._fetch.arrived:
            log.info("%d of %d chunks of the release have come before", self._fetch.arrived, count)
        return None

    def _append(self, chunk: Chunk) -> None:
        if self._file is None:
            return
        try:
            self._file.write(RECORD.pack(chunk.index, zlib.crc32(chunk.data)) + chunk.data)
            self._file.flush()
        except OSError as error:
            log.warning("%s: a chunk is not kept over a restart: %s", self._path, error.strerror)
            self._let_go()

    def _cut(self, size_bytes: int) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.seek(size_bytes)
                self._file.truncate()

    def _let_go(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
