"""Rollouts on disk: durable step by step, seen by every process that has them open, signed once."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.authority import Authority
from coordinator.rollout import HOUR_S, Heard, Passed, RolloutRules, Widened
from coordinator.rollouts import FILE, FOLDER, KEPT, Rollouts, Shipped
from export.release import Release, open_release, read_release
from mekt import files
from mekt.database import DamagedStateError, Database
from mekt.errors import ReleaseError
from mekt.share import takes_part
from mekt.signature import Trust
from tests.export.small import ACC, parts_of

RULES = RolloutRules(share=0.5, least=1, failures=1, hours=2.0)
Open = Callable[[], Rollouts]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """Three small releases by name."""
    folder = tmp_path_factory.mktemp("releases")
    made = {}
    for number in (1, 2, 3):
        name = f"ward-{number:05}"
        parts = parts_of(ACC)
        object.__setattr__(parts, "round", number)
        parts.write(folder / f"{name}.zip")
        made[name] = read_release(folder / f"{name}.zip")
    return made


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the rollouts in this test's folder, as every process would."""
    made: list[Rollouts] = []

    def make() -> Rollouts:
        made.append(Rollouts(tmp_path, "ward", RULES))
        return made[-1]

    yield make
    for each in made:
        each.close()


def canary(number: int) -> str:
    return next(f"watch-{index}" for index in range(99) if takes_part("ward", number, f"watch-{index}", 0.5))


def newest(rollouts: Rollouts) -> Shipped:
    found = rollouts.newest
    assert found is not None
    return found


def done(rollouts: Rollouts, release: Release, name: str) -> Shipped:
    """Ship to all, and let the time pass."""
    rollouts.start(release, name, 1.0)
    rollouts.advance(Passed(seconds=RULES.hours * HOUR_S))
    return newest(rollouts)


def test_a_release_goes_to_a_share_and_then_to_all(opened: Open, releases: dict[str, Release]) -> None:
    rollouts = opened()
    assert rollouts.newest is None and rollouts.all == ()
    begun = rollouts.start(releases["ward-00001"], "ward-00001", 0.5)
    assert (begun.progress.number, begun.progress.state, begun.progress.share) == (1, "canary", 0.5)
    data = rollouts.zip(begun)
    assert data is not None and open_release(data, Path("x")).manifest == releases["ward-00001"].manifest
    after = rollouts.advance(Heard(device=canary(1), state="good"), 1)
    assert after is not None and (after.progress.state, after.progress.share) == ("everybody", 1.0)
    assert opened().newest == after, "another process sees the same"


def test_words_on_another_rollout_are_none_on_this_one(opened: Open, releases: dict[str, Release]) -> None:
    rollouts = opened()
    begun = rollouts.start(releases["ward-00001"], "ward-00001", 0.5)
    assert rollouts.advance(Heard(device=canary(1), state="rolled-back", why="slow"), 2) == begun
    assert newest(rollouts) == begun


def test_a_failed_release_makes_room_for_the_one_before_it(opened: Open, releases: dict[str, Release]) -> None:
    rollouts = opened()
    first = done(rollouts, releases["ward-00001"], "ward-00001")
    rollouts.start(releases["ward-00002"], "ward-00002", 0.5)
    back = rollouts.advance(Heard(device=canary(2), state="rolled-back", why="crashed"), 2)
    assert back is not None and back == newest(rollouts)
    progress = back.progress
    assert (progress.number, progress.release, progress.share, progress.state) == (3, "ward-00001", 1.0, "done")
    assert progress.reason == f"back from ward-00002: 1 failed ({canary(2)}: crashed)"
    assert [each.progress.state for each in rollouts.all] == ["done", "stopped", "done"]
    assert back.blob == first.blob


def test_what_was_taken_back_is_not_gone_back_to(opened: Open, releases: dict[str, Release]) -> None:
    rollouts = opened()
    for name, release in releases.items():
        done(rollouts, release, name)
    assert rollouts.stop(is_under_way=False).progress.release == "ward-00002"
    assert rollouts.stop(is_under_way=False).progress.release == "ward-00001"
    with pytest.raises(ReleaseError, match="before ward-00001 no release was on all wearables"):
        rollouts.stop(is_under_way=False)


