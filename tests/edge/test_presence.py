"""What a device says of itself, and when it does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edge.presence import PROGRESS_S, Presences
from mekt.broker import Broker
from mekt.messages import Presence, Privacy
from mekt.traffic import WireBytes
from tests.edge.conftest import (
    PLAN,
    HandMade,
    Running,
)


def test_a_coordinator_that_comes_later_finds_the_device(
    broker: Broker, coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start():
        coordinator.until(Presence, state="online")
        coordinator.link.stop(1.0)
        with HandMade(broker.port, PLAN) as later:
            assert later.until(Presence).state == "online"
            later.round(0)


def due(presences: Presences, now_s: float, **changes: Any) -> Presence | None:
    usual: dict[str, Any] = {"activity": "training", "share_done": 0.0, "windows": 5, "lost": (), "wire": WireBytes()}
    return presences.due(now_s, **{**usual, **changes})


def test_it_is_said_at_once_and_again_when_the_activity_or_what_is_sensed_changes() -> None:
    presences = Presences(7, {"gyro": "lstm", "acc": "conv"})
    said = due(presences, 0.0, wire=WireBytes(up=3, down=4))
    assert said == Presence(
        state="online",
        session=7,
        activity="training",
        modalities={"acc": "conv", "gyro": "lstm"},
        windows=5,
        up_bytes=3,
        down_bytes=4,
    )
    assert due(presences, 100.0, windows=6, wire=WireBytes(up=9, down=9)) is None, "that alone is no news"
    assert due(presences, 100.0, activity="sending") is not None
    without = due(presences, 100.0, activity="sending", lost={"gyro"})
    assert without is not None and without.modalities == {"acc": "conv"}
    assert due(presences, 100.0, activity="sending", lost={"gyro"}) is None


def test_progress_is_said_now_and_then() -> None:
    presences = Presences(7, {"acc": "conv"})
    assert due(presences, 0.0) is not None
    assert due(presences, 0.9 * PROGRESS_S, share_done=0.5) is None
    assert due(presences, PROGRESS_S, share_done=0.0004) is None, "so little is none"
    said = due(presences, PROGRESS_S, share_done=0.50049)
    assert said is not None and said.progress == 0.5
    assert due(presences, 1.9 * PROGRESS_S, share_done=0.6) is None


def test_a_broker_that_may_have_forgotten_is_told_again() -> None:
    presences = Presences(7, {"acc": "conv"})
    said = due(presences, 0.0)
    assert said is not None and due(presences, 0.0) is None
    presences.forget()
    assert due(presences, 0.0) == said


def test_a_farewell_is_of_the_same_session() -> None:
    presences = Presences(7, {"acc": "conv", "gyro": "conv"})
    assert presences.farewell({"gyro"}) == Presence(
        state="offline", session=7, activity="idle", modalities={"acc": "conv"}
    )


def test_what_was_given_away_is_news_at_once_and_part_of_a_farewell() -> None:
    presences, privacy = Presences(7, {"acc": "conv"}), Privacy(epsilon=1.0, delta=1e-5, budget=8.0)
    assert due(presences, 0.0) is not None
    said = due(presences, 0.0, privacy=privacy)
    assert said is not None and said.privacy == privacy
    assert due(presences, 0.0, privacy=privacy) is None
    assert due(presences, 0.0, privacy=replace(privacy, is_spent=True)) is not None
    assert presences.farewell(privacy=privacy).privacy == privacy
