import queue
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from bench.wire import ACKNOWLEDGEMENT_BYTES, FEDERATION, Sized, Wire, publish_bytes, wire_name
from coordinator.daemon import Coordinator
from coordinator.round import RoundRules
from coordinator.settings import FederationSettings
from edge.daemon import Device
from edge.settings import DeviceSettings, PrivateWindows
from mekt.arrays import pack_knowledge
from mekt.broker import Broker
from mekt.learning import Progress
from mekt.login import BrokerSettings
from mekt.messages import CHUNK_BYTES
from mekt.modality import WindowSpec
from mekt.plan import Encoding, Method
from mekt.process import Job, Stop
from mekt.traffic import WireBytes
from sensors.recording import write_recording
from sensors.simulator import MODALITIES, SimulatorSettings, simulate
from tests.bench.small import arena, plan
from tests.waiting import until

METHOD = Method(local_epochs=1, distil_epochs=1, knowledge_rows=256, encoding="float16")
PROXY = 128
DEVICES = {"pi-acc": ("acc",), "pi-both": ("acc", "gyro")}
# How often a number has a digit more than the wire takes it to have.
TOLERANCE_UP, TOLERANCE_DOWN = 0.03, 0.001
QUIET_S = 0.5


class Watched:
    """A real federation on one broker, from its devices' first word to their last."""

    def __init__(self, folder: Path, port: int, rounds: int) -> None:
        names = ("acc", "gyro")
        for name, subject in (("proxy", 1), ("labelled", 2), ("test", 3)):
            path = folder / f"{name}.npz"
            write_recording(path, simulate(subject, seed=1, duration_s=70.0, modalities=names))
        self._stop, self.ended, self.rounds = Stop(), queue.Queue[Any](), rounds
        self.counted: dict[str, WireBytes] = {}
        settings = FederationSettings(
            federation=FEDERATION,
            rounds=rounds,
            seed=3,
            proxy=("proxy.npz",),
            proxy_windows=PROXY,
            labelled=("labelled.npz",),
            test=("test.npz",),
            compute="cpu",
            window=WindowSpec(window_s=1.0, stride_s=0.5),
            modalities=tuple(MODALITIES[name] for name in names),
            method=METHOD,
            round=RoundRules(min_devices=len(DEVICES)),
            broker=BrokerSettings(port=port),
        )
        (folder / "state").mkdir()
        self.coordinator = Coordinator(settings, folder, folder / "state")
        self._devices = {name: self._device(folder, name, has, port) for name, has in DEVICES.items()}
        self._jobs = [
            Job("coordinator", partial(self._run, self.coordinator), self.ended),
            *(Job(name, partial(self._run, each), self.ended) for name, each in self._devices.items()),
        ]

    def _run(self, part: Coordinator | Device, _: Progress) -> None:
        part.run(self._stop)

    def _device(self, folder: Path, name: str, modalities: tuple[str, ...], port: int) -> Device:
        sensor = SimulatorSettings(modalities=modalities, subject=7, seed=1, duration_s=30.0, speed=1e6)
        settings = DeviceSettings(
            federation=FEDERATION,
            device=name,
            sensors=(sensor,),
            windows=PrivateWindows(capacity=128, least=8, whole_source=True),
            broker=BrokerSettings(port=port),
        )
        (folder / name).mkdir()
        return Device(settings, folder, folder / name)

    def follow(self) -> None:
        """Wait for the end of all rounds, and then for the last byte."""
        until(lambda: self.coordinator._state.phase == "finished")
        now, before = self._counts(), None
        while now != before:
            time.sleep(QUIET_S)
            now, before = self._counts(), now
        self.counted = now

    def _counts(self) -> dict[str, WireBytes]:
        return {name: device._link.wire_bytes() for name, device in self._devices.items()}

    def end(self) -> None:
        self._stop.request()
        until(lambda: self.ended.qsize() == len(self._jobs))


@pytest.fixture(scope="module", params=(1, 2), ids=lambda rounds: f"{rounds} rounds")
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("wire")
    # A slow machine's devices tell how far they are more often: the wire takes them to say each thing once.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("edge.presence.PROGRESS_S", 1e6)
    with Broker(folder / "broker", kind="mosquitto") as broker:
        running = Watched(folder, broker.port, rounds=request.param)
        try:
            running.follow()
            yield running
        finally:
            running.end()
            monkeypatch.undo()