def test_without_a_release_before_it_a_stopped_one_is_withdrawn(opened: Open, releases: dict[str, Release]) -> None:
    rollouts = opened()
    with pytest.raises(ReleaseError, match="no release that could be taken back"):
        rollouts.stop(is_under_way=True)
    rollouts.start(releases["ward-00001"], "ward-00001", 0.5)
    withdrawn = rollouts.stop(is_under_way=True)
    assert (withdrawn.progress.number, withdrawn.progress.state, withdrawn.progress.share) == (2, "stopped", 0.0)
    assert rollouts.all[0].progress.state == "stopped"
    with pytest.raises(ReleaseError, match="no release that could be taken back"):
        rollouts.stop(is_under_way=True)
    assert rollouts.start(releases["ward-00001"], "ward-00001", 0.5).progress.number == 3, "but it can be tried again"


def test_a_former_release_that_this_mekt_cannot_read_is_not_gone_back_to(
    opened: Open, releases: dict[str, Release], caplog: pytest.LogCaptureFixture
) -> None:
    """An older format, after an update of the coordinator: the failed release is taken back all the same."""
    rollouts = opened()
    done(rollouts, releases["ward-00001"], "ward-00001")
    foreign = rollouts._blobs.put(b"of another format")
    update = "UPDATE rollouts SET sha256 = ?, size_bytes = ?"
    rollouts._db.execute(update, foreign.sha256, foreign.size_bytes)
    rollouts.start(releases["ward-00002"], "ward-00002", 0.5)
    after = rollouts.advance(Heard(device=canary(2), state="rolled-back", why="slow"), 2)
    assert after is not None and (after.progress.state, after.progress.share) == ("stopped", 0.0)
    assert after.progress.reason.endswith("slow); what was shipped of ward-00001 is gone or foreign")
    assert "cannot be shipped again" in caplog.text


def test_a_person_is_told_that_what_is_to_be_gone_back_to_is_gone(
    opened: Open, releases: dict[str, Release], tmp_path: Path
) -> None:
    rollouts = opened()
    first = done(rollouts, releases["ward-00001"], "ward-00001")
    second = done(rollouts, releases["ward-00002"], "ward-00002")
    (tmp_path / FOLDER / first.blob.sha256.hex()).unlink()
    with pytest.raises(ReleaseError, match="ship it anew: mekt release promote ward-00001"):
        rollouts.stop(is_under_way=False)
    assert newest(rollouts).progress.number == second.progress.number, "and nothing is withdrawn"


def test_one_release_is_tried_at_a_time(opened: Open, releases: dict[str, Release]) -> None:
    rollouts = opened()
    rollouts.start(releases["ward-00001"], "ward-00001", 0.5)
    for name in ("ward-00001", "ward-00002"):
        with pytest.raises(ReleaseError, match="ward-00001 is on trial on 50% of wearables"):
            rollouts.start(releases[name], name, 1.0)
    rollouts.advance(Widened(share=1.0))
    with pytest.raises(ReleaseError, match="ward-00001 is what wearables run already"):
        rollouts.start(releases["ward-00001"], "ward-00001", 0.5)
    rollouts.advance(Passed(seconds=RULES.hours * HOUR_S))
    with pytest.raises(ReleaseError, match="under way no more"):
        rollouts.stop(is_under_way=True)


def test_only_zips_that_may_be_needed_are_kept(opened: Open, releases: dict[str, Release], tmp_path: Path) -> None:
    rollouts = opened()
    first = done(rollouts, releases["ward-00001"], "ward-00001")
    for index in range(KEPT + 2):
        name = f"ward-{2 + index % 2:05}"
        rollouts.start(releases[name], name, 0.5)
        rollouts.advance(Heard(device=canary(newest(rollouts).progress.number), state="trial"))
        rollouts.stop(is_under_way=True)
    kept = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert len(kept) == 3 and first.blob.sha256.hex() in kept
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        assert database.execute("SELECT min(number) FROM said").fetchone() == (14,), "of the last eight, of 21"


