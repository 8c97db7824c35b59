"""How well windows were sensed: gaps, ends of a range and errors of resampling, by hand and against the truth."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mekt.modality import Modality, WindowSpec
from sensors.layouts import URFALL_CAMERA, UTD_DEPTH
from sensors.quality import Limits, Quality
from sensors.recording import read_recording
from sensors.source import Block, Seconds
from sensors.windows import Window, Windower

Doubles = NDArray[np.float64]
ACC = Modality(name="acc", shape=(2,), rate_hz=10, unit="g")
DEPTH = Modality(name="depth", shape=(2, 3), rate_hz=10, unit="m")
SPEC = WindowSpec(window_s=2, stride_s=2)
PERFECT = Quality(gap_share=0, saturated_share=0, resampling_error=0)


def windows(
    modality: Modality,
    t_s: Seconds | Sequence[float],
    values: Doubles | None = None,
    ends: tuple[float, float] | None = None,
) -> list[Window]:
    times = np.asarray(t_s, dtype=np.float64)
    if values is None:
        values = np.random.default_rng(1).normal(size=(len(times), *modality.shape))
    ranges = None if ends is None else {modality.name: ends}
    block = Block(modality=modality.name, t_s=times, values=values.astype(np.float32))
    return Windower([modality], SPEC, ranges).feed(block)


def quality(*arguments: object, **options: object) -> Quality:
    [window] = windows(*arguments, **options)  # type: ignore[arg-type]
    return window.quality[next(iter(window.arrays))]


GRID_S = np.arange(20) / 10


@pytest.mark.parametrize("modality", [ACC, DEPTH])
def test_samples_on_the_grid_are_perfect(modality: Modality) -> None:
    assert quality(modality, GRID_S) == PERFECT
    assert quality(modality, GRID_S + 0.4e-6 * (-1) ** np.arange(20)) == PERFECT, "stamps are rounded"


@pytest.mark.parametrize("modality", [ACC, DEPTH])
def test_grid_points_between_samples_too_far_apart_are_gaps(modality: Modality) -> None:
    assert quality(modality, np.delete(GRID_S, [4, 9])).gap_share == 2 / 20
    assert quality(modality, np.delete(GRID_S, 1)).gap_share == 1 / 20
    # Beside the grid each grid point has two neighbours a period apart: that is none.
    beside_s = np.concatenate([[0.0], np.arange(0.05, 2.0, 0.1)])
    assert quality(modality, beside_s).gap_share == 0
    assert quality(modality, np.delete(beside_s, 7)).gap_share == 2 / 20


def test_a_sensor_of_half_the_rate_is_a_gap_at_every_other_grid_point() -> None:
    assert quality(ACC, np.append(GRID_S[::2], 2.0)).gap_share == 0.5


def test_beyond_its_range_a_sensor_is_saturated_in_the_worst_channel() -> None:
    values = np.zeros((20, 2))
    values[3:8, 1] = 8.0
    values[10, 0] = -9.0
    assert quality(ACC, GRID_S, values, ends=(-8, 8)).saturated_share == 5 / 20
    assert quality(ACC, GRID_S, values, ends=(-10, 10)).saturated_share == 0


def test_of_frames_every_pixel_counts_and_only_with_a_range() -> None:
    values = np.full((20, 2, 3), 2.0)
    values[:, 0, 0] = 0
    assert quality(DEPTH, GRID_S, values, ends=(0, 8)).saturated_share == pytest.approx(1 / 6)
    assert quality(DEPTH, GRID_S, values).saturated_share == 0


def test_without_a_range_a_flat_top_or_floor_is_a_sign() -> None:
    swing = np.stack([np.sin(5.1 * GRID_S + 0.3), np.cos(2.3 * GRID_S)], axis=1)
    assert quality(ACC, GRID_S, swing).saturated_share == 0
    clipped = np.clip(swing * [2, 1], -1, 1)
    assert quality(ACC, GRID_S, clipped).saturated_share == 12 / 20, "the last is alone"


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_sensor_that_rests_on_few_of_its_steps_is_not_saturated(steps: int) -> None:
    values = np.random.default_rng(2).integers(0, steps + 1, (20, 2)) * 0.016
    assert quality(ACC, GRID_S, values).saturated_share == 0


def test_frames_are_as_far_off_as_their_stamps() -> None:
    late = np.concatenate([[0.0], GRID_S[1:] + 0.03, [2.03]])
    assert quality(DEPTH, late).resampling_error == pytest.approx(0.3 * np.sqrt(19 / 20))


def test_a_line_and_a_still_signal_are_resampled_without_an_error() -> None:
    t_s = np.cumsum(np.random.default_rng(3).uniform(0.05, 0.13, 40))
    line = np.stack([3 * t_s, -t_s], axis=1)
    for values in (line, np.ones((40, 2))):
        made = windows(ACC, t_s, values)[0].quality["acc"]
        assert made.resampling_error == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("lowest_hz", "noise"), [(0.2, 0.0), (1.0, 0.0), (0.5, 0.05)])
def test_the_estimate_is_about_the_error_that_resampling_makes(lowest_hz: float, noise: float) -> None:
    """At irregular stamps, of signals that are known between them: within a factor of two over the windows."""
    rng, truth, told = np.random.default_rng(4), [], []
    for _ in range(30):
        t_s = np.cumsum(rng.uniform(0.03, 0.17, 40))
        tones_hz, phases = rng.uniform(lowest_hz, 2 * lowest_hz, (2, 5)), rng.uniform(0, 2 * np.pi, (2, 5))

        def signal(at_s: Seconds, tones_hz: Doubles = tones_hz, phases: Doubles = phases) -> Doubles:
            waves: Doubles = np.sin(2 * np.pi * at_s[:, None, None] * tones_hz + phases).sum(axis=2)
            return waves

        made = windows(ACC, t_s, signal(t_s) + rng.normal(0, noise, (40, 2)))[0]
        right = signal(made.start_s + GRID_S)
        truth.append(np.sqrt(((made.arrays["acc"] - right) ** 2).mean(axis=0).sum() / right.var(axis=0).sum()))
        told.append(made.quality["acc"].resampling_error)
    assert 0.5 < np.mean(told) / np.mean(truth) < 2
    assert lowest_hz == 0.2 or noise or np.corrcoef(told, truth)[0, 1] > 0.6


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_quality_is_always_finite_and_shares_are_shares(seed: int, odd: float) -> None:
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(80) < odd, rng.choice([0.0, -0.1, 1e-9, 0.24, 3.0], 80), rng.uniform(0, 0.2, 80))
    values: Doubles = rng.choice([-3e38, 0.0, 1.0, 3e38], (80, 2)) if seed % 2 else rng.normal(size=(80, 2))
    for window in windows(ACC, np.cumsum(steps), values):
        each = window.quality["acc"]
        assert 0 <= each.gap_share <= 1 and 0 <= each.saturated_share <= 1 and each.resampling_error >= 0


def test_limits_name_what_is_wrong_and_none_lets_all_pass() -> None:
    good = {"acc": Quality(gap_share=0.1, saturated_share=0.2, resampling_error=0.3), "gyro": PERFECT}
    assert Limits().exceeded({"acc": Quality(gap_share=1, saturated_share=1, resampling_error=1e9)}) is None
    assert Limits(gap_share=0.1, saturated_share=0.2, resampling_error=0.3).exceeded(good) is None
    assert Limits(gap_share=0.09).exceeded(good) == "acc: gaps"
    assert Limits(saturated_share=0.1).exceeded(good) == "acc: saturated"
    assert Limits(resampling_error=0.2).exceeded({"gyro": PERFECT, **good}) == "acc: resampled badly"


def test_ur_falls_slow_accelerometer_and_missing_frames_are_told(public: Callable[[str], Path]) -> None:
    """At about 32 Hz where 50 are meant: most grid points lie in a gap. In `adl-27` frames and stamps are missing."""
    spec = WindowSpec(window_s=1, stride_s=0.5)

    def played(name: str) -> tuple[list[Window], dict[str, int], int]:
        recording = read_recording(public(f"urfall/{name}.npz"))
        [segment] = recording.segments
        windower, made = Windower(recording.modalities, spec), []
        for block in segment.blocks(["acc", "camera"], 60.0):
            made += windower.feed(block)
        return made, windower.counts, sum(len(each.t_s) for each in segment.streams.values())

    made, counts, delivered = played("fall-01")
    assert len(made) == 9 and counts["hole"] == 0
    assert np.median([each.quality["acc"].gap_share for each in made]) > 0.7
    assert max(each.quality["camera"].gap_share for each in made) == 0
    assert counts["acc: kept"] + counts["camera: kept"] == delivered
    made, counts, delivered = played("adl-27")
    assert len(made) == 2 and counts["hole"] == 3
    good, _, _ = played("fall-20")
    assert max(each.quality["acc"].gap_share for each in good) < 0.1
    # Windows over a hole of either modality are none: in each, every instant has a frame within half a second.
    assert all(each.arrays["camera"].shape == (30, *URFALL_CAMERA.shape) for each in made)


def test_a_stream_as_ur_fall_recorded_it_loses_only_what_repeats_or_goes_backward(
    public: Callable[[str], Path],
) -> None:
    with np.load(public("urfall/adl-27.npz"), allow_pickle=False) as arrays:
        t_s, values = arrays["acc_t_ms"] / 1000, arrays["acc"]
    windower = Windower([Modality(name="acc", shape=(3,), rate_hz=50, unit="g")], WindowSpec(window_s=1, stride_s=0.5))
    made = windower.feed(Block(modality="acc", t_s=t_s, values=values))
    later = np.append(True, t_s[1:] > np.maximum.accumulate(t_s)[:-1])
    assert 0 < (~later).sum() == windower.counts["acc: not later"]
    assert windower.counts["acc: kept"] == later.sum() and len(made) > 0


def test_utd_mhads_camera_is_slower_than_it_says_and_both_are_aligned(public: Callable[[str], Path]) -> None:
    """2.6 inertial samples a frame are 19 frames a second, where the camera is said to give 30: every one a gap."""
    recording = read_recording(public("utd_mhad/s1.npz"))
    made = []
    for segment in recording.segments[:40]:
        windower = Windower(recording.modalities, WindowSpec(window_s=1, stride_s=0.5))
        for block in segment.blocks(["acc", "gyro", "depth"], 60.0):
            made += windower.feed(block)
        # A trial's first and last window have frames of the same trial at either end of their inertial samples.
        assert windower.counts["acc: kept"] == len(segment.streams["acc"].t_s)
        frames = segment.streams["depth"]
        assert frames.t_s[0] == segment.streams["acc"].t_s[0] and frames.t_s[-1] == segment.streams["acc"].t_s[-1]
    assert len(made) > 40 and {each.arrays["depth"].shape for each in made} == {(30, *UTD_DEPTH.shape)}
    # Only a grid point that a frame lies on exactly, such as the first, is none.
    assert np.mean([each.quality["depth"].gap_share for each in made]) > 0.9
    assert {(each.quality["acc"].gap_share, each.quality["acc"].resampling_error) for each in made} == {(0, 0)}
