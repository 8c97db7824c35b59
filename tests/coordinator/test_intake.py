"""Offers taken in: refused with a reason, fetched, accepted once, late ones too."""

import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.datasets import Datasets, plan_of
from coordinator.delivery import Whole
from coordinator.intake import Delivered, Intake, Refused
from coordinator.round import RoundRules, RoundState
from mekt.blobs import RETRY_S, ChunkError, blob_ref, proxy_hash, read_chunk
from mekt.broker import Broker
from mekt.fixedpoint import FINE
from mekt.messages import Chunk, Offer, Receipt, Want
from mekt.plan import BlobRef, Plan
from tests.coordinator.conftest import (
    BOTH,
    DEADLINE_S,
    LARGE,
    Device,
    Make,
    Start,
    random_knowledge,
    settings_of,
)
from tests.waiting import UNIT, until


def test_what_cannot_be_accepted_is_refused_with_a_reason_and_the_round_still_ends(
    broker: Broker, start: Start, pair: tuple[Device, Device], device: Make
) -> None:
    rules = RoundRules(min_devices=2, quorum=0.5, deadline_s=DEADLINE_S)
    running = start(settings_of(broker.port, rounds=2, round=rules))
    good, bad = pair
    opened = bad.opened()
    blobs = bad.blobs(opened)
    ref = blob_ref(blobs["gyro"])

    def refusal(**changes: object) -> str:
        bad.offer(blobs, **changes)  # type: ignore[arg-type]
        receipt = bad.receipt()
        assert receipt.state == "refused"
        return receipt.reason

    sound, bad.post.proxy = bad.post.proxy, bytes(32)
    assert refusal() == "it is about another proxy set"
    bad.post.proxy = sound
    assert refusal(knowledge={"depth": ref}) == "the federation has no modality depth"
    assert "over this plan's limit" in refusal(knowledge={"gyro": replace(ref, size_bytes=1 << 29)})
    assert "more than the 1000000" in refusal(windows=1_000_000_000)
    assert bad.asked == 0, "nothing was asked for that could not be accepted"
    bad.offer(blobs, 1)
    assert bad.receipt(1).reason == "round 2 has not begun"
    stranger = device("pi-9").come()
    stranger.opened(invited=False)
    stranger.offer(blobs)
    assert stranger.receipt() == Receipt(state="refused", reason="pi-9 takes no part in round 1")
    for garbage in (b"garbage", b"\x81\xa9embedding\xc0", random_knowledge(replace(opened.plan, proxy_windows=23), 1)):
        receipt = bad.deliver({"gyro": garbage})
        assert receipt.state == "refused" and receipt.reason != ""
    good.take_part()
    good.opened(1)
    bad.offer(blobs, 0)
    assert bad.receipt(0) == Receipt(state="refused", reason="round 1 is over")
    assert running.coordinator._state.phase == "collecting" and running.coordinator._intake.devices == ()


def test_an_offer_that_was_accepted_is_accepted_again_without_a_byte(
    broker: Broker, start: Start, pair: tuple[Device, Device]
) -> None:
    start(settings_of(broker.port))
    pair[0].take_part()
    pair[0].offer({"acc": b"something else"})
    assert pair[0].receipt() == Receipt(state="accepted") and pair[0].asked == 1


def test_late_knowledge_is_refused_where_it_is_dropped(
    broker: Broker, start: Start, pair: tuple[Device, Device]
) -> None:
    running = start(settings_of(broker.port))
    opened = pair[0].opened()
    assert opened.late == "drop"
    pair[0].offer(pair[0].blobs(opened), age=1)
    receipt = pair[0].receipt()
    assert (receipt.state, receipt.age) == ("refused", 1) and "drops such knowledge" in receipt.reason
    assert running.coordinator._post.trouble["old-round"] == 1


