"""A device's memory: it survives a reopening at each step, an end between any two writes, and a damaged file."""

import contextlib
import itertools
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edge.memory import FILE, STEPS, Memory, Progress
from mekt.blobs import blob_ref
from mekt.database import DamagedStateError, Database
from mekt.errors import StateError
from mekt.messages import Envelope as Letter
from mekt.messages import Learning, Offer, encode, unpack

STATES = Path(__file__).parent / "states"
METRICS: dict[Learning, float] = {"transfer": 0.5}


@contextlib.contextmanager
def opened(folder: Path, **more: Any) -> Iterator[Memory]:
    memory = Memory(folder, **more)
    try:
        yield memory
    finally:
        memory.close()


def train(memory: Memory, number: int, size_bytes: int = 0) -> None:
    knowledge = {"acc": b"knowledge %d" % number + bytes(size_bytes)}
    memory.trained(number, b"weights %d" % number, knowledge, 3, METRICS)


def offer_of(number: int, size_bytes: int = 0) -> Offer:
    ref = blob_ref(b"knowledge %d" % number + bytes(size_bytes))
    return Offer(knowledge={"acc": ref}, windows=3, metrics=METRICS)


def trained_once(folder: Path) -> None:
    with opened(folder) as memory:
        memory.begin("plan")
        train(memory, 0)


def test_a_fresh_device_knows_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        assert memory.progress == Progress() and memory.rounds() == frozenset()
        assert memory.weights() is None and memory.offer(0) is None and memory.knowledge(bytes(32)) is None


def test_every_step_is_there_after_a_reopening(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.begin("plan")
    with opened(tmp_path) as memory:
        assert memory.progress == Progress(plan="plan")
        train(memory, 0)
    with opened(tmp_path) as memory:
        assert memory.progress == Progress(plan="plan", trained=0) and memory.weights() == b"weights 0"
        assert memory.offer(0) == offer_of(0)
        assert memory.knowledge(offer_of(0).knowledge["acc"].sha256) == b"knowledge 0"
        memory.delivered(0)
    with opened(tmp_path) as memory:
        assert memory.progress == Progress(plan="plan", trained=0, delivered=0) and memory.offer(0) == offer_of(0)
        train(memory, 1)
    with opened(tmp_path) as memory:
        assert memory.progress == Progress(plan="plan", trained=1, delivered=0) and memory.weights() == b"weights 1"
        assert memory.rounds() == {0, 1} and memory.offer(1) == offer_of(1)


def test_the_oldest_round_goes_first_when_the_outbox_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path, most_bytes=300) as memory:
        memory.begin("plan")
        for number in range(2):
            train(memory, number, size_bytes=100)
        memory.delivered(0)
        train(memory, 2, size_bytes=100)
        assert memory.rounds() == {1, 2} and not caplog.records
        train(memory, 3, size_bytes=100)
        assert memory.rounds() == {2, 3} and memory.offer(1) is None
        assert memory.knowledge(offer_of(1, 100).knowledge["acc"].sha256) is None
        assert [each.message for each in caplog.records] == [
            "round 2: dropped from the full outbox; it was never delivered"
        ]


def test_the_newest_round_is_kept_however_large(tmp_path: Path) -> None:
    with opened(tmp_path, most_bytes=1) as memory:
        memory.begin("plan")
        train(memory, 0, size_bytes=100)
        train(memory, 1, size_bytes=100)
        assert memory.rounds() == {1} and memory.offer(1) == offer_of(1, 100)


def test_a_full_outbox_bounds_the_file(tmp_path: Path) -> None:
    with opened(tmp_path, most_bytes=100_000) as memory:
        memory.begin("plan")
        for number in range(60):
            train(memory, number, size_bytes=10_000)
    assert (tmp_path / FILE).stat().st_size < 200_000


def test_another_plan_forgets_what_belongs_to_the_former(tmp_path: Path) -> None:
    trained_once(tmp_path)
    with opened(tmp_path) as memory:
        memory.begin("plan")
        assert memory.weights() == b"weights 0"
        memory.begin("another plan")
        assert memory.progress == Progress(plan="another plan") and memory.rounds() == frozenset()
        assert memory.weights() is None and memory.knowledge(offer_of(0).knowledge["acc"].sha256) is None


def pay(memory: Memory, number: int, cost: float) -> None:
    memory.trained(number, b"weights", {"acc": b"knowledge"}, 3, {}, cost)


def test_what_is_spent_outlasts_a_reopening_another_plan_and_damaged_weights(tmp_path: Path) -> None:
    with opened(tmp_path, keeps_budget=True) as memory:
        memory.begin("plan")
        pay(memory, 0, 0.25)
        pay(memory, 1, 0.5)
        memory.begin("another plan")
        assert memory.spent == 0.75
    with opened(tmp_path, keeps_budget=True) as memory:
        assert memory.spent == 0.75
        memory.start_afresh(ValueError("its weights are damaged"))
        assert memory.spent == 0.75
    with opened(tmp_path, keeps_budget=True) as memory:
        assert memory.spent == 0.75 and memory.progress == Progress()


