"""The network at its worst: whatever it does, rounds end, and with the release of a run that nobody disturbed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mekt.messages import Chunk, Offer, Presence, RoundOpen
from tests.federation import LITTLE, ROOT, Federation, federation, undisturbed_release
from tests.lossy import LossyNetwork, why_not
from tests.nursery import forked, with_clock
from tests.weather import Weather

DEVICES = {"pi-acc": ("acc",), "pi-gyro": ("gyro",)}
PARTS = ("coordinator", *DEVICES)
# Little to learn; but knowledge of 8 kilobytes, so that something can be interrupted.
METHOD = f'{LITTLE}\nencoding = "float32"'
SMALL: dict[str, Any] = {"devices": DEVICES, "method": METHOD, "launch": forked, "duration_s": 100.0}
LEASE_S = 5
LONG_PATIENCE_S = 900.0


@dataclass
class Ward:
    """A federation whose every part has a way of its own to the broker."""

    federation: Federation
    weather: dict[str, Weather] = field(default_factory=dict)

    def start(self) -> None:
        self.federation.listen()
        self.federation.start(*PARTS)

    def every(self, **what: float) -> None:
        """Set this of the weather on every way."""
        for each in self.weather.values():
            for name, value in what.items():
                setattr(each, name, value)

    def ends_as(self, undisturbed: bytes) -> None:
        """Listen until all rounds are over, and find the release of a run that nobody disturbed."""
        self.federation.finish()
        self.every(delay_s=0.0, cut_every_s=float("inf"), bytes_per_s=float("inf"))
        self.federation.stop()
        assert self.federation.release.read_bytes() == undisturbed

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Listen on until this is so."""
        ward = self.federation
        deadline_s = time.monotonic() + ward.patience_s
        while not condition():
            assert time.monotonic() < deadline_s, f"it did not happen\n{ward.last_lines()}"
            while not ward.inbox.empty():
                ward.hear()
            time.sleep(0.02)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where simulated recordings are kept, when there are no real ones."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture
def ward(tmp_path: Path, recordings: Path) -> Iterator[Ward]:
    """Nothing of it runs yet but the broker, and the weather is fine."""
    with ExitStack() as stack:
        weather: dict[str, Weather] = {}

        def way(name: str, port: int) -> str:
            weather[name] = stack.enter_context(Weather(port, seed=PARTS.index(name)))
            return f"port = {weather[name].port}\nlease_s = {LEASE_S}"

        made = federation(tmp_path, recordings, broker_of=way, **SMALL)
        stack.callback(made.end)
        yield Ward(made, weather)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> bytes:
    """The release of a run that nobody disturbed."""
    return undisturbed_release(tmp_path_factory.mktemp("undisturbed"), recordings, **SMALL)


def test_half_a_second_late_and_cut_again_and_again(ward: Ward, undisturbed: bytes) -> None:
    ward.start()
    ward.federation.until(RoundOpen, state="open", round=0)
    ward.every(delay_s=0.5, cut_every_s=8.0)
    ward.federation.finish()
    assert sum(each.cuts for each in ward.weather.values()) > 0
    ward.every(delay_s=0.0, cut_every_s=float("inf"))
    ward.federation.stop()
    assert ward.federation.release.read_bytes() == undisturbed


def test_a_device_that_is_cut_off_in_the_middle_of_its_upload(ward: Ward, undisturbed: bytes) -> None:
    ward.start()
    cut_off = ward.weather["pi-acc"]
    ward.federation.until(Presence, device="pi-acc", activity="training", round=0)
    cut_off.bytes_per_s = 4000.0
    ward.federation.once(Offer, device="pi-acc", round=0)
    before = cut_off.up_bytes
    ward.wait_for(lambda: cut_off.up_bytes - before > 2000)
    cut_off.partition()
    arrived = [each for way, each in ward.federation.heard if way == "up" and isinstance(each.body, Chunk)]
    assert not any(each.device == "pi-acc" for each in arrived)
    ward.federation.until(Presence, device="pi-acc", state="offline")
    ward.wait_for(lambda: cut_off.refused > 0)
    cut_off.clear()
    ward.ends_as(undisturbed)


def test_a_coordinator_that_is_cut_off_while_devices_learn(ward: Ward, undisturbed: bytes) -> None:
    ward.start()
    cut_off = ward.weather["coordinator"]
    ward.federation.until(Presence, device="pi-acc", activity="training", round=0)
    cut_off.partition()
    for name in DEVICES:
        ward.federation.once(Offer, device=name, round=0)
    ward.wait_for(lambda: cut_off.refused > 0)
    cut_off.clear()
    ward.ends_as(undisturbed)


