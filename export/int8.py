"""Encoders in whole numbers of 8 bits: a quarter to a half of the size. What that costs is measured elsewhere.

Convolutions and linear layers are quantised whole ("static": QDQ, a scale for each channel of the weights; what passes
between layers is scaled by what real windows gave, from the least to the most). An LSTM is so in its weights alone
("dynamic"), as onnxruntime has no other for it: one scale for each weight is as true as one for each channel, and takes
a tenth less time. The linear layers behind an LSTM stay as they are, since they would lose more than it does; so do
convolutions of frames, which would take twice the time.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from export.layers import Floats
from export.session import FRAMES

# Windows at once through a model that is calibrated: bounds the memory.
BATCH = 16
STATIC = ["Conv", "Gemm"]
OF_FRAMES = ["Gemm"]


def int8_of(model: bytes, name: str, x: Floats) -> tuple[Literal["static", "dynamic"], bytes]:
    """The model with input `name` in whole numbers, and how; calibrated on windows `x` (N, T, ...), normalised.

    Equal models and windows give equal bytes.
    """
    graph = onnx.load_model_from_string(model)
    how: Literal["static", "dynamic"]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        out = Path(folder) / "int8.onnx"
        if any(node.op_type == "LSTM" for node in graph.graph.node):
            how = "dynamic"
            quantize_dynamic(graph, out, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
        else:
            how = "static"
            quantize_static(
                graph,
                out,
                _Windows(name, x),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=OF_FRAMES if x.ndim == FRAMES else STATIC,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        made = onnx.load_model(out)
    del made.metadata_props[:]
    made.producer_name, made.producer_version = graph.producer_name, graph.producer_version
    onnx.checker.check_model(made)
    packed: bytes = made.SerializeToString(deterministic=True)
    return how, packed


class _Windows(CalibrationDataReader):  # type: ignore[misc]
    """Windows in batches of one size, as calibration reads them; what would be left over is left out."""

    def __init__(self, name: str, x: Floats) -> None:
        size = min(BATCH, len(x))
        self._batches = iter([{name: x[at : at + size]} for at in range(0, len(x) - size + 1, size)])

    def get_next(self) -> Any:
        """The next batch by the input's name, or None."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that quantisation gives on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
