"""What the process of `mekt infer` takes here: memory, time to the first word, processor: `mekt bench infer`.

What a window takes, without a process around it, says `mekt bench wearable`. Here each figure is that of a process as a
user would start it, side by side with a bare one that does the least: it imports onnxruntime and numpy and holds the
same sessions. Encoders have the architecture that the product has, and are not trained; that changes no figure here.
The source plays a simulated body in real time, 50 Hz.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from edge.updates.slots import RELEASES
from export.writer import write_release
from mekt.broker import Broker
from mekt.encoders import Encoder, SplitAutoencoder
from mekt.files import BlobStore, make_folder
from mekt.modality import Scaling, WindowSpec
from mekt.plan import BlobRef, Method, Plan
from mekt.schema import plain
from sensors.layouts import ACC, GYRO
from sensors.recording import write_recording
from sensors.simulator import simulate

LABELS = ("sitting", "standing", "walking", "lying", "fall")
SPEC = WindowSpec(window_s=2.56, stride_s=1.28)
STARTS = 15
SHORT_S = 10.0
WARM_S, LIVE_S, QUICK_LIVE_S = 12.0, 60.0, 10.0
ROOT = Path(__file__).parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
# What a bare process does. Its arguments: the release, how many windows to run, and statements about session options.
BARE = """
import json, sys, time, zipfile
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 4
exec(sys.argv[3])
files = zipfile.ZipFile(sys.argv[1])
names = [name for name in files.namelist() if name.endswith(".onnx")]
sessions = [ort.InferenceSession(files.read(name), options, providers=["CPUExecutionProvider"]) for name in names]
print("ready", flush=True)
feeds = []
for session in sessions:
    entry = session.get_inputs()[0]
    shape = [each if isinstance(each, int) else 1 if place == 0 else 128 for place, each in enumerate(entry.shape)]
    feeds.append({entry.name: np.zeros(shape, np.float32)})
took_s, began_s = [], time.process_time()
for _ in range(int(sys.argv[2])):
    one_s = time.perf_counter()
    for session, feed in zip(sessions, feeds):
        session.run(None, feed)
    took_s.append(time.perf_counter() - one_s)
    time.sleep(0.02)
