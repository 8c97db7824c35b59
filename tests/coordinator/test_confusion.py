"""Messages that are wrong, late, doubled, of others or too large, at a coordinator in the middle of a round."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from coordinator.round import RoundRules
from mekt.blobs import blob_ref, read_chunk
from mekt.broker import LARGEST_PACKET_BYTES, Broker
from mekt.messages import Chunk, Offer, Presence, Receipt, Want
from mekt.plan import BlobRef
from mekt.post import Post
from tests.coordinator.conftest import (
    BOTH,
    DEADLINE_S,
    FEDERATION,
    LARGE,
    Device,
    Make,
    Running,
    Start,
    settings_of,
)
from tests.waiting import until


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for again, is asked for again soon."""
    monkeypatch.setattr("mekt.blobs.RETRY_S", 0.5)


def dropped(running: Running, send: Callable[[], object]) -> None:
    """Send something, and wait until it was dropped and counted."""
    before = sum(running.rejected.values())
    send()
    until(lambda: sum(running.rejected.values()) > before)


def test_a_round_learns_the_same_whatever_else_arrives(
    broker: Broker,
    start: Start,
    pair: tuple[Device, Device],
    device: Make,
    undisturbed: dict[str, BlobRef],
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = start(settings_of(broker.port))
    one, other = pair
    opened = other.opened()
    blobs = other.blobs(opened)
    ref = blob_ref(blobs["gyro"])
    chunk = read_chunk(blobs["gyro"], ref, 0)
    assert chunk is not None
    offer = Offer(knowledge={"gyro": ref}, windows=10, metrics={})

    def seal(body: Offer | Chunk | Want | Presence, federation: str = FEDERATION, **where: int) -> bytes:
        post = Post(federation, other.post.proxy)
        return post.seal(body, "up", device="pi-2", **where)[1]

    def on(kind: str, raw: bytes, name: str = "pi-2") -> Callable[[], None]:
        return lambda: one.link.publish(f"mekt/1/{FEDERATION}/up/{name}/{kind}", raw)

    newer = msgpack.packb({**msgpack.unpackb(seal(offer)), "v": 2})
    # Of another federation, for another device than it says, of a wire that is not spoken here, too large for its kind.
    dropped(running, on("offer", seal(offer, federation="elsewhere")))
    dropped(running, on("offer", seal(offer), name="pi-7"))
    dropped(running, on("chunk", seal(chunk), name="pi-1"))
    dropped(running, on("presence", seal(other.presence("offline")), name="pi-1"))
    dropped(running, on("offer", newer))
    dropped(running, on("offer", bytes(100_000)))
    # A chunk before its offer, and before anybody asked for it.
    dropped(running, lambda: other.say(chunk))
    # From a device that was never announced: it has no part in the round, and nothing that is asked for.
    stranger = device("pi-9")
    stranger.post.proxy = other.post.proxy
    dropped(running, lambda: stranger.say(chunk))
    dropped(running, lambda: stranger.say(Want(sha256=bytes(32), chunks=(0,))))
    stranger.say(offer)
    assert stranger.receipt().state == "refused" and stranger.asked == 0
    # About another proxy set, and of rounds that are not open.
    sound, other.post.proxy = other.post.proxy, bytes(32)
    dropped(running, lambda: other.say(offer))
    assert other.receipt() == Receipt(state="refused", reason="it is about another proxy set")
    other.post.proxy = sound
    for number in (1, 2**31 - 1):
        other.say(offer, number)
        assert other.receipt(number).state == "refused"
    # All of a device's messages twice, also after it was accepted.
    other.say(offer)
    other.say(offer)
    other.hear(Want)
    for _ in range(3):
        other.say(chunk)
    assert other.receipt() == Receipt(state="accepted")
    for _ in range(2):
        other.say(other.presence())
        other.say(chunk)
        other.say(offer)
    assert other.receipt() == other.receipt() == Receipt(state="accepted") and other.asked == 1
    one.take_part()
    assert one.finished().knowledge == undisturbed
    assert running.coordinator._state.online == set(BOTH)
    assert len([line for line in caplog.messages if line.startswith("dropped (")]) == len(running.rejected) > 0


def test_messages_of_an_old_round_leave_the_next_one_alone(
    broker: Broker, start: Start, pair: tuple[Device, Device]
) -> None:
    running = start(settings_of(broker.port, rounds=2))
    one, other = pair
    for each in pair:
        each.take_part()
    blobs = other.blobs(other.opened(1))
    chunk = read_chunk(blobs["gyro"], blob_ref(blobs["gyro"]), 0)
    assert chunk is not None
    other.offer(blobs, 0)
    assert other.receipt(0).state == "refused"
    dropped(running, lambda: other.say(chunk, 0))
    assert other.deliver(blobs, 1) == Receipt(state="accepted")
    one.take_part(1)
    assert one.finished().state == "finished"


def test_chunks_that_are_lost_doubled_shuffled_or_damaged_cost_the_round_nothing(
    broker: Broker, start: Start, device: Make
) -> None:
    running = start(settings_of(broker.port, method=LARGE, proxy_windows=50, round=RoundRules(deadline_s=DEADLINE_S)))
    slow = device("pi-1").come()
    blobs = slow.blobs(slow.opened())
    ref = blob_ref(blobs["acc"])
    first, second, third = (read_chunk(blobs["acc"], ref, index) for index in range(3))
    assert first is not None and second is not None and third is not None
    slow.offer(blobs)
    assert slow.hear(Want).chunks == (0, 1, 2)
    dropped(running, lambda: slow.say(replace(third, data=third.data[1:])))
    dropped(running, lambda: slow.say(replace(first, count=7)))
    dropped(running, lambda: slow.say(replace(first, index=3, count=4)))
    slow.say(third)
    slow.say(third)
    # The last one that is missing comes damaged: all of it is asked for again.
    slow.say(second)
    dropped(running, lambda: slow.say(replace(first, data=bytes([first.data[0] ^ 1]) + first.data[1:])))
    assert slow.hear(Want).chunks == (0, 1, 2)
    slow.say(second)
    slow.say(first)
    # The third is lost, and asked for again.
    assert slow.hear(Want).chunks == (2,)
    slow.say(third)
    assert slow.receipt() == Receipt(state="accepted")
    assert slow.finished().state == "finished"


@pytest.fixture
def narrow_broker(tmp_path: Path) -> Iterator[Broker]:
    """Carries announcements, but not a whole chunk."""
    with Broker(tmp_path / "narrow", kind="mosquitto", more=("max_packet_size 40000",)) as running:
        yield running


def test_what_is_over_the_brokers_limit_is_named_on_both_sides_and_nothing_else_suffers(
    narrow_broker: Broker, start: Start
) -> None:
    rules, method = RoundRules(min_devices=2, deadline_s=DEADLINE_S), replace(LARGE, embedding=256)
    running = start(settings_of(narrow_broker.port, method=method, proxy_windows=64, round=rules))
    with contextlib.ExitStack() as stack:
        devices = [Device(name, narrow_broker.port, modalities=("acc",)) for name in BOTH]
        for each in devices:
            stack.callback(each.leave)
            each.come()
        wide, lean = devices
        opened = wide.opened()
        blobs = wide.blobs(opened)
        assert len(blobs["acc"]) > 40_000
        wide.offer(blobs)
        wide.hear(Want)
        chunk = read_chunk(blobs["acc"], blob_ref(blobs["acc"]), 0)
        assert chunk is not None
        wide.say(chunk)
        assert any("over the broker's limit of 40000 bytes" in cause for cause in wide.post.rejected)
        # Asked for something that it cannot send, the coordinator says so as well, and goes on.
        dropped(running, lambda: wide.say(Want(sha256=opened.knowledge["acc"].sha256, chunks=(0,))))
        assert any("over the broker's limit" in cause for cause in running.rejected)
        assert lean.status(lambda status: status.waiting_for == BOTH).phase == "collecting"


def test_a_client_that_sends_more_than_the_broker_takes_harms_itself_alone(
    broker: Broker, start: Start, pair: tuple[Device, Device], undisturbed: dict[str, BlobRef]
) -> None:
    start(settings_of(broker.port))
    one, other = pair
    one.take_part()
    topic = f"mekt/1/{FEDERATION}/up/pi-2/chunk".encode()
    body = len(topic).to_bytes(2, "big") + topic + bytes(2 * LARGEST_PACKET_BYTES)
    length, left = b"", len(body)
    while left:
        length += bytes([left & 0x7F | (0x80 if left >> 7 else 0)])
        left >>= 7
    with socket.create_connection(("127.0.0.1", broker.port)) as raw:
        raw.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
        assert raw.recv(4)[:1] == b"\x20"
        with contextlib.suppress(OSError):
            raw.sendall(b"\x30" + length + body)
            assert raw.recv(1) == b""
    other.take_part()
    assert one.finished().knowledge == undisturbed
