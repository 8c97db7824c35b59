"""Local learning that fails, and knowledge and weights that the disk has lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mekt.messages import Offer, Presence
from tests.edge.conftest import (
    ACC,
    GYRO,
    PLAN,
    HandMade,
    Running,
    change,
    memory_of,
    plan_of,
    refs_of,
)


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
