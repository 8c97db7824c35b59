"""Every backbone and the classifier: the ONNX model computes what torch does, and is the same for the same weights."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.graphs import EMBEDDING, EMBEDDINGS, PROBABILITIES, classifier_model, encoder_model
from mekt.encoders import Encoder, EncoderSizes
from mekt.errors import ReleaseError
from mekt.plan import Architecture

torch.set_num_threads(1)

KINDS: list[tuple[Architecture, tuple[int, ...]]] = [
    ("conv", (3,)),
    ("conv", (64,)),
    ("narrow", (3,)),
    ("ordered", (3,)),
    ("ordered", (7, 5)),
    ("lstm", (3,)),
    ("lstm", (8,)),
    ("conv", (24, 32)),
    ("conv", (48, 64)),
    ("conv", (7, 5)),
    ("lstm", (1, 1)),
]


def encoder_of(architecture: Architecture, shape: tuple[int, ...], seed: int = 5) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(EncoderSizes(architecture=architecture, shape=shape, hidden=24, embedding=16))


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("architecture", "shape"), KINDS)
def test_an_encoder_gives_the_same_embeddings_for_any_number_of_windows_of_one_length(
    architecture: Architecture, shape: tuple[int, ...]
) -> None:
    encoder = encoder_of(architecture, shape)
    generator = torch.Generator().manual_seed(1)
    for length in (128, 31, 10, 2, 1):
        session = session_of(encoder_model("acc", encoder, length))
        for batch in (1, 5, 64):
            x = 2 * torch.randn(batch, length, *shape, generator=generator)
            [embedding] = session.run([EMBEDDING], {"acc": x.numpy()})
            with torch.inference_mode():
                torch.testing.assert_close(torch.from_numpy(embedding), encoder(x)[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("architecture", "shape"), KINDS)
def test_an_encoder_model_takes_its_modality_and_gives_the_embedding_alone(
    architecture: Architecture, shape: tuple[int, ...]
) -> None:
    session = session_of(encoder_model("acc", encoder_of(architecture, shape), 50))
    [x], [y] = session.get_inputs(), session.get_outputs()
    assert (x.name, x.shape, x.type) == ("acc", ["B", 50, *shape], "tensor(float)")
    assert (y.name, y.shape, y.type) == ("embedding", ["B", 16], "tensor(float)")


@pytest.mark.parametrize(("architecture", "shape"), [("conv", (3,)), ("lstm", (3,)), ("conv", (24, 32))])
def test_equal_weights_give_equal_bytes_and_others_do_not(architecture: Architecture, shape: tuple[int, ...]) -> None:
    once = encoder_model("acc", encoder_of(architecture, shape), 50)
    assert encoder_model("acc", encoder_of(architecture, shape), 50) == once
    assert encoder_model("acc", encoder_of(architecture, shape, seed=6), 50) != once


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_a_classifier_gives_the_softmax_of_its_scores(batch: int) -> None:
    generator = torch.Generator().manual_seed(batch)
    linear = nn.Linear(48, 7)
    x = 3 * torch.randn(batch, 48, generator=generator)
    model = classifier_model("fused", linear.weight.detach().numpy(), linear.bias.detach().numpy())
    [probabilities] = session_of(model).run([PROBABILITIES], {EMBEDDINGS: x.numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(probabilities), torch.softmax(linear(x), dim=1), atol=1e-5, rtol=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_a_classifier_of_float64_weights_is_float32() -> None:
    session = session_of(classifier_model("fused", np.eye(3), np.zeros(3)))
    [probabilities] = session.run(None, {EMBEDDINGS: np.zeros((1, 3), dtype=np.float32)})
    assert probabilities.dtype == np.float32


def test_huge_scores_do_not_overflow() -> None:
    model = classifier_model("fused", np.eye(2, dtype=np.float32) * 1e6, np.zeros(2, dtype=np.float32))
    [probabilities] = session_of(model).run(None, {EMBEDDINGS: np.array([[1, 2]], dtype=np.float32)})
    assert probabilities.tolist() == [[0.0, 1.0]]


def test_models_stand_alone_and_name_no_file() -> None:
    model = onnx.load_from_string(encoder_model("acc", encoder_of("lstm", (3,)), 50))
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert model.graph.name == "encoder_acc"


def test_an_encoder_that_has_grown_a_layer_is_not_exported_without_it() -> None:
    encoder = encoder_of("conv", (3,))
    encoder.add_module("to_more", nn.Linear(16, 16))
    with pytest.raises(ReleaseError, match=r"to_more\.bias, to_more\.weight"):
        encoder_model("acc", encoder, 50)
