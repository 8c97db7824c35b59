"""A release on its way over a real broker: a coordinator at work, a person's commands beside it, wearables by hand."""

import json
import queue
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from coordinator.authority import Authority
from coordinator.downstream import Downstream
from coordinator.rollout import RolloutRules
from coordinator.rollouts import Rollouts
from coordinator.settings import TrustSettings
from coordinator.shipping import Shipping
from export.release import open_release, read_release
from mekt.blobs import Fetch, blob_ref
from mekt.broker import Broker
from mekt.cli import main
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import Chunk, Envelope, Fitness, Rollout, RolloutStatus, Status, Want
from mekt.post import Post
from mekt.share import takes_part
from mekt.signature import Trust
from mekt.topics import for_wearable
from tests.coordinator.conftest import FEDERATION, Device, Start, config_of, settings_of
from tests.export.small import ACC, GYRO, parts_of
from tests.waiting import until

FIRST, SECOND = f"{FEDERATION}-00000", f"{FEDERATION}-00099"


@dataclass
class Wearable:
    """A wearable made by hand: it fetches what it is told to run, and says what the test wants."""

    name: str
    port: int
    key: bytes
    rollouts: list[Rollout] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    zips: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inbox: queue.Queue[Any] = queue.Queue()
        self.post, self.fetch = Post(FEDERATION), Fetch()
        self.post.trust = Trust(self.key)
        self.link = Link(
            settings=BrokerSettings(port=self.port),
            client_id=f"{self.name}-{secrets.token_hex(4)}",
            inbox=self.inbox,
            subscriptions=(*for_wearable(FEDERATION, self.name), f"mekt/1/{FEDERATION}/status"),
        )
        self.post.use(self.link)
        self.link.start()

    def hear(self) -> None:
        """Take in all that has come."""
        while True:
            try:
                event = self.inbox.get_nowait()
            except queue.Empty:
                return
            envelope: Envelope | None = self.post.open(event) if isinstance(event, Received) else None
            match None if envelope is None else envelope.body:
                case Rollout() as rollout:
                    self.rollouts.append(rollout)
                case Status() as status:
                    self.statuses.append(status)
                case Chunk() as chunk:
                    data = self.fetch.take(chunk)
                    if data is not None:
                        self.zips[chunk.sha256] = data
                case _:
                    pass

    def until_told(self, **fields: Any) -> Rollout:
        """Wait for a rollout with these values."""

        def told() -> bool:
            self.hear()
            newest = self.rollouts[-1] if self.rollouts else None
            return newest is not None and all(getattr(newest, name) == value for name, value in fields.items())

        until(told)
        return self.rollouts[-1]

    def until_status(self, wanted: Callable[[Status, RolloutStatus], bool]) -> Status:
        """Wait for such a status."""

        def told() -> bool:
            self.hear()
            newest = self.statuses[-1] if self.statuses else None
            return newest is not None and newest.rollout is not None and wanted(newest, newest.rollout)

        until(told)
        return self.statuses[-1]

    def fetched(self, rollout: Rollout) -> bytes:
        """The zip of a rollout, chunk by chunk."""
        self.fetch.want(rollout.blob)

        def there() -> bool:
            for want in self.fetch.due(0.0):
                self.post.send(want, "up", device=self.name)
            self.hear()
            return rollout.blob.sha256 in self.zips

        until(there)
        return self.zips[rollout.blob.sha256]

    def say(self, rollout: Rollout, state: Any, why: Any = "") -> None:
        running = rollout.blob.sha256 if state in ("good", "trial") else None
        fitness = Fitness(running=running, number=rollout.number, state=state, why=why, latency_us=900)
        self.post.send(fitness, "up", device=self.name, retain=True)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    with closing(Authority.create(tmp_path / "authority", FEDERATION)) as made:
        yield made


