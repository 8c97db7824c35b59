"""What a window takes on a wearable: torch, the exported encoder, in 8 bits and in steps, in turns on one thread.

Encoders learn from labels for a few epochs, which is enough to tell what other forms lose of F1. Signals are HAPT's
where its recordings are, else the simulator's, frames the simulator's.
"""

import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from bench.protocols import hapt
from bench.streams import streamed_ms
from bench.tables import number
from coordinator.classifier import fit_classifier
from export.int8 import int8_of
from export.latency import in_turns, zeros
from export.layers import Floats
from export.operations import operations
from export.release import Release, read_release
from export.session import session
from export.steps import step_of
from export.trial import Trial, its_own
from export.writer import write_release
from mekt.blobs import blob_ref
from mekt.encoders import Encoder, SplitAutoencoder
from mekt.learning import batches
from mekt.modality import Modality, WindowSpec
from mekt.plan import Architecture, Method, Plan
from mekt.schema import plain
from sensors.layouts import ACC, GYRO
from sensors.normalise import RunningStatistics
from sensors.recording import read_recording
from sensors.simulator import DEPTH, simulate
from sensors.stream import Recording, class_names
from sensors.windows import WindowSet, windows_of

ROOT = Path(__file__).parents[1]
WINDOW = WindowSpec(window_s=2.56, stride_s=1.28)
RUNS, TAIL = 1000, 10_000
QUICK_RUNS, QUICK_TAIL = 30, 100
SIMULATED_S = 600.0
EPOCHS, RATE, LEARNED_AT_ONCE = 6, 1e-3, 64
FUSED = Modality(name="imu", shape=(6,), rate_hz=50.0, unit="g, rad/s")
LARGE = Modality(name="large", shape=(48, 64), rate_hz=DEPTH.rate_hz, unit="m")
CAMERAS = (DEPTH, LARGE)
SIGNALS: tuple[Architecture, ...] = ("conv", "ordered", "narrow", "lstm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """One way to compute an embedding: its file, what it computes, how long (median, tenth and ninetieth percent)."""

    size_bytes: int
    operations: int
    median_ms: float
    low_ms: float
    high_ms: float
    f1_lost: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """An encoder: one window by torch (`eager`), as exported, in 8 bits, and one step of `new` of a window's samples.

    `shipped` is what a wearable runs; `tail` is its p99 / median, `busy_tail` that of the processor's time alone. The
    last two are what a window of a stream takes through all of the runtime, computed whole (fp32) and in a step.
    """

    encoder: str
    window: tuple[int, ...]
    eager_ms: float
    fp32: Form
    int8: Form
    step: Form
    shipped: str
    new: float
    tail: float
    busy_tail: float
    stream_whole_ms: float
    stream_steps_ms: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Windows:
    """Windows of all modalities, as sensed: to calibrate on, to fit a classifier to, to judge forms by; and whose."""

    calibration: WindowSet
    fitted: WindowSet
    judged: WindowSet
    classes: tuple[str, ...]
    whose: str

    def with_one(self, name: str, make: Callable[[Mapping[str, Floats]], Floats]) -> "Windows":
        """With one more modality, made of the others."""

        def extended(given: WindowSet) -> WindowSet:
            return WindowSet(arrays={**given.arrays, name: make(given.arrays)}, labels=given.labels)

        return replace(
            self,
            calibration=extended(self.calibration),
            fitted=extended(self.fitted),
            judged=extended(self.judged),
        )


def measure(modality: Modality, architecture: Architecture, windows: Windows, *, runs: int, tail: int) -> Figures:
    """All of one encoder, in one process, in turns."""
    encoder, release = _release(modality, architecture, windows)
    [entry] = release.manifest.encoders
    model = release.models[entry.file]
    name = modality.name
    x = entry.scaling.normalise(windows.judged.arrays[name])
    how, int8 = int8_of(model, name, entry.scaling.normalise(windows.calibration.arrays[name]))
    step = step_of(entry, WINDOW, model)
    assert step is not None, "these windows are long enough"
    trial = Trial(release, windows.judged.arrays, windows.judged.labels, its_own(release))
    lost = {"int8": trial.of_model(name, int8), "step": trial.of_step(entry, step)}
    shapes = {name: (1, step.takes, *modality.shape), **{each: (1, *shape) for each, shape in step.state.items()}}
    state = {**zeros(shapes), name: x[:1, -step.takes :]}
    one = torch.from_numpy(x[:1])

    def eager() -> None:
        with torch.inference_mode():
            encoder(one)

    calls = {
        "eager": eager,
        "fp32": _call(model, {name: x[:1]}),
        "int8": _call(int8, {name: x[:1]}),
        "step": _call(step.model, state),
    }
    times_ms = in_turns(calls, runs)
    forms = {
        each: Form(
            size_bytes=len(data),
            operations=operations(data, shapes) if each == "step" else entry.operations,
            median_ms=statistics.median(times_ms[each]),
            low_ms=float(np.quantile(times_ms[each], 0.1)),
            high_ms=float(np.quantile(times_ms[each], 0.9)),
            f1_lost=max(lost[each].values(), default=None) if each in lost else None,
        )
        for each, data in {"fp32": model, "int8": int8, "step": step.model}.items()
    }
    shipped = "int8" if forms["int8"].median_ms <= forms["fp32"].median_ms else "fp32"
    best = {"fp32": model, "int8": int8}[shipped]
    stream_whole_ms, stream_steps_ms = streamed_ms(release, step, windows.judged.arrays[name], runs)
    return Figures(
        encoder=f"{entry.architecture} {how}",
        window=x.shape[1:],
        eager_ms=statistics.median(times_ms["eager"]),
        **forms,
        shipped=shipped,
        new=step.samples / x.shape[1],
        tail=_tail(best, name, x, tail, time.perf_counter_ns),
        busy_tail=_tail(best, name, x, tail, time.thread_time_ns),
        stream_whole_ms=stream_whole_ms,
        stream_steps_ms=stream_steps_ms,
    )


def _call(model: bytes, x: dict[str, Floats]) -> Callable[[], object]:
    run = session(model, "bench")
    return lambda: run.run(None, x)


def _tail(model: bytes, name: str, x: Floats, count: int, clock_ns: Callable[[], int]) -> float:
    """The 99th percentile of so many windows' latencies, as a multiple of the median; one window after the other."""
    run = session(model, "bench")
    windows = itertools.cycle([{name: x[row : row + 1]} for row in range(len(x))])
    [times_ms] = in_turns({"": lambda: run.run(None, next(windows))}, count, clock_ns).values()
    return float(np.quantile(times_ms, 0.99) / statistics.median(times_ms))


def _release(modality: Modality, architecture: Architecture, windows: Windows) -> tuple[Encoder, Release]:
    """An encoder as its first weights have it, and its release with a classifier that is fitted to it."""
    name = modality.name
    statistics_ = RunningStatistics(modality)
    statistics_.update(windows.calibration.arrays[name])
    scaling = statistics_.scaling()
    plan = Plan(
        seed=1,
        rounds=1,
        window=WINDOW,
        modalities=(modality,),
        scaling={name: scaling},
        proxy={name: blob_ref(b"-")},
        proxy_windows=len(windows.calibration),
        method=Method(),
    )
    encoder = SplitAutoencoder(plan, {name: architecture}).encoders[name]
    assert isinstance(encoder, Encoder)
    known = windows.fitted.select(windows.fitted.labels >= 0)
    _learn(encoder, scaling.normalise(known.arrays[name]), known.labels, len(windows.classes))
    with torch.inference_mode():
        embeddings = encoder.eval()(torch.from_numpy(scaling.normalise(known.arrays[name])))[1].numpy()
    fitted = fit_classifier(embeddings, known.labels, len(windows.classes))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "release.zip"
        write_release(
            out,
            plan=plan,
            federation="bench",
            round=1,
            encoders={name: encoder},
            classifiers={name: ((name,), fitted.weight, fitted.bias)},
            labels=windows.classes,
            windows={name: windows.calibration.arrays[name]},
            metrics={},
        )
        return encoder, read_release(out)


def _learn(encoder: Encoder, x: Floats, labels: NDArray[np.int64], classes: int) -> None:
    """Some epochs of cross entropy."""
    generator = torch.Generator().manual_seed(1)
    head = torch.nn.Linear(encoder.sizes.embedding, classes)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], RATE)
    windows, truth = torch.from_numpy(x), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for rows in batches(len(truth), LEARNED_AT_ONCE, generator):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(head(encoder(windows[rows])[1]), truth[rows])
            torch.autograd.backward(loss)
            optimizer.step()


