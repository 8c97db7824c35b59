"""Bytes as they would cross one device's connection to the broker, made of the product's own messages.

What is counted: MQTT 5 packets with all their bytes, as the kernel would count them: fixed headers, topics, packet
ids, property lengths, acknowledgements. What is not: TCP and TLS, pings, and what is repeated after a loss. A device is
taken to say each thing that it is at once; the product tells every second how far training is, some 300 bytes each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.contender import Payload
from mekt.blobs import CHUNKS_IN_FLIGHT, Fetch, blob_ref, proxy_hash, read_chunk
from mekt.connection import QOS
from mekt.messages import Body, Chunk, Learning, Offer, Presence, Receipt, RoundOpen
from mekt.plan import BlobRef, Plan
from mekt.post import Post
from mekt.topics import Direction, for_device
from mekt.traffic import WireBytes

FEDERATION = "bench"
# What a packet of these kinds holds beside topic, payload and names (OASIS MQTT 5.0, sections 3.1 to 3.9).
PACKET_ID_BYTES = 2
TEXT_LENGTH_BYTES = 2
NO_PROPERTIES_BYTES = 1
ACKNOWLEDGEMENT_BYTES = 2 + PACKET_ID_BYTES
CONNECT_BYTES = TEXT_LENGTH_BYTES + len("MQTT") + 1 + 1 + 2
SESSION_EXPIRY_BYTES = 1 + 4
# Session present, reason, and the properties that mosquitto tells: topic aliases and how much may be in flight.
CONNACK_BYTES = 2 + 1 + 1 + NO_PROPERTIES_BYTES + 3 + 3
LONGEST_NAME = 16
# As large as the numbers that stand in a presence usually are.
SESSION, BYTES_SO_FAR, SHARE_DONE = 2**51, 2**20, 0.5
METRICS: dict[Learning, float] = {"reconstruction": 0.5, "transfer": 0.5}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sized:
    """A device's modalities with their encoders' names, and how many private windows it has."""

    device: str
    modalities: Mapping[str, str]
    windows: int


def publish_bytes(topic: str, payload_bytes: int) -> int:
    """The size of a PUBLISH packet, QoS 1 and without properties."""
    assert QOS == 1, "packets of QoS 0 have no id, those of QoS 2 four acknowledgements"
    rest = TEXT_LENGTH_BYTES + len(topic.encode()) + PACKET_ID_BYTES + NO_PROPERTIES_BYTES + payload_bytes
    return _packet_bytes(rest)


def _packet_bytes(rest: int) -> int:
    """A packet whose variable header and payload have `rest` bytes: the length is written seven bits a byte."""
    return 1 + max(1, -(-rest.bit_length() // 7)) + rest


def wire_name(part: str) -> str:
    """The name of a payload's part as messages can carry it: `acc`, `acc/lstm` -> `acc_lstm`."""
    modality, _, architecture = part.partition("/")
    tail = f"_{architecture}" if architecture else ""
    return modality[: LONGEST_NAME - len(tail)] + tail


def _refs(payload: Payload) -> dict[str, BlobRef]:
    refs = {wire_name(part): blob_ref(data) for part, data in payload.items()}
    if len(refs) < len(payload):
        raise ValueError(f"two of {', '.join(sorted(payload))} have one name on the wire; choose shorter names")
    return refs


