"""The one connection to the broker: MQTT 5 (or 3.1.1 where a broker knows no better), with its known traps closed.

What the link does: a persistent session under a fixed client id, no-delay on the socket, subscriptions made anew at
every connection, jittered reconnection for ever, a refusal of packets over the broker's limit before they are sent,
callbacks that only put events into a bounded queue and cannot kill the network thread, bytes counted by the kernel.

What it does not do: keep messages over a restart, or promise that a published message arrives. Every exchange above
it is asked for again until it is answered, and every receiver takes a message twice without harm.

What the owner must do: read the inbox; never block in it for longer than the keep-alive.
"""

import contextlib
import logging
import queue
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mekt.errors import LinkError, SettingsError
from mekt.schema import Bounds

log = logging.getLogger(__name__)

QOS = 1
INBOX_WAIT_S = 2.0
QUEUED_MESSAGES = 2000
# Fixed header, topic and properties of a PUBLISH packet, beside its payload.
PACKET_OVERHEAD_BYTES = 256
UNSUPPORTED_PROTOCOL = 132
# Fields of Linux' struct tcp_info (linux/tcp.h): bytes acknowledged by the peer, bytes received.
TCP_INFO_BYTES = struct.Struct("=QQ")
TCP_INFO_OFFSET = 120
TCP_INFO_SIZE = 136

Path_ = Annotated[str, Bounds(shortest=1, longest=4096)]


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsSettings:
    """Files in PEM form: the authority that signed the broker's certificate, this side's certificate and its key."""

    ca: Path_
    certificate: Path_ | None = None
    key: Path_ | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokerSettings:
    """Where the broker is and how to log in. Plain text beyond this machine needs `plain_text_allowed`."""

    host: Annotated[str, Bounds(shortest=1, longest=255)] = "127.0.0.1"
    port: Annotated[int, Bounds(low=1, high=65535)] = 1883
    username: Annotated[str, Bounds(longest=256)] | None = None
    password_file: Path_ | None = None
    tls: TlsSettings | None = None
    keepalive_s: Annotated[int, Bounds(low=2, high=3600)] = 30
    session_expiry_s: Annotated[int, Bounds(low=0, high=2**32 - 1)] = 7 * 24 * 3600
    plain_text_allowed: bool = False


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


