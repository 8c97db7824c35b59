from dataclasses import replace
from pathlib import Path

import pytest

from bench.protocol import ProtocolSpec, read_arena
from bench.protocols.hapt import PROTOCOL, VALIDATION, person
from sensors.recording import read_recording
from sensors.stream import class_names
from tests.bench.proof import DATA, assert_apart, names_of, needs, prove, spoil_npz

NEVER_TESTED = {person(user) for user in range(21, 26)}


@pytest.mark.parametrize("protocol", [PROTOCOL, VALIDATION], ids=["rotations", "validation"])
def test_nobody_has_two_roles_in_any_rotation(protocol: ProtocolSpec) -> None:
    assert len(protocol.rotations) == 5
    for roles in protocol.rotations:
        assert_apart(names_of(roles))


def test_everybody_has_a_role_and_the_tested_are_others_each_time() -> None:
    tested = [names_of(roles)["test"] for roles in PROTOCOL.rotations]
    everybody = {person(user) for user in range(1, 31)}
    assert tested[0] == {person(user) for user in range(26, 31)} and tested[1] == {person(user) for user in range(1, 6)}
    assert sum(map(len, tested)) == 25 and set().union(*tested) == everybody - NEVER_TESTED
    assert all(set().union(*names_of(roles).values()) == everybody for roles in PROTOCOL.rotations)
    assert [len(roles.clients) for roles in PROTOCOL.rotations] == [23] * 5
    assert [roles.labelled for roles in PROTOCOL.rotations][:2] == [("user24",), ("user29",)]


def test_tuning_knows_labels_only_of_people_who_are_never_tested() -> None:
    assert {roles.labelled for roles in VALIDATION.rotations} == {(name,) for name in NEVER_TESTED}
    for roles in VALIDATION.rotations:
        assert {*roles.labelled, *roles.test} == NEVER_TESTED
        everybody = set().union(*names_of(roles).values())
        assert everybody.isdisjoint(PROTOCOL.rotations[0].test)


@needs("hapt")
def test_a_recording_reaches_only_what_it_is_for(tmp_path: Path) -> None:
    # Six clients are two with each set of modalities; there is nothing that others have and they do not.
    roles = PROTOCOL.rotations[1]
    few = replace(PROTOCOL, rotations=(replace(roles, clients=roles.clients[:6]),))
    prove(few, DATA, tmp_path, spoil_npz)


@needs("hapt")
def test_the_arena_is_as_the_page_says() -> None:
    arena = read_arena(PROTOCOL, 0, DATA)
    assert arena.datasets.classes == class_names([read_recording(DATA / "hapt" / "user30.npz")])
    assert len(arena.devices) == 23 and {each.modalities for each in arena.devices[::3]} == {("acc",)}
    assert arena.devices[1].modalities == ("gyro",) and arena.devices[2].modalities == ("acc", "gyro")
    assert arena.datasets.proxy["acc"].shape == (512, 128, 3)
    assert arena.datasets.test is not None and set(arena.datasets.test.labels.tolist()) == set(range(12))
