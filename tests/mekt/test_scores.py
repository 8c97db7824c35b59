"""Scores against numbers worked by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mekt.scores import confusion, f1_scores, weighted_f1

# Class 0 occurs 4 times, class 1 three times, class 2 once; class 3 never.
TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 2])
ANSWER = np.array([0, 0, 0, 1, 1, 1, 2, 0])


def test_a_confusion_has_the_truth_in_rows_and_the_answer_in_columns() -> None:
    assert confusion(TRUTH, ANSWER, 4).tolist() == [[3, 1, 0, 0], [0, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_f1_of_each_class() -> None:
    # Class 0: 2*3 / (4 true + 4 answered); class 1: 2*2 / (3 + 3); class 2: 0 / (1 + 1); class 3: nothing of either.
    np.testing.assert_allclose(f1_scores(confusion(TRUTH, ANSWER, 4)), [6 / 8, 4 / 6, 0, 0])


def test_the_weighted_mean_goes_by_true_occurrence() -> None:
    # (4 * 6/8 + 3 * 4/6 + 1 * 0) / 8 = 5/8
    assert weighted_f1(TRUTH, ANSWER, 4) == pytest.approx(0.625)


def test_right_answers_score_one_and_wrong_ones_zero() -> None:
    assert weighted_f1(TRUTH, TRUTH, 3) == 1.0
    assert weighted_f1(TRUTH, (TRUTH + 1) % 3, 3) == 0.0


def test_always_the_same_answer_scores_its_class_alone() -> None:
    # Class 0: F1 = 2*4 / (4 + 8) = 2/3, weight 1/2; the others 0.
    assert weighted_f1(TRUTH, np.zeros(8, dtype=np.int64), 3) == pytest.approx(1 / 3)


def test_a_class_that_is_answered_but_never_true_costs_only_the_missed_ones() -> None:
    # Class 0: 2*1 / (2 + 1) = 2/3.
    assert weighted_f1(np.array([0, 0]), np.array([0, 1]), 2) == pytest.approx(2 / 3)


def test_the_order_of_windows_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(8)
    assert weighted_f1(TRUTH[order], ANSWER[order], 3) == weighted_f1(TRUTH, ANSWER, 3)


def test_small_integers_do_not_overflow() -> None:
    big = np.full(10, 99, dtype=np.int8)
    assert confusion(big, big, 100)[99, 99] == 10  # type: ignore[arg-type]


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one labelled window"):
        weighted_f1(np.array([], dtype=np.int64), np.array([], dtype=np.int64), 3)


@pytest.mark.parametrize(
    ("truth", "answer", "says"),
    [
        (np.array([0, 1]), np.array([0]), "equal length"),
        (np.array([[0]]), np.array([[0]]), "equal length"),
        (np.array([-1, 0]), np.array([0, 0]), "classes 0 to 2, got -1 to 0"),
        (np.array([0, 0]), np.array([0, 3]), "classes 0 to 2, got 0 to 3"),
    ],
)
def test_what_is_not_a_class_is_refused(truth: NDArray[np.int64], answer: NDArray[np.int64], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        confusion(truth, answer, 3)
