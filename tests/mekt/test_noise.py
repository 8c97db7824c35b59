"""The Gaussian mechanism: how far private data can move a release, and that its noise is what it says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mekt.noise import Mechanism, clipped, normals

ROWS = hnp.arrays(np.float32, (5, 3), elements=st.floats(-1e3, 1e3, width=32))


def bits_of(seed: int) -> "np.random.Generator":
    return np.random.default_rng(seed)


def test_a_row_that_is_too_long_is_shortened_and_another_is_left_alone() -> None:
    rows = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(clipped(rows, 1.0), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])


@given(ROWS, ROWS, ROWS, st.floats(0.01, 100))
def test_no_private_data_move_a_release_by_more_than_its_sensitivity(
    one: np.ndarray, other: np.ndarray, known: np.ndarray, clip: float
) -> None:
    mechanism = Mechanism(clip=clip, noise_multiplier=0.0)
    apart = mechanism.release(one, known).astype(np.float64) - mechanism.release(other, known)
    rounding = 1e-3  # of float32 at a thousand
    assert np.linalg.norm(apart) <= math.sqrt(len(one)) * 2 * clip + rounding
    assert np.linalg.norm(apart, axis=1).max() <= 2 * clip + rounding


def test_two_opposite_devices_reach_the_sensitivity() -> None:
    mechanism = Mechanism(clip=2.0, noise_multiplier=1.0)
    far = np.full((4, 3), 1e4, np.float32)
    apart = clipped(far.astype(np.float64), 2.0) - clipped(-far.astype(np.float64), 2.0)
    assert np.linalg.norm(apart) == pytest.approx(math.sqrt(4) * 2 * 2.0)
    assert mechanism.mu_squared(4) == pytest.approx((math.sqrt(4) * 2 * 2.0 / 2.0) ** 2)


def test_a_device_that_agrees_with_the_global_knowledge_loses_nothing_to_clipping() -> None:
    known = np.full((4, 3), 50.0, np.float32)
    own = known + np.float32(0.1)
    np.testing.assert_array_equal(Mechanism(clip=1.0, noise_multiplier=0.0).release(own, known), own)


def test_the_noise_has_the_deviation_that_is_accounted_for() -> None:
    mechanism = Mechanism(clip=0.5, noise_multiplier=3.0)
    noise = mechanism.release(np.zeros((20000, 8), np.float32), None, bits_of(1).bytes)
    assert noise.std() == pytest.approx(1.5, rel=0.01)
    assert abs(noise.mean()) < 0.02


def test_the_numbers_are_normal_and_independent() -> None:
    x = normals(400_001, bits_of(2).bytes)
    assert len(x) == 400_001
    for level, below in ((-1.959964, 0.025), (0.0, 0.5), (1.281552, 0.9), (3.090232, 0.999)):
        assert (x < level).mean() == pytest.approx(below, abs=0.003)
    assert abs(np.corrcoef(x[:200_000], x[200_001:])[0, 1]) < 0.01


def test_the_smallest_and_largest_random_bits_give_finite_numbers() -> None:
    assert np.isfinite(normals(4, lambda count: bytes(count))).all()
    assert np.isfinite(normals(4, lambda count: b"\xff" * count)).all()


def test_equal_bits_give_equal_bytes_and_the_systems_never_do() -> None:
    mechanism, rows = Mechanism(clip=1.0, noise_multiplier=1.0), np.ones((3, 2), np.float32)
    one, same = (mechanism.release(rows, None, bits_of(3).bytes) for _ in range(2))
    assert one.tobytes() == same.tobytes()
    assert mechanism.release(rows, None).tobytes() != mechanism.release(rows, None).tobytes()
