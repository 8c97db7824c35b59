"""Which wearables there are and what they run, counted for a status that always fits its message."""

import pytest

from coordinator.rollout import Progress, RolloutRules
from coordinator.wearables import Wearables
from mekt.errors import WireError
from mekt.messages import RELEASES_TOLD, Envelope, Fitness, Status, encode

RULES = RolloutRules(least=2, hours=10.0)
PROGRESS = Progress(federation="ward", number=2, release="ward-00002", share=1.0, state="everybody")


def test_wearables_are_counted_by_release_and_by_how_far_they_are() -> None:
    wearables = Wearables()
    wearables.told("watch-1", Fitness(running=b"1" * 32, number=2, state="fetching"))
    wearables.told("watch-1", Fitness(running=b"2" * 32, number=2, state="good"))
    wearables.told("watch-2", Fitness(running=b"1" * 32, number=2, state="fetching"))
    wearables.told("watch-3", Fitness(running=b"x" * 32, number=1, state="good"))
    wearables.told("watch-4", Fitness(number=0, state="running"))
    status = wearables.status(PROGRESS, {b"1" * 32: "ward-00001", b"2" * 32: "ward-00002"}, RULES)
    assert status.wearables == {"foreign": 1, "none": 1, "ward-00001": 1, "ward-00002": 1}
    assert status.states == {"fetching": 1, "good": 1}
    assert "watch-1" in wearables and "watch-9" not in wearables
    assert status.text.endswith("watched for 10.0 h more (4 of 4 wearables here take part)")


def test_of_many_releases_the_rarest_are_told_together_and_the_status_is_a_message() -> None:
    wearables = Wearables()
    for index in range(3 * RELEASES_TOLD):
        for copy in range(1 + (index < 5)):
            running = index.to_bytes(32, "big")
            wearables.told(f"watch-{index}-{copy}", Fitness(running=running, number=2, state="good"))
    names = {index.to_bytes(32, "big"): f"{'w' * 90}-{index:05}" for index in range(3 * RELEASES_TOLD)}
    rollout = wearables.status(PROGRESS, names, RULES)
    assert len(rollout.wearables) == RELEASES_TOLD and rollout.wearables["others"] == 3 * RELEASES_TOLD - 15
    assert sum(rollout.wearables.values()) == 3 * RELEASES_TOLD + 5
    status = Status(
        phase="finished", rounds=1, online=(), waiting_for=(), received=(), reports=(), text="", rollout=rollout
    )
    assert encode(Envelope(federation="ward", round=1, device="", sequence=1, proxy=b"", body=status))


def test_there_is_room_for_a_bounded_number_of_wearables() -> None:
    wearables = Wearables(most=2)
    for name in ("watch-1", "watch-2", "watch-1"):
        wearables.told(name, Fitness(number=1, state="running"))
    with pytest.raises(WireError, match="more than 2 wearables"):
        wearables.told("watch-3", Fitness(number=1, state="running"))
