"""The settings of a wearable's updates, and the limits that a new release is held to."""

from dataclasses import dataclass, field
from typing import Annotated

from mekt.login import BrokerSettings
from mekt.schema import Bounds, FilePath, Name

Seconds = Annotated[float, Bounds(low=0, high=1e7)]
Percent = Annotated[int, Bounds(low=0, high=100)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The worst that a new release may be. docs/updates.md has the figures that these come from.

    `agreement_percent`: of the classes that it gives as the release at work does, the mean over that one's classes, and
    so much of each class in windows that both are `sure_percent` sure of at least;
    `confidence_percent`: its mean probability of what it says, in percent of that of the one at work; `latency_ratio`:
    its median time for a window against that one's, where it is over `latency_ms`; `memory_mb`: what a process holds
    that runs it, in 1024 * 1024 bytes; `seconds`: for the whole test. It is tested once `windows` have been seen, of
    so many `classes`, which are waited for at most `classes_s`; and refused as untested where there are too few windows
    after `patience_s`.
    """

    agreement_percent: Percent = 35
    sure_percent: Percent = 90
    confidence_percent: Percent = 60
    latency_ms: Annotated[float, Bounds(above=0, high=10_000)] = 100.0
    latency_ratio: Annotated[float, Bounds(above=0, high=1000)] = 4.0
    memory_mb: Annotated[int, Bounds(low=1, high=65_535)] = 192
    seconds: Annotated[float, Bounds(above=0, high=600)] = 120.0
    windows: Annotated[int, Bounds(low=1, high=64)] = 32
    classes: Annotated[int, Bounds(low=1, high=16)] = 3
    classes_s: Seconds = 3600.0
    patience_s: Seconds = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSettings:
    """How long a trial is, in hours of windows, and what ends it.

    `most_starts`: without having run for a twelfth of the trial after them. `confidence_percent`: the mean probability
    over some windows, in percent of that in the self-test. `latency_ratio`: the median time for a window against that
    in the self-test, where it is over `latency_ms`. `silent_s`: sensors gave for so long, and for the length of a
    window more, and there was none.
    """

    hours: Annotated[float, Bounds(above=0, high=10_000)] = 1.0
    most_starts: Annotated[int, Bounds(low=1, high=1000)] = 3
    confidence_percent: Percent = 50
    latency_ms: Annotated[float, Bounds(above=0, high=10_000)] = 250.0
    latency_ratio: Annotated[float, Bounds(above=0, high=1000)] = 10.0
    silent_s: Annotated[float, Bounds(above=0, high=1e6)] = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """Where a wearable's releases come from, and where it keeps them.

    `trust` is the file with the public key of the coordinator, which signs releases and their rollouts. No release is
    fetched that is larger than `most_mb` (10^6 bytes); three of them are kept at most.
    """

    federation: Name
    device: Name
    state: FilePath = "state"
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    trust: FilePath | None = None
    most_mb: Annotated[float, Bounds(above=0, high=256)] = 32.0
    self_test: Limits = field(default_factory=Limits)
    trial: TrialSettings = field(default_factory=TrialSettings)
