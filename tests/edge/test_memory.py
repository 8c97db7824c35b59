"""A device's memory: it survives a reopening at each step, and an end between any two writes."""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edge.memory import SCHEMA, Memory, Progress
from mekt.blobs import blob_ref
from mekt.errors import StateError
from mekt.messages import Offer
from mekt.schema import plain


def offer_of(memory: Memory, data: bytes) -> Offer:
    return Offer(knowledge={"acc": memory.blobs.put(data)}, windows=3, metrics={"transfer": 0.5})


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def trained_once(folder: Path) -> Memory:
    memory = Memory(folder)
    memory.begin("plan")
    memory.trained(0, b"weights 0", offer_of(memory, b"knowledge 0"))
    return memory


def test_a_fresh_device_knows_nothing(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    assert memory.progress == Progress()
    assert memory.weights() is None


def test_every_step_is_there_after_a_reopening(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.begin("plan")
    assert Memory(tmp_path).progress == Progress(plan="plan")
    offer = offer_of(memory, b"knowledge 0")
    memory.trained(0, b"weights 0", offer)
    again = Memory(tmp_path)
    assert again.progress == Progress(plan="plan", trained=0, offer=offer) == memory.progress
    assert again.weights() == b"weights 0"
    assert again.blobs.get(offer.knowledge["acc"]) == b"knowledge 0"
    again.delivered(0)
    assert Memory(tmp_path).progress == Progress(plan="plan", trained=0, delivered=0, offer=offer)
    later = offer_of(again, b"knowledge 1")
    again.trained(1, b"weights 1", later)
    assert Memory(tmp_path).progress == Progress(plan="plan", trained=1, delivered=0, offer=later)
    assert Memory(tmp_path).weights() == b"weights 1"


def test_only_the_latest_weights_are_kept(tmp_path: Path) -> None:
    memory = trained_once(tmp_path)
    memory.trained(1, b"weights 1", offer_of(memory, b"knowledge 1"))
    assert files_of(tmp_path) == ["model-00001.weights", "progress"]


def test_an_end_between_weights_and_progress_leaves_the_former_round(tmp_path: Path) -> None:
    memory = trained_once(tmp_path)
    (tmp_path / "model-00001.weights").write_bytes(b"weights 1")
    again = Memory(tmp_path)
    assert again.progress == memory.progress and again.weights() == b"weights 0"
    again.trained(1, b"weights 1, anew", offer_of(again, b"knowledge 1"))
    assert Memory(tmp_path).weights() == b"weights 1, anew"


def test_an_end_before_the_old_weights_are_removed_leaves_the_new_round(tmp_path: Path) -> None:
    memory = trained_once(tmp_path)
    memory.trained(1, b"weights 1", offer_of(memory, b"knowledge 1"))
    (tmp_path / "model-00000.weights").write_bytes(b"weights 0")
    again = Memory(tmp_path)
    assert again.weights() == b"weights 1"
    again.trained(2, b"weights 2", offer_of(again, b"knowledge 2"))
    assert files_of(tmp_path) == ["model-00002.weights", "progress"]


def test_progress_without_its_weights_says_what_to_do(tmp_path: Path) -> None:
    trained_once(tmp_path)
    (tmp_path / "model-00000.weights").unlink()
    with pytest.raises(StateError, match=rf"model-00000\.weights: cannot be read .*; delete {tmp_path}/progress to"):
        Memory(tmp_path).weights()


def test_weights_without_their_progress_are_not_used(tmp_path: Path) -> None:
    trained_once(tmp_path)
    (tmp_path / "progress").unlink()
    again = Memory(tmp_path)
    assert again.progress == Progress() and again.weights() is None


def test_another_plan_forgets_what_belongs_to_the_former(tmp_path: Path) -> None:
    memory = trained_once(tmp_path)
    memory.begin("plan")
    assert memory.weights() == b"weights 0"
    memory.begin("another plan")
    assert memory.progress == Progress(plan="another plan") == Memory(tmp_path).progress
    assert memory.weights() is None and files_of(tmp_path) == ["progress"]


def test_an_end_in_the_middle_of_forgetting_does_no_harm(tmp_path: Path) -> None:
    trained_once(tmp_path).begin("another plan")
    (tmp_path / "model-00000.weights").write_bytes(b"of the former plan")
    again = Memory(tmp_path)
    again.begin("another plan")
    assert again.weights() is None
    again.trained(0, b"weights 0", offer_of(again, b"knowledge 0"))
    assert Memory(tmp_path).weights() == b"weights 0"


class PowerCut(BaseException):
    """The process is gone."""


class Power:
    """Lasts for so many writes and removals."""

    def __init__(self, writes: int) -> None:
        self._left = writes

    def guard(self, does: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise PowerCut
            return does(*arguments, **more)

        return guarded


def story(folder: Path) -> Memory:
    """Two rounds of one plan and one of another, from wherever the folder says that things stand."""
    memory = Memory(folder)
    if memory.progress.plan != "second":
        memory.begin("first")
        for number in range(2):
            if memory.progress.trained < number:
                memory.trained(number, b"weights %d" % number, offer_of(memory, b"knowledge %d" % number))
            if memory.progress.delivered < number:
                memory.delivered(number)
    memory.begin("second")
    if memory.progress.trained < 0:
        memory.trained(0, b"other weights", offer_of(memory, b"other knowledge"))
    return memory


def test_an_end_between_any_two_writes_leaves_a_state_that_leads_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "undisturbed").mkdir()
    expected = story(tmp_path / "undisturbed").progress
    for writes in itertools.count():
        folder = tmp_path / str(writes)
        folder.mkdir()
        with monkeypatch.context() as patch, contextlib.suppress(PowerCut):
            power = Power(writes)
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, power.guard(getattr(Path, name)))
            story(folder)
            assert writes >= 15
            break
        found = Memory(folder)
        assert (found.weights() is None) == (found.progress.trained < 0)
        if found.progress.offer is not None:
            assert all(found.blobs.get(ref) is not None for ref in found.progress.offer.knowledge.values())
        again = story(folder)
        assert again.progress == expected == Memory(folder).progress
        assert again.weights() == b"other weights"
        assert files_of(folder) == ["model-00000.weights", "progress"]


def test_a_rest_of_an_interrupted_write_is_not_taken_for_anything(tmp_path: Path) -> None:
    memory = trained_once(tmp_path)
    (tmp_path / ".progress.123.tmp").write_bytes(b"half")
    (tmp_path / ".model-00001.weights.123.tmp").write_bytes(b"half")
    assert Memory(tmp_path).progress == memory.progress
    assert files_of(tmp_path) == ["model-00000.weights", "progress"]


def test_progress_that_was_cut_off_or_changed_anywhere_is_one_error_or_valid(tmp_path: Path) -> None:
    trained_once(tmp_path)
    path = tmp_path / "progress"
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(StateError, match=r"progress: damaged .*; delete it to learn from the start"):
            Memory(tmp_path)
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x81]) + raw[place + 1 :])
        try:
            Memory(tmp_path)
        except StateError as error:
            assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize("data", [[], 7, {"plan": 3}, {"trained": -2}, {"offer": {"knowledge": {}}}, {"more": 1}])
