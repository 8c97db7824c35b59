"""The post: what is sealed is opened as it was, and what is dropped is counted, once told, and never much."""

import logging
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mekt.broker import Broker
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import CHUNK_BYTES, Chunk, Receipt, Status, Want, decode
from mekt.post import LONGEST_CAUSE, MOST_CAUSES, Post

WAIT_S = 15.0


def received(topic: str, payload: bytes) -> Received:
    return Received(topic=topic, payload=payload, retained=False)


@dataclass
class Wire:
    """A link over a real broker that hears itself."""

    link: Link
    inbox: "queue.Queue[Any]"

    def heard(self) -> Received:
        while True:
            event = self.inbox.get(timeout=WAIT_S)
            if isinstance(event, Received):
                return event


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with Broker(tmp_path / "broker", kind="mosquitto") as broker:
        inbox: queue.Queue[Any] = queue.Queue(100)
        link = Link(settings=BrokerSettings(port=broker.port), client_id="a", inbox=inbox, subscriptions=("mekt/#",))
        link.start()
        yield Wire(link, inbox)
        link.stop(1.0)


def test_what_is_sealed_is_opened_as_it_was() -> None:
    post = Post("ward", proxy=b"p" * 32)
    topic, raw = post.seal(Receipt(state="refused", reason="late"), "down", device="pi", round=3)
    assert topic == "mekt/1/ward/down/pi/receipt"
    envelope = Post("ward").open(received(topic, raw))
    assert envelope is not None
    assert (envelope.body, envelope.device, envelope.round) == (Receipt(state="refused", reason="late"), "pi", 3)
    assert envelope.proxy == b"p" * 32 and envelope.sequence == 1


def test_messages_are_numbered() -> None:
    post = Post("ward")
    sealed = [post.seal(Receipt(state="accepted"), "down", device="pi")[1] for _ in range(3)]
    assert [decode(raw).sequence for raw in sealed] == [1, 2, 3]


@pytest.mark.parametrize(
    ("topic", "payload", "cause"),
    [
        ("other/topic", b"", "a topic of another federation or version"),
        ("mekt/2/ward/round", b"", "a topic of another federation or version"),
        ("mekt/1/elsewhere/round", b"", "a topic of another federation or version"),
        ("mekt/1/ward/round", b"\xc1", "coordinator, round: not msgpack"),
        ("mekt/1/ward/up/pi/offer", b"x" * 8193, "pi, offer: a offer message of 8193 bytes is over"),
        ("mekt/1/ward/up/pi/spell", b"", "pi, spell: no message kind is called 'spell'"),
    ],
)
def test_what_is_no_message_is_dropped_with_its_cause(topic: str, payload: bytes, cause: str) -> None:
    post = Post("ward")
    assert post.open(received(topic, payload)) is None
    ((told, count),) = post.rejected.items()
    assert told.startswith(cause) and count == 1


def test_a_message_on_another_topic_than_its_own_is_dropped() -> None:
    post = Post("ward")
    topic, raw = post.seal(Want(sha256=b"s" * 32, chunks=(0,)), "up", device="pi")
    assert post.open(received(topic.replace("pi", "other"), raw)) is None
    assert post.open(received(topic.replace("want", "chunk"), raw)) is None
    topic, raw = post.seal(Receipt(state="accepted"), "down", device="pi")
    assert post.open(received(topic.replace("down", "up"), raw)) is None
    assert post.rejected.total() == 3


def test_a_cause_is_counted_every_time_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    post = Post("ward")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            post.reject("malformed", "this")
        post.reject("repeated", "that")
        post.note("repeated")
    assert post.rejected == {"this": 5, "that": 1} and post.trouble == {"malformed": 5, "repeated": 2}
    told = [record.getMessage() for record in caplog.records]
    assert told == ["dropped (malformed): this", "dropped (repeated): that"]


def test_a_peer_that_invents_causes_fills_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    post = Post("ward")
    for number in range(3 * MOST_CAUSES):
        post.reject("malformed", f"{number} " + "x" * 1000)
    assert len(post.rejected) == MOST_CAUSES + 1 and post.rejected["other causes"] == 2 * MOST_CAUSES
    assert max(map(len, post.rejected)) <= LONGEST_CAUSE
    assert len(caplog.records) == MOST_CAUSES + 1
    post.reject("malformed", "0 " + "x" * 1000)
    assert post.rejected[("0 " + "x" * 1000)[:LONGEST_CAUSE]] == 2


def test_a_cause_cannot_forge_lines_of_the_log() -> None:
    post = Post("ward")
    post.reject("malformed", "a\nERROR b\x1b[31m")
    assert list(post.rejected) == ["a?ERROR b?[31m"]


def test_a_message_travels_over_a_broker(wire: Wire) -> None:
    post = Post("ward")
    post.use(wire.link)
    post.send(Want(sha256=b"s" * 32, chunks=(1, 2)), "up", device="pi", round=4)
    envelope = post.open(wire.heard())
    assert envelope is not None and envelope.body == Want(sha256=b"s" * 32, chunks=(1, 2)) and envelope.round == 4
    assert not post.rejected


def test_what_no_receiver_would_accept_is_not_sent(wire: Wire) -> None:
    post = Post("ward")
    post.use(wire.link)
    status = Status(phase="x", rounds=1, online=(), waiting_for=(), received=(), reports=(), text="x" * 501)
    assert not post.send(status, "all")
    assert not post.send(Chunk(sha256=b"s" * 32, index=0, count=1, data=b"x" * (CHUNK_BYTES + 1)), "up", device="pi")
    assert [cause.split(":")[0] for cause in post.rejected] == ["not sent", "not sent"]
    post.send(Receipt(state="accepted"), "down", device="pi")
    assert wire.heard().topic == "mekt/1/ward/down/pi/receipt"


def test_what_the_broker_cannot_carry_is_not_sent(tmp_path: Path) -> None:
    with Broker(tmp_path / "small", kind="mosquitto", more=("max_packet_size 2000",)) as broker:
        link = Link(settings=BrokerSettings(port=broker.port), client_id="a", inbox=queue.Queue())
        link.start()
        try:
            post = Post("ward")
            post.use(link)
            post.send(Chunk(sha256=b"s" * 32, index=0, count=1, data=b"x" * 4000), "up", device="pi")
            ((cause, count),) = post.rejected.items()
            assert cause.startswith("not sent: a message of ") and "over the broker's limit of 2000" in cause
            assert count == 1
        finally:
            link.stop(1.0)
