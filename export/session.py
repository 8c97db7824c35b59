"""A model at work in onnxruntime, the same way everywhere: on a wearable, in the proof of an export, when measured."""

from typing import Any

import onnxruntime

from mekt import catalogue
from mekt.errors import ReleaseError

Level = onnxruntime.GraphOptimizationLevel
# Dimensions of windows of frames.
FRAMES = 4
NOWHERE = "/dev/null/nothing"


def session(model: bytes, file: str) -> Any:
    """A session of one thread that sleeps between runs: the fastest for models this small, and the thriftiest.

    `file` is what messages call it.

    Raises:
        ReleaseError: when onnxruntime cannot load it.
    """
    try:
        made = _made(model, Level.ORT_ENABLE_EXTENDED)
        takes_frames = any(len(each.shape) == FRAMES for each in made.get_inputs())
        return _made(model, Level.ORT_ENABLE_ALL) if takes_frames else made
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise ReleaseError(
            f"{file} cannot be loaded by onnxruntime {onnxruntime.__version__} ({error}); "
            "install a newer onnxruntime, or export the release again",
            catalogue.RELEASE_DOES_NOT_RUN,
        ) from error


def _made(model: bytes, level: Any) -> Any:
    """A session at this level of optimisation.

    The highest lays out convolutions for images: frames take 0.6 of the time with it, signals 1.4 to 1.8 times as long.
    Without onnxruntime's own arena frames take 1.15 of the time, and signals less memory (docs/lab.md).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A model has all its weights itself. Those that it looks for in files, which no hash covers, it does not find.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
    options.graph_optimization_level = level
    options.enable_cpu_mem_arena = level == Level.ORT_ENABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
