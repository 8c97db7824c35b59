"""Sensors whose samples arrive over MQTT, from a broker that need not be Mekt's: JSON or msgpack, as it comes.

    [[sensors]]
    kind = "mqtt"
    topic = "home/hall/imu"                      # {"t": 1712, "imu": {"acc": [12, -3, 981], "gyro": [0.1, 0, 0]}}
    broker = { host = "192.168.1.7", port = 8883, tls = { ca = "ca.pem" } }
    time = { field = "t", unit = "ms", bits = 32 }
    signals = [
        { name = "acc", fields = ["imu.acc.0", "imu.acc.1", "imu.acc.2"], rate_hz = 50, scale = [0.00102] },
        { name = "gyro", fields = ["imu.gyro.0", "imu.gyro.1", "imu.gyro.2"], rate_hz = 50 },
    ]

One connection, moved by whoever reads the source: no thread, nothing is sent but the login, the subscription and pings.
Messages come at QoS 0, in a session that ends with the connection. All of them are foreign: of bounded size, number and
depth (`sensors.payloads`), or counted, logged once for each cause, and dropped. So are retained ones, which tell of
another time, and those of a second topic for a signal that has one: two sensors are two sources.
"""

import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from paho.mqtt.enums import MQTTProtocolVersion

from mekt import catalogue
from mekt.connection import V5, V311
from mekt.credentials import Credentials
from mekt.errors import SensorError
from mekt.login import BrokerSettings, check_plain_text, located
from mekt.patience import BackOff
from mekt.schema import Bounds, Name
from sensors.dropped import Dropped, MisfitError
from sensors.intake import Intake
from sensors.payloads import Form, samples_of, unpacked
from sensors.signals import Field, Signals, TimeField, signals_named_once
from sensors.source import Item, Source
from sensors.subscription import Arrived, Subscription

