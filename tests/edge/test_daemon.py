"""The agent at work, over a real broker, against a coordinator made by hand: whole rounds, faults, and what it says."""

import os
import queue
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from edge.course import Course, Enough
from edge.daemon import run_edge
from edge.lessons import Lesson
from edge.memory import FILE, Memory
from edge.settings import PrivateWindows
from mekt.arrays import pack_knowledge
from mekt.blobs import blob_ref
from mekt.broker import Broker
from mekt.errors import StateError
from mekt.files import BlobStore
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import CHUNK_BYTES, Chunk, Offer, Presence, Receipt, Want, decode
from mekt.modality import WindowSpec
from mekt.plan import Architecture, BlobRef
from mekt.process import JobDone, Stop, only_process
from mekt.topics import parse_topic
from sensors.windows import windows_of
from tests.edge.conftest import (
    ACC,
    DEPTH,
    DEVICE,
    FEDERATION,
    GYRO,
    PRIVATE,
    PROXY,
    SPEC,
    WAIT_S,
    HandMade,
    Running,
    another_run,
    device_settings,
    noise,
    plan_of,
    private_recording,
    proxy_blob,
    refs_of,
)

ROOT = Path(__file__).parents[2]
PLAN = plan_of(ACC, GYRO)
LONG = plan_of(ACC, GYRO, method={"local_epochs": 1000, "batch": 1})
BOTH: dict[str, Architecture] = {"acc": "conv", "gyro": "conv"}


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for again, is asked for again soon."""
    monkeypatch.setattr("edge.upstream.OFFER_S", 0.5)
    monkeypatch.setattr("mekt.blobs.RETRY_S", 0.5)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


@pytest.fixture
def coordinator(broker: Broker) -> Iterator[HandMade]:
    with HandMade(broker.port, PLAN) as made:
        yield made


@pytest.fixture
def start(tmp_path: Path, broker: Broker) -> Callable[..., Running]:
    """Makes the device anew, on the state that is there."""
    return lambda **changes: Running(tmp_path, broker.port, **changes)


def memory_of(folder: Path) -> Memory:
    return Memory(folder / "state")


def reasons(running: Running) -> str:
    return "\n".join(running.rejected)


# Rounds


def test_a_whole_round_gives_what_the_lesson_gives(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start() as running:
        knowledge = coordinator.round()
        coordinator.until(Presence, activity="idle", windows=11)
        assert running.rejected == {}
    blobs = BlobStore(tmp_path / "reference")
    for data in coordinator.blobs.values():
        blobs.put(data)
    lesson = Lesson(device=DEVICE, round=0, plan=PLAN, architectures=BOTH, knowledge=refs_of(coordinator.knowledge))
    windows = windows_of(private_recording(), (ACC, GYRO), SPEC).arrays
    assert knowledge == lesson.learn(windows, None, blobs, lambda done, whole: None).knowledge
    progress = memory_of(tmp_path).progress
    assert (progress.trained, progress.delivered) == (0, 0)


def test_round_follows_round_with_new_global_knowledge(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start():
        first = coordinator.round(0)
        coordinator.announce(0, state="closed")
        coordinator.knowledge = {name: pack_knowledge(noise(PROXY, 4, seed=9), None, "float16") for name in BOTH}
        coordinator.serve(PLAN)
        wants = sum(isinstance(each.body, Want) for each in coordinator.heard)
        second = coordinator.round(1)
    assert first != second
    asked = [each.body.sha256 for each in coordinator.heard if isinstance(each.body, Want)][wants:]
    assert asked == [blob_ref(coordinator.knowledge["acc"]).sha256], "what is there already is not asked for again"


def test_a_device_that_is_not_invited_is_idle(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start():
        coordinator.announce(0, participants=("other",))
        coordinator.until(Presence, activity="idle")
        coordinator.round(1)
    assert {each.round for each in coordinator.heard if not isinstance(each.body, Presence)} == {1}


def test_a_device_that_was_refused_does_not_offer_again(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start():
        coordinator.announce(0)
        coordinator.until(Offer, 0)
        coordinator.receipt(0, "refused")
        coordinator.until(Presence, activity="idle")
        coordinator.heard.clear()
        coordinator.round(1)
    assert {each.round for each in coordinator.heard if isinstance(each.body, Offer)} == {1}


def test_a_newer_round_is_learned_from_when_the_older_is_through(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.announce(0, plan=plan_of(ACC, GYRO, method={"local_epochs": 8, "batch": 1}))
        coordinator.until(Presence, activity="training")
        coordinator.announce(1)
        coordinator.collect(coordinator.until(Offer))
        coordinator.receipt(1)
        coordinator.until(Presence, activity="idle")
    assert {each.round for each in coordinator.heard if isinstance(each.body, Offer)} == {1}
    assert memory_of(tmp_path).progress.trained == 1


def test_another_run_begins_afresh_in_the_middle_of_learning(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start() as running:
        first = coordinator.round(0)
        coordinator.announce(1, plan=LONG)
        coordinator.until(Presence, activity="training")
        assert coordinator.round(0, plan=another_run(PLAN)) == first, "nothing of the former run is left in it"
        assert running.rejected == {}
    assert memory_of(tmp_path).progress.plan.startswith(another_run(PLAN).identity)


def test_knowledge_that_changes_while_it_is_fetched_is_fetched_anew(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    served, coordinator.blobs = coordinator.blobs, {}
    with start():
        coordinator.announce(0)
        coordinator.until(Want)
        coordinator.knowledge = {name: pack_knowledge(noise(PROXY, 4, seed=9), None, "float16") for name in BOTH}
        coordinator.serve(PLAN)
        assert not set(refs_of(coordinator.knowledge)) & set(served)
        coordinator.round(0)


def test_learning_waits_for_enough_windows(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start(windows=PrivateWindows(capacity=64, least=12, whole_source=True)) as running:
        coordinator.announce(0)
        coordinator.until(Presence, activity="sensing")
        assert running.rejected == {}
    assert coordinator.kinds() <= {"presence", "want"}


# Faults on the way


class Double:
    """Every chunk arrives twice."""

    def __call__(self, chunk: Chunk) -> list[Chunk]:
        return [chunk, chunk]


class LoseFirst:
    """Every chunk is lost the first time."""

    def __init__(self) -> None:
        self._lost: set[tuple[bytes, int]] = set()

    def __call__(self, chunk: Chunk) -> list[Chunk]:
        key = (chunk.sha256, chunk.index)
        if key in self._lost:
            return [chunk]
        self._lost.add(key)
        return self.instead(chunk)

    def instead(self, chunk: Chunk) -> list[Chunk]:
        return []


class DamageFirst(LoseFirst):
    """Every chunk arrives damaged the first time: with another length, as part of another whole, with other content."""

    def instead(self, chunk: Chunk) -> list[Chunk]:
        flipped = bytes([chunk.data[0] ^ 1]) + chunk.data[1:]
        return [replace(chunk, data=chunk.data[1:]), replace(chunk, count=7), replace(chunk, data=flipped)]


@pytest.mark.parametrize("mangle", [Double, LoseFirst, DamageFirst])
def test_chunks_that_are_lost_doubled_or_damaged_are_asked_for_again(
    mangle: Callable[[], Callable[[Chunk], list[Chunk]]], coordinator: HandMade, start: Callable[..., Running]
) -> None:
    proxy = {each.name: blob_ref(proxy_blob(each, SPEC, 1024)) for each in (ACC, GYRO)}
    assert max(ref.size_bytes for ref in proxy.values()) > CHUNK_BYTES
    plan = plan_of(ACC, GYRO, proxy_windows=1024, proxy=proxy)
    coordinator.knowledge = {name: pack_knowledge(noise(1024, 4), None, "float16") for name in BOTH}
    coordinator.serve(plan)
    coordinator.mangle = mangle()
    with start():
        knowledge = coordinator.round(0, plan=plan)
    assert {len(data) for data in knowledge.values()} == {len(pack_knowledge(noise(1024, 4), None, "float16"))}


def test_garbage_and_misplaced_messages_are_dropped_and_counted_and_the_round_goes_on(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    down = f"mekt/1/{FEDERATION}/down/{DEVICE}"
    sealed = dict(
        [
            coordinator.post.seal(
                Presence(state="online", session=1, activity="idle", modalities={}), "up", device=DEVICE
            ),
            coordinator.post.seal(Receipt(state="accepted"), "down", device="other"),
        ]
    )
    raw_presence, raw_receipt = sealed.values()
    publish = coordinator.link.publish
    with start() as running:
        coordinator.until(Presence)
        for raw in (b"", b"\xc1", b"\x80", os.urandom(500), msgpack.packb({"v": 1})):
            publish(f"{down}/chunk", raw)
            publish(f"mekt/1/{FEDERATION}/round", raw)
        publish(f"{down}/presence", raw_presence)
        publish(f"{down}/receipt", raw_receipt)
        publish(f"{down}/spell", b"x")
        publish(f"{down}/offer", b"x" * 100_000)
        coordinator.send(Want(sha256=b"s" * 32, chunks=(0,)))
        coordinator.send(Chunk(sha256=b"s" * 32, index=0, count=1, data=b"x"))
        coordinator.receipt(0)
        coordinator.receipt(2**31 - 1)
        coordinator.round(0)
        rejected = running.rejected
    assert sum(rejected.values()) == 16, "\n".join(rejected)
    for cause in ("not msgpack", "presence", "disagree", "'spell'", "over this kind's limit", "not offered", "nobody"):
        assert any(cause in each for each in rejected), cause


@pytest.mark.parametrize(
    ("plan", "cause"),
    [
        (plan_of(replace(ACC, shape=(2,)), GYRO), "acc: sensed as (3,) in g, the federation wants (2,) in g"),
        (
            plan_of(ACC, replace(GYRO, unit="deg/s")),
            "gyro: sensed as (2,) in rad/s, the federation wants (2,) in deg/s",
        ),
        (plan_of(DEPTH), "the federation learns depth; this device senses none of them"),
        (
            plan_of(replace(ACC, rate_hz=1e6), window=WindowSpec(window_s=1, stride_s=0.01)),
            "the federation's plan cannot be followed here: 64 windows of 12 MB, and up to 3.1e+03 made at once",
        ),
        (
            plan_of(ACC, GYRO, proxy={"acc": BlobRef(sha256=b"x" * 32, size_bytes=2000), "gyro": PLAN.proxy["gyro"]}),
            "round 1: the proxy set's acc is larger than its windows",
        ),
        (
            plan_of(
                ACC,
                GYRO,
                window=WindowSpec(window_s=1000.0, stride_s=1000.0),
                proxy_windows=16_384,
                proxy={name: BlobRef(sha256=b"x" * 32, size_bytes=600_000_000) for name in ("acc", "gyro")},
            ),
            "round 1: proxy set and global knowledge are over",
        ),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_and_the_next_one_is_followed(
    plan: Any, cause: str, coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start() as running:
        coordinator.until(Presence)
        coordinator.announce(0, plan=plan)
        coordinator.round(0, plan=PLAN)
        assert [each.startswith(cause) for each in running.rejected] == [True], reasons(running)


def test_a_round_that_cannot_be_followed_ends_the_one_before(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    good = coordinator.knowledge
    with start() as running:
        coordinator.announce(0)
        coordinator.until(Offer)
        coordinator.knowledge = {**good, "acc": bytes(1000)}
        coordinator.announce(1)
        coordinator.until(Presence, activity="idle")
        assert list(running.rejected) == ["round 2: the global knowledge of acc is larger than its embeddings"]
        coordinator.knowledge = good
        coordinator.round(1)


def test_a_plan_that_cannot_be_followed_leaves_the_former_one_as_it_was(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start():
        coordinator.announce(0)
        offer = coordinator.until(Offer)
        for bad in (plan_of(DEPTH), plan_of(replace(ACC, rate_hz=1e6), window=WindowSpec(window_s=1, stride_s=0.01))):
            coordinator.announce(0, plan=bad)
        coordinator.announce(0, plan=PLAN)
        coordinator.collect(offer)
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
        coordinator.round(1)


@pytest.mark.parametrize("less", [0, 1])
def test_a_proxy_set_that_is_none_costs_its_round_and_no_other(
    less: int, coordinator: HandMade, start: Callable[..., Running]
) -> None:
    junk = os.urandom(400)
    # One name for two modalities, perhaps with sizes that disagree.
    ref = blob_ref(junk)
    bad = replace(PLAN, proxy={"acc": ref, "gyro": replace(ref, size_bytes=ref.size_bytes - less)})
    coordinator.blobs[ref.sha256] = junk
    with start():
        coordinator.announce(0, plan=bad)
        coordinator.until(Presence, activity="fetching")
        coordinator.until(Presence, activity="idle")
        coordinator.round(0, plan=PLAN)


def test_a_flood_of_garbage_leaves_the_round_alone(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start() as running:
        coordinator.until(Presence)
        coordinator.announce(0)
        for number in range(1500):
            coordinator.link.publish(f"mekt/1/{FEDERATION}/down/{DEVICE}/k{'abcdefghij'[number % 10] * 8}", b"x" * 500)
        coordinator.collect(coordinator.until(Offer))
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
        assert len(running.rejected) <= 10


def test_a_model_that_diverges_sits_the_round_out_and_offers_nothing(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.announce(0, plan=plan_of(ACC, GYRO, method={"local_rate": 1e9, "local_epochs": 5}))
        coordinator.until(Presence, activity="fetching")
        coordinator.until(Presence, activity="idle")
        assert "offer" not in coordinator.kinds()
        coordinator.round(1, plan=PLAN)
    assert memory_of(tmp_path).progress.trained == 1


def test_an_offer_is_repeated_until_its_receipt_comes(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start():
        coordinator.announce(0)
        offers = [coordinator.until(Offer) for _ in range(3)]
        assert offers[0] == offers[1] == offers[2]
        coordinator.receipt(1)  # of another round: no answer to this one
        coordinator.until(Offer)
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")


def test_a_broker_that_dies_and_comes_back_costs_nothing(
    broker: Broker, coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start() as running:
        coordinator.announce(0)
        coordinator.until(Want)
        broker.kill()
        broker.start()
        coordinator.until_connected()
        coordinator.round(0)
        coordinator.until(Presence, activity="idle")
        assert running.rejected == {}


def test_a_coordinator_that_is_back_is_asked_and_offered_again_at_once(
    coordinator: HandMade, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lost what it had been sent, and would be asked again only when a test's patience is over."""
    monkeypatch.setattr("edge.upstream.OFFER_S", 10 * WAIT_S)
    monkeypatch.setattr("mekt.blobs.RETRY_S", 10 * WAIT_S)
    coordinator.mangle = lambda chunk: ()
    with start():
        coordinator.announce(0)
        asked = [coordinator.until(Want).sha256 for _ in coordinator.blobs]
        coordinator.mangle = lambda chunk: (chunk,)
        coordinator.announce(0)
        assert [coordinator.until(Want).sha256 for _ in coordinator.blobs] == asked
        offer = coordinator.until(Offer)
        coordinator.announce(0)
        assert coordinator.until(Offer) == offer


