"""The account of what is sent, with a carrier in memory that acknowledges when the test says so."""

import threading
from collections.abc import Callable

import pytest

from mekt import catalogue
from mekt.errors import LinkError, StateError
from mekt.outgoing import PACKET_OVERHEAD_BYTES, QUEUED_MESSAGES, Message, Outgoing


class Memory:
    """A carrier that keeps everything, and has room for so much."""

    def __init__(self, room: int = QUEUED_MESSAGES) -> None:
        self.kept: list[Message] = []
        self.at_once: Callable[[int], None] | None = None
        self._room = room
        self._number = 0

    def publish(self, message: Message) -> int | None:
        if len(self.kept) >= self._room:
            return None
        self.kept.append(message)
        self._number += 1
        if self.at_once is not None:
            self.at_once(self._number)
        return self._number

    def take_back(self) -> list[Message]:
        kept, self.kept = self.kept, []
        return kept


def message(topic: str, size: int = 1, *, retain: bool = False) -> Message:
    return Message(topic=topic, payload=bytes(size), retain=retain)


def test_a_packet_is_no_larger_than_its_message_says() -> None:
    assert message("é/1", 10).packet_bytes == 10 + 4 + PACKET_OVERHEAD_BYTES


def test_what_is_not_acknowledged_is_known_by_topic() -> None:
    outgoing = Outgoing(Memory())
    for topic in ("t/1", "t/2", "t/1"):
        outgoing.send(message(topic))
    assert [outgoing.leaving(topic) for topic in ("t/1", "t/2", "t/3")] == [2, 1, 0]
    outgoing.acknowledged(1)
    outgoing.acknowledged(2)
    assert [outgoing.leaving(topic) for topic in ("t/1", "t/2")] == [1, 0]


def test_an_acknowledgement_that_is_faster_than_the_number_counts() -> None:
    carrier = Memory()
    outgoing = Outgoing(carrier)
    carrier.at_once = outgoing.acknowledged
    outgoing.send(message("t"))
    assert outgoing.leaving("t") == 0 and outgoing.drain(0.0)
    carrier.at_once = None
    outgoing.send(message("t"))
    assert outgoing.leaving("t") == 1, "of another message it says nothing"


def test_all_that_was_sent_is_waited_for_as_long_as_there_is_time() -> None:
    outgoing = Outgoing(Memory())
    assert outgoing.drain(0.0)
    outgoing.send(message("t"))
    outgoing.send(message("t"))
    outgoing.acknowledged(2)
    assert not outgoing.drain(0.01)
    late = threading.Timer(0.02, outgoing.acknowledged, [1])
    late.start()
    assert outgoing.drain(60.0)
    late.join()


def test_a_message_over_the_limit_is_refused_and_counts_for_nothing() -> None:
    carrier = Memory()
    outgoing = Outgoing(carrier)
    outgoing.limit(300)
    with pytest.raises(LinkError, match=r"a message of 301 bytes for t is over the broker's limit of 300 bytes; raise"):
        outgoing.send(message("t", 44))
    outgoing.send(message("t", 43))
    assert [len(each.payload) for each in carrier.kept] == [43] and outgoing.leaving("t") == 1


def test_more_than_may_wait_is_refused() -> None:
    outgoing = Outgoing(Memory(room=2))
    outgoing.send(message("t"))
    outgoing.send(message("t"))
    with pytest.raises(LinkError, match="2000 messages are waiting for the broker; t was not queued"):
        outgoing.send(message("t"))
    assert outgoing.leaving("t") == 2


def test_another_carrier_takes_over_what_is_not_acknowledged_in_its_order() -> None:
    former, later = Memory(), Memory()
    outgoing = Outgoing(former)
    outgoing.limit(300)
    sent = [message("t/1"), message("t/2", retain=True), message("t/1")]
    for each in sent:
        outgoing.send(each)
    outgoing.use(later)
    assert (former.kept, later.kept) == ([], sent)
    assert [outgoing.leaving(topic) for topic in ("t/1", "t/2")] == [2, 1]
    outgoing.send(message("t/3", 1000))
    assert len(later.kept) == 4, "what another connection's broker takes is not known yet"


def test_a_limit_that_shrinks_costs_what_is_over_it_once(caplog: pytest.LogCaptureFixture) -> None:
    carrier = Memory()
    outgoing = Outgoing(carrier)
    for size in (10, 5000, 20):
        outgoing.send(message(f"t/{size}", size))
    outgoing.limit(1000)
    assert [each.topic for each in carrier.kept] == ["t/10", "t/20"]
    assert [outgoing.leaving(f"t/{size}") for size in (10, 5000, 20)] == [1, 0, 1]
    outgoing.limit(1000)
    outgoing.limit(None)
    assert caplog.messages == ["a message for t/5000 is over the broker's new packet limit, and dropped"]


class Witnessed:
    """A witness that keeps what it is told, and forbids what a test says."""

    def __init__(self, carrier: Memory) -> None:
        self.told: list[Message] = []
        self.forbidden: set[str] = set()
        self._carrier = carrier

    def saw(self, message: Message, *, is_will: bool = False) -> None:
        assert message not in self._carrier.kept and not is_will
        if message.topic in self.forbidden:
            raise StateError("it cannot be kept", catalogue.DISK_FULL)
        self.told.append(message)


def test_a_witness_is_told_before_the_carrier_and_what_it_forbids_does_not_leave() -> None:
    carrier = Memory()
    witness = Witnessed(carrier)
    outgoing = Outgoing(carrier, witness)
    outgoing.send(message("t/1"))
    witness.forbidden.add("t/2")
    with pytest.raises(StateError, match="cannot be kept"):
        outgoing.send(message("t/2"))
    outgoing.send(message("t/3"))
    assert [each.topic for each in carrier.kept] == [each.topic for each in witness.told] == ["t/1", "t/3"]


def test_a_witness_is_not_told_again_of_what_another_connection_takes_over_nor_of_what_is_too_large() -> None:
    carrier = Memory()
    witness = Witnessed(carrier)
    outgoing = Outgoing(carrier, witness)
    outgoing.send(message("t/1"))
    outgoing.use(later := Memory())
    outgoing.limit(PACKET_OVERHEAD_BYTES + 100)
    with pytest.raises(LinkError):
        outgoing.send(message("t/2", 200))
    assert [each.topic for each in later.kept] == [each.topic for each in witness.told] == ["t/1"]
