"""What is said of a stream of class probabilities: one activity that does not flicker, and alarms told at once. Pure.

Windows are weighed together by the forward filter of a hidden Markov model (Rabiner, Proc. IEEE 77(2) 1989, section
III.A) whose states are the classes: before each window belief moves towards all classes alike, as if an activity ended
by chance after `stay_s` in the mean and any other followed; then it is multiplied by what the window says, of which
nothing counts for less than `LEAST`. So one window that is odd moves belief little, and one change that all windows
agree on is believed within a window or two, which an average is too slow for.

A class is to be said when belief in it reaches `enter` and in no other is higher, and goes on being so until that
falls below `leave` or another class takes its place: hysteresis, as a Schmitt trigger has it. Where it holds of no
class, "not sure" (None) is to be said. What is to be said is said once it has been so for the minimum duration
`least_s` without a break. So two changes are at least `least_s` apart, and what lasts for less changes nothing; with
any `least_s` above 0 that is true of every single window.

A class that must not wait, such as a fall, is an alarm: it begins with the first window whose own probability, not
filtered, reaches its `threshold`, and ends `hold_s` after the last such window.

Over a gap longer than `gap_s` nothing is known: what was said no longer holds, at once, and belief begins anew. An
alarm stays over a gap: whoever fell is not known to have got up because a sensor broke; its `hold_s` is of time
that is covered by windows. Over a shorter gap belief moves towards all alike for as long.
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
# No window speaks more than 100 to 1 for one class and against another.
LEAST = 0.01
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
    """How probabilities become decisions. `classes` has what differs for one, `alarms` those that are told at once.

    The defaults are those that did best on people of HAPT who are in no test (docs/results.md). `least_s` makes what is
    said calmer and later.
    """

    stay_s: Duration = 3.0
    enter: Probability = 0.4
    leave: Probability = 0.3
    least_s: Duration = 0.0
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
    """What is said as of `at_s`, the end of a window: a class or None, the belief in it, and since when.

    Where nothing is sure, the belief is that in the likeliest class.
    """

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
        self.labels, self.stride_s = tuple(labels), stride_s
        classes = [settings.classes.get(each, ClassSettings()) for each in self.labels]
        self._settings = settings
        self._longest_s = stride_s * (1 + SLACK)
        self._enter = np.array([settings.enter if each.enter is None else each.enter for each in classes])
        self._leave = np.array([settings.leave if each.leave is None else each.leave for each in classes])
        self._least_s = [settings.least_s if each.least_s is None else each.least_s for each in classes]
        self._belief: NDArray[np.float64] | None = None
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
        belief = self._believed(given, elapsed_s)
        self._sound_alarms(given, min(max(elapsed_s, 0.0), self._longest_s))
        wanted = self._to_be_said(belief)
        # Of a hole nobody knows that it was so all the time.
        if wanted != self._wanted or elapsed_s > self._longest_s:
            self._wanted, self._wanted_since_s = wanted, at_s
        least_s = self._settings.least_s if wanted is None else self._least_s[wanted]
        if wanted != self._said and at_s - self._wanted_since_s >= least_s:
            self._said, self._said_since_s = wanted, self._wanted_since_s
        return self._decision(belief)

    def lapse(self) -> Decision:
        """What to say when no window has come for long: nothing is sure. Alarms stay, and belief begins anew."""
        self._forget(self._at_s)
        return self._decision(np.zeros(len(self.labels)))

    def _decision(self, belief: NDArray[np.float64]) -> Decision:
        return Decision(
            at_s=self._at_s,
            label=None if self._said is None else self.labels[self._said],
            probability=float(belief.max() if self._said is None else belief[self._said]),
            since_s=self._said_since_s,
            alarms=tuple(self._alarms[name] for name in sorted(self._alarms)),
        )

    def _forget(self, at_s: float) -> None:
        if self._said is not None or self._said_since_s == -math.inf:
            self._said_since_s = at_s
        self._said = self._wanted = self._belief = None
        self._wanted_since_s = at_s

    def _believed(self, given: NDArray[np.float64], elapsed_s: float) -> NDArray[np.float64]:
        if self._settings.stay_s == 0:
            self._belief = given
            return given
        count = len(self.labels)
        before = np.full(count, 1 / count) if self._belief is None else self._belief
        stays = math.exp(-elapsed_s / self._settings.stay_s) if self._belief is not None else 1.0
        total = given.sum()
        shares = given / total if total > 0 else np.full(count, 1 / count)
        belief = (stays * before + (1 - stays) / count) * np.maximum(shares, LEAST)
        self._belief = belief / belief.sum()
        return self._belief

    def _to_be_said(self, belief: NDArray[np.float64]) -> int | None:
        """A class that has entered, the one that is said until it has left, or none."""
        entered = np.flatnonzero(belief >= self._enter)
        best = int(entered[belief[entered].argmax()]) if len(entered) else None
        said = self._said
        if said is None or belief[said] < self._leave[said]:
            return best
        return said if best is None or belief[best] <= belief[said] else best

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
