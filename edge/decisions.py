"""What is said of a stream of class probabilities: one activity that does not flicker, and alarms told at once. Pure.

Probabilities are averaged over time (an exponential average of time constant `smooth_s`). A class is to be said when
its average reaches `enter` and no other's is higher, and goes on being so until its average falls below `leave` or
another class takes its place: hysteresis, as a Schmitt trigger has it. Where that holds of no class, "not sure" (None)
is to be said. What is to be said is said once it has been so for the minimum duration `least_s` without a break, of
which only time that windows cover counts. So two changes are at least `least_s` apart, and one odd window, or any
number of them in less than `least_s`, changes nothing.

A class that must not wait, such as a fall, is an alarm: it begins with the first window whose own probability, not
averaged, reaches its `threshold`, and ends `hold_s` after the last such window.

Over a gap longer than `gap_s` nothing is known: what was said no longer holds, at once, and averages begin anew. An
alarm stays over a gap: whoever fell is not known to have got up because a sensor broke; its `hold_s` is of time
that is covered by windows. A shorter gap only makes the next window count for more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from export.manifest import Label
from mekt.schema import Bounds

Probability = Annotated[float, Bounds(low=0, high=1)]
Duration = Annotated[float, Bounds(low=0, high=3600)]
# Windows that follow one another without a hole have starts this close, in strides: grids are rounded.
SLACK = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassSettings:
    """What one class is told by instead of what all are."""

    enter: Probability | None = None
    leave: Probability | None = None
    least_s: Duration | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AlarmSettings:
    """A class that is told at once: from which probability of a single window on, and for how long after the last."""

    threshold: Annotated[float, Bounds(above=0, high=1)] = 0.5
    hold_s: Duration = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DecideSettings:
    """How probabilities become decisions. `classes` has what differs for one, `alarms` those that are told at once."""

    smooth_s: Duration = 2.0
    enter: Probability = 0.55
    leave: Probability = 0.4
    least_s: Duration = 2.0
    gap_s: Annotated[float, Bounds(above=0, high=3600)] = 10.0
    classes: Annotated[dict[Label, ClassSettings], Bounds(longest=1024)] = field(default_factory=dict)
    alarms: Annotated[dict[Label, AlarmSettings], Bounds(longest=16)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, each in {"": ClassSettings(), **self.classes}.items():
            enter = self.enter if each.enter is None else each.enter
            leave = self.leave if each.leave is None else each.leave
            if leave > enter:
                where = f"classes.{name}." if name else ""
                raise ValueError(f"{where}leave: {leave:g} is more than enter, {enter:g}; a class would come and go")

    def unknown(self, labels: Sequence[str]) -> list[str]:
        """The classes named here that are none of `labels`."""
        return sorted((self.classes.keys() | self.alarms.keys()) - set(labels))


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """A class that is told at once: its highest probability in a window, and since when, on the source's clock."""

    label: str
    probability: float
    since_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What is said as of `at_s`, the end of a window: a class or None, the average that it has, and since when."""

    at_s: float
    label: str | None
    probability: float
    since_s: float
    alarms: tuple[Alarm, ...] = ()

    @property
    def gist(self) -> tuple[str | None, frozenset[str]]:
        """What is told anew when it changes."""
        return self.label, frozenset(each.label for each in self.alarms)


class Decider:
    """Takes the probabilities of window after window of classes `labels`, and says what to say. Memory is constant.

    `stride_s` is the time that one window more covers.
    """

    def __init__(self, labels: Sequence[str], stride_s: float, settings: DecideSettings) -> None:
        self.labels = tuple(labels)
        classes = [settings.classes.get(each, ClassSettings()) for each in self.labels]
        self._settings = settings
        self._longest_s = stride_s * (1 + SLACK)
        self._enter = np.array([settings.enter if each.enter is None else each.enter for each in classes])
        self._leave = np.array([settings.leave if each.leave is None else each.leave for each in classes])
        self._least_s = [settings.least_s if each.least_s is None else each.least_s for each in classes]
        self._average: NDArray[np.float64] | None = None
        # What is said, and what is to be said, as indices of classes, and since when that is so without a break.
        self._said: int | None = None
        self._wanted: int | None = None
        self._said_since_s = self._wanted_since_s = self._at_s = -math.inf
        # By class, how much time its alarm has left.
        self._alarms: dict[str, Alarm] = {}
        self._left_s: dict[str, float] = {}

    def feed(self, at_s: float, probabilities: Sequence[float] | NDArray[np.floating[Any]]) -> Decision:
        """What to say after the window that ends at `at_s` with these probabilities (K,).

        What is no number counts as 0.
        """
        given = np.nan_to_num(np.asarray(probabilities, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        elapsed_s = at_s - self._at_s
        if not 0 <= elapsed_s <= max(self._settings.gap_s, self._longest_s):
            self._forget(at_s)
        self._at_s = at_s
        average = self._averaged(given, elapsed_s)
        self._sound_alarms(given, min(max(elapsed_s, 0.0), self._longest_s))
        wanted = self._to_be_said(average)
        # Of a hole nobody knows that it was so all the time.
        if wanted != self._wanted or elapsed_s > self._longest_s:
            self._wanted, self._wanted_since_s = wanted, at_s
        least_s = self._settings.least_s if wanted is None else self._least_s[wanted]
        if wanted != self._said and at_s - self._wanted_since_s >= least_s:
            self._said, self._said_since_s = wanted, self._wanted_since_s
        return self._decision(average)

    def lapse(self) -> Decision:
        """What to say when no window has come for long: nothing is sure. Alarms stay, and averages begin anew."""
        self._forget(self._at_s)
        return self._decision(np.zeros(len(self.labels)))

    def _decision(self, average: NDArray[np.float64]) -> Decision:
        return Decision(
            at_s=self._at_s,
            label=None if self._said is None else self.labels[self._said],
            probability=float(average.max() if self._said is None else average[self._said]),
            since_s=self._said_since_s,
            alarms=tuple(self._alarms[name] for name in sorted(self._alarms)),
        )

    def _forget(self, at_s: float) -> None:
        if self._said is not None or self._said_since_s == -math.inf:
            self._said_since_s = at_s
        self._said = self._wanted = self._average = None
        self._wanted_since_s = at_s

    def _averaged(self, given: NDArray[np.float64], elapsed_s: float) -> NDArray[np.float64]:
        if self._average is None or self._settings.smooth_s == 0:
            self._average = given
        else:
            self._average = self._average - math.expm1(-elapsed_s / self._settings.smooth_s) * (given - self._average)
        return self._average

    def _to_be_said(self, average: NDArray[np.float64]) -> int | None:
        """A class that has entered, the one that is said until it has left, or none."""
        entered = np.flatnonzero(average >= self._enter)
        best = int(entered[average[entered].argmax()]) if len(entered) else None
        said = self._said
        if said is None or average[said] < self._leave[said]:
            return best
        return said if best is None or average[best] <= average[said] else best

    def _sound_alarms(self, given: NDArray[np.float64], covered_s: float) -> None:
        for name, each in self._settings.alarms.items():
            probability = float(given[self.labels.index(name)]) if name in self.labels else 0.0
            going = self._alarms.get(name)
            if probability >= each.threshold:
                since_s, before = (self._at_s, 0.0) if going is None else (going.since_s, going.probability)
                self._alarms[name] = Alarm(label=name, probability=max(probability, before), since_s=since_s)
                self._left_s[name] = each.hold_s
            elif going is not None:
                self._left_s[name] -= covered_s
                if self._left_s[name] < 0 or each.hold_s == 0:
                    del self._alarms[name], self._left_s[name]