def test_connections_that_stay_open_while_nothing_gets_through(ward: Ward, undisturbed: bytes) -> None:
    ward.start()
    ward.federation.until(Presence, device="pi-acc", activity="training", round=0)
    before = {name: each.connections for name, each in ward.weather.items()}
    for each in ward.weather.values():
        each.stall(new_ones_too=True)
    # New connections are swallowed too, for as long as it takes everybody to try one.
    ward.wait_for(lambda: all(each.connections > before[name] for name, each in ward.weather.items()))
    for each in ward.weather.values():
        each.clear()
    ward.ends_as(undisturbed)


def test_every_client_is_there_twice(ward: Ward, undisturbed: bytes) -> None:
    ward.start()
    for number in range(2):
        ward.federation.until(Presence, device="pi-acc", activity="training", round=number)
        for each in ward.weather.values():
            each.double()
    ward.ends_as(undisturbed)


def test_clocks_that_are_wrong_by_hours(ward: Ward, undisturbed: bytes) -> None:
    """A board without a battery starts years back; another is a day ahead; the coordinator's is half a day off."""
    for name, hours in (("coordinator", 13.0), ("pi-acc", -3 * 365 * 24.0), ("pi-gyro", 24.0)):
        ward.federation.launch = with_clock(hours * 3600)
        ward.federation.start(name)
    ward.federation.listen()
    ward.federation.finish()
    ward.federation.stop()
    stamps = {name: (ward.federation.folder / f"{name}.log").read_text().splitlines()[0].split()[0] for name in DEVICES}
    assert stamps["pi-acc"] < stamps["pi-gyro"], "their clocks were not what they were meant to be"
    assert ward.federation.release.read_bytes() == undisturbed


@pytest.mark.weather
def test_thirty_two_kilobits_a_second(ward: Ward, undisturbed: bytes) -> None:
    ward.federation.patience_s = LONG_PATIENCE_S
    ward.every(bytes_per_s=4000.0)
    ward.start()
    ward.federation.finish()
    carried = sum(each.up_bytes + each.down_bytes for each in ward.weather.values())
    ward.every(bytes_per_s=float("inf"))
    ward.federation.stop()
    assert ward.federation.release.read_bytes() == undisturbed
    payload = sum(len(each.body.data) for _, each in ward.federation.heard if isinstance(each.body, Chunk))
    blobs = {(each.device, each.body.sha256) for _, each in ward.federation.heard if isinstance(each.body, Chunk)}
    print(f"\n{payload} bytes of chunks in {len(blobs)} blobs; {carried} bytes on three links")
    # Nothing is asked for again and again because it is late: a chunk crosses once, a few twice.
    once = {
        (each.device, each.body.sha256, each.body.index): len(each.body.data)
        for _, each in ward.federation.heard
        if isinstance(each.body, Chunk)
    }
    assert payload <= 1.5 * sum(once.values())


@pytest.mark.weather
@pytest.mark.skipif(why_not() != "", reason=why_not())
@pytest.mark.parametrize(("loss", "delay_s"), [(0.3, 0.5)])
def test_packets_that_are_lost_and_late(
    loss: float, delay_s: float, tmp_path: Path, recordings: Path, undisturbed: bytes
) -> None:
    """Devices in a network namespace, TCP by the kernel; where the first login fails, they are started again."""
    with LossyNetwork(loss=loss, delay_s=delay_s, number=os.getpid() % 200) as network, ExitStack() as stack:

        def way(name: str, port: int) -> str:
            far = f'host = "{network.address}"\nport = 1883\nplain_text_allowed = true'
            return f"port = {port}" if name == "coordinator" else far

        made = federation(
            tmp_path,
            recordings,
            broker_of=way,
            more=(f"listener 1883 {network.address}", "allow_anonymous true"),
            **SMALL | {"patience_s": LONG_PATIENCE_S},
        )
        stack.callback(made.end)
        made.listen()
        made.start("coordinator")
        devices = [stack.enter_context(Restarted(made, network, name)) for name in DEVICES]
        began_s = time.monotonic()
        made.finish()
        print(
            f"\n{made.rounds} rounds in {time.monotonic() - began_s:.0f} s, {[each.starts for each in devices]} starts"
        )
        made.stop()
        assert made.release.read_bytes() == undisturbed
    print(network.counts)


class Restarted:
    """A device in the namespace that is started again whenever it ends because it could not reach the broker."""

    def __init__(self, made: Federation, network: LossyNetwork, name: str) -> None:
        self.starts = 0
        self._name, self._made = name, made
        config = made.folder / name / "device.toml"
        self._command = network.within([sys.executable, "-m", "mekt", "edge", "run", "--config", str(config)])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after)

    def __enter__(self) -> "Restarted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_after(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        while not self._over.is_set():
            self.starts += 1
            with (self._made.folder / f"{self._name}.log").open("ab") as log:
                process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
            while process.poll() is None and not self._over.wait(0.2):
                pass
            if process.poll() is None:
                process.kill()
            process.wait()
