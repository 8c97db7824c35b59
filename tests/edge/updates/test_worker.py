"""A wearable's updates around their state machine, without a network: starts, disks, and what is not for it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.runtime import Decisions
from edge.updates.arrival import Arrival
from edge.updates.handover import Failure, Handover, Saw, Sensed
from edge.updates.keeper import Keeper
from edge.updates.machine import Announced, Failed, Figures, Judged, Updates, commands_at_start
from edge.updates.settings import TrialSettings, UpdateSettings
from edge.updates.slots import Slots
from edge.updates.trial import STEP_S
from edge.updates.worker import Updating
from export.release import Release
from mekt.blobs import blob_ref, chunk_count, read_chunk
from mekt.catalogue import RELEASE_DOES_NOT_RUN, RELEASE_HAS_NO_CLASSIFIER
from mekt.errors import MissingPackageError, ReleaseError, SensorError, SettingsError, StateError
from mekt.link import Received
from mekt.login import BrokerSettings
from mekt.messages import Body, Receipt, Rollout, Trouble
from mekt.post import Post
from mekt.process import Stop
from mekt.share import takes_part
from tests.edge.updates.shipped import public_key, shipped, sign, surer

A, B, C = shipped(1), shipped(2, surer), shipped(3)
REF_A, REF_B = blob_ref(A), blob_ref(B)
ON_TRIAL = Updates(
    phase="trial",
    number=1,
    running=REF_B,
    good=REF_A,
    target=REF_B,
    figures=Figures(confidence_percent=80, latency_us=100),
    starts=1,
)
# Nobody listens there.
SETTINGS = UpdateSettings(
    federation="ward", device="wrist", broker=BrokerSettings(port=1), trial=TrialSettings(hours=1, most_starts=3)
)


class Life:
    """A process of a wearable, from its start until it is forgotten, which is how it ends when it crashes."""

    def __init__(self, base: Path, settings: UpdateSettings = SETTINGS) -> None:
        self.handover = Handover()
        self.updating = Updating(settings, base, base / "state", self.handover)
        self._release: Release | None = None

    @property
    def state(self) -> Updates:
        return self.updating._slots.state

    def round(self) -> int | None:
        """The round of the release that is to be run."""
        self._release = self.handover.take(0.0) or self._release
        return None if self._release is None else self._release.manifest.round

    def receive(self, post: Post, body: Body) -> None:
        topic, payload = post.seal(body, "all" if isinstance(body, Rollout) else "down", device=self._device(body))
        self.hear(topic, payload)

    def hear(self, topic: str, payload: bytes) -> None:
        self.updating._handle(Received(topic=topic, payload=payload, retained=False))

    @property
    def trouble(self) -> Mapping[Trouble, int]:
        """What was dropped, by reason."""
        assert self.updating._exchange is not None
        return self.updating._exchange.post.trouble

    def end(self) -> None:
        """Let files go, as the end of a process does."""
        self.updating._arrival.close()
        if self.updating._exchange is not None:
            self.updating._exchange.stop(0.0)

    def _device(self, body: Body) -> str:
        return "" if isinstance(body, Rollout) else "wrist"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    """Starts it in `tmp_path`; the one before has ended by then."""
    lives: list[Life] = []

    def begin(settings: UpdateSettings = SETTINGS) -> Life:
        if lives:
            lives.pop().end()
        lives.append(Life(tmp_path, settings))
        return lives[-1]

    yield begin
    lives.pop().end()


@pytest.fixture
def has(tmp_path: Path) -> Callable[..., None]:
    """Puts releases and a state on the disk."""

    def put(state: Updates, *raws: bytes) -> None:
        slots = Slots(tmp_path / "state")
        for raw in raws:
            slots.put(raw, None)
        slots.keep(state)

    return put


def rollout(number: int = 1, share: float = 1.0, data: bytes = B) -> Rollout:
    return Rollout(release=f"ward-{number}", blob=blob_ref(data), number=number, share=share)


def test_a_release_that_ends_the_process_each_time_is_rolled_back_after_some_starts(
    has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(ON_TRIAL, A, B)
    assert [start().round() for _ in range(4)] == [2, 2, 1, 1]
    assert start().state.why == "crashed"


def test_who_cannot_count_starts_runs_the_last_good_release(
    has: Callable[..., None], start: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(ON_TRIAL, A, B)
    monkeypatch.setattr("edge.updates.slots.write_atomically", full)
    assert start().round() == 1
    monkeypatch.undo()
    assert start().round() == 2


def full(*_: object) -> None:
    raise StateError("the disk is full")


def test_a_release_that_fails_is_not_run_on_even_if_that_cannot_be_written_down(
    has: Callable[..., None], start: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(ON_TRIAL, A, B)
    life = start()
    assert life.round() == 2
    monkeypatch.setattr("edge.updates.slots.write_atomically", full)
    life.updating._advance(Failed(why="silent"))
    assert life.round() == 1 and life.state.phase == "trial"
    # What runs now is the last good one: it proves nothing for the other, and nothing more is tried.
    for now_s in range(0, 9000, int(STEP_S)):
        life.updating._on_trial(Saw(release=REF_A, now_s=now_s, probability=0.9, latency_ms=1))
    life.updating._on_rollout(rollout(2, data=A))
    assert life.state.phase == "trial" and life.state.number == 1


def test_a_release_that_fails_when_the_disk_takes_nothing_any_more_gives_way_too(
    has: Callable[..., None], start: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(ON_TRIAL, A, B)
    life = start()
    monkeypatch.setattr("edge.updates.slots.write_atomically", full)
    for now_s in range(0, 900, int(STEP_S)):
        life.updating._guarded(life.updating._handle, Saw(release=REF_B, now_s=now_s, probability=0.9, latency_ms=1))
    assert life.round() == 2
    life.updating._guarded(life.updating._handle, Failure(release=REF_B, why="does-not-run"))
    assert life.round() == 1


def test_a_release_that_is_damaged_gives_way_even_if_the_disk_takes_nothing(
    tmp_path: Path, has: Callable[..., None], start: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(replace(ON_TRIAL, phase="good", starts=0), A, B)
    (tmp_path / "state" / "releases" / REF_B.sha256.hex()).write_bytes(B[:-1] + b"?")
    monkeypatch.setattr("edge.updates.slots.write_atomically", full)
    assert start().round() == 1


def test_a_release_that_is_damaged_on_the_disk_gives_way_to_the_last_good_one_and_is_fetched_again(
    tmp_path: Path, has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(replace(ON_TRIAL, phase="good", starts=0), A, B)
    (tmp_path / "state" / "releases" / REF_B.sha256.hex()).write_bytes(B[:-1] + b"?")
    life = start()
    assert life.round() == 1
    assert (life.state.phase, life.state.target) == ("fetching", REF_B)
    arrive(life)
    assert life.state.phase == "testing"


def test_a_last_good_release_that_is_damaged_does_not_keep_the_newest_from_coming(
    tmp_path: Path, has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(ON_TRIAL, A, B)
    life = start()
    (tmp_path / "state" / "releases" / REF_A.sha256.hex()).unlink()
    life.updating._on_rollout(rollout(2, data=C))
    assert life.state.running is None
    arrive(life, C)
    life.updating._advance(Judged(blob=blob_ref(C)))
    assert life.round() == 3


def arrive(life: Life, data: bytes = B) -> None:
    """All chunks that it asks for."""
    now_s = 0.0
    while life.state.phase == "fetching" and now_s < 1000:
        now_s += 100
        for want in life.updating._arrival.due(now_s, 0):
            for index in want.chunks:
                chunk = read_chunk(data, blob_ref(data), index)
                assert chunk is not None
                life.updating._on_chunk(chunk)


def test_nothing_is_run_where_nothing_is_left_and_a_new_rollout_brings_it(
    tmp_path: Path, has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(Updates(running=REF_A), A)
    (tmp_path / "state" / "releases" / REF_A.sha256.hex()).unlink()
    life = start()
    assert life.round() is None and life.state.running is None
    life.updating._on_rollout(rollout())
    arrive(life)
    life.updating._advance(Judged(blob=REF_B))
    assert life.round() == 2


def test_a_rollout_to_others_is_none_until_its_share_grows(
    has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(Updates(running=REF_A), A)
    number = next(number for number in range(1, 99) if not takes_part("ward", number, "wrist", 0.3))
    life = start()
    life.updating._on_rollout(rollout(number, 0.3))
    assert life.state == Updates(running=REF_A)
    life.updating._on_rollout(rollout(number, 1.0))
    assert (life.state.phase, life.state.number) == ("fetching", number)
    life.updating._on_rollout(rollout(number + 1, 0.0))
    assert (life.state.phase, life.state.number) == ("running", number + 1)


def test_what_is_not_signed_or_was_said_before_is_dropped_even_after_a_restart(
    tmp_path: Path, has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(Updates(running=REF_A), A)
    public_key(tmp_path)
    settings = replace(SETTINGS, trust="coordinator.pub")
    coordinator, stranger = Post("ward"), Post("ward")
    coordinator.sign = sign
    life = start(settings)
    life.receive(stranger, rollout(9))
    assert life.state.number == 0 and life.trouble["unsigned"] == 1
    topic, former = coordinator.seal(rollout(5), "all")
    life.receive(coordinator, rollout(2))
    assert life.state.number == 2
    life = start(settings)
    life.hear(topic, former)
    assert life.state.number == 2 and life.trouble["replayed"] == 1


def test_what_is_none_for_a_wearable_is_dropped_and_counted(
    has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(Updates(running=REF_A), A)
    life = start()
    life.receive(Post("ward"), Receipt(state="accepted"))
    life.hear("mekt/1/ward/rollout", b"\xff")
    chunk = read_chunk(B, REF_B, 0)
    assert chunk is not None
    life.receive(Post("ward"), chunk)
    assert life.trouble == {"misplaced": 1, "malformed": 1, "unasked-chunk": 1}


def test_settings_that_cannot_work_are_no_fault_of_a_release_on_trial(
    tmp_path: Path, has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(ON_TRIAL, A, B)
    for _ in range(5):
        with pytest.raises(SettingsError, match=r"coordinator\.pub"):
            Life(tmp_path, replace(SETTINGS, trust="coordinator.pub"))
    life = start()
    assert (life.round(), life.state.starts) == (2, 2)


def test_where_nobody_knows_what_was_trusted_updates_rest_and_nothing_is_taken_for_verified(
    tmp_path: Path, has: Callable[..., None], start: Callable[..., Life]
) -> None:
    unsigned = shipped(4, signed=False)
    blob = blob_ref(unsigned)
    public_key(tmp_path)
    settings = replace(SETTINGS, trust="coordinator.pub")
    has(Updates(running=REF_A, phase="fetching", number=1, target=blob), A)
    # All chunks have come, and then the power went.
    arrival = Arrival(tmp_path / "state", 10**8)
    arrival.begin(blob)
    for index in range(chunk_count(blob)):
        chunk = read_chunk(unsigned, blob, index)
        assert chunk is not None
        arrival._append(chunk)
    arrival.close()
    (tmp_path / "state" / "newest-rollout").write_text("?")
    life = start(settings)
    life.updating._follow(commands_at_start(life.state))
    assert life.round() == 1 and life.state.phase == "fetching"
    assert Slots(tmp_path / "state").read(blob) is None
    (tmp_path / "state" / "newest-rollout").unlink()
    life = start(settings)
    life.updating._follow(commands_at_start(life.state))
    assert (life.state.phase, life.state.why) == ("refused", "unsigned")


def test_a_release_that_makes_nothing_of_what_is_sensed_is_rolled_back_and_others_are_not_heard(
    has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(ON_TRIAL, A, B)
    life = start()
    assert life.round() == 2
    for now_s in range(200):
        # Of the one before, which the loop had not left yet.
        life.updating._handle(Sensed(release=REF_A, now_s=now_s))
        life.updating._handle(Failure(release=REF_A, why="does-not-run"))
    assert life.state.phase == "trial"
    for now_s in range(200):
        life.updating._handle(Sensed(release=REF_B, now_s=now_s))
    assert (life.state.phase, life.state.why) == ("rolled-back", "silent") and life.round() == 1


def test_a_release_is_not_called_silent_before_there_can_be_a_window(
    has: Callable[..., None], start: Callable[..., Life]
) -> None:
    """Its windows are a second long."""
    has(ON_TRIAL, A, B)
    life = start(replace(SETTINGS, trial=TrialSettings(silent_s=0.5)))
    for tenth in range(14):
        life.updating._on_trial(Sensed(release=REF_B, now_s=tenth / 10))
    assert life.state.phase == "trial"
    for tenth in range(14, 17):
        life.updating._on_trial(Sensed(release=REF_B, now_s=tenth / 10))
    assert life.state.why == "silent"


def test_what_a_trial_has_run_is_written_down_now_and_then(
    has: Callable[..., None], start: Callable[..., Life]
) -> None:
    has(ON_TRIAL, A, B)
    life = start()
    for now_s in range(0, 1200, int(STEP_S)):
        life.updating._on_trial(Saw(release=REF_B, now_s=now_s, probability=0.9, latency_ms=1))
    assert 1200 - 60 <= start().state.ran_s < 1200
    life = start()
    for now_s in range(0, 2500, int(STEP_S)):
        life.updating._on_trial(Saw(release=REF_B, now_s=now_s, probability=0.9, latency_ms=1))
    assert life.state.phase == "good"


def test_a_fault_of_mekts_own_rests_updates_and_ends_nothing(
    has: Callable[..., None], start: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(Updates(running=REF_A), A)
    life = start()
    life.updating._guarded(life.updating._handle, object())
    life.updating._advance(Announced(number=3, blob=REF_B))
    assert life.state.number == 0 and life.round() == 1


def test_the_updates_are_woken_up_by_windows_in_a_trial_alone(
    has: Callable[..., None], start: Callable[..., Life]
) -> None:
    decisions = Decisions(
        classifier="acc", modalities=("acc",), labels=("a", "b"), probabilities=np.array([[0.2, 0.8]], np.float32)
    )
    has(ON_TRIAL, A, B)
    life = start()
    for running in (2, 1):
        assert life.round() == running
        life.handover.sensed()
        life.handover.saw({"acc": np.zeros((1, 50, 3), np.float32)}, decisions, 1.0)
        told = [life.handover.inbox.get_nowait() for _ in range(life.handover.inbox.qsize())]
        assert [type(each) for each in told] == ([Sensed, Saw] if running == 2 else [])
        life.updating._advance(Failed(why="silent"))
    assert life.handover.variety[0] == 2, "a self-test has both"


def test_without_a_broker_a_wearable_runs_what_it_has_and_ends_soon(tmp_path: Path, has: Callable[..., None]) -> None:
    has(ON_TRIAL, A, B)
    keeper = Keeper(SETTINGS, tmp_path)
    assert keeper.wait(Stop())
    first = keeper.look(0.0)
    assert first is not None and first.manifest.round == 2
    assert keeper.look(0.5) is None, "it is given away once"
    with pytest.raises(StateError, match="in use by process"):
        Keeper(SETTINGS, tmp_path)
    keeper.failed(RuntimeError("it does not take this window"))
    release = keeper.look(1.0)
    assert release is not None and release.manifest.round == 1
    keeper.close()
    # An end that was asked for is no crash.
    assert Slots(tmp_path / "state").state.starts == 0


@pytest.mark.parametrize(("is_fault", "starts"), [(True, 2), (False, 0)])
def test_an_end_that_nobody_asked_for_counts_as_a_crash(
    tmp_path: Path, has: Callable[..., None], is_fault: bool, starts: int
) -> None:
    has(ON_TRIAL, A, B)
    Keeper(SETTINGS, tmp_path).close(is_fault=is_fault)
    assert Slots(tmp_path / "state").state.starts == starts


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (SensorError("no sensor for any of the release's modalities"), "unfit"),
        (SettingsError("decide: the release has no class fall"), "unfit"),
        (MissingPackageError("depthai is not installed here"), "unfit"),
        (ReleaseError("no classifier for acc alone", RELEASE_HAS_NO_CLASSIFIER), "unfit"),
        (ReleaseError("cannot be loaded", RELEASE_DOES_NOT_RUN), "does-not-run"),
        (RuntimeError("it does not take this window"), "does-not-run"),
    ],
)
def test_a_release_for_other_sensors_or_settings_is_told_from_one_that_is_broken(
    tmp_path: Path, has: Callable[..., None], error: Exception, why: str
) -> None:
    has(ON_TRIAL, A, B)
    keeper = Keeper(SETTINGS, tmp_path)
    release = keeper.look(0.0)
    assert release is not None and release.manifest.round == 2
    keeper.failed(error)
    keeper.close()
    state = Slots(tmp_path / "state").state
    assert (state.phase, state.why) == ("rolled-back", why)


def test_a_wearable_that_has_nothing_yet_says_so_and_waits_until_it_is_asked_to_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keeper = Keeper(SETTINGS, tmp_path)
    assert keeper.look(0.0) is None
    stop = Stop()
    stop.request()
    assert not keeper.wait(stop)
    keeper.close()
    assert "waiting for the first that is promoted" in caplog.text
