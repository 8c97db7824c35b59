"""What real brokers permit, whatever they are set up to refuse."""

import contextlib
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mekt.broker import Broker
from mekt.check import VISIT, Check, Role, exit_code
from mekt.errors import LinkError
from mekt.link import Received
from mekt.permits import LEAST_PACKET_BYTES, check_permits
from mekt.topics import for_device
from tests.mekt.conftest import LIMIT_S, WAIT_S, named, needs_mosquitto
from tests.mekt.papers import Papers, tls_broker
from tests.mekt.visitors import SECRET, guest, linked, password, permits

pytestmark = [needs_mosquitto, pytest.mark.usefixtures("patience")]


def test_an_open_broker_permits_all(broker: Broker) -> None:
    for role in ("edge", "coordinator"):
        checks = permits(broker.port, role)
        assert exit_code(checks) == 0
        assert all(
            check.mark == "ok" for check in checks if check.name in ("login", "protocol", "packet limit", "delivery")
        )
        assert {check.name for check in checks} == set(VISIT)
        assert named(checks, "publish").mark == "ok"
    without_updates = list(check_permits(replace(guest(broker.port, "wearable"), federation=""), LIMIT_S))
    assert {check.mark for check in without_updates[4:]} == {"skipped"}
    wearable = permits(broker.port, "wearable")
    assert exit_code(wearable) == 0 and "want, renewal, fitness are accepted" in named(wearable, "publish").seen
    assert any("mekt/1/ward/rollout" in check.seen for check in wearable if check.name == "subscribe")


def test_a_login_that_is_refused_has_a_remedy_and_no_secret_is_shown(tmp_path: Path) -> None:
    lines, right = password(tmp_path, "pi-1")
    for name in ("wrong", "binary"):
        (tmp_path / name).touch(mode=0o600)
    (tmp_path / "wrong").write_text("guess-of-mine")
    (tmp_path / "binary").write_bytes(b"\xff\xfe" + SECRET.encode())
    with Broker(tmp_path / "broker", kind="mosquitto", more=lines) as broker:
        wrong = permits(broker.port, username="pi-1", password_file=str(tmp_path / "wrong"))
        nameless, without = permits(broker.port), permits(broker.port, username="pi-1")
        unreadable = permits(broker.port, username="pi-1", password_file=str(tmp_path / "binary"))
        good = permits(broker.port, username="pi-1", **right)
    for checks, remedy in (
        (wrong, "content of password_file"),
        (nameless, "set [broker] username"),
        (without, "has no"),
    ):
        assert remedy in named(checks, "login").remedy and exit_code(checks) == 4
        assert {check.mark for check in checks[1:]} == {"skipped"}
    assert exit_code(unreadable) == 2 and "not UTF-8" in named(unreadable, "login").seen
    assert exit_code(good) == 0 and "as pi-1" in named(good, "login").seen
    assert named(good, "client id").mark == "ok"
    said = "\n".join(check.line() for checks in (wrong, nameless, without, unreadable, good) for check in checks)
    assert SECRET not in said and "guess-of-mine" not in said and "0xff" not in said


def test_a_certificate_is_a_login(tmp_path: Path, papers: Papers) -> None:
    with tls_broker(tmp_path, papers) as broker:
        checks = permits(broker.port, tls=papers.tls())
    assert "as this certificate" in named(checks, "login").seen and named(checks, "client id").mark == "ok"


ACCESS = """
user pi-1
topic read mekt/1/ward/round
topic read mekt/1/ward/down/pi-1/+
topic write mekt/1/ward/up/pi-1/+
user coordinator
topic write mekt/1/ward/round
topic write mekt/1/ward/status
topic write mekt/1/ward/rollout
topic write mekt/1/ward/down/#
topic read mekt/1/ward/up/#
topic read mekt/1/ward/enroll/+/request
topic write mekt/1/ward/enroll/+/answer
user mute
topic readwrite mekt/1/ward/down/pi-1/+
topic write mekt/1/ward/up/pi-1/presence
user deaf
topic write mekt/1/ward/#
"""


