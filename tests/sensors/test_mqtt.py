"""Samples over MQTT: from a real broker, and from brokers that send what no broker should."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from mekt.broker import Broker
from mekt.errors import SensorError, SettingsError
from mekt.schema import SchemaError, plain
from sensors.mqtt import MOST_MESSAGES, MqttSettings, MqttSource
from sensors.payloads import LARGEST_PAYLOAD_BYTES
from sensors.settings import sensor_settings
from sensors.source import Block, Item
from sensors.subscription import LARGEST_PACKET_BYTES
from tests.mekt.links import needs_mosquitto, unclosed
from tests.mekt.papers import Papers, papers_in, tls_broker
from tests.waiting import WAIT_S

ACC = {"name": "acc", "fields": ["x", "y"], "rate_hz": 10, "scale": [0.5]}
TABLE: dict[str, Any] = {"kind": "mqtt", "topic": "home/+/imu", "signals": [ACC]}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker"), kind="mosquitto") as running:
        yield running


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes is waited for as long as a busy machine may need."""
    monkeypatch.setattr("sensors.subscription.DIAL_S", WAIT_S)
    monkeypatch.setattr("sensors.mqtt.LOGIN_S", WAIT_S)


def made(port: int, more: dict[str, Any] | None = None, base: Path = Path()) -> MqttSource:
    source = sensor_settings(TABLE | {"broker": {"port": port}} | (more or {})).source(base)
    assert isinstance(source, MqttSource)
    return source


@contextlib.contextmanager
def opened(port: int, more: dict[str, Any] | None = None) -> Iterator[MqttSource]:
    source = made(port, more)
    source.open()
    try:
        yield source
    finally:
        source.close()


