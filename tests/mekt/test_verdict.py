"""What kills did: the files that are compared, every difference, and how recovery is told."""

import contextlib
import hashlib
import sqlite3
from pathlib import Path

from mekt.verdict import Struck, closing_step, differences, hashes, recovery, summary


def struck(*victims: str, again: bool = False, back_s: float = 1.0, on_s: float = 0.5) -> Struck:
    times = {"at_s": 12.0, "away_s": 1.0, "back_s": back_s, "on_s": on_s}
    return Struck(round=1, step="training", victims=victims, again=again, **times)


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_releases_and_models_are_compared_and_nothing_that_is_half_written(tmp_path: Path) -> None:
    names = [
        "state/releases/demo-00001.zip",
        "state/releases/demo-00002.zip",
        "state/encoders-00001.weights",
    ]
    for name in (*names, "state/releases/.demo-00003.zip.7.tmp", "state/.encoders-2.7.tmp", "logs/x.log"):
        written(tmp_path / name, name)
    written(tmp_path / "device-1" / "device.toml")
    (tmp_path / "device-1" / "state").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "device-1" / "state" / "device.sqlite")) as memory:
        memory.execute("CREATE TABLE model (sha256 BLOB, weights BLOB)")
        memory.execute("INSERT INTO model VALUES (?, ?)", (b"", b"learned"))
        memory.commit()
    assert sorted(hashes(tmp_path)) == sorted([*names, "device-1/model"])
    assert hashes(tmp_path)["device-1/model"] == hashlib.sha256(b"learned").hexdigest()
    before = hashes(tmp_path)
    written(tmp_path / names[1], "another byte")
    assert differences(before, hashes(tmp_path)) == [f"{names[1]} differs"]


def test_every_difference_is_named() -> None:
    assert differences({"a": "1", "b": "1"}, {"a": "1", "b": "1"}) == []
    found = differences({"a": "1", "b": "1"}, {"b": "2", "c": "3"})
    assert found == ["a is missing", "b differs", "c should not be there"]


def test_what_the_coordinator_was_at_is_seen_from_its_files(tmp_path: Path) -> None:
    assert closing_step(tmp_path, 1) == "distilling"
    written(tmp_path / "encoders-00001.weights")
    assert closing_step(tmp_path, 1) == "distilling"
    written(tmp_path / "encoders-00002.weights")
    assert closing_step(tmp_path, 1) == "classifying"
    written(tmp_path / "releases" / "demo-00001.zip")
    assert closing_step(tmp_path, 1) == "classifying"
    written(tmp_path / "releases" / "demo-00002.zip")
    assert closing_step(tmp_path, 1) == "reporting"


def test_recovery_is_told_by_who_was_killed() -> None:
    all_of_them = [struck("device-1"), struck("device-2", back_s=3.0), struck("broker", "device-2", again=True)]
    assert recovery(all_of_them) == {"broker and device": ([1.0], [0.5]), "device": ([1.0, 3.0], [0.5, 0.5])}
    text = "\n".join(summary(all_of_them, 2))
    assert "5 kills: 2 of broker, 3 of device" in text and "while training 5" in text
    assert "2 times a part that had given up" in text and "2.0 / 3.0" in text


def test_a_strike_is_a_row() -> None:
    row = struck("broker", "device-2", again=True).line()
    assert " ".join(row.split()) == "12.0 s 2 training broker, device-2, broker again 1.0 s 1.0 s 0.5 s"
