"""The post: what is sealed is opened as it was, and what is dropped is counted, once told, and never much."""

import logging
import queue
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mekt.broker import Broker
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import CHUNK_BYTES, Chunk, Receipt, Rollout, RoundOpen, Status, Want, decode, encode
from mekt.plan import BlobRef
from mekt.post import LONGEST_CAUSE, MOST_CAUSES, Post
from mekt.signature import Purpose, Trust, joined, to_sign

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


# Announcements, and who may make them

SIGNER, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
TOPIC = "mekt/1/home/round"


def announced(number: int | None, by: Ed25519PrivateKey = SIGNER) -> bytes:
    """The golden round's announcement, signed under this number or not at all."""
    coordinator = Post("home")
    if number is not None:
        coordinator.sign = lambda purpose, content: joined(number, by.sign(to_sign(purpose, number, content)))
    lines = (Path(__file__).parent / "golden" / "round.hex").read_text(encoding="ascii").splitlines()
    body = decode(bytes.fromhex("".join(line[:47] for line in lines))).body
    return coordinator.seal(body, "all", round=3)[1]


@pytest.fixture
def careful() -> Post:
    """The post of a device that asks for the coordinator's signature."""
    post = Post("home")
    post.trust = Trust(SIGNER.public_key().public_bytes_raw())
    return post


def test_an_announcement_of_the_coordinator_is_taken_again_and_a_newer_one_too(careful: Post) -> None:
    for number in (5, 5, 9):
        envelope = careful.open(received(TOPIC, announced(number)))
        assert envelope is not None and isinstance(envelope.body, RoundOpen)
    assert careful.trouble == {} and careful.trust is not None and careful.trust.newest == 9


def test_an_announcement_that_is_unsigned_forged_or_older_is_dropped_and_told(careful: Post) -> None:
    assert careful.open(received(TOPIC, announced(5))) is not None
    changed = announced(7).replace(b"open", b"shut", 1)
    assert changed != announced(7)
    for raw, trouble in (
        (announced(None), "unsigned"),
        (announced(2**63, STRANGER), "unsigned"),
        (announced(4), "replayed"),
        (changed, "malformed"),
    ):
        before = careful.trouble[trouble]  # type: ignore[index]
        assert careful.open(received(TOPIC, raw)) is None
        assert careful.trouble[trouble] == before + 1  # type: ignore[index]
    assert careful.open(received(TOPIC, announced(6))) is not None


def test_the_signature_of_one_round_is_none_for_another(careful: Post) -> None:
    first = decode(announced(5))
    for stolen in (
        replace(first, round=4),
        replace(first, sequence=first.sequence + 1),
        replace(first, proxy=b"p" * 32),
    ):
        assert careful.open(received(TOPIC, encode(stolen))) is None
    assert careful.trouble == {"unsigned": 3}


def test_who_asks_for_no_signature_takes_every_announcement() -> None:
    post = Post("home")
    for raw in (announced(None), announced(5), announced(5, STRANGER)):
        assert post.open(received(TOPIC, raw)) is not None


def test_other_messages_need_no_signature(careful: Post) -> None:
    topic, raw = Post("home").seal(Receipt(state="accepted"), "down", device="pi", round=3)
    assert careful.open(received(topic, raw)) is not None


ROLLOUT = Rollout(release="home-00002", blob=BlobRef(sha256=bytes(32), size_bytes=1000), number=3, share=0.25)


def rolled_out(number: int, purpose: Purpose = "rollout", by: Ed25519PrivateKey = SIGNER) -> bytes:
    """A rollout's announcement, signed under this number for this purpose."""
    coordinator = Post("home")
    coordinator.sign = lambda _, content: joined(number, by.sign(to_sign(purpose, number, content)))
    return coordinator.seal(ROLLOUT, "all")[1]


def test_a_rollout_is_signed_for_its_own_purpose_and_refused_when_forged_changed_or_older(careful: Post) -> None:
    topic, unsigned = Post("home").seal(ROLLOUT, "all")
    assert careful.open(received(topic, rolled_out(5))) is not None
    widened = replace(decode(rolled_out(9)), body=replace(ROLLOUT, share=1.0))
    for raw, trouble in (
        (unsigned, "unsigned"),
        (rolled_out(9, "round"), "unsigned"),
        (rolled_out(9, "release"), "unsigned"),
        (rolled_out(9, by=STRANGER), "unsigned"),
        (encode(widened), "unsigned"),
        (rolled_out(4), "replayed"),
    ):
        before = careful.trouble[trouble]  # type: ignore[index]
        assert careful.open(received(topic, raw)) is None
        assert careful.trouble[trouble] == before + 1  # type: ignore[index]
    assert careful.open(received(topic, rolled_out(6))) is not None
