"""The link against a real broker: every trap that it says it closes, and every way in which a first login fails."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import queue
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from mekt.broker import LARGEST_PACKET_BYTES, Broker, free_port
from mekt.errors import LinkError, SettingsError
from mekt.link import LONGEST_DELAY_S, Connected, Disconnected, Link, LinkEvent, Received
from mekt.login import BrokerSettings, TlsSettings, located
from mekt.traffic import WireBytes
from tests.weather import Weather

WAIT_S = 15.0 * float(os.environ.get("MEKT_TEST_TIME_UNIT", "1"))
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None,
    reason="mosquitto is not installed",
)


@dataclass
class Side:
    """A link, and what came out of its inbox so far."""

    link: Link
    inbox: "queue.Queue[Any]"
    seen: list[LinkEvent] = field(default_factory=list)

    def until(self, wanted: Callable[[LinkEvent], bool], wait_s: float = WAIT_S) -> LinkEvent:
        """The next event that is wanted; those before it are kept in `seen`."""
        deadline_s = time.monotonic() + wait_s
        while True:
            event = self.inbox.get(timeout=max(0.0, deadline_s - time.monotonic()))
            self.seen.append(event)
            if wanted(event):
                found: LinkEvent = event
                return found

    def message(self, wait_s: float = WAIT_S) -> Received:
        event = self.until(lambda event: isinstance(event, Received), wait_s)
        assert isinstance(event, Received)
        return event

    def connected(self) -> Connected:
        event = self.until(lambda event: isinstance(event, Connected))
        assert isinstance(event, Connected)
        return event

    def disconnected(self) -> Disconnected:
        event = self.until(lambda event: isinstance(event, Disconnected))
        assert isinstance(event, Disconnected)
        return event


@dataclass
class Sides:
    """Starts links to one broker, and stops them all in the end."""

    port: int
    made: list[Link] = field(default_factory=list)

    def side(self, name: str, *subscriptions: str, start: bool = True, **options: Any) -> Side:
        inbox = options.pop("inbox", None) or queue.Queue(1000)
        settings = BrokerSettings(port=self.port, **options.pop("settings", {}))
        link = Link(settings=settings, client_id=name, inbox=inbox, subscriptions=subscriptions, **options)
        self.made.append(link)
        side = Side(link, inbox)
        if start:
            link.start()
        return side


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


@pytest.fixture
def sides(broker: Broker) -> Iterator[Sides]:
    opened = Sides(broker.port)
    yield opened
    for link in opened.made:
        link.stop(timeout_s=1.0)


def refusal(settings: BrokerSettings, within_s: float = 8.0) -> str:
    """What `start` says about a broker that it cannot use; the link is over then."""
    link = Link(settings=settings, client_id="refused", inbox=queue.Queue())
    began_s = time.monotonic()
    with pytest.raises(LinkError) as caught:
        link.start()
    assert time.monotonic() - began_s < within_s * max(1.0, WAIT_S / 15)
    assert not link.is_connected
    assert str(caught.value).startswith(f"broker {settings.host}:{settings.port}: ")
    return str(caught.value)


def test_it_speaks_mqtt_5_and_sends_small_packets_at_once(sides: Sides) -> None:
    side = sides.side("a")
    assert side.connected() == Connected(protocol="5", session_present=False)
    assert side.link.is_connected
    connection = side.link._traffic._open
    assert connection is not None
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


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
            weather.stall()
            began_s = time.monotonic()
            assert watcher.message().payload == b"gone"
            # The broker last heard of it at most a keep-alive before.
            assert 0.5 < time.monotonic() - began_s < 3 + WAIT_S / 5
        finally:
            silent.link.stop(1.0)


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


def test_nobody_listens() -> None:
    assert "nobody listens there; start the broker" in refusal(BrokerSettings(port=free_port()))


def test_a_name_that_nobody_has() -> None:
    text = refusal(BrokerSettings(host="broker.invalid", plain_text_allowed=True), within_s=12)
    assert "the name is not known" in text


def test_somebody_listens_who_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.link.LOGIN_S", 0.7)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert "no answer to the login" in refusal(BrokerSettings(port=mute.getsockname()[1]), within_s=10)


def test_a_broker_that_starts_a_moment_later_is_waited_for(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    link = Link(settings=BrokerSettings(port=broker.port), client_id="a", inbox=queue.Queue())
    starting = threading.Timer(0.2, broker.start)
    starting.start()
    try:
        link.start()
        assert link.is_connected
    finally:
        link.stop()
        starting.join()
        broker.stop()


def test_a_refused_login_names_the_remedy_and_the_right_one_is_accepted(tmp_path: Path) -> None:
    users, password, wrong = tmp_path / "users", tmp_path / "password", tmp_path / "wrong"
    users.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", users, "pi", "secret"], check=True)
    password.write_text("secret\n")
    wrong.write_text("guess\n")
    lines = ("allow_anonymous false", f"password_file {users}")
    with Broker(tmp_path / "broker", kind="mosquitto", more=lines) as broker:
        for login in ({}, {"username": "pi", "password_file": str(wrong)}):
            settings = BrokerSettings(port=broker.port, **login)  # type: ignore[arg-type]
            assert "it refuses the login (" in (text := refusal(settings, within_s=3))
            assert "check user name, password file" in text
        right = BrokerSettings(port=broker.port, username="pi", password_file=str(password))
        link = Link(settings=right, client_id="a", inbox=queue.Queue())
        link.start()
        link.stop()


@dataclass(frozen=True)
class Papers:
    """A certificate authority, another one, and what the first one signed."""

    ca: str
    other_ca: str
    server: str
    server_key: str
    device: str
    device_key: str


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, cwd=folder, stderr=subprocess.DEVNULL)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        openssl(
            "req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem"
        )
    for name, extra in (("server", "subjectAltName=IP:127.0.0.1"), ("device", "subjectAltName=DNS:device")):
        (folder / "extra").write_text(extra)
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "extra", "-out", f"{name}.pem"),
        )
    files = ("ca.pem", "other.pem", "server.pem", "server.key", "device.pem", "device.key")
    return Papers(*(str(folder / name) for name in files))


@pytest.fixture
def tls_broker(tmp_path: Path, papers: Papers) -> Iterator[Broker]:
    lines = (
        f"cafile {papers.ca}",
        f"certfile {papers.server}",
        f"keyfile {papers.server_key}",
        "require_certificate true",
    )
    with Broker(tmp_path / "tls", kind="mosquitto", more=lines) as running:
        yield running


# Paho leaves the socket of a failed handshake to the garbage collector.
unclosed = pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")


def test_over_tls_large_messages_come_and_go(tls_broker: Broker, papers: Papers) -> None:
    tls = TlsSettings(ca=papers.ca, certificate=papers.device, key=papers.device_key)
    inbox: queue.Queue[Any] = queue.Queue()
    settings = BrokerSettings(port=tls_broker.port, tls=tls)
    link = Link(settings=settings, client_id="a", inbox=inbox, subscriptions=("t",))
    link.start()
    try:
        side = Side(link, inbox)
        for number in range(20):
            link.publish("t", bytes([number]) * 200_000)
        assert [side.message().payload[0] for _ in range(20)] == list(range(20))
        assert link.wire_bytes().down > 4_000_000
    finally:
        link.stop()
    assert not link.is_connected


@unclosed
def test_a_broker_that_another_authority_signed_is_refused(tls_broker: Broker, papers: Papers) -> None:
    text = refusal(BrokerSettings(port=tls_broker.port, tls=TlsSettings(ca=papers.other_ca)), within_s=3)
    assert "TLS fails (" in text and "check the CA file" in text


@unclosed
def test_a_device_without_a_certificate_hears_about_certificates(tls_broker: Broker, papers: Papers) -> None:
    text = refusal(BrokerSettings(port=tls_broker.port, tls=TlsSettings(ca=papers.ca)))
    assert "this side's certificate" in text


@unclosed
def test_tls_on_one_side_only(tls_broker: Broker, broker: Broker, papers: Papers) -> None:
    assert "use TLS or neither" in refusal(BrokerSettings(port=tls_broker.port))
    assert re.search(
        "TLS fails|use TLS or neither",
        refusal(BrokerSettings(port=broker.port, tls=TlsSettings(ca=papers.ca)), within_s=12),
    )


def test_files_that_cannot_be_used_are_found_before_anything_starts(papers: Papers, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.key"
    words = ("ec", "-in", papers.device_key, "-aes128", "-passout", "pass:x", "-out", str(encrypted))
    subprocess.run(["openssl", *words], check=True, stderr=subprocess.DEVNULL)
    missing = str(tmp_path / "missing")
    for settings, says in (
        (BrokerSettings(username="pi", password_file=missing), r"broker\.password_file: .*missing cannot be read"),
        (BrokerSettings(tls=TlsSettings(ca=missing)), r"broker\.tls: .*missing"),
        (BrokerSettings(tls=TlsSettings(ca=papers.ca, certificate=papers.device, key=str(encrypted))), "encrypted.key"),
        (BrokerSettings(tls=TlsSettings(ca=papers.ca, certificate=papers.device, key=papers.server_key)), "server.key"),
    ):
        with pytest.raises(SettingsError, match=says):
            Link(settings=settings, client_id="a", inbox=queue.Queue())


def test_plain_text_beyond_this_machine_is_refused_unless_allowed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1 is another machine and \[broker\.tls\] is missing"):
        Link(settings=BrokerSettings(host="192.0.2.1"), client_id="a", inbox=queue.Queue())
    assert caplog.text == ""
    Link(settings=BrokerSettings(host="192.0.2.1", plain_text_allowed=True), client_id="a", inbox=queue.Queue())
    assert "PLAIN TEXT to 192.0.2.1" in caplog.text


def test_paths_start_at_the_folder_of_the_settings_file(tmp_path: Path) -> None:
    settings = BrokerSettings(password_file="pw", tls=TlsSettings(ca="ca.pem", certificate="/abs/c.pem"))
    assert located(settings, tmp_path) == BrokerSettings(
        password_file=f"{tmp_path}/pw", tls=TlsSettings(ca=f"{tmp_path}/ca.pem", certificate="/abs/c.pem")
    )
    assert located(BrokerSettings(), tmp_path) == BrokerSettings()


def test_the_will_speaks_when_the_process_is_killed(broker: Broker, sides: Sides) -> None:
    watcher = sides.side("watcher", "w")
    watcher.connected()
    program = (
        "import queue, sys, time\n"
        "from mekt.link import Link\n"
        "from mekt.login import BrokerSettings\n"
        f"settings = BrokerSettings(port={broker.port})\n"
        "Link(settings=settings, client_id='mortal', inbox=queue.Queue(), will=('w', b'gone')).start()\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as process:
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


def test_after_the_broker_was_killed_the_link_is_back_and_subscribed(
    broker: Broker, sides: Sides, caplog: pytest.LogCaptureFixture
) -> None:
    side = sides.side("a", "t")
    side.connected()
    broker.kill()
    assert side.disconnected().reason
    assert not side.link.is_connected
    side.link.publish("t", b"said while it was away")
    wait_for_log(caplog, "nobody listens there")
    broker.start()
    assert not side.connected().session_present, "this broker keeps nothing"
    assert caplog.text.count("nobody listens there") == 1
    assert side.message().payload == b"said while it was away"
    assert side.link.is_connected


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
        wait_until_holds(tmp_path / "mosquitto.db", b"kept")
        broker.kill()
        broker.start()
        back = sides.side("away", "t")
        assert back.connected().session_present and back.message().payload == b"kept"
        back.link.stop()


def wait_until_holds(path: Path, wanted: bytes) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not (path.exists() and wanted in path.read_bytes()):
        assert time.monotonic() < deadline_s, f"{path} never held {wanted!r}"
        time.sleep(0.02)


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
        assert not side.link._thread.is_alive()
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    watcher = sides.side("watcher", "w")
    words = [watcher.message().payload]
    while words[-1] != b"gone":
        words.append(watcher.message().payload)
    assert words in ([b"gone"], [b"farewell", b"gone"])


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
    deadline_s = time.monotonic() + WAIT_S
    while side.link.leaving("t/1") or side.link.leaving("t/2"):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    broker.kill()
    side.disconnected()
    side.link.publish("t/1", b"x")
    assert side.link.leaving("t/1") == 1
    broker.start()
    side.connected()
    while side.link.leaving("t/1"):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_what_comes_at_qos_0_is_dropped_and_a_flood_of_it_left_behind(
    broker: Broker, sides: Sides, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mekt.link.STRAYS", 20)
    monkeypatch.setattr("mekt.link.BEHIND_S", 1.0)
    flood = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="flood")
    flood.connect("127.0.0.1", broker.port)
    flood.loop_start()
    with Weather(broker.port, bytes_per_s=20_000.0) as weather:
        slow = Sides(weather.port).side("slow", "t/#")
        try:
            slow.connected()
            # What takes minutes on this link, and then a message that matters.
            for _ in range(2000):
                flood.publish("t/flood", bytes(2000), qos=0)
            flood.publish("t/last", b"x", qos=1).wait_for_publish(WAIT_S)
            assert slow.message() == Received(topic="t/last", payload=b"x", retained=False)
            assert slow.link._strays < 2000 and weather.connections > 1
        finally:
            slow.link.stop(1.0)
            flood.disconnect()
            flood.loop_stop()
    said = [line for line in caplog.messages if "QoS 0" in line]
    assert said == ["dropped: messages at QoS 0, the first for 't/flood'; Mekt sends none"]


def test_a_login_that_takes_long_is_waited_for_in_the_same_protocol(
    tls_broker: Broker, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long is long, connecting tells: here by the handshake."""
    monkeypatch.setattr("mekt.link.LOGIN_S", 0.2)
    tls = TlsSettings(ca=papers.ca, certificate=papers.device, key=papers.device_key)
    with Weather(tls_broker.port, delay_s=0.6) as weather:
        far = Sides(weather.port).side("far", settings={"tls": tls})
        try:
            assert far.connected().protocol == "5"
        finally:
            far.link.stop(1.0)


