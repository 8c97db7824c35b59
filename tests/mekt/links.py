"""Links for the tests: what comes out of them, many of them at one broker, and what is waited for."""

import os
import queue
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mekt.errors import LinkError
from mekt.link import Connected, Disconnected, Link, LinkEvent, Received
from mekt.login import BrokerSettings

WAIT_S = 15.0 * float(os.environ.get("MEKT_TEST_TIME_UNIT", "1"))

needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None,
    reason="mosquitto is not installed",
)
# Paho leaves the socket of a failed handshake to the garbage collector.
unclosed = pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")


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

    def stop(self) -> None:
        for link in self.made:
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


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Until this is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"it never was so: {what}"
        time.sleep(0.01)


def wait_for_log(caplog: pytest.LogCaptureFixture, wanted: str) -> None:
    """Until the log says this."""
    wait_until(lambda: wanted in caplog.text, f"the log says {wanted!r}")
