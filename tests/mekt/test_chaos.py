"""The proof by kills: a short one for real, and what ends one before its time."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mekt.chaos import ChaosError, run_chaos
from mekt.process import Stop
from tests.mekt.conftest import needs_mosquitto
from tests.processes import processes_in, until

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0

pytestmark = needs_mosquitto


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "mekt", "chaos", "--broker", "forgetful", "--out", str(out), *arguments]


def environment() -> dict[str, str]:
    """As it is, but for recordings: the persons are to be simulated."""
    return {name: value for name, value in os.environ.items() if name != "MEKT_DATA"} | {"PYTHONPATH": str(ROOT)}


def test_a_federation_that_is_killed_now_and_then_ends_as_if_nobody_had(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "out", "--kills", "3", "--rounds", "2", "--json"),
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["identical"] and results["rounds"] == 2
    [(memory, run)] = results["runs"].items()
    assert memory == "forgetful" and run["differences"] == []
    assert sum(len(each["killed"]) for each in run["kills"]) == 3
    compared = [name.rsplit("/", 1)[-1] for name in results["files"]]
    assert sum(name.endswith(".zip") for name in compared) == 3 and "encoders-00002.weights" in compared
    assert compared.count("model") == results["devices"] == 3
    assert "verdict: identical" in done.stderr
    assert processes_in(tmp_path) == []


def test_ctrl_c_ends_it_and_leaves_no_process(tmp_path: Path) -> None:
    running = subprocess.Popen(command(tmp_path / "out"), env=environment(), cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        until(lambda: running.poll() is not None or sum("device.toml" in line for line in processes_in(tmp_path)) >= 3)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.wait(WAIT_S) == 130
    finally:
        running.kill()
        running.wait()
    assert processes_in(tmp_path) == []


def test_a_federation_that_stands_still_is_told_with_its_logs_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mekt.chaos.PATIENCE_S", 0.0)
    monkeypatch.delenv("MEKT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ChaosError, match=r"round 1 stands still for 0 s, waiting for nobody; the logs in .* end with:"):
        run_chaos(
            kills=1,
            seed=0,
            rounds=1,
            agents=1,
            brokers=("forgetful",),
            data=None,
            out=tmp_path / "out",
            port=0,
            secure=False,
            as_json=True,
            stop=Stop(),
        )
    assert processes_in(tmp_path) == []