def test_late_knowledge_counts_until_the_rounds_own_is_there_over_a_restart_too(
    broker: Broker, start: Start, pair: tuple[Device, Device], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_of(broker.port, rounds=2, round=RoundRules(min_devices=2, late="carry", deadline_s=DEADLINE_S))
    running = start(settings)
    fast, slow = pair
    opened = slow.opened()
    assert opened.late == "carry"
    late = {"acc": random_knowledge(opened.plan, 77)}
    assert slow.deliver(late, age=2) == Receipt(state="accepted", age=2)
    until(lambda: running.coordinator._state.late == (slow.name,))
    assert running.coordinator._state.received == ()
    running.stop()
    again = start(settings)
    until(lambda: again.coordinator._state.late == (slow.name,))
    slow.offer(late, age=2)
    assert slow.receipt() == Receipt(state="accepted", age=2), "it is there already"
    fast.take_part()
    assert slow.deliver(slow.blobs(opened)) == Receipt(state="accepted")
    report = fast.status(lambda status: len(status.reports) == 2).reports[1]
    assert report.devices == BOTH and "learned 2 rounds ago" in caplog.text


@pytest.mark.parametrize("ends", ["quorum", "deadline"])
def test_a_device_that_dies_while_it_delivers_is_not_waited_for_without_end(
    broker: Broker, start: Start, pair: tuple[Device, Device], ends: str
) -> None:
    rules = RoundRules(
        min_devices=2, quorum=0.5 if ends == "quorum" else 1.0, deadline_s=DEADLINE_S if ends == "quorum" else 3 * UNIT
    )
    running = start(settings_of(broker.port, method=LARGE, proxy_windows=50, round=rules))
    good, dying = pair
    blobs = dying.blobs(dying.opened())
    assert len(blobs["gyro"]) > 2 * 96 * 1024
    dying.offer(blobs)
    dying.serve(blobs, most=1)
    until(lambda: "pi-2" in running.coordinator._intake.devices)
    dying.vanish()
    assert good.status(lambda status: status.online == ("pi-1",)).phase == "collecting"
    good.take_part()
    done = good.status(lambda status: status.phase == "finished")
    assert done.reports[-1].devices == ("pi-1",)


def test_a_round_that_opens_anew_goes_on_with_what_is_on_its_way(broker: Broker, start: Start, device: Make) -> None:
    rules = RoundRules(deadline_s=1.0 * UNIT)
    start(settings_of(broker.port, method=LARGE, proxy_windows=50, round=rules))
    slow = device("pi-1").come()
    blobs = slow.blobs(slow.opened())
    ref = blob_ref(blobs["acc"])
    slow.offer(blobs)
    assert slow.hear(Want).chunks == (0, 1, 2)
    for index in range(3):
        slow.opened()
        chunk = read_chunk(blobs["acc"], ref, index)
        assert chunk is not None
        slow.say(chunk)
    assert slow.receipt() == Receipt(state="accepted") and slow.asked == 1


def test_a_device_that_is_back_is_asked_again_at_once(broker: Broker, start: Start, device: Make) -> None:
    start(settings_of(broker.port, round=RoundRules(min_devices=1, deadline_s=DEADLINE_S)))
    one = device("pi-1").come()
    blobs = one.blobs(one.opened())
    one.offer(blobs)
    asked = one.hear(Want)
    one.session += 1
    began_s = time.monotonic()
    one.come()
    assert one.hear(Want) == asked and time.monotonic() - began_s < RETRY_S / 2
    one.serve(blobs)


def test_a_delivery_whose_blob_was_lost_is_asked_for_anew(
    broker: Broker, start: Start, pair: tuple[Device, Device], tmp_path: Path, undisturbed: dict[str, BlobRef]
) -> None:
    one = pair[0]
    first = start(settings_of(broker.port))
    one.take_part()
    first.stop()
    shutil.rmtree(tmp_path / "state" / "blobs")
    start(settings_of(broker.port))
    for each in pair:
        each.take_part()
    assert one.finished().knowledge == undisturbed and one.asked == 2


# In memory


@pytest.fixture(scope="module")
def plan(datasets: Datasets) -> Plan:
    return plan_of(settings_of(), datasets, "0a")


OPEN = RoundState(phase="collecting", round=1, rounds=3, seed=0, participants=BOTH)
CARRY = RoundRules(late="carry")


def offer_of(data: bytes, **changes: Any) -> Offer:
    return replace(Offer(knowledge={"acc": blob_ref(data)}, windows=10, metrics={}), **changes)


def chunk_of(data: bytes) -> Chunk:
    chunk = read_chunk(data, blob_ref(data), 0)
    assert chunk is not None
    return chunk


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({"number": 0}, "old-round"),
        ({"state": replace(OPEN, phase="distilling")}, "old-round"),
        ({"number": 2}, "early-round"),
        ({"device": "pi-9"}, "uninvited"),
        ({"proxy": bytes(32)}, "other-proxy-set"),
        ({"offer": offer_of(b"x", age=1)}, "old-round"),
        ({"offer": offer_of(b"x", windows=10**9)}, "unfit-offer"),
    ],
)
def test_an_offer_that_cannot_be_taken_is_refused_and_nothing_is_asked_for(
    plan: Plan, changes: dict[str, Any], trouble: str
) -> None:
    intake = Intake(plan, RoundRules())
    usual = {"device": "pi-1", "number": 1, "proxy": proxy_hash(plan.proxy), "offer": offer_of(b"x"), "state": OPEN}
    arguments: dict[str, Any] = {**usual, **changes}
    refused = intake.offered(**arguments)
    assert isinstance(refused, Refused)
    assert (refused.trouble, refused.age) == (trouble, arguments["offer"].age) and refused.reason
    assert intake.devices == () and intake.due(0.0) == []


