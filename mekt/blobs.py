"""Large payloads by content: cut into chunks, pulled by the receiver, put together again. Pure; the disk is elsewhere.

The receiver pulls: it asks for a few chunks at a time, for missing ones again, and takes nothing that it did not ask
for. So flow control, resumption and protection from floods lie in one place, and a lost chunk costs one chunk.

Chunks count as lost when nothing has come for a while, not by their own age: on a slow link all of them are old, and
asking again would fill it with repetitions.
"""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack

from mekt import catalogue
from mekt.errors import WireError
from mekt.messages import CHUNK_BYTES, Chunk, Trouble, Want
from mekt.plan import LARGEST_BLOB_BYTES, BlobRef

# Chunks on their way at a time over all blobs: 768 KiB, enough to fill any link that a device has.
CHUNKS_IN_FLIGHT = 8
# Silence after which chunks are asked for again, at first and at most: it follows the pace of the link.
RETRY_S = 5.0
LONGEST_RETRY_S = 60.0
# Blobs whose late repetitions are known for what they are.
BLOBS_REMEMBERED = 64
# Receivers whose chunks a sender keeps in mind; of others some may be sent twice.
RECEIVERS_REMEMBERED = 4096


class ChunkError(WireError):
    """A chunk that is not taken. `trouble` is the name under which that is counted."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text, catalogue.BLOB_DAMAGED)
        self.trouble: Trouble = trouble


def blob_ref(data: bytes) -> BlobRef:
    """The name of `data` by content."""
    return BlobRef(sha256=hashlib.sha256(data).digest(), size_bytes=len(data))


def proxy_hash(proxy: Mapping[str, BlobRef]) -> bytes:
    """The name of a proxy set: the SHA-256 over its modalities' names and blobs, in order of name."""
    return hashlib.sha256(msgpack.packb([[name, proxy[name].sha256] for name in sorted(proxy)])).digest()


def chunk_count(ref: BlobRef) -> int:
    """How many chunks a blob has."""
    return -(-ref.size_bytes // CHUNK_BYTES)


def read_chunk(data: bytes, ref: BlobRef, index: int) -> Chunk | None:
    """Chunk `index` of the blob `data`, or None when it has no such chunk."""
    part = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
    return Chunk(sha256=ref.sha256, index=index, count=chunk_count(ref), data=part) if part else None


@dataclass(slots=True)
class _Assembly:
    ref: BlobRef
    parts: dict[int, bytes] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)


