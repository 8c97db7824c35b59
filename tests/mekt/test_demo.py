"""The demo as it is run: a small one with simulated persons, its results as JSON; and what a terminal shows."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mekt.demo import Talk, _Account
from mekt.messages import Presence

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_rows_that_change_in_place() -> None:
    out = Terminal()
    talk = Talk(out)
    talk.row("a", "a trains", last=False)
    talk.row("b", "b trains", last=False)
    talk.row("a", "a delivered", last=True)
    assert out.getvalue().endswith("\x1b[2A\x1b[2Ka delivered\n\x1b[2Kb trains\n")
    talk.line("the round is over")
    talk.row("a", "a trains again", last=False)
    assert out.getvalue().endswith("\x1b[2Kb trains\nthe round is over\n\x1b[2Ka trains again\n")


def test_bytes_are_told_apart_by_round() -> None:
    def at(up: int, down: int) -> Presence:
        return Presence(
            state="online", session=1, activity="idle", modalities={"acc": "conv"}, up_bytes=up, down_bytes=down
        )

    account = _Account("pi", {0: at(1000, 9000), 1: at(1500, 9100), 2: at(2100, 9400)}, at(2200, 9500))
    assert account.plain()["rounds"] == [
        {"round": 1, "up": 1000, "down": 9000},
        {"round": 2, "up": 500, "down": 100},
        {"round": 3, "up": 600, "down": 300},
    ]
    assert account.line().split()[3::2] == ["2.2", "9.5", "1.0", "9.0", "0.6", "0.2"]


def test_elsewhere_a_row_is_one_line_once_it_is_final() -> None:
    out = io.StringIO()
    talk = Talk(out)
    for text, last in (("a trains", False), ("a delivered", True), ("a delivered", True)):
        talk.row("a", text, last=last)
    assert out.getvalue() == "a delivered\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """A demo of one round with three devices, in a folder from where no recordings are to be seen."""
    folder = tmp_path_factory.mktemp("far") / "away"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "MEKT_DATA"}
    command = [sys.executable, "-m", "mekt", "demo", "--rounds", "1", "--agents", "3", "--json"]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


def test_the_demo_needs_no_recordings(ran: "subprocess.CompletedProcess[str]") -> None:
    assert ran.returncode == 0, ran.stderr
    assert "simulated persons" in ran.stderr


def test_the_results_are_json_and_onnxruntime_agrees_with_torch(ran: "subprocess.CompletedProcess[str]") -> None:
    results = json.loads(ran.stdout)
    assert [each["round"] for each in results["rounds"]] == [0, 1]
    last = results["rounds"][-1]["metrics"]
    for name, value in results["onnxruntime"]["weighted_f1"].items():
        assert value == pytest.approx(last[f"weighted_f1/{name}"], abs=1e-9)
    assert 0 < results["onnxruntime"]["largest_difference"] < 1e-4
    assert [each["modalities"] for each in results["devices"].values()] == [["acc"], ["gyro"], ["acc", "gyro"]]
    assert all(each["up_bytes"] > 10_000 and each["down_bytes"] > 100_000 for each in results["devices"].values())
    for each in results["devices"].values():
        [round_one] = each["rounds"]
        assert 0.9 * each["up_bytes"] < round_one["up"] <= each["up_bytes"]
    assert Path(results["release"]).is_file()


def test_every_part_was_a_process_of_its_own_and_none_is_left(ran: "subprocess.CompletedProcess[str]") -> None:
    processes = json.loads(ran.stdout)["processes"]
    assert set(processes) == {"broker", "coordinator", "device-1", "device-2", "device-3"}
    assert len(set(processes.values())) == len(processes)
    for pid in processes.values():
        command = Path(f"/proc/{pid}/cmdline")
        assert not command.exists() or b"mekt" not in command.read_bytes()