@contextlib.contextmanager
def sensor(port: int) -> Iterator[Callable[..., None]]:
    """Something that publishes; it returns when the broker has the message."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()

    def publish(topic: str, payload: bytes | str | dict[str, Any], **more: Any) -> None:
        raw = json.dumps(payload) if isinstance(payload, dict) else payload
        client.publish(topic, raw, qos=1, **more).wait_for_publish(WAIT_S)

    yield publish
    client.disconnect()
    client.loop_stop()


def blocks(source: MqttSource, count: int) -> list[Block]:
    """The next blocks, until there are so many."""
    found: list[Block] = []
    while len(found) < count:
        items = source.read(WAIT_S)
        assert items, "nothing came"
        found += [item for item in items if isinstance(item, Block)]
    return found


@needs_mosquitto
def test_a_message_becomes_a_sample_at_the_time_of_its_arrival(broker: Broker) -> None:
    with opened(broker.port) as source, sensor(broker.port) as publish:
        before_s = time.monotonic()
        publish("home/hall/imu", {"x": 1, "y": -4, "z": 0})
        [block] = blocks(source, 1)
        assert (block.modality, block.values.tolist()) == ("acc", [[0.5, -2]])
        assert before_s < block.t_s[0] < time.monotonic()
        assert source.dropped.counts == {}


@needs_mosquitto
def test_batches_and_msgpack_and_the_sensors_own_time(broker: Broker) -> None:
    more = {"payload": "msgpack", "time": {"field": "t", "unit": "us"}}
    with opened(broker.port, more) as source, sensor(broker.port) as publish:
        publish("home/hall/imu", msgpack.packb({"x": [1, 2], "y": [3, 4], "t": [7_000_000, 7_100_000]}))
        publish("home/hall/imu", msgpack.packb({"x": 5, "y": 6, "t": 7_200_000}))
        first, second = blocks(source, 2)
        np.testing.assert_allclose(np.diff(np.concatenate([first.t_s, second.t_s])), 0.1, atol=0.06)
        assert first.t_s[-1] < time.monotonic()


@needs_mosquitto
def test_what_does_not_fit_is_counted_by_cause_and_the_next_message_is_read(broker: Broker) -> None:
    with opened(broker.port) as source, sensor(broker.port) as publish:
        for payload in (b"", b"{", b'{"x":1}', b'{"x":1,"y":null}', b'{"battery":3}', b"[" * 5000):
            publish("home/hall/imu", payload)
        publish("home/hall/imu", {"x": 2, "y": 2})
        assert blocks(source, 1)[0].values.tolist() == [[1, 1]]
        assert source.dropped.counts == {
            "a payload that is no json": 3,
            "acc: a field is missing": 1,
            "acc: a field that is no number": 1,
            "a message without a field of any signal": 1,
        }


@needs_mosquitto
def test_retained_messages_are_of_another_time(broker: Broker) -> None:
    with sensor(broker.port) as publish:
        publish("home/kept/imu", {"x": 1, "y": 1}, retain=True)
        with opened(broker.port, {"topic": "home/kept/imu"}) as source:
            publish("home/kept/imu", {"x": 2, "y": 2})
            assert blocks(source, 1)[0].values.tolist() == [[1, 1]]
            assert source.dropped.counts == {"a retained message, which is of another time": 1}
        publish("home/kept/imu", "", retain=True)


@needs_mosquitto
def test_a_signal_comes_from_one_topic_and_others_may_come_from_others(broker: Broker) -> None:
    signals = [ACC, {"name": "co2", "fields": ["ppm"], "rate_hz": 1}]
    with opened(broker.port, {"topic": "#", "signals": signals}) as source, sensor(broker.port) as publish:
        publish("a", {"x": 2, "y": 2})
        publish("b", {"x": 4, "y": 4, "ppm": 400})
        publish("a", {"x": 6, "y": 6})
        found = [(block.modality, block.values.tolist()) for block in blocks(source, 3)]
        assert found == [("acc", [[1, 1]]), ("co2", [[400]]), ("acc", [[3, 3]])]
        assert source.dropped.counts == {"acc: a second topic; make each sensor a source of its own": 1}


@needs_mosquitto
def test_a_broker_that_ends_is_a_fault_until_it_is_back(tmp_path: Path) -> None:
    running = Broker(tmp_path, kind="mosquitto")
    running.start()
    source = made(running.port)
    source.open()
    running.kill()
    with pytest.raises(SensorError, match=rf"^broker 127.0.0.1:{running.port}: the connection is lost"):
        while True:
            source.read(WAIT_S)
    source.close()
    source.close()
    refused = rf"^broker 127.0.0.1:{running.port}: nobody listens there; start the broker"
    with pytest.raises(SensorError, match=refused):
        source.open()
    running.start()
    # It does not knock at once again, and says why it does not.
    with pytest.raises(SensorError, match=refused):
        source.open()
    ends_s = time.monotonic() + WAIT_S
    while True:
        with contextlib.suppress(SensorError):
            source.open()
            break
        assert time.monotonic() < ends_s
        time.sleep(0.05)
    with sensor(running.port) as publish:
        publish("home/hall/imu", {"x": 2, "y": 2})
        assert blocks(source, 1)[0].values.tolist() == [[1, 1]]
    source.close()
    running.stop()


@needs_mosquitto
@unclosed
def test_over_tls_as_mekts_own_broker_and_not_without(tmp_path: Path) -> None:
    papers: Papers = papers_in(tmp_path)
    tls = {"ca": "ca.pem", "certificate": "device.pem", "key": "device.key"}
    with tls_broker(tmp_path / "guard", papers) as running:
        source = made(running.port, {"broker": {"port": running.port, "tls": tls}}, base=tmp_path)
        source.open()
        assert source.read(0.01) == ()
        source.close()
        source = made(running.port, {"broker": {"port": running.port, "tls": tls | {"ca": "other.pem"}}}, base=tmp_path)
        with pytest.raises(SensorError, match=r"TLS fails \("):
            source.open()
        with pytest.raises(SensorError, match=r"the login is not answered \(.*check the port, and that both sides use"):
            made(running.port).open()


def test_plain_text_to_another_machine_is_refused_unless_allowed() -> None:
    table = TABLE | {"broker": {"host": "192.0.2.1"}}
    with pytest.raises(
        SettingsError, match=r"^broker.host: 192.0.2.1 is another machine and \[broker.tls\] is missing"
    ):
        sensor_settings(table).source(Path())
    sensor_settings(TABLE | {"broker": {"host": "192.0.2.1", "plain_text_allowed": True}}).source(Path())


def test_a_source_that_is_not_open_is_not_read() -> None:
    with pytest.raises(SensorError, match=r"not open; open a source before it is read$"):
        made(1).read(0)


# Brokers that are none. What they answer to a login and a subscription (MQTT 5 and 3.1.1, 3.2 and 3.9):
WELCOME = {5: b"\x20\x03\x00\x00\x00", 4: b"\x20\x02\x00\x00"}


def received(connection: socket.socket) -> bytes:
    """One packet, without its first byte and its length."""
    connection.recv(1)
    length, shift = 0, 0
    while True:
        [byte] = connection.recv(1)
        length, shift = length | (byte & 127) << shift, shift + 7
        if byte < 128:
            break
    data = b""
    while len(data) < length:
        data += connection.recv(length - len(data))
    return data


def packed(kind: int, data: bytes) -> bytes:
    length, size = b"", len(data)
    while True:
        length += bytes([size % 128 | (128 if size > 127 else 0)])
        size //= 128
        if not size:
            return bytes([kind]) + length + data


def published(topic: bytes, payload: bytes, level: int, *, kind: int = 0x30) -> bytes:
    number = b"" if kind & 6 == 0 else b"\x00\x07"
    properties = b"\0" if level == 5 else b""
    return packed(kind, struct.pack(">H", len(topic)) + topic + number + properties + payload)


GOOD = b'{"x": 2, "y": 2}'


@contextlib.contextmanager
def impostor(talk: Callable[[socket.socket, int], None], *, levels: tuple[int, ...] = (4, 5)) -> Iterator[int]:
    """The port of one that greets as a broker of these protocols does, subscribes, and then sends what it likes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError, IndexError, ValueError):
                    level = received(connection)[6]
                    if level in levels:
                        connection.sendall(WELCOME[level])
                        number = received(connection)[:2]
                        connection.sendall(packed(0x90, number + (b"\0\0" if level == 5 else b"\0")))
                        talk(connection, level)
                    elif levels:
                        continue
                    # Until the other side has ended it.
                    while connection.recv(65536):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT_S)