def test_what_is_promoted_is_signed_and_what_is_gone_back_to_is_as_it_was(
    tmp_path: Path, releases: dict[str, Release]
) -> None:
    with closing(Authority.create(tmp_path / "authority", "ward")) as authority:
        trust = Trust(authority.signer.public_key)

        def sign(manifest: bytes) -> bytes:
            return authority.signer.sign("release", manifest)

        with closing(Rollouts(tmp_path, "ward", RULES, sign)) as rollouts:
            zips = []
            steps: tuple[Callable[[], Shipped], ...] = (
                lambda: done(rollouts, releases["ward-00001"], "ward-00001"),
                lambda: done(rollouts, releases["ward-00002"], "ward-00002"),
                lambda: rollouts.stop(is_under_way=False),
            )
            for step in steps:
                data = rollouts.zip(step())
                assert data is not None
                zips.append(data)
            for data in zips[:2]:
                open_release(data, Path("zip"), trust)
            old, _, back = zips
            assert old == back, "who still has it has nothing to fetch"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE rollouts SET state = 'lost'",
        "UPDATE rollouts SET share = 'all'",
        "UPDATE rollouts SET sha256 = x'00'",
        "UPDATE said SET word = 'well'",
        "UPDATE said SET why = 'tired'",
        "UPDATE said SET why = x'ff'",
    ],
)
def test_a_damaged_entry_is_found(opened: Open, releases: dict[str, Release], tmp_path: Path, damage: str) -> None:
    rollouts = opened()
    rollouts.start(releases["ward-00001"], "ward-00001", 0.5)
    rollouts.advance(Heard(device=canary(1), state="trial"))
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute(damage)
        database.commit()
    with pytest.raises(DamagedStateError, match="damaged entry"):
        newest(rollouts)


class Dying:
    """Kills this process, as a power cut would, before the step with this number; 0: never."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return step


def ship_and_fail(folder: Path, release: Release, at: int) -> int:
    """In a process of its own: the second release is started, if it was not yet, and fails; how the process ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        with closing(Rollouts(folder, "ward", RULES)) as rollouts:
            dying = Dying(at)
            Database.execute = dying(Database.execute)  # type: ignore[method-assign]
            files.write_atomically = dying(files.write_atomically)
            files._remove = dying(files._remove)
            if newest(rollouts).progress.number == 1:
                rollouts.start(release, "ward-00002", 0.5)
            rollouts.advance(Heard(device=canary(2), state="rolled-back", why="slow"), 2)
            code = 0
    finally:
        os._exit(code)


def test_killed_at_any_step_the_next_process_goes_on_to_the_same_end(
    tmp_path: Path, releases: dict[str, Release]
) -> None:
    """Whichever write a process dies at, what is announced then can be served, and the next process ends alike."""
    ends: set[tuple[Any, ...]] = set()
    second, deaths, code = releases["ward-00002"], 0, -1
    while code:
        folder = tmp_path / str(deaths)
        folder.mkdir()
        with closing(Rollouts(folder, "ward", RULES)) as rollouts:
            done(rollouts, releases["ward-00001"], "ward-00001")
        code = ship_and_fail(folder, second, deaths + 1)
        if code:
            assert code == -signal.SIGKILL
            deaths += 1
            with closing(Rollouts(folder, "ward", RULES)) as rollouts:
                assert rollouts.zip(newest(rollouts)) is not None
            assert ship_and_fail(folder, second, 0) == 0
        with closing(Rollouts(folder, "ward", RULES)) as rollouts:
            each = rollouts.all
            ends.add(tuple((one.progress.release, one.progress.state, one.progress.reason) for one in each))
            assert all(rollouts.zip(one) is not None for one in each)
    assert len(ends) == 1 and deaths > 5


def test_processes_that_make_the_file_at_the_same_time_both_have_it(tmp_path: Path) -> None:
    """A person's command may come at the moment in which the coordinator starts for the first time."""

    def made(path: Path) -> int:
        with closing(Rollouts(path, "ward", RULES)) as rollouts:
            return len(rollouts.all)

    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(made, [folder] * 4)) == [0] * 4


def test_a_command_that_takes_long_on_a_slow_disk_keeps_the_coordinator_waiting_and_does_not_end_it(
    opened: Open,
) -> None:
    """Within its transaction a zip of megabytes is written; SQLite itself would wait five seconds."""
    assert opened()._db.row("PRAGMA busy_timeout") == (60_000,)