class Fetch:
    """The blobs that one receiver wants from one sender, and what to ask for next. Times are monotonic seconds.

    It holds at most `most_bytes` of blobs that are not complete.
    """

    def __init__(self, most_bytes: int = LARGEST_BLOB_BYTES) -> None:
        self._most_bytes = most_bytes
        self._open: dict[bytes, _Assembly] = {}
        self._closed: dict[bytes, None] = {}
        self._retry_s = RETRY_S
        self._silent_since_s = 0.0
        self._heard = False

    @property
    def wanted(self) -> tuple[BlobRef, ...]:
        """Blobs that are not complete yet."""
        return tuple(assembly.ref for assembly in self._open.values())

    @property
    def arrived(self) -> int:
        """How many chunks have come of blobs that are not complete."""
        return sum(len(assembly.parts) for assembly in self._open.values())

    def want(self, ref: BlobRef) -> None:
        """Begin to fetch a blob; a blob that is being fetched goes on.

        Raises:
            WireError: when it would take more memory than this receiver may use.
        """
        if ref.sha256 in self._open:
            return
        if sum(other.size_bytes for other in self.wanted) + ref.size_bytes > self._most_bytes:
            raise WireError(
                f"a blob of {ref.size_bytes} bytes is too much: {self._most_bytes} may be fetched at a time",
                catalogue.WIRE_TOO_LARGE,
            )
        self._open[ref.sha256] = _Assembly(ref)
        self._closed.pop(ref.sha256, None)

    def forget(self) -> None:
        """Drop everything that is not complete."""
        for sha256 in self._open:
            self._close(sha256)
        self._open.clear()

    def ask_again(self) -> None:
        """The sender is back: what was asked of it may be lost, and it has been silent for its own reasons."""
        for assembly in self._open.values():
            assembly.asked.clear()
        self._retry_s = RETRY_S

    def arriving(self, now_s: float) -> None:
        """Bytes arrive over the same connection: what was asked for may be among them, and is not lost yet."""
        self._silent_since_s = max(self._silent_since_s, now_s)

    def due(self, now_s: float) -> list[Want]:
        """What to ask for now: missing chunks that are not on their way, or were lost on it."""
        self._notice_silence(now_s)
        free = CHUNKS_IN_FLIGHT - sum(len(assembly.asked) for assembly in self._open.values())
        wants: list[Want] = []
        for assembly in self._open.values():
            missing = itertools.islice(
                (
                    index
                    for index in range(chunk_count(assembly.ref))
                    if index not in assembly.parts and index not in assembly.asked
                ),
                max(0, free),
            )
            if chunks := tuple(missing):
                assembly.asked.update(chunks)
                wants.append(Want(sha256=assembly.ref.sha256, chunks=chunks))
                free -= len(chunks)
        return wants

    def take(self, chunk: Chunk) -> bytes | None:
        """Accept a chunk; the blob's bytes when it was the last one, else None. Repeated chunks are passed over.

        Raises:
            ChunkError: when nobody asked for this blob, the chunk does not fit it, or the whole has another hash: then
                all of its chunks are forgotten and will be asked for again.
        """
        assembly = self._open.get(chunk.sha256)
        if assembly is None and chunk.sha256 in self._closed:
            return None
        if assembly is None:
            raise ChunkError("unasked-chunk", f"a chunk of {chunk.sha256.hex()[:12]} came that nobody asked for")
        ref, count = assembly.ref, chunk_count(assembly.ref)
        size = CHUNK_BYTES if chunk.index < count - 1 else ref.size_bytes - (count - 1) * CHUNK_BYTES
        if chunk.count != count or chunk.index >= count or len(chunk.data) != size:
            raise ChunkError(
                "damaged-chunk", f"chunk {chunk.index} of {chunk.count} does not fit the blob {ref.sha256.hex()[:12]}"
            )
        self._heard = True
        assembly.asked.discard(chunk.index)
        assembly.parts.setdefault(chunk.index, chunk.data)
        if len(assembly.parts) < count:
            return None
        data = b"".join(assembly.parts[index] for index in range(count))
        if hashlib.sha256(data).digest() != ref.sha256:
            assembly.parts.clear()
            raise ChunkError(
                "damaged-chunk", f"the blob {ref.sha256.hex()[:12]} arrived damaged; all of it will be asked for again"
            )
        del self._open[ref.sha256]
        self._close(ref.sha256)
        return data

    def _close(self, sha256: bytes) -> None:
        self._closed[sha256] = None
        if len(self._closed) > BLOBS_REMEMBERED:
            del self._closed[next(iter(self._closed))]

    def _notice_silence(self, now_s: float) -> None:
        """Give up on the chunks on their way after too long a silence; learn from each how long is too long."""
        silence_s = now_s - self._silent_since_s
        if self._heard:
            self._retry_s = min(max(RETRY_S, 2 * silence_s), LONGEST_RETRY_S)
        elif not any(assembly.asked for assembly in self._open.values()):
            pass
        elif silence_s >= self._retry_s:
            self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
            # A blob that the sender does not have must not keep the others waiting: it goes to the end.
            self._open = dict(sorted(self._open.items(), key=lambda item: bool(item[1].asked)))
            for assembly in self._open.values():
                assembly.asked.clear()
        else:
            return
        self._silent_since_s, self._heard = now_s, False


class Serving:
    """What one sender has handed to its link and what has not left it: a chunk that waits there is not sent again.

    A receiver on a slow link cannot tell a chunk that is lost from one that is late. Its sender can, and has to: each
    repetition would make all that follows later still.
    """

    def __init__(self) -> None:
        self._handed: dict[str, set[tuple[bytes, int]]] = {}

    def chunks(self, receiver: str, data: bytes, want: Want, leaving: int) -> tuple[Chunk, ...]:
        """Those of `due`, of the blob `data`."""
        ref = BlobRef(sha256=want.sha256, size_bytes=len(data))
        found = (read_chunk(data, ref, index) for index in self.due(receiver, ref, want, leaving))
        return tuple(chunk for chunk in found if chunk is not None)

    def due(self, receiver: str, ref: BlobRef, want: Want, leaving: int) -> tuple[int, ...]:
        """Which chunks of a blob to send now, a few at most; `leaving`: how many to this receiver are on the link."""
        if leaving == 0:
            self._handed.pop(receiver, None)
        handed = self._handed.setdefault(receiver, set())
        asked = (index for index in want.chunks[:CHUNKS_IN_FLIGHT] if index < chunk_count(ref))
        chunks = tuple(index for index in asked if (ref.sha256, index) not in handed)
        handed.update((ref.sha256, index) for index in chunks)
        if len(self._handed) > RECEIVERS_REMEMBERED:
            del self._handed[next(iter(self._handed))]
        return chunks
