"""A wearable's releases on its disk: whatever happens to it, there is one that runs."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from edge.updates.machine import Figures, Updates
from edge.updates.slots import RECORD, RELEASES, Slots
from mekt.blobs import blob_ref
from mekt.errors import ReleaseError, StateError
from mekt.signature import Trust
from tests.edge.updates.shipped import SIGNER, shipped, surer

ROOT = Path(__file__).parents[3]
A, B, C = shipped(1), shipped(2, surer), shipped(3)
TRUST = SIGNER.public_key().public_bytes_raw()
STATE = Updates(
    phase="trial",
    number=7,
    running=blob_ref(B),
    good=blob_ref(A),
    target=blob_ref(B),
    figures=Figures(agreement_percent=93, confidence_percent=88, latency_us=120, memory_mb=71),
    starts=2,
    started_s=1.5,
    ran_s=7.25,
)


def slots_of(folder: Path, state: Updates, *raws: bytes) -> Slots:
    slots = Slots(folder)
    for raw in raws:
        slots.put(raw, Trust(TRUST))
    slots.keep(state)
    return slots


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / RELEASES).iterdir()}


def test_what_is_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    slots_of(tmp_path, STATE, A, B)
    slots = Slots(tmp_path)
    assert slots.state == STATE
    running = slots.read(blob_ref(B))
    assert running is not None and running.manifest.round == 2


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "new")
    assert slots.state == Updates() and slots.read(blob_ref(A)) is None


def test_files_that_the_state_does_not_need_go(tmp_path: Path) -> None:
    slots = slots_of(tmp_path, STATE, A, B)
    slots.put(C, Trust(TRUST))
    (tmp_path / RELEASES / f".{blob_ref(C).sha256.hex()}.4711.tmp").write_bytes(b"half")
    slots.keep(replace(STATE, phase="good"))
    assert names(tmp_path) == {blob_ref(each).sha256.hex() for each in (A, B)}


def test_only_a_signed_release_gets_in(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    for raw in (shipped(4, signed=False), B[:-1], b"", os.urandom(100)):
        with pytest.raises(ReleaseError):
            slots.put(raw, Trust(TRUST))
    assert names(tmp_path) == set()
    assert slots.put(shipped(4, signed=False), None).manifest.round == 4


@pytest.mark.parametrize("damage", ["flipped", "short", "gone", "a folder"])
def test_a_release_that_is_not_what_was_verified_is_none(tmp_path: Path, damage: str) -> None:
    slots = slots_of(tmp_path, STATE, A, B)
    path = slots.path(blob_ref(B))
    match damage:
        case "flipped":
            path.write_bytes(B[:5000] + bytes([B[5000] ^ 1]) + B[5001:])
        case "short":
            path.write_bytes(B[:5000])
        case "gone":
            path.unlink()
        case _:
            path.unlink()
            path.mkdir()
    assert slots.read(blob_ref(B)) is None
    assert slots.read(blob_ref(A)) is not None


def test_without_its_record_the_oldest_release_is_run_as_that_has_proved_good(tmp_path: Path) -> None:
    slots_of(tmp_path, STATE, A, B)
    (tmp_path / RECORD).unlink()
    assert Slots(tmp_path).state == Updates(running=blob_ref(A))


def test_whatever_byte_of_the_record_changes_it_is_found_and_a_release_is_run(tmp_path: Path) -> None:
    slots_of(tmp_path, STATE, A, B)
    record = tmp_path / RECORD
    raw = record.read_bytes()
    for at in range(0, len(raw), 7):
        record.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        assert Slots(tmp_path).state == Updates(running=blob_ref(A))
    for end in range(0, len(raw), 31):
        record.write_bytes(raw[:end])
        assert Slots(tmp_path).state == Updates(running=blob_ref(A))


def test_the_record_of_a_newer_mekt_is_refused_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots_of(tmp_path, STATE, A, B)
    raw = (tmp_path / RECORD).read_bytes()
    monkeypatch.setattr("edge.updates.slots.SCHEMA", 0)
    with pytest.raises(StateError, match="schema 1 is of a newer Mekt than this one"):
        Slots(tmp_path)
    assert (tmp_path / RECORD).read_bytes() == raw


def test_a_full_disk_leaves_the_former_state(tmp_path: Path) -> None:
    slots_of(tmp_path / "state", Updates(running=blob_ref(A)), A)
    (tmp_path / "b.zip").write_bytes(B)
    child = """
        import resource, sys
        from pathlib import Path
        from edge.updates.slots import Slots
        from edge.updates.machine import Updates
        from mekt.errors import StateError
        folder = Path(sys.argv[1])
        raw = (folder / "b.zip").read_bytes()
        slots = Slots(folder / "state")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        for work in (lambda: slots.put(raw, None), lambda: slots.keep(Updates(number=7, running=slots.state.running))):
            try:
                work()
            except StateError as error:
                print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(child), tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("cannot be written") == 2
    assert Slots(tmp_path / "state").state == Updates(running=blob_ref(A))
    assert names(tmp_path / "state") == {blob_ref(A).sha256.hex()}


@pytest.mark.parametrize("ending", ["good", "rolled-back"])
def test_killed_before_any_step_on_the_disk_a_release_runs_and_the_update_goes_on_to_its_end(
    tmp_path: Path, ending: str
) -> None:
    (tmp_path / "a.zip").write_bytes(A)
    (tmp_path / "b.zip").write_bytes(B)
    done = subprocess.run(
        [sys.executable, "-m", "tests.edge.updates.power_cuts", tmp_path, ending],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The record at the start, at five turns of the update, and the files in between: none of them is a single step.
    assert int(done.stdout) >= 30
