"""One modality's way into windows: what is kept, where holes are, what lies between samples."""

import numpy as np
import pytest

from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.source import Block, Floats, Seconds
from sensors.track import CLOCK_SET_BACK_S, HOLE_S, Track

ACC = Modality(name="acc", shape=(1,), rate_hz=10, unit="g")
DEPTH = Modality(name="depth", shape=(2, 2), rate_hz=10, unit="m")


def track(*times: float, modality: Modality = ACC, samples: int = 5) -> Track:
    made = Track(modality, samples, lag_s=30)
    made.append(np.array(times), ramp(np.array(times), modality))
    return made


def ramp(t_s: Seconds, modality: Modality = ACC) -> Floats:
    """Values that are ten times the time."""
    return (10 * t_s.reshape(-1, *[1] * len(modality.shape)) * np.ones(modality.shape)).astype(np.float32)


def block(times: list[float], values: list[float]) -> Block:
    return Block(modality="acc", t_s=np.array(times), values=np.array(values, np.float32)[:, None])


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(SensorError, match=r"^acc: samples have shape \(3,\), expected \(1,\); give the sensor and"):
        track().checked(Block(modality="acc", t_s=np.zeros(2), values=np.zeros((2, 3), np.float32)))


def test_samples_whose_time_or_value_is_no_number_are_passed_over() -> None:
    times = [0.0, np.nan, 0.2, np.inf, 0.4, -np.inf, 1e15, 0.7]
    t_s, values = track().checked(block(times, [0, 1, np.nan, 3, 4, 5, 6, np.inf]))
    assert (t_s.tolist(), values.ravel().tolist()) == ([0.0, 0.4], [0.0, 4.0])


def test_only_samples_later_than_all_before_them_are_kept() -> None:
    made = track(0, 0.1, 0.1, 0.3, 0.2, 0.3, 0.4)
    assert made.buffer.t_s.tolist() == [0, 0.1, 0.3, 0.4]
    assert made.append(np.array([0.4, 0.35, 0.5]), ramp(np.array([0.4, 0.35, 0.5]))) == 3
    assert made.buffer.t_s.tolist() == [0, 0.1, 0.3, 0.4, 0.5]


def test_of_equal_times_the_first_sample_counts() -> None:
    made = track()
    made.append(np.array([1.0, 1.0]), np.array([[1], [2]], np.float32))
    made.append(np.array([1.0]), np.array([[3]], np.float32))
    assert made.buffer.values.tolist() == [[1]]


def test_a_clock_that_is_set_back_ends_the_samples_that_are_used() -> None:
    made = track(100)
    t_s = np.array([101, 101 - CLOCK_SET_BACK_S, 102, 101.9 - CLOCK_SET_BACK_S, 103])
    assert made.append(t_s, ramp(t_s)) == 3
    assert made.buffer.t_s.tolist() == [100, 101, 102]
    made.clear()
    assert made.append(t_s[3:4], ramp(t_s[3:4])) == 1


def test_between_samples_signals_are_mixed_by_their_distance() -> None:
    made = track(0, 0.08, 0.2, 0.35, 0.4)
    np.testing.assert_allclose(made.resample(np.array([0.0]))[0], [[[0], [1], [2], [3], [4]]], atol=1e-6)
    made = Track(ACC, 2, lag_s=30)
    made.append(np.array([0, 0.25]), np.array([[1], [2]], np.float32))
    np.testing.assert_allclose(made.resample(np.array([0.05, 0.15]))[0], [[[1.2], [1.6]], [[1.6], [2.0]]], atol=1e-6)


def test_of_frames_the_nearest_is_taken() -> None:
    made = track(0, 0.08, 0.14, 0.34, 0.42, modality=DEPTH)
    [window] = made.resample(np.array([0.0]))[0]
    frames = np.array(window)
    assert frames.shape == (5, 2, 2)
    np.testing.assert_allclose(frames[:, 0, 0], [0, 0.8, 1.4, 3.4, 4.2], atol=1e-6)


def test_windows_share_their_frames_and_what_a_source_does_with_its_own_changes_none() -> None:
    made = track(*np.arange(10) / 10, modality=DEPTH)
    given = ramp(np.array([1.0]), DEPTH)
    made.append(np.array([1.0]), given)
    given[:] = -1
    first, second = made.resample(np.array([0.5, 0.6]))[0]
    assert all(frame is again for frame, again in zip(first[1:], second[:-1], strict=True))
    assert second[-1].tolist() == [[10, 10], [10, 10]]


def test_rounded_time_stamps_are_the_grid_points_that_they_mean() -> None:
    made = track(0, 0.100001, 0.199999, 0.300001, 0.399999)
    assert made.covers(np.array([0.0])).tolist() == [True]
    np.testing.assert_array_equal(made.resample(np.array([0.0]))[0], made.buffer.values[None])
    assert track(0.000001, 0.1, 0.2, 0.3, 0.399999).covers(np.array([0.0])).tolist() == [True]


def test_no_window_reaches_over_a_hole() -> None:
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    after = [each + 0.5 + HOLE_S + 0.01 for each in times]
    made = track(*times, *after)
    first_s, last_s = made.runs()
    assert (first_s.tolist(), last_s.tolist()) == ([0, after[0]], [0.5, after[-1]])
    starts_s = np.array([-0.1, 0, 0.1, 0.11, 0.5, after[0] - 0.01, after[0], after[1], after[2]])
    assert made.covers(starts_s).tolist() == [False, True, True, False, False, False, True, True, False]


def test_samples_a_little_apart_are_no_hole() -> None:
    assert track(0, HOLE_S, 2 * HOLE_S).covers(np.array([0.0, 0.1])).tolist() == [True, True]


def test_stretches_shorter_than_a_window_are_not_listed() -> None:
    assert track(0, 0.1, 0.2, 5, 5.1).runs()[0].tolist() == []
    assert track(0, 0.1, 0.2, 5, 5.1).covers(np.array([0.0, 5.0])).tolist() == [False, False]


def test_windows_of_one_sample_need_one_sample() -> None:
    made = track(0, 5, samples=1)
    assert made.covers(np.array([0.0, 2.0, 5.0])).tolist() == [True, False, True]
    assert np.array(made.resample(np.array([0.0, 5.0]))[0]).tolist() == [[[0]], [[50]]]


def test_what_lags_far_behind_is_forgotten_by_itself() -> None:
    made, longest = Track(ACC, 5, lag_s=30), 0
    for first in range(0, 10_000, 10):
        t_s = first + np.arange(100) / 10
        made.append(t_s, ramp(t_s))
        longest = max(longest, len(made.buffer))
    assert longest <= 10 * (30 + 10 + 10) + 1


def test_a_sensor_that_runs_wild_does_not_fill_the_memory() -> None:
    made, longest = Track(ACC, 5, lag_s=30), 0
    for first in range(0, 100_000, 1000):
        t_s = np.arange(first, first + 1000) / 1e6
        made.append(t_s, ramp(t_s))
        longest = max(longest, len(made.buffer))
    assert longest <= made.most_samples + 1000
