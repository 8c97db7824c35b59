"""Foreign clocks: within the bound that the module states, never backwards, and found again whenever they are set."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sensors.clock import BACK_S, BOUND_S, BUCKETS, DRIFT, LATE_S, SPAN_S, STEP_S, ForeignClock, spread, unwrapped
from sensors.source import Seconds

PPM = 1e-6
seeds = st.integers(0, 2**32)
drifts = st.floats(-DRIFT, DRIFT)


def arrivals(rng: np.random.Generator, true_s: Seconds, fast_s: float, slow_s: float, rate_hz: int) -> Seconds:
    """When samples taken at `true_s` (n,) arrive: up to `slow_s` late, one in each second up to `fast_s`, in order."""
    late_s = rng.uniform(0, slow_s, len(true_s))
    for first in range(0, len(true_s), rate_hz):
        late_s[rng.integers(first, min(first + rate_hz, len(true_s)))] = rng.uniform(0, fast_s)
    # Nothing overtakes: what is behind a fast one came before it.
    arrival_s: Seconds = np.minimum.accumulate((true_s + late_s)[::-1])[::-1]
    return arrival_s


def placed_one_by_one(clock: ForeignClock, foreign_s: Seconds, arrival_s: Seconds) -> tuple[Seconds, list[int]]:
    """Our times (n,) of samples that came one by one, and the numbers of those before which the clock was set."""
    times, anew = [], []
    for number, (foreign, arrival) in enumerate(zip(foreign_s, arrival_s, strict=True)):
        [piece] = clock.placed(np.array([foreign]), float(arrival))
        times.append(float(piece.t_s[0]))
        if piece.anew:
            anew.append(number)
    return np.array(times), anew


@given(
    seed=seeds,
    drift=drifts,
    rate_hz=st.sampled_from([1, 2, 10, 25]),
    fast_s=st.sampled_from([0.0, 0.002, 0.02, 0.1]),
    slow_s=st.sampled_from([0.0, 0.05, 0.4, 0.9]),
    origin_s=st.sampled_from([0.0, 12.5, 1.7e9]),
)
@example(seed=1, drift=DRIFT, rate_hz=10, fast_s=0.002, slow_s=0.9, origin_s=1.7e9)
@example(seed=1, drift=-DRIFT, rate_hz=10, fast_s=0.002, slow_s=0.9, origin_s=0.0)
def test_the_error_stays_within_the_bound_whatever_the_drift_and_the_jitter(
    seed: int, drift: float, rate_hz: int, fast_s: float, slow_s: float, origin_s: float
) -> None:
    rng = np.random.default_rng(seed)
    foreign_s = origin_s + np.arange(40 * rate_hz) / rate_hz
    true_s = 5e5 + (foreign_s - origin_s) * (1 + drift)
    slow_s = max(slow_s, fast_s)
    times_s, anew = placed_one_by_one(ForeignClock(), foreign_s, arrivals(rng, true_s, fast_s, slow_s, rate_hz))
    assert anew == []
    assert (np.diff(times_s) > 0).all()
    # From the third second on; until then it may have been late by `slow_s`, which takes twice as long to make good.
    settled = math.ceil((3 + 2 * slow_s) * rate_hz)
    # A float64 of seconds since 1970 is a quarter of a microsecond.
    assert np.abs(times_s - true_s)[settled:].max() <= fast_s + BOUND_S + 1e-6


@given(seed=seeds, drift=drifts)
def test_the_drift_is_found_in_minutes(seed: int, drift: float) -> None:
    rng = np.random.default_rng(seed)
    foreign_s = np.arange(300.0)
    clock = ForeignClock()
    placed_one_by_one(clock, foreign_s, arrivals(rng, foreign_s * (1 + drift), 0.001, 0.3, 4))
    # Two points a span apart, each up to a millisecond late, and as much again for what one bucket leaves open.
    assert clock.drift == pytest.approx(drift, abs=4 * 0.002 / SPAN_S)


@given(seed=seeds, sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_samples_that_come_in_batches_keep_their_distances(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    clock, rate_hz, at = ForeignClock(), 50, 0
    for size in sizes:
        foreign_s = np.arange(at, at + size) / rate_hz
        [piece] = clock.placed(foreign_s, float(foreign_s[-1] + rng.uniform(0, 0.2)))
        assert len(piece.t_s) == size and not piece.anew
        # At half speed while the line is caught up with, at the foreign clock's otherwise.
        assert (np.diff(piece.t_s) > 0.49 / rate_hz).all() and (np.diff(piece.t_s) < 1.01 / rate_hz).all()
        at += size


def test_a_clock_that_is_set_back_or_begins_anew_is_found_again_at_once() -> None:
    clock = ForeignClock()
    foreign_s = np.concatenate([np.arange(1000, 1010, 0.1), np.arange(0, 10, 0.1)])
    true_s = np.linspace(77, 96.9, 200)
    times_s, anew = placed_one_by_one(clock, foreign_s, true_s)
    assert anew == [100]
    np.testing.assert_allclose(times_s, true_s, atol=1e-6)


def test_a_clock_that_is_set_forward_is_found_again_at_once() -> None:
    foreign_s = np.concatenate([np.arange(0, 10, 0.1), np.arange(5000, 5010, 0.1)])
    true_s = np.linspace(77, 96.9, 200)
    times_s, anew = placed_one_by_one(ForeignClock(), foreign_s, true_s)
    assert anew == [100]
    np.testing.assert_allclose(times_s, true_s, atol=1e-6)


def test_a_clock_that_was_set_back_while_nothing_came_is_found_again_when_all_is_late() -> None:
    # Twenty seconds of silence, of which the foreign clock counts ten: as if all came ten seconds late from then on.
    foreign_s = np.concatenate([np.arange(0, 10, 0.1), np.arange(20, 50, 0.1)])
    true_s = np.concatenate([np.arange(0, 10, 0.1), np.arange(30, 60, 0.1)])
    times_s, anew = placed_one_by_one(ForeignClock(), foreign_s, true_s)
    [number] = anew
    assert true_s[number] == pytest.approx(30 + LATE_S, abs=0.11)
    np.testing.assert_allclose(times_s[number:], true_s[number:], atol=1e-6)


def test_a_link_that_is_slow_for_a_while_does_not_set_the_clock() -> None:
    foreign_s = np.arange(0, 60, 0.1)
    late_s = np.where((foreign_s > 20) & (foreign_s < 28), 28 - foreign_s, 0.0)
    times_s, anew = placed_one_by_one(ForeignClock(), foreign_s, foreign_s + late_s)
    assert anew == []
    np.testing.assert_allclose(times_s, foreign_s, atol=0.005)


def test_a_batch_in_which_the_clock_was_set_comes_in_two_pieces() -> None:
    clock = ForeignClock()
    clock.placed(np.array([99.8, 99.9]), 10.0)
    before, after = clock.placed(np.array([100.0, 100.1, 0.0, 0.1]), 10.2)
    assert (before.anew, after.anew) == (False, True)
    np.testing.assert_allclose(before.t_s, [10.1, 10.2], atol=1e-4)
    np.testing.assert_allclose(after.t_s, [10.1, 10.2], atol=1e-6)


def test_samples_that_were_swapped_do_not_set_the_clock() -> None:
    clock = ForeignClock()
    [piece] = clock.placed(np.array([1.0, 1.04, 1.02, 1.06]), 20.0)
    assert not piece.anew
    np.testing.assert_allclose(piece.t_s, [19.94, 19.98, 19.96, 20.0], atol=1e-9)
    [piece] = clock.placed(np.array([1.06 - 0.9 * BACK_S]), 20.1)
    assert not piece.anew
    [piece] = clock.placed(np.array([1.06 - 1.1 * BACK_S]), 20.1)
    assert piece.anew


def test_a_batch_that_repeats_what_came_before_does_not_set_the_clock() -> None:
    clock = ForeignClock()
    clock.placed(np.array([8.0, 9.0, 10.0]), 50.0)
    [piece] = clock.placed(np.array([9.0, 10.0, 11.0]), 51.0)
    assert not piece.anew
    np.testing.assert_allclose(piece.t_s, [49, 50, 51], atol=1e-9)


def test_after_hours_of_silence_the_drift_has_had_time() -> None:
    clock, drift = ForeignClock(), 400 * PPM
    foreign_s = np.concatenate([[0.0], 7200 + np.arange(0, 3.0, 0.5)])
    true_s = foreign_s * (1 - drift)
    times_s, anew = placed_one_by_one(clock, foreign_s, true_s)
    # Nearly three seconds, more than a clock is off that goes on.
    assert abs(true_s[1] - foreign_s[1]) > STEP_S
    assert anew == []
    assert np.abs(times_s - true_s).max() < BOUND_S


@given(seed=seeds, bits=st.sampled_from([16, 32]), drift=drifts)
def test_a_counter_that_begins_at_0_again_goes_on(seed: int, bits: int, drift: float) -> None:
    rng = np.random.default_rng(seed)
    wraps_s = 2.0**bits * 1e-3
    counted_s = wraps_s - 20 + np.arange(0, 40, 0.5)
    true_s = counted_s * (1 + drift)
    times_s, anew = placed_one_by_one(ForeignClock(wraps_s), counted_s % wraps_s, arrivals(rng, true_s, 0.01, 0.1, 2))
    assert anew == []
    assert np.abs(times_s - true_s)[7:].max() < 0.01 + BOUND_S + 1e-6


def test_without_a_width_a_counter_that_begins_at_0_again_is_a_clock_that_was_set() -> None:
    counted_s = 65.536 - 2 + np.arange(0, 4, 0.5)
    times_s, anew = placed_one_by_one(ForeignClock(), counted_s % 65.536, counted_s)
    assert anew == [4]
    np.testing.assert_allclose(times_s, counted_s, atol=1e-6)


def test_a_counters_steps_are_taken_for_the_smaller_of_what_they_may_be() -> None:
    raw_s = np.array([250.0, 255, 4, 3, 250, 2])
    np.testing.assert_array_equal(unwrapped(raw_s, 256), [250, 255, 260, 259, 250, 258])
    np.testing.assert_array_equal(unwrapped(raw_s[2:], 256, (255.0, 1000.0)), [1005, 1004, 995, 1003])
    assert unwrapped(raw_s, None) is raw_s


@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.floats(-1e12, 1e12), max_size=6),
            st.sampled_from([0.0, 1e-9, 0.1, 1.0, 100.0, 1e6]),
        ),
        max_size=60,
    ),
    wraps_s=st.sampled_from([None, 0.256, 65.536, 4294.967296]),
)
def test_whatever_a_clock_says_every_sample_has_a_time_and_the_memory_is_bounded(
    steps: list[tuple[list[float], float]], wraps_s: float | None
) -> None:
    clock, arrival_s = ForeignClock(wraps_s), 0.0
    for foreign, later_s in steps:
        arrival_s += later_s
        pieces = clock.placed(np.array(foreign, dtype=np.float64), arrival_s)
        assert sum(len(piece.t_s) for piece in pieces) == len(foreign)
        assert all(np.isfinite(piece.t_s).all() for piece in pieces)
    assert len(clock._buckets) <= BUCKETS
    assert abs(clock.drift) <= DRIFT


def test_a_clock_keeps_no_more_than_the_fastest_of_each_second() -> None:
    clock = ForeignClock()
    for number in range(2000):
        clock.placed(np.array([number * 0.5]), number * 0.5)
    assert BUCKETS - 1 <= len(clock._buckets) <= BUCKETS
    assert clock._buckets[0][0] >= clock._newest - SPAN_S


def spread_list(*arguments: Any) -> list[float]:
    told: list[float] = spread(*arguments).round(9).tolist()
    return told


def test_samples_without_times_are_spread_at_the_nominal_rate_back_from_their_arrival() -> None:
    assert spread_list(4, 10, 5.0, -math.inf) == [4.7, 4.8, 4.9, 5.0]
    assert spread_list(4, 10, 5.0, 4.6) == [4.7, 4.8, 4.9, 5.0]
    assert spread_list(1, 10, 5.0, 0.0) == [5.0]
    assert spread_list(0, 10, 5.0, 0.0) == []


def test_samples_that_come_too_soon_lie_between_the_last_one_and_now() -> None:
    assert spread_list(4, 10, 5.0, 4.8) == [4.85, 4.9, 4.95, 5.0]


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(1e-3, 10)), max_size=30), st.floats(0.1, 1000))
def test_spread_times_only_go_forward(batches: list[tuple[int, float]], rate_hz: float) -> None:
    arrival_s = before_s = 100.0
    for count, later_s in batches:
        arrival_s += later_s
        t_s = spread(count, rate_hz, arrival_s, before_s)
        assert len(t_s) == count and t_s[-1] == arrival_s
        assert (np.diff(np.concatenate([[before_s], t_s])) > 0).all()
        before_s = arrival_s