SECURE = RoundRules(min_devices=3, secure=True)
THREE = ("pi-1", "pi-2", "pi-3")
MASKING = RoundState(
    phase="masking",
    round=1,
    rounds=3,
    seed=0,
    participants=THREE,
    offered={"pi-1": ("acc", "gyro"), "pi-2": ("acc",), "pi-3": ("acc",)},
    settled={"collecting": THREE, "sharing": THREE},
)


def words_of(plan: Plan, *modalities: str, size_bytes: int = 0) -> Offer:
    data = bytes(size_bytes or FINE.size_bytes((plan.knowledge_rows, plan.method.embedding)))
    return Offer(knowledge=dict.fromkeys(modalities, blob_ref(data)), windows=1, metrics={}, masked=True)


def test_a_secure_sum_takes_masked_words_of_its_modalities_and_nothing_else(plan: Plan) -> None:
    proxy = proxy_hash(plan.proxy)
    early, late = replace(MASKING, phase="sharing"), replace(MASKING, phase="unmasking")
    late = replace(late, settled={**MASKING.settled, "masking": THREE[:2]})
    for offer, state, device, trouble in (
        (offer_of(b"x"), MASKING, "pi-1", "unfit-offer"),
        (words_of(plan, "acc", "gyro"), MASKING, "pi-1", "unfit-offer"),
        (words_of(plan, "gyro"), MASKING, "pi-1", "unfit-offer"),
        (words_of(plan, "acc", size_bytes=100), MASKING, "pi-1", "unfit-offer"),
        (words_of(plan, "acc"), MASKING, "pi-9", "uninvited"),
        (words_of(plan, "acc"), early, "pi-1", "early-round"),
        (words_of(plan, "acc"), late, "pi-3", "old-round"),
    ):
        refused = Intake(plan, SECURE).offered(device, 1, proxy, offer, state)
        assert isinstance(refused, Refused) and refused.trouble == trouble
    refused = Intake(plan, RoundRules()).offered("pi-1", 1, proxy, words_of(plan, "acc"), OPEN)
    assert isinstance(refused, Refused) and refused.trouble == "unfit-offer"
    assert Intake(plan, SECURE).offered("pi-1", 1, proxy, words_of(plan, "acc"), late) == Delivered()
    intake, words = Intake(plan, SECURE), bytes(range(256)) * 1000
    words = words[: FINE.size_bytes((plan.knowledge_rows, plan.method.embedding))]
    offer = Offer(knowledge={"acc": blob_ref(words)}, windows=1, metrics={}, masked=True)
    assert intake.offered("pi-1", 1, proxy, offer, MASKING) is None
    assert intake.take("pi-1", chunk_of(words), MASKING) == Whole(offer=offer, blobs={"acc": words})