def test_a_release_goes_to_the_canaries_to_all_and_comes_back(
    broker: Broker, start: Start, authority: Authority, tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, people, broker.port)
    with config.open("a") as file:
        file.write('\n[trust]\nauthority = "authority"\n[rollout]\nleast = 2\nfailed_share = 0.4\n')
    rules = RolloutRules(least=2, failed_share=0.4)
    settings = settings_of(broker.port, rollout=rules, trust=TrustSettings(authority=str(tmp_path / "authority")))

    def mekt(*arguments: str) -> Any:
        assert main(["release", *arguments, "--config", str(config), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    running = start(settings)
    releases = tmp_path / "state" / "releases"
    until(lambda: (releases / f"{FIRST}.zip").exists())
    parts_of(ACC, GYRO).write(releases / f"{SECOND}.zip")
    names = [f"watch-{index}" for index in range(40)]
    canaries = [name for name in names if takes_part(FEDERATION, 2, name, 0.5)][:2]
    others = [name for name in names if not takes_part(FEDERATION, 2, name, 0.5)][:2]
    fleet = {name: Wearable(name, broker.port, authority.signer.public_key) for name in (*canaries, *others)}
    one = fleet[canaries[0]]
    first = second = Rollout(release="none", blob=blob_ref(b"x"), number=1, share=0.0)
    try:
        # A person ships the first release to all, while the coordinator is at work.
        assert mekt("promote", FIRST, "--now")["state"] == "everybody"
        for wearable in fleet.values():
            first = wearable.until_told(number=1, release=FIRST, share=1.0)
            # The release is its authority's, and newer than all before it.
            open_release(wearable.fetched(first), Path(FIRST), Trust(authority.signer.public_key))
            wearable.say(first, "good")
        told = one.until_status(lambda _, rollout: rollout.states == {"good": 4})
        assert told.rollout is not None and told.rollout.wearables == {FIRST: 4}
        assert (told.phase, told.online) == ("waiting", ()), "wearables take no part in rounds"

        # The next one goes to some first.
        assert mekt("promote", SECOND, "--share", "0.5")["state"] == "canary"
        for name in canaries:
            second = fleet[name].until_told(number=2, release=SECOND, share=0.5)
            assert open_release(fleet[name].fetched(second), Path(SECOND)).manifest.round == 7
            fleet[name].say(second, "trial")
        one.until_status(lambda _, rollout: rollout.states == {"trial": 2})
        one.say(second, "good")
        one.until_status(lambda _, rollout: rollout.states == {"good": 1, "trial": 1})
        assert fleet[others[0]].until_told(number=2).share == 0.5

        # A restart forgets nothing: with the second one's word, said meanwhile, it goes on to all.
        running.stop()
        fleet[canaries[1]].say(second, "good")
        for wearable in fleet.values():
            wearable.hear()
            wearable.rollouts.clear()
        running = start(settings)
        wide = fleet[others[0]].until_told(number=2, share=1.0)
        assert (wide.blob, wide.release) == (second.blob, second.release)

        # Among all it fails too often; all get the first release back as it was.
        for name, why in zip(others, ("disagrees", "crashed"), strict=True):
            fleet[name].until_told(number=2, share=1.0)
            fleet[name].say(wide, "rolled-back", why)
        back = one.until_told(number=3, release=FIRST, share=1.0)
        assert back.blob == first.blob
        assert one.fetched(back) == one.zips[first.blob.sha256]
        status = one.until_status(lambda _, rollout: rollout.number == 3)
        assert status.rollout is not None and status.rollout.state == "done"
        assert f"back from {SECOND}: 2 failed (" in status.rollout.text
        assert [row["rollout"]["state"] for row in mekt("list")] == ["done", "stopped"]
        # Nothing was odd about any of it.
        assert running.rejected == {} and all(wearable.post.rejected == {} for wearable in fleet.values())
        assert status.trouble == {}
    finally:
        for wearable in fleet.values():
            wearable.link.stop(1.0)


@pytest.fixture
def zip_file(tmp_path: Path) -> Path:
    """A small release on the shelf of the coordinator's state."""
    path = tmp_path / "state" / "releases" / f"{FIRST}.zip"
    path.parent.mkdir(parents=True)
    parts_of(ACC).write(path)
    return path


class Side:
    """The coordinator's side of rollouts without a broker, and with a clock that the test turns."""

    def __init__(self, folder: Path, revoked: Iterable[str] = (), **rules: Any) -> None:
        self.downstream = Downstream([])
        self.revoked = set(revoked)
        settings = settings_of(rollout=RolloutRules(**rules))
        self.shipping = Shipping(
            settings,
            folder,
            folder / "state",
            downstream=self.downstream,
            sign=None,
            revoked=lambda: frozenset(self.revoked),
            inbox=queue.Queue(),
        )
        self.rollouts = Rollouts(folder / "state", FEDERATION, settings.rollout)

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.shipping.close()
        self.rollouts.close()

    def look(self, now_s: float) -> Rollout | None:
        self.shipping.on_time(now_s)
        return self.shipping.due()

    @property
    def waited_s(self) -> float:
        newest = self.rollouts.newest
        assert newest is not None
        return newest.progress.waited_s


def test_a_release_is_taken_back_also_when_its_zip_is_gone(tmp_path: Path, zip_file: Path) -> None:
    with Side(tmp_path) as side:
        side.rollouts.start(read_release(zip_file), FIRST, 0.5)
        for path in (tmp_path / "state" / "shipped").iterdir():
            path.unlink()
        assert side.look(0.0) is None, "nobody could fetch it"
        side.rollouts.stop(is_under_way=True)
        word = side.look(10.0)
        assert word is not None and (word.number, word.share) == (2, 0.0)


def test_time_counts_only_while_the_coordinator_is_at_work(tmp_path: Path, zip_file: Path) -> None:
    for start_s in (1e6, 5e9):
        with Side(tmp_path, hours=10.0) as side:
            if side.rollouts.newest is None:
                side.rollouts.start(read_release(zip_file), FIRST, 0.5)
            before_s = side.waited_s
            for second in range(0, 3601, 5):
                side.look(start_s + second)
            assert before_s + 3500 <= side.waited_s <= before_s + 3600
            assert before_s == 0 or before_s > 3500


def test_a_wearable_that_was_revoked_counts_no_more_whatever_the_broker_has_kept_of_it(
    tmp_path: Path, zip_file: Path
) -> None:
    with Side(tmp_path) as side:
        side.rollouts.start(read_release(zip_file), FIRST, 1.0)
        side.look(0.0)

        def counted(second: float) -> int:
            for device in ("watch-1", "watch-2"):
                side.shipping.heard(device, Fitness(number=1, state="trial"))
            side.look(second)
            assert side.shipping.status is not None
            return sum(side.shipping.status.wearables.values())

        assert counted(10.0) == 2
        side.revoked.add("watch-2")
        assert counted(20.0) == 1
        assert counted(30.0) == 1 and "watch-2" not in side.shipping
        side.revoked.clear()
        assert counted(40.0) == 1 and counted(50.0) == 2, "heard after it was seen that it is back"


def test_a_canary_that_was_revoked_is_not_waited_for_and_its_words_count_no_more(
    tmp_path: Path, zip_file: Path
) -> None:
    names = [f"watch-{index}" for index in range(40)]
    one, two, three = [each for each in names if takes_part(FEDERATION, 1, each, 0.5)][:3]

    def state(side: Side) -> tuple[str, set[str]]:
        newest = side.rollouts.newest
        assert newest is not None
        return newest.progress.state, set(newest.progress.said)

    with Side(tmp_path, least=2, failures=2) as side:
        running = side.rollouts.start(read_release(zip_file), FIRST, 0.5).blob.sha256
        side.look(0.0)
        side.shipping.heard(three, Fitness(running=running, number=1, state="trial"))
        for device in (one, two):
            side.shipping.heard(device, Fitness(running=running, number=1, state="good"))
        side.look(10.0)
        assert state(side) == ("canary", {one, two, three})
        # Neither does a good word of who was sent away, until it is let in again and says so.
        side.revoked.add(two)
        side.look(20.0)
        side.shipping.heard(two, Fitness(running=running, number=1, state="good"))
        assert state(side) == ("canary", {one, three})
        side.revoked.clear()
        side.look(30.0)
        side.shipping.heard(two, Fitness(running=running, number=1, state="good"))
        assert state(side) == ("canary", {one, two, three})
    # Nor is one that was sent away while the coordinator was not there; at once, not after hours.
    with Side(tmp_path, revoked={three}, least=2, failures=2) as side:
        assert state(side) == ("everybody", {one, two})
        announced = side.look(0.0)
        assert announced is not None and announced.share == 1


def test_a_word_that_says_nothing_new_makes_no_work_for_the_disk(tmp_path: Path, zip_file: Path) -> None:
    with Side(tmp_path, least=9, failures=9) as side:
        running = side.rollouts.start(read_release(zip_file), FIRST, 1.0).blob.sha256
        assert side.look(0.0) is not None
        words: tuple[Any, ...] = ("trial", "good", "trial", "good", "testing")
        writes = []
        for word in words:
            side.rollouts.was_changed()
            side.shipping.heard("watch-1", Fitness(running=running, number=1, state=word))
            writes.append(side.rollouts.was_changed())
        assert writes == [True, True, False, False, False]
        side.shipping.heard("watch-1", Fitness(number=7, state="rolled-back", why="slow"))
        assert not side.rollouts.was_changed(), "about another rollout"


def test_what_wearables_say_of_rollouts_that_a_restored_state_knows_nothing_of_is_none_on_its_own(
    tmp_path: Path, zip_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Number 1 was another release, which they run, and which this coordinator has forgotten."""
    with Side(tmp_path, least=1) as side:
        running = side.rollouts.start(read_release(zip_file), FIRST, 0.99).blob.sha256
        side.look(0.0)
        side.shipping.heard("watch-1", Fitness(running=bytes(32), number=1, state="good"))
        side.shipping.heard("watch-2", Fitness(running=bytes(32), number=2, state="trial"))
        newest = side.rollouts.newest
        assert newest is not None and newest.progress.said == {}
        assert len([each for each in caplog.records if "a newer state than this" in each.getMessage()]) == 1
        side.shipping.heard("watch-1", Fitness(running=running, number=1, state="good"))
        newest = side.rollouts.newest
        assert newest is not None and newest.progress.state == "everybody"


def test_what_is_announced_can_be_served_and_nothing_else_is(
    tmp_path: Path, zip_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Side(tmp_path) as side:
        assert side.look(0.0) is None
        shipped = side.rollouts.start(read_release(zip_file), FIRST, 0.5)
        word = side.look(1.5)
        assert word == Rollout(release=FIRST, blob=shipped.blob, number=1, share=0.5)
        want = Want(sha256=shipped.blob.sha256, chunks=(0,))
        assert side.downstream.chunks("watch-1", want, 0)
        side.shipping.announced(word)
        assert side.shipping.due() is None
        side.shipping.announce_again()
        assert side.shipping.due() == word
    (tmp_path / "state" / "shipped" / shipped.blob.sha256.hex()).unlink()
    with Side(tmp_path) as side:
        assert side.look(0.0) is None and "promote it anew" in caplog.text
        assert side.downstream.chunks("watch-1", want, 0) is None
        side.rollouts.stop(is_under_way=True)
        side.rollouts.start(read_release(zip_file), FIRST, 1.0)
        assert side.look(2.0) is not None


def test_the_last_rounds_release_is_promoted_without_a_person_where_the_settings_say_so(
    broker: Broker, start: Start, pair: tuple[Device, Device], tmp_path: Path
) -> None:
    settings = settings_of(broker.port, rollout=RolloutRules(promote="last", share=1.0, failures=1))
    running = start(settings)
    wearable = Wearable("watch-1", broker.port, bytes(32))
    wearable.post.trust = None
    try:
        for each in pair:
            each.take_part()
        told = wearable.until_told(number=1, release=f"{FEDERATION}-00001")
        assert open_release(wearable.fetched(told), Path("zip")).manifest.round == 1
        wearable.say(told, "refused", "does-not-run")
        # Nothing was on wearables before, so nobody is to take it; and it is not promoted again.
        withdrawn = wearable.until_told(number=2, share=0.0)
        running.stop()
        wearable.rollouts.clear()
        running = start(settings)
        assert wearable.until_told(number=2) == withdrawn
        wearable.until_status(lambda status, rollout: status.phase == "finished" and rollout.state == "stopped")
        assert [each.number for each in wearable.rollouts] == [2] and running.rejected == {}
    finally:
        wearable.link.stop(1.0)
