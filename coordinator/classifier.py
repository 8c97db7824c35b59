"""A linear classifier on frozen embeddings, from the few labels that the coordinator has."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

RIDGE = 1e-2
STEPS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearClassifier:
    """Class scores are features @ weight.T + bias; weight (K, F), bias (K,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def predict(self, features_NF: NDArray[np.float32]) -> NDArray[np.int64]:
        """The class index (N,) with the highest score for each row."""
        best: NDArray[np.int64] = np.argmax(features_NF @ self.weight.T + self.bias, axis=1)
        return best


def fit_classifier(features_NF: NDArray[np.float32], labels_N: NDArray[np.int64], classes: int) -> LinearClassifier:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS from zero: no chance is involved.

    Features are standardised for the fit, and that is folded into the weights that come back.
    """
    mean = features_NF.mean(axis=0)
    std = np.maximum(features_NF.std(axis=0), 1e-6)
    x = torch.from_numpy((features_NF - mean) / std).float()
    y = torch.from_numpy(labels_N)
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = functional.cross_entropy(x @ weight.T + bias, y) + RIDGE * (weight * weight).sum()
        torch.autograd.backward(value)
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    folded = weight.detach().numpy() / std
    return LinearClassifier(
        weight=folded.astype(np.float32), bias=(bias.detach().numpy() - folded @ mean).astype(np.float32)
    )
