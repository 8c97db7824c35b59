"""The network thread at a real broker: every way in which a first login fails, and what it does about a loss."""

import importlib.util
import logging
import queue
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from mekt.broker import Broker, free_port
from mekt.link import Connected, Link, Received
from mekt.login import BrokerSettings
from tests.mekt.links import WAIT_S, Side, Sides, needs_mosquitto, refusal, unclosed, wait_for_log
from tests.mekt.papers import Papers, tls_broker
from tests.weather import Weather

pytestmark = needs_mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """One for each test, as many of them kill it."""
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


@pytest.fixture
def guarded(tmp_path: Path, papers: Papers) -> Iterator[Broker]:
    """One that speaks TLS alone, and asks who comes for a certificate."""
    with tls_broker(tmp_path / "tls", papers) as running:
        yield running


def test_it_speaks_mqtt_5(sides: Sides) -> None:
    side = sides.side("a")
    assert side.connected() == Connected(protocol="5", session_present=False)
    assert side.link.is_connected


def test_nobody_listens() -> None:
    assert "nobody listens there; start the broker" in refusal(BrokerSettings(port=free_port()))


def test_a_link_that_nobody_waits_for_says_why_it_does_not_connect(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    link = Link(settings=BrokerSettings(port=port), client_id="a", inbox=queue.Queue())
    link.begin()
    wait_for_log(caplog, f"127.0.0.1:{port}: nobody listens there")
    link.stop(1.0)


def test_a_name_that_nobody_has() -> None:
    text = refusal(BrokerSettings(host="broker.invalid", plain_text_allowed=True), within_s=12)
    assert "the name is not known" in text


def test_somebody_listens_who_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.patience.LOGIN_S", 0.7)
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
    for path in (password, wrong):
        path.chmod(0o600)
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


def test_over_tls_large_messages_come_and_go(guarded: Broker, papers: Papers) -> None:
    tls = papers.tls()
    inbox: queue.Queue[Any] = queue.Queue()
    settings = BrokerSettings(port=guarded.port, tls=tls)
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
def test_a_broker_that_another_authority_signed_is_refused(guarded: Broker, papers: Papers) -> None:
    text = refusal(BrokerSettings(port=guarded.port, tls=papers.tls(ca="other.pem", own=None)), within_s=3)
    assert "TLS fails (" in text and "check the CA file" in text


@unclosed
def test_a_device_without_a_certificate_hears_about_certificates(guarded: Broker, papers: Papers) -> None:
    text = refusal(BrokerSettings(port=guarded.port, tls=papers.tls(own=None)))
    assert "this side's certificate" in text


@unclosed
def test_tls_on_one_side_only(guarded: Broker, broker: Broker, papers: Papers) -> None:
    assert "use TLS or neither" in refusal(BrokerSettings(port=guarded.port))
    assert re.search(
        "TLS fails|use TLS or neither",
        refusal(BrokerSettings(port=broker.port, tls=papers.tls(own=None)), within_s=12),
    )


def test_a_login_that_takes_long_is_waited_for_in_the_same_protocol(
    guarded: Broker, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long is long, connecting tells: here by the handshake."""
    monkeypatch.setattr("mekt.patience.LOGIN_S", 0.2)
    tls = papers.tls()
    with Weather(guarded.port, delay_s=0.6) as weather:
        far = Sides(weather.port).side("far", settings={"tls": tls})
        try:
            assert far.connected().protocol == "5"
        finally:
            far.link.stop(1.0)


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


def test_what_comes_at_qos_0_is_dropped_and_a_flood_of_it_left_behind(
    broker: Broker, sides: Sides, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mekt.patience.STRAYS", 20)
    monkeypatch.setattr("mekt.patience.BEHIND_S", 1.0)
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
            assert slow.link.strays < 2000 and weather.connections > 1
        finally:
            slow.link.stop(1.0)
            flood.disconnect()
            flood.loop_stop()
    said = [line for line in caplog.messages if "QoS 0" in line]
    assert said == ["dropped: messages at QoS 0, the first for 't/flood'; Mekt sends none"]


def test_a_full_inbox_costs_messages_but_not_the_news_of_the_connection(
    broker: Broker, sides: Sides, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mekt.inbox.ROOM_S", 0.2)
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
    monkeypatch.setattr("mekt.patience.LONGEST_DELAY_S", 0.2)
    first, second = sides.side("same"), sides.side("same")
    first.disconnected()
    second.disconnected()
    wait_for_log(caplog, "another process that is same? End it")


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
