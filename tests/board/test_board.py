"""The board without an emulator: a Python script answers over its serial port."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.board.board import Board, BoardError
from tests.board.card import Parts, parts
from tests.board.rig import PHASES, Figures, ProofError, Wearable, draw
from tests.debian import Emulator, MissingError

ANSWERS = """
import sys
print("[    1.0] a kernel's line", flush=True)
print("up 2.5", flush=True)
for line in sys.stdin:
    if "poweroff" in line:
        break
    if "infer" in line:
        print('{"time": "2026-11-27T01:27:52Z", "activity": "WALKING"}', flush=True)
        print("2026-11-27 01:27:29 INFO    rollout 2: trial", flush=True)
    print("| one", "| two", "done 3", sep="\\n", flush=True)
"""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Parts(
        emulator=Emulator(command=(sys.executable, "-c", ANSWERS)),
        kernel=tmp_path,
        initramfs=b"",
        root=tmp_path,
        profile=tmp_path,
    )
    with Board(made, tmp_path / "card", tmp_path / "console.log") as made_board:
        yield made_board


def test_what_a_command_there_wrote_and_how_it_ended_comes_back(board: Board) -> None:
    assert board.switch_on() > 0
    said = board.run("mekt doctor", 10.0)
    assert (said.code, said.lines) == (3, ["one", "two"])
    board.switch_off()
    with pytest.raises(BoardError, match="the board is off"):
        board.until_decided(10.0)


def test_decisions_are_counted_and_phases_read(board: Board) -> None:
    wearable = Wearable(board, Figures())
    wearable.boot()
    assert board.decisions == 1 and len(wearable.figures.decided_s) == 1
    wearable.until(2, "testing", 10.0)
    assert wearable.phase == (2, "trial") and not wearable.is_at(2, "good")
    board.cut()
    with pytest.raises(BoardError, match="the board is off"):
        board.run("mekt doctor", 10.0)


def test_a_release_that_is_refused_proves_nothing(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Board, "text", "rollout 2: refused (disagrees)")
    with pytest.raises(ProofError, match="refused"):
        Wearable(board, Figures()).is_at(2, "testing")


def test_cuts_are_drawn_and_meet_every_phase() -> None:
    cuts = draw(1, 6)
    assert cuts == draw(1, 6) != draw(2, 6)
    assert {each.phase for each in cuts} == set(PHASES)


def test_it_says_what_is_missing_where_no_card_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="e2fsprogs"):
        parts(tmp_path / "cache")
