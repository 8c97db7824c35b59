"""What the link was given to send: each message until the broker has acknowledged it, within the broker's limits.

Messages wait in memory while the broker is away, in the connection that would carry them. Another connection takes
them over. Of each it is known here for which topic it is and that it is not acknowledged yet.
"""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mekt import catalogue
from mekt.errors import LinkError

log = logging.getLogger(__name__)

QUEUED_MESSAGES = 2000
# Fixed header, topic and properties of a PUBLISH packet, beside its payload.
PACKET_OVERHEAD_BYTES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """Something to send."""

    topic: str
    payload: bytes
    retain: bool = False

    @property
    def packet_bytes(self) -> int:
        """The size that its PUBLISH packet does not exceed."""
        return len(self.payload) + len(self.topic.encode()) + PACKET_OVERHEAD_BYTES


class Witness(Protocol):
    """Who is told of every message before it can leave, and may forbid it."""

    def saw(self, message: Message, *, is_will: bool = False) -> None:
        """This message is about to leave; as a will, to be said by the broker some day.

        Raises:
            MektError: when it must not.
        """


class Carrier(Protocol):
    """What messages leave by. It keeps each until that is acknowledged, and tells `Outgoing.acknowledged` then."""

    def publish(self, message: Message) -> int | None:
        """Take a message; its number, or None when QUEUED_MESSAGES are waiting already."""

    def take_back(self) -> Iterable[Message]:
        """Everything that is not acknowledged, in its order; the carrier forgets it."""


class Outgoing:
    """The messages on their way. Any thread may send; the network thread tells of connections and acknowledgements.

    A carrier may call `acknowledged` while it holds locks of its own that `publish` needs, so that takes only a lock
    within which no carrier is called.
    """

    def __init__(self, carrier: Carrier, witness: Witness | None = None) -> None:
        self._carrier = carrier
        self._witness = witness
        self._limit_bytes: int | None = None
        self._largest_bytes = 0
        # Who holds this calls the carrier.
        self._sending = threading.Lock()
        # Who holds this looks at the two below.
        self._changed = threading.Condition(threading.Lock())
        self._topics: dict[int, str] = {}
        # Acknowledged before the carrier had told their numbers.
        self._early: set[int] = set()

    def send(self, message: Message) -> None:
        """Give a message to the carrier.

        Raises:
            LinkError: when it is over the broker's packet limit, or too many are waiting already.
            MektError: when the witness forbids it.
        """
        with self._sending:
            size = message.packet_bytes
            if self._limit_bytes is not None and size > self._limit_bytes:
                raise LinkError(
                    f"a message of {size} bytes for {message.topic} is over the broker's limit of "
                    f"{self._limit_bytes} bytes; raise max_packet_size in the broker's configuration",
                    catalogue.PACKET_TOO_LARGE,
                )
            if self._witness is not None:
                self._witness.saw(message)
            self._give(message)
            self._largest_bytes = max(self._largest_bytes, size)

    def acknowledged(self, number: int) -> None:
        """The broker has this message."""
        with self._changed:
            if self._topics.pop(number, None) is None:
                self._early.add(number)
            self._changed.notify_all()

    def leaving(self, topic: str) -> int:
        """How many messages for `topic` the broker has not acknowledged yet."""
        with self._changed:
            return list(self._topics.values()).count(topic)

    def drain(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything; False when it has not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._topics, timeout_s)

    def use(self, carrier: Carrier) -> None:
        """Send by this carrier from now on; it takes over what the former one had."""
        with self._sending:
            former, self._carrier = self._carrier, carrier
            self._limit_bytes = None
            self._give_again(former.take_back())

    def limit(self, limit_bytes: int | None) -> None:
        """The broker takes packets up to this size; None where it does not say.

        What waits and is larger is dropped: one message over the limit would end every connection to come.
        """
        with self._sending:
            self._limit_bytes = limit_bytes
            if limit_bytes is not None and self._largest_bytes > limit_bytes:
                self._give_again(self._carrier.take_back())

    def _give(self, message: Message) -> None:
        number = self._carrier.publish(message)
        if number is None:
            raise LinkError(
                f"{QUEUED_MESSAGES} messages are waiting for the broker; {message.topic} was not queued",
                catalogue.TOO_MANY_WAITING,
            )
        with self._changed:
            if number in self._early:
                self._early.remove(number)
            else:
                self._topics[number] = message.topic

    def _give_again(self, messages: Iterable[Message]) -> None:
        with self._changed:
            self._topics.clear()
            self._early.clear()
        self._largest_bytes = 0
        for message in messages:
            if self._limit_bytes is None or message.packet_bytes <= self._limit_bytes:
                self._give(message)
                self._largest_bytes = max(self._largest_bytes, message.packet_bytes)
            else:
                log.error("a message for %s is over the broker's new packet limit, and dropped", message.topic)