busy_s = time.process_time() - began_s
print(json.dumps([1000 * float(np.median(took_s)), 1000 * busy_s / len(took_s)]) if took_s else "", flush=True)
time.sleep(3600)
"""
OURS = (
    "options.intra_op_num_threads = options.inter_op_num_threads = 1; "
    "options.add_session_config_entry('session.intra_op.allow_spinning', '0'); options.enable_cpu_mem_arena = False"
)
# What can be told to onnxruntime, each beside what the product tells it.
OPTIONS = {
    "as the product has it": OURS,
    "onnxruntime's own defaults": "pass",
    "two threads": "options.intra_op_num_threads = 2; options.inter_op_num_threads = 1",
    "with the arena": f"{OURS}; options.enable_cpu_mem_arena = True",
    "without the memory pattern": f"{OURS}; options.enable_mem_pattern = False",
    "basic optimisation": f"{OURS}; options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC",
    "no optimisation": f"{OURS}; options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL",
}
SETTINGS = """
repeat_s = 60
[[sensors]]
kind = "replay"
modalities = ["acc", "gyro"]
recordings = ["body.npz"]
live = true
[release]
file = "release.zip"
[decide.alarms]
fall = { threshold = 0.5 }
"""
# As fast as it is read: the first decision then waits for no time to pass.
AT_ONCE = SETTINGS.replace("live = true", "speed = 1e6").replace("body.npz", "short.npz")
BY_FILE = '[release]\nfile = "release.zip"\n'
# A release that came over the air before: its file alone, which is found and run.
OVER_THE_AIR = """
[updates]
federation = "bench"
device = "anna"
state = "state"
[updates.broker]
port = %d
"""
TOLD = """
[broker]
port = %d
[publish]
topic = "home/anna"
[home_assistant]
id = "anna"
name = "Anna's watch"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """One process at work: resident memory, processor seconds an hour, how often its threads wake up a second."""

    what: str
    resident_mb: float
    cpu_s_per_h: float
    wakes_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """From the start of a process to its first word, medians: on the clock, and of the processor."""

    what: str
    wall_s: float
    busy_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One way to make sessions: milliseconds of a window, in all and of the processor, and resident memory."""

    what: str
    median_ms: float
    busy_ms: float
    resident_mb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """All of it."""

    running: tuple[Running, ...]
    starts: tuple[Start, ...]
    options: tuple[Option, ...]


def measure(folder: Path, *, quick: bool = False) -> Figures:
    """Everything, in `folder`, which is empty."""
    make_release(folder / "release.zip")
    live_s = QUICK_LIVE_S if quick else LIVE_S
    write_recording(folder / "body.npz", simulate(1, duration_s=WARM_S + live_s + 60))
    write_recording(folder / "short.npz", simulate(1, duration_s=SHORT_S))
    (folder / "plain.toml").write_text(SETTINGS)
    (folder / "at-once.toml").write_text(AT_ONCE)
    release = str(folder / "release.zip")
    bare = [sys.executable, "-c", BARE, release, "0", OURS]
    lines = [sys.executable, "-m", "mekt", "infer", "--config"]
    by_lines = [*lines[:-1], "--release", release, "--source", str(folder / "short.npz")]
    starts = {"bare": bare, "mekt infer": [*lines, str(folder / "at-once.toml")], "mekt infer, a recording": by_lines}
    kept = BlobStore(make_folder(folder / "state") / RELEASES)
    kept.put((folder / "release.zip").read_bytes())
    with Broker(folder / "broker") as broker:
        (folder / "told.toml").write_text(SETTINGS + TOLD % broker.port)
        (folder / "updated.toml").write_text(SETTINGS.replace(BY_FILE, OVER_THE_AIR % broker.port))
        commands = {
            "bare": bare,
            "mekt infer": [*lines, str(folder / "plain.toml")],
            "mekt infer, MQTT, Home Assistant": [*lines, str(folder / "told.toml")],
            "mekt infer, updates over the air": [*lines, str(folder / "updated.toml")],
        }
        running = tuple(_running(what, command, folder, live_s) for what, command in commands.items())
    return Figures(
        running=running,
        starts=tuple(_starts(starts, folder, 3 if quick else STARTS)),
        options=tuple(_option(what, release, text, folder, 50 if quick else 500) for what, text in OPTIONS.items()),
    )


def make_release(path: Path) -> None:
    """A release of acc and gyro, encoders as the product has them, not trained."""
    kinds = (ACC, GYRO)
    plan = Plan(
        seed=0,
        rounds=1,
        window=SPEC,
        modalities=kinds,
        scaling={each.name: Scaling(mean=(0.0,) * each.channels, std=(1.0,) * each.channels) for each in kinds},
        proxy={each.name: BlobRef(sha256=bytes(32), size_bytes=1) for each in kinds},
        proxy_windows=8,
        method=Method(knowledge_rows=1),
    )
    torch.manual_seed(0)
    model = SplitAutoencoder(plan, {each.name: "conv" for each in kinds})
    encoders = {name: each for name, each in model.encoders.items() if isinstance(each, Encoder)}
    rng = np.random.default_rng(0)
    groups = {"acc": ("acc",), "gyro": ("gyro",), "fused": ("acc", "gyro")}
    write_release(
        path,
        plan=plan,
        federation="bench",
        round=1,
        encoders=encoders,
        classifiers={
            name: (
                names,
                rng.normal(size=(len(LABELS), plan.method.embedding * len(names))).astype(np.float32),
                np.zeros(len(LABELS), np.float32),
            )
            for name, names in groups.items()
        },
        labels=LABELS,
        windows={each.name: rng.normal(size=(4, *SPEC.shape(each))).astype(np.float32) for each in kinds},
        metrics={},
    )


@contextmanager
def _process(command: Sequence[str], folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """A process of its own, with what is compiled kept from one to the next, as where it is installed."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env = kept | {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _running(what: str, command: Sequence[str], folder: Path, live_s: float) -> Running:
    with _process(command, folder) as process:
        # What this one compiles is in the memory of no later one.
        time.sleep(WARM_S / 2)
    with _process(command, folder) as process:
        time.sleep(WARM_S)
        before = _used(process.pid)
        time.sleep(live_s)
        after = _used(process.pid)
        return Running(
            what=what,
            resident_mb=_resident_mb(process.pid),
            cpu_s_per_h=3600 * (after[0] - before[0]) / live_s,
            wakes_per_s=(after[1] - before[1]) / live_s,
        )


