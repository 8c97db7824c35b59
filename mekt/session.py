"""The network thread: it alone connects, reads and writes, and decides what a broker's answers mean.

It connects in MQTT 5, and in 3.1.1 where a broker knows no better; subscribes anew at every connection; tries again for
ever; uses renewed certificates from the next connection on; leaves a flood at QoS 0 behind.
"""

import contextlib
import logging
import os
import queue
import ssl
import threading
import time
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from mekt import catalogue
from mekt.connection import QOS, V5, V311, Bell, Caller, Connection
from mekt.credentials import Credentials
from mekt.errors import LinkError
from mekt.inbox import Connected, Disconnected, Inbox, Received
from mekt.login import entry_of, explained
from mekt.outgoing import Message, Outgoing
from mekt.patience import SUSPICIOUSLY_MANY, BackOff, Flood, login_patience_s
from mekt.traffic import Traffic

log = logging.getLogger(__name__)

# How long a first connection may fail before that is the answer: a broker may be starting at the same time.
GRACE_S = 1.0
# How often news that found no room in the inbox is tried again while there is no connection.
PAY_S = 0.2
# MQTT 5 reason codes.
UNSUPPORTED_PROTOCOL = 132
TRANSIENT_REFUSALS = (136, 137, 151, 156, 159)  # unavailable, busy, over a quota or rate, another server for now


