"""`mekt bench` as a person meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mekt.test_cli import mekt, refused
from tests.recordings import HAPT

SMALL = ("bench", "compare", "hapt", "--quick", "--methods", "random,fedavg", "--seeds", "1", "--rounds", "1")
needs_hapt = pytest.mark.skipif(not HAPT.is_dir(), reason=f"no recordings in {HAPT}; name their folder with MEKT_DATA")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small comparison has been made."""
    folder = tmp_path_factory.mktemp("bench")
    done = mekt(*SMALL, "--data", HAPT.parent, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "| MM-FedAvg " in done.stdout and "2 of 2 runs" in done.stderr
    return folder


@needs_hapt
def test_a_comparison_leaves_table_json_and_runs(out: Path) -> None:
    assert "| random encoders " in (out / "compare-quick.md").read_text(encoding="utf-8")
    results = json.loads((out / "compare-quick.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in results["tables"][0]["rows"]] == ["random", "fedavg"]
    assert results["tables"][0]["rows"][1]["per_device_and_round"]["up_bytes"]["mean"] > 100_000
    assert len(list((out / "cells").glob("hapt-r0-s0-*.json"))) == 2


@needs_hapt
def test_the_same_again_runs_nothing_and_is_json_on_demand(out: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    done = mekt(*SMALL, "--data", HAPT.parent, "--out", out, "--json")
    assert "2 of 2 runs are there already" in done.stderr
    assert json.loads(done.stdout) == json.loads((out / "compare-quick.json").read_text(encoding="utf-8"))
    assert {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == before


@needs_hapt
def test_without_matplotlib_there_is_no_picture_and_one_line_says_why(out: Path) -> None:
    (out / "compare-quick.png").unlink(missing_ok=True)
    probe = "import sys\nsys.modules['matplotlib'] = None\nfrom mekt.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", probe, *SMALL, "--data", str(HAPT.parent), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0 and "| MM-FedAvg " in done.stdout
    assert "No picture: matplotlib is not installed here; " in done.stderr and '".[bench]"' in done.stderr
    assert not (out / "compare-quick.png").exists()


def test_missing_recordings_are_named_for_each_reason_once(tmp_path: Path) -> None:
    done = mekt(*SMALL, "--data", tmp_path, "--out", tmp_path / "out", "--json")
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert "2 runs failed: " in done.stderr and str(tmp_path) in done.stderr.splitlines()[-2]
    assert len(json.loads(done.stdout)["failed"]) == 2


def test_what_there_is_not_is_named_with_what_there_is(tmp_path: Path) -> None:
    assert (
        "no protocol is called happt" in (text := refused(2, "bench", "compare", "happt")) and "hapt, utd-mhad" in text
    )
    text = refused(2, "bench", "bytes", "--methods", "fedavg,fedawg")
    assert "no method is called fedawg" in text and "fedmekt-s" in text
    text = refused(2, "bench", "poison", "--attacks", "noise,hammer")
    assert "no attack is called hammer" in text and "sign-flip" in text
    text = refused(2, "bench", "poison", "--defences", "mean + wall")
    assert "no defence is called mean + wall" in text and "mean + quarantine" in text
    assert str(tmp_path / "nowhere") in refused(2, "bench", "proxy", "--data", tmp_path / "nowhere")


def test_methods_and_protocols_are_listed() -> None:
    done = mekt("bench", "list", "--json")
    listed = json.loads(done.stdout)
    assert "fedmekt-s" in listed["methods"] and "hapt" in listed["protocols"]
