"""A connection to the broker: paho with its known traps closed, and told apart from what is decided about it.

What it closes: packets leave at once (no Nagle); an exception in a callback does not end the thread that reads; any
number of files may be open; bytes are counted by the kernel; nothing is written but by the thread that owns it; and a
ping that has only not left yet is no loss.

One thread owns it: it dials, moves packets and hangs up, again and again. Others only publish, and ring the bell.
"""

import contextlib
import logging
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mekt.credentials import Credentials
from mekt.login import BrokerSettings
from mekt.outgoing import QUEUED_MESSAGES, Message, Witness
from mekt.patience import Ping
from mekt.traffic import Traffic

log = logging.getLogger(__name__)

V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
QOS = 1
# How long a broker keeps what is for a client that is away: one that was without power or network for a week finds its
# messages, and nothing is kept for ever for one that never comes back. MQTT 3.1.1 knows no such limit.
SESSION_EXPIRES_S = 7 * 24 * 3600
# With a certificate it is kept for ever (MQTT 5, 3.1.2.11.2). A mosquitto 2 that knows clients by their certificates
# and reads its files anew ends the sessions of all who are away once more. One that would expire is then twice in its
# list of those, and mosquitto crashes when the entry is due or the client is back.
NEVER_EXPIRES = 0xFFFFFFFF
LOOP_S = 1.0
NOBODYS_TOPIC = "mekt/nobody"
# Paho's words for a ping, and for its answer.
PINGED, ANSWERED = "Sending PINGREQ", "Received PINGRESP"


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who connects where, for which topics, with which last words; whose session outlasts the connection or not.

    `witness` is told of all that leaves, last words included. Of `also_at_qos_0` messages are heard at QoS 0 too.
    """

    settings: BrokerSettings
    client_id: str
    subscriptions: tuple[str, ...] = ()
    will: tuple[str, bytes] | None = None
    keeps_session: bool = True
    witness: Witness | None = None
    also_at_qos_0: frozenset[str] = frozenset()


class Listener(Protocol):
    """Who hears what happens on a connection, on the thread that owns it."""

    def welcomed(self, reason: ReasonCode, *, session_present: bool, limit_bytes: int | None) -> None:
        """The broker has answered the login."""

    def subscribed(self, reasons: list[ReasonCode]) -> None:
        """It has answered a subscription."""

    def arrived(self, message: mqtt.MQTTMessage) -> None:
        """It has sent a message."""

    def acknowledged(self, number: int) -> None:
        """It has this message of ours."""

    def caught_up(self) -> None:
        """All that was on its way when `Connection.ask` was called has arrived."""

    def erred(self, words: str) -> None:
        """What paho says alone in its log: why a connection breaks."""

    def ended(self, words: str) -> None:
        """The connection is gone."""


class Bell:
    """What wakes the thread that waits in `Connection.move`. Any thread may ring it."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)

    def ring(self) -> None:
        """Wake it."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
            self._far.send(b"!")

    def hush(self) -> None:
        """Take all rings for heard."""
        with contextlib.suppress(BlockingIOError):
            self._near.recv(65536)

    def fileno(self) -> int:
        """What may be polled for a ring."""
        return self._near.fileno()

    def close(self) -> None:
        """Nobody waits any more."""
        self._near.close()
        self._far.close()


class Connection:
    """One client of one protocol, connected to the broker as often as it is dialled; what is queued outlasts that."""

    def __init__(
        self,
        caller: Caller,
        protocol: MQTTProtocolVersion,
        *,
        credentials: Credentials,
        traffic: Traffic,
        listener: Listener,
    ) -> None:
        self.protocol = protocol
        self._caller = caller
        self._traffic = traffic
        self._listener = listener
        self._ping = Ping()
        self._is_welcome = False
        self._client = self._make_client(credentials)

    @property
    def is_open(self) -> bool:
        """Whether there is a socket, from `dial` to the loss of it."""
        return self._client.socket() is not None

    def dial(self) -> None:
        """Connect, which may take seconds, and send the login.

        Raises:
            OSError: when there is no connection; of TLS, as `ssl.SSLError`.
            ValueError: when the name of the host is none.
        """
        self._ping.is_open = self._is_welcome = False
        self._client.reconnect()

    def move(self, bell: Bell) -> None:
        """Wait until there is something to read, to write or to check, or a ring, and do it."""
        client, connection = self._client, self._client.socket()
        assert isinstance(connection, socket.socket)
        poller = select.poll()
        poller.register(bell, select.POLLIN)
        poller.register(connection, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        poller.poll(0 if decrypted else LOOP_S * 1000)
        bell.hush()
        client.loop_read()
        if client.want_write():
            client.loop_write()
        # Paho would take the silence of a busy broker before its welcome for a loss, and that after a ping that has
        # not left yet.
        if self._is_welcome and not self._is_ping_on_its_way():
            client.loop_misc()

    def subscribe(self) -> None:
        """Ask for the caller's topics."""
        for topic in self._caller.subscriptions:
            self._client.subscribe(topic, qos=QOS)

    def ask(self) -> None:
        """A question that changes nothing; its answer comes behind all that is on its way."""
        self._client.unsubscribe(NOBODYS_TOPIC)

    def publish(self, message: Message) -> int | None:
        """Queue a message; its number, or None when too many are waiting. It leaves at the next `move`."""
        info = self._client.publish(message.topic, message.payload, qos=QOS, retain=message.retain)
        return None if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE else info.mid

    def take_back(self) -> list[Message]:
        """Everything that is not acknowledged, which is then no longer queued here."""
        return [
            Message(topic=each.topic, payload=bytes(each.payload), retain=each.retain)
            for each in self._client.drop_out_messages()
        ]

    def log_off(self) -> None:
        """Queue the farewell that keeps the broker from speaking the will; the connection ends after it."""
        self._client.disconnect()

    def hang_up(self) -> None:
        """Close a connection that is still open, without a farewell."""
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            self._traffic.closing(connection)
            connection.close()

    def _make_client(self, credentials: Credentials) -> mqtt.Client:
        caller, v5 = self._caller, self.protocol == V5
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=caller.client_id,
            protocol=self.protocol,
            clean_session=None if v5 else not caller.keeps_session,
        )
        credentials.equip(client)
        if caller.will is not None:
            client.will_set(*caller.will, qos=QOS, retain=True)
        client.max_queued_messages_set(QUEUED_MESSAGES)
        client.on_connect = _guarded(self._on_connect)
        client.on_disconnect = _guarded(self._on_disconnect)
        client.on_message = _guarded(self._on_message)
        client.on_subscribe = _guarded(self._on_subscribe)
        client.on_publish = _guarded(self._on_publish)
        client.on_unsubscribe = _guarded(self._on_unsubscribe)
        client.on_socket_open = _guarded(self._on_socket_open)
        client.on_socket_close = _guarded(self._on_socket_close)
        client.enable_logger(_Eavesdropper(self._on_log))
        # Without this, paho writes in the thread that publishes, into the middle of what another one writes.
        client.on_socket_register_write = lambda *_: None
        properties = Properties(PacketTypes.CONNECT) if v5 else None  # type: ignore[no-untyped-call]
        if properties is not None:
            properties.SessionExpiryInterval = session_expires_s(caller.settings) if caller.keeps_session else 0
        host = caller.settings.host
        client.connect_async(
            # Text would be taken for an international name, by tables of half a megabyte.
            host.encode() if host.isascii() else host,  # type: ignore[arg-type]
            caller.settings.port,
            keepalive=caller.settings.keepalive_s,
            **({"clean_start": False, "properties": properties} if v5 else {}),  # type: ignore[arg-type]
        )
        return client

    def _is_ping_on_its_way(self) -> bool:
        if not self._ping.is_open:
            return False
        return self._ping.is_on_its_way(self._traffic.total().up, time.monotonic(), self._client.keepalive)

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        limit_bytes = getattr(properties, "MaximumPacketSize", None)
        self._is_welcome = True
        self._listener.welcomed(reason, session_present=bool(flags.session_present), limit_bytes=limit_bytes)

    def _on_disconnect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._listener.ended(str(reason))

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        self._listener.arrived(message)

    def _on_subscribe(self, client: mqtt.Client, _: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        self._listener.subscribed(reasons)

    def _on_publish(self, client: mqtt.Client, _: Any, mid: int, reason: Any, properties: Any) -> None:
        self._listener.acknowledged(mid)

    def _on_unsubscribe(self, client: mqtt.Client, _: Any, mid: int, reasons: Any, properties: Any) -> None:
        self._listener.caught_up()

    def _on_socket_open(self, client: mqtt.Client, _: Any, opened: socket.socket) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._traffic.opened(opened)

    def _on_socket_close(self, client: mqtt.Client, _: Any, closed: socket.socket) -> None:
        self._traffic.closing(closed)

    def _on_log(self, level: int, words: str, *details: object) -> None:
        """Paho tells its log alone why a connection broke, and whether a ping waits for its answer."""
        if level == logging.ERROR:
            self._listener.erred(words % details)
        elif words in (PINGED, ANSWERED):
            self._ping.is_open = words == PINGED


def session_expires_s(settings: BrokerSettings) -> int:
    """How long a broker is to keep what is for a client that logs in so."""
    return SESSION_EXPIRES_S if settings.tls is None or settings.tls.certificate is None else NEVER_EXPIRES


class _Eavesdropper(logging.Logger):
    """A logger that hands on what it is told without putting it into words first: for most of it that takes long."""

    def __init__(self, hear: Callable[..., None]) -> None:
        super().__init__("mekt.connection.paho")
        self._hear = hear

    def log(self, level: int, msg: object, *args: object, **_: Any) -> None:
        self._hear(level, msg, *args)


def _guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """An exception in a callback would end the network thread while the client still says it is connected."""

    def call(*arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception:
            log.exception("%s failed; the connection goes on", callback.__name__)

    return call
