"""The blobs of a round on their way from the coordinator into this device's store."""

from collections.abc import Sequence

from mekt.blobs import Fetch
from mekt.files import BlobStore
from mekt.messages import Chunk, Want
from mekt.plan import BlobRef

# So much received since it was last looked at is a chunk that comes, however slowly; less may be anything.
ARRIVING_BYTES = 1024


class Fetching:
    """Fetches what `store` lacks. Times are monotonic seconds."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._fetch = Fetch()
        self._arrived_bytes = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing. Whether it is what the plan says, learning finds out, off the loop's thread."""
        return not self._fetch.wanted

    def begin(self, refs: Sequence[BlobRef]) -> None:
        """Turn to these blobs; all others are dropped from the store.

        Raises:
            StateError: when the store cannot be read or written.
        """
        self._fetch.forget()
        self._store.keep_only(frozenset(ref.sha256 for ref in refs))
        for ref in refs:
            if self._store.get(ref) is None:
                self._fetch.want(ref)

    def forget(self) -> None:
        """Fetch nothing any more. What still comes is passed over."""
        self._fetch.forget()

    def ask_again(self) -> None:
        """The coordinator is back: what it was asked for before may be lost."""
        self._fetch.ask_again()

    def take(self, chunk: Chunk) -> bool:
        """Accept a chunk; True when a blob came to its end by it, and is kept.

        Raises:
            ChunkError: when it does not belong, or a blob was damaged on its way and is asked for again.
            StateError: when the store cannot be written.
        """
        data = self._fetch.take(chunk)
        if data is None:
            return False
        self._store.put(data)
        return True

    def due(self, now_s: float, arrived_bytes: int) -> list[Want]:
        """What to ask for now; `arrived_bytes`: all that has come over the connection, of chunks or not."""
        if arrived_bytes - self._arrived_bytes >= ARRIVING_BYTES:
            self._arrived_bytes = arrived_bytes
            self._fetch.arriving(now_s)
        return self._fetch.due(now_s)
