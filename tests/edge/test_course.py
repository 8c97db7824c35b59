"""Plans that are followed, and plans that cannot be."""

import queue
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.course import Course, Enough, UnfitPlanError, sensed_by, shared_modalities
from edge.settings import PrivateWindows
from mekt.messages import Offer, Presence, RoundOpen
from mekt.modality import WindowSpec
from mekt.plan import BlobRef
from tests.edge.conftest import (
    ACC,
    DEPTH,
    DEVICE,
    GYRO,
    LONG,
    PLAN,
    HandMade,
    Running,
    another_run,
    device_settings,
    knowledge_blobs,
    memory_of,
    plan_of,
    refs_of,
)
from tests.waiting import WAIT_S


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


def test_learning_waits_for_enough_windows(coordinator: HandMade, start: Callable[..., Running]) -> None:
    with start(windows=PrivateWindows(capacity=64, least=12, whole_source=True)) as running:
        coordinator.announce(0)
        coordinator.until(Presence, activity="sensing")
        assert running.rejected == {}
    assert coordinator.kinds() <= {"presence", "want"}


def reasons(running: Running) -> str:
    return "\n".join(running.rejected)


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
            "the federation's plan cannot be followed here: windows of 12 MB, up to 3.1e+03 of them made at once",
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


def test_the_modalities_that_plan_and_device_share_are_the_plans() -> None:
    sensed = {each.name: each for each in (ACC, replace(GYRO, rate_hz=200.0))}
    assert shared_modalities(plan_of(DEPTH, GYRO), sensed) == [GYRO], "at the plan's rate"
    for plan in (plan_of(DEPTH), plan_of(replace(ACC, unit="m/s2"))):
        with pytest.raises(UnfitPlanError):
            shared_modalities(plan, sensed)


def test_a_course_says_once_that_it_has_enough_windows_and_that_it_is_the_one(tmp_path: Path) -> None:
    settings = device_settings(tmp_path, 1883, architectures={"gyro": "lstm"})
    sources = [each.source(tmp_path) for each in settings.sensors]
    assert sorted(sensed_by(sources)) == ["acc", "gyro"]
    inbox: queue.Queue[Any] = queue.Queue()
    course = Course(PLAN, settings, sources, inbox, tmp_path / "windows")
    course.sensing.start()
    enough = inbox.get(timeout=WAIT_S)
    assert isinstance(enough, Enough) and enough.course is course
    assert course.sensing.stop(WAIT_S) and inbox.empty()
    assert course.model == f"{PLAN.identity} acc=conv gyro=lstm" and course.lost == frozenset()
    word = RoundOpen(state="open", deadline_s=1, participants=(), plan=PLAN, knowledge=refs_of(knowledge_blobs(PLAN)))
    lesson = course.lesson(3, word)
    assert (lesson.device, lesson.round, lesson.plan) == (DEVICE, 3, PLAN)
    assert lesson.architectures == {"acc": "conv", "gyro": "lstm"} and lesson.size_problem() is None