def test_a_foreign_file_is_damaged(data: object, tmp_path: Path) -> None:
    (tmp_path / "progress").write_bytes(msgpack.packb(data))
    with pytest.raises(StateError, match="damaged"):
        Memory(tmp_path)


def test_a_file_of_a_newer_mekt_is_left_alone(tmp_path: Path) -> None:
    raw = msgpack.packb(plain(Progress()) | {"schema": SCHEMA + 1, "more": 1})
    (tmp_path / "progress").write_bytes(raw)
    with pytest.raises(StateError, match=f"schema {SCHEMA + 1} is of a newer Mekt"):
        Memory(tmp_path)
    assert (tmp_path / "progress").read_bytes() == raw


def test_a_folder_where_a_file_should_be_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "progress").mkdir()
    with pytest.raises(StateError, match="progress: cannot be read"):
        Memory(tmp_path)


def test_a_disk_that_takes_nothing_leaves_the_former_state(tmp_path: Path) -> None:
    memory = trained_once(tmp_path)
    before = memory.progress
    (tmp_path / "model-00001.weights").mkdir()  # what a write would replace cannot be replaced
    with pytest.raises(StateError, match="cannot be written"):
        memory.trained(1, b"weights 1", offer_of(memory, b"knowledge 1"))
    assert memory.progress == before == Memory(tmp_path).progress
    assert memory.weights() == b"weights 0"


def test_a_damaged_blob_is_lost_and_nothing_else(tmp_path: Path) -> None:
    memory = trained_once(tmp_path)
    ref = blob_ref(b"knowledge 0")
    (tmp_path / "blobs" / ref.sha256.hex()).write_bytes(b"knowledge X")
    again = Memory(tmp_path)
    assert again.blobs.get(ref) is None and again.progress == memory.progress


def test_the_folder_of_blobs_is_for_its_owner_alone(tmp_path: Path) -> None:
    Memory(tmp_path / "state")
    assert (tmp_path / "state" / "blobs").stat().st_mode & 0o077 == 0