def test_stop_while_the_link_tries_again_returns_at_once(broker: Broker, sides: Sides) -> None:
    side = sides.side("a")
    broker.kill()
    side.disconnected()
    began_s = time.monotonic()
    side.link.stop(timeout_s=5.0, last=("w", b"farewell"))
    assert time.monotonic() - began_s < 2
    assert not side.link._thread.is_alive()
    side.link.stop()


def test_what_still_comes_while_a_link_stops_is_no_full_inbox(
    broker: Broker, sides: Sides, caplog: pytest.LogCaptureFixture
) -> None:
    side = sides.side("a", "t")
    side.connected()
    side.link._stopping.set()
    side.link._put(Received(topic="t", payload=b"late", retained=False))
    assert "the inbox is full" not in caplog.text and side.inbox.empty()


def test_everybody_tries_again_within_five_seconds_however_long_the_broker_is_away() -> None:
    assert 1.5 * LONGEST_DELAY_S < 5


def test_a_link_that_never_started_may_be_stopped(broker: Broker) -> None:
    Link(settings=BrokerSettings(port=broker.port), client_id="a", inbox=queue.Queue()).stop()


def wait_for_log(caplog: pytest.LogCaptureFixture, wanted: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while wanted not in caplog.text:
        assert time.monotonic() < deadline_s, f"the log never said: {wanted}"
        time.sleep(0.02)


def test_a_full_inbox_costs_messages_but_not_the_news_of_the_connection(
    broker: Broker, sides: Sides, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mekt.link.INBOX_WAIT_S", 0.2)
    side = sides.side("a", "t", inbox=queue.Queue(1))
    other = sides.side("b", "t")
    other.link.publish("t", b"no room")
    other.message()
    wait_for_log(caplog, "the inbox is full")
    broker.kill()
    broker.start()
    other.connected()
    side.connected()
    side.disconnected()
    side.connected()


def test_two_processes_under_one_name_are_told(
    sides: Sides, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mekt.link.LONGEST_DELAY_S", 0.2)
    first, second = sides.side("same"), sides.side("same")
    first.disconnected()
    second.disconnected()
    wait_for_log(caplog, "another process that is same? End it")


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


@pytest.mark.skipif(
    importlib.util.find_spec("amqtt") is None, reason="amqtt, a broker for 3.1.1 only, is not installed"
)
@pytest.mark.parametrize("will", [None, ("w", b"gone")])
def test_a_broker_that_knows_3_1_1_only_is_spoken_to_in_that(
    tmp_path: Path, will: tuple[str, bytes] | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Broker(tmp_path, kind="amqtt") as broker:
        sides = Sides(broker.port)
        side = sides.side("a", "t", will=will)
        assert side.connected().protocol == "3.1.1"
        assert "the broker speaks MQTT 3.1.1 only" in caplog.text
        for number in range(20):
            side.link.publish("t", bytes([number]) * 90_000)
        assert [side.message().payload[0] for _ in range(20)] == list(range(20))
        broker.kill()
        side.disconnected()
        side.link.publish("t", b"while away")
        broker.start()
        assert side.connected().protocol == "3.1.1"
        assert side.message().payload == b"while away"
        watcher = sides.side("watcher", "w")
        side.link.stop(last=("w", b"farewell"))
        assert watcher.message().payload == b"farewell"
        watcher.link.stop()
