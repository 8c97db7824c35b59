"""A linear classifier on frozen embeddings, from the few labels that the coordinator has."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mekt.augment import augmentation_of
from mekt.learning import tensors
from mekt.plan import Plan, derived_seed
from mekt.solvers import LBFGS
from sensors.windows import WindowSet

RIDGE = 3e-3
STEPS = 200
# One person wears a device in one way; changed copies of the labelled windows stand for the ways of others.
CHANGED_COPIES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearClassifier:
    """Class scores are features @ weight.T + bias; weight (K, F), bias (K,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def predict(self, features_NF: NDArray[np.float32]) -> NDArray[np.int64]:
        """The class index (N,) with the highest score for each row."""
        best: NDArray[np.int64] = np.argmax(features_NF @ self.weight.T + self.bias, axis=1)
        return best


def with_changed(plan: Plan, labelled: WindowSet) -> WindowSet:
    """The labelled windows, normalised, and so many changed copies of each (`mekt.augment`); none without augmentation.

    A classifier that also learns from copies suits people better whom the labels are not of.
    """
    if plan.method.augment == 0:
        return labelled
    augmentation = augmentation_of(plan)
    generator = torch.Generator().manual_seed(derived_seed(plan.seed, "labelled"))
    copies = [augmentation(tensors(labelled.arrays), generator) for _ in range(CHANGED_COPIES)]
    arrays = {
        name: np.concatenate([array, *(copy[name].numpy() for copy in copies)])
        for name, array in labelled.arrays.items()
    }
    return WindowSet(arrays=arrays, labels=np.tile(labelled.labels, 1 + CHANGED_COPIES))


def fit_classifier(
    features_NF: NDArray[np.float32], labels_N: NDArray[np.int64], classes: int, ridge: float = RIDGE
) -> LinearClassifier:
    """Multinomial logistic regression with an L2 penalty of `ridge`, by L-BFGS from zero: no chance is involved.

    Features are standardised for the fit, and that is folded into the weights that come back.
    """
    mean = features_NF.mean(axis=0)
    std = np.maximum(features_NF.std(axis=0), 1e-6)
    x = torch.from_numpy((features_NF - mean) / std).float()
    y = torch.from_numpy(labels_N)
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = functional.cross_entropy(x @ weight.T + bias, y) + ridge * (weight * weight).sum()
        torch.autograd.backward(value)
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    folded = weight.detach().numpy() / std
    return LinearClassifier(
        weight=folded.astype(np.float32), bias=(bias.detach().numpy() - folded @ mean).astype(np.float32)
    )
