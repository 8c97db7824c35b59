"""Visits to a real broker: they do no harm, leave nothing, and end."""

import contextlib
import queue
import socket
import time
from typing import Any

import pytest

from mekt.broker import Broker
from mekt.errors import LinkError
from mekt.link import Disconnected, Received
from mekt.post import Post
from mekt.topics import for_coordinator, for_device
from mekt.visit import PROBE_EXPIRES_S
from tests.mekt.conftest import WAIT_S, named, needs_mosquitto
from tests.mekt.visitors import linked, permits

pytestmark = [needs_mosquitto, pytest.mark.usefixtures("patience")]


def arrived(inbox: "queue.Queue[Any]") -> list[Any]:
    """All events so far."""
    events = []
    with contextlib.suppress(queue.Empty):
        while True:
            events.append(inbox.get_nowait())
    return events


def test_a_visit_does_no_harm_to_who_is_there_and_to_what_is_retained(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {"mekt/1/ward/round": b"the round", "mekt/1/ward/status": b"status", "mekt/1/ward/up/pi-1/presence": b"here"}
    device, coordinator = for_device("ward", "pi-1"), for_coordinator("ward")
    with (
        linked(broker.port, "mekt:ward:pi-1", *device) as (daemon, heard),
        linked(broker.port, "mekt:ward", *coordinator) as (_, heard_above),
    ):
        for topic, payload in kept.items():
            daemon.publish(topic, payload, retain=True)
        # A visit sees what is retained only when it is there.
        checks = permits(broker.port, "edge") + permits(broker.port, "coordinator")
        assert [check.line() for check in checks if check.mark not in ("ok", "skipped")] == []
        daemon.publish("mekt/1/ward/up/pi-1/want", b"the last")
        events: list[Any] = []
        while not any(isinstance(each, Received) and each.payload == b"the last" for each in events):
            events.append(heard_above.get(timeout=WAIT_S))
        events += arrived(heard)
        assert not any(isinstance(each, Disconnected) for each in events)
        probes = [each for each in events if isinstance(each, Received) and b"mekt doctor" in each.payload]
        # Both visits wrote to the coordinator, the coordinator's own to all devices; nobody takes it for a message.
        assert {each.topic for each in probes} > {"mekt/1/ward/round", "mekt/1/ward/up/pi-1/presence"}
        post = Post("ward")
        assert not any(each.retained or post.open(each) for each in probes)
        assert "dropped (malformed): pi-1, presence: mekt doctor tries what it may publish: unknown key" in caplog.text
        with linked(broker.port, "late", *kept) as (link, inbox):
            retained = {each.topic: each.payload for each in arrived(inbox) if isinstance(each, Received)}
            while len(retained) < len(kept):
                each = inbox.get(timeout=WAIT_S)
                retained |= {each.topic: each.payload} if isinstance(each, Received) else {}
            assert retained == kept
            for topic in kept:
                link.publish(topic, b"", retain=True)


def test_who_is_absent_gets_nothing_of_a_visit_later(broker: Broker) -> None:
    with linked(broker.port, "mekt:ward", *for_coordinator("ward")):
        pass
    assert named(permits(broker.port), "publish").mark == "ok"
    time.sleep(PROBE_EXPIRES_S + 1.1)  # brokers count whole seconds
    with linked(broker.port, "mekt:ward", *for_coordinator("ward")) as (link, inbox):
        link.publish("mekt/1/ward/up/pi-1/want", b"first")
        received = [inbox.get(timeout=WAIT_S) for _ in range(2)]
        assert received[-1].payload == b"first"


def test_who_listens_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.visit.LOGIN_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        checks = permits(mute.getsockname()[1])
    assert named(checks, "login").family is LinkError and "not answered" in named(checks, "login").seen