class Wire:
    """The messages of one federation, counted. Every count is of one device's connection, seen from the device."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._coordinator = Post(FEDERATION, proxy_hash(plan.proxy))
        self._device = Post(FEDERATION, proxy_hash(plan.proxy))
        self._proxy: dict[tuple[tuple[str, ...], int], WireBytes] = {}

    def session(self, of: Sized, announced: Payload) -> WireBytes:
        """Once for each device: login, subscriptions, that it is there, and the words before and after all rounds."""
        topic, will = self._device.seal(self._presence(of, "idle", online=False), "up", device=of.device)
        names = [f"mekt:{FEDERATION}:{of.device}", topic]
        connect = CONNECT_BYTES + NO_PROPERTIES_BYTES + SESSION_EXPIRY_BYTES + NO_PROPERTIES_BYTES
        connect += sum(TEXT_LENGTH_BYTES + len(each.encode()) for each in names) + TEXT_LENGTH_BYTES + len(will)
        up, down = _packet_bytes(connect), CONNACK_BYTES
        for pattern in for_device(FEDERATION, of.device):
            head = PACKET_ID_BYTES + NO_PROPERTIES_BYTES
            up += _packet_bytes(head + TEXT_LENGTH_BYTES + len(pattern.encode()) + 1)
            down += _packet_bytes(head + 1)
        words = self._word("closed", 0, (), announced) + self._word("finished", 0, (), announced)
        return WireBytes(up=up, down=down) + self._said(of, 0, ("idle",)) + words

    def proxy(self, of: Sized, blobs: Payload) -> WireBytes:
        """Once for each device: the proxy set of its modalities, asked for and received."""
        key = tuple(sorted(blobs)), len(of.device)
        if key not in self._proxy:
            self._proxy[key] = self._fetched(of.device, 0, blobs, "down")
        return self._proxy[key]

    def announcement(self, number: int, participants: Sequence[str], announced: Payload) -> WireBytes:
        """Every round, for every device that is online: that it opens, and that it closes."""
        return self._word("open", number, participants, announced) + self._word(
            "closed", number, participants, announced
        )

    def _word(self, state: str, number: int, participants: Sequence[str], announced: Payload) -> WireBytes:
        body = RoundOpen(
            state=state,  # type: ignore[arg-type]
            deadline_s=600.0 if state == "open" else 0.0,
            participants=tuple(participants),
            plan=self._plan,
            knowledge=_refs(announced),
        )
        return self._received(body, "", number)

    def received(self, of: Sized, number: int, payload: Payload) -> WireBytes:
        """What the coordinator has for a participant, asked for and received."""
        return self._fetched(of.device, number, payload, "down")

    def sent(self, of: Sized, number: int, payload: Payload) -> WireBytes:
        """What a participant gives: offered, asked for, sent, and a receipt for it."""
        if not payload:
            return WireBytes()
        offer = Offer(knowledge=_refs(payload), windows=of.windows, metrics=METRICS)
        total = self._sent(offer, of.device, number) + self._fetched(of.device, number, payload, "up")
        return total + self._received(Receipt(state="accepted"), of.device, number)

    def presence(self, of: Sized, number: int) -> WireBytes:
        """Every round: what a participant says that it is at."""
        return self._said(of, number, ("fetching", "training", "sending", "idle"))

    def _said(self, of: Sized, number: int, activities: Sequence[str]) -> WireBytes:
        bodies = (self._presence(of, activity) for activity in activities)
        return sum((self._sent(each, of.device, number) for each in bodies), start=WireBytes())

    def _presence(self, of: Sized, activity: str, *, online: bool = True) -> Presence:
        return Presence(
            state="online" if online else "offline",
            session=SESSION,
            activity=activity,  # type: ignore[arg-type]
            progress=SHARE_DONE,
            modalities=dict(of.modalities),
            windows=of.windows if online else 0,
            up_bytes=BYTES_SO_FAR if online else 0,
            down_bytes=BYTES_SO_FAR if online else 0,
        )

    def _fetched(self, device: str, number: int, blobs: Payload, way: Direction) -> WireBytes:
        """These blobs on their way up or down: the receiver asks for some chunks, and for more as they arrive."""
        total = WireBytes()
        send, ask = (self._sent, self._received) if way == "up" else (self._received, self._sent)
        for body, is_chunk in _transfer(blobs):
            total += (send if is_chunk else ask)(body, device, number)
        return total

    def _sent(self, body: Body, device: str, number: int) -> WireBytes:
        topic, raw = self._device.seal(body, "up", device=device, round=number)
        return WireBytes(up=publish_bytes(topic, len(raw)), down=ACKNOWLEDGEMENT_BYTES)

    def _received(self, body: Body, device: str, number: int) -> WireBytes:
        topic, raw = self._coordinator.seal(body, "down" if device else "all", device=device, round=number)
        return WireBytes(up=ACKNOWLEDGEMENT_BYTES, down=publish_bytes(topic, len(raw)))


def _transfer(blobs: Payload) -> Iterator[tuple[Body, bool]]:
    """Requests and chunks (True) in the order in which they cross when nothing is lost."""
    by_hash = {blob_ref(data).sha256: data for data in blobs.values()}
    fetch = Fetch()
    for data in by_hash.values():
        fetch.want(blob_ref(data))
    waiting: list[Chunk] = []
    while True:
        # Time stands still: nothing is late, nothing is asked for twice.
        for want in fetch.due(0.0):
            yield want, False
            data = by_hash[want.sha256]
            parts = (read_chunk(data, blob_ref(data), index) for index in want.chunks[:CHUNKS_IN_FLIGHT])
            waiting += [part for part in parts if part is not None]
        if not waiting:
            return
        chunk = waiting.pop(0)
        yield chunk, True
        fetch.take(chunk)
