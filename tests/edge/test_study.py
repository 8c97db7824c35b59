"""Local learning that fails, and knowledge and weights that the disk has lost."""

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.budget import PrivacySettings, budget_of
from edge.lessons import Lesson
from edge.memory import Memory
from edge.study import Study
from mekt.messages import Offer, Presence
from mekt.process import JobDone
from sensors.store import Hold, WindowStore
from sensors.windows import Window
from tests.edge.conftest import (
    ACC,
    GYRO,
    PLAN,
    HandMade,
    Running,
    change,
    memory_of,
    noise,
    plan_of,
    refs_of,
)
from tests.waiting import WAIT_S


def test_a_model_that_diverges_sits_the_round_out_and_offers_nothing(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.announce(0, plan=plan_of(ACC, GYRO, method={"local_rate": 1e9, "local_epochs": 5}))
        coordinator.until(Presence, activity="fetching")
        coordinator.until(Presence, activity="idle")
        assert "offer" not in coordinator.kinds()
        coordinator.round(1, plan=PLAN)
    assert memory_of(tmp_path).progress.trained == 1


@pytest.mark.parametrize("damage", ["DELETE FROM knowledge", "UPDATE knowledge SET data = x'00'"])
def test_knowledge_that_is_lost_from_the_disk_is_computed_again(
    damage: str, coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start() as running:
        coordinator.announce(0)
        offer = coordinator.until(Offer)
        change(tmp_path, damage)
        assert refs_of(coordinator.collect(offer)) == dict(offer.knowledge)
        assert running.rejected == {}


def test_knowledge_that_cannot_be_computed_again_is_learned_again(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.announce(0)
        coordinator.until(Offer)
        for path in (tmp_path / "state" / "blobs").iterdir():
            path.unlink()
        change(tmp_path, "DELETE FROM knowledge")
        coordinator.until(Presence, activity="training")
        coordinator.collect(coordinator.until(Offer))
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
        coordinator.round(1)


def test_damaged_weights_are_put_aside_and_the_device_learns_from_the_start(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.round(0)
        coordinator.until(Presence, activity="idle")
    change(tmp_path, "UPDATE model SET weights = x'00'")
    with start():
        coordinator.round(1)
        coordinator.until(Presence, activity="idle")
    assert (tmp_path / "state" / "device.damaged").is_file()
    assert memory_of(tmp_path).progress.trained == 1


def test_what_was_never_learned_cannot_be_computed_again(tmp_path: Path) -> None:
    memory, inbox = Memory(tmp_path), queue.Queue[Any]()
    study = Study(memory, inbox)
    for number in (0, -1):
        assert not study.recall(number, None)
    assert not study.is_busy and study.share_done == 0.0 and inbox.empty()
    memory.close()


def test_the_end_of_work_that_was_left_is_not_that_of_the_work_at_hand(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    study = Study(memory, queue.Queue[Any]())
    assert not study.has_ended(JobDone(name="learning-1"))
    study.leave(0.0)
    assert not study.is_busy
    memory.close()


def held_of(folder: Path) -> tuple[WindowStore, Hold]:
    """A store of a window, and a hold of it."""
    made = WindowStore(folder / "windows", {"acc": (20, 3)}, 4)
    made.add(Window(start_s=0, values={"acc": noise(20, 3)}))
    return made, made.hold()


@pytest.mark.parametrize("ending", ["refused", "failed", "cancelled"])
def test_windows_that_are_held_are_let_go_however_learning_ends(ending: str, tmp_path: Path) -> None:
    memory, inbox = Memory(tmp_path), queue.Queue[Any]()
    settings = PrivacySettings(epsilon_budget=1e-3, noise_multiplier=0.5) if ending == "refused" else None
    study = Study(memory, inbox, budget_of(settings))
    store, held = held_of(tmp_path)
    plan = plan_of(ACC)
    lesson = Lesson(device="pi", round=0, plan=plan, architectures={"acc": "conv"}, knowledge={})
    # Its blobs are missing: where nothing stops it before, it fails.
    assert study.learn(lesson, held, late=False) == (ending != "refused")
    match ending:
        case "cancelled":
            study.leave(WAIT_S)
        case "failed":
            assert isinstance(inbox.get(timeout=WAIT_S), JobDone)
        case _:
            assert inbox.empty()
    assert store._holds == []
    store.close()
    memory.close()