def test_an_access_list_is_found_out_topic_by_topic(tmp_path: Path) -> None:
    lines, right = password(tmp_path, "pi-1", "coordinator", "mute", "deaf")
    (tmp_path / "access").write_text(ACCESS)
    with Broker(tmp_path / "broker", kind="mosquitto", more=(*lines, f"acl_file {tmp_path / 'access'}")) as broker:

        def as_user(name: str, role: Role = "edge") -> tuple[list[Check], Check]:
            checks = permits(broker.port, role, username=name, **right)
            return [each for each in checks if each.name == "subscribe"], named(checks, "publish")

        # As it should be: nothing fails, and what cannot be known is said.
        (word, own), said = as_user("pi-1")
        assert word.mark == "warning" and "no coordinator was here yet" in word.seen
        assert own.mark == "ok" and "cannot be tried" in own.seen and said.mark == "ok"
        [heard, applicants], said = as_user("coordinator", "coordinator")
        assert heard.mark == applicants.mark == said.mark == "ok"
        with linked(broker.port, "c", username="coordinator", **right) as (link, _):
            link.publish("mekt/1/ward/round", b"the round", retain=True)
        [word, _], _ = as_user("pi-1")
        assert word.mark == "ok" and "arrives" in word.seen

        [_, own], said = as_user("mute")
        assert own.mark == "ok" and "messages arrive" in own.seen
        assert said.family is LinkError and "up/pi-1/offer (Not authorized)" in said.seen
        assert "presence" not in said.seen and "let mute write" in said.remedy
        # The broker grants this subscription.
        [_, own], said = as_user("deaf")
        assert own.family is LinkError and "withheld" in own.seen and said.mark == "ok"
        [heard, _], _ = as_user("deaf", "coordinator")
        assert heard.family is LinkError and "let deaf read mekt/1/ward/up/+/+" in heard.remedy


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        ("max_packet_size 60000", "packet limit", "60000"),
        ("retain_available false", "delivery", "retain_available"),
        ("max_qos 0", "delivery", "max_qos"),
    ],
)
def test_what_the_broker_does_without_is_named(line: str, name: str, words: str, tmp_path: Path) -> None:
    with Broker(tmp_path, kind="mosquitto", more=(line,)) as broker:
        checks = permits(broker.port)
    assert named(checks, name).family is LinkError and words in named(checks, name).line()
    assert str(LEAST_PACKET_BYTES) == "131072"


def test_a_broker_that_takes_the_user_for_the_client_id_is_told(tmp_path: Path) -> None:
    lines, right = password(tmp_path, "pi-1", "other")
    with Broker(tmp_path / "broker", kind="mosquitto", more=(*lines, "use_username_as_clientid true")) as broker:
        login = {"username": "pi-1", **right}
        checks = permits(broker.port, **login)
        assert named(checks, "client id").mark == "warning" and named(checks, "publish").mark == "ok"
        with linked(broker.port, "mekt:ward:pi-1", *for_device("ward", "pi-1"), **login) as (_, inbox):
            # The visit has left no session behind, though it had the name for a while.
            assert not inbox.get(timeout=WAIT_S).session_present
        with linked(broker.port, "x", username="other", **right) as (link, _):
            link.publish("mekt/1/ward/down/pi-1/receipt", b"for later")
        checks = permits(broker.port, **login)
        assert named(checks, "client id").mark == "warning"
        # What waited for the device that is away waits still.
        with linked(broker.port, "mekt:ward:pi-1", **login) as (_, inbox):
            events = [inbox.get(timeout=WAIT_S)]
            assert events[0].session_present
            while not any(isinstance(each, Received) and each.payload == b"for later" for each in events):
                events.append(inbox.get(timeout=WAIT_S))


class OldBroker:
    """Before a real broker, somebody who knows MQTT 3.1.1 only: other logins he answers as such brokers do."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._start(self._serve)

    def close(self) -> None:
        for each in (self._server, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._open.append(client)
                login = client.recv(65536)
                if login[8:9] != b"\x04":
                    client.sendall(b"\x20\x02\x00\x01")
                    client.close()
                    continue
                behind = socket.create_connection(("127.0.0.1", self._behind))
                self._open.append(behind)
                behind.sendall(login)
                self._start(self._pass_on, client, behind)
                self._start(self._pass_on, behind, client)

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


def test_in_mqtt_3_1_1_it_says_what_cannot_be_seen_and_sends_nothing_to_the_coordinator(broker: Broker) -> None:
    old = OldBroker(broker.port)
    try:
        with linked(broker.port, "mekt:ward:c", "mekt/1/ward/up/#") as (link, inbox):
            checks = permits(old.port)
            link.publish("mekt/1/ward/up/pi-1/want", b"the end")
            received = [inbox.get(timeout=WAIT_S) for _ in range(2)]
            assert [each.payload for each in received if isinstance(each, Received)] == [b"the end"]
    finally:
        old.close()
    assert named(checks, "login").mark == "ok"
    assert named(checks, "protocol").mark == "warning" and "3.1.1 only" in named(checks, "protocol").seen
    for name in ("packet limit", "delivery", "publish"):
        assert named(checks, name).mark == "skipped" and "3.1.1" in named(checks, name).seen
