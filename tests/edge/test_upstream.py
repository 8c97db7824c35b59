"""Offers: repeated until they are answered, kept over a restart, late ones too."""

from collections.abc import Callable
from pathlib import Path

from edge.lessons import Late
from edge.memory import Memory
from edge.upstream import OFFER_S, Upstream
from mekt.blobs import blob_ref
from mekt.messages import Offer, Presence, Receipt, Want
from tests.edge.conftest import (
    BOTH,
    HandMade,
    Running,
    refs_of,
)


def test_a_device_that_was_refused_does_not_offer_again(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start():
        coordinator.announce(0)
        coordinator.until(Offer, 0)
        coordinator.receipt(0, "refused")
        coordinator.until(Presence, activity="idle")
        coordinator.heard.clear()
        coordinator.round(1)
    assert {each.round for each in coordinator.heard if isinstance(each.body, Offer)} == {1}


def test_an_offer_is_repeated_until_its_receipt_comes(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start():
        coordinator.announce(0)
        offers = [coordinator.until(Offer) for _ in range(3)]
        assert offers[0] == offers[1] == offers[2]
        coordinator.receipt(1)  # of another round: no answer to this one
        coordinator.until(Offer)
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")


def test_a_restart_before_delivery_offers_the_stored_bytes_and_learns_nothing_again(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start():
        coordinator.announce(0)
        offer = coordinator.until(Offer)
    coordinator.heard.clear()
    with start() as running:
        assert coordinator.until(Offer) == offer
        knowledge = coordinator.collect(offer)
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
        assert refs_of(knowledge) == dict(offer.knowledge) and running.rejected == {}
    activities = {each.body.activity for each in coordinator.heard if isinstance(each.body, Presence)}
    assert activities == {"idle", "sending"} and "want" not in coordinator.kinds()


def test_a_restart_after_delivery_answers_for_what_it_delivered(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start():
        first = coordinator.round(0)
        coordinator.until(Presence, activity="idle")
    with start():
        # The round is still open: perhaps the coordinator has lost what it had.
        assert coordinator.collect(coordinator.until(Offer)) == first


def test_what_came_too_late_is_offered_to_the_next_round_and_then_that_rounds_own(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start() as running:
        coordinator.announce(0)
        first = coordinator.collect(coordinator.until(Offer, 0))
        # No receipt: round 0 ends without this device.
        coordinator.announce(1, late="carry")
        late = coordinator.until(Offer, 1, age=1)
        assert late.windows > 0 and set(late.knowledge) == set(BOTH)
        assert refs_of(coordinator.collect(late)) == dict(late.knowledge)
        coordinator.send(Receipt(state="accepted", age=1), 1)
        own = coordinator.until(Offer, 1, age=0)
        assert coordinator.collect(own) != first
        coordinator.receipt(1)
        coordinator.until(Presence, activity="idle")
        assert running.rejected == {}


def test_an_earlier_round_that_is_announced_anew_is_served_from_the_outbox(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start():
        first = coordinator.round(0)
        coordinator.until(Presence, activity="idle")
        second = coordinator.round(1)
        coordinator.until(Presence, activity="idle")
        coordinator.heard.clear()
        # The coordinator went back to an older copy of its state.
        assert coordinator.round(0) == first
        coordinator.until(Presence, activity="idle")
        assert coordinator.round(1) == second
    activities = {each.body.activity for each in coordinator.heard if isinstance(each.body, Presence)}
    assert "training" not in activities


def test_an_offer_is_due_again_a_while_after_the_last_one(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.trained(0, b"weights", {"acc": b"knowledge"}, 5, {})
    upstream = Upstream(memory)
    offer = upstream.offer(0, 100.0)
    assert offer is not None and offer.knowledge == refs_of({"acc": b"knowledge"})
    assert not upstream.is_due(100.0 + 0.9 * OFFER_S) and upstream.is_due(100.0 + OFFER_S)
    assert upstream.late_offer(110.0) is None and not upstream.is_due(110.0)
    assert upstream.offer(1, 120.0) is None and upstream.has_lost(1) and not upstream.has_lost(0)
    memory.close()


def test_while_sums_are_secret_knowledge_as_it_is_is_served_to_nobody(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.trained(0, b"weights", {"acc": b"knowledge"}, 3, {})
    upstream, want = Upstream(memory), Want(sha256=blob_ref(b"knowledge").sha256, chunks=(0,))
    assert upstream.chunks(want, 0) is not None
    masked = blob_ref(b"masked").sha256
    upstream.masked = {masked: b"masked"}
    assert upstream.chunks(want, 0) is None
    served = upstream.chunks(Want(sha256=masked, chunks=(0,)), 0)
    assert served is not None and served[0].data == b"masked"
    memory.close()


def test_late_knowledge_is_on_offer_to_a_later_round_until_it_is_forgotten(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    upstream = Upstream(memory)
    late, want = Late(round=3, knowledge={"acc": b"late"}), Want(sha256=blob_ref(b"late").sha256, chunks=(0,))
    assert not upstream.make_ready(late), "nothing was learned yet"
    memory.trained(1, b"weights", {"acc": b"own"}, 5, {"transfer": 0.5})
    assert not upstream.make_ready(Late(round=1, knowledge={"acc": b"late"}))
    assert upstream.make_ready(late)
    offer = upstream.late_offer(0.0)
    assert offer == Offer(knowledge=refs_of({"acc": b"late"}), windows=5, metrics={"transfer": 0.5}, age=2)
    chunks = upstream.chunks(want, 0)
    assert chunks is not None and [each.data for each in chunks] == [b"late"]
    assert upstream.chunks(want, 1) == (), "it has not left yet"
    upstream.forget_late()
    assert upstream.late_offer(0.0) is None and upstream.chunks(want, 0) is None
    own = upstream.chunks(Want(sha256=blob_ref(b"own").sha256, chunks=(0, 1)), 0)
    assert own is not None and [each.data for each in own] == [b"own"]
    memory.close()
