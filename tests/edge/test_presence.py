"""What a device says of itself, and when it does."""

from collections.abc import Callable

from mekt.broker import Broker
from mekt.messages import Presence
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
