"""A connection at a real broker: every trap of the client below it that it says it closes."""

import contextlib
import os
import queue
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.reasoncodes import ReasonCode

from mekt.broker import LARGEST_PACKET_BYTES, Broker
from mekt.connection import V5, Bell, Caller, Connection
from mekt.credentials import Credentials
from mekt.link import Disconnected, Received
from mekt.login import BrokerSettings
from mekt.outgoing import QUEUED_MESSAGES, Message
from mekt.traffic import Traffic
from tests.mekt.links import WAIT_S, Sides, needs_mosquitto
from tests.weather import Weather

pytestmark = needs_mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """One for each test, as many of them kill it."""
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


class Brittle(queue.Queue[Any]):
    """An inbox that breaks at the first message."""

    broken = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if isinstance(item, Received) and not self.broken:
            self.broken = True
            raise ValueError("no")
        super().put(item, block, timeout)


def test_an_exception_in_a_callback_does_not_end_the_connection(sides: Sides, caplog: pytest.LogCaptureFixture) -> None:
    side = sides.side("a", "t", inbox=Brittle())
    for payload in (b"breaks", b"arrives"):
        side.link.publish("t", payload)
    assert side.message().payload == b"arrives"
    assert side.link.is_connected and not any(isinstance(event, Disconnected) for event in side.seen)
    assert "_on_message failed; the connection goes on" in caplog.text


def test_a_frozen_broker_is_noticed_after_two_keep_alives(broker: Broker, sides: Sides) -> None:
    side = sides.side("a", settings={"lease_s": 3})
    side.connected()
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        side.disconnected()
        assert time.monotonic() - began_s < 8
        assert not side.link.is_connected
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    side.connected()


def test_what_leaves_slowly_is_no_lost_connection(broker: Broker, sides: Sides) -> None:
    """A ping leaves behind a message that takes longer than two keep-alives, and nothing is heard meanwhile."""
    quick = sides.side("quick", "t")
    with Weather(broker.port) as weather:
        slow = Sides(weather.port).side("slow", settings={"lease_s": 3})
        try:
            slow.connected()
            weather.bytes_per_s = 8000.0
            slow.link.publish("t", bytes(60_000))
            assert len(quick.message().payload) == 60_000
            assert weather.connections == 1 and slow.link.is_connected
        finally:
            slow.link.stop(1.0)


def test_a_process_with_many_open_files_connects(sides: Sides) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this machine does not allow 2048 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(1100):
                stack.enter_context(open(os.devnull, "rb"))  # noqa: PTH123
            side = sides.side("a", "t")
            side.link.publish("t", b"over 1024")
            assert side.message().payload == b"over 1024"
            side.link.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Keeper(Traffic):
    """Counts, and keeps the latest socket."""

    kept: socket.socket | None = None

    def opened(self, connection: socket.socket) -> None:
        self.kept = connection
        super().opened(connection)


class Notes:
    """A listener that notes what it hears, in its order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def welcomed(self, reason: ReasonCode, *, session_present: bool, limit_bytes: int | None) -> None:
        self.heard.append(("welcomed", (reason.is_failure, session_present, limit_bytes)))

    def subscribed(self, reasons: list[ReasonCode]) -> None:
        self.heard.append(("subscribed", len(reasons)))

    def arrived(self, message: mqtt.MQTTMessage) -> None:
        self.heard.append(("arrived", (message.topic, message.payload)))

    def acknowledged(self, number: int) -> None:
        self.heard.append(("acknowledged", number))

    def caught_up(self) -> None:
        self.heard.append(("caught up", None))

    def erred(self, words: str) -> None:
        self.heard.append(("erred", words))

    def ended(self, words: str) -> None:
        self.heard.append(("ended", words))


@dataclass
class Line:
    """A connection that is moved by the test, and what its listener heard."""

    connection: Connection
    notes: Notes
    traffic: Keeper
    bell: Bell

    def until(self, what: str) -> Any:
        """Move packets until the listener hears this; what else it heard with it."""
        deadline_s = time.monotonic() + WAIT_S
        while not (found := [each for each in self.notes.heard if each[0] == what]):
            assert time.monotonic() < deadline_s, f"{what} was never heard, but {self.notes.heard}"
            if self.connection.is_open:
                self.connection.move(self.bell)
        return found[0][1]


@pytest.fixture
def line(broker: Broker) -> Iterator[Line]:
    """One that subscribes to "t" when told to."""
    settings = BrokerSettings(port=broker.port)
    notes, traffic, bell = Notes(), Keeper(), Bell()
    caller = Caller(settings=settings, client_id="a", subscriptions=("t",))
    connection = Connection(caller, V5, credentials=Credentials(settings), traffic=traffic, listener=notes)
    yield Line(connection, notes, traffic, bell)
    connection.hang_up()
    bell.close()


def test_small_packets_leave_at_once(line: Line) -> None:
    line.connection.dial()
    assert line.traffic.kept is not None
    assert line.traffic.kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_everything_that_happens_is_told_to_the_listener(line: Line) -> None:
    assert not line.connection.is_open
    line.connection.dial()
    assert line.until("welcomed") == (False, False, LARGEST_PACKET_BYTES)
    line.connection.subscribe()
    assert line.until("subscribed") == 1
    number = line.connection.publish(Message(topic="t", payload=b"x"))
    assert line.until("acknowledged") == number
    assert line.until("arrived") == ("t", b"x")
    line.connection.ask()
    line.until("caught up")
    line.connection.log_off()
    line.until("ended")
    assert not line.connection.is_open


def test_what_is_queued_may_be_taken_back_in_its_order(line: Line) -> None:
    messages = [Message(topic=f"t/{number}", payload=b"x" * number, retain=number == 1) for number in range(3)]
    assert all(line.connection.publish(each) is not None for each in messages)
    assert line.connection.take_back() == messages
    assert line.connection.take_back() == []


def test_more_than_may_wait_is_not_queued(line: Line) -> None:
    for _ in range(QUEUED_MESSAGES):
        assert line.connection.publish(Message(topic="t", payload=b"")) is not None
    assert line.connection.publish(Message(topic="t", payload=b"")) is None


def test_a_bell_is_heard_from_another_thread_and_harmless_when_nobody_waits_any_more() -> None:
    bell = Bell()
    poller = select.poll()
    poller.register(bell, select.POLLIN)
    assert poller.poll(0) == []
    for _ in range(100_000):
        bell.ring()
    ringing = threading.Thread(target=bell.ring)
    ringing.start()
    assert poller.poll(WAIT_S * 1000) != []
    ringing.join()
    while poller.poll(0):
        bell.hush()
    bell.hush()
    bell.close()
    bell.ring()
