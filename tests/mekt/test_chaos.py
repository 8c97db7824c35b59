"""The proof by kills, a short one for real."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None,
    reason="mosquitto is not installed",
)


@needs_mosquitto
def test_a_federation_that_is_killed_now_and_then_ends_as_if_nobody_had(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MEKT_DATA"}
    command = [sys.executable, "-m", "mekt", "chaos", "--kills", "3", "--rounds", "2", "--seed", "0", "--json"]
    done = subprocess.run(
        [*command, "--broker", "forgetful", "--out", str(tmp_path / "out")],
        env=environment | {"PYTHONPATH": str(ROOT)},
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
    assert compared.count("manifest.json") == 3 and "encoders-00002.weights" in compared
    assert "verdict: identical" in done.stderr