def test_a_broker_that_knows_3_1_1_only_is_spoken_to_in_that() -> None:
    def talk(connection: socket.socket, level: int) -> None:
        assert level == 4
        connection.sendall(published(b"home/hall/imu", GOOD, level))

    with impostor(talk, levels=(4,)) as port, opened(port) as source:
        assert blocks(source, 1)[0].values.tolist() == [[1, 1]]


def ended(source: MqttSource) -> str:
    """Why the connection is over."""
    with pytest.raises(SensorError) as caught:
        while True:
            source.read(WAIT_S)
    with pytest.raises(SensorError):
        source.read(0)
    return str(caught.value).partition(": ")[2]


@pytest.mark.parametrize("level", [4, 5])
def test_a_packet_over_the_limit_ends_the_connection_before_it_is_in_memory(level: int) -> None:
    announced = b"\x30\xff\xff\xff\x7f"

    def talk(connection: socket.socket, _: int) -> None:
        connection.sendall(announced + b"\x00\x0dhome/hall/imu")

    with impostor(talk, levels=(level,)) as port, opened(port) as source:
        assert "a packet over" in ended(source)


def test_a_payload_over_the_limit_within_a_packet_of_its_size_is_dropped() -> None:
    def talk(connection: socket.socket, level: int) -> None:
        connection.sendall(published(b"home/hall/imu", b" " * (LARGEST_PAYLOAD_BYTES + 1), level))
        connection.sendall(published(b"home/hall/imu", GOOD, level))

    assert LARGEST_PAYLOAD_BYTES + 100 < LARGEST_PACKET_BYTES
    with impostor(talk) as port, opened(port) as source:
        assert len(blocks(source, 1)) == 1
        assert source.dropped.counts == {"a payload over the limit": 1}


def test_messages_at_qos_2_are_not_kept() -> None:
    def talk(connection: socket.socket, level: int) -> None:
        connection.sendall(published(b"home/hall/imu", GOOD, level, kind=0x34))

    with impostor(talk) as port, opened(port) as source:
        assert "QoS 2" in ended(source)


def test_messages_at_qos_1_are_messages() -> None:
    def talk(connection: socket.socket, level: int) -> None:
        connection.sendall(published(b"home/hall/imu", GOOD, level, kind=0x32))

    with impostor(talk) as port, opened(port) as source:
        assert blocks(source, 1)[0].values.tolist() == [[1, 1]]