# How long the answers to login and subscription may take.
LOGIN_S = 5.0
# A call gives what so many messages hold, and leaves the others to the next one.
MOST_MESSAGES = 64
LONGEST_TOPIC = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class MqttSettings:
    """Samples out of the messages under `topic`, a filter that may hold + and #.

    `signals` say by which paths (`imu.acc.0`, "." for all of it) a message's numbers are found, `time` where its time
    is. A path may lead to a list, one number for each sample. `records` is the path of a list of messages in one. Of a
    broker on another machine `broker.tls` is needed, as for Mekt's own.
    """

    kind: Literal["mqtt"] = "mqtt"
    topic: Annotated[str, Bounds(shortest=1, longest=LONGEST_TOPIC)]
    payload: Form = "json"
    records: Field | None = None
    signals: Signals
    time: TimeField | None = None
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    client_id: Name | None = None

    def __post_init__(self) -> None:
        signals_named_once(self.signals)
        if not _is_filter(self.topic):
            raise ValueError(f"topic: {self.topic!r} is no topic filter; + stands for a level, # for all at the end")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of what the messages hold."""
        return tuple(each.name for each in self.signals)

    def source(self, base: Path) -> Source:
        """The messages as a source.

        Raises:
            SettingsError: when a file of the login cannot be used, or the broker is elsewhere and there is no TLS.
        """
        broker = located(self.broker, base)
        check_plain_text(broker)
        return MqttSource(self, broker)


class MqttSource:
    """Reads what a broker sends. `dropped` counts what did not fit, over all connections."""

    def __init__(self, settings: MqttSettings, broker: BrokerSettings, rng: random.Random | None = None) -> None:
        """`broker`: that of the settings, with its files where they are; `rng`: what draws the pauses between attempts.

        Raises:
            SettingsError: when a file of the login cannot be used.
        """
        self.modalities = tuple(each.modality for each in settings.signals)
        self._where = f"broker {broker.host}:{broker.port}"
        self.dropped = Dropped(f"{self._where}, {settings.topic}")
        self._settings, self._broker = settings, broker
        self._credentials = Credentials(broker)
        self._client_id = settings.client_id or f"mekt-sensor-{secrets.token_hex(6)}"
        self._back_off = BackOff((rng or random.Random()).random)  # noqa: S311
        self._again_s = 0.0
        self._failure = ""
        self._protocol = V5
        self._connection: Subscription | None = None
        self._intake = Intake(settings.signals, settings.time, self.dropped)
        # Of each signal the topic that its samples come under.
        self._topics: dict[str, str] = {}

    def open(self) -> None:
        """Connect, log in and subscribe; twice for at most DIAL_S and LOGIN_S. Soon after a failure it is that again.

        Raises:
            SensorError: when the broker cannot be reached, or refuses.
        """
        self.close()
        if time.monotonic() < self._again_s:
            raise SensorError(self._failure, catalogue.SENSOR_UNUSABLE)
        self._credentials.renew()
        try:
            self._connection = self._connected()
        except SensorError as error:
            self._failure = str(error)
            self._again_s = time.monotonic() + self._back_off.next_delay_s()
            raise
        self._back_off.accepted(time.monotonic())
        self._intake, self._topics = Intake(self._settings.signals, self._settings.time, self.dropped), {}

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """The samples of the messages that came since the last call; empty when none came in time.

        Raises:
            SensorError: when the connection is lost.
        """
        connection = self._connection
        if connection is None:
            raise SensorError(f"{self._where}: not open; open a source before it is read", catalogue.SOURCE_MISUSED)
        ends_s = time.monotonic() + timeout_s
        while True:
            connection.move(max(0.0, ends_s - time.monotonic()))
            for _ in range(MOST_MESSAGES - 1):
                if not connection.has_more():
                    break
                connection.move(0.0)
            arrived, refused = connection.taken()
            items = [item for each in arrived for item in self._items(each)]
            for cause, count in refused.items():
                self.dropped.note(cause, count=count)
            # What came before the end is given first.
            if items:
                return items
            if connection.lost:
                self._back_off.ended(time.monotonic())
                raise SensorError(f"{self._where}: {connection.lost}", catalogue.SENSOR_UNUSABLE)
            if time.monotonic() >= ends_s:
                return ()

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end()

    def _connected(self) -> Subscription:
        """A connection that is logged in and subscribed, in MQTT 5 or, where that is not understood, in 3.1.1."""
        connection = self._attempt(self._protocol)
        if connection.is_dialled and connection.welcome is None and connection.protocol == V5:
            connection.end()
            connection = self._attempt(V311)
            if connection.lost and connection.is_dialled and connection.welcome is None:
                advice = "check the port, and that both sides use TLS or neither"
                connection.lost = f"the login is not answered ({connection.lost}); {advice}"
        if not connection.lost and not connection.is_subscribed:
            connection.lost = f"no answer within {LOGIN_S:g} s; check that an MQTT broker runs there"
        if connection.lost:
            connection.end()
            raise SensorError(f"{self._where}: {connection.lost}", catalogue.SENSOR_UNUSABLE)
        self._protocol = connection.protocol
        return connection

    def _attempt(self, protocol: MQTTProtocolVersion) -> Subscription:
        connection = Subscription(
            self._broker, self._credentials, protocol, client_id=self._client_id, topic=self._settings.topic
        )
        connection.dial()
        ends_s = time.monotonic() + LOGIN_S
        while not connection.lost and not connection.is_subscribed and (left_s := ends_s - time.monotonic()) > 0:
            connection.move(left_s)
        return connection

    def _items(self, message: Arrived) -> list[Item]:
        settings = self._settings
        try:
            data = unpacked(message.payload, settings.payload)
        except MisfitError as misfit:
            self.dropped.note(misfit.cause, f"{message.topic}: {misfit.detail}")
            return []
        items: list[Item] = []
        fits = False
        for signal in settings.signals:
            try:
                samples = samples_of(data, signal, settings.time, settings.records)
            except MisfitError as misfit:
                self.dropped.note(misfit.cause, f"{message.topic}: {misfit.detail}")
                fits = True
                continue
            if samples is None:
                continue
            fits = True
            if self._topics.setdefault(signal.name, message.topic) == message.topic:
                items += self._intake.take(signal, samples, message.arrival_s)
            else:
                cause = f"{signal.name}: a second topic; make each sensor a source of its own"
                self.dropped.note(cause, message.topic)
        if not fits:
            self.dropped.note("a message without a field of any signal", message.topic)
        return items


def _is_filter(topic: str) -> bool:
    """Whether MQTT takes it for a filter (MQTT 5, 4.7.1)."""
    levels = topic.split("/")
    sound = all(level == "+" or not set(level) & set("+#") for level in levels[:-1])
    return sound and "\0" not in topic and (levels[-1] in ("+", "#") or not set(levels[-1]) & set("+#"))
