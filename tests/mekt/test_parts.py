"""The parts as processes: they start, are killed, start again with the same log, and leave nothing behind."""

from pathlib import Path

import pytest

from mekt.errors import MektError, SettingsError
from mekt.parts import PartError, ended, fresh_folder, parts_in
from tests.processes import lives, until


def test_whoever_started_a_part_ends_with_its_code() -> None:
    assert all(ended(each.exit_code, "why").exit_code == each.exit_code for each in MektError.__subclasses__())
    killed = ended(-9, "device-1 ended")
    assert (type(killed), killed.exit_code, str(killed)) == (PartError, 1, "device-1 ended")


def test_a_part_that_ended_is_named_with_its_last_words(tmp_path: Path) -> None:
    with parts_in(tmp_path) as parts:
        parts.start("device-1", "status")
        until(lambda: parts.ended() != {})
        assert parts.ended() == {"device-1": SettingsError.exit_code}
        with pytest.raises(SettingsError, match=r"device-1 ended with code 2: mekt: status: name .*\(all of it: .*"):
            parts.check()


def test_a_part_that_was_killed_starts_again_with_the_same_arguments_and_log(tmp_path: Path) -> None:
    with parts_in(tmp_path) as parts:
        parts.start("device-1", "--version")
        until(lambda: parts.ended() != {})
        parts.start_again("device-1")
        until(lambda: parts.ended() != {})
        first, second = parts.last_lines("device-1", 5)
        assert first == second and first.startswith("mekt ")
        parts.start("device-1", "status", "--federation", "ward", "--port", "1")
        parts.kill("device-1")
        assert parts.ended() == {"device-1": -9}
        with pytest.raises(PartError, match="ended with code -9"):
            parts.check()


def test_no_part_outlives_its_block_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), parts_in(tmp_path) as parts:
        parts.start("device-1", "status", "--federation", "ward", "--port", "1")
        pid = parts.running["device-1"].pid
        raise KeyError
    assert not lives(pid)


def test_a_fresh_folder_is_empty_and_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [fresh_folder(None, "chaos").name for _ in range(2)] == ["chaos-1", "chaos-2"]
    assert fresh_folder(Path("here"), "chaos") == tmp_path / "here"
    (tmp_path / "here" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="not empty"):
        fresh_folder(Path("here"), "chaos")
