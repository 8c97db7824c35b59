from collections.abc import Mapping

import numpy as np
import pytest

from bench.choice import CHOICES, Choice, Floats, Rows, coverage, even, features, k_centre


def windows(count: int, seed: int = 0) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    acc, depth = rng.normal(0, 1, (count, 20, 3)), rng.normal(0, 1, (count, 4, 6, 8))
    return {"acc": acc.astype(np.float32), "depth": depth.astype(np.float32)}


def points(*values: float) -> dict[str, Floats]:
    """Embeddings of one dimension."""
    return {"embedding": np.array(values, dtype=np.float32)[:, None]}


def radius(of: Mapping[str, Floats], rows: Rows) -> tuple[float, float]:
    """Largest and mean distance of a window to the nearest chosen."""
    x = features(of)
    nearest = np.linalg.norm(x[:, None] - x[rows], axis=2).min(axis=1)
    return float(nearest.max()), float(nearest.mean())


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_a_choice_is_of_different_rows_in_order_and_the_same_again(choice: Choice) -> None:
    rows = choice(windows(50), 12, 3)
    assert rows.tolist() == sorted(set(rows.tolist())) and len(rows) == 12
    assert rows.min() >= 0 and rows.max() < 50
    assert np.array_equal(rows, choice(windows(50), 12, 3))


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("alike", [False, True])
def test_all_are_chosen_where_there_are_no_more(choice: Choice, alike: bool) -> None:
    few = {name: array * (not alike) for name, array in windows(7).items()}
    assert choice(few, 7, 0).tolist() == choice(few, 100, 0).tolist() == list(range(7))
    assert len(choice(few, 3, 0)) == 3


def test_even_takes_the_first_and_the_last() -> None:
    assert even(points(*range(9)), 3).tolist() == [0, 4, 8]


def test_only_seeded_choices_follow_the_seed() -> None:
    followed = {
        name: len({tuple(choice(windows(60), 5, seed).tolist()) for seed in range(6)}) > 1
        for name, choice in CHOICES.items()
    }
    assert followed == {"random": True, "even": False, "k-centre": True, "coverage": False}


def test_k_centre_finds_what_is_rare_and_coverage_what_is_common() -> None:
    line = points(0, 0.1, 0.2, 5, 5.1, 5.2, 30)
    for seed in range(5):
        assert 6 in k_centre(line, 2, seed)
    # By hand: row 3 is 40 from all others together, less than any; then row 6 saves 25, row 1 only 14.5 (0 and 2 14.4).
    assert coverage(line, 1).tolist() == [3]
    assert coverage(line, 2).tolist() == [3, 6]
    assert coverage(line, 3).tolist() == [1, 3, 6]


def test_each_is_best_at_its_aim() -> None:
    # Three crowds on a plane, of very different sizes, and few alone.
    rng = np.random.default_rng(5)
    crowds = [rng.normal(place, 1, (count, 2)) for place, count in ((0, 150), (9, 25), (-7, 10))]
    many = {"embedding": np.concatenate([*crowds, rng.uniform(-15, 15, (15, 2))]).astype(np.float32)}
    largest, mean = zip(*(radius(many, choice(many, 10, 1)) for choice in CHOICES.values()), strict=True)
    names = list(CHOICES)
    assert names[int(np.argmin(largest))] == "k-centre"
    assert names[int(np.argmin(mean))] == "coverage"


def test_features_are_of_equal_weight_whatever_the_unit() -> None:
    some = windows(30)
    rescaled = {"acc": some["acc"] * 16, "depth": some["depth"]}
    x, y = features(some), features(rescaled)
    assert x.shape == y.shape == (30, 3 + 3 + 8 * 3 + 16 + 16)
    assert np.isclose((x**2).sum(), 2 * 30)
    # Means and deviations do not change at all; log1p of the spectrum nearly.
    assert np.allclose(x[:, :6], y[:, :6], atol=1e-5) and np.allclose(x[:, 30:], y[:, 30:])
    assert features({"embedding": np.ones((4, 3), np.float32)}).shape == (4, 0)
