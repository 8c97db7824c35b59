"""What devices may have of the coordinator: the proxy set, and the newest global knowledge. Pure."""

from collections.abc import Iterable, Mapping

from mekt.blobs import Serving, blob_ref
from mekt.messages import Chunk, Want
from mekt.plan import BlobRef


class Downstream:
    """Blobs that are served to whoever asks for them by name."""

    def __init__(self, proxy: Iterable[bytes]) -> None:
        self._proxy = {blob_ref(data).sha256: data for data in proxy}
        self._served = self._proxy
        self._serving = Serving()
        self.knowledge: dict[str, BlobRef] = {}

    def publish(self, knowledge: Mapping[str, bytes]) -> None:
        """Have this global knowledge ready, beside the proxy set and in place of any before."""
        self.knowledge = {name: blob_ref(data) for name, data in knowledge.items()}
        fresh = {self.knowledge[name].sha256: data for name, data in knowledge.items()}
        self._served = self._proxy | fresh

    def chunks(self, device: str, want: Want, leaving: int) -> tuple[Chunk, ...] | None:
        """What to send a device now of what it wants; None when that is not served.

        `leaving`: how many chunks for it are still on their way out of the coordinator.
        """
        data = self._served.get(want.sha256)
        return None if data is None else self._serving.chunks(device, data, want, leaving)
