"""The one connection to the broker: MQTT 5 (or 3.1.1 where a broker knows no better), with its known traps closed.

What the link does: a persistent session under a fixed client id, no-delay on the socket, subscriptions made anew at
every connection, jittered reconnection for ever, a refusal of packets over the broker's limit before they are sent,
callbacks that only put events into a bounded queue and cannot kill the network thread, bytes counted by the kernel,
patience with a link that is slow but moves. Messages at QoS 0 are nobody's: they are dropped, and a flood of them is
left behind.

What it does not do: keep messages over a restart, or promise that a published message arrives. Every exchange above
it is asked for again until it is answered, and every receiver takes a message twice without harm.

What the owner must do: read the inbox; never block in it for longer than the keep-alive.

One thread owns the session: it alone connects, reads and writes. Others only queue messages and wake it.
"""

import collections
import contextlib
import logging
import queue
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mekt import catalogue
from mekt.credentials import Credentials
from mekt.errors import LinkError
from mekt.login import BrokerSettings, check_plain_text, entry_of, explained
from mekt.traffic import Traffic, WireBytes

log = logging.getLogger(__name__)

QOS = 1
INBOX_WAIT_S = 2.0
# How long a broker keeps what is for a client that is away: one that was without power or network for a week finds its
# messages, and nothing is kept for ever for one that never comes back. MQTT 3.1.1 knows no such limit.
SESSION_EXPIRES_S = 7 * 24 * 3600
QUEUED_MESSAGES = 2000
# Fixed header, topic and properties of a PUBLISH packet, beside its payload.
PACKET_OVERHEAD_BYTES = 256
# The time from one attempt to connect to the next, on average; it doubles until a connection lasts STEADY_S. With half
# of it more at most, everybody is there again within 5 s of a broker's return.
FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S = 1.0, 2.5, 10.0
# Two processes under one client id end each other's connections, and not every broker says so.
SUSPICIOUSLY_MANY = 3
# How long a first connection may fail before that is the answer: a broker may be starting at the same time.
GRACE_S = 1.0
# How long the first login may stay unanswered: some brokers that know 3.1.1 only read MQTT 5 as an endless packet.
LOGIN_S = 3.0
# ... and longer where connecting took long, which is such a multiple of the way there and back: words get lost.
LOGIN_PER_CONNECT = 10.0
LOOP_S = 1.0
# So many messages at QoS 0 make the link ask whether it keeps up; without an answer for so long, it does not.
STRAYS, BEHIND_S = 1000, 5.0
NOBODYS_TOPIC = "mekt/nobody"
# Paho's words for a ping, and for its answer.
PINGED, ANSWERED = "Sending PINGREQ", "Received PINGRESP"
# MQTT 5 reason codes.
UNSUPPORTED_PROTOCOL = 132
TRANSIENT_REFUSALS = (136, 137, 151, 156, 159)  # unavailable, busy, over a quota or rate, another server for now


@dataclass(frozen=True, kw_only=True, slots=True)
class Connected:
    """The broker accepted the login; subscriptions are on their way."""

    protocol: Literal["5", "3.1.1"]
    session_present: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Disconnected:
    """The connection is gone; the link tries again by itself."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A message arrived."""

    topic: str
    payload: bytes
    retained: bool


LinkEvent = Connected | Disconnected | Received


