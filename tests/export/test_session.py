"""Sessions take a model as it is, and nothing beside it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.session import session
from mekt.errors import ReleaseError


def product(weight: TensorProto) -> onnx.ModelProto:
    """A model of one product."""
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")}
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "product", [values["x"]], [values["y"]], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_weights_in_files_beside_a_model_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hash of a release covers them."""
    monkeypatch.chdir(tmp_path)
    model = product(numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight"))
    x = np.arange(4, dtype=np.float32)[None]
    [y] = session(model.SerializeToString(), "whole").run(None, {"x": x})
    assert np.array_equal(y, x)
    onnx.save(model, "apart.onnx", save_as_external_data=True, location="weight.bin", size_threshold=0)
    assert Path("weight.bin").is_file()
    with pytest.raises(ReleaseError, match="External data"):
        session(Path("apart.onnx").read_bytes(), "apart")
