import re
from pathlib import Path

import numpy as np
import pytest

from bench.protocol import read_arena
from bench.protocols.opportunity import PROTOCOL
from mekt.errors import SensorError
from tests.bench.proof import assert_apart, names_of, prove
from tests.sensors.test_uci import opportunity, saved

LINES = 200
RUNS = ("ADL1", "ADL2", "ADL3", "ADL4", "ADL5", "Drill")


def write_run(folder: Path, name: str, seed: int) -> None:
    """A run with nothing, then standing, then lying."""
    table = opportunity(LINES)
    noise = np.random.default_rng(seed).integers(-900, 900, (LINES, 133 - 37))
    for index, (row, values) in enumerate(zip(table, noise.astype(str).tolist(), strict=True)):
        row[37:133] = values
        row[243] = str((0, 1, 5)[index * 3 // LINES])
    saved(folder, name, table)


def spoil(source: Path, target: Path) -> None:
    write_run(target.parent, target.name, seed=99)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    inner = folder / "opportunity" / "OpportunityUCIDataset" / "dataset"
    inner.mkdir(parents=True)
    for subject in range(1, 5):
        for number, run in enumerate(RUNS):
            write_run(inner, f"S{subject}-{run}.dat", 10 * subject + number)
    return folder


def test_no_run_has_two_roles_and_the_tested_are_the_challenge_s() -> None:
    for roles in PROTOCOL.rotations:
        groups = names_of(roles)
        assert_apart(groups)
        assert groups["test"] == {"S2-ADL4", "S2-ADL5", "S3-ADL4", "S3-ADL5"}
        # What the coordinator has is of people of whom nobody else has anything.
        people = {role: {name[:2] for name in names} for role, names in groups.items()}
        assert people["client"] == people["test"] == {"S2", "S3"}
        assert {*people["proxy"], *people["labelled"]} == {"S1", "S4"} and people["proxy"] != people["labelled"]


def test_a_recording_reaches_only_what_it_is_for(data: Path, tmp_path: Path) -> None:
    prove(PROTOCOL, data, tmp_path, spoil, rotation=1)


def test_what_is_no_mode_of_locomotion_is_learned_from_and_not_scored(data: Path) -> None:
    arena = read_arena(PROTOCOL, 0, data)
    datasets = arena.datasets
    assert datasets.labelled is not None and datasets.test is not None
    assert datasets.classes == ("Stand", "Walk", "Sit", "Lie")
    assert set(datasets.test.labels.tolist()) == {0, 3} and set(datasets.labelled.labels.tolist()) == {0, 3}
    assert [each.name for each in arena.devices][::3] == ["S2-ADL1", "S2-Drill", "S3-ADL3"]
    assert {name: array.shape[1:] for name, array in datasets.proxy.items()} == {"acc": (60, 15), "gyro": (60, 15)}


def test_where_it_is_not_there_is_said_and_where_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match=rf"^{re.escape(str(tmp_path))}: .* fetch the set from https://archive.ics"):
        read_arena(PROTOCOL, 0, tmp_path)
