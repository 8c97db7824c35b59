"""The layers of encoders and classifiers as ONNX nodes, built from the weights of their torch counterparts.

Shapes: B windows, T samples, C or F channels in and out, H width of an LSTM. B stays open in every graph.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mekt import catalogue
from mekt.errors import ReleaseError

OPSET = 17
IR_VERSION = 9

Floats = NDArray[np.float32]


class Graph:
    """A graph under construction over `weights`, by their torch names; a method adds a layer, names its output."""

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        self._weights = weights
        self._used: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, output: int = 0, **attributes: Any) -> str:
        """One ONNX operator; of its outputs the one with number `output`."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        outputs = [""] * output + [name]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=name, **attributes))
        return name

    def several(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """One ONNX operator and its first outputs."""
        names = [f"{operator.lower()}_{len(self._nodes)}_{place}" for place in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=names[0], **attributes))
        return names

    def weight(self, name: str) -> str:
        """A weight as it stands."""
        return self.constant(name, self._weight(name))

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A tensor that the graph carries."""
        self._tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def cut(self, x: str, axis: int, first: int, end: int) -> str:
        """The entries `first` to `end` of an axis."""
        places = {"first": first, "end": end, "axis": axis}
        return self.node(
            "Slice", x, *(self.constant(f"cut_{len(self._nodes)}_{k}", np.array([v])) for k, v in places.items())
        )

    def reshape(self, x: str, *sizes: int) -> str:
        """Other dimensions: 0 is that of x at this place, -1 whatever is left."""
        return self.node("Reshape", x, self.constant(f"sizes_{len(self._nodes)}", np.array(sizes)))

    def conv(self, x: str, layer: str, *, stride: int, padding: int) -> str:
        """nn.Conv1d or nn.Conv2d, told by the weight: (B, C, ...) -> (B, F, ...)."""
        weight = self._weight(f"{layer}.weight")
        axes = weight.ndim - 2
        return self.node(
            "Conv",
            x,
            self.weight(f"{layer}.weight"),
            self.weight(f"{layer}.bias"),
            kernel_shape=list(weight.shape[2:]),
            strides=[stride] * axes,
            pads=[padding] * 2 * axes,
        )

    def short_conv(self, x_TC: str, layer: str, samples: int) -> str:
        """nn.Conv1d of stride 2, not padded, of so many samples of one window, (T, C) or (1, T, C) -> (S, F).

        What each output takes is put side by side, so that all of them are one product: of few samples that takes less
        time than a convolution.
        """
        weight_FCK = self._weight(f"{layer}.weight")
        width, channels, kernel = weight_FCK.shape
        places = 2 * np.arange((samples - kernel) // 2 + 1)[:, None] + np.arange(kernel)
        taken = self.node("Gather", x_TC, self.constant(f"{layer}.places", places), axis=-2)
        weight = self.constant(f"{layer}.product", weight_FCK.transpose(2, 1, 0).reshape(-1, width))
        return self.node("Gemm", self.reshape(taken, -1, kernel * channels), weight, self.weight(f"{layer}.bias"))

    def linear(self, x_BC: str, layer: str) -> str:
        """nn.Linear: (B, C) -> (B, F)."""
        return self.node("Gemm", x_BC, self.weight(f"{layer}.weight"), self.weight(f"{layer}.bias"), transB=1)

    def relu(self, x: str) -> str:
        """Negative values become 0."""
        return self.node("Relu", x)

    def moving_conv(
        self, x_SYX: str, x_BTYX: str, layer: str, *, frames: int, samples: int, shape: tuple[int, ...]
    ) -> str:
        """A convolution that sees frames and the mean frames of their windows apart: (S, 1, Y, X) -> (S, F, Y', X').

        `x_SYX` are so many frames of each of the windows `x_BTYX`, which have so many samples of this shape (Y, X); the
        layer's weights are called `of_frames` and `of_mean`.
        """
        width, _, kernel, _ = self._weights[f"{layer}.of_mean"].shape
        attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [2, 2], "pads": [kernel // 2] * 4}
        of_frames, bias, of_mean = (self.weight(f"{layer}.{each}") for each in ("of_frames", "bias", "of_mean"))
        seen = self.node("Conv", x_SYX, of_frames, bias, **attributes)
        mean = self.node("Conv", self._mean_frame(x_BTYX, samples, shape), of_mean, **attributes)
        # By window, so that each has its own mean's.
        made = (width, *(-(-each // 2) for each in shape))
        by_window = self.reshape(seen, -1, frames, *made)
        return self.reshape(self.node("Add", by_window, self.reshape(mean, -1, 1, *made)), -1, *made)

    def _mean_frame(self, x_BTYX: str, samples: int, shape: tuple[int, ...]) -> str:
        """The mean frame of each window, (B, 1, Y, X); as a product, in a fraction of ReduceMean's time."""
        share = self.constant("share", np.full((1, samples), 1 / samples, np.float32))
        return self.reshape(self.node("MatMul", share, self.reshape(x_BTYX, 0, samples, -1)), -1, 1, *shape)

    def lstm(self, x_BTC: str, layer: str, *, layers: int) -> str:
        """The last hidden state of nn.LSTM(batch_first=True) of any number of layers: (B, T, C) -> (B, H)."""
        x = self.node("Transpose", x_BTC, perm=[1, 0, 2])
        for index in range(layers - 1):
            y_TDBH = self._lstm_layer(x, layer, index, output=0)
            x = self.node("Squeeze", y_TDBH, self.constant(f"{layer}.direction_{index}", np.array([1])))
        last_DBH = self._lstm_layer(x, layer, layers - 1, output=1)
        return self.node("Squeeze", last_DBH, self.constant(f"{layer}.direction_{layers - 1}", np.array([0])))

    def means_and_max(self, x_BCT: str, stretches: int, samples: int) -> str:
        """Means over each stretch of so many samples, and the maximum: (B, C, T) -> (B, C * (stretches + 1)).

        A stretch begins at the whole number below its share of T, and ends at the one above; all of them are one
        product.
        """
        if stretches == 1:
            means = self.node("ReduceMean", x_BCT, axes=[2], keepdims=0)
        else:
            shares = np.zeros((samples, stretches), np.float32)
            for k in range(stretches):
                first, end = k * samples // stretches, -(-(k + 1) * samples // stretches)
                shares[first:end, k] = 1 / (end - first)
            x_BCK = self.node("MatMul", x_BCT, self.constant("shares", shares))
            means = self.node("Flatten", self.node("Transpose", x_BCK, perm=[0, 2, 1]), axis=1)
        return self.node("Concat", means, self.node("ReduceMax", x_BCT, axes=[2], keepdims=0), axis=1)

    def model(
        self, name: str, x: Mapping[str, Sequence[int | str]], y: Mapping[str, tuple[str, Sequence[int | str]]]
    ) -> bytes:
        """The finished model; equal weights give equal bytes.

        `x` are the inputs' dimensions, `y` for each output what computes it and its dimensions.

        Raises:
            ReleaseError: when a weight was left out, so that the graph cannot compute what the module does.
        """
        left_out = sorted(set(self._weights) - self._used)
        if left_out:
            raise ReleaseError(
                f"{name}: the export does not know the weights {', '.join(left_out)}; extend export/",
                catalogue.RELEASE_NOT_MADE,
            )
        called = {computed: output for output, (computed, _) in y.items()}
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [called.get(each, each) for each in names]
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(each, TensorProto.FLOAT, list(sizes)) for each, sizes in x.items()],
            [helper.make_tensor_value_info(each, TensorProto.FLOAT, list(sizes)) for each, (_, sizes) in y.items()],
            self._tensors,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets, producer_name="mekt")
        onnx.checker.check_model(model, full_check=True)
        packed: bytes = model.SerializeToString(deterministic=True)
        return packed

    def _weight(self, name: str) -> Floats:
        self._used.add(name)
        return self._weights[name]

    def _lstm_layer(self, x_TBC: str, layer: str, index: int, *, output: int) -> str:
        into, across = (self._weight(f"{layer}.weight_{kind}_l{index}") for kind in ("ih", "hh"))
        biases = [_gates(self._weight(f"{layer}.bias_{kind}_l{index}")) for kind in ("ih", "hh")]
        return self.node(
            "LSTM",
            x_TBC,
            self.constant(f"{layer}.W_{index}", _gates(into)[None]),
            self.constant(f"{layer}.R_{index}", _gates(across)[None]),
            self.constant(f"{layer}.B_{index}", np.concatenate(biases)[None]),
            output=output,
            hidden_size=across.shape[1],
        )


def _gates(stacked: Floats) -> Floats:
    """Torch stacks the gates as input, forget, cell, output; ONNX as input, output, forget, cell."""
    into, forget, cell, out = np.split(stacked, 4)
    return np.concatenate([into, out, forget, cell])