def test_knowledge_and_its_price_are_kept_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Database.execute
    for writes in itertools.count():
        folder, left = tmp_path / str(writes), itertools.count(writes, -1)
        with opened(folder, keeps_budget=True) as memory:
            memory.begin("plan")

            def fails(self: Database, *arguments: object, left: Iterator[int] = left) -> None:
                if next(left) == 0:
                    raise PowerCut
                execute(self, *arguments)  # type: ignore[arg-type]

            ended = True
            with monkeypatch.context() as patch, contextlib.suppress(PowerCut):
                patch.setattr(Database, "execute", fails)
                pay(memory, 0, 0.5)
                ended = False
        with opened(folder, keeps_budget=True) as memory:
            assert (memory.offer(0) is None) == (memory.spent == 0.0)
        if not ended:
            assert writes >= 8
            break


def test_a_damaged_file_ends_a_device_that_keeps_a_budget(tmp_path: Path) -> None:
    trained_once(tmp_path)
    raw = (tmp_path / FILE).read_bytes()
    for damaged in (b"no database" + raw[11:], raw[: len(raw) // 2]):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(StateError, match="damaged"):
            Memory(tmp_path, keeps_budget=True)
        assert (tmp_path / FILE).read_bytes() == damaged


def test_an_amount_that_was_tampered_with_is_damage(tmp_path: Path) -> None:
    with opened(tmp_path, keeps_budget=True) as memory:
        memory.begin("plan")
        pay(memory, 0, 0.5)
        memory._db.execute("UPDATE spending SET cost = 0.1")
    with pytest.raises(StateError, match="privacy budget"):
        Memory(tmp_path, keeps_budget=True)


class PowerCut(BaseException):
    """The process is gone."""


def story(folder: Path) -> None:
    """Two rounds of one plan and one of another, from wherever the folder says that things stand."""
    with opened(folder) as memory:
        if memory.progress.plan != "second":
            memory.begin("first")
            for number in range(2):
                if memory.progress.trained < number:
                    train(memory, number)
                if memory.progress.delivered < number:
                    memory.delivered(number)
        memory.begin("second")
        if memory.progress.trained < 0:
            train(memory, 7)


def test_an_end_between_any_two_writes_leaves_a_state_that_leads_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Database.execute
    for writes in itertools.count():
        folder, left = tmp_path / str(writes), itertools.count(writes, -1)

        def fails(self: Database, *arguments: object, left: Iterator[int] = left) -> None:
            if next(left) == 0:
                raise PowerCut
            execute(self, *arguments)  # type: ignore[arg-type]

        ended = True
        with monkeypatch.context() as patch, contextlib.suppress(PowerCut):
            patch.setattr(Database, "execute", fails)
            story(folder)
            ended = False
        with opened(folder) as memory:
            trained = memory.progress.trained
            assert (memory.weights() is None) == (trained < 0)
            assert trained < 0 or memory.offer(trained) == offer_of(trained)
        story(folder)
        with opened(folder) as memory:
            assert memory.progress == Progress(plan="second", trained=7) and memory.rounds() == {7}
            assert memory.weights() == b"weights 7"
        if not ended:
            assert writes >= 25
            break


def test_a_disk_that_takes_nothing_leaves_the_former_state(tmp_path: Path) -> None:
    trained_once(tmp_path)
    with opened(tmp_path) as memory:
        memory._db.execute("PRAGMA query_only = ON")
        with pytest.raises(StateError, match=r"device\.sqlite: cannot be used .*; free space"):
            train(memory, 1)
        assert memory.progress.trained == 0 and memory.weights() == b"weights 0"


def test_damage_anywhere_in_the_file_is_noticed_or_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole"
    trained_once(whole)
    raw = (whole / FILE).read_bytes()
    folder = tmp_path / "damaged"
    afresh = 0
    caplog.set_level(logging.CRITICAL)
    for place in range(0, len(raw), 61):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / FILE).write_bytes(raw[:place] + bytes([raw[place] ^ 0x81]) + raw[place + 1 :])
        try:
            with opened(folder) as memory:
                weights, offer = memory.weights(), memory.offer(0)
                afresh += memory.progress == Progress()
        except StateError as error:
            # Damage that is seen when an entry is read, or that says it is a newer file.
            assert FILE in str(error)
        else:
            assert weights in (b"weights 0", None)
            if offer is not None:
                assert offer.knowledge == offer_of(0).knowledge
    assert afresh > 0


def test_a_damaged_file_is_put_aside_and_the_device_learns_from_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained_once(tmp_path)
    raw = (tmp_path / FILE).read_bytes()
    damaged = b"no database" + raw[11:]
    (tmp_path / FILE).write_bytes(damaged)
    with opened(tmp_path) as memory:
        assert memory.progress == Progress() and memory.weights() is None
        train(memory, 0)
    assert (tmp_path / "device.damaged").read_bytes() == damaged
    assert "it is put aside as device.damaged, and this device learns from the start" in caplog.text


def test_damaged_weights_are_not_used_and_damaged_knowledge_is_not_offered(tmp_path: Path) -> None:
    trained_once(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE model SET weights = ?", (b"weights X",))
        db.execute("UPDATE knowledge SET data = ?", (b"knowledge X",))
    db.close()
    with opened(tmp_path) as memory:
        assert memory.offer(0) is None and memory.knowledge(offer_of(0).knowledge["acc"].sha256) is None
        with pytest.raises(
            DamagedStateError, match=r"device\.sqlite: a damaged entry \(the model's weights\)"
        ) as found:
            memory.weights()
        memory.recalled(0, {"acc": b"knowledge 0"})
        assert memory.offer(0) == offer_of(0)
        memory.start_afresh(found.value)
        assert memory.progress == Progress() and memory.weights() is None


def test_a_rounds_secret_is_kept_until_anothers_takes_its_place(tmp_path: Path) -> None:
    trained_once(tmp_path)
    with opened(tmp_path) as memory:
        assert memory.secret(0) is None
        memory.keep_secret(0, b"first")
        memory.keep_secret(0, b"second")
    with opened(tmp_path) as memory:
        assert memory.secret(0) == b"second" and memory.secret(1) is None
        memory.keep_secret(1, b"third")
        assert memory.secret(0) is None and memory.secret(1) == b"third"
        memory.begin("another plan")
        assert memory.secret(1) is None
        memory.keep_secret(1, b"fourth")
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE secret SET content = x'00'")
    db.close()
    with opened(tmp_path) as memory, pytest.raises(DamagedStateError, match="secret"):
        memory.secret(1)


def test_a_file_of_a_newer_mekt_is_refused_and_left_alone(tmp_path: Path) -> None:
    trained_once(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    db.close()
    raw = (tmp_path / FILE).read_bytes()
    with pytest.raises(StateError, match=f"schema {len(STEPS) + 1} is of a newer Mekt than this one"):
        Memory(tmp_path)
    assert (tmp_path / FILE).read_bytes() == raw


def test_a_folder_where_the_file_should_be_is_one_error(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(StateError, match=r"device\.sqlite: cannot be used"):
        Memory(tmp_path)


def test_the_state_of_the_first_mekt_is_taken_over(tmp_path: Path) -> None:
    shutil.copytree(STATES / "1", tmp_path, dirs_exist_ok=True)
    knowledge = {"acc": blob_ref(b"knowledge 1"), "gyro": blob_ref(b"knowledge 1 of gyro")}
    for _ in range(2):
        with opened(tmp_path) as memory:
            assert memory.progress == Progress(plan="plan acc=conv", trained=1, delivered=0)
            assert memory.weights() == b"weights 1"
            assert memory.offer(1) == Offer(knowledge=knowledge, windows=3, metrics=METRICS)
            assert memory.knowledge(knowledge["gyro"].sha256) == b"knowledge 1 of gyro"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs", FILE]


def test_numbers_under_other_names_that_an_earlier_mekt_kept_are_not_offered_and_end_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.begin("plan")
        memory.trained(0, b"weights 0", {"acc": b"knowledge 0"}, 3, {"hidden": 0.1, "transfer": 0.5})  # type: ignore[dict-item]
    with opened(tmp_path) as memory:
        offer = memory.offer(0)
        assert offer == offer_of(0) and memory.weights() == b"weights 0"
        assert encode(Letter(federation="ward", round=0, device="pi-3", sequence=1, proxy=b"", body=offer))


def test_nor_are_those_in_a_file_of_the_first_mekt(tmp_path: Path) -> None:
    shutil.copytree(STATES / "1", tmp_path, dirs_exist_ok=True)
    former = unpack((tmp_path / "progress").read_bytes())
    former["offer"]["metrics"]["hidden"] = 0.1
    (tmp_path / "progress").write_bytes(msgpack.packb(former))
    with opened(tmp_path) as memory:
        offer = memory.offer(1)
        assert offer is not None and offer.metrics == METRICS and memory.weights() == b"weights 1"


@pytest.mark.parametrize("lost", ["model-00001.weights", f"blobs/{blob_ref(b'knowledge 1').sha256.hex()}"])
def test_what_is_missing_of_it_is_lost_and_nothing_else(lost: str, tmp_path: Path) -> None:
    shutil.copytree(STATES / "1", tmp_path, dirs_exist_ok=True)
    (tmp_path / lost).unlink()
    with opened(tmp_path) as memory:
        assert memory.offer(1) is None
        assert (memory.weights() is None) == lost.startswith("model")
        assert memory.progress.plan == "plan acc=conv"


def test_a_damaged_former_file_means_a_fresh_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(STATES / "1", tmp_path, dirs_exist_ok=True)
    (tmp_path / "progress").write_bytes(b"\xc1")
    with opened(tmp_path) as memory:
        assert memory.progress == Progress()
    assert "progress: damaged" in caplog.text


def test_the_folder_of_blobs_is_for_its_owner_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "state"):
        assert (tmp_path / "state" / "blobs").stat().st_mode & 0o077 == 0
