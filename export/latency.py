"""How long models take on one thread: in turns, so that what else the machine does meets all of them alike.

Before every run that counts is one that does not, so that none pays for what another left in the caches.
"""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from export.layers import Floats
from export.manifest import Measured
from export.session import session

WARM_UP, RUNS = 10, 200
CPUS = Path("/proc/cpuinfo")


def measured(models: Mapping[str, bytes], inputs: Mapping[str, Mapping[str, Floats]], runs: int = RUNS) -> Measured:
    """The median latency of each model by file name, each with its inputs.

    Raises:
        ReleaseError: when one does not load.
    """
    sessions = {file: session(model, file) for file, model in models.items()}
    times_ms = in_turns({file: _runner(sessions[file], inputs[file]) for file in models}, runs)
    return Measured(
        machine=_machine(),
        onnxruntime=onnxruntime.__version__,
        latency_ms={file: round(statistics.median(each), 4) for file, each in times_ms.items()},
    )


def in_turns(
    calls: Mapping[str, Callable[[], object]], runs: int, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> dict[str, list[float]]:
    """Milliseconds of so many runs of each call, one after the other in each round."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    times_ms: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            call()
            began_ns = clock_ns()
            call()
            times_ms[name].append((clock_ns() - began_ns) / 1e6)
    return times_ms


def zeros(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Inputs of these shapes."""
    return {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}


def _runner(model: object, x: Mapping[str, Floats]) -> Callable[[], object]:
    return lambda: model.run(None, x)  # type: ignore[attr-defined]


def _machine() -> str:
    """This machine's processor in words."""
    try:
        lines = CPUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    words = f"{named[0] if named else 'processor'}, {platform.machine()}"
    return "".join(each for each in words if each.isprintable())[:64]
