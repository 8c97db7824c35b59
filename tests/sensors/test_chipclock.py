"""When a chip took its samples: simulated chips whose clocks drift, read at all sorts of instants."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sensors.chipclock import LARGEST_ERROR, ChipClock
from sensors.source import Seconds

Doubles = NDArray[np.float64]


@dataclass
class Played:
    """What a clock told, and what was so; periods after each reading."""

    told_s: Seconds
    true_s: Seconds
    periods_s: Doubles

    def late_s(self, skip_s: float) -> Doubles:
        """How much later than it was taken each sample is told to have been, after the first seconds."""
        kept = self.true_s > self.true_s[0] + skip_s
        late_s: Doubles = self.told_s[kept] - self.true_s[kept]
        return late_s


def play(taken_s: Seconds, reads_s: Seconds, rate_hz: float, *, answer_s: Doubles | float = 0.0005) -> Played:
    """Samples taken at `taken_s`, counted at `reads_s`, with answers that come so much later."""
    clock = ChipClock(rate_hz)
    done, told, periods = 0, [np.empty(0)], []
    for asked_s, took_s in zip(reads_s, np.broadcast_to(answer_s, reads_s.shape), strict=True):
        if asked_s + 0.1 > taken_s[-1]:
            break
        # The count is taken somewhere on the way.
        there = int(np.searchsorted(taken_s, asked_s + took_s / 2, side="right"))
        if there == done:
            continue
        after_s, until_s = asked_s - clock.period_s, asked_s + took_s
        assert clock.fits(there - done, after_s, until_s)
        told.append(clock.times(there - done, after_s, until_s))
        done = there
        periods.append(clock.period_s)
    return Played(np.concatenate(told), taken_s[:done], np.array(periods))


def taken(rate_hz: float, off: Doubles | float, duration_s: float, start_s: float = 1000.0) -> Seconds:
    """Instants of a chip that runs faster than nominal by a share which may differ from sample to sample."""
    count = int(duration_s * rate_hz)
    steps = 1 / (rate_hz * (1 + np.broadcast_to(off, count)))
    times_s: Seconds = start_s + np.cumsum(steps)
    return times_s


def reads(rng: np.random.Generator, least_s: float, most_s: float, duration_s: float) -> Seconds:
    steps = rng.uniform(least_s, most_s, int(2 * duration_s / (least_s + most_s)) + 1)
    times_s: Seconds = 1000.0 + np.cumsum(steps)
    return times_s


@pytest.mark.parametrize("rate_hz", [12.5, 50.0, 104.0, 833.0])
@pytest.mark.parametrize("off", [-0.08, -0.01, 0.0, 0.02, 0.08])
def test_a_clock_that_is_off_by_a_constant_share_is_learned(rate_hz: float, off: float) -> None:
    rng = np.random.default_rng(3)
    played = play(taken(rate_hz, off, 120), reads(rng, 0.15, 0.35, 130), rate_hz)
    late_s = played.late_s(20)
    # By far less than a period, and than the 2.5 that a hole needs.
    assert np.abs(late_s).max() < 0.35 / rate_hz + 0.0005
    assert late_s.std() < 0.15 / rate_hz + 0.0005
    assert abs(played.periods_s[-1] * rate_hz * (1 + off) - 1) < 5e-4
    assert (np.diff(played.told_s) > 0).all()


def test_without_tracking_the_same_clock_would_be_seconds_off() -> None:
    true_s = taken(50, 0.02, 120)
    nominal_s = true_s[0] + np.arange(len(true_s)) / 50
    assert np.abs(nominal_s - true_s).max() > 2
    played = play(true_s, reads(np.random.default_rng(4), 0.15, 0.35, 130), 50)
    assert np.abs(played.late_s(20)).max() < 0.007


def test_a_clock_that_wanders_as_the_chip_warms_up_is_followed() -> None:
    warming = 0.01 + 0.004 * (1 - np.exp(-np.arange(600 * 50) / (120 * 50)))
    played = play(taken(50, warming, 600), reads(np.random.default_rng(5), 0.15, 0.35, 650), 50)
    assert np.abs(played.late_s(20)).max() < 0.009
    assert abs(played.periods_s[-1] * 50 * (1 + warming[-1]) - 1) < 3e-4


def test_a_reader_that_is_held_up_now_and_then_does_not_shift_times() -> None:
    rng = np.random.default_rng(6)
    instants_s = reads(rng, 0.15, 0.35, 130)
    answer_s = np.where(rng.random(len(instants_s)) < 0.1, rng.uniform(0.02, 0.08, len(instants_s)), 0.0005)
    played = play(taken(50, 0.015, 120), instants_s, 50, answer_s=answer_s)
    assert np.abs(played.late_s(20)).max() < 0.011
    assert (np.diff(played.told_s) > 0).all()


def test_the_first_block_is_within_a_period_of_the_truth() -> None:
    true_s = taken(50, 0.0, 1)
    played = play(true_s, np.array([1000.213]), 50)
    assert len(played.told_s) == 10
    assert np.abs(played.told_s - played.true_s).max() <= 0.02
    np.testing.assert_allclose(np.diff(played.told_s), 0.02, rtol=1e-6)


def test_after_a_loss_times_begin_anew_and_the_period_is_kept() -> None:
    true_s = taken(50, 0.04, 200)
    clock, newest_s = ChipClock(50), 0.0
    for asked_s in np.arange(1000.2, 1060, 0.2137):
        first, last = np.searchsorted(true_s, [asked_s - 0.2137, asked_s], side="right")
        if last > first:
            newest_s = clock.times(int(last - first), asked_s - clock.period_s, asked_s)[-1]
    period_s = clock.period_s
    assert abs(period_s * 52 - 1) < 1e-3
    assert not clock.fits(10, 1070.0 - period_s, 1070.0)
    clock.restart()
    assert clock.fits(10, 1070.0 - period_s, 1070.0) and clock.due_s(10) is None
    times_s = clock.times(10, 1070.0 - period_s, 1070.0)
    assert clock.period_s == period_s and times_s[0] > newest_s
    np.testing.assert_allclose(np.diff(times_s), period_s)
    assert 1070.0 - period_s <= times_s[-1] <= 1070.0


def test_counts_that_cannot_be_all_samples_do_not_fit() -> None:
    clock = ChipClock(50)
    clock.times(10, 99.98, 100.0)
    assert clock.fits(10, 100.18, 100.2)
    assert clock.fits(12, 100.18, 100.2)
    assert not clock.fits(10, 101.18, 101.2)
    assert not clock.fits(60, 100.18, 100.2)


def test_what_has_passed_is_counted_from_the_newest_sample() -> None:
    clock = ChipClock(50)
    assert clock.passed(0.0, 1.0) == 1
    for k in range(200):
        clock.times(1, 9.999 + k / 50, 10.001 + k / 50)
    at_s = 10 + 199 / 50
    assert clock.due_s(3) == pytest.approx(at_s + 0.06, abs=1e-4)
    shifts_s = (0.0, 0.02, 0.036, 0.042, 0.1)
    assert [clock.passed(at_s + each - 0.005, at_s + each + 0.005) for each in shifts_s] == [1, 1, 2, 2, 5]


def test_a_clock_that_knows_little_yet_takes_a_sample_for_the_next_one() -> None:
    clock = ChipClock(50)
    clock.times(1, 9.98, 10.0)
    assert clock.passed(10.012, 10.025) == 1
    assert clock.passed(10.5, 10.52) == 26


@given(
    rate_hz=st.sampled_from([4.0, 50.0, 1666.0]),
    readings=st.lists(
        st.tuples(st.integers(1, 600), st.floats(-5, 5), st.floats(0, 3), st.booleans()), min_size=1, max_size=60
    ),
)
def test_whatever_is_counted_times_rise_and_the_period_stays_near_the_nominal_one(
    rate_hz: float, readings: list[tuple[int, float, float, bool]]
) -> None:
    clock, before_s, until_s = ChipClock(rate_hz), -np.inf, 0.0
    for count, step_s, width_s, lost in readings:
        until_s = max(until_s + step_s, until_s)
        if lost:
            clock.restart()
        clock.fits(count, until_s - width_s, until_s)
        times_s = clock.times(count, until_s - width_s, until_s)
        assert times_s.shape == (count,) and np.isfinite(times_s).all()
        newest_s = clock.due_s(0)
        assert newest_s is not None and until_s - width_s <= newest_s <= until_s
        assert times_s[0] > before_s and (np.diff(times_s) > 0).all()
        assert abs(clock.period_s * rate_hz - 1) <= LARGEST_ERROR + 1e-9
        before_s = times_s[-1]
