"""A small federation for the tests of a device: plan, proxy set and knowledge of noise, a coordinator made by hand."""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pytest
import torch

from edge.daemon import Device
from edge.memory import FILE, Memory
from edge.settings import DeviceSettings, PrivateWindows
from mekt.arrays import pack_knowledge, pack_windows
from mekt.blobs import Fetch, blob_ref, proxy_hash, read_chunk
from mekt.broker import Broker
from mekt.link import Connected, Link, Received
from mekt.login import BrokerSettings
from mekt.messages import Body, Chunk, Envelope, Offer, Receipt, RoundOpen, Want
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import Architecture, BlobRef, Method, Plan
from mekt.post import Post
from mekt.process import Stop
from mekt.topics import for_coordinator
from sensors.recording import write_recording
from sensors.replay import ReplaySettings
from sensors.source import Floats
from sensors.stream import Recording, Segment, Stream
from tests.waiting import WAIT_S

torch.set_num_threads(1)

ACC = Modality(name="acc", shape=(3,), rate_hz=10.0, unit="g")
GYRO = Modality(name="gyro", shape=(2,), rate_hz=10.0, unit="rad/s")
DEPTH = Modality(name="depth", shape=(6, 8), rate_hz=5.0, unit="m")
SPEC = WindowSpec(window_s=2.0, stride_s=1.0)
PROXY = 12
METHOD: dict[str, Any] = {
    "embedding": 4,
    "hidden": 6,
    "batch": 8,
    "alpha": 1.0,
    "contrast": 1.0,
    "augment": 1.0,
    "knowledge_rows": 1,
    "follow_epochs": 0,
    "local_epochs": 1,
    "local_rate": 3e-3,
    "encoding": "float16",
}


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def proxy_blob(modality: Modality, spec: WindowSpec = SPEC, count: int = PROXY) -> bytes:
    return pack_windows(noise(count, *spec.shape(modality), seed=1))


def plan_of(*modalities: Modality, method: Mapping[str, Any] | None = None, **changes: Any) -> Plan:
    """A plan of these modalities; `method` and `changes` say what is otherwise than usual."""
    spec: WindowSpec = changes.get("window", SPEC)
    usual: dict[str, Any] = {
        "run": "0a",
        "seed": 7,
        "rounds": 3,
        "window": spec,
        "modalities": modalities,
        "scaling": {each.name: Scaling(mean=(0.0,) * each.channels, std=(1.0,) * each.channels) for each in modalities},
        "proxy_windows": PROXY,
        "method": Method(**{**METHOD, **(method or {})}),
    }
    if "proxy" not in changes:
        changes["proxy"] = {each.name: blob_ref(proxy_blob(each, spec)) for each in modalities}
    return Plan(**{**usual, **changes})


def knowledge_blobs(plan: Plan, seed: int = 2) -> dict[str, bytes]:
    """Global knowledge of every modality."""
    method = plan.method
    return {
        each.name: pack_knowledge(
            noise(plan.proxy_windows, method.embedding, seed=seed),
            noise(plan.proxy_windows, method.hidden, seed=seed) if method.sends_hidden else None,
            method.encoding,
        )
        for each in plan.modalities
    }


