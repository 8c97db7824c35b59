import re
from pathlib import Path

import numpy as np

from bench.protocol import read_arena
from bench.protocols.urfall import PROTOCOL
from sensors.recording import read_recording
from sensors.stream import class_names
from tests.bench.proof import DATA, assert_apart, names_of, needs, prove, spoil_npz

SEQUENCES = {f"fall-{number:02d}" for number in range(1, 31)} | {f"adl-{number:02d}" for number in range(1, 41)}


def test_no_sequence_has_two_roles_and_each_is_tested_once() -> None:
    for roles in PROTOCOL.rotations:
        assert_apart(names_of(roles))
        assert set().union(*names_of(roles).values()) == SEQUENCES
    tested = [name for roles in PROTOCOL.rotations for name in roles.test]
    assert len(tested) == 70 and set(tested) == SEQUENCES


def test_every_role_has_falls_and_daily_life_in_the_set_s_proportion() -> None:
    for roles in PROTOCOL.rotations:
        falls = {role: sum(name.startswith("fall") for name in names) for role, names in names_of(roles).items()}
        assert falls == {"client": 15, "proxy": 6, "labelled": 3, "test": 6}
        assert {role: len(names) for role, names in names_of(roles).items()} == {
            "client": 35,
            "proxy": 14,
            "labelled": 7,
            "test": 14,
        }
        assert all({name[:3] for name in client} == {"fal", "adl"} for client in roles.clients)


@needs("urfall")
def test_a_recording_reaches_only_what_it_is_for(tmp_path: Path) -> None:
    prove(PROTOCOL, DATA, tmp_path, spoil_npz, rotation=4)


@needs("urfall")
def test_the_arenas_are_as_the_page_says() -> None:
    there = {path.stem for path in (DATA / "urfall").glob("*.npz") if re.fullmatch(r"(fall|adl)-\d+", path.stem)}
    assert there == SEQUENCES
    assert set(PROTOCOL.classes) == set(class_names([read_recording(DATA / "urfall" / "adl-10.npz")]))
    for rotation in range(5):
        arena = read_arena(PROTOCOL, rotation, DATA)
        assert len(arena.devices) == 10 and min(len(each.private) for each in arena.devices) > 30
        assert {each.modalities for each in arena.devices} == {("acc",), ("camera",), ("acc", "camera")}
        datasets = arena.datasets
        assert datasets.proxy["acc"].shape[1:] == (50, 3) and datasets.proxy["camera"].shape[1:] == (30, 8)
        assert datasets.labelled is not None and datasets.test is not None
        for windows in (datasets.labelled, datasets.test):
            assert np.bincount(windows.labels, minlength=3).min() >= 10
            # Units are settled: no channel is far beyond the others.
            assert np.abs(windows.arrays["camera"]).max() < 30
