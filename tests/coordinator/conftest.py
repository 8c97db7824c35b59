"""A small federation for the coordinator's tests: a few simulated windows, and devices made by hand."""

import contextlib
import queue
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from coordinator.daemon import Coordinator
from coordinator.datasets import Datasets, read_datasets
from coordinator.round import RoundRules
from coordinator.settings import FederationSettings
from mekt.arrays import Floats, pack_knowledge
from mekt.blobs import blob_ref, proxy_hash, read_chunk
from mekt.broker import Broker
from mekt.link import Connected, Link, Received
from mekt.login import BrokerSettings
from mekt.messages import Body, Chunk, Envelope, Offer, Presence, Receipt, RoundOpen, Status, Want
from mekt.modality import WindowSpec
from mekt.plan import BlobRef, Method, Plan
from mekt.post import Post
from mekt.process import Job, Stop
from mekt.topics import for_device
from sensors.recording import write_recording
from sensors.simulator import MODALITIES, simulate
from tests.waiting import WAIT_S, until

T = TypeVar("T", bound=Body)
BOTH = ("pi-1", "pi-2")
# Of rounds that must end by something else: the patience of a test is over before it.
DEADLINE_S = 2 * WAIT_S
FEDERATION = "ward-3"
TINY = Method(
    embedding=4,
    hidden=6,
    reconstruction="spectral",
    transfer="mse",
    eta=20.0,
    contrast=1.0,
    augment=1.0,
    knowledge_rows=1,
    distil_epochs=2,
    distil_rate=1e-2,
    batch=16,
    encoding="float16",
)
# Knowledge of several chunks.
LARGE = replace(TINY, embedding=1024, encoding="float32", distil_epochs=1)
TOML = """
federation = "ward-3"
rounds = 1
seed = 3
proxy = "{people}/proxy.npz"
proxy_windows = 24
labelled = ["{people}/labelled.npz"]
test = ["{people}/test.npz"]
compute = "cpu"
window = {{ window_s = 1.0, stride_s = 0.5 }}
round = {{ min_devices = 2 }}
broker = {{ port = {port} }}

[method]
embedding = 4
hidden = 6
reconstruction = "spectral"
transfer = "mse"
eta = 20.0
contrast = 1.0
augment = 1.0
knowledge_rows = 1
distil_epochs = 2
distil_rate = 1e-2
batch = 16
encoding = "float16"

[[modalities]]
name = "acc"
shape = [3]
rate_hz = 50
unit = "g"

[[modalities]]
name = "gyro"
shape = [3]
rate_hz = 50
unit = "rad/s"
"""


def settings_of(
    port: int = 1883, *, modalities: tuple[str, ...] = ("acc", "gyro"), **changes: Any
) -> FederationSettings:
    """A federation over the recordings of `people`, learned in moments."""
    base = FederationSettings(
        federation=FEDERATION,
        rounds=1,
        seed=3,
        proxy=("proxy.npz",),
        proxy_windows=24,
        labelled=("labelled.npz",),
        test=("test.npz",),
        compute="cpu",
        window=WindowSpec(window_s=1.0, stride_s=0.5),
        modalities=tuple(MODALITIES[name] for name in modalities),
        method=TINY,
        round=RoundRules(min_devices=2, deadline_s=DEADLINE_S),
        broker=BrokerSettings(port=port),
    )
    return replace(base, **changes)


def config_of(folder: Path, people: Path, port: int) -> Path:
    """`settings_of` as a file in this folder."""
    path = folder / "federation.toml"
    path.write_text(TOML.format(people=people, port=port), encoding="utf-8")
    return path