def _starts(commands: Mapping[str, Sequence[str]], folder: Path, count: int) -> Iterator[Start]:
    """In turn, so that what else the machine does meets all of them alike; the first of each makes what is compiled."""
    taken: dict[str, list[tuple[float, float]]] = {what: [] for what in commands}
    for _ in range(count + 1):
        for what, command in commands.items():
            began_s = time.perf_counter()
            with _process(command, folder) as process:
                assert process.stdout is not None and process.stdout.readline(), f"{what} says nothing"
                taken[what].append((time.perf_counter() - began_s, _used(process.pid)[0]))
    for what, all_of_it in taken.items():
        walls, busy = zip(*all_of_it[1:], strict=True)
        yield Start(what=what, wall_s=statistics.median(walls), busy_s=statistics.median(busy))


def _option(what: str, release: str, text: str, folder: Path, windows: int) -> Option:
    command = [sys.executable, "-c", BARE, release, str(windows), text]
    with _process([*command[:4], "1", text], folder) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
    with _process(command, folder) as process:
        assert process.stdout is not None
        process.stdout.readline()
        median_ms, busy_ms = json.loads(process.stdout.readline())
        return Option(what=what, median_ms=median_ms, busy_ms=busy_ms, resident_mb=_resident_mb(process.pid))


def _resident_mb(pid: int) -> float:
    [line] = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def _used(pid: int) -> tuple[float, int]:
    """Processor seconds, and how often a thread has waited."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    waits = 0
    for task in Path(f"/proc/{pid}/task").glob("*/status"):
        [line] = [each for each in task.read_text().splitlines() if each.startswith("voluntary")]
        waits += int(line.split()[1])
    return (int(fields[11]) + int(fields[12])) / TICKS, waits


def show_infer(*, as_json: bool, quick: bool, out: TextIO) -> int:
    """Print what it takes."""
    with tempfile.TemporaryDirectory() as place:
        figures = measure(Path(place), quick=quick)
    if as_json:
        print(json.dumps(plain(figures)), file=out)
        return 0
    print("\n\n".join("\n".join(each) for each in tables(figures)), file=out)
    return 0


def tables(figures: Figures) -> list[list[str]]:
    """Markdown."""
    bare, first = figures.running[0], figures.starts[0]
    running = [
        (
            each.what,
            f"{each.resident_mb:.1f} MB",
            f"{each.resident_mb / bare.resident_mb:.2f}",
            f"{each.cpu_s_per_h:.0f} s",
            f"{each.wakes_per_s:.1f}",
        )
        for each in figures.running
    ]
    starts = [
        (
            each.what,
            f"{each.wall_s:.2f} s",
            f"{each.wall_s / first.wall_s:.2f}",
            f"{each.busy_s:.2f} s",
            f"{each.busy_s / first.busy_s:.2f}",
        )
        for each in figures.starts
    ]
    options = [
        (each.what, f"{each.median_ms:.2f} ms", f"{each.busy_ms:.2f} ms", f"{each.resident_mb:.1f} MB")
        for each in figures.options
    ]
    return [
        _table(("while streaming", "resident", "x bare", "processor an hour", "wake-ups a second"), running),
        _table(("to the first word", "time", "x bare", "processor", "x bare"), starts),
        _table(("sessions", "a window, median", "processor", "resident"), options),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
