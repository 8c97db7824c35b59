"""What equal runs say together: a row for each variant, a section for each table."""

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.cells import Cell, Kept, Outcome

MEGABYTE = 1e6
MEASURE = "weighted_f1"
# Kinds of traffic that are not of a participant's round: the first crosses once for each device.
PROXY = "proxy"
NOT_OF_A_ROUND = (PROXY, "session", "others")
# What a round takes, without what only a comparison does: counting bytes, taking scores.
WORK = ("announce", "local", "distil")
# The method whose traffic is the yardstick.
PARAMETERS = "fedavg"
# The embedding of all modalities, which most comparisons are about.
MAIN_GROUP = "fused"
# What is told of an attack (`bench.cells.Attacked`).
ATTACKS = ("auc", "tpr", "loss_auc", "loss_tpr")
# A target of the bytes table: this share of what the best federated method gains over its start.
TARGET_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Sample:
    """Equal runs' values of one quantity."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Their standard deviation (of a sample); None of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"mean": self.mean, "std": self.std, "n": len(self.values), "values": list(self.values)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A cell and the row it belongs to: a text for each key column. On a line plot it stands on `series` at `x`.

    `section` names the table that it is in, that of its protocol when empty; `measured_by` the one whose first row
    its loss is counted from, none when empty.
    """

    cell: Cell
    keys: tuple[str, ...]
    section: str = ""
    federated: bool = True
    series: str = ""
    x: float | None = None
    measured_by: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """What a command runs and how it is shown. `keys` head the key columns; `x_label` is empty for a dot plot."""

    name: str
    title: str
    keys: tuple[str, ...]
    entries: tuple[Entry, ...]
    x_label: str = ""
    x_log: bool = False

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell once, in order."""
        return tuple(dict.fromkeys(entry.cell for entry in self.entries))


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A moment of the runs: megabytes of the whole federation so far, and the main group's score."""

    round: int
    megabytes: float
    megabytes_with_proxy: float
    score: Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What equal runs gave. Bytes are per device and round, without what crosses once; None where nothing crossed.

    `attacks`: "auc own 3" is of the attack on what a device sent up to round 3, over devices and runs (`ATTACKS`).
    `scores` are those of the method's own heads where it has any, else of the probe; `probe` those of the probe.
    `loss` is how much lower each run's main score is than that of the run that it is measured by, where there is one.
    """

    keys: tuple[str, ...]
    method: str
    federated: bool
    series: str
    x: float | None
    runs: int
    missing: int
    scores: Mapping[str, Sample]
    probe: Mapping[str, Sample]
    start: Mapping[str, Sample]
    up: Sample | None
    down: Sample | None
    one_off: Sample | None
    seconds: Mapping[str, Sample]
    windows_per_s: Sample | None
    proxy_windows: int
    points: tuple[Point, ...]
    attacks: Mapping[str, Sample] = field(default_factory=dict)
    epsilon: float | None = None
    measured_by: str = ""
    loss: Sample | None = None
    ratio: float | None = None
    to_target: tuple[float, float] | None = None

    @property
    def round_s(self) -> float | None:
        """Seconds of a round's work."""
        return sum(self.seconds[part].mean for part in WORK if part in self.seconds) if self.seconds else None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        samples = {"up_bytes": self.up, "down_bytes": self.down, "one_off_bytes": self.one_off}
        return {
            "keys": list(self.keys),
            "method": self.method,
            "federated": self.federated,
            "x": self.x,
            "runs": self.runs,
            "missing": self.missing,
            "scores": {group: sample.plain() for group, sample in self.scores.items()},
            "probe": {group: sample.plain() for group, sample in self.probe.items()},
            "start": {group: sample.plain() for group, sample in self.start.items()},
            "loss": self.loss and self.loss.plain(),
            "per_device_and_round": {name: each and each.plain() for name, each in samples.items()},
            "parameter_exchange_over_this": self.ratio,
            "megabytes_to_target": self.to_target and dict(zip(("alone", "with_proxy"), self.to_target, strict=True)),
            "seconds_per_round": {part: sample.plain() for part, sample in self.seconds.items()},
            "proxy_windows": self.proxy_windows,
            "attacks": {name: sample.plain() for name, sample in self.attacks.items()},
            "epsilon": self.epsilon,
            "windows_per_s": self.windows_per_s and self.windows_per_s.plain(),
            "rounds": [
                {
                    "round": point.round,
                    "megabytes": point.megabytes,
                    "megabytes_with_proxy": point.megabytes_with_proxy,
                    "score": point.score.plain(),
                }
                for point in self.points
            ],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One table's rows; `groups` are those with scores, the main one first. `target` is a score of the main one."""

    name: str
    rows: tuple[Row, ...]
    groups: tuple[str, ...]
    quick: bool = False
    target: float | None = None
    best: Mapping[str, int] = field(default_factory=dict)

    @property
    def main(self) -> str | None:
        """The group that plots are about."""
        return self.groups[0] if self.groups else None


def summarise(experiment: Experiment, kept: Mapping[Cell, Kept]) -> tuple[Section, ...]:
    """A section for each table, rows in the order of the experiment's entries; cells that failed are counted."""
    tables: dict[str, list[Entry]] = {}
    for entry in experiment.entries:
        tables.setdefault(entry.section or entry.cell.protocol, []).append(entry)
    sections = tuple(_section(name, entries, kept) for name, entries in tables.items())
    return tuple(_with_losses(section, tables, kept) for section in sections)


def _with_losses(section: Section, tables: Mapping[str, Sequence[Entry]], kept: Mapping[Cell, Kept]) -> Section:
    """With what each row lost to the first row of the table that it is measured by, run by run."""

    def scores(name: str, keys: tuple[str, ...]) -> dict[tuple[int, int], float]:
        """Of each run, by what equal runs differ in."""
        found = {}
        for entry in tables[name]:
            if entry.keys == keys and entry.cell in kept:
                measures = kept[entry.cell].outcome.last.scores.get(section.main or "", {})
                if MEASURE in measures:
                    found[entry.cell.rotation, entry.cell.seed] = measures[MEASURE]
        return found

    def with_loss(row: Row) -> Row:
        if not row.measured_by:
            return row
        whole, own = scores(row.measured_by, tables[row.measured_by][0].keys), scores(section.name, row.keys)
        lost = tuple(whole[run] - own[run] for run in sorted(whole.keys() & own.keys()))
        return replace(row, loss=Sample(lost) if lost else None)

    return replace(section, rows=tuple(with_loss(row) for row in section.rows))


def _section(name: str, entries: Sequence[Entry], kept: Mapping[Cell, Kept]) -> Section:
    found = [kept[entry.cell].outcome for entry in entries if entry.cell in kept]
    groups = sorted({group for outcome in found for group in outcome.last.scores})
    groups.sort(key=lambda group: group != MAIN_GROUP)
    rows = []
    for keys in dict.fromkeys(entry.keys for entry in entries):
        same = [entry for entry in entries if entry.keys == keys]
        outcomes = [kept[entry.cell].outcome for entry in same if entry.cell in kept]
        rows.append(_row(same[0], outcomes, missing=len(same) - len(outcomes), main=groups[0] if groups else None))
    return _compared(Section(name=name, rows=tuple(rows), groups=tuple(groups), quick=entries[0].cell.quick))


def _row(entry: Entry, outcomes: Sequence[Outcome], *, missing: int, main: str | None) -> Row:
    def traffic(count: Callable[[Outcome], float]) -> Sample | None:
        crossed = [outcome for outcome in outcomes if any(each.devices for each in outcome.traffic)]
        return Sample(tuple(count(outcome) for outcome in crossed)) if crossed else None

    parts = list(dict.fromkeys(part for outcome in outcomes for part in outcome.seconds))
    timed = [outcome for outcome in outcomes if outcome.windows and outcome.seconds.get("local")]
    return Row(
        keys=entry.keys,
        method=entry.cell.method,
        federated=entry.federated,
        series=entry.series,
        x=entry.x,
        measured_by=entry.measured_by,
        runs=len(outcomes),
        missing=missing,
        scores=_scores(outcome.last.scores | outcome.last.heads for outcome in outcomes),
        probe=_scores(outcome.last.scores for outcome in outcomes),
        start=_scores(outcome.evaluations[0].scores for outcome in outcomes if outcome.evaluations[0].round == 0),
        up=traffic(lambda outcome: _per_device_and_round(outcome, "up")),
        down=traffic(lambda outcome: _per_device_and_round(outcome, "down")),
        one_off=traffic(_one_off_per_device),
        seconds={
            part: Sample(tuple(outcome.seconds.get(part, 0.0) / max(1, outcome.last.round) for outcome in outcomes))
            for part in parts
        },
        windows_per_s=Sample(tuple(each.windows / each.seconds["local"] for each in timed)) if timed else None,
        proxy_windows=outcomes[0].proxy_windows if outcomes else 0,
        points=_points(outcomes, main),
        attacks=_attacks(outcomes),
        epsilon=max((each.epsilon for each in outcomes if each.epsilon is not None), default=None),
    )


def _attacks(outcomes: Sequence[Outcome]) -> dict[str, Sample]:
    values: dict[str, list[float]] = {}
    for each in (attack for outcome in outcomes for attack in outcome.attacks):
        for measure in ATTACKS:
            values.setdefault(f"{measure} {each.way} {each.round}", []).append(getattr(each, measure))
    return {name: Sample(tuple(found)) for name, found in values.items()}


def _scores(found: Iterable[Mapping[str, Mapping[str, float]]]) -> dict[str, Sample]:
    values: dict[str, list[float]] = {}
    for scores in found:
        for group, measures in scores.items():
            if MEASURE in measures:
                values.setdefault(group, []).append(measures[MEASURE])
    return {group: Sample(tuple(each)) for group, each in values.items()}


def _per_device_and_round(outcome: Outcome, way: str) -> float:
    kinds = [each.up if way == "up" else each.down for each in outcome.traffic]
    sent = sum(size for sizes in kinds for kind, size in sizes.items() if kind not in NOT_OF_A_ROUND)
    return sent / sum(each.devices for each in outcome.traffic)


def _one_off_per_device(outcome: Outcome) -> float:
    return sum(each.down.get(PROXY, 0) for each in outcome.traffic) / max(1, outcome.devices)


def _megabytes(outcome: Outcome, number: int) -> tuple[float, float]:
    """Of the whole federation up to the end of round `number`: without and with the proxy set."""
    kinds = [
        (kind, size)
        for each in outcome.traffic
        if each.round <= number
        for kind, size in itertools.chain(each.up.items(), each.down.items())
    ]
    again = sum(size for kind, size in kinds if kind != PROXY)
    return again / MEGABYTE, sum(size for _, size in kinds) / MEGABYTE


def _points(outcomes: Sequence[Outcome], main: str | None) -> tuple[Point, ...]:
    """The rounds that all of them have scores of."""
    if main is None or not outcomes:
        return ()
    scored = [
        {each.round: each.scores[main][MEASURE] for each in outcome.evaluations if MEASURE in each.scores.get(main, {})}
        for outcome in outcomes
    ]
    points = []
    for number in sorted(set.intersection(*map(set, scored))):
        bytes_so_far = [_megabytes(outcome, number) for outcome in outcomes]
        points.append(
            Point(
                round=number,
                megabytes=statistics.fmean(alone for alone, _ in bytes_so_far),
                megabytes_with_proxy=statistics.fmean(whole for _, whole in bytes_so_far),
                score=Sample(tuple(each[number] for each in scored)),
            )
        )
    return tuple(points)


def _compared(section: Section) -> Section:
    """With what only all rows together tell: the best federated row of each group, ratios, bytes to the target."""
    rows, main = section.rows, section.main
    federated = [index for index, row in enumerate(rows) if row.federated]
    best = {}
    for group in section.groups:
        having = [index for index in federated if group in rows[index].scores]
        if len(having) > 1:
            best[group] = max(having, key=lambda index: rows[index].scores[group].mean)
    target = _target(rows[best[main]], main) if main in best else None
    yardstick = next((row for row in rows if row.method == PARAMETERS and row.up and row.down), None)
    compared = tuple(_with_ratios(row, yardstick, target) for row in rows)
    return replace(section, rows=compared, target=target, best=best)


def _target(row: Row, main: str) -> float | None:
    """Most of the way from its start to its end; None where it gained nothing."""
    if main not in row.start:
        return None
    start, end = row.start[main].mean, row.scores[main].mean
    return start + TARGET_SHARE * (end - start) if end > start else None


def _with_ratios(row: Row, yardstick: Row | None, target: float | None) -> Row:
    ratio = None
    if yardstick and yardstick.up and yardstick.down and row.up and row.down and row.up.mean + row.down.mean > 0:
        ratio = (yardstick.up.mean + yardstick.down.mean) / (row.up.mean + row.down.mean)
    reached = next((each for each in row.points if target is not None and each.score.mean >= target), None)
    to_target = (reached.megabytes, reached.megabytes_with_proxy) if reached and row.up else None
    return replace(row, ratio=ratio, to_target=to_target)
