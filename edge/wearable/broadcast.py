"""What a wearable says over MQTT, whenever there is a broker: topics of its user's, Home Assistant.

A broker that is not there costs nothing but that: it is dialled on a thread of its own until it is. What could not be
said meanwhile is not sent late, but for alarms: those that began meanwhile are told when there is a connection again,
and then how things stand.
"""

import collections
import hashlib
import logging
import queue
import secrets
import threading
from typing import Any

from edge.wearable.home_assistant import ONLINE, HomeAssistant
from edge.wearable.settings import PublishSettings
from edge.wearable.telling import Told
from mekt.errors import LinkError, MektError
from mekt.inbox import Connected, LinkEvent, Received
from mekt.link import Link
from mekt.login import BrokerSettings
from mekt.outgoing import Message

log = logging.getLogger(__name__)

RETRY_S = 10.0
# Alarms that are told late, at most.
MOST_MISSED = 16
LEAVE_S = 2.0


class Broadcast:
    """Says what it is told to the broker. Events of the link go to `inbox`, whose owner gives them back to `heard`."""

    def __init__(
        self,
        broker: BrokerSettings,
        inbox: "queue.Queue[Any]",
        *,
        publish: PublishSettings | None = None,
        home: HomeAssistant | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        """Read the files of the login.

        Raises:
            SettingsError: when one cannot be used, or the broker is elsewhere and there is no TLS.
        """
        self._broker, self._inbox, self._publish, self.home = broker, inbox, publish, home
        self._retry_s = retry_s
        self._link = self._made()
        self._latest: Told | None = None
        self._missed: collections.deque[Told] = collections.deque(maxlen=MOST_MISSED)
        self._stopping = threading.Event()
        self._dialler = threading.Thread(target=self._dial, name="mekt-dial", daemon=True)

    def start(self) -> None:
        """Dial until somebody answers."""
        self._dialler.start()

    def stop(self) -> None:
        """Say farewell where there is a connection."""
        self._stopping.set()
        self._dialler.join(LEAVE_S)
        will = None if self.home is None else self.home.will
        self._link.stop(LEAVE_S, last=will)

    def renew(self, home: HomeAssistant | None) -> None:
        """Another release has other classes: Home Assistant is told."""
        self.home = home
        if self._link.is_connected:
            self._introduce()

    def tell(self, told: Told) -> None:
        """Say it, now or never; but alarms are not lost."""
        before = frozenset() if self._latest is None else self._latest.decision.gist[1]
        self._latest = told
        if self._link.is_connected:
            self._say(told)
        elif told.decision.gist[1] - before:
            self._missed.append(told)

    def heard(self, event: LinkEvent) -> None:
        """What the link has to tell: a connection, or that Home Assistant is there, means to say it all again."""
        match event:
            case Connected():
                self._introduce()
                while self._missed:
                    self._say(self._missed.popleft())
                self._say_latest()
            case Received(topic=topic, payload=payload):
                if self.home is not None and topic == self.home.birth_topic and payload == ONLINE.encode():
                    self._introduce()
                    self._say_latest()
            case _:
                pass

    def _introduce(self) -> None:
        for message in () if self.home is None else self.home.birth():
            self._send(message)

    def _say_latest(self) -> None:
        if self._latest is not None:
            self._say(self._latest)

    def _say(self, told: Told) -> None:
        if self._publish is not None:
            line = told.json_line().encode()
            self._send(Message(topic=self._publish.topic, payload=line, retain=self._publish.retain))
        for message in () if self.home is None else self.home.state(told):
            self._send(message)

    def _send(self, message: Message) -> None:
        try:
            self._link.publish(message.topic, message.payload, retain=message.retain)
        except LinkError as error:
            log.warning("not said over MQTT: %s", error)

    def _made(self) -> Link:
        # Several may speak under one topic. Who has a last will is one, and takes its own place when it comes back.
        name = secrets.token_bytes() if self.home is None else self.home.settings.id.encode()
        birth = () if self.home is None else (self.home.birth_topic,)
        return Link(
            settings=self._broker,
            client_id=f"mekt-wearable-{hashlib.sha256(name).hexdigest()[:12]}",
            inbox=self._inbox,
            subscriptions=birth,
            # Home Assistant says it at QoS 0, unless it is told to do otherwise.
            also_at_qos_0=frozenset(birth),
            will=None if self.home is None else self.home.will,
            keeps_session=False,
        )

    def _dial(self) -> None:
        said = ""
        while not self._stopping.is_set():
            try:
                # A link starts once.
                self._link = self._made() if said else self._link
                self._link.start()
            except MektError as error:
                if str(error) != said:
                    log.warning("%s; trying again every %g s", error, self._retry_s)
                said = str(error)
                self._stopping.wait(self._retry_s)
            else:
                return
