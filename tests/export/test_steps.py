"""A stream taken step by step gives what a computation of all of it at once gives."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from export.graphs import encoder_model
from export.layers import Floats
from export.manifest import EncoderEntry
from export.operations import operations
from export.session import session
from export.steps import Step, step_of
from mekt.encoders import MOTION_GAIN, Encoder, FrameConv, SignalConv, SignalLstm, pooled_over_time
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import Architecture
from tests.export.small import ACC, DEPTH, encoders_of, plan_of

torch.set_num_threads(1)
WINDOW = WindowSpec(window_s=2.0, stride_s=0.5)


def entry_of(modality: Modality, architecture: str) -> EncoderEntry:
    return EncoderEntry(
        modality=modality,
        scaling=Scaling(mean=(0.0,) * modality.channels, std=(1.0,) * modality.channels),
        architecture=architecture,
        embedding=4,
        parameters=1,
        operations=1,
        file="encoder.onnx",
    )


def made(modality: Modality, architecture: Architecture) -> tuple[Encoder, bytes, Step]:
    encoder = encoders_of(plan_of(modality), architecture)[modality.name]
    model = encoder_model(modality.name, encoder, WINDOW.samples(modality))
    step = step_of(entry_of(modality, architecture), WINDOW, model)
    assert step is not None
    return encoder, model, step


MADE = {each: made(ACC, each) for each in ("conv", "narrow", "ordered", "lstm")} | {"frames": made(DEPTH, "conv")}


def steps(step: Step, modality: Modality, stream: Floats) -> Iterator[Floats]:
    """The embeddings (D) after each step through a stream (T, ...)."""
    run = session(step.model, "step")
    state = {name: np.zeros((1, *shape), np.float32) for name, shape in step.state.items()}
    seen = np.concatenate([np.zeros((step.takes - step.samples, *stream.shape[1:]), np.float32), stream])
    names = ["embedding", *(f"next_{name}" for name in state)]
    for at in range(0, len(stream) - step.samples + 1, step.samples):
        embedding, *new = run.run(names, {modality.name: seen[None, at : at + step.takes], **state})
        assert [each.shape for each in new] == [each.shape for each in state.values()]
        state = dict(zip(state, new, strict=True))
        yield embedding[0]


def whole(encoder: Encoder, step: Step, stream: Floats) -> Floats:
    """The embedding (D) of the window that ends a stream (T, ...), of which every layer sees what was before."""
    x = torch.from_numpy(stream)[None]
    pooled: torch.Tensor
    match encoder.backbone:
        case SignalConv():
            features = x.transpose(1, 2)
            for layer in encoder.backbone.convolutions:
                assert isinstance(layer, torch.nn.Conv1d)
                # From the end backwards, so that the last feature ends with the stream.
                kernel, samples = layer.kernel_size[0], features.shape[2]
                features = features[:, :, (samples - kernel) % 2 :]
                features = torch.relu(functional.conv1d(features, layer.weight, layer.bias, stride=2))
            pooled = pooled_over_time(features[:, :, -step.state["features"][1] :], encoder.backbone.stretches)
        case SignalLstm():
            pooled = encoder.backbone(x)
        case FrameConv():
            backbone, frames = encoder.backbone, WINDOW.samples(DEPTH)
            rows = []
            for at in range(x.shape[1] - frames, x.shape[1]):
                # The step in which this frame was new, and the window that ended with that step.
                end = x.shape[1] - (x.shape[1] - 1 - at) // step.samples * step.samples
                motion = (x[:, at] - x[:, end - frames : end].mean(dim=1)) * MOTION_GAIN
                frame = torch.stack([x[:, at], motion], dim=1)
                for layer in backbone.convolutions:
                    frame = torch.relu(layer(frame))
                rows.append(torch.relu(backbone.to_features(frame.flatten(1))))
            pooled = pooled_over_time(torch.relu(backbone.over_time(torch.stack(rows, dim=2))), backbone.stretches)
    embedding: Floats = encoder.to_embedding(torch.relu(encoder.to_hidden(pooled))).detach().numpy()[0]
    return embedding


@pytest.mark.parametrize("kind", sorted(MADE))
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), more=st.integers(0, 12))
def test_a_stream_in_steps_gives_what_all_of_it_at_once_gives(kind: str, seed: int, more: int) -> None:
    encoder, _, step = MADE[kind]
    modality = DEPTH if kind == "frames" else ACC
    needed = -(-step.history // step.samples)
    # An LSTM sees the stream from its beginning.
    count = 1 + more if kind == "lstm" else needed + more
    stream = np.random.default_rng(seed).normal(0, 1, (count * step.samples, *modality.shape)).astype(np.float32)
    for number, embedding in enumerate(steps(step, modality, stream), 1):
        if kind == "lstm" or number >= needed:
            upto = stream[: number * step.samples]
            np.testing.assert_allclose(embedding, whole(encoder, step, upto), atol=1e-5)


@pytest.mark.parametrize("kind", sorted(set(MADE) - {"lstm"}))
def test_what_was_before_the_history_is_forgotten(kind: str) -> None:
    _, _, step = MADE[kind]
    modality = DEPTH if kind == "frames" else ACC
    count = -(-step.history // step.samples)
    stream = np.random.default_rng(1).normal(0, 1, (count * step.samples, *modality.shape)).astype(np.float32)
    before = np.full((3 * step.samples, *modality.shape), 2, np.float32)
    *_, fresh = steps(step, modality, stream)
    *_, after = steps(step, modality, np.concatenate([before, stream]))
    np.testing.assert_allclose(after, fresh, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(MADE))
def test_a_step_computes_less_than_a_window(kind: str) -> None:
    _, model, step = MADE[kind]
    modality = DEPTH if kind == "frames" else ACC
    shapes = {modality.name: (1, step.takes, *modality.shape)} | {name: (1, *each) for name, each in step.state.items()}
    window = {modality.name: (1, *WINDOW.shape(modality))}
    assert operations(step.model, shapes) < operations(model, window) / 4


def test_a_window_too_short_for_a_step_has_none() -> None:
    model = encoder_model("acc", encoders_of(plan_of(ACC))["acc"], 15)
    assert step_of(entry_of(ACC, "conv"), WindowSpec(window_s=0.3, stride_s=0.3), model) is None
