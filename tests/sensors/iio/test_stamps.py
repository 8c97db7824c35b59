"""Stamps of any clock as monotonic time, and times for samples that have none."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.iio.stamps import CLOCKS, SET_S, Arrivals, Stamps, plausible


class Clocks:
    """Clocks that move when they are told to; reading one takes `takes_s`."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = {CLOCKS[name]: value for name, value in seconds.items()}
        self.takes_s: Iterator[float] = iter(())

    def __call__(self, clock: int) -> float:
        shown = self.seconds[clock]
        spent_s = next(self.takes_s, 0.0)
        for each in self.seconds:
            self.seconds[each] += spent_s
        return shown


def test_monotonic_stamps_stay_as_they_are_and_no_clock_is_read() -> None:
    t_s = Stamps("monotonic", Clocks()).times(np.array([5_000_000_001, 2**62]))
    assert t_s is not None
    assert t_s.tolist() == [5.000000001, 2**62 * 1e-9]


@pytest.mark.parametrize("name", sorted(set(CLOCKS) - {"monotonic", "monotonic_coarse"}))
def test_stamps_of_another_clock_are_moved_by_what_lies_between(name: str) -> None:
    clocks = Clocks(monotonic=100.0, **{name: 1700.0})
    stamps = Stamps(name, clocks)
    # Clocks drift apart; that is measured again, not taken for a jump.
    clocks.seconds[CLOCKS[name]] += 0.004
    t_s = stamps.times(np.array([1_700_004_000_000]))
    assert t_s is not None
    np.testing.assert_allclose(t_s, [100.0], rtol=0, atol=1e-9)


def test_the_try_that_was_interrupted_least_measures_the_distance() -> None:
    clocks = Clocks(monotonic=100.0, realtime=1700.0)
    # First try: a pause between the first and the second clock; third try: another. The second one is right.
    clocks.takes_s = iter([0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0])
    t_s = Stamps("realtime", clocks).times(np.array([1_700_000_000_000]))
    assert t_s is not None
    np.testing.assert_allclose(t_s, [100.0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0, 2 * SET_S])
def test_a_clock_that_was_set_gives_no_times_once(step_s: float) -> None:
    clocks = Clocks(monotonic=100.0, realtime=1700.0)
    stamps = Stamps("realtime", clocks)
    clocks.seconds[time.CLOCK_REALTIME] += step_s
    assert stamps.times(np.array([1_700_000_000_000])) is None
    t_s = stamps.times(np.array([round((1700 + step_s) * 1e9)]))
    assert t_s is not None
    np.testing.assert_allclose(t_s, [100.0], rtol=0, atol=1e-6)


def test_every_clock_of_the_kernels_can_be_read_here() -> None:
    for each in CLOCKS:
        assert Stamps(each).times(np.empty(0, np.int64)) is not None


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 3)), min_size=1, max_size=30), st.floats(0.5, 500))
def test_times_by_arrival_rise_and_end_now(batches: list[tuple[int, float]], rate_hz: float) -> None:
    arrivals, now_s, times = Arrivals(rate_hz), 1000.0, list[float]()
    for count, passed_s in batches:
        # Where no time has passed, nothing can have come: the reader was there just now.
        now_s += max(passed_s, 1e-3)
        given = arrivals.times(count, now_s)
        assert len(given) == count
        assert given[-1] == now_s
        assert (np.diff(given) > 0).all()
        if times and given[0] <= times[-1]:
            # Only after a pause may nominal periods reach back before what was given, and then not far.
            assert passed_s > 2 * count / rate_hz
        times += given.tolist()


def test_steady_batches_that_come_unsteadily_are_spread_without_holes() -> None:
    arrivals = Arrivals(50)
    times = np.concatenate([arrivals.times(10, now_s) for now_s in (0.2, 0.41, 0.59, 0.8)])
    assert np.diff(times).min() > 0.017
    assert np.diff(times).max() < 0.022


def test_what_a_sample_read_now_can_be_stamped_with() -> None:
    assert plausible(np.array([90.9, 91.1, 100, 100.9, 101.1, np.nan, np.inf]), 100.0, 4.0).tolist() == [
        *(False, True, True, True),
        *(False, False, False),
    ]
