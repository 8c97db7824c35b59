"""Operations are counted as one counts them by hand."""

import numpy as np
import pytest

from export.graphs import classifier_model, encoder_model
from export.operations import operations
from mekt.plan import Architecture
from tests.export.small import ACC, DEPTH, encoders_of, plan_of

HEAD = {"conv": 128 * 6 + 6 * 4, "narrow": 64 * 6 + 6 * 4, "ordered": 256 * 6 + 6 * 4, "lstm": 64 * 6 + 6 * 4}
CONV = 25 * 32 * 7 * 3 + 13 * 64 * 5 * 32 + 7 * 64 * 3 * 64
BACKBONE = {
    "conv": CONV,
    "ordered": CONV,
    "narrow": 25 * 16 * 7 * 3 + 13 * 32 * 5 * 16 + 7 * 32 * 3 * 32,
    "lstm": 50 * 4 * 64 * (3 + 64 + 64 + 64),
}


@pytest.mark.parametrize("architecture", ["conv", "narrow", "ordered", "lstm"])
def test_an_encoder_of_a_signal_is_counted_layer_by_layer(architecture: Architecture) -> None:
    model = encoder_model("acc", encoders_of(plan_of(ACC), architecture)["acc"], 50)
    assert operations(model, {"acc": (1, 50, 3)}) == BACKBONE[architecture] + HEAD[architecture]
    assert operations(model, {"acc": (3, 50, 3)}) == 3 * operations(model, {"acc": (1, 50, 3)})


def test_an_encoder_of_frames_is_counted_layer_by_layer() -> None:
    model = encoder_model("depth", encoders_of(plan_of(DEPTH))["depth"], 10)
    first = 12 * 16 * 8 * 9
    frame = first + 6 * 8 * 16 * 9 * 8 + 3 * 4 * 16 * 9 * 16 + 192 * 36
    assert operations(model, {"depth": (1, 10, 24, 32)}) == 10 * (frame + 36 * 5 * 36) + first + 72 * 6 + 6 * 4


def test_a_classifier_is_one_linear_layer() -> None:
    model = classifier_model("fused", np.zeros((3, 8)), np.zeros(3))
    assert operations(model, {"embeddings": (1, 8)}) == 24
