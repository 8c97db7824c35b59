"""Cells by their key, and outcomes on disk."""

import dataclasses
from pathlib import Path

import pytest

from bench.cells import PACKAGES, Cell, Shelf, cell_of, changes, code_fingerprint, of_older_code
from mekt.errors import StateError
from tests.bench.walker import outcome

CELL = Cell(protocol="hapt", method="fedavg", rounds=3)


def test_everything_that_decides_a_run_is_in_its_key() -> None:
    others = {
        "protocol": "urfall",
        "method": "moon",
        "rounds": 4,
        "rotation": 1,
        "seed": 1,
        "changes": changes(alpha=0.5),
        "proxy_windows": 64,
        "proxy_choice": "random",
        "labelled_share": 0.5,
        "only": "acc",
        "models": "lstm",
        "participants": 3,
        "timed": True,
        "quick": True,
        "noise": 1.0,
        "clip": 1.0,
        "curious": True,
        "aggregator": "median",
        "quarantine": "odd",
        "attack": "noise",
        "attackers": 0.5,
    }
    assert set(others) == {field.name for field in dataclasses.fields(Cell)}
    cells = [CELL, *(dataclasses.replace(CELL, **{name: value}) for name, value in others.items())]  # type: ignore[arg-type]
    assert len({cell.key for cell in cells}) == len(cells)
    assert [cell_of(cell.plain()) for cell in cells] == cells


def test_the_order_of_changes_does_not_matter_and_a_key_is_for_good() -> None:
    assert changes(eta=1, alpha=2) == changes(alpha=2, eta=1)
    assert CELL.key == "81ceba2cb550b97c"


def test_a_field_with_another_name_than_before_changes_no_key_so_that_what_was_kept_is_found(tmp_path: Path) -> None:
    curious = dataclasses.replace(CELL, curious=True)
    assert curious.key == "128816c14717e1b3"
    shelf = Shelf(tmp_path)
    shelf.put(curious, outcome(0.7), code="abc", took_s=1.5)
    [path] = shelf.folder.iterdir()
    written = path.read_text(encoding="utf-8")
    path.write_text(written.replace('"curious": true', '"attacked": true'), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != written
    found = shelf.get(curious)
    assert found is not None and found.outcome == outcome(0.7)


def test_what_is_kept_is_found_again_and_nothing_else(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    assert shelf.get(CELL) is None
    kept = shelf.put(CELL, outcome(0.7), code="abc", took_s=1.5)
    other = dataclasses.replace(CELL, seed=1)
    assert shelf.find([CELL, other]) == {CELL: kept} and kept.outcome == outcome(0.7)
    assert of_older_code({CELL: kept}, "abc") == [] and of_older_code({CELL: kept}, "abd") == [CELL]


@pytest.mark.parametrize("size", [0, 1, 40, 300])
def test_a_file_that_is_cut_short_counts_as_none(tmp_path: Path, size: int) -> None:
    shelf = Shelf(tmp_path)
    shelf.put(CELL, outcome(), code="abc", took_s=1.0)
    [path] = shelf.folder.iterdir()
    path.write_bytes(path.read_bytes()[:size])
    assert shelf.get(CELL) is None


def test_a_full_disk_is_an_error_of_the_state(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("no folder", encoding="utf-8")
    with pytest.raises(StateError):
        Shelf(tmp_path)


def test_the_fingerprint_is_of_what_decides_a_run(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "bench" / "tables.py").write_text("shown = 1\n", encoding="utf-8")
    before = code_fingerprint(tmp_path)
    (tmp_path / "bench" / "tables.py").write_text("shown = 2\n", encoding="utf-8")
    assert code_fingerprint(tmp_path) == before
    (tmp_path / "edge" / "trainer.py").write_text("learned = 1\n", encoding="utf-8")
    assert code_fingerprint(tmp_path) != before
