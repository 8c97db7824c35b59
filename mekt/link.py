"""The one connection to the broker: MQTT 5 (or 3.1.1 where a broker knows no better), with its known traps closed.

What the link does: a persistent session under a fixed client id, no-delay on the socket, subscriptions made anew at
every connection, jittered reconnection for ever, with certificates that may be renewed, a refusal of packets over the
broker's limit before they are sent, callbacks that only put events into a bounded queue and cannot kill the network
thread, bytes counted by the kernel, patience with a link that is slow but moves. Messages at QoS 0 are nobody's: they
are dropped, and a flood of them is left behind.

What it does not do: keep messages over a restart, or promise that a published message arrives. Every exchange above
it is asked for again until it is answered, and every receiver takes a message twice without harm.

What the owner must do: read the inbox; never block in it for longer than the keep-alive.

One thread owns the session (`mekt/session.py`): it alone connects, reads and writes. Others only queue messages and
wake it.
"""

import queue
import time
from typing import Any

from mekt.connection import Caller
from mekt.errors import MektError
from mekt.inbox import Connected, Disconnected, LinkEvent, Received
from mekt.login import BrokerSettings, check_plain_text
from mekt.outgoing import Message, Witness
from mekt.session import Session
from mekt.traffic import Traffic, WireBytes

__all__ = ["Connected", "Disconnected", "Link", "LinkEvent", "Received"]

# Of the time to stop in, what the broker has to acknowledge all messages; the rest is for the farewell.
DRAINING_SHARE = 0.8


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
        witness: Witness | None = None,
        also_at_qos_0: frozenset[str] = frozenset(),
    ) -> None:
        """Make a link; without `keeps_session` the broker keeps nothing for it while it is away.

        Messages at QoS 0 are dropped, but for those of the topics `also_at_qos_0`, from peers that know no other.

        `witness` is told of every message before it can leave, of the will when the link starts, and of nothing twice
        that MQTT repeats.

        Raises:
            SettingsError: when the settings forbid it, or a file of the login cannot be used.
        """
        check_plain_text(settings)
        caller = Caller(
            settings=settings,
            client_id=client_id,
            subscriptions=subscriptions,
            will=will,
            keeps_session=keeps_session,
            witness=witness,
            also_at_qos_0=also_at_qos_0,
        )
        self._traffic = Traffic()
        self._session = Session(caller, inbox, self._traffic)
        self._outgoing = self._session.outgoing

    def start(self, timeout_s: float = 30.0) -> None:
        """Connect and subscribe for the first time; from then on the link reconnects by itself. A link starts once.

        Raises:
            LinkError: when that does not succeed in time, with the cause as far as it can be found; the link is over.
            MektError: when the witness forbids the will; nothing was started then.
        """
        error = self._session.start(timeout_s)
        if error is not None:
            self.stop(timeout_s=1.0)
            raise error

    def begin(self) -> None:
        """Start without waiting: for whoever works without a broker as well. `start` is not called then.

        Raises:
            MektError: when the witness forbids the will; nothing was started then.
        """
        self._session.start(0.0)

    @property
    def is_connected(self) -> bool:
        """True between an accepted login and the loss of the connection; a silent loss takes two keep-alives to see."""
        return self._session.is_connected

    @property
    def strays(self) -> int:
        """How many messages at QoS 0 have come, and been dropped."""
        return self._session.flood.count

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to the network thread, QoS 1; while the broker is away, it waits in memory.

        Raises:
            LinkError: when the message is over the broker's packet limit, or too many are waiting already.
            MektError: when the witness forbids it.
        """
        self._outgoing.send(Message(topic=topic, payload=payload, retain=retain))
        self._session.wake()

    def leaving(self, topic: str) -> int:
        """How many messages for `topic` the broker has not acknowledged yet. They arrive, if only it comes back."""
        return self._outgoing.leaving(topic)

    def wire_bytes(self) -> WireBytes:
        """Bytes up and down since the link was made, over all of its connections."""
        return self._traffic.total()

    def stop(self, timeout_s: float = 3.0, last: tuple[str, bytes] | None = None) -> None:
        """Send what is queued and `last` (retained), log off, and end the network thread; at most `timeout_s`.

        When the broker does not acknowledge it in time, or the witness forbids it, the link ends without a farewell,
        and the will speaks.
        """
        give_up_s = time.monotonic() + timeout_s
        farewell = True
        if self.is_connected:
            try:
                if last is not None:
                    self.publish(*last, retain=True)
                farewell = self._outgoing.drain(DRAINING_SHARE * timeout_s)
            except (MektError, ValueError):
                farewell = False
        self._session.stop(give_up_s, farewell=farewell)