@pytest.mark.parametrize("device", DEVICES)
def test_the_bytes_of_the_rounds_are_those_that_the_kernel_counted(watched: Watched, device: str) -> None:
    coordinator = watched.coordinator
    real = coordinator._plan
    knowledge = coordinator._closing._learner.knowledge(0)
    of = Sized(device=device, modalities=dict.fromkeys(DEVICES[device], "conv"), windows=59)
    mine = {name: data for name, data in knowledge.items() if name in DEVICES[device]}
    blobs = {name: coordinator._downstream._proxy[real.proxy[name].sha256] for name in DEVICES[device]}
    wire = Wire(real)
    expected = wire.session(of, knowledge) + wire.proxy(of, blobs)
    for number in range(watched.rounds):
        expected += wire.received(of, number, mine) + wire.sent(of, number, mine) + wire.presence(of, number)
        expected += wire.announcement(number, tuple(DEVICES), knowledge)
    counted = watched.counted[device]
    assert counted.up == pytest.approx(expected.up, rel=TOLERANCE_UP)
    assert counted.down == pytest.approx(expected.down, rel=TOLERANCE_DOWN)


def test_a_packet_has_a_fixed_header_a_topic_an_id_and_a_payload() -> None:
    # 1 type, 1 length; 2 + 3 topic, 2 id, 1 no properties, 10 payload.
    assert publish_bytes("a/b", 10) == 2 + 5 + 2 + 1 + 10
    # From 128 on the length takes two bytes.
    assert publish_bytes("a/b", 119) == 2 + 127
    assert publish_bytes("a/b", 120) == 3 + 128


def test_a_blob_of_three_chunks_is_asked_for_once_and_acknowledged_chunk_by_chunk() -> None:
    arena_ = arena()
    wire = Wire(plan(arena_))
    of = Sized(device="pi", modalities={"acc": "conv"}, windows=10)
    size = 2 * CHUNK_BYTES + 1
    bytes_ = wire.received(of, 0, {"acc": b"x" * size})
    assert size < bytes_.down < size + 3 * 300
    # One request, and an acknowledgement of each chunk.
    assert 3 * ACKNOWLEDGEMENT_BYTES < bytes_.up < 3 * ACKNOWLEDGEMENT_BYTES + 300


def test_more_chunks_than_may_be_on_their_way_are_asked_for_one_by_one() -> None:
    wire = Wire(plan(arena()))
    of = Sized(device="pi", modalities={"acc": "conv"}, windows=10)
    eight, ten = (wire.received(of, 0, {"acc": b"x" * (count * CHUNK_BYTES)}).up for count in (8, 10))
    request = wire.received(of, 0, {"acc": b"x"}).up - ACKNOWLEDGEMENT_BYTES
    assert ten - eight == pytest.approx(2 * (request + ACKNOWLEDGEMENT_BYTES), abs=8)


def test_what_nobody_sends_costs_nothing() -> None:
    wire = Wire(plan(arena()))
    of = Sized(device="pi", modalities={"acc": "conv"}, windows=10)
    assert wire.sent(of, 0, {}) == wire.received(of, 0, {}) == WireBytes()


def test_int8_halves_what_float16_takes() -> None:
    arena_ = arena()
    wire = Wire(plan(arena_))
    of = Sized(device="pi", modalities={"acc": "conv"}, windows=10)
    embedding = np.ones((512, 32), np.float32)
    sizes = {
        encoding: wire.sent(of, 0, {"acc": pack_knowledge(embedding, None, encoding)}).up
        for encoding in get_args(Encoding)
    }
    assert sizes["float32"] - sizes["float16"] == pytest.approx(512 * 32 * 2, abs=10)
    assert sizes["float16"] - sizes["int8"] == pytest.approx(512 * 32 - 32 * 4, abs=20)


def test_parts_are_named_as_messages_can_name_them() -> None:
    assert [wire_name(part) for part in ("acc", "acc/lstm", "acceleration_left/conv")] == [
        "acc",
        "acc_lstm",
        "acceleratio_conv",
    ]
    wire = Wire(plan(arena()))
    of = Sized(device="pi", modalities={"acc": "conv"}, windows=10)
    with pytest.raises(ValueError, match="one name on the wire"):
        wire.sent(of, 0, {"acceleration_left/conv": b"x", "acceleration_right/conv": b"y"})
