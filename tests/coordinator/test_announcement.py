"""What the coordinator says to everybody, and when it says it anew."""

from mekt.broker import Broker
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
