"""A model at work in onnxruntime, the same way everywhere: on a wearable, in the proof of an export, when measured."""

from typing import Any

import onnxruntime

from mekt import catalogue
from mekt.errors import ReleaseError


def session(model: bytes, file: str) -> Any:
    """A session of one thread that sleeps between runs: the fastest for models this small, and the thriftiest.

    `file` is what messages call it.

    Raises:
        ReleaseError: when onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # One level below the highest: that would lay out convolutions for images, which takes signals 1.4 to 1.8 times as
    # long, and what the other levels fuse is here all the same (docs/lab.md).
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise ReleaseError(
            f"{file} cannot be loaded by onnxruntime {onnxruntime.__version__} ({error}); "
            "install a newer onnxruntime, or export the release again",
            catalogue.RELEASE_DOES_NOT_RUN,
        ) from error
