"""What a wearable says of its wearer, as it leaves the process: one form for lines, messages and callbacks."""

import json
import time
from dataclasses import dataclass
from typing import Any

from edge.wearable.decisions import Decision


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


def _utc(wall_s: float) -> str:
    whole, part = divmod(max(0.0, wall_s), 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(part * 1000):03d}Z"
