"""The coordinator over a real broker, against devices made by hand of the product's own parts."""

import os
import queue
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.daemon import run_coordinator
from coordinator.datasets import Datasets
from coordinator.round import RoundRules
from coordinator.settings import FederationSettings
from export.release import read_release
from mekt.arrays import unpack_windows
from mekt.blobs import blob_ref, read_chunk
from mekt.broker import Broker
from mekt.errors import LinkError, SettingsError, StateError
from mekt.messages import KINDS, Receipt, RoundOpen, Want
from mekt.plan import BlobRef
from mekt.process import Job, JobDone, Stop
from tests.coordinator.conftest import (
    BOTH,
    DEADLINE_S,
    FEDERATION,
    Device,
    Make,
    Start,
    config_of,
    random_knowledge,
    settings_of,
)
from tests.waiting import UNIT, WAIT_S, until

ROOT = Path(__file__).parents[2]


def test_a_round_opens_collects_learns_and_publishes(
    broker: Broker, start: Start, pair: tuple[Device, Device], datasets: Datasets, tmp_path: Path
) -> None:
    running = start(settings_of(broker.port, rounds=2))
    one, other = pair
    opened = one.opened()
    assert opened.participants == BOTH and 0 < opened.deadline_s <= DEADLINE_S
    proxy = one.fetch(opened.plan.proxy["acc"])
    shape = (opened.plan.proxy_windows, *opened.plan.window.shape(opened.plan.modalities[0]))
    assert unpack_windows(proxy, shape).tolist() == datasets.proxy["acc"].tolist()
    assert blob_ref(one.fetch(opened.knowledge["acc"])) == opened.knowledge["acc"]
    assert one.deliver(one.blobs(opened)) == Receipt(state="accepted")
    waiting = other.status(lambda status: status.received == ("pi-1",))
    assert waiting.waiting_for == ("pi-2",) and "waiting for 1 of 2: pi-2 (last seen" in waiting.text
    other.take_part()
    second = one.opened(1)
    assert second.knowledge["acc"] != opened.knowledge["acc"]
    assert blob_ref(one.fetch(second.knowledge["acc"])) == second.knowledge["acc"]
    for each in pair:
        assert each.deliver(each.blobs(second), 1) == Receipt(state="accepted")
    done = one.status(lambda status: status.phase == "finished")
    assert done.text == "all 2 rounds are done"
    assert [(report.round, report.devices) for report in done.reports] == [(0, ()), (1, BOTH), (2, BOTH)]
    release = read_release(tmp_path / "state" / "releases" / f"{done.reports[-1].release}.zip")
    assert release.manifest.round == 2
    assert running.rejected == {}
    assert list((tmp_path / "state" / "blobs").iterdir()) == []


