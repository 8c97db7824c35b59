"""How good predictions are.

Shapes: N windows, K classes. A confusion has a row for each true class and a column for each answer.
"""

import numpy as np
from numpy.typing import NDArray

Indexes = NDArray[np.int64]


def confusion(truth_N: Indexes, answer_N: Indexes, classes: int) -> NDArray[np.int64]:
    """How often each class (row) was taken for each class (column): (K, K).

    Raises:
        ValueError: when the two differ in length, or hold what is not a class.
    """
    if truth_N.shape != answer_N.shape or truth_N.ndim != 1:
        raise ValueError(f"expected two lists of equal length, got shapes {truth_N.shape} and {answer_N.shape}")
    for values in (truth_N, answer_N):
        if len(values) and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"expected classes 0 to {classes - 1}, got {values.min()} to {values.max()}")
    pairs = truth_N.astype(np.int64) * classes + answer_N
    counts: NDArray[np.int64] = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return counts


def f1_scores(counts_KK: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of each class out of a confusion: 2 TP / (2 TP + FP + FN), 0 for a class without either."""
    hits = np.diag(counts_KK)
    either = counts_KK.sum(axis=0) + counts_KK.sum(axis=1)
    scores: NDArray[np.float64] = 2 * hits / np.maximum(either, 1)
    return scores


def weighted_f1(truth_N: Indexes, answer_N: Indexes, classes: int) -> float:
    """The mean of the classes' F1, weighed by how often each class truly occurs.

    Raises:
        ValueError: when there is nothing to score.
    """
    counts = confusion(truth_N, answer_N, classes)
    occurs = counts.sum(axis=1)
    if occurs.sum() == 0:
        raise ValueError("expected at least one labelled window, got none")
    return float((f1_scores(counts) * occurs).sum() / occurs.sum())
