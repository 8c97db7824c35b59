"""A wearable has onnxruntime, paho-mqtt, numpy and msgpack, and nothing else: releases work there all the same."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from mekt.broker import free_port
from sensors.recording import write_recording
from sensors.simulator import simulate
from tests.export.small import ACC, DEPTH, GYRO, parts_of

ROOT = Path(__file__).parents[1]
PACKAGES = ("export", "edge", "sensors", "mekt")
WEARABLE = ("onnxruntime", "paho-mqtt", "numpy", "msgpack")
# What only those need who train, export or test.
ABSENT = ("torch", "onnx", "onnxscript", "hypothesis", "pytest", "coordinator")


def required(names: tuple[str, ...]) -> dict[str, importlib.metadata.Distribution]:
    """These distributions and all that they need, without extras, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            for requirement in found[name].requires or ():
                if "extra ==" not in requirement:
                    left.append(re.split(r"[^A-Za-z0-9_.-]", requirement)[0])
    return found


@pytest.fixture(scope="module")
def wearable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a clean virtual environment that sees exactly what a wearable has."""
    folder = tmp_path_factory.mktemp("wearable")
    venv.create(folder / "venv", symlinks=True)
    [site] = (folder / "venv").glob("lib/python*/site-packages")
    for distribution in required(WEARABLE).values():
        tops = {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            target = Path(str(distribution.locate_file(top)))
            # Several distributions may share a folder, such as google/.
            if target.is_dir() and not target.name.endswith(".dist-info"):
                for path in distribution.files or ():
                    if path.parts[0] == top and "__pycache__" not in path.parts:
                        link = site / path
                        link.parent.mkdir(parents=True, exist_ok=True)
                        link.symlink_to(Path(str(distribution.locate_file(path))))
            else:
                (site / top).symlink_to(target)
    for package in PACKAGES:
        (site / package).symlink_to(ROOT / package)
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "ward-3-00007"
    parts_of(ACC, GYRO, DEPTH).write(path)
    return path


def said(python: Path, code: str, *arguments: str | Path) -> str:
    """What `code` prints in that environment, where nothing of this one is to be seen."""
    done = subprocess.run(
        [python, "-c", code, *arguments],
        cwd=python.parent,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_environment_is_clean(wearable: Path) -> None:
    code = (
        "import importlib.util, sys\n"
        "print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is not None))\n"
    )
    assert said(wearable, code, *ABSENT).split() == []
    assert said(wearable, code, "onnxruntime", "paho", "numpy", "msgpack", *PACKAGES).split() == [
        "onnxruntime",
        "paho",
        "numpy",
        "msgpack",
        *PACKAGES,
    ]


def test_what_a_wearable_installs_brings_neither_torch_nor_onnx_along() -> None:
    assert set(WEARABLE) <= set(required(WEARABLE))
    assert set(required(WEARABLE)) & set(ABSENT) == set()


def test_a_release_runs_on_a_recording(wearable: Path, release: Path, tmp_path: Path) -> None:
    write_recording(tmp_path / "body.npz", simulate(1, duration_s=6))
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge.infer import run_infer\n"
        "code = run_infer(Path(sys.argv[1]), Path(sys.argv[2]), as_json=True)\n"
        "print(code, 'torch' in sys.modules, 'onnx' in sys.modules)\n"
    )
    *lines, last = said(wearable, code, release, tmp_path / "body.npz").splitlines()
    assert last == "0 False False"
    verdicts = [json.loads(line) for line in lines]
    assert len(verdicts) == 11
    assert all(each["modalities"] == ["acc", "gyro", "depth"] for each in verdicts)
    here = subprocess.run(
        [sys.executable, "-c", code, release, tmp_path / "body.npz"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # The same models on the same windows by the same onnxruntime: the same answers.
    assert [told(line) for line in here.stdout.splitlines()[:-1]] == [told(line) for line in lines]


def told(line: str) -> tuple[float, str, float]:
    verdict = json.loads(line)
    return verdict["start_s"], verdict["label"], verdict["probability"]


def test_a_release_is_scored_on_labelled_recordings(wearable: Path, release: Path, tmp_path: Path) -> None:
    write_recording(tmp_path / "body.npz", simulate(1, duration_s=60))
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge.score import score_release\n"
        "scores = score_release(Path(sys.argv[1]), [Path(sys.argv[2])])\n"
        "print(scores.windows, *sorted(scores.weighted_f1))\n"
    )
    windows, *names = said(wearable, code, release, tmp_path / "body.npz").split()
    assert 0 < int(windows) < 119
    assert names == ["acc", "depth", "fused", "gyro"]


def test_the_daemon_decides_and_publishes_there(wearable: Path, release: Path, tmp_path: Path) -> None:
    write_recording(tmp_path / "body.npz", simulate(1, duration_s=20))
    (tmp_path / "wearable.toml").write_text(
        f"""
        repeat_s = 0
        broker = {{ port = {free_port()} }}
        publish = {{ topic = "ward/anna" }}
        home_assistant = {{ id = "anna", name = "Anna" }}
        release = {{ file = "{release}" }}
        decide = {{ least_s = 1, alarms = {{ walk = {{ threshold = 0.9 }} }} }}
        [[sensors]]
        kind = "replay"
        modalities = ["acc", "gyro", "depth"]
        recordings = ["body.npz"]
        speed = 1e6
        """
    )
    code = (
        "import sys\n"
        "from mekt.cli import main\n"
        "code = main(['infer', '--config', sys.argv[1]])\n"
        "print(code, 'torch' in sys.modules, 'onnx' in sys.modules)\n"
    )
    *lines, last = said(wearable, code, tmp_path / "wearable.toml").splitlines()
    assert last == "0 False False"
    decided = [json.loads(line) for line in lines]
    assert len(decided) == 39
    assert all(each["modalities"] == ["acc", "gyro", "depth"] for each in decided)
    assert any(each["activity"] for each in decided)