def test_a_device_in_quarantine_is_thanked_and_left_out_over_a_restart_too(
    broker: Broker, start: Start, device: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """All comes out as if it had never been there; log, status and report say who, why and since when."""

    def settings(devices: int) -> FederationSettings:
        rules = RoundRules(min_devices=devices, deadline_s=DEADLINE_S, quarantine="odd", quarantine_back=3)
        return settings_of(broker.port, rounds=3, round=rules)

    running = start(settings(3))
    alone = [device(name).come() for name in ("pi-1", "pi-2", "pi-3")]
    for number in range(3):
        for each in alone:
            each.take_part(number)
    expected = alone[0].finished().knowledge
    running.stop()
    for each in alone:
        each.leave()
    caplog.clear()

    running = start(settings(4), state="other-state")
    same = [device(name).come() for name in ("pi-4", "pi-5", "pi-6")]
    odd = device("pi-9").come()
    for number in range(3):
        opened = odd.opened(number)
        # From the second round on it agrees, and not for long enough.
        blobs = odd.blobs(opened) if number else {"acc": random_knowledge(opened.plan, 7, scale=100.0)}
        assert odd.deliver(blobs, number) == Receipt(state="accepted")
        if number == 1:
            running.stop()
            running = start(settings(4), state="other-state")
        for each in same:
            each.take_part(number)
    assert odd.finished().knowledge == expected
    reports = odd.status(lambda status: len(status.reports) == 4 and "pi-9" in status.reports[-1].devices).reports
    for report in reports[1:]:
        assert report.devices == ("pi-4", "pi-5", "pi-6", "pi-9")
        [out] = [each for each in report.findings if each.name == "quarantined"]
        assert (out.device, out.modality) == ("pi-9", "acc")
        assert out.evidence.startswith("left out since round 1: its embeddings vary")
    assert reports[1].disagreement["pi-9"] > 10 * reports[1].disagreement["pi-4"]
    said = [
        line for line in caplog.messages if "quarantined pi-9 (acc): left out since round 1: its embeddings" in line
    ]
    assert len(said) == 1 and said[0].startswith("round 1: ")


def test_a_buffered_round_ends_after_so_many_arrivals_late_ones_too(
    broker: Broker, start: Start, pair: tuple[Device, Device]
) -> None:
    rules = RoundRules(min_devices=2, late="carry", arrivals=1, deadline_s=DEADLINE_S)
    start(settings_of(broker.port, rounds=2, round=rules))
    fast, slow = pair
    opened = slow.opened()
    fast.take_part()
    slow.opened(1)
    assert slow.deliver({"acc": random_knowledge(opened.plan, 77)}, 1, age=1).state == "accepted"
    reports = fast.status(lambda status: status.phase == "finished").reports
    assert [each.devices for each in reports] == [(), (fast.name,), (slow.name,)]


def test_random_bytes_and_misplaced_messages_are_dropped_and_counted(
    broker: Broker, start: Start, pair: tuple[Device, Device]
) -> None:
    running = start(settings_of(broker.port))
    good, bad = pair
    opened = bad.opened()
    blobs = bad.blobs(opened)
    rng = random.Random(1)
    chunk = read_chunk(b"x" * 9, blob_ref(b"x" * 9), 0)
    assert chunk is not None
    _, offer = bad.post.seal(bad.presence(), "up", device="pi-2")
    _, receipt = bad.post.seal(Receipt(state="accepted"), "down", device="pi-2")
    _, status = bad.post.seal(bad.status(lambda _: True), "all")
    up = f"mekt/1/{FEDERATION}/up/pi-2"
    sent = 0
    for kind in (*KINDS, "unknown", "Kind", "a" * 40):
        for raw in (
            b"",
            rng.randbytes(40),
            rng.randbytes(300_000)[: 200_000 if kind != "chunk" else 90_000],
            offer[:-1],
        ):
            bad.link.publish(f"{up}/{kind}", raw)
            sent += 1
    for topic, raw in ((f"{up}/offer", offer), (f"{up}/receipt", receipt), (f"{up}/status", status)):
        bad.link.publish(topic, raw)
        sent += 1
    bad.link.publish(f"mekt/1/{FEDERATION}/up/pi-1/presence", offer)
    bad.say(chunk)
    bad.say(Want(sha256=bytes(32), chunks=(0, 1)))
    bad.say(Want(sha256=opened.knowledge["acc"].sha256, chunks=(7, 2**24)))
    until(lambda: sum(running.rejected.values()) >= sent + 3)
    running.until_rejected("a chunk came that nobody asked for")
    running.until_rejected("asks for a blob that is not served")
    bad.offer(blobs)
    bad.hear(Want)
    bad.say(chunk)
    bad.say(replace(chunk, sha256=blob_ref(blobs["gyro"]).sha256))
    damaged = replace(chunk, sha256=blob_ref(blobs["gyro"]).sha256, data=bytes(len(blobs["gyro"])))
    bad.say(damaged)
    running.until_rejected("arrived damaged")
    bad.serve(blobs)
    assert bad.receipt() == Receipt(state="accepted")
    good.take_part()
    assert good.finished().state == "finished"


def test_a_round_that_nobody_serves_is_closed_and_opens_anew_for_who_comes_back(
    broker: Broker, start: Start, pair: tuple[Device, Device], device: Make
) -> None:
    start(settings_of(broker.port, round=RoundRules(min_devices=2, deadline_s=1.5 * UNIT)))
    one, other = pair
    one.opened()
    other.leave()
    one.hear(RoundOpen, lambda word, _: word.state == "closed")
    alone = one.status(lambda status: (status.phase, status.online) == ("waiting", ("pi-1",)))
    assert alone.text == "round 1 of 1 opens once 2 devices are online; 1 is"
    one.offer({"acc": b"x"})
    assert one.receipt() == Receipt(state="refused", reason="pi-1 takes no part in round 1")
    back = device("pi-2", modalities=("gyro",), session=2).come()
    for each in (one, back):
        each.take_part()
    assert one.finished().state == "finished"


def test_a_late_will_of_an_old_session_does_not_mark_the_device_offline(
    broker: Broker, start: Start, pair: tuple[Device, Device]
) -> None:
    running = start(settings_of(broker.port))
    one, other = pair
    one.opened()
    other.say(other.presence(session=2))
    other.say(other.presence("offline", session=1))
    other.say(Want(sha256=bytes(32), chunks=(0,)))
    running.until_rejected("pi-2: asks for a blob")
    assert running.coordinator._state.online == {"pi-1", "pi-2"}
    other.say(other.presence("offline", session=2))
    assert one.status(lambda status: status.online == ("pi-1",)).phase == "collecting"


# Restarts


def test_a_killed_coordinator_goes_on_where_it_was_and_learns_the_same(
    broker: Broker, people: Path, tmp_path: Path, pair: tuple[Device, Device], undisturbed: dict[str, BlobRef]
) -> None:
    config = config_of(tmp_path, people, broker.port)
    command = [sys.executable, "-m", "mekt", "coordinator", "run", "--config", str(config)]
    one, other = pair
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT) as first:
        try:
            one.take_part()
            blobs = other.blobs(other.opened())
            other.offer(blobs)
            other.hear(Want)
        finally:
            first.kill()
    stop, ended = Stop(), queue.Queue[JobDone]()
    Job("second", lambda _: run_coordinator(config, stop), ended)
    again = one.opened()
    one.offer(one.blobs(again))
    assert one.receipt() == Receipt(state="accepted") and one.asked == 1
    assert other.deliver(blobs) == Receipt(state="accepted")
    assert one.finished().knowledge == undisturbed
    stop.request()
    assert ended.get(timeout=WAIT_S).error is None