def write_people(folder: Path, **subjects: int) -> None:
    """A recording of half a minute for each name, of that simulated person."""
    for name, subject in subjects.items():
        write_recording(folder / f"{name}.npz", simulate(subject, seed=1, duration_s=30.0))


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recordings that `settings_of` names."""
    folder = tmp_path_factory.mktemp("people")
    write_people(folder, proxy=1, labelled=2, test=3)
    return folder


@pytest.fixture(scope="session")
def datasets(people: Path) -> Datasets:
    """Of acc and gyro."""
    return read_datasets(settings_of(), people)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


def random_knowledge(plan: Plan, seed: int, name: str = "acc", scale: float = 1.0) -> bytes:
    """Knowledge as a device would send it, out of a hat."""
    rng = np.random.default_rng((seed, len(name)))
    embedding: Floats = rng.normal(0, scale, (plan.proxy_windows, plan.method.embedding)).astype(np.float32)
    return pack_knowledge(embedding, None, plan.method.encoding)


class Running:
    """A coordinator at work on a thread of its own."""

    def __init__(self, settings: FederationSettings, base: Path, folder: Path) -> None:
        self.coordinator = Coordinator(settings, base, folder)
        self.stop_asked = Stop()
        self.ended: queue.Queue[Any] = queue.Queue()
        self._job = Job("coordinator", lambda _: self.coordinator.run(self.stop_asked), self.ended)

    def stop(self) -> float:
        """End it; how many seconds that took."""
        began_s = time.monotonic()
        self.stop_asked.request()
        outcome = self.ended.get(timeout=WAIT_S)
        assert outcome.error is None, outcome.error
        return time.monotonic() - began_s

    @property
    def rejected(self) -> dict[str, int]:
        return dict(self.coordinator._post.rejected)

    def until_rejected(self, words: str, times: int = 1) -> None:
        """Wait until something was dropped for a cause with these words."""
        until(lambda: sum(count for cause, count in self.rejected.items() if words in cause) >= times)


@pytest.fixture
def start(people: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts coordinators over `people`, their state in `tmp_path`; those that still run are stopped in the end."""
    running: list[Running] = []

    def begin(settings: FederationSettings, state: str = "state") -> Running:
        folder = tmp_path / state
        folder.mkdir(exist_ok=True)
        running.append(Running(settings, people, folder))
        return running[-1]

    yield begin
    for each in running:
        if not each.stop_asked.requested:
            each.stop()


