"""Encoders of streams: a step computes what its new samples change, and keeps of the rest what it was.

Shapes: S new samples, T samples and N features of a window, C channels, F features, frames of (Y, X) pixels, H width.

A window that stands alone has zeros before and after it. In a stream it has neighbours, and a feature that is kept has
seen them, so that a step gives not quite what the encoder gives of the window: what that costs is measured before the
form is kept (export/finish.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from export.layers import Floats, Graph
from export.manifest import EncoderEntry
from mekt.modality import WindowSpec

EMBEDDING = "embedding"
# A step has this share of a window's samples, as nearly as the encoder allows.
STEP = 0.1
# For so many windows an LSTM's state has to have been carried on until it is that of a stream.
WINDOWS_CARRIED = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A model of steps; the fields are those of `export.manifest.StepForm`."""

    model: bytes
    samples: int
    takes: int
    history: int
    state: Mapping[str, tuple[int, ...]]


def step_of(entry: EncoderEntry, window: WindowSpec, model: bytes) -> Step | None:
    """The streaming form of the encoder in these bytes of a model; None where a window is too short for it."""
    initializers = onnx.load_model_from_string(model).graph.initializer
    weights = {each.name: numpy_helper.to_array(each) for each in initializers}
    if entry.modality.is_frames:
        step = _frame_conv(entry, window, weights)
    elif entry.architecture == "lstm":
        step = _lstm(entry, window, weights)
    else:
        step = _signal_conv(entry, window, weights)
    return step if step.takes <= window.samples(entry.modality) else None


