"""The linear classifier: its optimum by hand, and that no chance and no scale is involved."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coordinator.classifier import CHANGED_COPIES, RIDGE, LinearClassifier, fit_classifier, with_changed
from mekt.plan import Method, Plan
from sensors.windows import WindowSet
from tests.export.small import ACC, DEPTH, plan_of, random_windows

torch.set_num_threads(1)

Floats = NDArray[np.float32]
Indexes = NDArray[np.int64]


def clusters(per_class: int = 20, classes: int = 4, seed: int = 0) -> tuple[Floats, Indexes]:
    """Well separated points in five dimensions, in shuffled order."""
    rng = np.random.default_rng(seed)
    centres = 6 * rng.normal(0, 1, (classes, 5))
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    return (centres[labels] + rng.normal(0, 0.5, (len(labels), 5))).astype(np.float32), labels


@pytest.mark.parametrize(("ridge", "by_hand"), [(RIDGE, 2.1652), (0.3, 0.4689)])
def test_two_points_worked_by_hand(ridge: float, by_hand: float) -> None:
    # By symmetry the weights are (-a, a) and the biases 0. The loss log(1 + e^(-2a)) + 2 * ridge * a^2 is least
    # where 1 / (1 + e^(2a)) = 2 * ridge * a; a is 2.1652 and 0.4689.
    assert pytest.approx(3e-3) == RIDGE
    fitted = fit_classifier(np.array([[-1], [1]], dtype=np.float32), np.array([0, 1]), 2, ridge)
    a = float(fitted.weight[1, 0])
    assert a == pytest.approx(by_hand, abs=5e-3)
    assert 1 / (1 + math.exp(2 * a)) == pytest.approx(2 * ridge * a, rel=1e-2)
    assert fitted.weight[0, 0] == pytest.approx(-a, rel=1e-4)
    np.testing.assert_allclose(fitted.bias, 0, atol=1e-4)


def test_the_score_is_features_by_weight_plus_bias() -> None:
    classifier = LinearClassifier(
        weight=np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32), bias=np.array([0, 0, -2], dtype=np.float32)
    )
    # Scores (3, 1, 2), (1, 3, 2), (3, 3.5, 4.5).
    features = np.array([[3, 1], [1, 3], [3, 3.5]], dtype=np.float32)
    assert classifier.predict(features).tolist() == [0, 1, 2]


def test_what_is_apart_is_told_apart() -> None:
    features, labels = clusters()
    fitted = fit_classifier(features, labels, 4)
    assert fitted.predict(features).tolist() == labels.tolist()
    assert (fitted.weight.shape, fitted.bias.shape) == ((4, 5), (4,))
    assert fitted.weight.dtype == fitted.bias.dtype == np.float32


def test_the_fit_is_an_optimum() -> None:
    # Overlapping classes, so that the optimum is not far away.
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), 30)
    features = (rng.normal(0, 1, (90, 4)) + labels[:, None] * 0.8).astype(np.float32)
    fitted = fit_classifier(features, labels, 3)
    mean, std = features.mean(axis=0), features.std(axis=0)
    weight = torch.tensor(fitted.weight * std, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(fitted.bias + fitted.weight @ mean, dtype=torch.float64, requires_grad=True)
    x = torch.tensor((features - mean) / std, dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, torch.from_numpy(labels)) + RIDGE * (weight**2).sum()
    torch.autograd.backward(loss)
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) < 1e-3
    assert float(bias.grad.abs().max()) < 1e-3


def test_equal_inputs_give_equal_bytes_whatever_the_global_seed_is() -> None:
    features, labels = clusters()
    torch.manual_seed(1)
    one = fit_classifier(features, labels, 4)
    torch.manual_seed(2)
    other = fit_classifier(features, labels, 4)
    assert one.weight.tobytes() == other.weight.tobytes()
    assert one.bias.tobytes() == other.bias.tobytes()


def test_the_answers_do_not_depend_on_the_units_of_the_features() -> None:
    features, labels = clusters()
    scale = np.array([1e-3, 1, 50, 2, 1e3], dtype=np.float32)
    other = (features * scale + 7).astype(np.float32)
    rng = np.random.default_rng(9)
    tried = (6 * rng.normal(0, 1, (200, 5))).astype(np.float32)
    one = fit_classifier(features, labels, 4).predict(tried)
    assert (fit_classifier(other, labels, 4).predict((tried * scale + 7).astype(np.float32)) == one).mean() > 0.98


def test_a_feature_that_never_moves_does_no_harm() -> None:
    features, labels = clusters()
    features[:, 2] = 3.25
    fitted = fit_classifier(features, labels, 4)
    assert np.isfinite(fitted.weight).all()
    assert (fitted.predict(features) == labels).mean() > 0.95


def test_a_class_without_an_example_is_not_answered() -> None:
    features, labels = clusters(classes=3)
    fitted = fit_classifier(features, labels, 5)
    assert fitted.weight.shape == (5, 5)
    assert set(fitted.predict(features).tolist()) == {0, 1, 2}


def test_one_example_of_each_class_is_enough() -> None:
    features, labels = clusters(per_class=1)
    fitted = fit_classifier(features, labels, 4)
    assert np.isfinite(fitted.weight).all()
    assert fitted.predict(features).tolist() == labels.tolist()


def test_one_class_alone_is_always_answered() -> None:
    features, _ = clusters()
    fitted = fit_classifier(features, np.zeros(len(features), dtype=np.int64), 1)
    assert set(fitted.predict(features).tolist()) == {0}


def test_the_features_are_left_as_they_are() -> None:
    features, labels = clusters()
    before = features.copy()
    fit_classifier(features, labels, 4)
    np.testing.assert_array_equal(features, before)


# Labelled windows and changed copies of them


def labelled_windows() -> WindowSet:
    labels = np.array([2, 0, 1, 2, 0])
    return WindowSet(arrays=random_windows(plan_of(ACC, DEPTH), len(labels), seed=4), labels=labels)


def plan(strength: float, seed: int = 3) -> Plan:
    return replace(plan_of(ACC, DEPTH, method=Method(embedding=4, hidden=6, augment=strength)), seed=seed)


def test_each_labelled_window_has_so_many_changed_copies_of_its_own_label() -> None:
    labelled = labelled_windows()
    more = with_changed(plan(1.0), labelled)
    assert len(more) == 5 * (1 + CHANGED_COPIES)
    copies = more.labels.reshape(1 + CHANGED_COPIES, 5)
    assert (copies == labelled.labels).all()
    for name, array in labelled.arrays.items():
        found = more.arrays[name].reshape(1 + CHANGED_COPIES, *array.shape)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[0], array)
        for copy in found[1:]:
            assert not np.allclose(copy, array, atol=1e-3)
        assert len({each.tobytes() for each in found}) == 1 + CHANGED_COPIES


def test_copies_are_small_changes_of_their_windows() -> None:
    labelled = labelled_windows()
    more = with_changed(plan(0.01), labelled)
    for name, array in labelled.arrays.items():
        np.testing.assert_allclose(more.arrays[name], np.concatenate([array] * (1 + CHANGED_COPIES)), atol=0.2)


def test_without_augmentation_there_are_no_copies() -> None:
    labelled = labelled_windows()
    assert with_changed(plan(0.0), labelled) is labelled


def test_copies_are_those_of_the_plans_seed() -> None:
    def copies(seed: int, noise: int) -> bytes:
        torch.manual_seed(noise)
        return b"".join(each.tobytes() for each in with_changed(plan(1.0, seed), labelled_windows()).arrays.values())

    assert copies(3, noise=1) == copies(3, noise=2) != copies(4, noise=1)


def test_the_labelled_windows_are_left_as_they_are() -> None:
    labelled = labelled_windows()
    for array in labelled.arrays.values():
        array.flags.writeable = False
    before = {name: array.copy() for name, array in labelled.arrays.items()}
    with_changed(plan(1.0), labelled)
    for name, array in labelled.arrays.items():
        np.testing.assert_array_equal(array, before[name])