@dataclass
class Device:
    """A device made by hand of the product's own parts: it says what the test wants, and keeps all that it hears."""

    name: str
    port: int
    modalities: tuple[str, ...] = ("acc",)
    session: int = 1
    heard: list[Envelope] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._looked_at: Counter[type] = Counter()
        self.inbox: queue.Queue[Any] = queue.Queue()
        self.post = Post(FEDERATION)
        self.link = Link(
            settings=BrokerSettings(port=self.port),
            client_id=f"{self.name}-{secrets.token_hex(4)}",
            inbox=self.inbox,
            subscriptions=(*for_device(FEDERATION, self.name), f"mekt/1/{FEDERATION}/status"),
            will=self.farewell(),
        )
        self.post.use(self.link)
        self.link.start()

    def presence(self, state: Any = "online", session: int | None = None) -> Presence:
        return Presence(
            state=state,
            session=self.session if session is None else session,
            activity="idle",
            modalities=dict.fromkeys(self.modalities, "conv"),
        )

    def farewell(self) -> tuple[str, bytes]:
        return self.post.seal(self.presence("offline"), "up", device=self.name)

    def come(self) -> "Device":
        self.say(self.presence(), retain=True)
        return self

    def say(self, body: Body, round: int = 0, retain: bool = False) -> None:
        self.post.send(body, "up", device=self.name, round=round, retain=retain)

    def hear(self, kind: type[T], wanted: Callable[[T, int], bool] = lambda _body, _round: True) -> T:
        """The next message of this kind, of those not looked at yet, whose body and round are wanted."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            for envelope in self.heard[self._looked_at[kind] :]:
                self._looked_at[kind] += 1
                if isinstance(envelope.body, kind) and wanted(envelope.body, envelope.round):
                    return envelope.body
            event = self.inbox.get(timeout=max(0.0, deadline_s - time.monotonic()))
            if isinstance(event, Connected):
                self.connections += 1
                if self.connections > 1:
                    self.come()
            if isinstance(event, Received):
                said = self.post.open(event)
                assert said is not None, event.topic
                self.heard.append(said)

    def opened(self, number: int = 0, *, invited: bool = True) -> RoundOpen:
        """The announcement of an open round that names this device."""
        found = self.hear(
            RoundOpen,
            lambda word, at: (at, word.state) == (number, "open") and (self.name in word.participants) == invited,
        )
        self.post.proxy = proxy_hash(found.plan.proxy)
        return found

    def offer(self, blobs: dict[str, bytes], number: int = 0, **changes: Any) -> Offer:
        refs = {name: blob_ref(data) for name, data in blobs.items()}
        offer = replace(Offer(knowledge=refs, windows=10, metrics={}), **changes)
        self.say(offer, number)
        return offer

    def receipt(self, number: int = 0) -> Receipt:
        """The next answer to an offer."""
        return self.hear(Receipt, lambda _, at: at == number)

    def serve(self, blobs: dict[str, bytes], most: int | None = None) -> None:
        """Answer requests for chunks of these until a receipt would be next; after `most` chunks go silent."""
        by_hash = {blob_ref(data).sha256: data for data in blobs.values()}
        whole = sum(-(-len(data) // 98304) for data in by_hash.values())
        left = whole if most is None else most
        while left > 0:
            want = self.hear(Want)
            data = by_hash[want.sha256]
            for index in want.chunks[:left]:
                chunk = read_chunk(data, blob_ref(data), index)
                assert chunk is not None
                self.say(chunk)
                left -= 1

    def deliver(self, blobs: dict[str, bytes], number: int = 0, **changes: Any) -> Receipt:
        """Offer these and serve them; the receipt."""
        self.offer(blobs, number, **changes)
        self.serve(blobs)
        return self.receipt(number)

    def blobs(self, opened: RoundOpen) -> dict[str, bytes]:
        """What this device has to deliver, always the same."""
        return {name: random_knowledge(opened.plan, 7, name) for name in self.modalities}

    def take_part(self, number: int = 0) -> None:
        """Wait for a round, and deliver."""
        assert self.deliver(self.blobs(self.opened(number)), number) == Receipt(state="accepted")

    @property
    def asked(self) -> int:
        """How often the coordinator has asked for chunks."""
        return sum(isinstance(said.body, Want) for said in self.heard)

    def fetch(self, ref: BlobRef) -> bytes:
        """A small blob of the coordinator's."""
        self.say(Want(sha256=ref.sha256, chunks=(0,)))
        chunk = self.hear(Chunk, lambda chunk, _: chunk.sha256 == ref.sha256)
        assert chunk.count == 1
        return chunk.data

    def status(self, wanted: Callable[[Status], bool]) -> Status:
        """The next status that is wanted."""
        return self.hear(Status, lambda status, _: wanted(status))

    def finished(self) -> RoundOpen:
        return self.hear(RoundOpen, lambda word, _: word.state == "finished")

    def leave(self) -> None:
        self.link.stop(1.0, last=self.farewell())

    def vanish(self) -> None:
        """End without a farewell, as a power cut would: the broker speaks the will."""
        self.link._session.stop(time.monotonic() + WAIT_S, farewell=False)


@pytest.fixture
def device(broker: Broker) -> Iterator[Callable[..., Device]]:
    """Makes devices on the test's broker; all leave in the end."""
    made: list[Device] = []

    def make(name: str, **changes: Any) -> Device:
        made.append(Device(name, broker.port, **changes))
        return made[-1]

    yield make
    for each in made:
        with contextlib.suppress(Exception):
            each.leave()


@pytest.fixture
def pair(device: Callable[..., Device]) -> tuple[Device, Device]:
    """Two devices that are there, one for each modality."""
    return device("pi-1", modalities=("acc",)).come(), device("pi-2", modalities=("gyro",)).come()


@pytest.fixture(scope="session")
def undisturbed(people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BlobRef]:
    """The global knowledge after one round of `pair` in which nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Broker(folder / "broker", kind="mosquitto") as broker:
        running = Running(settings_of(broker.port), people, folder)
        devices = [
            Device(name, broker.port, modalities=(has,)).come() for name, has in (("pi-1", "acc"), ("pi-2", "gyro"))
        ]
        for each in devices:
            each.take_part()
        knowledge = devices[0].finished().knowledge
        for each in devices:
            each.leave()
        running.stop()
    return knowledge


Make = Callable[..., Device]
Start = Callable[..., Running]