@dataclass(frozen=True, kw_only=True, slots=True)
class WireBytes:
    """Bytes that crossed the connection in each direction, MQTT and TLS included, TCP headers not."""

    up: int
    down: int

    def since(self, before: "WireBytes") -> "WireBytes":
        """What has been added since `before`."""
        return WireBytes(up=self.up - before.up, down=self.down - before.down)


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
    ) -> None:
        check_plain_text(settings)
        self._settings = settings
        self._client_id = client_id
        self._inbox = inbox
        self._subscriptions = subscriptions
        self._will = will
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._up_to_now = WireBytes(up=0, down=0)
        self._socket: socket.socket | None = None
        self._socket_lock = threading.Lock()
        self._largest_packet: int | None = None
        self._answered = threading.Event()
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._refusal = ""
        self._dropped = 0
        self._client = self._make_client()
        self._thread = threading.Thread(target=self._run, name="mekt-link", daemon=True)

    def start(self, timeout_s: float = 10.0) -> None:
        """Connect for the first time; from then on the link reconnects by itself.

        Raises:
            LinkError: when that does not succeed in time, with the cause as far as it can be found.
        """
        self._thread.start()
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if self._connected.wait(0.02):
                return
            if self._answered.is_set() or (time.monotonic() > deadline_s - timeout_s + 1 and self._diagnosis()):
                break
        reason = (
            self._refusal or self._diagnosis() or f"no answer to the login within {timeout_s:g} s; check the broker"
        )
        self.stop(timeout_s=1.0)
        raise LinkError(f"broker {self._settings.host}:{self._settings.port}: {reason}")

    @property
    def is_connected(self) -> bool:
        """True between an accepted login and the loss of the connection."""
        return self._connected.is_set()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to the network thread, QoS 1; while the broker is away, it waits in memory.

        Raises:
            LinkError: when the message is over the broker's packet limit, or too many are waiting already.
        """
        size = len(payload) + len(topic) + PACKET_OVERHEAD_BYTES
        if self._largest_packet is not None and size > self._largest_packet:
            raise LinkError(
                f"a message of {size} bytes for {topic} is over the broker's limit of {self._largest_packet} bytes; "
                "raise max_packet_size in the broker's configuration"
            )
        info = self._client.publish(topic, payload, qos=QOS, retain=retain)
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise LinkError(f"{QUEUED_MESSAGES} messages are waiting for the broker already; {topic} was not queued")

    def wire_bytes(self) -> WireBytes:
        """Bytes up and down since the link was made, over all of its connections."""
        with self._socket_lock:
            now = _tcp_bytes(self._socket) if self._socket is not None else WireBytes(up=0, down=0)
            return WireBytes(up=self._up_to_now.up + now.up, down=self._up_to_now.down + now.down)

    def stop(self, timeout_s: float = 3.0, last: tuple[str, bytes] | None = None) -> None:
        """Send what is queued and `last` (retained), log off, and end the network thread; at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        if self._connected.is_set():
            with contextlib.suppress(ValueError, RuntimeError):
                if last is not None:
                    info = self._client.publish(*last, qos=QOS, retain=True)
                    info.wait_for_publish(max(0.0, deadline_s - time.monotonic()))
        self._stopping.set()
        self._client.disconnect()
        if self._thread.is_alive():
            self._thread.join(max(0.1, deadline_s - time.monotonic()))

    def _make_client(self) -> mqtt.Client:
        v5 = self._protocol == MQTTProtocolVersion.MQTTv5
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=self._protocol,
            clean_session=None if v5 else False,
        )
        settings = self._settings
        if settings.username is not None:
            client.username_pw_set(settings.username, _password(settings))
        if settings.tls is not None:
            client.tls_set_context(_tls_context(settings.tls))
        if self._will is not None:
            client.will_set(self._will[0], self._will[1], qos=QOS, retain=True)
        client.max_queued_messages_set(QUEUED_MESSAGES)
        # A fleet that lost its broker must not come back in step.
        client.reconnect_delay_set(min_delay=random.uniform(0.5, 1.5), max_delay=random.uniform(3, 5))  # type: ignore[arg-type]  # noqa: S311
        client.on_connect = self._guarded(self._on_connect)
        client.on_disconnect = self._guarded(self._on_disconnect)
        client.on_message = self._guarded(self._on_message)
        client.on_subscribe = self._guarded(self._on_subscribe)
        client.on_socket_open = self._guarded(self._on_socket_open)
        client.on_socket_close = self._guarded(self._on_socket_close)
        properties = Properties(PacketTypes.CONNECT) if v5 else None  # type: ignore[no-untyped-call]
        if properties is not None:
            properties.SessionExpiryInterval = settings.session_expiry_s
        client.connect_async(
            settings.host,
            settings.port,
            keepalive=settings.keepalive_s,
            **({"clean_start": False, "properties": properties} if v5 else {}),  # type: ignore[arg-type]
        )
        return client

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._client.loop_forever(retry_first_connection=True)
            except Exception:
                log.exception("the network loop failed; it starts anew")
            if self._protocol != self._client.protocol:
                self._client = self._make_client()
            else:
                self._stopping.wait(random.uniform(0.2, 1.0))  # noqa: S311

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback would end the network thread while the client still says it is connected."""

        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception:
                log.exception("%s failed; the connection goes on", callback.__name__)

        return call

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            if reason.value == UNSUPPORTED_PROTOCOL and self._protocol == MQTTProtocolVersion.MQTTv5:
                log.warning(
                    "the broker speaks MQTT 3.1.1 only: sessions of absent devices do not expire, refusals carry no "
                    "reason, and its packet limit is unknown"
                )
                self._protocol = MQTTProtocolVersion.MQTTv311
                client.disconnect()
                return
            self._refusal = f"it refuses the login ({reason}); check user name, password file and certificate"
            self._answered.set()
            log.warning("broker %s:%s: %s", self._settings.host, self._settings.port, self._refusal)
            return
        self._largest_packet = getattr(properties, "MaximumPacketSize", None)
        for topic in self._subscriptions:
            client.subscribe(topic, qos=QOS)
        self._connected.set()
        protocol: Literal["5", "3.1.1"] = "5" if self._protocol == MQTTProtocolVersion.MQTTv5 else "3.1.1"
        self._put(Connected(protocol=protocol, session_present=bool(flags.session_present)))

    def _on_disconnect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self._connected.is_set():
            self._connected.clear()
            self._put(Disconnected(reason=str(reason)))

    def _on_subscribe(self, client: mqtt.Client, _: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                log.error("the broker refuses a subscription (%s); check its access control list", reason)

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        self._put(Received(topic=message.topic, payload=bytes(message.payload), retained=message.retain))

    def _on_socket_open(self, client: mqtt.Client, _: Any, opened: socket.socket) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._socket_lock:
            self._socket = opened

    def _on_socket_close(self, client: mqtt.Client, _: Any, closed: socket.socket) -> None:
        with self._socket_lock:
            last = _tcp_bytes(closed)
            self._up_to_now = WireBytes(up=self._up_to_now.up + last.up, down=self._up_to_now.down + last.down)
            self._socket = None

    def _put(self, event: LinkEvent) -> None:
        try:
            self._inbox.put(event, timeout=INBOX_WAIT_S)
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                log.warning("the inbox is full: messages are dropped and will be asked for again")

    def _diagnosis(self) -> str:
        """Why the broker cannot be reached, found with a plain socket, since the client hides it; "" when it can be."""
        settings = self._settings
        try:
            with socket.create_connection((settings.host, settings.port), timeout=3) as plain:
                if settings.tls is not None:
                    with _tls_context(settings.tls).wrap_socket(plain, server_hostname=settings.host) as wrapped:
                        wrapped.settimeout(0.2)
                        with contextlib.suppress(TimeoutError):
                            wrapped.recv(1)
        except ssl.SSLError as error:
            return f"TLS fails ({error.reason or error}); check the CA file, both certificates and this machine's clock"
        except ConnectionRefusedError:
            return "nobody listens there; start the broker or correct [broker] host and port"
        except OSError as error:
            return f"it cannot be reached ({error.strerror or error}); check the network and [broker] host and port"
        return ""


def located(settings: BrokerSettings, base: Path) -> BrokerSettings:
    """The same settings with every relative path starting at `base`, the folder of the settings file."""

    def at(path: str | None) -> str | None:
        return None if path is None else str(base / path)

    tls = settings.tls
    if tls is not None:
        tls = replace(tls, ca=str(base / tls.ca), certificate=at(tls.certificate), key=at(tls.key))
    return replace(settings, password_file=at(settings.password_file), tls=tls)


def check_plain_text(settings: BrokerSettings) -> None:
    """Refuse plain text beyond this machine unless it is asked for; then say so loudly.

    Raises:
        SettingsError: when the broker is elsewhere, TLS is off and plain text is not allowed.
    """
    if settings.tls is not None or settings.host in ("127.0.0.1", "::1", "localhost"):
        return
    if not settings.plain_text_allowed:
        raise SettingsError(
            f"broker.host: {settings.host} is another machine and [broker.tls] is missing; add it, "
            "or set broker.plain_text_allowed = true on a network that nobody else is on"
        )
    log.warning("PLAIN TEXT to %s: anybody on the network can read and forge this federation", settings.host)


def _password(settings: BrokerSettings) -> str | None:
    if settings.password_file is None:
        return None
    try:
        return Path(settings.password_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"broker.password_file: {settings.password_file} cannot be read ({error})") from error


def _tls_context(tls: TlsSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"broker.tls: {tls.ca}, {tls.certificate} or {tls.key} cannot be used ({error}); check paths and key"
        ) from error
    return context


def _tcp_bytes(connection: socket.socket) -> WireBytes:
    """What the kernel counted on this connection; zeros where it does not count (not Linux)."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        up, down = TCP_INFO_BYTES.unpack_from(info, TCP_INFO_OFFSET)
    except (AttributeError, OSError, struct.error, ValueError):
        return WireBytes(up=0, down=0)
    return WireBytes(up=up, down=down)
