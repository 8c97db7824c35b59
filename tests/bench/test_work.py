"""Runs in processes: none is lost, none is repeated, one that fails does not end the others."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cells import Cell, Kept, Shelf
from bench.pool import Failed
from bench.work import finish, kept_of
from tests.bench.walker import FREE_WALKS
from tests.processes import processes_in, until

ROOT = Path(__file__).parents[2]
# Finishes twelve cells in a folder, two at a time. Whoever runs in the background ignores Ctrl-C; this one does not.
FINISH = """
import signal
import sys
from pathlib import Path
from tests.bench.test_work import finish_in
signal.signal(signal.SIGINT, signal.default_int_handler)
finish_in(Path(sys.argv[1]), ["walk"] * 12)
"""


def cells_of(methods: list[str]) -> list[Cell]:
    return [Cell(protocol="hapt", method=method, rounds=2, seed=seed) for seed, method in enumerate(methods)]


def finish_in(folder: Path, methods: list[str], *, code: str = "now", fresh: bool = False) -> list[Failed]:
    cells, shelf = cells_of(methods), Shelf(folder)
    command = [sys.executable, "-m", "tests.bench.walker", str(folder / "journal")]
    kept = kept_of(shelf, cells, code, fresh=fresh)
    return finish(cells, kept, shelf, command=command, code=code, jobs=2, out=sys.stderr)


def journal(folder: Path) -> list[str]:
    path = folder / "journal"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def kept_in(folder: Path, methods: list[str]) -> dict[Cell, Kept]:
    return Shelf(folder).find(cells_of(methods))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_what_was_done_when_it_was_ended_is_not_done_again(tmp_path: Path, how: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FINISH, str(tmp_path)]
    (tmp_path / "hold").touch()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: process.poll() is not None or len(kept_in(tmp_path, ["walk"] * 12)) >= 3)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(how)
        try:
            said = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    done = set(kept_in(tmp_path, ["walk"] * 12))
    assert 3 <= len(done) < 12 and process.returncode != 0
    assert how is signal.SIGKILL or f"Interrupted. {len(done)} of 12 runs are kept" in said
    # The processes that ran cells end with it, and begin nothing but what they were given already.
    until(lambda: not processes_in(tmp_path))
    before = journal(tmp_path)
    assert len(before) <= FREE_WALKS + 2
    (tmp_path / "hold").unlink()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30)
    assert f"{len(done)} of 12 runs are there already" in again.stderr
    assert len(kept_in(tmp_path, ["walk"] * 12)) == 12
    begun = journal(tmp_path)[len(before) :]
    assert sorted(begun) == sorted(f"walk {cell.seed}" for cell in set(cells_of(["walk"] * 12)) - done)


def test_a_run_that_fails_is_reported_and_the_others_end_well(tmp_path: Path) -> None:
    methods = ["walk", "fall", "die", "walk", "refuse", "walk", "walk"]
    failed = {each.cell.method: each for each in finish_in(tmp_path, methods)}
    assert {cell.seed for cell in kept_in(tmp_path, methods)} == {0, 3, 5, 6}
    assert failed["fall"].reason.startswith("ValueError: the floor is wet (") and "walker.py:" in failed["fall"].reason
    assert "SIGKILL" in failed["die"].reason and failed["die"].exit_code == 1
    assert failed["refuse"].reason == "changes.alpha: expected less" and failed["refuse"].exit_code == 2


def test_a_process_that_cannot_even_begin_says_why(tmp_path: Path) -> None:
    [cell] = cells_of(["walk"])
    command = [sys.executable, "-c", "raise SystemExit('no torch here')"]
    [failed] = finish([cell], {}, Shelf(tmp_path), command=command, code="now", jobs=1, out=io.StringIO())
    assert failed.reason == "its process ended with code 1: no torch here"


def test_runs_of_other_code_are_named_and_made_again_only_on_demand(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finish_in(tmp_path, ["walk", "walk"], code="old")
    assert finish_in(tmp_path, ["walk", "walk", "walk"], code="new") == [] and len(journal(tmp_path)) == 3
    assert "2 of 2 kept runs were made by other code" in caplog.text
    finish_in(tmp_path, ["walk", "walk", "walk"], code="new", fresh=True)
    assert sorted(journal(tmp_path)) == ["walk 0", "walk 0", "walk 1", "walk 1", "walk 2"]
