import re
from pathlib import Path

import numpy as np
import pytest

from bench.protocol import read_arena
from bench.protocols.mhealth import PROTOCOL
from mekt.errors import SensorError
from tests.bench.proof import assert_apart, names_of, prove
from tests.sensors.test_uci import mhealth, saved

SAMPLES = 800


def write_subject(folder: Path, name: str, seed: int) -> None:
    """A log with three activities and nothing in between."""
    table = mhealth(SAMPLES)
    noise = np.random.default_rng(seed).normal(0, 5, (SAMPLES, 23))
    for index, (row, values) in enumerate(zip(table, noise.tolist(), strict=True)):
        row[:] = [*(f"{value:.5g}" for value in values), str((0, 4, 11, 12)[index * 4 // SAMPLES])]
    saved(folder, name, table)


def spoil(source: Path, target: Path) -> None:
    write_subject(target.parent, target.name, seed=99)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    inner = folder / "mhealth" / "MHEALTHDATASET"
    inner.mkdir(parents=True)
    for subject in range(1, 11):
        write_subject(inner, f"mHealth_subject{subject}.log", subject)
    return folder


def test_nobody_has_two_roles_and_everybody_is_tested_once() -> None:
    for roles in PROTOCOL.rotations:
        assert_apart(names_of(roles))
        assert len(set().union(*names_of(roles).values())) == 10
    tested = [name for roles in PROTOCOL.rotations for name in roles.test]
    assert tested[:4] == ["subject9", "subject10", "subject1", "subject2"] and len(set(tested)) == 10


def test_a_recording_reaches_only_what_it_is_for(data: Path, tmp_path: Path) -> None:
    prove(PROTOCOL, data, tmp_path, spoil, rotation=3)


def test_what_is_no_activity_is_learned_from_and_not_scored(data: Path) -> None:
    arena = read_arena(PROTOCOL, 0, data)
    datasets = arena.datasets
    assert datasets.labelled is not None and datasets.test is not None
    assert len(datasets.classes) == 12
    assert {datasets.classes[label] for label in datasets.test.labels} == {"Walking", "Running", "Jump front & back"}
    assert len(datasets.labelled) < len(arena.devices[0].private)
    assert {each.modalities for each in arena.devices} == {("acc", "gyro"), ("gyro", "mag"), ("acc", "mag")}
    assert {name: array.shape[1:] for name, array in datasets.proxy.items()} == {
        "acc": (128, 9),
        "gyro": (128, 6),
        "mag": (128, 6),
    }


def test_the_zip_may_be_unpacked_into_the_folder_of_all_data(data: Path) -> None:
    assert PROTOCOL.locate(data / "mhealth", "subject3") == PROTOCOL.locate(data, "subject3")


def test_where_it_is_not_there_is_said_and_where_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match=rf"^{re.escape(str(tmp_path))}: .* fetch the set from https://archive.ics"):
        read_arena(PROTOCOL, 0, tmp_path)
