"""Faults on demand: every sample is accounted for, and the same seed gives the same faults however it is read."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mekt.errors import SensorError
from mekt.modality import Modality
from mekt.schema import build
from sensors.faults import DROPPED, FATES, GIVEN, IN_GAP, UNPLUGGED, FaultSettings, FaultySource
from sensors.replay import ReplaySource
from sensors.simulator import SimulatorSettings, simulate
from sensors.source import Block, Floats, Gap, Item, Seconds
from sensors.stream import Recording, Segment, Stream

ACC = Modality(name="acc", shape=(1,), rate_hz=50, unit="g")
MAG = Modality(name="mag", shape=(1,), rate_hz=10, unit="uT")
# All of them together.
ALL = FaultSettings(
    seed=1,
    drift_ppm=200,
    jitter_s=0.004,
    duplicate=0.05,
    backward=0.05,
    rate=1.3,
    dropped=0.1,
    saturates_at=500,
    gap_every_s=4,
    gap_s=0.5,
    unplug_every_s=5,
    unplugged_s=0.7,
)


class Clock:
    """A clock that moves when it is waited for."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, duration_s: float) -> None:
        self.now_s += duration_s


def segment(count: int, start_s: float = 0.0) -> Segment:
    """So many samples of `acc`, whose values are their numbers from 0, and every fifth of them of `mag`."""
    t_s = start_s + np.arange(count) / ACC.rate_hz
    values = np.arange(count, dtype=np.float32)[:, None]
    acc = Stream(modality=ACC, t_s=t_s, values=values)
    return Segment(name="s", streams={"acc": acc, "mag": Stream(modality=MAG, t_s=t_s[::5], values=values[::5])})


def recording(*segments: Segment) -> Recording:
    return Recording(name="r", segments=segments, label_names={})


class Reader:
    """Reads a faulty source to its end, as sensing does: closed at every fault, and opened again until that works."""

    def __init__(
        self,
        settings: FaultSettings,
        played: Recording,
        *,
        names: Sequence[str] = ("acc",),
        speed: float = 1.0,
        block_s: float = 0.5,
        patience_s: float = 0.1,
    ) -> None:
        self.clock = Clock()
        replay = ReplaySource(played, names, speed=speed, block_s=block_s, clock=self.clock, wait=self.clock.wait)
        self.source = FaultySource(replay, settings, speed=speed, remembers=True, clock=self.clock)
        self.items: list[Item] = []
        # When reading failed, and for how long.
        self.faults: list[tuple[float, float]] = []
        self.source.open()
        while True:
            try:
                items = self.source.read(patience_s)
            except SensorError:
                self._return()
                continue
            if items is None:
                break
            self.items += items
        self.source.close()

    def _return(self) -> None:
        failed_s = self.clock.now_s
        while True:
            self.source.close()
            self.clock.now_s += 0.01
            try:
                self.source.open()
            except SensorError:
                continue
            self.faults.append((failed_s - 1000, self.clock.now_s - failed_s))
            return

    def blocks(self, name: str = "acc") -> list[Block]:
        return [item for item in self.items if isinstance(item, Block) and item.modality == name]

    def t_s(self, name: str = "acc") -> Seconds:
        return np.concatenate([np.empty(0), *(block.t_s for block in self.blocks(name))])

    def numbers(self, name: str = "acc") -> Floats:
        """The values, which are the samples' numbers."""
        empty = np.empty(0, dtype=np.float32)
        return np.concatenate([empty, *(block.values[:, 0] for block in self.blocks(name))])

    def fates(self, name: str = "acc") -> Any:
        fates = self.source.accounts[name].fates
        assert fates is not None
        return np.frombuffer(bytes(fates), dtype=np.uint8)


def of(**faults: Any) -> FaultSettings:
    return FaultSettings(**faults)


def test_without_faults_all_is_given_as_it_is() -> None:
    seen = Reader(of(), recording(segment(200), segment(50, 90.0)))
    assert seen.numbers().tolist() == [*range(200), *range(50)]
    assert isinstance(seen.items[0], Gap) and sum(isinstance(item, Gap) for item in seen.items) == 2
    assert seen.source.accounts["acc"].counts == {"given": 250}
    assert not +seen.source.accounts["acc"].changes
    assert seen.source.modalities == (ACC,)


@pytest.mark.parametrize("names", [("acc",), ("acc", "mag"), ("mag", "acc")])
def test_every_sample_is_given_or_has_the_fate_that_is_told(names: tuple[str, ...]) -> None:
    faults = of(seed=4, dropped=0.2, rate=0.7, gap_every_s=3, gap_s=0.5, unplug_every_s=5, unplugged_s=1)
    seen = Reader(faults, recording(segment(3000)), names=names)
    for name in names:
        step = 1 if name == "acc" else 5
        fates, account = seen.fates(name), seen.source.accounts[name]
        assert len(fates) == 3000 // step == account.counts.total()
        assert (np.flatnonzero(fates == GIVEN) * step).tolist() == seen.numbers(name).tolist()
        assert {FATES[fate] for fate in fates} == set(FATES)
        assert [account.counts[fate] for fate in FATES] == np.bincount(fates, minlength=len(FATES)).tolist()


