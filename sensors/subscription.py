"""One subscription at a broker that need not be Mekt's, moved by its owner: no thread, and memory for what is allowed.

The broker is asked to send no packet over LARGEST_PACKET_BYTES (MQTT 5, 3.1.2.11.4). One that sends it nevertheless, or
that speaks 3.1.1 and knows no such limit, loses the connection before the packet is in memory. So does one that sends
at QoS 2, of which paho would keep every message until it is released.
"""

import contextlib
import select
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mekt.connection import V5
from mekt.credentials import Credentials
from mekt.login import BrokerSettings, explained
from mekt.post import one_line
from mekt.session import UNSUPPORTED_PROTOCOL
from sensors.payloads import LARGEST_PAYLOAD_BYTES

LARGEST_PACKET_BYTES = LARGEST_PAYLOAD_BYTES + 2048
# How long connecting may take.
DIAL_S = 5.0
QOS = 0


class Arrived(NamedTuple):
    """A message, and when it came."""

    topic: str
    payload: bytes
    arrival_s: float


class _Bounded(mqtt.Client):
    """Paho, which otherwise takes a packet of any size that a broker announces, up to 256 MiB."""

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > LARGEST_PACKET_BYTES:
            raise OverflowError(f"a packet over {LARGEST_PACKET_BYTES} bytes")
        return super()._sock_recv(bufsize)


class Subscription:
    """One connection of paho's, moved by its owner. `lost` is why it is over, "" while it is not.

    The callbacks only keep what they are told, all of it within `move`.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        credentials: Credentials,
        protocol: MQTTProtocolVersion,
        *,
        client_id: str,
        topic: str,
    ) -> None:
        self.protocol = protocol
        self.welcome: ReasonCode | None = None
        self.is_subscribed = False
        self.is_dialled = False
        self.lost = ""
        self._arrived: list[Arrived] = []
        self._refused: Counter[str] = Counter()
        self._topic = topic
        v5 = protocol == V5
        self._client = client = _Bounded(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            clean_session=None if v5 else True,
            reconnect_on_failure=False,
        )
        credentials.equip(client)
        client.connect_timeout = DIAL_S
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        properties = Properties(PacketTypes.CONNECT) if v5 else None  # type: ignore[no-untyped-call]
        if properties is not None:
            properties.SessionExpiryInterval = 0
            properties.MaximumPacketSize = LARGEST_PACKET_BYTES
        more = {"clean_start": True, "properties": properties} if v5 else {}
        client.connect_async(broker.host, broker.port, broker.keepalive_s, **more)  # type: ignore[arg-type]

    def dial(self) -> None:
        """Connect, and send the login."""
        try:
            self._client.reconnect()
            self.is_dialled = True
        except (OSError, ValueError) as error:
            self.lost = explained(error)

    def has_more(self) -> bool:
        """Whether there is something to read at once."""
        connection = self._socket()
        if connection is None or self.lost:
            return False
        if isinstance(connection, ssl.SSLSocket) and connection.pending() > 0:
            return True
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        return bool(poller.poll(0))

    def move(self, timeout_s: float) -> None:
        """Wait until there is something to read or to write, and do it; a packet at most."""
        client, connection = self._client, self._socket()
        if self.lost or connection is None:
            self.lost = self.lost or "the connection is gone"
            return
        poller = select.poll()
        poller.register(connection, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
        poller.poll(0 if decrypted else 1000 * timeout_s)
        self._guarded(client.loop_read)
        if not self.lost and client._in_messages:
            self.lost = "it sends at QoS 2 what was subscribed at QoS 0; use another broker"
        if not self.lost and client.want_write():
            self._guarded(client.loop_write)
        if not self.lost:
            self._guarded(client.loop_misc)

    def taken(self) -> tuple[list[Arrived], Counter[str]]:
        """The messages that came, and how many more by what was wrong with them; they are then no longer here."""
        arrived, refused, self._arrived, self._refused = self._arrived, self._refused, [], Counter()
        return arrived, refused

    def end(self) -> None:
        """Log off where that can be, and close."""
        connection = self._socket()
        if connection is None:
            return
        with contextlib.suppress(Exception):
            if not self.lost:
                self._client.disconnect()
                self._client.loop_write()
        connection.close()

    def _guarded(self, step: Callable[[], MQTTErrorCode]) -> None:
        """A step of paho's, whatever the broker sends; what it stumbles over ends the connection."""
        try:
            code = step()
        except Exception as error:  # bytes that are no MQTT end in any error of Python's
            seen = one_line(f"{type(error).__name__}: {str(error)[:100]}")
            self.lost = self.lost or f"it sends what is no MQTT ({seen}); check the port"
            return
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.lost = self.lost or f"the connection is lost ({mqtt.error_string(code)}); check network and broker"

    def _socket(self) -> socket.socket | None:
        connection = self._client.socket()
        return connection if isinstance(connection, socket.socket) and connection.fileno() >= 0 else None

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure and reason.value == UNSUPPORTED_PROTOCOL and self.protocol == V5:
            self.lost = "it does not speak MQTT 5"
            return
        self.welcome = reason
        if reason.is_failure:
            self.lost = f"it refuses the login ({reason}); check user name, password file and certificate"
            return
        client.subscribe(self._topic, qos=QOS)

    def _on_subscribe(self, client: mqtt.Client, _: Any, mid: int, reasons: list[ReasonCode], properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self.lost = f"it refuses the subscription to {self._topic}; check its access control list"
        self.is_subscribed = True

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._refused["a topic that is no text"] += 1
            return
        if message.retain:
            self._refused["a retained message, which is of another time"] += 1
        else:
            self._arrived.append(Arrived(topic, bytes(message.payload), time.monotonic()))

    def _on_disconnect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self.lost = self.lost or f"the connection is lost ({reason}); check network and broker"