# Restarts


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


def change(base: Path, statement: str) -> None:
    """Change a device's state on the disk while it is at work."""
    with sqlite3.connect(base / "state" / FILE) as db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize("damage", ["DELETE FROM knowledge", "UPDATE knowledge SET data = x'00'"])
def test_knowledge_that_is_lost_from_the_disk_is_computed_again(
    damage: str, coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start() as running:
        coordinator.announce(0)
        offer = coordinator.until(Offer)
        change(tmp_path, damage)
        assert refs_of(coordinator.collect(offer)) == dict(offer.knowledge)
        assert running.rejected == {}


def test_knowledge_that_cannot_be_computed_again_is_learned_again(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.announce(0)
        coordinator.until(Offer)
        for path in (tmp_path / "state" / "blobs").iterdir():
            path.unlink()
        change(tmp_path, "DELETE FROM knowledge")
        coordinator.until(Presence, activity="training")
        coordinator.collect(coordinator.until(Offer))
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
        coordinator.round(1)


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


def test_other_encoders_than_before_begin_afresh(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        first = coordinator.round(0)
        coordinator.until(Presence, activity="idle")
    with start(architectures={"acc": "lstm"}) as running:
        second = coordinator.round(1)
        assert running.rejected == {}
    assert first["acc"] != second["acc"]
    assert memory_of(tmp_path).progress.plan.endswith("acc=lstm gyro=conv")


def test_damaged_weights_are_put_aside_and_the_device_learns_from_the_start(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        coordinator.round(0)
        coordinator.until(Presence, activity="idle")
    change(tmp_path, "UPDATE model SET weights = x'00'")
    with start():
        coordinator.round(1)
        coordinator.until(Presence, activity="idle")
    assert (tmp_path / "state" / "device.damaged").is_file()
    assert memory_of(tmp_path).progress.trained == 1


def test_a_state_folder_in_use_is_refused_before_anything_is_sent(broker: Broker, tmp_path: Path) -> None:
    config = config_file(tmp_path, broker.port)
    with only_process(tmp_path / "state"), pytest.raises(StateError, match="in use by process"):
        run_edge(config, Stop())


def test_what_a_plan_left_behind_is_passed_over(start: Callable[..., Running]) -> None:
    device = start().device
    before = device._state
    device._handle(JobDone(name="learning-7", error=StateError("of another plan")))
    device._handle(JobDone(name="learning-8", result={"acc": b"knowledge"}))
    device._handle(Enough(course=Course(PLAN, device._settings, device._sources, device._inbox)))
    assert device._state == before


# Presence, and the end


def test_a_coordinator_that_comes_later_finds_the_device(
    broker: Broker, coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start():
        coordinator.until(Presence, state="online")
        coordinator.link.stop(1.0)
        with HandMade(broker.port, PLAN) as later:
            assert later.until(Presence).state == "online"
            later.round(0)


def test_it_ends_soon_in_the_middle_of_learning_and_says_so(
    broker: Broker, coordinator: HandMade, start: Callable[..., Running]
) -> None:
    with start() as running:
        coordinator.announce(0, plan=LONG)
        online = coordinator.until(Presence, activity="training")
        assert online.state == "online" and online.modalities == BOTH and online.windows == 11
        while not coordinator.until(Presence).progress > 0:
            pass
        assert running.end() < 5
        offline = coordinator.until(Presence, state="offline")
        assert offline.session == online.session
    inbox: queue.Queue[Any] = queue.Queue()
    topic = f"mekt/1/{FEDERATION}/up/{DEVICE}/presence"
    late = Link(settings=BrokerSettings(port=broker.port), client_id="late", inbox=inbox, subscriptions=(topic,))
    late.start()
    try:
        while not isinstance(event := inbox.get(timeout=WAIT_S), Received):
            pass
        assert event.retained and decode(event.payload).body == offline
    finally:
        late.stop(1.0)


def config_file(base: Path, port: int) -> Path:
    """The settings of the device as a file."""
    device_settings(base, port)
    path = base / "device.toml"
    path.write_text(
        f'federation = "{FEDERATION}"\ndevice = "{DEVICE}"\nbroker.port = {port}\n'
        "windows = { capacity = 64, least = 8, whole_source = true }\n"
        '[[sensors]]\nkind = "replay"\nrecordings = ["private.npz"]\nmodalities = ["acc", "gyro"]\nspeed = 1e6\n',
        encoding="utf-8",
    )
    return path


def test_a_process_that_is_killed_is_missed_and_goes_on_where_it_was(
    broker: Broker, coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    config = config_file(tmp_path, broker.port)
    command = [sys.executable, "-m", "mekt", "edge", "run", "--config", str(config)]
    coordinator.announce(0)
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stderr=log, cwd=ROOT) as process:
        try:
            offer = coordinator.until(Offer)
            online = coordinator.until(Presence, state="online", activity="sending")
        finally:
            process.send_signal(signal.SIGKILL)
    will = coordinator.until(Presence, state="offline")
    assert will.session == online.session
    coordinator.heard.clear()
    with start():
        again = coordinator.until(Offer)
        assert again == offer
        assert refs_of(coordinator.collect(again)) == dict(offer.knowledge)
        sessions = {each.body.session for each in coordinator.heard if isinstance(each.body, Presence)}
        assert len(sessions) == 1 and will.session not in sessions
    assert "want" not in coordinator.kinds()


# What leaves the device


def secrets_of(folder: Path) -> list[bytes]:
    """Byte strings that tell a window or a weight: samples in every encoding, and pieces of the stored weights."""
    found = []
    for values in PRIVATE.values():
        for dtype in ("<f4", ">f4", "<f8", ">f8"):
            found += [np.array([value]).astype(dtype).tobytes() for value in values]
        found += [np.array(values * 2).astype(dtype).tobytes() for dtype in ("<f2", ">f2")]
        found += [str(value).encode() for value in values]
    weights = memory_of(folder).weights() or b""
    found += [weights[begin : begin + 16] for begin in range(0, len(weights) - 16, 64)]
    return [each for each in found if len(set(each)) > 1]


def test_nothing_leaves_but_whitelisted_kinds_whose_only_bulk_is_knowledge_of_the_plans_size(
    broker: Broker, coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    inbox: queue.Queue[Any] = queue.Queue()
    ears = Link(settings=BrokerSettings(port=broker.port), client_id="ears", inbox=inbox, subscriptions=("#",))
    ears.start()
    weights = b""
    with start():
        for number in range(2):
            coordinator.round(number)
            # Whatever is asked for: the proxy set, the weights, the windows, by any name.
            weights = memory_of(tmp_path).weights() or b""
            private = (tmp_path / "private.npz").read_bytes()
            for sha256 in (*coordinator.blobs, blob_ref(weights).sha256, blob_ref(private).sha256, b"\0" * 32):
                coordinator.send(Want(sha256=sha256, chunks=(0, 1, 2**24)), number)
            coordinator.until(Presence, activity="idle")
    coordinator.until(Presence, state="offline")
    captured: list[Received] = []
    while not captured or not _is_farewell(captured[-1]):
        event = inbox.get(timeout=WAIT_S)
        if isinstance(event, Received):
            captured.append(event)
    ears.stop(1.0)
    topics = [parse_topic(each.topic) for each in captured]
    assert None not in topics, "nothing is published outside the federation's topics"
    up = [decode(event.payload, topic) for event, topic in zip(captured, topics, strict=True) if _is_up(topic)]
    assert {each.kind for each in up} == {"presence", "want", "offer", "chunk"}
    exact = len(pack_knowledge(noise(PROXY, 4), None, "float16"))
    offered = {ref.sha256 for each in up if isinstance(each.body, Offer) for ref in each.body.knowledge.values()}
    for envelope in up:
        if isinstance(envelope.body, Offer):
            assert set(envelope.body.knowledge) == set(BOTH)
            assert {ref.size_bytes for ref in envelope.body.knowledge.values()} == {exact}
        if isinstance(envelope.body, Chunk):
            assert envelope.body.sha256 in offered and len(envelope.body.data) == exact
    assert len({each.body.sha256 for each in up if isinstance(each.body, Chunk)}) == 4, "two modalities, two rounds"
    everything = b"\n".join(each.payload for each in captured)
    secrets = secrets_of(tmp_path)
    for secret in secrets:
        assert secret not in everything
    window = windows_of(private_recording(), (ACC, GYRO), SPEC).arrays["acc"][:1]
    for leak in (window.tobytes(), window.astype("<f2").tobytes(), window.astype(">f4").tobytes(), weights):
        assert any(secret in leak for secret in secrets), "the search finds what it looks for"


def _is_up(topic: Any) -> bool:
    return bool(topic.direction == "up")


def _is_farewell(event: Received) -> bool:
    body = decode(event.payload).body
    return isinstance(body, Presence) and body.state == "offline"