def signals(data: Path | None) -> Windows:
    """Windows of acc, and of acc and gyro side by side: HAPT's people where they are, else simulated ones."""
    names = ("acc", "gyro")
    data = data or Path(os.environ.get("MEKT_DATA") or ROOT.parent / "shared" / "data")
    is_there = hapt.locate(data, hapt.person(1)).is_file()
    if is_there:
        people = ((25, 25), (21, 24), (26, 30))
        played = [[read_recording(hapt.locate(data, each), names) for each in hapt.people(*some)] for some in people]
    else:
        played = [[simulate(each, duration_s=SIMULATED_S, modalities=names)] for each in range(3)]
    windows = _windows(played, (ACC, GYRO), "HAPT" if is_there else "the simulator")
    return windows.with_one("imu", lambda arrays: np.concatenate([arrays["acc"], arrays["gyro"]], axis=2))


def frames() -> Windows:
    """Windows of a simulated depth camera, and of one with twice as many pixels each way."""
    played = [[simulate(each, duration_s=SIMULATED_S, modalities=("depth",))] for each in range(3)]
    windows = _windows(played, (DEPTH,), "the simulator")
    return windows.with_one("large", lambda arrays: arrays["depth"].repeat(2, axis=2).repeat(2, axis=3))


def _windows(played: Sequence[Sequence[Recording]], modalities: Sequence[Modality], whose: str) -> Windows:
    classes = class_names([recording for some in played for recording in some])
    sets = [windows_of(some, modalities, WINDOW, classes) for some in played]
    return Windows(calibration=sets[0], fitted=sets[1], judged=sets[2], classes=classes, whose=whose)


