"""A short visit to the broker, and no trace of it left: one connection that asks and listens.

What keeps a visit harmless while the federation runs:
- Its client id is its own, so that nobody is sent away; its session ends with it.
- What is published on trial says so itself, is no message of Mekt's in any version, is not retained, so that what is
  retained stays, and expires after a second, so that nobody who is absent gets it later. Receivers count it, log it
  once and drop it, as they do with all garbage.
- What arrives is looked at and not acknowledged.

What only the owner of the machine knows: whether a daemon is at work under the same login. A broker may take the user
name for the client id, and would end that daemon's connection; nobody is then to visit.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mekt.check import Role
from mekt.connection import QOS, V5, session_expires_s
from mekt.credentials import Credentials
from mekt.login import BrokerSettings, explained
from mekt.patience import LOGIN_S

ACK_S, STEP_S = 2.0, 0.05
# Of a session whose end the broker does not see, as when this process is killed.
SESSION_S = 60
PROBE_EXPIRES_S = 1
# A map with a key that no envelope has: whoever gets it finds it unreadable, and has its origin in the log.
PROBE: bytes = msgpack.packb({"mekt doctor tries what it may publish": True, "body": None})


@dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """Who visits: the part that this machine is to be, and the names that its topics need ("" where not known)."""

    role: Role
    settings: BrokerSettings
    federation: str = ""
    device: str = ""

    @property
    def client_id(self) -> str:
        """An id that nobody else has; it begins as the daemon's does, for brokers that go by that."""
        names = [name for name in ("mekt", self.federation, self.device) if name]
        return ":".join([*names, "doctor", secrets.token_hex(6)])


class Visit:
    """One connection, used by one thread until `ends_s`. `lost` is why it is over, "" while it is not.

    Raises:
        SettingsError: when the password or the files of TLS cannot be read.
    """

    def __init__(self, guest: Guest, protocol: MQTTProtocolVersion, ends_s: float) -> None:
        self.v5 = protocol == V5
        self.client_id = guest.client_id
        self.welcome: ReasonCode | None = None
        self.session_present = False
        self.limits: Any = None
        self.lost = ""
        self._ends_s = ends_s
        self._settings = settings = guest.settings
        self._acks: dict[int, list[ReasonCode]] = {}
        self._arrived: set[str] = set()
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=protocol,
            clean_session=None if self.v5 else True,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        Credentials(settings).equip(client)
        client.connect_timeout = LOGIN_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._acks.update({mid: codes})
        client.on_publish = lambda _c, _u, mid, code, _p: self._acks.update({mid: [code]})
        client.on_message = lambda _c, _u, message: self._arrived.add(message.topic)

    def arrive(self) -> None:
        """Connect and log in; then `welcome` is the broker's answer, or `lost` says why there is none."""
        settings = self._settings
        properties = Properties(PacketTypes.CONNECT) if self.v5 else None  # type: ignore[no-untyped-call]
        if properties is not None:
            properties.SessionExpiryInterval = SESSION_S
        try:
            # A session that is there already is somebody's: it is not to be begun anew.
            more = {"clean_start": False, "properties": properties} if self.v5 else {}
            self._client.connect(settings.host, settings.port, settings.keepalive_s, **more)  # type: ignore[arg-type]
        except (OSError, ValueError) as error:
            self.lost = explained(error)
            return
        if not self._until(lambda: self.welcome is not None, LOGIN_S) and not self.lost:
            self.lost = f"no answer to the login within {LOGIN_S:g} s"

    def subscribe(self, topic: str) -> ReasonCode | None:
        """The broker's answer to a subscription; None when there was none."""
        _, mid = self._client.subscribe(topic, qos=QOS)
        return self._ack(mid)

    def publish(self, topic: str) -> ReasonCode | None:
        """The broker's answer to a probe under this topic; None when there was none. 3.1.1 knows but one answer."""
        properties = Properties(PacketTypes.PUBLISH) if self.v5 else None  # type: ignore[no-untyped-call]
        if properties is not None:
            properties.MessageExpiryInterval = PROBE_EXPIRES_S
        return self._ack(self._client.publish(topic, PROBE, qos=QOS, retain=False, properties=properties).mid)

    def got(self, wanted: Callable[[str], bool], limit_s: float) -> bool:
        """Whether a message under a topic that is wanted has come, or comes in time."""
        return self._until(lambda: any(wanted(topic) for topic in self._arrived), limit_s)

    def leave(self, *, keep_session: bool = False) -> None:
        """Log off. The session ends, but for one that was here before and is to be kept for whose it is."""
        properties = Properties(PacketTypes.DISCONNECT) if self.v5 else None  # type: ignore[no-untyped-call]
        if properties is not None:
            properties.SessionExpiryInterval = session_expires_s(self._settings) if keep_session else 0
        if not self.lost:
            self._client.disconnect(properties=properties)
            self._until(lambda: False, ACK_S)
        connection: Any = self._client.socket()
        if connection is not None:
            connection.close()

    def _ack(self, mid: int | None) -> ReasonCode | None:
        if mid is None or not self._until(lambda: mid in self._acks, ACK_S):
            self.lost = self.lost or f"no answer within {ACK_S:g} s"
            return None
        return self._acks[mid][0]

    def _until(self, done: Callable[[], bool], limit_s: float) -> bool:
        ends_s = min(time.monotonic() + limit_s, self._ends_s)
        while not done() and not self.lost and time.monotonic() < ends_s:
            code = self._client.loop(STEP_S)
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self.lost = self.lost or mqtt.error_string(code)
        return done()

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self.welcome, self.limits = reason, properties
        self.session_present = bool(flags.session_present)

    def _on_disconnect(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self.lost = self.lost or f"the broker ends the connection ({reason})"
