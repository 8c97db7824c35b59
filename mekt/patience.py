"""How long the link waits, and for what: a login's answer, a ping's, the end of a flood, the next attempt.

All of it follows from what has happened and from `now_s`, seconds of a monotonic clock: nothing here reads one, and
nothing waits. The network thread alone uses it.
"""

from collections.abc import Callable

# How long the first login may stay unanswered: some brokers that know 3.1.1 only read MQTT 5 as an endless packet.
LOGIN_S = 5.0
# How long a later one may: by then the broker is known to speak this protocol, and may only be busy.
LATER_LOGIN_S = 10.0
# ... and longer where connecting took long, which is such a multiple of the way there and back: words get lost.
LOGIN_PER_CONNECT = 10.0
# The time from one attempt to connect to the next, on average; it doubles until a connection lasts STEADY_S. With half
# of it more at most, everybody is there again within 5 s of a broker's return.
FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S = 1.0, 2.5, 10.0
# Two processes under one client id end each other's connections, and not every broker says so.
SUSPICIOUSLY_MANY = 3
# So many messages at QoS 0 make the link ask whether it keeps up; without an answer for so long, it does not.
STRAYS, BEHIND_S = 1000, 5.0


def login_patience_s(connecting_s: float, *, is_first: bool) -> float:
    """How long a login is waited for, after connecting took so long."""
    return (LOGIN_S if is_first else LATER_LOGIN_S) + LOGIN_PER_CONNECT * connecting_s


class BackOff:
    """When to try again. A fleet that lost its broker must not come back in step, so each wait has a random part."""

    def __init__(self, draw: Callable[[], float]) -> None:
        """`draw` gives a number from 0 to 1, each time another."""
        self._draw = draw
        self._delay_s = FIRST_DELAY_S / 2
        self._accepted_s: float | None = None
        self._short_lived = 0

    def accepted(self, now_s: float) -> None:
        """The broker has accepted a login."""
        self._accepted_s = now_s

    def ended(self, now_s: float) -> bool:
        """An attempt is over; whether suspiciously many connections in a row were short, said once for a row."""
        accepted_s, self._accepted_s = self._accepted_s, None
        if accepted_s is None:
            return False
        if now_s - accepted_s > STEADY_S:
            self._delay_s, self._short_lived = FIRST_DELAY_S, 0
            return False
        self._short_lived += 1
        return self._short_lived == SUSPICIOUSLY_MANY

    def begin_anew(self) -> None:
        """The connection was ended on purpose: that says nothing about the broker, and the next one may come soon."""
        self._accepted_s = None
        self._delay_s, self._short_lived = FIRST_DELAY_S / 2, 0

    def next_delay_s(self) -> float:
        """How long to wait before the next attempt; longer each time it is asked."""
        delay_s, self._delay_s = self._delay_s, min(2 * self._delay_s, LONGEST_DELAY_S)
        return delay_s * (0.5 + self._draw())


class Ping:
    """Whether a ping that waits for its answer has only not left yet.

    On a slow link it leaves behind all that waits before it, and nothing is heard meanwhile. That is no loss while the
    peer's kernel acknowledges further bytes.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._sent_bytes = 0
        self._moved_s = 0.0

    def is_on_its_way(self, sent_bytes: int, now_s: float, keepalive_s: float) -> bool:
        """Whether more than before has been sent and acknowledged within a keep-alive; ask while the ping is open."""
        if sent_bytes != self._sent_bytes:
            self._sent_bytes, self._moved_s = sent_bytes, now_s
        return now_s - self._moved_s < keepalive_s


class Flood:
    """Whether messages that nobody wants, those at QoS 0, come faster than they can be read.

    A broker sends in order: what matters would wait behind them, longer and longer. So after many of them the broker is
    asked something; the answer comes behind all that is on its way. A broker keeps messages at QoS 0 for a connection,
    not for a session: with a new connection the flood is left behind, and all others come.
    """

    def __init__(self) -> None:
        self.count = 0
        self._count_when_asked = 0
        self._asked_s: float | None = None

    def came(self) -> None:
        """Another such message."""
        self.count += 1

    def begin_anew(self) -> None:
        """There is a new connection; what was asked on the former one is not answered any more."""
        self._asked_s = None

    def asks(self, now_s: float) -> bool:
        """Whether to ask the broker something now; then that is taken for done."""
        if self._asked_s is not None or self.count - self._count_when_asked < STRAYS:
            return False
        self._count_when_asked, self._asked_s = self.count, now_s
        return True

    def answered(self) -> None:
        """The answer has come."""
        self._asked_s = None

    def is_ahead(self, now_s: float) -> bool:
        """Whether the answer has not come for so long that the connection is better ended."""
        return self._asked_s is not None and now_s - self._asked_s > BEHIND_S