def test_a_topic_that_is_no_text_is_counted() -> None:
    def talk(connection: socket.socket, level: int) -> None:
        connection.sendall(published(b"\xff\xfe", GOOD, level) + published(b"home/hall/imu", GOOD, level))

    with impostor(talk) as port, opened(port) as source:
        assert len(blocks(source, 1)) == 1
        assert source.dropped.counts == {"a topic that is no text": 1}


@pytest.mark.parametrize(
    "data", [b"\x30\x00", b"\x30\x02\x00\xff", b"\xf0\x00", b"\x00\x00", b"\x20\x00", b"\x30" + b"\xff" * 5]
)
def test_what_is_no_mqtt_ends_the_connection(data: bytes) -> None:
    def talk(connection: socket.socket, level: int) -> None:
        connection.sendall(data * 3)
        connection.shutdown(socket.SHUT_WR)

    with impostor(talk) as port, opened(port) as source:
        assert ended(source)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=40) | st.sampled_from([published(b"home/hall/imu", GOOD, 5)]), max_size=8))
def test_whatever_a_broker_sends_it_is_samples_or_the_one_error(pieces: list[bytes]) -> None:
    def talk(connection: socket.socket, level: int) -> None:
        connection.sendall(b"".join(pieces))
        connection.shutdown(socket.SHUT_WR)

    with impostor(talk, levels=(5,)) as port, opened(port) as source:
        items: list[Item] = []
        with pytest.raises(SensorError):
            while True:
                items += source.read(WAIT_S) or ()
        assert all(isinstance(item, Block) and item.values.tolist() == [[1, 1]] for item in items)


def test_a_flood_of_messages_is_given_in_pieces() -> None:
    count = 5 * MOST_MESSAGES

    def talk(connection: socket.socket, level: int) -> None:
        connection.sendall(published(b"home/hall/imu", GOOD, level) * count)

    with impostor(talk) as port, opened(port) as source:
        sizes: list[int] = []
        while sum(sizes) < count:
            items = source.read(WAIT_S)
            assert items
            sizes.append(len(items))
        assert max(sizes) <= MOST_MESSAGES


def test_a_flood_that_holds_nothing_does_not_keep_a_read_from_returning() -> None:
    over = threading.Event()

    def talk(connection: socket.socket, level: int) -> None:
        while not over.is_set():
            connection.sendall(published(b"home/hall/imu", b"?", level, kind=0x31) * 100)

    with impostor(talk) as port, opened(port) as source:
        for _ in range(5):
            assert source.read(0.05) == ()
        assert source.dropped.counts.keys() == {"a retained message, which is of another time"}
        over.set()


def test_one_who_never_answers_the_login_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensors.mqtt.LOGIN_S", 0.2)
    silent = pytest.raises(SensorError, match=r"no answer within 0.2 s; check that an MQTT broker runs there$")
    with impostor(lambda *_: None, levels=()) as port, silent:
        made(port).open()


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"topic": "a/#/b"}, "topic: 'a/#/b' is no topic filter; + stands for a level, # for all at the end"),
        ({"topic": "a+/b"}, "topic: 'a+/b' is no topic filter; + stands for a level, # for all at the end"),
        ({"topic": ""}, "topic: expected at least 1 characters, got 0"),
        ({"payload": "xml"}, "payload: expected one of 'json', 'msgpack', got 'xml'"),
        ({"signals": [ACC, ACC]}, "signals: a name occurs twice; name each once"),
        ({"broker": {"port": 0}}, "broker.port: expected at least 1, got 0"),
    ],
)
def test_settings_that_cannot_work_are_explained(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        sensor_settings(TABLE | more)
    assert caught.value.problems == [problem]


@pytest.mark.parametrize("topic", ["a", "/", "#", "+", "a/+/b/#", "+/+", "a//b", "$SYS/x"])
def test_every_filter_of_mqtt_is_one(topic: str) -> None:
    settings = sensor_settings(TABLE | {"topic": topic, "records": "log", "time": {"field": "t", "of": "first"}})
    assert isinstance(settings, MqttSettings)
    assert sensor_settings(plain(settings)) == settings
    assert settings.modalities == ("acc",)
