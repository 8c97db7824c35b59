"""A device that protects its knowledge, over a real broker: what it shows, what it pays, and when it stops."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.budget import Budget, PrivacySettings
from edge.lessons import Lesson
from edge.memory import FILE, Memory
from edge.stock import InMemory
from mekt.arrays import unpack_knowledge
from mekt.errors import MissingPackageError, StateError
from mekt.files import BlobStore
from mekt.messages import Offer, Presence
from mekt.plan import Architecture
from sensors.windows import windows_of
from tests.edge.conftest import (
    ACC,
    DEVICE,
    GYRO,
    PROXY,
    SPEC,
    HandMade,
    Running,
    device_settings,
    plan_of,
    private_recording,
    refs_of,
)
from tests.waiting import until

PLAN = plan_of(ACC, GYRO)
BOTH: dict[str, Architecture] = {"acc": "conv", "gyro": "conv"}
GENEROUS = PrivacySettings(clip=1.0, noise_multiplier=10.0, epsilon_budget=1000.0)
COST = Budget(GENEROUS).cost(PLAN, 2)
# Enough for two rounds and no third.
TWO_ROUNDS = PrivacySettings(
    clip=1.0, noise_multiplier=10.0, epsilon_budget=Budget(GENEROUS).epsilon(2.5 * COST), delta=GENEROUS.delta
)


@pytest.fixture
def start(start: Callable[..., Running]) -> Callable[..., Running]:
    """Makes the device anew, on the state that is there, with these settings for privacy or none."""

    def make(privacy: PrivacySettings | None = GENEROUS) -> Running:
        return start(privacy=privacy)

    return make


def spent(folder: Path) -> float:
    memory = Memory(folder / "state", keeps_budget=True)
    memory.close()
    return memory.spent


def test_what_is_shown_is_the_lessons_knowledge_under_noise_and_the_model_is_the_same(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        shown = coordinator.round()
        coordinator.until(Presence, activity="idle")
    offer = next(each.body for each in coordinator.heard if isinstance(each.body, Offer))
    assert offer.metrics == {}, "losses of private windows are under no noise"
    blobs = BlobStore(tmp_path / "reference")
    for data in coordinator.blobs.values():
        blobs.put(data)
    lesson = Lesson(device=DEVICE, round=0, plan=PLAN, architectures=BOTH, knowledge=refs_of(coordinator.knowledge))
    learned = lesson.learn(
        InMemory(windows_of(private_recording(), (ACC, GYRO), SPEC).arrays), None, blobs, lambda *_: None
    )
    noise = {
        name: unpack_knowledge(shown[name], windows=PROXY, embedding=4, hidden=None)[0]
        - unpack_knowledge(learned.knowledge[name], windows=PROXY, embedding=4, hidden=None)[0]
        for name in BOTH
    }
    assert all(5 < each.std() < 15 for each in noise.values())
    memory = Memory(tmp_path / "state", keeps_budget=True)
    assert memory.weights() == learned.weights and memory.spent == pytest.approx(COST)
    memory.close()


def test_what_is_spent_is_told_and_adds_up_over_rounds(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start():
        for number in range(2):
            coordinator.round(number)
            coordinator.until(Presence, activity="idle")
    told = [each.body.privacy for each in coordinator.heard if isinstance(each.body, Presence)]
    assert None not in told
    budget = Budget(GENEROUS)
    epsilons = sorted({each.epsilon for each in told if each is not None})
    assert epsilons == pytest.approx([budget.epsilon(count * COST) for count in range(3)])
    assert {each.budget for each in told if each is not None} == {1000.0}


def test_a_restart_before_delivery_offers_the_same_noise_and_pays_once(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.announce(0)
        offer = coordinator.until(Offer)
    coordinator.heard.clear()
    with start():
        assert coordinator.until(Offer) == offer
        assert refs_of(coordinator.collect(offer)) == dict(offer.knowledge)
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
    assert spent(tmp_path) == pytest.approx(COST)


def test_knowledge_that_is_lost_is_never_computed_again_but_learned_and_paid_for_again(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.announce(0)
        offer = coordinator.until(Offer)
        with sqlite3.connect(tmp_path / "state" / FILE) as db:
            db.execute("DELETE FROM knowledge")
        db.close()
        coordinator.until(Presence, activity="training")
        other = coordinator.until(Offer)
        coordinator.collect(other)
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
    assert other.knowledge != offer.knowledge
    assert spent(tmp_path) == pytest.approx(2 * COST)


def test_a_round_that_would_exceed_the_budget_is_sat_out_for_a_named_reason(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start(TWO_ROUNDS):
        coordinator.round(0)
        assert not coordinator.until(Presence, activity="idle").privacy.is_spent
        coordinator.round(1)
        word = coordinator.until(Presence, activity="idle")
        assert word.privacy.is_spent and word.privacy.epsilon <= TWO_ROUNDS.epsilon_budget
        coordinator.heard.clear()
        coordinator.announce(2)
        until(lambda: coordinator.hear(0.1) is None and "sits it out" in caplog.text)
    assert "round 3: privacy budget: epsilon" in caplog.text
    assert not any(isinstance(each.body, Offer) for each in coordinator.heard)
    assert spent(tmp_path) == pytest.approx(2 * COST)
    # A larger budget is the operator's to give, and what was spent stays spent.
    coordinator.heard.clear()
    with start(GENEROUS):
        coordinator.collect(coordinator.until(Offer, 2))
        coordinator.receipt(2)
        coordinator.until(Presence, activity="idle")
    assert spent(tmp_path) == pytest.approx(3 * COST)


def test_another_plan_does_not_refill_the_budget(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.round(0)
        coordinator.until(Presence, activity="idle")
        coordinator.round(0, plan=plan_of(ACC, GYRO, run="0b"))
        coordinator.until(Presence, activity="idle")
    assert spent(tmp_path) == pytest.approx(2 * COST)


def test_what_came_too_late_is_not_shown_once_more(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start():
        coordinator.announce(0, late="carry")
        coordinator.until(Offer, 0)
        coordinator.announce(1, late="carry")
        coordinator.collect(coordinator.until(Offer, 1))
        coordinator.receipt(1)
        coordinator.until(Presence, activity="idle")
    assert all(each.body.age == 0 for each in coordinator.heard if isinstance(each.body, Offer))


def test_a_damaged_state_is_an_error_as_nobody_knows_what_was_spent(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.round(0)
    path = tmp_path / "state" / FILE
    path.write_bytes(b"no database" + path.read_bytes()[11:])
    with pytest.raises(StateError, match="how much of the privacy budget is spent") as caught:
        start()
    assert caught.value.number == 715
    assert path.exists() and not path.with_suffix(".damaged").exists()
    with start(None):
        coordinator.round(0)


def test_earlier_rounds_without_noise_are_said_not_to_count(
    coordinator: HandMade, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    with start(None):
        coordinator.round(0)
    with start():
        coordinator.until(Presence)
    assert "was shown without noise; no epsilon counts that" in caplog.text


def test_an_accountant_that_is_not_installed_is_told_at_the_start(tmp_path: Path) -> None:
    settings = PrivacySettings(noise_multiplier=1.0, epsilon_budget=1.0, accountant="dp-accounting")
    try:
        import dp_accounting  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackageError, match=r"\[privacy\]"):
            Running(tmp_path, 1, privacy=settings)
    else:
        assert device_settings(tmp_path, 1, privacy=settings).privacy == settings