class Session:
    """The network thread of one caller. What it hears goes to `events`; what it sends comes from `outgoing`."""

    def __init__(self, caller: Caller, events: "queue.Queue[Any]", traffic: Traffic) -> None:
        """Read the files of the login.

        Raises:
            SettingsError: when one cannot be used.
        """
        self.flood = Flood()
        self._caller = caller
        self._traffic = traffic
        self._credentials = Credentials(caller.settings)
        self._connected, self._settled, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._inbox = Inbox(events, self._stopping)
        self._back_off = BackOff(_drawn)
        self._bell: Bell | None = None
        # What the broker has proved to speak, what is tried next, and the connection in one of both.
        self._spoken: MQTTProtocolVersion | None = None
        self._protocol = V5
        self._connection = self._make_connection()
        self.outgoing = Outgoing(self._connection, caller.witness)
        self._answered = self._is_waited_for = False
        self._unanswered_subscriptions = 0
        # Why the latest attempt failed, and what ended the latest connection.
        self._failure = self._last_error = ""
        self._entry = catalogue.LOGIN_UNANSWERED
        self._began_s = self._give_up_s = 0.0
        self._farewell = True
        self._thread = threading.Thread(target=self._run, name=f"mekt-link {caller.client_id}", daemon=True)

    @property
    def is_connected(self) -> bool:
        """True between an accepted login and the loss of the connection."""
        return self._connected.is_set()

    def start(self, timeout_s: float) -> LinkError | None:
        """Start the thread, and wait until it has connected and subscribed, or cannot; then why, as far as is known.

        Raises:
            MektError: when the witness forbids the will; nothing is started then.
        """
        if self._caller.will is not None and self._caller.witness is not None:
            topic, payload = self._caller.will
            self._caller.witness.saw(Message(topic=topic, payload=payload, retain=True), is_will=True)
        self._bell = Bell()
        self._began_s = time.monotonic()
        self._is_waited_for = timeout_s > 0
        self._thread.start()
        self._settled.wait(timeout_s)
        if self._spoken is not None:
            return None
        reason = self._failure or f"no answer to the login within {timeout_s:g} s; check that an MQTT broker runs there"
        return LinkError(f"{self._where()}: {reason}", self._entry)

    def wake(self) -> None:
        """There is something to send."""
        if self._bell is not None:
            self._bell.ring()

    def stop(self, give_up_s: float, *, farewell: bool) -> None:
        """Log off, or without a `farewell` leave the last word to the will; end the thread by this time."""
        self._give_up_s, self._farewell = give_up_s, farewell
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(max(0.0, give_up_s - time.monotonic()))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._attempt()
            # Another protocol is tried at once; after it has failed too, there is time.
            if self._protocol in (V5, self._connection.protocol):
                self._pause()
        if self._bell is not None:
            self._bell.close()

    def _attempt(self) -> None:
        """A connection from its beginning to its end, whatever that is."""
        self._last_error, self._answered = "", False
        self.flood.begin_anew()
        try:
            if self._credentials.renew() or self._protocol != self._connection.protocol:
                self._connection = self._make_connection()
                self.outgoing.use(self._connection)
            self._converse(self._connection)
        except (OSError, ValueError) as error:
            final = isinstance(error, ssl.SSLCertVerificationError)
            self._failed(explained(error), entry_of(error), final=final)
        except Exception as error:
            log.exception("the network thread stumbled; it connects anew")
            self._failed(f"{type(error).__name__}: {error}", catalogue.LINK)
        if self._stopping.is_set():
            with contextlib.suppress(Exception):
                self._log_off(self._connection)
        self._connection.hang_up()
        self._lost(self._last_error or "the network thread stumbled")

    def _converse(self, connection: Connection) -> None:
        """Connect, log in and move packets until the connection is lost, given up or no longer wanted."""
        dialled_s = time.monotonic()
        connection.dial()
        began_s = time.monotonic()
        patience_s = login_patience_s(began_s - dialled_s, is_first=self._spoken is None)
        while connection.is_open and not self._stopping.is_set():
            self._move(connection)
            now_s = time.monotonic()
            if not self._answered and now_s - began_s > patience_s:
                break
            if self.flood.asks(now_s):
                connection.ask()
            if self.flood.is_ahead(now_s):
                self._last_error = "a flood at QoS 0 is in the way of all else; it ends with the connection"
                self._back_off.begin_anew()
                break
        if not self._answered and not self._stopping.is_set():
            self._unanswered(connection)

    def _move(self, connection: Connection) -> None:
        assert self._bell is not None
        connection.move(self._bell)
        self._inbox.pay()

    def _unanswered(self, connection: Connection) -> None:
        if connection.protocol == V5 and self._spoken is None:
            self._protocol = V311
            return
        text = "no answer to the login" if connection.is_open else self._last_error or "it ends the connection"
        advice = "check the port, that both sides use TLS or neither, and this side's certificate"
        self._failed(f"the login is not answered ({text}); {advice}", catalogue.LOGIN_UNANSWERED)
        if self._spoken is None:
            self._protocol = V5

    def _failed(self, reason: str, entry: catalogue.Entry, *, final: bool = False) -> None:
        """Keep why an attempt failed, for `start`; where nobody waits, or any more, the log has each reason once."""
        if (self._spoken is not None or not self._is_waited_for) and reason != self._failure:
            log.warning("%s: %s; trying again", self._where(), reason)
        self._failure = self._last_error = reason
        self._entry = entry
        if final or time.monotonic() - self._began_s > GRACE_S:
            self._settled.set()

    def _log_off(self, connection: Connection) -> None:
        if not self._farewell or not self._connected.is_set():
            return
        connection.log_off()
        while connection.is_open and time.monotonic() < self._give_up_s - 0.1:
            self._move(connection)

    def _pause(self) -> None:
        """Wait before the next attempt."""
        if self._back_off.ended(time.monotonic()):
            log.warning(
                "%s connections in a row ended within seconds (%s); is there another process that is %s? End it",
                *(SUSPICIOUSLY_MANY, self._last_error, self._caller.client_id),
            )
        ends_s = time.monotonic() + self._back_off.next_delay_s()
        while (left_s := ends_s - time.monotonic()) > 0 and not self._stopping.wait(min(left_s, PAY_S)):
            self._inbox.pay()

    def _make_connection(self) -> Connection:
        return Connection(
            self._caller, self._protocol, credentials=self._credentials, traffic=self._traffic, listener=self
        )

    def _lost(self, reason: str) -> None:
        if self._connected.is_set():
            self._connected.clear()
            self._inbox.tell(Disconnected(reason=reason))

    def _where(self) -> str:
        return f"broker {self._caller.settings.host}:{self._caller.settings.port}"

    # What the connection tells its listener, on this thread.

    def welcomed(self, reason: ReasonCode, *, session_present: bool, limit_bytes: int | None) -> None:
        """The broker has answered the login."""
        self._answered = True
        v5 = self._protocol == V5
        if reason.is_failure and reason.value == UNSUPPORTED_PROTOCOL and v5:
            self._protocol = V311
            return
        if reason.is_failure:
            text = f"it refuses the login ({reason}); check user name, password file and certificate"
            self._failed(text, catalogue.LOGIN_REFUSED, final=reason.value not in TRANSIENT_REFUSALS)
            return
        if not v5 and self._spoken != V311:
            log.warning(
                "the broker speaks MQTT 3.1.1 only: sessions of absent devices do not expire, refusals carry no "
                "reason, and its packet limit is unknown"
            )
        self._connection.subscribe()
        self.outgoing.limit(limit_bytes)
        self._failure = ""
        self._back_off.accepted(time.monotonic())
        self._spoken = self._protocol
        self._connected.set()
        self._inbox.tell(Connected(protocol="5" if v5 else "3.1.1", session_present=session_present))
        self._unanswered_subscriptions = len(self._caller.subscriptions)
        if not self._unanswered_subscriptions:
            self._settled.set()

    def subscribed(self, reasons: list[ReasonCode]) -> None:
        """The broker has answered a subscription."""
        for reason in reasons:
            if reason.is_failure:
                log.error("the broker refuses a subscription (%s); check its access control list", reason)
        self._unanswered_subscriptions -= 1
        if self._unanswered_subscriptions <= 0:
            self._settled.set()

    def arrived(self, message: mqtt.MQTTMessage) -> None:
        """A message is here. Those at QoS 0 are nobody's, but for topics of which the caller wants them."""
        if message.qos < QOS and message.topic not in self._caller.also_at_qos_0:
            self.flood.came()
            if self.flood.count == 1:
                log.warning("dropped: messages at QoS 0, the first for %r; Mekt sends none", message.topic[:80])
            return
        self._inbox.deliver(Received(topic=message.topic, payload=bytes(message.payload), retained=message.retain))

    def acknowledged(self, number: int) -> None:
        """The broker has this message of ours."""
        self.outgoing.acknowledged(number)

    def caught_up(self) -> None:
        """Nothing is ahead of what the broker sends now."""
        self.flood.answered()

    def erred(self, words: str) -> None:
        """Why the connection breaks."""
        self._last_error = words

    def ended(self, words: str) -> None:
        """The connection is gone."""
        self._last_error = self._last_error or words
        self._lost(self._last_error)


def _drawn() -> float:
    """A number from 0 to 1. Not by `random`, which a wearable needs for nothing else: 0.3 MB."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
