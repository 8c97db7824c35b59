"""What the coordinator says to everybody, and when it says it anew."""

from dataclasses import replace
from typing import Any

import pytest

from coordinator.announcement import STATUS_PACE_S, STATUS_S, Statuses, announcement
from coordinator.datasets import Datasets, plan_of
from coordinator.round import RoundRules, RoundState
from mekt.blobs import blob_ref
from mekt.broker import Broker
from mekt.messages import RoundOpen, Status
from mekt.plan import BlobRef
from tests.coordinator.conftest import BOTH, Device, Make, Start, settings_of


def test_the_announcement_waits_for_whoever_comes_late(
    broker: Broker, start: Start, pair: tuple[Device, Device], device: Make
) -> None:
    start(settings_of(broker.port))
    pair[0].opened()
    late = device("pi-9").come()
    assert late.opened(invited=False).participants == BOTH
    assert late.status(lambda status: "pi-9" in status.online).phase == "collecting"


def test_a_finished_federation_says_so_after_a_restart(
    broker: Broker, start: Start, pair: tuple[Device, Device], undisturbed: dict[str, BlobRef]
) -> None:
    first = start(settings_of(broker.port))
    for each in pair:
        each.take_part()
    pair[0].finished()
    first.stop()
    start(settings_of(broker.port))
    assert pair[0].finished().knowledge == undisturbed


def test_a_status_that_will_not_change_any_more_is_said_again_to_a_broker_that_forgot_it(
    broker: Broker, start: Start, pair: tuple[Device, Device], device: Make
) -> None:
    start(settings_of(broker.port))
    for each in pair:
        each.take_part()
    pair[0].status(lambda status: status.phase == "finished")
    broker.kill()
    broker.start()
    assert device("pi-9").status(lambda status: status.phase == "finished").text == "all 1 rounds are done"


@pytest.mark.parametrize(
    ("phase", "said", "left_s"),
    [
        ("waiting", "closed", 0),
        ("collecting", "open", 20),
        ("sharing", "open", 20),
        ("masking", "open", 20),
        ("unmasking", "open", 20),
        ("distilling", "closed", 0),
        ("finished", "finished", 0),
    ],
)
def test_only_a_round_in_which_devices_have_something_to_do_is_open_and_has_time_left(
    datasets: Datasets, phase: Any, said: Any, left_s: float
) -> None:
    plan, knowledge = plan_of(settings_of(), datasets, "0a"), {"acc": blob_ref(b"x")}
    state = RoundState(phase=phase, round=1, rounds=3, seed=0, participants=BOTH, deadline_at_s=50.0)
    word = announcement(state, RoundRules(late="carry"), plan, knowledge, 30.0)
    assert word == RoundOpen(
        state=said, deadline_s=left_s, late="carry", participants=BOTH, plan=plan, knowledge=knowledge
    )
    assert announcement(state, RoundRules(), plan, knowledge, 60.0).deadline_s == 0.0, "it is over"


STATUS = Status(phase="waiting", rounds=3, online=(), waiting_for=(), received=(), reports=(), text="a", trouble={})


def test_a_status_is_said_soon_when_more_than_its_words_has_changed_and_now_and_then_for_these() -> None:
    statuses = Statuses()
    assert statuses.may_come(0.0) and statuses.is_due(STATUS, 0.0)
    assert not statuses.may_come(0.9 * STATUS_PACE_S) and statuses.may_come(STATUS_PACE_S)
    for words in ({"text": "b"}, {"trouble": {"foreign": 1}}):
        assert not statuses.is_due(replace(STATUS, **words), 0.9 * STATUS_S)
    assert not statuses.is_due(STATUS, STATUS_S), "it is the same"
    assert statuses.is_due(replace(STATUS, text="b"), STATUS_S)
    assert not statuses.is_due(replace(STATUS, text="c"), 1.9 * STATUS_S)
    assert statuses.is_due(replace(STATUS, online=("pi-1",)), 1.9 * STATUS_S)


def test_a_status_is_said_anew_to_a_broker_that_may_have_forgotten_it() -> None:
    statuses = Statuses()
    assert statuses.is_due(STATUS, 0.0) and not statuses.is_due(STATUS, 0.0)
    statuses.forget()
    assert statuses.may_come(0.0) and statuses.is_due(STATUS, 0.0)
