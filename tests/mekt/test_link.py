"""The link as its owner sees it, at a real broker: messages, sessions, wills, and how it ends."""

import hashlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mekt.broker import LARGEST_PACKET_BYTES, Broker
from mekt.errors import LinkError, SettingsError
from mekt.link import Disconnected, Link, Received
from mekt.login import BrokerSettings
from mekt.traffic import WireBytes
from tests.mekt.links import WAIT_S, Sides, needs_mosquitto, wait_until
from tests.weather import Weather

ROOT = Path(__file__).parents[2]

pytestmark = needs_mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """One for each test, as many of them kill it."""
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


def test_a_message_comes_back_with_its_topic_bytes_and_retained_flag(sides: Sides) -> None:
    a, b = sides.side("a", "t/#"), sides.side("b")
    a.link.publish("t/1", b"\0\xff")
    assert a.message() == Received(topic="t/1", payload=b"\0\xff", retained=False)
    b.link.publish("t/2", b"kept", retain=True)
    assert a.message() == Received(topic="t/2", payload=b"kept", retained=False)
    assert sides.side("late", "t/2").message() == Received(topic="t/2", payload=b"kept", retained=True)


def test_messages_to_an_absent_client_arrive_when_it_is_back(sides: Sides) -> None:
    away = sides.side("away", "t/#")
    away.link.publish("t/0", b"subscribed")
    away.message()
    away.link.stop()
    other = sides.side("other", "t/#")
    for number in range(3):
        other.link.publish(f"t/{number}", b"while away")
        other.message()
    back = sides.side("away", "t/#")
    assert back.connected().session_present
    assert [back.message().topic for _ in range(3)] == ["t/0", "t/1", "t/2"]


def test_a_visitor_leaves_no_session_behind(sides: Sides) -> None:
    for _ in range(2):
        visitor = sides.side("visitor", "t/#", keeps_session=False)
        assert not visitor.connected().session_present
        visitor.link.stop()


def test_a_silent_client_is_waited_for_until_its_lease_ends(broker: Broker, sides: Sides) -> None:
    watcher = sides.side("watcher", "w")
    watcher.connected()
    with Weather(broker.port) as weather:
        silent = Sides(weather.port).side("silent", settings={"lease_s": 3}, will=("w", b"gone"))
        try:
            silent.connected()
            weather.stall(new_ones_too=True)
            began_s = time.monotonic()
            assert watcher.message().payload == b"gone"
            # The broker last heard of it at most a keep-alive before, and looks for silent clients every few seconds.
            assert 0.5 < time.monotonic() - began_s < 3 + 5 + WAIT_S / 5
        finally:
            silent.link.stop(1.0)


def test_a_broker_that_remembers_keeps_sessions_over_its_own_death(tmp_path: Path) -> None:
    with Broker(tmp_path, kind="mosquitto", persistent=True) as broker:
        sides = Sides(broker.port)
        away = sides.side("away", "t")
        away.link.publish("t", b"subscribed")
        away.message()
        away.link.stop()
        other = sides.side("other", "t")
        other.link.publish("t", b"kept")
        other.message()
        other.link.stop()
        kept = tmp_path / "mosquitto.db"
        wait_until(lambda: kept.exists() and b"kept" in kept.read_bytes(), f"{kept} holds the message")
        broker.kill()
        broker.start()
        back = sides.side("away", "t")
        assert back.connected().session_present and back.message().payload == b"kept"
        back.link.stop()


def test_a_message_over_the_brokers_limit_is_refused_before_it_is_sent(sides: Sides) -> None:
    side = sides.side("a", "t")
    side.connected()
    with pytest.raises(LinkError, match=rf"over the broker's limit of {LARGEST_PACKET_BYTES} bytes; raise max_packet_"):
        side.link.publish("t", bytes(LARGEST_PACKET_BYTES))
    side.link.publish("t", bytes(LARGEST_PACKET_BYTES - 1000))
    assert len(side.message().payload) == LARGEST_PACKET_BYTES - 1000
    assert side.link.is_connected and not any(isinstance(event, Disconnected) for event in side.seen)