class Link:
    """A connection to the broker that lives until `stop`. Its events go to `inbox`; any thread may publish."""

    def __init__(
        self,
        *,
        settings: BrokerSettings,
        client_id: str,
        inbox: "queue.Queue[Any]",
        subscriptions: tuple[str, ...] = (),
        will: tuple[str, bytes] | None = None,
        keeps_session: bool = True,
    ) -> None:
        """Make a link; without `keeps_session` the broker keeps nothing for it while it is away.

        Raises:
            SettingsError: when the settings forbid it, or a file of the login cannot be used.
        """
        check_plain_text(settings)
        self._settings = settings
        self._client_id = client_id
        self._inbox = inbox
        self._subscriptions = subscriptions
        self._will = will
        self._keeps_session = keeps_session
        self._credentials = Credentials(settings)
        self._traffic = Traffic()
        self._largest_packet: int | None = None
        self._largest_sent = 0
        self._connected = threading.Event()
        self._settled = threading.Event()
        self._unanswered_subscriptions = 0
        self._stopping = threading.Event()
        self._began_s = self._accepted_s = 0.0
        self._give_up_s = 0.0
        self._abandon = self._answered = False
        self._spoken: MQTTProtocolVersion | None = None
        self._failure = self._last_error = ""
        self._entry = catalogue.LOGIN_UNANSWERED
        self._delay_s = FIRST_DELAY_S / 2
        self._pinged = False
        self._sent_bytes, self._moved_s = 0, 0.0
        self._short_lived = 0
        self._dropped = 0
        # Messages at QoS 0, how many there were when the broker was last asked something, and since when it has been.
        self._strays = self._strays_before = 0
        self._asked_s: float | None = None
        self._owed: collections.deque[Connected | Disconnected] = collections.deque()
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._client = self._make_client(MQTTProtocolVersion.MQTTv5)
        self._client_lock = threading.Lock()
        self._newest: mqtt.MQTTMessageInfo | None = None
        # Topics of what the broker has not acknowledged, by message id.
        self._unacknowledged: dict[int, str] = {}
        self._thread = threading.Thread(target=self._run, name="mekt-link", daemon=True)

    def start(self, timeout_s: float = 30.0) -> None:
        """Connect and subscribe for the first time; from then on the link reconnects by itself. A link starts once.

        Raises:
            LinkError: when that does not succeed in time, with the cause as far as it can be found; the link is over.
        """
        self._wakeup = socket.socketpair()
        for end in self._wakeup:
            end.setblocking(False)
        self._began_s = time.monotonic()
        self._thread.start()
        self._settled.wait(timeout_s)
        if self._spoken is not None:
            return
        reason = self._failure or f"no answer to the login within {timeout_s:g} s; check that an MQTT broker runs there"
        entry = self._entry
        self.stop(timeout_s=1.0)
        raise LinkError(f"broker {self._settings.host}:{self._settings.port}: {reason}", entry)

    @property
    def is_connected(self) -> bool:
        """True between an accepted login and the loss of the connection; a silent loss takes two keep-alives to see."""
        return self._connected.is_set()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to the network thread, QoS 1; while the broker is away, it waits in memory.

        Raises:
            LinkError: when the message is over the broker's packet limit, or too many are waiting already.
        """
        size = _packet_bytes(topic, payload)
        if self._largest_packet is not None and size > self._largest_packet:
            raise LinkError(
                f"a message of {size} bytes for {topic} is over the broker's limit of {self._largest_packet} bytes; "
                "raise max_packet_size in the broker's configuration",
                catalogue.PACKET_TOO_LARGE,
            )
        with self._client_lock:
            info = self._client.publish(topic, payload, qos=QOS, retain=retain)
            if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                raise LinkError(
                    f"{QUEUED_MESSAGES} messages are waiting for the broker; {topic} was not queued",
                    catalogue.TOO_MANY_WAITING,
                )
            self._largest_sent = max(self._largest_sent, size)
            self._newest = info
            self._note(topic, info)
        self._wake()

    def leaving(self, topic: str) -> int:
        """How many messages for `topic` the broker has not acknowledged yet. They arrive, if only it comes back."""
        return list(self._unacknowledged.values()).count(topic)

    def wire_bytes(self) -> WireBytes:
        """Bytes up and down since the link was made, over all of its connections."""
        return self._traffic.total()

    def stop(self, timeout_s: float = 3.0, last: tuple[str, bytes] | None = None) -> None:
        """Send what is queued and `last` (retained), log off, and end the network thread; at most `timeout_s`.

        When the broker does not acknowledge `last` in time, the link ends without a farewell, and the will speaks.
        """
        self._give_up_s = time.monotonic() + timeout_s
        if self._connected.is_set():
            # What cannot be queued, or is lost with the connection, is not acknowledged; that is looked at below.
            with contextlib.suppress(LinkError, ValueError, RuntimeError):
                if last is not None:
                    self._abandon = True
                    self.publish(*last, retain=True)
                if self._newest is not None:
                    self._newest.wait_for_publish(0.8 * timeout_s)
                    self._abandon = not self._newest.is_published()
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(max(0.0, self._give_up_s - time.monotonic()))

    def _note(self, topic: str, info: mqtt.MQTTMessageInfo) -> None:
        """Remember a message until it is acknowledged, which may have been while this was called."""
        self._unacknowledged[info.mid] = topic
        with contextlib.suppress(RuntimeError):  # it waits for a connection
            if info.is_published():
                self._unacknowledged.pop(info.mid, None)

    def _make_client(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        v5 = protocol == MQTTProtocolVersion.MQTTv5
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=protocol,
            clean_session=None if v5 else not self._keeps_session,
        )
        settings = self._settings
        self._credentials.equip(client)
        if self._will is not None:
            client.will_set(self._will[0], self._will[1], qos=QOS, retain=True)
        client.max_queued_messages_set(QUEUED_MESSAGES)
        client.on_connect = self._guarded(self._on_connect)
        client.on_disconnect = self._guarded(self._on_disconnect)
        client.on_message = self._guarded(self._on_message)
        client.on_subscribe = self._guarded(self._on_subscribe)
        client.on_publish = self._guarded(self._on_publish)
        client.on_socket_open = self._guarded(self._on_socket_open)
        client.on_socket_close = self._guarded(self._on_socket_close)
        client.enable_logger(_Eavesdropper(self._on_log))
        client.on_unsubscribe = self._guarded(self._on_unsubscribe)
        # Without this, paho writes in the thread that publishes, into the middle of what another one writes.
        client.on_socket_register_write = lambda *_: None
        properties = Properties(PacketTypes.CONNECT) if v5 else None  # type: ignore[no-untyped-call]
        if properties is not None:
            properties.SessionExpiryInterval = SESSION_EXPIRES_S if self._keeps_session else 0
        client.connect_async(
            settings.host,
            settings.port,
            keepalive=settings.keepalive_s,
            **({"clean_start": False, "properties": properties} if v5 else {}),  # type: ignore[arg-type]
        )
        return client

    def _run(self) -> None:
        """The network thread: connect, move packets, wait, and again."""
        while not self._stopping.is_set():
            if self._credentials.renew():
                self._speak(self._client.protocol)
            client = self._client
            self._last_error, self._answered, self._pinged, self._asked_s = "", False, False, None
            dialled_s = time.monotonic()
            try:
                client.reconnect()
                began_s = time.monotonic()
                patience_s = LOGIN_S + LOGIN_PER_CONNECT * (began_s - dialled_s)
                while client.socket() is not None and not self._stopping.is_set():
                    self._move(client)
                    if self._spoken is None and time.monotonic() - began_s > patience_s:
                        break
                    if self._is_flooded(client):
                        self._last_error = "a flood at QoS 0 is in the way of all else; it ends with the connection"
                        self._delay_s, self._short_lived = FIRST_DELAY_S / 2, 0
                        break
                if not self._answered and not self._stopping.is_set():
                    self._unanswered(client)
            except (OSError, ValueError) as error:
                final = isinstance(error, ssl.SSLCertVerificationError)
                self._failed(explained(error), entry_of(error), final=final)
            except Exception as error:
                log.exception("the network thread stumbled; it connects anew")
                self._failed(f"{type(error).__name__}: {error}", catalogue.LINK)
            if self._stopping.is_set():
                with contextlib.suppress(Exception):
                    self._log_off(client)
            self._hang_up(client)
            self._lost(self._last_error or "the network thread stumbled")
            if client is self._client or self._client.protocol == MQTTProtocolVersion.MQTTv5:
                self._pause()
        for end in self._wakeup or ():
            end.close()

    def _move(self, client: mqtt.Client) -> None:
        """Wait until there is something to read, to write or to check, and do it; any number of files may be open."""
        connection = client.socket()
        assert isinstance(connection, socket.socket) and self._wakeup is not None
        poller = select.poll()
        poller.register(self._wakeup[0], select.POLLIN)
        poller.register(connection, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        poller.poll(0 if decrypted else LOOP_S * 1000)
        with contextlib.suppress(BlockingIOError):
            self._wakeup[0].recv(65536)
        client.loop_read()
        if client.want_write():
            client.loop_write()
        # On a slow link a ping leaves behind all that waits before it. Paho would take its silence for a loss.
        if not (self._pinged and self._is_sending()):
            client.loop_misc()
        self._pay()

    def _is_sending(self) -> bool:
        """Whether the peer's kernel has acknowledged further bytes within a keep-alive."""
        sent_bytes, now_s = self._traffic.total().up, time.monotonic()
        if sent_bytes != self._sent_bytes:
            self._sent_bytes, self._moved_s = sent_bytes, now_s
        return now_s - self._moved_s < self._settings.keepalive_s

    def _is_flooded(self, client: mqtt.Client) -> bool:
        """Whether messages that nobody wants come faster than they can be read.

        A broker sends in order: what matters would wait behind them, longer and longer. A broker keeps messages at
        QoS 0 for a connection, not for a session; so with a new one the flood is left behind, and all others come.
        """
        now_s = time.monotonic()
        if self._asked_s is not None:
            return now_s - self._asked_s > BEHIND_S
        if self._strays - self._strays_before >= STRAYS:
            # A question that changes nothing; its answer comes behind all that is on its way.
            self._strays_before, self._asked_s = self._strays, now_s
            client.unsubscribe(NOBODYS_TOPIC)
        return False

    def _pause(self) -> None:
        """Wait before the next attempt; a fleet that lost its broker must not come back in step."""
        if self._accepted_s and time.monotonic() - self._accepted_s > STEADY_S:
            self._delay_s, self._short_lived = FIRST_DELAY_S, 0
        elif self._accepted_s:
            self._short_lived += 1
            if self._short_lived == SUSPICIOUSLY_MANY:
                log.warning(
                    "%s connections in a row ended within seconds (%s); is there another process that is %s? End it",
                    *(SUSPICIOUSLY_MANY, self._last_error, self._client_id),
                )
        self._accepted_s = 0.0
        ends_s = time.monotonic() + self._delay_s * random.uniform(0.5, 1.5)  # noqa: S311
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        while (left_s := ends_s - time.monotonic()) > 0 and not self._stopping.wait(min(left_s, 0.2)):
            self._pay()

    def _log_off(self, client: mqtt.Client) -> None:
        if self._abandon or not self._connected.is_set():
            return
        client.disconnect()
        while client.socket() is not None and time.monotonic() < self._give_up_s - 0.1:
            self._move(client)

    def _hang_up(self, client: mqtt.Client) -> None:
        """Close a connection that is still open, without a farewell."""
        connection = client.socket()
        if isinstance(connection, socket.socket):
            self._on_socket_close(client, None, connection)
            connection.close()

    def _unanswered(self, client: mqtt.Client) -> None:
        v5 = client.protocol == MQTTProtocolVersion.MQTTv5
        if v5 and self._spoken is None:
            self._speak(MQTTProtocolVersion.MQTTv311)
            return
        text = "no answer to the login" if client.socket() is not None else self._last_error or "it ends the connection"
        advice = "check the port, that both sides use TLS or neither, and this side's certificate"
        self._failed(f"the login is not answered ({text}); {advice}", catalogue.LOGIN_UNANSWERED)
        if self._spoken is None:
            self._speak(MQTTProtocolVersion.MQTTv5)

    def _failed(self, reason: str, entry: catalogue.Entry, *, final: bool = False) -> None:
        """Keep why an attempt failed, for `start`; when nobody waits there any more, the log has each reason once."""
        if self._spoken is not None and reason != self._failure:
            log.warning("broker %s:%s: %s; trying again", self._settings.host, self._settings.port, reason)
        self._failure = self._last_error = reason
        self._entry = entry
        if final or time.monotonic() - self._began_s > GRACE_S:
            self._settled.set()

    def _lost(self, reason: str) -> None:
        if self._connected.is_set():
            self._connected.clear()
            self._put(Disconnected(reason=reason))

    def _wake(self) -> None:
        if self._wakeup is not None:
            with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
                self._wakeup[1].send(b"!")

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback would end the network thread while the client still says it is connected."""

        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception:
                log.exception("%s failed; the connection goes on", callback.__name__)

        return call

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._answered = True
        v5 = client.protocol == MQTTProtocolVersion.MQTTv5
        if reason.is_failure and reason.value == UNSUPPORTED_PROTOCOL and v5:
            self._speak(MQTTProtocolVersion.MQTTv311)
            return
        if reason.is_failure:
            text = f"it refuses the login ({reason}); check user name, password file and certificate"
            self._failed(text, catalogue.LOGIN_REFUSED, final=reason.value not in TRANSIENT_REFUSALS)
            return
        if not v5 and client.protocol != self._spoken:
            log.warning(
                "the broker speaks MQTT 3.1.1 only: sessions of absent devices do not expire, refusals carry no "
                "reason, and its packet limit is unknown"
            )
        for topic in self._subscriptions:
            client.subscribe(topic, qos=QOS)
        self._largest_packet = getattr(properties, "MaximumPacketSize", None)
        if self._largest_packet is not None and self._largest_sent > self._largest_packet:
            # The limit has shrunk. One message over it would end every connection to come.
            self._queue_again(client, client.drop_out_messages())
        self._failure = ""
        self._accepted_s = time.monotonic()
        self._spoken = client.protocol
        self._connected.set()
        self._put(Connected(protocol="5" if v5 else "3.1.1", session_present=bool(flags.session_present)))
        self._unanswered_subscriptions = len(self._subscriptions)
        if not self._subscriptions:
            self._settled.set()

    def _speak(self, protocol: MQTTProtocolVersion) -> None:
        """Use another protocol from the next connection on; what is queued stays queued."""
        with self._client_lock:
            former, self._client = self._client, self._make_client(protocol)
        self._largest_packet = None
        self._queue_again(self._client, former.drop_out_messages())

    def _queue_again(self, client: mqtt.Client, messages: Iterable[mqtt.MQTTMessage]) -> None:
        self._unacknowledged.clear()
        for message in messages:
            if self._largest_packet is None or _packet_bytes(message.topic, message.payload) <= self._largest_packet:
                info = client.publish(message.topic, message.payload, qos=QOS, retain=message.retain)
                self._note(message.topic, info)
            else:
                log.error("a message for %s is over the broker's new packet limit, and dropped", message.topic)

    def _on_disconnect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._last_error = self._last_error or str(reason)
        self._lost(self._last_error)

    def _on_subscribe(self, client: mqtt.Client, _: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                log.error("the broker refuses a subscription (%s); check its access control list", reason)
        self._unanswered_subscriptions -= 1
        if self._unanswered_subscriptions <= 0:
            self._settled.set()

    def _on_publish(self, client: mqtt.Client, _: Any, mid: int, reason: Any, properties: Any) -> None:
        self._unacknowledged.pop(mid, None)

    def _on_unsubscribe(self, client: mqtt.Client, _: Any, mid: int, reasons: Any, properties: Any) -> None:
        self._asked_s = None

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        if message.qos < QOS:
            self._strays += 1
            if self._strays == 1:
                log.warning("dropped: messages at QoS 0, the first for %r; Mekt sends none", message.topic[:80])
            return
        self._put(Received(topic=message.topic, payload=bytes(message.payload), retained=message.retain))

    def _on_socket_open(self, client: mqtt.Client, _: Any, opened: socket.socket) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._traffic.opened(opened)

    def _on_socket_close(self, client: mqtt.Client, _: Any, closed: socket.socket) -> None:
        self._traffic.closing(closed)

    def _on_log(self, level: int, words: str, *details: object) -> None:
        """Paho tells its log alone why a connection broke, and whether a ping waits for its answer."""
        if level == logging.ERROR:
            self._last_error = words % details
        elif words in (PINGED, ANSWERED):
            self._pinged = words == PINGED

    def _put(self, event: LinkEvent) -> None:
        """Hand an event to the owner. A message that finds no room is dropped; news of the connection waits for it."""
        if not isinstance(event, Received):
            self._owed.append(event)
            self._pay()
            return
        ends_s = time.monotonic() + INBOX_WAIT_S
        while not self._stopping.is_set() and time.monotonic() < ends_s:
            self._pay()
            if not self._owed:
                with contextlib.suppress(queue.Full):
                    self._inbox.put(event, timeout=0.1)
                    return
        if self._stopping.is_set():
            return
        self._dropped += 1
        if self._dropped == 1:
            log.warning("the inbox is full: messages are dropped and will be asked for again")

    def _pay(self) -> None:
        """Put the news of the connection that found no room before."""
        with contextlib.suppress(queue.Full):
            while self._owed:
                self._inbox.put_nowait(self._owed[0])
                self._owed.popleft()


class _Eavesdropper(logging.Logger):
    """A logger that hands on what it is told without putting it into words first: for most of it that takes long."""

    def __init__(self, hear: Callable[..., None]) -> None:
        super().__init__("mekt.link.paho")
        self._hear = hear

    def log(self, level: int, msg: object, *args: object, **_: Any) -> None:
        self._hear(level, msg, *args)


def _packet_bytes(topic: str, payload: bytes | bytearray) -> int:
    """The size that the PUBLISH packet of a message does not exceed."""
    return len(payload) + len(topic.encode()) + PACKET_OVERHEAD_BYTES
