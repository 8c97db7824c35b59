"""How much an ONNX graph computes: multiply-adds, counted from its shapes, and those from one run of it."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper

Shape = tuple[int, ...]
COUNTED = ("Conv", "Gemm", "LSTM")


def operations(model: bytes, x: Mapping[str, Sequence[int]]) -> int:
    """The multiply-adds of convolutions, linear layers and LSTMs for inputs of these shapes.

    All else (activations, maxima, means, as products too) is a percent or two of it in the models here, and left out.
    """
    proto = onnx.load_model_from_string(model)
    nodes = [node for node in proto.graph.node if node.op_type in COUNTED]
    shapes = _shapes(proto, [name for node in nodes for name in (*node.input[:3], *node.output) if name], x)
    return sum(_multiply_adds(node, shapes.__getitem__) for node in nodes)


def _multiply_adds(node: onnx.NodeProto, shape: Callable[[str], Shape]) -> int:
    x, weight = node.input[:2]
    match node.op_type:
        case "Conv":  # an output takes every weight that leads to its channel
            return math.prod(shape(node.output[0])) * math.prod(shape(weight)[1:])
        case "Gemm":
            transposed = any(each.name == "transA" and helper.get_attribute_value(each) for each in node.attribute)
            return math.prod(shape(node.output[0])) * shape(x)[0 if transposed else 1]
        case _:  # an LSTM's samples take all its weights, into and across
            samples, batch, _ = shape(x)
            return samples * batch * (math.prod(shape(weight)) + math.prod(shape(node.input[2])))


def _shapes(model: onnx.ModelProto, names: Sequence[str], x: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The shapes of these tensors when the model runs on zeros."""
    known: dict[str, Shape] = {each.name: tuple(each.dims) for each in model.graph.initializer}
    known |= {name: tuple(shape) for name, shape in x.items()}
    given = {each.name for each in model.graph.output}
    wanted = sorted(set(names) - set(known))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in given)
    options = onnxruntime.SessionOptions()
    # As it stands: what would be fused away has a shape, too.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    zeros = {name: np.zeros(shape, dtype=np.float32) for name, shape in x.items()}
    return known | {name: array.shape for name, array in zip(wanted, session.run(wanted, zeros), strict=True)}