def test_what_has_been_delivered_is_not_fetched_again_but_the_rounds_own_replaces_late_knowledge(plan: Plan) -> None:
    intake, proxy = Intake(plan, CARRY), proxy_hash(plan.proxy)
    received, late = replace(OPEN, received=("pi-1",)), replace(OPEN, late=("pi-1",))
    assert intake.offered("pi-1", 1, proxy, offer_of(b"x"), received) == Delivered()
    assert intake.offered("pi-1", 1, proxy, offer_of(b"x", age=1), received) == Delivered()
    assert intake.offered("pi-1", 1, proxy, offer_of(b"x", age=1), late) == Delivered()
    assert intake.devices == ()
    assert intake.offered("pi-1", 1, proxy, offer_of(b"x"), late) is None
    assert [*intake.devices] == ["pi-1"]


def test_an_offer_that_comes_again_goes_on_and_another_one_takes_its_place(plan: Plan) -> None:
    intake, proxy = Intake(plan, RoundRules()), proxy_hash(plan.proxy)
    one, other = (random_knowledge(plan, seed) for seed in (1, 2))
    assert intake.offered("pi-1", 1, proxy, offer_of(one), OPEN) is None
    assert intake.due(0.0) == [("pi-1", Want(sha256=blob_ref(one).sha256, chunks=(0,)))]
    assert intake.offered("pi-1", 1, proxy, offer_of(one), OPEN) is None and intake.due(0.0) == []
    intake.ask_again("pi-9")
    assert intake.due(0.0) == []
    intake.ask_again("pi-1")
    assert intake.due(0.0) == [("pi-1", Want(sha256=blob_ref(one).sha256, chunks=(0,)))]
    assert intake.offered("pi-1", 1, proxy, offer_of(other), OPEN) is None
    with pytest.raises(ChunkError):
        intake.take("pi-1", chunk_of(one), OPEN)
    assert intake.take("pi-1", chunk_of(other), OPEN) == Whole(offer=offer_of(other), blobs={"acc": other})
    assert intake.devices == ()


def test_a_chunk_that_nobody_asked_for_is_an_error_unless_all_of_it_is_there(plan: Plan) -> None:
    intake = Intake(plan, RoundRules())
    with pytest.raises(ChunkError, match="a chunk came that nobody asked for"):
        intake.take("pi-1", chunk_of(b"x"), OPEN)
    for delivered in (replace(OPEN, received=("pi-1",)), replace(OPEN, late=("pi-1",))):
        assert intake.take("pi-1", chunk_of(b"x"), delivered) is None


def test_what_was_offered_and_is_not_knowledge_is_refused_for_good(plan: Plan) -> None:
    intake = Intake(plan, CARRY)
    assert intake.offered("pi-1", 1, proxy_hash(plan.proxy), offer_of(b"garbage", age=2), OPEN) is None
    refused = intake.take("pi-1", chunk_of(b"garbage"), OPEN)
    assert isinstance(refused, Refused) and (refused.trouble, refused.age) == ("unfit-offer", 2)
    assert intake.devices == ()


def test_what_is_on_its_way_of_others_is_dropped(plan: Plan) -> None:
    intake = Intake(plan, RoundRules())
    for device in BOTH:
        assert intake.offered(device, 1, proxy_hash(plan.proxy), offer_of(b"x"), OPEN) is None
    intake.keep_only(("pi-2", "pi-9"))
    assert intake.devices == ("pi-2",)
    intake.keep_only(())
    assert intake.due(0.0) == []
