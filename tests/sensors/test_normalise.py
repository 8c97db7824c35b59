"""Running statistics and scaling: right by hand, the same in any batches, and never a look into the future."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mekt.modality import Modality, Scaling
from sensors.normalise import SMALLEST_STD, RunningStatistics, normalise, normalise_then_update
from sensors.source import Floats

ACC = Modality(name="acc", shape=(2,), rate_hz=10, unit="g")
DEPTH = Modality(name="depth", shape=(2, 3), rate_hz=5, unit="m")


def noise(seed: int, count: int) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.normal(rng.uniform(-100, 100, 2), rng.uniform(0.1, 50, 2), (count, 2)).astype(np.float32)


def test_mean_and_deviation_are_those_worked_out_by_hand() -> None:
    statistics = RunningStatistics(ACC)
    statistics.update(np.array([[1, 10], [3, 10]], np.float32))
    statistics.update(np.array([[[5, 40], [7, 40]]], np.float32))
    assert statistics.count == 4
    assert statistics.scaling() == Scaling(mean=(4.0, 25.0), std=(5**0.5, 15.0))


def test_before_there_is_a_sample_nothing_is_changed() -> None:
    statistics = RunningStatistics(ACC)
    assert statistics.scaling() == Scaling(mean=(0.0, 0.0), std=(1.0, 1.0))
    statistics.update(np.empty((0, 2), np.float32))
    statistics.update(np.full((3, 2), np.nan, np.float32))
    assert statistics.scaling() == Scaling(mean=(0.0, 0.0), std=(1.0, 1.0))


def test_all_pixels_of_a_frame_are_one_channel() -> None:
    statistics = RunningStatistics(DEPTH)
    frames = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    statistics.update(frames[:1])
    statistics.update(frames[None, 1:])
    assert statistics.count == 24
    np.testing.assert_allclose(statistics.scaling().mean, [frames.mean()])
    np.testing.assert_allclose(statistics.scaling().std, [frames.std()])
    assert normalise(frames[None], statistics.scaling()).shape == (1, 4, 2, 3)


def test_a_channel_that_never_moves_is_not_blown_up() -> None:
    statistics = RunningStatistics(ACC)
    statistics.update(np.full((100, 2), 9.81, np.float32))
    assert statistics.std.tolist() == [SMALLEST_STD, SMALLEST_STD]


def test_samples_that_are_not_finite_do_not_count() -> None:
    statistics = RunningStatistics(ACC)
    statistics.update(np.array([[1, 1], [np.nan, 100], [3, np.inf], [3, 3]], np.float32))
    assert (statistics.count, statistics.mean.tolist()) == (2, [2.0, 2.0])


def test_small_deviations_far_from_zero_are_not_lost() -> None:
    statistics = RunningStatistics(ACC)
    rng = np.random.default_rng(0)
    values = (1000 + rng.normal(0, 0.1, (5000, 2))).astype(np.float32)
    for batch in np.array_split(values, 100):
        statistics.update(batch)
    np.testing.assert_allclose(statistics.std, values.astype(np.float64).std(axis=0), rtol=1e-9)


@given(st.integers(0, 1000), st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_batches_make_no_difference(seed: int, sizes: list[int]) -> None:
    values = noise(seed, sum(sizes))
    whole, batched = RunningStatistics(ACC), RunningStatistics(ACC)
    whole.update(values)
    for batch in np.split(values, np.cumsum(sizes)[:-1]):
        batched.update(batch)
    assert whole.count == batched.count
    np.testing.assert_allclose(whole.mean, batched.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.std, batched.std, rtol=1e-9)


@given(st.integers(0, 1000), st.integers(2, 400))
def test_standardised_by_its_own_statistics_a_stream_has_mean_0_and_deviation_1(seed: int, count: int) -> None:
    values = noise(seed, count)
    statistics = RunningStatistics(ACC)
    statistics.update(values)
    scaled = normalise(values, statistics.scaling())
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=2e-2)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=2e-2)


def scaled_in_blocks(values: Floats, size: int) -> NDArray[np.float32]:
    statistics = RunningStatistics(ACC)
    blocks = [values[first : first + size] for first in range(0, len(values), size)]
    return np.concatenate([normalise_then_update(statistics, each) for each in blocks])


@given(st.integers(0, 1000), st.integers(1, 20), st.integers(0, 99), st.floats(-1e6, 1e6, width=32))
def test_what_comes_later_changes_nothing_that_came_before(seed: int, size: int, changed: int, value: float) -> None:
    values = noise(seed, 100)
    other = values.copy()
    other[changed:] = value
    np.testing.assert_array_equal(scaled_in_blocks(values, size)[:changed], scaled_in_blocks(other, size)[:changed])


def test_a_sample_is_scaled_by_what_came_before_it_alone() -> None:
    statistics = RunningStatistics(ACC)
    first = normalise_then_update(statistics, np.array([[1, 2], [3, 6]], np.float32))
    assert first.tolist() == [[1, 2], [3, 6]]
    assert normalise_then_update(statistics, np.array([[3, 4]], np.float32)).tolist() == [[1, 0]]
    assert statistics.count == 3


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 5, 2), (0, 5, 2)])
def test_signals_of_any_leading_shape_are_scaled_per_channel(shape: tuple[int, ...]) -> None:
    scaled = normalise(np.full(shape, 3, np.float32), Scaling(mean=(1.0, 3.0), std=(2.0, 5.0)))
    np.testing.assert_array_equal(scaled, np.broadcast_to(np.array([1, 0], np.float32), shape))
