"""Large payloads by content: cut into chunks, pulled by the receiver, put together again. Pure; the disk is elsewhere.

The receiver pulls: it asks for a few chunks at a time, for missing ones again, and takes nothing that it did not ask
for. So flow control, resumption and protection from floods lie in one place, and a lost chunk costs one chunk.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack

from mekt.errors import WireError
from mekt.messages import CHUNK_BYTES, Chunk, Want
from mekt.plan import BlobRef

# Chunks on their way at a time over all blobs: 768 KiB, enough to fill any link that a device has.
CHUNKS_IN_FLIGHT = 8
RETRY_S = 5.0


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
    asked: dict[int, float] = field(default_factory=dict)


class Fetch:
    """The blobs that one receiver wants from one sender, and what to ask for next. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Assembly] = {}

    @property
    def wanted(self) -> tuple[BlobRef, ...]:
        """Blobs that are not complete yet."""
        return tuple(assembly.ref for assembly in self._open.values())

    def want(self, ref: BlobRef) -> None:
        """Begin to fetch a blob; a blob that is being fetched goes on."""
        self._open.setdefault(ref.sha256, _Assembly(ref))

    def forget(self) -> None:
        """Drop everything that is not complete."""
        self._open.clear()

    def due(self, now_s: float) -> list[Want]:
        """What to ask for now: missing chunks that are not on their way, or have been for too long."""
        for assembly in self._open.values():
            assembly.asked = {index: at_s for index, at_s in assembly.asked.items() if now_s - at_s < RETRY_S}
        free = CHUNKS_IN_FLIGHT - sum(len(assembly.asked) for assembly in self._open.values())
        wants: list[Want] = []
        for assembly in self._open.values():
            if free <= 0:
                break
            missing = [
                index
                for index in range(chunk_count(assembly.ref))
                if index not in assembly.parts and index not in assembly.asked
            ][:free]
            if missing:
                assembly.asked |= dict.fromkeys(missing, now_s)
                wants.append(Want(sha256=assembly.ref.sha256, chunks=tuple(missing)))
                free -= len(missing)
        return wants

    def take(self, chunk: Chunk) -> bytes | None:
        """Accept a chunk; the blob's bytes when it was the last one, else None. Repeated chunks are passed over.

        Raises:
            WireError: when nobody asked for this blob, the chunk does not fit it, or the whole has another hash: then
                all of its chunks are forgotten and will be asked for again.
        """
        assembly = self._open.get(chunk.sha256)
        if assembly is None:
            raise WireError(f"a chunk of {chunk.sha256.hex()[:12]} came that nobody asked for")
        ref, count = assembly.ref, chunk_count(assembly.ref)
        size = CHUNK_BYTES if chunk.index < count - 1 else ref.size_bytes - (count - 1) * CHUNK_BYTES
        if chunk.count != count or chunk.index >= count or len(chunk.data) != size:
            raise WireError(f"chunk {chunk.index} of {chunk.count} does not fit the blob {ref.sha256.hex()[:12]}")
        assembly.asked.pop(chunk.index, None)
        assembly.parts.setdefault(chunk.index, chunk.data)
        if len(assembly.parts) < count:
            return None
        data = b"".join(assembly.parts[index] for index in range(count))
        if hashlib.sha256(data).digest() != ref.sha256:
            assembly.parts.clear()
            raise WireError(f"the blob {ref.sha256.hex()[:12]} arrived damaged; all of it will be asked for again")
        del self._open[chunk.sha256]
        return data
