"""The way of events to their owner: news waits for room, messages do not wait for long, and a stop ends both."""

import queue
import threading
import time
from typing import Any

import pytest

from mekt.inbox import Connected, Disconnected, Inbox, Received

UP = Connected(protocol="5", session_present=False)
DOWN = Disconnected(reason="cut")


def message(payload: bytes = b"x") -> Received:
    return Received(topic="t", payload=payload, retained=False)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.inbox.ROOM_S", 0.1)
    monkeypatch.setattr("mekt.inbox.LOOK_S", 0.02)


def made(room: int, *, stopping: bool = False) -> tuple[Inbox, "queue.Queue[Any]"]:
    events: queue.Queue[Any] = queue.Queue(room)
    stop = threading.Event()
    if stopping:
        stop.set()
    return Inbox(events, stop), events


def all_of(events: "queue.Queue[Any]") -> list[Any]:
    return [events.get_nowait() for _ in range(events.qsize())]


def test_events_come_in_their_order() -> None:
    inbox, events = made(3)
    inbox.tell(UP)
    inbox.deliver(message())
    inbox.tell(DOWN)
    assert all_of(events) == [UP, message(), DOWN]


def test_news_that_found_no_room_comes_later_and_before_younger_messages() -> None:
    inbox, events = made(1)
    inbox.deliver(message(b"first"))
    inbox.tell(DOWN)
    inbox.tell(UP)
    assert all_of(events) == [message(b"first")]
    inbox.pay()
    inbox.pay()
    assert all_of(events) == [DOWN]
    reader = threading.Timer(0.03, events.get)
    reader.start()
    inbox.deliver(message(b"second"))
    reader.join()
    assert all_of(events) == [message(b"second")]


def test_messages_that_find_no_room_are_dropped_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    inbox, events = made(1)
    for number in range(3):
        inbox.deliver(message(b"%d" % number))
    assert all_of(events) == [message(b"0")]
    assert caplog.messages == ["the inbox is full: messages are dropped and will be asked for again"]


def test_what_still_comes_while_a_link_stops_is_no_full_inbox(caplog: pytest.LogCaptureFixture) -> None:
    inbox, events = made(1, stopping=True)
    inbox.deliver(message())
    assert events.empty() and caplog.text == ""


def test_a_stop_ends_the_waiting_for_room(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("mekt.inbox.ROOM_S", 60.0)
    events: queue.Queue[Any] = queue.Queue(1)
    stop = threading.Event()
    inbox = Inbox(events, stop)
    inbox.deliver(message())
    stopper = threading.Timer(0.05, stop.set)
    stopper.start()
    began_s = time.monotonic()
    inbox.deliver(message())
    assert time.monotonic() - began_s < 30
    stopper.join()
    assert caplog.text == ""
