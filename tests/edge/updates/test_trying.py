"""When a self-test begins, and what its end is taken for; the tests themselves are begun and not made."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.runtime import Decisions
from edge.updates.handover import Handover
from edge.updates.machine import Figures, Judged, Updates
from edge.updates.settings import Limits
from edge.updates.slots import Slots
from edge.updates.trying import Trying
from mekt.errors import StateError
from mekt.messages import Unfit
from mekt.plan import BlobRef
from mekt.process import JobDone
from sensors.source import Floats

OLD, NEW = BlobRef(sha256=b"a" * 32, size_bytes=1), BlobRef(sha256=b"b" * 32, size_bytes=1)
LIMITS = Limits(windows=10, classes=2, classes_s=60, patience_s=90)
VERDICT: tuple[Unfit, Figures] = "slow", Figures(latency_us=9)


class Side:
    """A self-test about to be made, where `running` is at work, and of how many windows each is that begins."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, running: BlobRef | None = OLD) -> None:
        self.begun: list[int] = []
        self.handover = Handover()
        begun = self.begun

        class Begun:
            def __init__(self, new: Path, old: Path, groups: list[dict[str, Floats]], limits: Limits) -> None:
                begun.append(sum(len(group["acc"]) for group in groups))

            def result(self) -> tuple[Unfit, Figures]:
                return VERDICT

            def stop(self) -> None:
                """Nothing is under way."""

        monkeypatch.setattr("edge.updates.selftest.SelfTest", Begun)
        slots = Slots(folder)
        slots.state = Updates(phase="testing", number=1, running=running, target=NEW)
        self.trying = Trying(LIMITS, slots, self.handover)
        self.trying.begin(NEW, 0.0)

    def see(self, label: str, count: int) -> None:
        """So many windows of this class."""
        arrays = {"acc": np.zeros((count, 50, 3), np.float32)}
        certain = np.ones((count, 1), np.float32)
        said = Decisions(classifier="acc", modalities=("acc",), labels=(label,), probabilities=certain)
        self.handover.saw(arrays, said, 1.0)

    def done(self) -> JobDone:
        """The end of the test that began."""
        while True:
            event = self.handover.inbox.get(timeout=10)
            if isinstance(event, JobDone):
                return event


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Side]:
    return lambda **more: Side(tmp_path, monkeypatch, **more)


def test_it_waits_for_windows_and_not_for_ever(side: Callable[..., Side]) -> None:
    one = side()
    one.see("sit", 9)
    assert one.trying.on_time(80) is None
    assert one.trying.on_time(100) == Judged(blob=NEW, why="untested")
    assert one.trying.on_time(200) is None and one.begun == [], "it was given up"


def test_it_waits_for_windows_of_several_classes_and_is_made_without_in_the_end(side: Callable[..., Side]) -> None:
    one = side()
    one.see("sit", 12)
    one.see("walk", 2)
    assert one.trying.on_time(50) is None and one.begun == []
    assert one.trying.on_time(70) is None and one.begun == [14]


def test_it_begins_as_soon_as_there_is_enough_and_its_end_is_the_verdict(side: Callable[..., Side]) -> None:
    one = side()
    one.see("sit", 12)
    one.see("walk", 3)
    for _ in range(2):
        assert one.trying.on_time(1.0) is None
    assert one.begun == [15], "one at a time"
    done = one.done()
    assert one.trying.judged(JobDone(name="another", result=VERDICT)) is None
    assert one.trying.judged(done) == Judged(blob=NEW, why="slow", figures=VERDICT[1])
    assert one.trying.judged(done) is None, "it was told"


def test_where_nothing_runs_no_window_is_waited_for(side: Callable[..., Side]) -> None:
    one = side(running=None)
    assert one.trying.on_time(0.0) is None and one.begun == [0]


def test_a_test_that_cannot_be_made_refuses_the_release(side: Callable[..., Side]) -> None:
    one = side(running=None)
    one.trying.on_time(0.0)
    failed = JobDone(name=one.done().name, error=StateError("no process can be started"))
    assert one.trying.judged(failed) == Judged(blob=NEW, why="does-not-run")


def test_what_is_left_says_nothing_any_more(side: Callable[..., Side]) -> None:
    one = side(running=None)
    one.trying.on_time(0.0)
    done = one.done()
    one.trying.leave(1.0)
    assert one.trying.judged(done) is None and one.trying.on_time(1000) is None
