"""How far apart in time two modalities show the same movement, and when nothing can be said about it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from mekt.modality import Modality
from sensors.recording import read_recording
from sensors.shift import LEAST_S, MOST_WAITING, Apart, Shift
from sensors.source import Block, Seconds
from tests.proofs.shift import OTHERS, found

ACC = Modality(name="acc", shape=(3,), rate_hz=50, unit="g")
DEPTH = Modality(name="depth", shape=(6, 8), rate_hz=15, unit="m")


def place(seed: int, t_s: Seconds, seconds: float) -> Seconds:
    """Where a hand is that moves now and then, in metres."""
    rng = np.random.default_rng(seed)
    begins_s = np.cumsum(rng.exponential(1.5, int(seconds)) + 0.4)
    moves = rng.normal(0, 0.3, len(begins_s))
    places: Seconds = (moves * (1 + np.tanh((t_s[:, None] - begins_s) / 0.15)) / 2).sum(axis=1)
    return places


def sensed(seed: int, seconds: float, late_s: float = 0.0, other: int | None = None) -> list[Block]:
    """The hand's acceleration, and a camera that sees it, or another hand, whose stamps are late; in order of time."""
    rng, step_s = np.random.default_rng(seed), 0.01
    t_s = np.arange(0, seconds, 1 / 50) + rng.uniform(-0.002, 0.002, int(seconds * 50))
    around = [place(seed, t_s + shift_s, seconds) for shift_s in (-step_s, 0, step_s)]
    acc = (around[0] - 2 * around[1] + around[2]) / step_s**2 / 9.81
    values = np.stack([acc, 0.3 * acc, np.ones_like(acc)], axis=1) + rng.normal(0, 0.01, (len(t_s), 3))
    frame_t_s = np.arange(0, seconds, 1 / 15)
    hand = place(seed if other is None else other, frame_t_s, seconds)[:, None, None]
    frames = 2 - np.exp(-(((np.linspace(-1, 1, 8) - hand) / 0.4) ** 2)) * np.ones((1, 6, 1))
    blocks = [
        Block(modality=name, t_s=times[first : first + count], values=numbers[first : first + count].astype(np.float32))
        for name, times, numbers, count in (("acc", t_s, values, 20), ("depth", frame_t_s + late_s, frames, 6))
        for first in range(0, len(times), count)
    ]
    return sorted(blocks, key=lambda each: float(each.t_s[-1]))


def told(blocks: list[Block]) -> Apart | None:
    shift = Shift(ACC, DEPTH)
    for block in blocks:
        shift.take(block)
    return shift.apart()


@pytest.mark.parametrize("late_s", [-0.7, -0.2, 0.0, 0.1, 0.35])
def test_the_shift_between_two_that_see_the_same_is_found(late_s: float) -> None:
    apart = told(sensed(3, 120, late_s))
    assert apart is not None and apart.agreement > 0.4 and 100 < apart.seconds <= 125
    assert (apart.shift_s if apart.later == "depth" else -apart.shift_s) == pytest.approx(late_s, abs=0.05)
    assert {apart.earlier, apart.later} == {"acc", "depth"}


def test_nothing_is_said_of_two_that_see_different_things_or_for_too_short_a_time_or_nothing() -> None:
    assert all(told(sensed(seed, 150, other=seed + 100)) is None for seed in range(4))
    assert told(sensed(3, LEAST_S - 5)) is None
    still = [Block(modality=each.modality, t_s=each.t_s, values=0 * each.values) for each in sensed(3, 120)]
    assert told(still) is None
    assert told([each for each in sensed(3, 120) if each.modality == "acc"]) is None


def test_across_a_gap_nothing_is_compared() -> None:
    shift = Shift(ACC, DEPTH)
    for number, block in enumerate(sensed(3, 200)):
        shift.take(block)
        if number % 8 == 0:
            shift.gap(["depth"])
    assert shift.apart() is None, "the stretches are too short"
    for block in sensed(3, 200):
        shift.take(block)
        shift.gap(["gyro"])
    assert shift.apart() is not None, "another's gaps are none of theirs"


def test_a_clock_that_is_set_begins_anew_and_what_is_known_stays() -> None:
    shift = Shift(ACC, DEPTH)
    for back_s in (0, 500, 1000):
        for block in sensed(3, 60, 0.2):
            shift.take(block.earlier(back_s))
    apart = shift.apart()
    assert apart is not None and apart.later == "depth" and apart.shift_s == pytest.approx(0.2, abs=0.05)


LATE = sensed(3, 70, 0.2)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            stn.arrays(np.float64, st.integers(0, 8), elements=st.floats(-1e12, 1e12) | st.just(np.nan)),
            st.floats(width=32),
        ),
        max_size=30,
    )
)
def test_whatever_comes_it_neither_fails_nor_keeps_more_than_it_may(
    given_: list[tuple[bool, Seconds, float]],
) -> None:
    shift = Shift(ACC, DEPTH)
    for is_acc, t_s, value in given_:
        kind = ACC if is_acc else DEPTH
        values = np.zeros((len(t_s), *kind.shape), np.float32)
        values[::2] = value
        shift.take(Block(modality=kind.name, t_s=t_s, values=values))
    for block in LATE:
        shift.take(block)
    apart = shift.apart()
    assert apart is None or np.isfinite([apart.shift_s, apart.agreement, apart.seconds]).all()
    assert all(len(each._t_s) <= MOST_WAITING for each in shift._activities)


def test_real_trials_tell_a_shift_that_was_put_in_and_none_of_other_trials(public: Callable[[str], Path]) -> None:
    recording = read_recording(public("utd_mhad/s1.npz"), ["acc", "depth"])
    for late_s in (0.2, -0.3):
        assert found(recording, late_s) == pytest.approx(late_s, abs=0.1)
    assert found(recording, others=OTHERS) is None
