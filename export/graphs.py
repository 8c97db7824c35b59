"""Encoders and classifiers as ONNX models: the layers of mekt/encoders.py, no tracing.

Shapes: B windows, T samples, C channels, frames of (Y, X) pixels, F features, D embedding width, K classes.
An encoder maps its modality's normalised window to `embedding` (B, D), a classifier `embeddings` (B, sum of D) to
`probabilities` (B, K). B is open.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.layers import Floats, Graph
from mekt.encoders import (
    CONV_KERNELS,
    FRAME_CHANNELS,
    FRAME_FEATURES,
    FRAME_TIME_KERNEL,
    LSTM_LAYERS,
    MOTION_GAIN,
    Encoder,
    FrameConv,
    SignalConv,
    SignalLstm,
)

EMBEDDING = "embedding"
EMBEDDINGS = "embeddings"
PROBABILITIES = "probabilities"
FIRST = "backbone.convolutions.0"


def encoder_model(modality: str, encoder: Encoder, samples: int) -> bytes:
    """The ONNX model of `encoder` for windows of T samples: input `modality` (B, T, ...), output `embedding` (B, D).

    Raises:
        ReleaseError: when the encoder has weights that the export does not know.
    """
    weights = {name: tensor.detach().cpu().float().numpy() for name, tensor in encoder.state_dict().items()}
    if isinstance(encoder.backbone, FrameConv):
        weights |= _apart(weights.pop(f"{FIRST}.weight"))
    graph = Graph(weights)
    hidden = graph.relu(graph.linear(_features(graph, modality, encoder, samples), "to_hidden"))
    embedding = graph.linear(hidden, "to_embedding")
    dimensions: tuple[int | str, ...] = ("B", samples, *encoder.sizes.shape)
    return graph.model(
        f"encoder_{modality}", {modality: dimensions}, {EMBEDDING: (embedding, ("B", encoder.sizes.embedding))}
    )


def classifier_model(name: str, weight_KD: NDArray[np.floating[Any]], bias_K: NDArray[np.floating[Any]]) -> bytes:
    """The ONNX model of a linear classifier: input `embeddings` (B, sum of D), output `probabilities` (B, K)."""
    graph = Graph({"linear.weight": weight_KD.astype(np.float32), "linear.bias": bias_K.astype(np.float32)})
    probabilities = graph.node("Softmax", graph.linear(EMBEDDINGS, "linear"), axis=1)
    classes, width = weight_KD.shape
    return graph.model(
        f"classifier_{name}", {EMBEDDINGS: ("B", width)}, {PROBABILITIES: (probabilities, ("B", classes))}
    )


def _features(graph: Graph, x: str, encoder: Encoder, samples: int) -> str:
    match encoder.backbone:
        case SignalConv():
            return signal_conv(graph, x, encoder.backbone.stretches, samples)
        case SignalLstm():
            return signal_lstm(graph, x)
        case FrameConv():
            return frame_conv(graph, x, encoder.backbone.stretches, samples, encoder.sizes.shape)


def _apart(weight: Floats) -> dict[str, Floats]:
    """The first layer's weights of a frame, and of the window's mean frame, from which it differs by MOTION_GAIN times.

    The layer is linear: w (x - mean) is w x - w mean, and the mean frame need be seen once.
    """
    seen, moving = weight[:, :1], np.float32(MOTION_GAIN) * weight[:, 1:]
    return {f"{FIRST}.of_frames": seen + moving, f"{FIRST}.of_mean": -moving}


def signal_conv(graph: Graph, x_BTC: str, stretches: int, samples: int) -> str:
    """SignalConv: (B, T, C) -> (B, width)."""
    x_BCT = graph.node("Transpose", x_BTC, perm=[0, 2, 1])
    for index, kernel in enumerate(CONV_KERNELS):
        x_BCT = graph.relu(graph.conv(x_BCT, f"backbone.convolutions.{index}", stride=2, padding=kernel // 2))
        samples = -(-samples // 2)
    return graph.means_and_max(x_BCT, stretches, samples)


def signal_lstm(graph: Graph, x_BTC: str) -> str:
    """SignalLstm: (B, T, C) -> (B, width)."""
    return graph.lstm(x_BTC, "backbone.lstm", layers=LSTM_LAYERS)


def frame_conv(graph: Graph, x_BTYX: str, stretches: int, samples: int, shape: tuple[int, ...]) -> str:
    """FrameConv: (B, T, Y, X) -> (B, width); `shape` is (Y, X)."""
    frames = graph.reshape(x_BTYX, -1, 1, *shape)
    frames = graph.relu(graph.moving_conv(frames, x_BTYX, FIRST, frames=samples, samples=samples, shape=shape))
    for index in range(1, len(FRAME_CHANNELS)):
        frames = graph.relu(graph.conv(frames, f"backbone.convolutions.{index}", stride=2, padding=1))
    features = graph.relu(graph.linear(graph.node("Flatten", frames, axis=1), "backbone.to_features"))
    x_BFT = graph.node("Transpose", graph.reshape(features, -1, samples, FRAME_FEATURES), perm=[0, 2, 1])
    x_BFT = graph.relu(graph.conv(x_BFT, "backbone.over_time", stride=1, padding=FRAME_TIME_KERNEL // 2))
    return graph.means_and_max(x_BFT, stretches, samples)
