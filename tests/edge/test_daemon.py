"""The agent at work, over a real broker, against a coordinator made by hand: whole rounds, faults, starts and ends."""

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from edge.course import Course, Enough
from edge.daemon import run_edge
from edge.lessons import Lesson
from edge.settings import PrivateWindows
from edge.stock import InMemory
from mekt.arrays import pack_knowledge
from mekt.blobs import blob_ref
from mekt.broker import Broker
from mekt.errors import StateError
from mekt.files import BlobStore
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import Chunk, Offer, Presence, Receipt, Want, decode
from mekt.process import JobDone, Stop, only_process
from mekt.topics import parse_topic
from sensors.windows import windows_of
from tests.edge.conftest import (
    ACC,
    BOTH,
    DEVICE,
    FEDERATION,
    GYRO,
    LONG,
    PLAN,
    PRIVATE,
    PROXY,
    SPEC,
    HandMade,
    Running,
    device_settings,
    memory_of,
    noise,
    plan_of,
    private_recording,
    refs_of,
)
from tests.waiting import WAIT_S

ROOT = Path(__file__).parents[2]


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
    assert knowledge == lesson.learn(InMemory(windows), None, blobs, lambda done, whole: None).knowledge
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


# Faults on the way


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


def legible(base: Path) -> set[str]:
    """The files of a device's state that hold a private sample as it was sensed."""
    sample = np.array(PRIVATE["acc"], dtype=np.float32).tobytes()
    return {path.name for path in (base / "state").rglob("*") if path.is_file() and sample in path.read_bytes()}


def test_sealed_windows_give_the_same_knowledge_and_are_not_legible(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    pytest.importorskip("cryptography")
    windows = PrivateWindows(capacity=64, least=8, whole_source=True)
    with start(tmp_path / "open", windows=windows):
        knowledge = coordinator.round(0)
    with start(tmp_path / "sealed", windows=replace(windows, encrypt=True)):
        assert coordinator.round(0) == knowledge
    assert legible(tmp_path / "open") == {"acc"} and legible(tmp_path / "sealed") == set()


# Starts and ends


def test_a_state_folder_in_use_is_refused_before_anything_is_sent(broker: Broker, tmp_path: Path) -> None:
    config = config_file(tmp_path, broker.port)
    with only_process(tmp_path / "state"), pytest.raises(StateError, match="in use by process"):
        run_edge(config, Stop())


def test_what_a_plan_left_behind_is_passed_over(start: Callable[..., Running]) -> None:
    device = start().device
    before = device._state
    device._handle(JobDone(name="learning-7", error=StateError("of another plan")))
    device._handle(JobDone(name="learning-8", result={"acc": b"knowledge"}))
    device._handle(Enough(course=Course(PLAN, device._settings, device._sources, device._inbox, device._windows)))
    assert device._state == before


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
