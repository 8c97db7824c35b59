"""Time stamps of any clock on the monotonic one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.stamps import LEAP_S, Stamps

PERIOD_S = 1 / 30


@pytest.mark.parametrize("stamp_s", [99.5, 100.0, 104.98, 105.05])
def test_a_stamp_of_the_monotonic_clock_is_taken_as_it_is(stamp_s: float) -> None:
    assert Stamps(100.0).monotonic(stamp_s, 105.0) == stamp_s


@pytest.mark.parametrize("stamp_s", [0.0, -1.0, 98.9, 105.2, 1.7e9, 9.2e18, -9.2e18])
def test_a_stamp_that_cannot_be_becomes_the_moment_of_arrival(stamp_s: float) -> None:
    assert Stamps(100.0).monotonic(stamp_s, 105.0) == 105.0


def test_a_clock_that_stands_still_gives_way_to_the_moments_of_arrival() -> None:
    stamps = Stamps(100.0)
    assert [stamps.monotonic(101.0, 101.0 + number) for number in range(4)] == [101.0, 102.0, 103.0, 104.0]


def test_a_stamp_of_boottime_loses_the_time_that_the_machine_slept() -> None:
    stamps = Stamps(100.0)
    assert stamps.boottime(3704.98, 105.0, 3600.0) == pytest.approx(104.98)
    # Drivers that give the monotonic clock instead.
    assert stamps.boottime(105.02, 105.04, 3600.0) == 105.02
    # A machine that never slept has one clock.
    assert stamps.boottime(105.06, 105.08, 0.0) == 105.06


@given(
    st.floats(-1e9, 2e9),
    st.lists(st.floats(0, 0.3), min_size=20, max_size=60),
    st.floats(-2e-4, 2e-4),
)
def test_a_foreign_clock_is_followed_within_the_least_delay_whatever_its_zero_and_drift(
    zero_s: float, delays_s: list[float], drift: float
) -> None:
    stamps, newest_s = Stamps(100.0), 0.0
    least_s = float("inf")
    for number, delay_s in enumerate(delays_s):
        taken_s = 100.0 + number * PERIOD_S
        # A driver hands frames over in their order.
        arrived_s = newest_s = max(newest_s, taken_s + delay_s)
        least_s = min(least_s, arrived_s - taken_s)
        at_s = stamps.foreign(zero_s + taken_s * (1 + drift), arrived_s)
        assert at_s <= arrived_s + 1e-6
        # The drift that is allowed for adds up over the frames so far.
        allowed_s = 2e-3 * (number + 1) * PERIOD_S + 2e-3 * (arrived_s - 100.0) + 1e-5
        assert -allowed_s <= at_s - taken_s <= least_s + allowed_s


def test_a_foreign_clock_that_is_set_is_followed_at_once() -> None:
    stamps = Stamps(100.0)
    times = [(5000.0, 100.02), (5000.1, 100.15), (8600.2, 100.22), (8600.3, 100.32), (7.0, 100.42), (7.1, 100.52)]
    expected = [100.02, 100.12, 100.22, 100.32, 100.42, 100.52]
    assert [stamps.foreign(*each) for each in times] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("stamp_s", [0.0, 12.5])
def test_a_foreign_clock_that_stands_still_gives_way_to_the_moments_of_arrival(stamp_s: float) -> None:
    stamps = Stamps(100.0)
    arrivals = [100.0 + number * PERIOD_S for number in range(90)]
    assert [stamps.foreign(stamp_s, each) for each in arrivals] == pytest.approx(arrivals)


@pytest.mark.parametrize("speed", [0.1, 0.9, 1.1, 10.0])
def test_a_foreign_clock_that_runs_wrong_never_leads_far_away(speed: float) -> None:
    stamps = Stamps(100.0)
    for number in range(3000):
        arrived_s = 100.0 + number * PERIOD_S
        assert arrived_s - LEAP_S - 1e-6 <= stamps.foreign(number * PERIOD_S * speed, arrived_s) <= arrived_s + 1e-6


@given(st.lists(st.tuples(st.floats(-9.3e18, 9.3e18), st.floats(0, 10)), max_size=40))
def test_no_stamp_leads_into_the_future_or_before_the_stream(told: list[tuple[float, float]]) -> None:
    stamps, arrived_s = Stamps(100.0), 100.0
    for stamp_s, later_s in told:
        arrived_s += later_s
        for at_s in (
            stamps.monotonic(stamp_s, arrived_s),
            stamps.foreign(stamp_s, arrived_s),
            stamps.boottime(stamp_s, arrived_s, 3600.0),
        ):
            assert 99.0 <= at_s <= arrived_s + 0.1