@settings(max_examples=25)
@given(st.integers(0, 100), st.sampled_from([0.02, 0.13, 0.5, 7.0]), st.sampled_from([1.0, 30.0]))
def test_faults_do_not_depend_on_how_the_source_cuts_its_blocks_or_how_fast_it_is_read(
    seed: int, block_s: float, speed: float
) -> None:
    faults = build(FaultSettings, {f: getattr(ALL, f) for f in ALL.__dataclass_fields__} | {"seed": seed})
    played = recording(segment(700), segment(300, 1e6))
    first = Reader(faults, played)
    other = Reader(faults, played, block_s=block_s, speed=speed, patience_s=1.0)
    assert first.fates().tolist() == other.fates().tolist()
    assert first.source.accounts["acc"].changes == other.source.accounts["acc"].changes
    np.testing.assert_allclose(first.t_s(), other.t_s(), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(first.numbers(), other.numbers())


def test_another_seed_gives_other_faults() -> None:
    first, other = (Reader(of(seed=seed, dropped=0.5), recording(segment(200))) for seed in (1, 2))
    assert first.fates().tolist() != other.fates().tolist()


def test_one_fault_does_not_change_what_another_does() -> None:
    played = recording(segment(1000))
    alone, both = (Reader(of(seed=3, dropped=0.3, jitter_s=jitter_s), played) for jitter_s in (0, 0.01))
    assert alone.fates().tolist() == both.fates().tolist()


def test_a_clock_that_drifts_gains_time_from_the_first_sample_on() -> None:
    seen = Reader(of(drift_ppm=500), recording(segment(5000, start_s=1e5)))
    true_s = 1e5 + np.arange(5000) / 50
    np.testing.assert_allclose(seen.t_s() - true_s, (true_s - 1e5) * 500e-6, atol=1e-9)


def test_jitter_is_within_its_bounds_and_fills_them() -> None:
    seen = Reader(of(jitter_s=0.003), recording(segment(2000)))
    off_s = seen.t_s() - np.arange(2000) / 50
    assert -0.003 <= off_s.min() < -0.0028 and 0.0028 < off_s.max() <= 0.003
    assert abs(off_s.mean()) < 0.0002


def test_stamps_repeat_and_go_back_as_often_as_is_told() -> None:
    seen = Reader(of(duplicate=0.1, backward=0.1, backward_s=0.5), recording(segment(2000)))
    changes = seen.source.accounts["acc"].changes
    t_s = seen.t_s()
    assert int((np.diff(t_s) == 0).sum()) == changes["duplicate"]
    # What repeats a stamp that went back is behind as well.
    behind = t_s < np.arange(2000) / 50 - 0.4
    repeats = np.concatenate([[False], np.diff(t_s) == 0])
    assert int((behind & ~repeats).sum()) <= changes["backward"] <= int(behind.sum()) + changes["duplicate"]
    assert 140 < changes["duplicate"] < 260 and 140 < changes["backward"] < 260


def test_only_stamps_that_go_back_are_behind() -> None:
    seen = Reader(of(backward=0.1, backward_s=0.5), recording(segment(2000)))
    behind = seen.t_s() < np.arange(2000) / 50 - 0.4
    assert int(behind.sum()) == seen.source.accounts["acc"].changes["backward"] > 100


def test_the_first_stamp_repeats_nothing() -> None:
    seen = Reader(of(duplicate=1), recording(segment(100)))
    assert seen.t_s().tolist() == [0.0] * 100
    assert seen.source.accounts["acc"].changes["duplicate"] == 99


def test_values_beyond_the_range_are_cut_and_counted() -> None:
    seen = Reader(of(saturates_at=99.5), recording(segment(200)))
    assert seen.numbers().tolist() == [*range(100), *[99.5] * 100]
    assert seen.source.accounts["acc"].changes["saturated"] == 100


@pytest.mark.parametrize(("rate", "expected"), [(0.5, 500), (0.1, 100), (0.98, 980), (1, 1000), (1.5, 1500), (4, 4000)])
def test_a_wrong_rate_gives_so_many_samples_evenly(rate: float, expected: int) -> None:
    seen = Reader(of(rate=rate), recording(segment(1000)))
    t_s, account = seen.t_s(), seen.source.accounts["acc"]
    assert len(t_s) == expected == account.counts["given"] + account.changes["repeated"]
    assert account.counts["scarce"] == max(0, 1000 - expected)
    distances_s = np.diff(t_s)
    assert distances_s.min() > 0 and distances_s.max() <= math.ceil(1 / rate) * 0.02 + 1e-9


def test_the_share_that_is_dropped_is_lost() -> None:
    seen = Reader(of(dropped=0.25), recording(segment(4000)))
    assert 900 < seen.source.accounts["acc"].counts["dropped"] < 1100
    assert int((seen.fates() == DROPPED).sum()) == 4000 - len(seen.t_s())


def test_in_a_gap_nothing_comes_and_the_stream_starts_anew() -> None:
    seen = Reader(of(seed=2, gap_every_s=5, gap_s=1), recording(segment(5000)))
    lost = np.flatnonzero(seen.fates() == IN_GAP)
    runs = np.split(lost, np.flatnonzero(np.diff(lost) > 1) + 1)
    assert len(runs) > 8
    # A second of 50 samples, however it lies between them; the last one may be cut off by the end.
    assert {len(run) for run in runs[:-1]} <= {50, 51}
    assert sum(isinstance(item, Gap) for item in seen.items) == 1 + len(runs)
    # The mark stands where the gap is.
    after = [seen.items[at + 1] for at, item in enumerate(seen.items[:-1]) if isinstance(item, Gap)]
    assert [each.values[0, 0] for each in after[1:] if isinstance(each, Block)][:3] == [run[-1] + 1 for run in runs[:3]]


def test_unplugged_it_fails_for_as_long_as_is_told_and_what_came_meanwhile_is_lost() -> None:
    seen = Reader(of(seed=2, unplug_every_s=10, unplugged_s=2), recording(segment(5000)))
    lost = np.flatnonzero(seen.fates() == UNPLUGGED)
    runs = np.split(lost, np.flatnonzero(np.diff(lost) > 1) + 1)
    assert len(seen.faults) == len(runs) > 4
    for (at_s, duration_s), run in zip(seen.faults, runs, strict=True):
        # It is noticed with the block that holds the moment, half a second at most, or a read later.
        assert run[0] / 50 <= at_s + 0.02 and at_s <= run[0] / 50 + 0.7
        assert 2 <= duration_s < 2.05
    assert {len(run) for run in runs[:-1]} <= {100, 101}
    # Back again, the stream starts anew.
    assert sum(isinstance(item, Gap) for item in seen.items) == 1 + len(runs)


def test_while_it_is_unplugged_neither_reading_nor_opening_works() -> None:
    clock = Clock()
    replay = ReplaySource(recording(segment(500)), ["acc"], speed=math.inf)
    source = FaultySource(replay, of(unplug_every_s=0.1, unplugged_s=3), clock=clock)
    source.open()
    with pytest.raises(SensorError, match=r"^unplugged, as the faults in the settings ask for; it returns by itself$"):
        while True:
            source.read(1)
    for _ in range(2):
        with pytest.raises(SensorError, match=r"^unplugged"):
            source.read(1)
        source.close()
        with pytest.raises(SensorError, match=r"^unplugged"):
            source.open()
        clock.now_s += 2.9 / 2
    with pytest.raises(SensorError, match=r"^unplugged"):
        source.open()
    clock.now_s += 0.2
    source.open()
    assert source.read(1) is not None


def test_a_source_that_fails_by_itself_is_opened_and_closed_as_without_faults() -> None:
    class Broken:
        modalities: tuple[Modality, ...] = (ACC,)
        calls: tuple[str, ...] = ()

        def open(self) -> None:
            self.calls += ("open",)

        def read(self, timeout_s: float) -> Sequence[Item] | None:
            raise SensorError("loose cable")

        def close(self) -> None:
            self.calls += ("close",)

    broken = Broken()
    source = FaultySource(broken, ALL)
    for _ in range(2):
        source.open()
        with pytest.raises(SensorError, match=r"^loose cable$"):
            source.read(1)
        source.close()
    assert broken.calls == ("open", "close") * 2


def test_accounts_remember_single_samples_only_when_asked() -> None:
    source = FaultySource(ReplaySource(recording(segment(50)), ["acc"], speed=math.inf), of(dropped=0.5))
    source.open()
    while source.read(1) is not None:
        pass
    assert source.accounts["acc"].fates is None
    assert source.accounts["acc"].counts.total() == 50


def test_the_simulator_has_faults_on_demand() -> None:
    table = SimulatorSettings(
        modalities=("acc", "depth"), subject=1, duration_s=20, speed=1e6, faults=of(seed=5, dropped=0.2)
    )
    source = table.source(Path())
    assert isinstance(source, FaultySource)
    source.open()
    counts = dict.fromkeys(("acc", "depth"), 0)
    while (items := source.read(1)) is not None:
        for item in items:
            if isinstance(item, Block):
                counts[item.modality] += len(item.t_s)
    assert counts == {name: source.accounts[name].counts["given"] for name in counts}
    whole = simulate(1, duration_s=20, modalities=["acc", "depth"]).segments[0].streams
    assert {name: each.counts.total() for name, each in source.accounts.items()} == {
        name: len(stream.t_s) for name, stream in whole.items()
    }