def refs_of(blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
    return {name: blob_ref(data) for name, data in blobs.items()}


FEDERATION, DEVICE = "ward", "pi"
# What a device senses in these tests: each sample is this, so that it is found wherever it turns up.
PRIVATE = {"acc": (1.2345678, -0.7654321, 0.31415926), "gyro": (-1.4142135, 0.5772156)}


def private_recording() -> Recording:
    """Twelve seconds of a person who does nothing."""
    count = 121
    streams = {
        each.name: Stream(
            modality=each,
            t_s=np.arange(count) / each.rate_hz,
            values=np.tile(np.array(PRIVATE[each.name], dtype=np.float32), (count, 1)),
        )
        for each in (ACC, GYRO)
    }
    return Recording(name="private", segments=(Segment(name="s", streams=streams),), label_names={})


def device_settings(base: Path, port: int, **changes: Any) -> DeviceSettings:
    """A device that senses `acc` and `gyro`; its recording lies in `base`."""
    if not (base / "private.npz").exists():
        write_recording(base / "private.npz", private_recording())
    sensor = ReplaySettings(modalities=("acc", "gyro"), recordings=("private.npz",), speed=1e6)
    usual: dict[str, Any] = {
        "federation": FEDERATION,
        "device": DEVICE,
        "sensors": (sensor,),
        "windows": PrivateWindows(capacity=64, least=8, whole_source=True),
        "broker": BrokerSettings(port=port),
    }
    return DeviceSettings(**{**usual, **changes})


class Running:
    """A device at work on a thread of its own, its state in `base`/state."""

    def __init__(self, base: Path, port: int, **changes: Any) -> None:
        (base / "state").mkdir(exist_ok=True)
        self.device = Device(device_settings(base, port, **changes), base, base / "state")
        self.failure: BaseException | None = None
        self._stop = Stop()
        self._thread = threading.Thread(target=self._run)

    @property
    def rejected(self) -> dict[str, int]:
        """What it dropped, and how often."""
        return dict(self.device._post.rejected)

    def end(self) -> float:
        """Ask it to end; the seconds that it took."""
        began_s = time.monotonic()
        self._stop.request()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        return time.monotonic() - began_s

    def wait(self) -> None:
        """Until it ends by itself."""
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self.device.run(self._stop)
        except BaseException as error:
            self.failure = error


class HandMade:
    """A coordinator that is made of Mekt's own parts, and does nothing but serve its blobs and what a test says.

    `mangle` stands for the network: it turns a chunk that is served into what arrives.
    """

    def __init__(self, port: int, plan: Plan) -> None:
        self.port = port
        self.plan = plan
        self.knowledge = knowledge_blobs(plan)
        self.blobs: dict[bytes, bytes] = {}
        self.heard: list[Envelope] = []
        self.mangle: Callable[[Chunk], Iterable[Body]] = lambda chunk: (chunk,)
        self.post = Post(FEDERATION)
        self._inbox: queue.Queue[Any] = queue.Queue()
        self.link = Link(
            settings=BrokerSettings(port=port),
            client_id="coordinator",
            inbox=self._inbox,
            subscriptions=for_coordinator(FEDERATION),
        )
        self.post.use(self.link)
        self.serve(plan)

    def __enter__(self) -> Self:
        self.link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop(1.0)

    def serve(self, plan: Plan) -> None:
        """Have the proxy set of a plan, and the knowledge, ready for whoever asks."""
        proxy = [proxy_blob(each, plan.window, plan.proxy_windows) for each in plan.modalities]
        self.blobs = {blob_ref(data).sha256: data for data in (*proxy, *self.knowledge.values())}

    def announce(
        self,
        number: int = 0,
        *,
        state: Literal["open", "closed", "finished"] = "open",
        participants: tuple[str, ...] = (DEVICE,),
        plan: Plan | None = None,
        late: Literal["drop", "carry"] = "drop",
    ) -> None:
        """Say where the round stands, retained."""
        self.plan = plan or self.plan
        self.post.proxy = proxy_hash(self.plan.proxy)
        body = RoundOpen(
            state=state,
            deadline_s=60,
            late=late,
            participants=participants,
            plan=self.plan,
            knowledge=refs_of(self.knowledge),
        )
        self.post.send(body, "all", round=number, retain=True)

    def send(self, body: Body, number: int = 0) -> None:
        """Send the device a message."""
        self.post.send(body, "down", device=DEVICE, round=number)

    def receipt(self, number: int = 0, state: Literal["accepted", "refused"] = "accepted") -> None:
        """Answer an offer."""
        self.send(Receipt(state=state, reason="for good" if state == "refused" else ""), number)

    def hear(self, wait_s: float) -> Envelope | None:
        """The next message, if one comes in time; chunks that it asks for are on their way then."""
        deadline_s = time.monotonic() + wait_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                event = self._inbox.get(timeout=left_s)
            except queue.Empty:
                return None
            envelope = self.post.open(event) if isinstance(event, Received) else None
            if envelope is not None:
                self.heard.append(envelope)
                if isinstance(envelope.body, Want):
                    self._answer(envelope.body)
                return envelope
        return None

    def until(self, body: type[Any], number: int | None = None, **fields: Any) -> Any:
        """The next body of this type, of this round, with these values."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            envelope = self.hear(0.2)
            if envelope is None or not isinstance(envelope.body, body) or number not in (None, envelope.round):
                continue
            if all(getattr(envelope.body, name) == value for name, value in fields.items()):
                return envelope.body
        said = [(each.kind, each.round, getattr(each.body, "activity", "")) for each in self.heard]
        raise AssertionError(f"no {body.__name__} with {fields} in time, but {said}")

    def until_connected(self) -> None:
        """Wait for the next connection."""
        deadline_s = time.monotonic() + WAIT_S
        while not isinstance(self._inbox.get(timeout=max(0.0, deadline_s - time.monotonic())), Connected):
            pass

    def collect(self, offer: Offer) -> dict[str, bytes]:
        """Fetch what was offered."""
        fetch, blobs = Fetch(), {}
        for ref in offer.knowledge.values():
            fetch.want(ref)
        deadline_s = time.monotonic() + WAIT_S
        while fetch.wanted and time.monotonic() < deadline_s:
            for want in fetch.due(time.monotonic()):
                self.send(want)
            envelope = self.hear(0.1)
            if envelope is not None and isinstance(envelope.body, Chunk):
                data = fetch.take(envelope.body)
                if data is not None:
                    blobs[envelope.body.sha256] = data
        assert not fetch.wanted, "what was offered did not come in time"
        return {name: blobs[ref.sha256] for name, ref in offer.knowledge.items()}

    def round(self, number: int = 0, **how: Any) -> dict[str, bytes]:
        """A whole round: the knowledge that the device gave."""
        self.announce(number, **how)
        knowledge = self.collect(self.until(Offer, number))
        self.receipt(number)
        return knowledge

    def kinds(self) -> set[str]:
        """The kinds of what was heard."""
        return {each.kind for each in self.heard}

    def _answer(self, want: Want) -> None:
        data = self.blobs.get(want.sha256)
        if data is None:
            return
        for index in want.chunks:
            chunk = read_chunk(data, BlobRef(sha256=want.sha256, size_bytes=len(data)), index)
            if chunk is not None:
                for body in self.mangle(chunk):
                    self.send(body)


PLAN = plan_of(ACC, GYRO)
# Learned from for minutes.
LONG = plan_of(ACC, GYRO, method={"local_epochs": 1000, "batch": 1})
BOTH: dict[str, Architecture] = {"acc": "conv", "gyro": "conv"}


def another_run(plan: Plan, run: str = "0b") -> Plan:
    """The plan of a federation that began anew."""
    return replace(plan, run=run)


def memory_of(folder: Path) -> Memory:
    """The state of the device in this folder."""
    return Memory(folder / "state")


def change(base: Path, statement: str) -> None:
    """Change a device's state on the disk while it is at work."""
    with sqlite3.connect(base / "state" / FILE) as db:
        db.execute(statement)
    db.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


@pytest.fixture
def coordinator(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    """What it, or its device, asks for again, is asked for again soon."""
    monkeypatch.setattr("edge.upstream.OFFER_S", 0.5)
    monkeypatch.setattr("mekt.blobs.RETRY_S", 0.5)
    with HandMade(broker.port, PLAN) as made:
        yield made


@pytest.fixture
def start(tmp_path: Path, broker: Broker) -> Callable[..., Running]:
    """Makes the device of `tmp_path`, or of another folder, on the state that is there."""

    def make(base: Path = tmp_path, **changes: Any) -> Running:
        base.mkdir(exist_ok=True)
        return Running(base, broker.port, **changes)

    return make