def test_a_limit_that_shrinks_costs_the_messages_over_it_and_nothing_else(
    broker: Broker, sides: Sides, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    side = sides.side("a", "t")
    broker.kill()
    side.disconnected()
    side.link.publish("t", bytes(5000))
    side.link.publish("t", b"small")
    with Broker(tmp_path / "smaller", port=broker.port, more=("max_packet_size 2000",)):
        side.connected()
        assert side.message().payload == b"small"
        assert "a message for t is over the broker's new packet limit" in caplog.text
        assert side.link.is_connected


def test_more_messages_than_may_wait_are_refused(broker: Broker, sides: Sides) -> None:
    side = sides.side("a")
    broker.kill()
    side.disconnected()
    with pytest.raises(LinkError, match="2000 messages are waiting for the broker; t was not queued"):
        for _ in range(2001):
            side.link.publish("t", b"")


def test_many_threads_publish_and_no_message_is_mixed_with_another(sides: Sides) -> None:
    receiver, sender = sides.side("receiver", "t/+"), sides.side("sender")
    receiver.connected()

    def publish(number: int) -> None:
        for count in range(30):
            data = bytes([number, count]) * (1 + 1500 * count)
            sender.link.publish(f"t/{number}", hashlib.sha256(data).digest() + data)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    counts: dict[str, int] = dict.fromkeys((f"t/{number}" for number in range(8)), 0)
    for _ in range(8 * 30):
        message = receiver.message()
        digest, data = message.payload[:32], message.payload[32:]
        assert hashlib.sha256(data).digest() == digest
        assert data[1] == counts[message.topic], "each thread's messages keep their order"
        counts[message.topic] += 1
    for thread in threads:
        thread.join()
    assert not any(isinstance(event, Disconnected) for event in sender.seen)


def test_the_kernels_count_of_bytes_is_that_of_the_messages_and_little_more(broker: Broker, sides: Sides) -> None:
    size, count = 50_000, 10
    side = sides.side("a", "t")
    side.connected()
    before = side.link.wire_bytes()
    for total in (1, 2):  # the second time over another connection
        for _ in range(count):
            side.link.publish("t", bytes(size))
        for _ in range(count):
            side.message()
        after = side.link.wire_bytes()
        sent = total * size * count
        assert sent <= after.up - before.up < sent + total * count * 60 + 1000
        assert sent <= after.down - before.down < sent + total * count * 60 + 1000
        if total == 1:
            broker.kill()
            side.disconnected()
            assert side.link.wire_bytes().down - before.down >= sent, "a connection that is gone still counts"
            broker.start()
            side.connected()
    side.link.stop()
    after = side.link.wire_bytes()
    assert after == side.link.wire_bytes() != WireBytes()


def test_what_the_broker_has_not_acknowledged_is_known_by_topic(broker: Broker, sides: Sides) -> None:
    side = sides.side("a")
    side.connected()
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        for topic in ("t/1", "t/2", "t/1"):
            side.link.publish(topic, b"x")
        assert [side.link.leaving(topic) for topic in ("t/1", "t/2", "t/3")] == [2, 1, 0]
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    wait_until(lambda: not side.link.leaving("t/1") and not side.link.leaving("t/2"), "all of them have left")
    broker.kill()
    side.disconnected()
    side.link.publish("t/1", b"x")
    assert side.link.leaving("t/1") == 1
    broker.start()
    side.connected()
    wait_until(lambda: not side.link.leaving("t/1"), "the last one has left")


def test_the_will_speaks_when_the_process_is_killed(broker: Broker, sides: Sides) -> None:
    watcher = sides.side("watcher", "w")
    watcher.connected()
    program = (
        "import queue, sys\n"
        "from mekt.link import Link\n"
        "from mekt.login import BrokerSettings\n"
        f"settings = BrokerSettings(port={broker.port})\n"
        "Link(settings=settings, client_id='mortal', inbox=queue.Queue(), will=('w', b'gone')).start()\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.kill()
    assert watcher.message() == Received(topic="w", payload=b"gone", retained=False)
    assert sides.side("late", "w").message() == Received(topic="w", payload=b"gone", retained=True)


def test_a_farewell_takes_the_wills_place(sides: Sides) -> None:
    watcher = sides.side("watcher", "w")
    leaving = sides.side("leaving", will=("w", b"gone"))
    leaving.connected()
    leaving.link.stop(last=("w", b"farewell"))
    assert watcher.message().payload == b"farewell"
    watcher.link.publish("w", b"end")
    assert watcher.message().payload == b"end"


def test_all_that_is_queued_is_sent_before_the_link_stops(sides: Sides) -> None:
    receiver, sender = sides.side("receiver", "t"), sides.side("sender")
    receiver.connected()
    for number in range(200):
        sender.link.publish("t", b"%d" % number)
    sender.link.stop(timeout_s=WAIT_S)
    assert [receiver.message().payload for _ in range(200)] == [b"%d" % number for number in range(200)]


def test_stop_keeps_its_word_when_the_broker_is_frozen_and_the_will_speaks_later(broker: Broker, sides: Sides) -> None:
    side = sides.side("frozen", will=("w", b"gone"))
    side.connected()
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        side.link.stop(timeout_s=1.0, last=("w", b"farewell"))
        assert time.monotonic() - began_s < 1.5
        assert not is_alive("frozen")
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    watcher = sides.side("watcher", "w")
    words = [watcher.message().payload]
    while words[-1] != b"gone":
        words.append(watcher.message().payload)
    assert words in ([b"gone"], [b"farewell", b"gone"])


def test_stop_while_the_link_tries_again_returns_at_once(broker: Broker, sides: Sides) -> None:
    side = sides.side("a")
    broker.kill()
    side.disconnected()
    began_s = time.monotonic()
    side.link.stop(timeout_s=5.0, last=("w", b"farewell"))
    assert time.monotonic() - began_s < 2
    assert not is_alive("a")
    side.link.stop()


def is_alive(name: str) -> bool:
    """Whether the network thread of the link by this name runs."""
    return any(each.name == f"mekt-link {name}" for each in threading.enumerate())


def test_a_link_that_never_started_may_be_stopped(broker: Broker) -> None:
    Link(settings=BrokerSettings(port=broker.port), client_id="a", inbox=queue.Queue()).stop()


def test_plain_text_beyond_this_machine_is_refused_unless_allowed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1 is another machine and \[broker\.tls\] is missing"):
        Link(settings=BrokerSettings(host="192.0.2.1"), client_id="a", inbox=queue.Queue())
    assert caplog.text == ""
    Link(settings=BrokerSettings(host="192.0.2.1", plain_text_allowed=True), client_id="a", inbox=queue.Queue())
    assert "PLAIN TEXT to 192.0.2.1" in caplog.text
