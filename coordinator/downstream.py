"""What devices may have of the coordinator: the proxy set, the newest global knowledge, the release shipped. Pure."""

from collections.abc import Iterable, Mapping

from mekt.blobs import Serving, blob_ref
from mekt.messages import Chunk, Want
from mekt.plan import BlobRef


class Downstream:
    """Blobs that are served to whoever asks for them by name."""

    def __init__(self, proxy: Iterable[bytes]) -> None:
        self._proxy = {blob_ref(data).sha256: data for data in proxy}
        self._fresh: dict[bytes, bytes] = {}
        self._shipped: dict[bytes, bytes] = {}
        self._serving = Serving()
        self.knowledge: dict[str, BlobRef] = {}
        self.shipped: BlobRef | None = None

    def publish(self, knowledge: Mapping[str, bytes]) -> None:
        """Have this global knowledge ready, beside the proxy set and in place of any before."""
        self.knowledge = {name: blob_ref(data) for name, data in knowledge.items()}
        self._fresh = {self.knowledge[name].sha256: data for name, data in knowledge.items()}

    def ship(self, data: bytes | None) -> None:
        """Have the zip of this release ready, in place of any before; None: no more of it."""
        self.shipped = None if data is None else blob_ref(data)
        self._shipped = {} if data is None or self.shipped is None else {self.shipped.sha256: data}

    def chunks(self, device: str, want: Want, leaving: int) -> tuple[Chunk, ...] | None:
        """What to send a device now of what it wants; None when that is not served.

        `leaving`: how many chunks for it are still on their way out of the coordinator.
        """
        served = (self._proxy, self._fresh, self._shipped)
        data = next((each[want.sha256] for each in served if want.sha256 in each), None)
        return None if data is None else self._serving.chunks(device, data, want, leaving)
