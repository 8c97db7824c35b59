"""What a wearable says of its wearer, as it leaves the process: one form for lines, messages and callbacks."""

import json
import math
import time
from dataclasses import dataclass, replace
from typing import Any

from edge.wearable.decisions import Decision

# A source's clock is compared with this machine's anew when they have come apart by so much.
CLOCK_SLACK_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A decision on its way out: told at `wall_s` (seconds since 1970), by these modalities; `news`: it has changed.

    `latency_ms` is how long the latest window took. Without modalities nothing is sensed at present.
    """

    decision: Decision
    wall_s: float
    news: bool
    modalities: tuple[str, ...] = ()
    latency_ms: float = 0.0

    @property
    def about(self) -> dict[str, Any]:
        """About the activity: its probability, since when, by what."""
        return {
            "probability": round(self.decision.probability, 4),
            "since": self.when(self.decision.since_s),
            "modalities": list(self.modalities),
            "latency_ms": round(self.latency_ms, 3),
        }

    @property
    def alarms(self) -> list[dict[str, Any]]:
        """The alarms that are on."""
        return [
            {"name": each.label, "probability": round(each.probability, 4), "since": self.when(each.since_s)}
            for each in self.decision.alarms
        ]

    def json_line(self) -> str:
        """All of it, for machines."""
        said = {"time": _utc(self.wall_s), "activity": self.decision.label, **self.about, "alarms": self.alarms}
        return json.dumps(said, ensure_ascii=False)

    def when(self, t_s: float) -> str:
        """A time on the source's clock in UTC, by this machine's clock as it is now."""
        return _utc(self.wall_s - (self.decision.at_s - t_s))


class Telling:
    """Makes of decisions what is told: those that are news, and every `repeat_s` how things stand; at 0 each decision.

    `now_s` is monotonic, `wall_s` since 1970.
    """

    def __init__(self, repeat_s: float) -> None:
        self._repeat_s = repeat_s
        # How things stand.
        self.latest: Told | None = None
        self._told_at_s = -math.inf
        # How far this machine's clock is ahead of the sources'.
        self._ahead_s = math.inf

    def tell(
        self, decision: Decision, modalities: tuple[str, ...], latency_ms: float, *, now_s: float, wall_s: float
    ) -> Told | None:
        """What is told of a decision by these modalities, if anything."""
        before = self.latest
        news = before is None or decision.gist != before.decision.gist
        # Not anew at each window, which comes a little earlier or later: what began at some time keeps it.
        ahead_s = wall_s - decision.at_s
        if abs(ahead_s - self._ahead_s) > CLOCK_SLACK_S:
            self._ahead_s = ahead_s
        steady_s = decision.at_s + self._ahead_s
        self.latest = Told(decision=decision, wall_s=steady_s, news=news, modalities=modalities, latency_ms=latency_ms)
        if not news and self._repeat_s > 0:
            return None
        self._told_at_s = now_s
        return self.latest

    def again(self, now_s: float) -> Told | None:
        """How things stand, where that is due."""
        if self.latest is None or now_s < self.due_s:
            return None
        self._told_at_s = now_s
        return replace(self.latest, news=False)

    @property
    def due_s(self) -> float:
        """When it is to be said again how things stand; never, where that is said at each decision."""
        return self._told_at_s + self._repeat_s if self.latest is not None and self._repeat_s > 0 else math.inf


def _utc(wall_s: float) -> str:
    whole, part = divmod(max(0.0, wall_s), 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(part * 1000):03d}Z"