def test_a_stopped_coordinator_goes_on_where_it_was_and_learns_the_same(
    broker: Broker, start: Start, pair: tuple[Device, Device], undisturbed: dict[str, BlobRef]
) -> None:
    one, other = pair
    first = start(settings_of(broker.port))
    other.take_part()
    first.stop()
    start(settings_of(broker.port))
    one.take_part()
    assert one.finished().knowledge == undisturbed and other.asked == 1


def test_a_broker_that_forgets_everything_in_a_round_does_not_end_it(
    broker: Broker, start: Start, pair: tuple[Device, Device], device: Make, undisturbed: dict[str, BlobRef]
) -> None:
    start(settings_of(broker.port))
    one, other = pair
    one.take_part()
    other.opened()
    broker.kill()
    broker.start()
    other.take_part()
    assert one.finished().knowledge == undisturbed
    late = device("pi-9")
    assert late.finished().knowledge == undisturbed
    assert late.status(lambda status: status.phase == "finished").received == ()


# Start and end


def test_a_second_coordinator_on_the_same_state_is_refused_by_name_of_the_first(
    broker: Broker, people: Path, tmp_path: Path, device: Make
) -> None:
    config = config_of(tmp_path, people, broker.port)
    stop, ended = Stop(), queue.Queue[JobDone]()
    Job("first", lambda _: run_coordinator(config, stop), ended)
    device("pi-1").status(lambda status: status.phase == "waiting")
    with pytest.raises(StateError, match=f"state: in use by process {os.getpid()}; end it"):
        run_coordinator(config, Stop())
    stop.request()
    assert ended.get(timeout=WAIT_S).error is None
    run_coordinator(config, stop)


def test_what_hinders_a_start_is_named_by_the_file(people: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tmp_path, 1883)
    with pytest.raises(SettingsError) as caught:
        run_coordinator(config, Stop())
    assert str(caught.value).startswith(f"{config}: proxy[0]: {tmp_path / 'proxy.npz'} is not there")
    config_of(tmp_path, people, 1)
    with pytest.raises(LinkError, match="nobody listens there"):
        run_coordinator(config, Stop())


def test_the_state_of_another_plan_is_refused(people: Path, tmp_path: Path, broker: Broker, start: Start) -> None:
    start(settings_of(broker.port)).stop()
    with pytest.raises(StateError, match="belongs to a federation with other modalities"):
        start(settings_of(broker.port, seed=4))


def test_it_ends_in_time_while_the_broker_is_away(broker: Broker, start: Start, pair: tuple[Device, Device]) -> None:
    running = start(settings_of(broker.port))
    pair[0].opened()
    broker.kill()
    until(lambda: not running.coordinator._link.is_connected)
    assert running.stop() < 5 * UNIT


def test_it_ends_before_it_has_begun(broker: Broker, people: Path, tmp_path: Path) -> None:
    stop = Stop()
    stop.request()
    config = config_of(tmp_path, people, broker.port)
    began_s = time.monotonic()
    assert run_coordinator(config, stop) == 0
    assert time.monotonic() - began_s < 5 * UNIT
