"""How far each device is from the fleet: by hand, its laws, and against devices that err alike."""

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.disagreement import Distance, disagreement, distances, worst
from coordinator.signs import FAR
from mekt.arrays import Floats

TRUTH = np.random.default_rng(3).normal(0, 1, (200, 8)).astype(np.float32)


def honest(seed: int, size: float = 0.5) -> Floats:
    return (TRUTH + np.random.default_rng(seed).normal(0, size, TRUTH.shape)).astype(np.float32)


def scores(voices: dict[str, Floats], known: Floats | None = None) -> dict[str, float]:
    far = disagreement(
        {name: {"acc": each} for name, each in voices.items()}, None if known is None else {"acc": known}
    )
    return worst(far)


def fleet(count: int, **bad: Floats) -> dict[str, Floats]:
    return {f"h-{n}": honest(n) for n in range(count)} | bad


def test_distances_worked_by_hand() -> None:
    # Centred: rows 1 and -1, twice that, and its opposite; the median is 1 and -1.
    found = distances(
        [np.array([[5], [3]], np.float32), np.array([[2], [-2]], np.float32), np.array([[-1], [1]], "f4")]
    )
    assert found.tolist() == pytest.approx([0, 1 / 3, 1])


def test_the_same_is_0_apart_unrelated_is_0_71_and_opposite_is_1() -> None:
    rng = np.random.default_rng(0)
    unrelated = rng.normal(0, TRUTH.std(), TRUTH.shape).astype(np.float32)
    flat, huge = np.ones_like(TRUTH), TRUTH * np.float32(1e6)
    found = distances([TRUTH] * 9 + [unrelated, -TRUTH, flat, huge])
    assert found[:9].max() == 0 and found[9] == pytest.approx(0.71, abs=0.03)
    assert found[10:] == pytest.approx([1, 1, 1], abs=1e-5)


def test_an_added_constant_and_the_others_scale_change_nothing() -> None:
    before = scores(fleet(5))
    assert scores(fleet(4, h_4=honest(4) + np.float32(3)))["h_4"] == pytest.approx(before["h-4"], rel=1e-4)
    scaled = scores({name: 7 * each for name, each in fleet(5).items()})
    assert scaled == pytest.approx(before)


def test_one_is_usual_in_every_modality_however_hard_it_is() -> None:
    easy = {name: honest(n, 0.1) for n, name in enumerate("abcde")}
    hard = {name: honest(n, 2.0) for n, name in enumerate("abcde")}
    found = disagreement({name: {"acc": easy[name], "gyro": hard[name]} for name in "abcde"})
    for modality in ("acc", "gyro"):
        every = [each[modality].disagreement for each in found.values()]
        assert np.median(every) == 1 and max(every) < 1.3
    assert found["a"]["gyro"].distance > 3 * found["a"]["acc"].distance


def test_a_devices_score_is_that_of_its_worst_modality() -> None:
    far = {"a": {"acc": Distance(distance=0.2, disagreement=1.0), "gyro": Distance(distance=0.9, disagreement=4.5)}}
    assert worst(far) == {"a": 4.5}


BAD: dict[str, Floats] = {
    "opposite": -TRUTH,
    "permuted": np.random.default_rng(1).permutation(TRUTH),
    "noise": np.random.default_rng(1).normal(0, 1, TRUTH.shape).astype(np.float32),
    "loud": np.random.default_rng(1).normal(0, 10, TRUTH.shape).astype(np.float32),
    "flat": np.full_like(TRUTH, 3),
}


def told_apart(found: dict[str, float]) -> tuple[float, float]:
    """The least score of those that err, and the largest of the honest ones."""
    return (
        min(score for device, score in found.items() if device.startswith("bad")),
        max(score for device, score in found.items() if device.startswith("h")),
    )


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(("good", "bad"), [(2, 1), (4, 2), (6, 3), (20, 8)])
def test_a_third_and_more_of_many_that_err_alike_are_odd(name: str, good: int, bad: int) -> None:
    least, most = told_apart(scores(fleet(good, **{f"bad_{n}": BAD[name] for n in range(bad)})))
    assert least > FAR > most


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(("good", "bad"), [(3, 2), (4, 3)])
def test_a_bare_minority_that_errs_alike_is_farther_than_the_others_if_not_always_odd(
    name: str, good: int, bad: int
) -> None:
    """It pulls the median its way, the more so the smaller its lie is."""
    least, most = told_apart(scores(fleet(good, **{f"bad_{n}": BAD[name] for n in range(bad)})))
    assert least > 1.25 * most and (least > FAR) == (name != "noise")


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize(("good", "bad"), [(1, 1), (2, 2)])
def test_with_the_global_knowledge_half_may_err(name: str, good: int, bad: int) -> None:
    voices = fleet(good, **{f"bad_{n}": BAD[name] for n in range(bad)})
    least, most = told_apart(scores(voices, honest(99, 0.2)))
    assert least > FAR > most


def test_of_two_voices_nobody_can_tell_which_one_errs() -> None:
    assert scores(fleet(1, bad=-TRUTH)) == {}
    assert scores(fleet(1), honest(99)) == {} and scores({}) == {}
    only_one = {"a": {"acc": TRUTH, "gyro": TRUTH}, "b": {"acc": TRUTH}, "c": {"acc": TRUTH}}
    assert {name: set(each) for name, each in disagreement(only_one).items()} == {key: {"acc"} for key in "abc"}


def test_equal_knowledge_is_no_reason_to_divide_by_nothing() -> None:
    assert scores(dict.fromkeys("abcd", TRUTH)) == dict.fromkeys("abcd", 0.0)
    assert scores(dict.fromkeys("abcd", np.zeros_like(TRUTH))) == dict.fromkeys("abcd", 0.0)
    rounded = scores(dict.fromkeys("abc", TRUTH) | {"d": TRUTH.astype(np.float16).astype(np.float32)})
    assert rounded["d"] < 0.1


@given(st.integers(0, 2**32 - 1), st.integers(3, 8), st.integers(0, 38), st.randoms())
def test_scores_are_finite_and_do_not_depend_on_the_order(seed: int, count: int, size: int, random: Random) -> None:
    rng = np.random.default_rng(seed)
    voices: dict[str, Any] = {
        f"d-{n}": (10.0 ** rng.integers(-size, size + 1) * rng.normal(0, 0.1, (5, 3))).astype(np.float32)
        for n in range(count)
    }
    found = scores(voices)
    shuffled = list(voices.items())
    random.shuffle(shuffled)
    assert scores(dict(shuffled)) == found and list(found) == sorted(voices)
    assert all(np.isfinite(each) and each >= 0 for each in found.values())


def test_how_many_values_are_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scores(fleet(5))
    monkeypatch.setattr("coordinator.disagreement.VALUES_AT_ONCE", 100)
    assert scores(fleet(5)) == whole
