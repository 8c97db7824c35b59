"""Each layer computes in onnxruntime what its torch counterpart computes, for any number of windows."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.layers import IR_VERSION, OPSET, Floats, Graph
from mekt.encoders import pooled_over_time
from mekt.errors import ReleaseError

torch.set_num_threads(1)

BATCHES = (1, 5, 64)
LENGTHS = (1, 2, 33, 128)
BOUND = 1e-5


def weights_of(module: nn.Module, layer: str) -> dict[str, Floats]:
    return {f"{layer}.{name}": tensor.numpy() for name, tensor in module.state_dict().items()}


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make()


def run(model: bytes, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [y] = session.run(["y"], {"x": x.numpy()})
    return torch.from_numpy(y)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_alike(model: bytes, module: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(run(model, x), module(x), atol=BOUND, rtol=0)


@pytest.mark.parametrize(("kernel", "stride", "channels"), [(7, 2, 3), (5, 2, 32), (3, 1, 1), (1, 1, 4)])
def test_a_convolution_over_time(kernel: int, stride: int, channels: int) -> None:
    torch_layer = seeded(lambda: nn.Conv1d(channels, 6, kernel, stride=stride, padding=kernel // 2))
    graph = Graph(weights_of(torch_layer, "layer"))
    y = graph.conv("x", "layer", stride=stride, padding=kernel // 2)
    model = graph.model("conv", {"x": ("B", channels, "T")}, {"y": (y, ("B", 6, "T2"))})
    for batch in BATCHES:
        for length in LENGTHS:
            assert_alike(model, torch_layer, noise(batch, channels, length))


@pytest.mark.parametrize("shape", [(24, 32), (48, 64), (7, 5), (1, 1)])
def test_a_convolution_over_frames(shape: tuple[int, int]) -> None:
    torch_layer = seeded(lambda: nn.Conv2d(2, 8, 3, stride=2, padding=1))
    graph = Graph(weights_of(torch_layer, "layer"))
    y = graph.conv("x", "layer", stride=2, padding=1)
    model = graph.model("conv", {"x": ("B", 2, "Y", "X")}, {"y": (y, ("B", 8, "Y2", "X2"))})
    for batch in BATCHES:
        assert_alike(model, torch_layer, noise(batch, 2, *shape))


@pytest.mark.parametrize(("into", "out"), [(64, 32), (1, 1), (128, 12)])
def test_a_linear_layer(into: int, out: int) -> None:
    torch_layer = seeded(lambda: nn.Linear(into, out))
    graph = Graph(weights_of(torch_layer, "layer"))
    y = graph.linear("x", "layer")
    model = graph.model("linear", {"x": ("B", into)}, {"y": (y, ("B", out))})
    for batch in BATCHES:
        assert_alike(model, torch_layer, noise(batch, into))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("channels", "width"), [(3, 64), (8, 5), (1, 1)])
def test_an_lstm_of_any_depth(layers: int, channels: int, width: int) -> None:
    torch_layer = seeded(lambda: nn.LSTM(channels, width, num_layers=layers, batch_first=True))
    graph = Graph(weights_of(torch_layer, "layer"))
    y = graph.lstm("x", "layer", layers=layers)
    model = graph.model("lstm", {"x": ("B", "T", channels)}, {"y": (y, ("B", width))})
    for batch in BATCHES:
        for length in LENGTHS:
            assert_alike(model, lambda x: torch_layer(x)[1][0][-1], noise(batch, length, channels))


@pytest.mark.parametrize(("kernel", "channels"), [(7, 3), (3, 32), (1, 1)])
def test_a_convolution_of_few_samples_as_one_product(kernel: int, channels: int) -> None:
    torch_layer = seeded(lambda: nn.Conv1d(channels, 6, kernel, stride=2))
    for length in (kernel, kernel + 1, 31):
        for dimensions in ((length, channels), (1, length, channels)):
            graph = Graph(weights_of(torch_layer, "layer"))
            y = graph.short_conv("x", "layer", length)
            model = graph.model("conv", {"x": dimensions}, {"y": (y, ("S", 6))})
            assert_alike(model, lambda x: torch_layer(x.mT).squeeze(0).mT, noise(*dimensions))


@pytest.mark.parametrize("stretches", [1, 2, 3])
def test_means_and_maximum_over_time(stretches: int) -> None:
    for length in LENGTHS:
        graph = Graph({})
        y = graph.means_and_max("x", stretches, length)
        model = graph.model("pool", {"x": ("B", 6, length)}, {"y": (y, ("B", 6 * (stretches + 1)))})
        for batch in BATCHES:
            x = noise(batch, 6, length)
            assert_alike(model, lambda x: pooled_over_time(x, stretches), x)


def test_pooling_of_a_step_worked_by_hand() -> None:
    x = torch.tensor([[[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]])
    assert pooled_over_time(x, 1).tolist() == [[0.5, 1.0]]
    assert pooled_over_time(x, 2).tolist() == [[0.0, 1.0, 1.0]]
    assert pooled_over_time(x, 3).tolist() == [[0.0, 0.5, 1.0, 1.0]]
    # Of two samples the stretches overlap.
    assert pooled_over_time(x[:, :, 2:4], 3).tolist() == [[0.0, 0.5, 1.0, 1.0]]


def test_negative_values_become_zero() -> None:
    graph = Graph({})
    y = graph.relu("x")
    model = graph.model("relu", {"x": ("B",)}, {"y": (y, ("B",))})
    assert run(model, torch.tensor([-2.0, 0.0, 3.0])).tolist() == [0.0, 0.0, 3.0]


def test_a_weight_that_no_layer_uses_is_an_error() -> None:
    weights = weights_of(nn.Linear(2, 2), "layer") | weights_of(nn.Linear(2, 2), "forgotten")
    graph = Graph(weights)
    y = graph.linear("x", "layer")
    with pytest.raises(ReleaseError, match=r"forgotten\.bias, forgotten\.weight"):
        graph.model("linear", {"x": ("B", 2)}, {"y": (y, ("B", 2))})


def test_a_model_names_its_opset_and_format_and_carries_its_weights_within() -> None:
    graph = Graph(weights_of(nn.Linear(2, 2), "layer"))
    y = graph.linear("x", "layer")
    model = onnx.load_from_string(graph.model("linear", {"x": ("B", 2)}, {"y": (y, ("B", 2))}))
    assert ([each.version for each in model.opset_import], model.ir_version) == ([OPSET], IR_VERSION) == ([17], 9)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_weights_need_not_lie_in_order_in_memory() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3).T
    graph = Graph({"layer.weight": weight, "layer.bias": np.zeros(3, dtype=np.float32)})
    y = graph.linear("x", "layer")
    model = graph.model("linear", {"x": ("B", 2)}, {"y": (y, ("B", 3))})
    assert run(model, torch.tensor([[1.0, 0.0]])).tolist() == [[0.0, 1.0, 2.0]]
