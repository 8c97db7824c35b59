"""Rounds that close: what is said of their learning, and what a restart in it does."""

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.datasets import Datasets, plan_of
from coordinator.ledger import Delivery, Ledger
from coordinator.round import RoundRules
from mekt.broker import Broker
from mekt.files import BlobStore
from mekt.messages import Chunk, Receipt
from mekt.plan import BlobRef
from tests.coordinator.conftest import DEADLINE_S, TINY, Device, Make, Start, random_knowledge, settings_of
from tests.waiting import UNIT, until


def test_what_is_wrong_with_learning_is_in_the_status_and_logged_once(
    broker: Broker, start: Start, device: Make, caplog: pytest.LogCaptureFixture
) -> None:
    start(settings_of(broker.port, rounds=2, round=RoundRules(min_devices=3, deadline_s=DEADLINE_S)))
    same = [device(f"pi-{n}").come() for n in (1, 2)]
    odd = device("pi-3").come()
    for number in range(2):
        for each in same:
            each.take_part(number)
        large = random_knowledge(odd.opened(number).plan, 7, scale=100.0)
        assert odd.deliver({"acc": large}, number) == Receipt(state="accepted")
    reports = odd.status(lambda status: len(status.reports) == 3).reports
    for report in reports[1:]:
        assert ("odd-device", "pi-3", "acc") in {(each.name, each.device, each.modality) for each in report.findings}
    said = [line for line in caplog.messages if "odd-device pi-3 (acc): its embeddings vary" in line]
    assert len(said) == 1 and said[0].startswith("round 1: ")


def test_a_round_that_was_closed_before_the_crash_asks_nobody_again(
    broker: Broker, start: Start, device: Make, datasets: Datasets, tmp_path: Path, undisturbed: dict[str, BlobRef]
) -> None:
    (tmp_path / "state").mkdir()
    ledger, blobs = Ledger(tmp_path / "state" / "ledger.sqlite"), BlobStore(tmp_path / "state" / "blobs")
    plan = plan_of(settings_of(), datasets, ledger.run)
    ledger.open_round(0, ("pi-1", "pi-2", "pi-3"))
    for name, has in (("pi-1", "acc"), ("pi-2", "gyro")):
        refs = {has: blobs.put(random_knowledge(plan, 7, has))}
        ledger.deliver(0, Delivery(device=name, windows=10, knowledge=refs))
    ledger.collected(0, ("pi-1", "pi-2"))
    ledger.close()
    start(settings_of(broker.port))
    watcher = device("pi-3").come()
    assert watcher.finished().knowledge == undisturbed
    done = watcher.status(lambda status: status.phase == "finished")
    assert done.reports[-1].devices == ("pi-1", "pi-2")
    watcher.offer({"acc": b"x"})
    assert watcher.receipt() == Receipt(state="refused", reason="round 1 is over")


def test_it_ends_in_time_also_while_it_learns_and_learns_anew_after(
    broker: Broker, start: Start, pair: tuple[Device, Device]
) -> None:
    settings = settings_of(broker.port, method=replace(TINY, distil_epochs=10_000, batch=2))
    first = start(settings)
    for each in pair:
        each.take_part()
    pair[0].status(lambda status: status.phase == "distilling" and "learning from 2 devices" in status.text)
    job = first.coordinator._closing._job
    assert first.stop() < 5 * UNIT and job is not None and not job._thread.is_alive()
    assert not any(isinstance(said.body, Chunk) for said in pair[0].heard)
    second = start(settings)
    until(lambda: second.coordinator._closing._job is not None and second.coordinator._closing._job.share_done > 0)
    assert second.coordinator._state.phase == "distilling"
    assert second.stop() < 5 * UNIT