def _signal_conv(entry: EncoderEntry, window: WindowSpec, weights: Mapping[str, Floats]) -> Step:
    """Only the newest features are computed, each of samples that are there; the window's others are the state."""
    graph = Graph(_trained(weights))
    layers = [f"backbone.convolutions.{index}" for index in range(len(weights)) if _is_layer(weights, index)]
    stride, reach = 1, 1
    for layer in layers:
        reach += (weights[f"{layer}.weight"].shape[2] - 1) * stride
        stride *= 2
    window_samples = window.samples(entry.modality)
    features = -(-window_samples // stride)
    new = max(1, round(STEP * window_samples / stride))
    samples, takes = new * stride, (new - 1) * stride + reach
    x_TC, length = entry.modality.name, takes
    for layer in layers:
        x_TC = graph.relu(graph.short_conv(x_TC, layer, length))
        length = (length - weights[f"{layer}.weight"].shape[2]) // 2 + 1
    width = weights[f"{layers[-1]}.weight"].shape[0]
    x_BFS = graph.node("Transpose", graph.reshape(x_TC, 1, new, width), perm=[0, 2, 1])
    x_BFN = graph.node("Concat", graph.cut("features", 2, new, features), x_BFS, axis=2)
    stretches = weights["to_hidden.weight"].shape[1] // width - 1
    embedding = _head(graph, graph.means_and_max(x_BFN, stretches, features))
    return _step(
        entry,
        graph,
        embedding,
        samples=samples,
        takes=takes,
        history=(features - new) * stride + takes,
        state={"features": ((width, features), x_BFN)},
    )


def _lstm(entry: EncoderEntry, window: WindowSpec, weights: Mapping[str, Floats]) -> Step:
    """The state goes on from step to step, and never begins anew with a window."""
    graph = Graph(_trained(weights))
    window_samples = window.samples(entry.modality)
    samples = max(1, round(STEP * window_samples))
    layers = sum(name.startswith("backbone.lstm.R_") for name in weights)
    state: dict[str, tuple[tuple[int, ...], str]] = {}
    y_TBC = graph.node("Transpose", entry.modality.name, perm=[1, 0, 2])
    last_BH = ""
    for index in range(layers):
        width = weights[f"backbone.lstm.R_{index}"].shape[2]
        of_layer = (graph.weight(f"backbone.lstm.{kind}_{index}") for kind in "WRB")
        given = (f"hidden_{index}", f"cell_{index}")
        y_TDBH, hidden, cell = graph.several("LSTM", y_TBC, *of_layer, "", *given, outputs=3, hidden_size=width)
        state |= {given[0]: ((1, width), hidden), given[1]: ((1, width), cell)}
        y_TBC = graph.node("Squeeze", y_TDBH, graph.constant(f"direction_{index}", np.array([1])))
        last_BH = graph.node("Squeeze", hidden, graph.constant(f"last_{index}", np.array([0])))
    return _step(
        entry,
        graph,
        _head(graph, last_BH),
        samples=samples,
        takes=samples,
        history=WINDOWS_CARRIED * window_samples,
        state=state,
    )


def _frame_conv(entry: EncoderEntry, window: WindowSpec, weights: Mapping[str, Floats]) -> Step:
    """Only new frames are looked at, as they differ from the mean frame of the window in which they are new."""
    graph = Graph(_trained(weights))
    x_BTYX = entry.modality.name
    frames = window.samples(entry.modality)
    new = max(1, round(STEP * frames))
    newest = graph.cut(x_BTYX, 1, frames - new, frames)
    shape = entry.modality.shape
    x = graph.reshape(newest, new, 1, *shape)
    first = graph.moving_conv(x, x_BTYX, "backbone.convolutions.0", frames=new, samples=frames, shape=shape)
    x = graph.relu(first)
    for index in range(1, len(weights)):
        if _is_layer(weights, index):
            x = graph.relu(graph.conv(x, f"backbone.convolutions.{index}", stride=2, padding=1))
    x = graph.relu(graph.linear(graph.node("Flatten", x, axis=1), "backbone.to_features"))
    width, _, kernel = weights["backbone.over_time.weight"].shape
    x_BTF = graph.node("Concat", graph.cut("features", 1, new, frames), graph.reshape(x, 1, new, width), axis=1)
    x_BFT = graph.node("Transpose", x_BTF, perm=[0, 2, 1])
    x_BFT = graph.relu(graph.conv(x_BFT, "backbone.over_time", stride=1, padding=kernel // 2))
    stretches = weights["to_hidden.weight"].shape[1] // width - 1
    return _step(
        entry,
        graph,
        _head(graph, graph.means_and_max(x_BFT, stretches, frames)),
        samples=new,
        takes=frames,
        history=2 * frames - new,
        state={"features": ((frames, width), x_BTF)},
    )


def _head(graph: Graph, features: str) -> str:
    return graph.linear(graph.relu(graph.linear(features, "to_hidden")), "to_embedding")


def _step(
    entry: EncoderEntry,
    graph: Graph,
    embedding: str,
    *,
    samples: int,
    takes: int,
    history: int,
    state: Mapping[str, tuple[tuple[int, ...], str]],
) -> Step:
    """The model whose states have these shapes and come out of these tensors."""
    name = entry.modality.name
    model = graph.model(
        f"step_{name}",
        {name: (1, takes, *entry.modality.shape), **{each: (1, *shape) for each, (shape, _) in state.items()}},
        {EMBEDDING: (embedding, (1, entry.embedding))}
        | {f"next_{each}": (computed, (1, *shape)) for each, (shape, computed) in state.items()},
    )
    shapes = {each: shape for each, (shape, _) in state.items()}
    return Step(model=model, samples=samples, takes=takes, history=history, state=shapes)


def _trained(weights: Mapping[str, Floats]) -> dict[str, Floats]:
    """Without the graph's other constants."""
    last = (".weight", ".bias", ".of_frames", ".of_mean")
    lstm = tuple(f"backbone.lstm.{each}" for each in "WRB")
    return {name: each for name, each in weights.items() if name.endswith(last) or name.startswith(lstm)}


def _is_layer(weights: Mapping[str, Floats], index: int) -> bool:
    return f"backbone.convolutions.{index}.weight" in weights