def show_wearable(*, data: Path | None, as_json: bool, quick: bool, out: TextIO) -> int:
    """Print it of every encoder, on one core."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    runs, tail = (QUICK_RUNS, QUICK_TAIL) if quick else (RUNS, TAIL)
    of_signals, of_frames = signals(data), frames()
    cases = [(modality, each, of_signals) for modality in (ACC, FUSED) for each in SIGNALS]
    cases += [(modality, "conv", of_frames) for modality in CAMERAS]
    figures = [measure(modality, each, windows, runs=runs, tail=tail) for modality, each, windows in cases]
    if as_json:
        print(json.dumps({"wearable": [plain(each) for each in figures]}), file=out)
        return 0
    print(
        "\n".join(
            [*_windows_table(figures, of_signals.whose), "", *_steps_table(figures), "", *_streams_table(figures)]
        ),
        file=out,
    )
    return 0


def _windows_table(figures: Sequence[Figures], whose: str) -> list[str]:
    head = (
        "encoder",
        "window",
        "torch (us)",
        "fp32 (us)",
        "ratio",
        "int8 (us)",
        "ratio",
        "F1 lost",
        "fp32 (kB)",
        "int8 (kB)",
    )
    rows = [
        (
            each.encoder,
            " x ".join(map(str, each.window)),
            _us(each.eager_ms),
            _spread(each.fp32),
            f"{each.fp32.median_ms / each.eager_ms:.2f}",
            _spread(each.int8),
            f"{each.int8.median_ms / each.eager_ms:.2f}",
            _lost(each.int8),
            number(each.fp32.size_bytes / 1000),
            number(each.int8.size_bytes / 1000),
            each.shipped,
            f"{each.tail:.1f}",
            f"{each.busy_tail:.1f}",
        )
        for each in figures
    ]
    return [
        *_table((*head, "shipped", "p99 / median", "of the processor"), rows),
        "",
        "- Medians of runs in turns on one thread, the middle eight tenths of them, ratios to torch. `shipped` is the "
        f"smallest that is not slower; F1 lost is of people not learned from. Signals are of {whose}.",
    ]


def _steps_table(figures: Sequence[Figures]) -> list[str]:
    head = (
        "encoder",
        "window",
        "new",
        "window (k ops)",
        "step (k ops)",
        "cheaper",
        "window (us)",
        "step (us)",
        "cheaper",
    )
    rows = [
        (
            each.encoder.split()[0],
            " x ".join(map(str, each.window)),
            f"{each.new:.1%}",
            number(each.fp32.operations / 1000),
            number(each.step.operations / 1000),
            f"{each.fp32.operations / each.step.operations:.1f} x",
            _us(each.fp32.median_ms),
            _spread(each.step),
            f"{each.fp32.median_ms / each.step.median_ms:.1f} x",
            _lost(each.step),
        )
        for each in figures
    ]
    return _table((*head, "F1 lost"), rows)


def _streams_table(figures: Sequence[Figures]) -> list[str]:
    rows = [
        (
            each.encoder.split()[0],
            " x ".join(map(str, each.window)),
            f"{each.new * WINDOW.window_s:.2f}",
            _us(each.stream_whole_ms),
            _us(each.stream_steps_ms),
            f"{each.stream_whole_ms / each.stream_steps_ms:.1f} x",
        )
        for each in figures
    ]
    return _table(("encoder", "window", "every (s)", "whole windows (us)", "in steps (us)", "cheaper"), rows)


def _us(milliseconds: float) -> str:
    return number(1000 * milliseconds)


def _spread(form: Form) -> str:
    return f"{_us(form.median_ms)} ({_us(form.low_ms)}-{_us(form.high_ms)})"


def _lost(form: Form) -> str:
    return "-" if form.f1_lost is None else f"{form.f1_lost:+.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
