"""The sensors of a device: what a table may say, and the source that it opens."""

import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest

import sensors.csv
import sensors.mqtt
import sensors.serial
from mekt.errors import SensorError, SettingsError
from mekt.schema import SchemaError, plain
from sensors.recording import write_recording
from sensors.settings import KINDS as PLACES
from sensors.settings import SensorSettings, sensor_settings
from sensors.simulator import simulate
from sensors.source import Block, Source

KINDS = ", ".join(map(repr, PLACES))
REPLAY: dict[str, Any] = {"kind": "replay", "modalities": ["acc"], "recordings": ["a.npz"]}
SIMULATOR: dict[str, Any] = {"kind": "simulator", "modalities": ["acc", "depth"], "subject": 1}


@pytest.mark.parametrize(
    "table",
    [
        REPLAY,
        REPLAY | {"recordings": ["a.npz", "/data/b.npz"], "speed": 1e6},
        SIMULATOR,
        SIMULATOR | {"subject": 0, "seed": 3, "duration_s": 60},
        SIMULATOR | {"live": True, "faults": {"seed": 1, "drift_ppm": 50, "unplug_every_s": 60}},
    ],
)
def test_a_table_becomes_settings_and_back(table: dict[str, Any]) -> None:
    settings = sensor_settings(table)
    assert sensor_settings(plain(settings)) == settings


def test_every_kind_is_what_its_settings_call_themselves() -> None:
    _, kinds = get_args(SensorSettings)
    assert {kind: kinds.imported(kind).__dataclass_fields__["kind"].default for kind in PLACES} == {
        kind: kind for kind in PLACES
    }


def test_every_table_of_the_papers_is_one_and_every_live_kind_has_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sensors.md").read_text(encoding="utf-8")
    tables = [tomllib.loads(each)["sensors"] for each in re.findall(r"```toml\n(.*?)```", text, re.S)]
    kinds = {plain(sensor_settings(table))["kind"] for [table] in tables}
    assert kinds == {"iio", "v4l2", "imu", "picamera", "mqtt", "serial", "simulator"}


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (REPLAY | {"kind": "hearsay"}, f"kind: expected one of {KINDS}, got 'hearsay'"),
        ({"modalities": ["acc"]}, f"kind: missing; expected one of {KINDS}"),
        (REPLAY | {"kind": ["replay"]}, f"kind: expected one of {KINDS}, got a list"),
        (REPLAY | {"modalities": []}, "modalities: expected at least 1 entries, got 0"),
        (REPLAY | {"modalities": ["acc", "acc"]}, "modalities: a name occurs twice; name each once"),
        (REPLAY | {"recordings": []}, 'recordings: a replay needs a path, such as recordings = ["user01.npz"]'),
        (
            REPLAY | {"subject": 1},
            "subject: unknown key (known here: faults, kind, live, modalities, recordings, speed)",
        ),
        (REPLAY | {"speed": 0}, "speed: expected more than 0, got 0.0"),
        (
            SIMULATOR | {"recordings": ["a.npz"]},
            "recordings: unknown key (known here: duration_s, faults, kind, live, modalities, seed, speed, subject)",
        ),
        ({"kind": "simulator", "modalities": ["acc"]}, "subject: missing; expected a whole number"),
        (SIMULATOR | {"modalities": ["acc", "mag"]}, "modalities: the simulator has no mag; it has acc, gyro, depth"),
        (SIMULATOR | {"duration_s": 0.5}, "duration_s: expected at least 1, got 0.5"),
        (SIMULATOR | {"subject": -1}, "subject: expected at least 0, got -1"),
        (REPLAY | {"speed": 2, "live": True}, "live: what is played 2 times as fast is not live; leave speed out"),
        (SIMULATOR | {"faults": {"dropped": 2}}, "faults.dropped: expected at most 1, got 2.0"),
    ],
)
def test_a_table_that_cannot_work_is_explained(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        sensor_settings(table)
    assert caught.value.problems == [problem]


@pytest.mark.parametrize("module", [sensors.csv, sensors.mqtt, sensors.serial])
def test_the_table_that_a_kinds_page_shows_is_one(module: ModuleType) -> None:
    lines = [line for line in str(module.__doc__).splitlines() if line.startswith("    ")]
    [table] = tomllib.loads("\n".join(lines))["sensors"]
    assert sensor_settings(table).modalities[0] == "acc"


def samples(source: Source) -> dict[str, Any]:
    source.open()
    blocks: list[Block] = []
    while (items := source.read(10)) is not None:
        blocks += [each for each in items if isinstance(each, Block)]
    source.close()
    names = [each.name for each in source.modalities]
    return {name: np.concatenate([each.values for each in blocks if each.modality == name]) for name in names}


def test_a_replay_plays_its_recordings_from_the_base_folder_one_after_the_other(tmp_path: Path) -> None:
    first, second = (simulate(number, duration_s=3, modalities=["acc", "gyro"]) for number in (1, 2))
    write_recording(tmp_path / "data" / "a.npz", first)
    write_recording(tmp_path / "b.npz", second)
    table = REPLAY | {"recordings": ["data/a.npz", str(tmp_path / "b.npz")], "speed": 1e6}
    played = samples(sensor_settings(table).source(tmp_path))
    assert list(played) == ["acc"]
    expected = [each.segments[0].streams["acc"].values for each in (first, second)]
    np.testing.assert_array_equal(played["acc"], np.concatenate(expected))


def test_a_simulator_plays_the_person_of_its_number_and_seed(tmp_path: Path) -> None:
    table = SIMULATOR | {"subject": 5, "seed": 2, "duration_s": 4, "speed": 1e6}
    played = samples(sensor_settings(table).source(tmp_path))
    [segment] = simulate(5, seed=2, duration_s=4, modalities=["acc", "depth"]).segments
    assert list(played) == ["acc", "depth"]
    for name, stream in segment.streams.items():
        np.testing.assert_array_equal(played[name], stream.values)


def test_a_recording_that_is_not_there_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        sensor_settings(REPLAY).source(tmp_path)
    assert str(caught.value) == (
        f"sensors.recordings: {tmp_path / 'a.npz'}: no such recording in {tmp_path}, which holds no .npz file;"
        " mend the path"
    )


def test_a_recording_that_cannot_be_read_or_lacks_a_modality_is_a_fault_of_the_recording(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"?")
    with pytest.raises(SensorError, match=r"a\.npz: not a readable recording"):
        sensor_settings(REPLAY).source(tmp_path)
    write_recording(tmp_path / "a.npz", simulate(1, duration_s=2, modalities=["gyro"]))
    with pytest.raises(SensorError, match=r"a\.npz: has no modality acc; it has gyro: name these$"):
        sensor_settings(REPLAY).source(tmp_path)
