"""A whole federation for tests: a broker, processes as they are deployed, and somebody who reads everything."""

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from mekt.broker import Broker
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import Envelope, Status, decode
from mekt.topics import parse_topic
from tests.recordings import persons

ROOT = Path(__file__).parents[1]
DEVICES = {"pi-acc": ("acc",), "pi-gyro": ("gyro",), "pi-both": ("acc", "gyro")}
ROUNDS = 2
# Lines of `[method]` with little to learn.
LITTLE = "knowledge_rows = 64\nhidden = 32\nfollow_epochs = 1"
PATIENCE_S = 120.0
LAST_LINES = 40


class Running(Protocol):
    """A process, as `subprocess.Popen` is one."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, waited for."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""


# Runs `mekt` with these arguments, its output at the end of this file.
Launch = Callable[[list[str], Path], Running]


def as_deployed(arguments: list[str], log_path: Path) -> Running:
    """A process of its own, by the command line."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log_path.open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "mekt", *arguments], stdout=log, stderr=log, env=environment)


def is_like(envelope: Envelope, wanted: type[Any], fields: Mapping[str, Any]) -> bool:
    """Whether a message's body is of this type, and it has these values."""
    seen = {"device": envelope.device, "round": envelope.round}
    return isinstance(envelope.body, wanted) and all(
        seen.get(name, getattr(envelope.body, name, None)) == value for name, value in fields.items()
    )


@dataclass
class Federation:
    """A coordinator, devices, a broker, and a client that subscribes to everything."""

    folder: Path
    broker: Broker
    rounds: int = ROUNDS
    launch: Launch = as_deployed
    patience_s: float = PATIENCE_S
    processes: dict[str, Running] = field(default_factory=dict)
    heard: list[tuple[str, Envelope]] = field(default_factory=list)
    inbox: "queue.Queue[Any]" = field(default_factory=queue.Queue)
    ears: Link | None = None

    def start(self, *names: str) -> None:
        """Start the coordinator or devices, as their settings files say."""
        for name in names:
            what = ("coordinator", "federation") if name == "coordinator" else ("edge", "device")
            config = self.folder / name / f"{what[1]}.toml"
            self.processes[name] = self.launch([what[0], "run", "--config", str(config)], self.folder / f"{name}.log")

    def listen(self) -> None:
        """Subscribe to everything."""
        self.ears = Link(
            settings=BrokerSettings(port=self.broker.port), client_id="ears", inbox=self.inbox, subscriptions=("#",)
        )
        self.ears.start()

    def hear(self) -> Envelope | None:
        """The next message; every one of them has to be valid on the topic where it is."""
        try:
            event = self.inbox.get(timeout=0.5)
        except queue.Empty:
            return None
        if not isinstance(event, Received):
            return None
        topic = parse_topic(event.topic)
        assert topic is not None, event.topic
        envelope = decode(event.payload, topic)
        self.heard.append((topic.direction, envelope))
        return envelope

    def until(self, wanted: type[Any], **fields: Any) -> Envelope:
        """Listen until a body of this type with these values is heard."""
        deadline_s = time.monotonic() + self.patience_s
        while time.monotonic() < deadline_s:
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended:\n{(self.folder / f'{name}.log').read_text()}"
            envelope = self.hear()
            if envelope is not None and is_like(envelope, wanted, fields):
                return envelope
        pytest.fail(f"no {wanted.__name__} with {fields} within {self.patience_s} s\n{self.last_lines()}")

    def once(self, wanted: type[Any], **fields: Any) -> Envelope:
        """The same, or one that has been heard already: nobody knows which of two devices is the first."""
        before = (envelope for _, envelope in self.heard if is_like(envelope, wanted, fields))
        return next(before, None) or self.until(wanted, **fields)

    def finish(self) -> Status:
        """The status when all rounds are done."""
        status = self.until(Status, phase="finished").body
        assert isinstance(status, Status)
        return status

    def stop(self) -> dict[str, float]:
        """SIGTERM to all, and the seconds that each took to end well."""
        seconds = {}
        for name, process in self.processes.items():
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, (self.folder / f"{name}.log").read_text()
            seconds[name] = time.monotonic() - began_s
        self.processes.clear()
        return seconds

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        if self.ears is not None:
            self.ears.stop(1.0)
        self.broker.stop()

    def last_lines(self) -> str:
        """The ends of all logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {path.name}\n" + "\n".join(path.read_text().splitlines()[-LAST_LINES:]) for path in logs)

    @property
    def release(self) -> Path:
        """The last release."""
        return self.folder / "coordinator" / "state" / "releases" / f"ward-{self.rounds:05d}.zip"


def federation(
    folder: Path,
    recordings: Path,
    *,
    devices: Mapping[str, tuple[str, ...]] = DEVICES,
    rounds: int = ROUNDS,
    method: str = "knowledge_rows = 128",
    broker_of: Callable[[str, int], str] = lambda _name, port: f"port = {port}",
    more: tuple[str, ...] = (),
    launch: Launch = as_deployed,
    patience_s: float = PATIENCE_S,
    duration_s: float = 240.0,
    rules: str | None = None,
    device: str = "",
    broker: Broker | None = None,
) -> Federation:
    """A federation on disk, its broker running; nothing else is started.

    `method` is a line of that table; `broker_of` gives each part's `[broker]` by the part's name and the broker's port;
    `more` are lines of the broker's configuration; `duration_s` is how long simulated recordings are; a round
    keeps these `rules`, by default waits for all devices; `device` is a line at the top of every device's
    settings. Without a `broker` it has one that lets everybody in.
    """
    all_of_them = f"min_devices = {len(devices)}\ndeadline_s = 100"
    broker = broker or Broker(folder / "broker", persistent=True, more=more)
    broker.start()
    proxy, labelled, *test = persons(recordings, (25, 24, 26, 27), duration_s)
    (folder / "coordinator").mkdir()
    (folder / "coordinator" / "federation.toml").write_text(
        f'federation = "ward"\nrounds = {rounds}\nseed = 3\nthreads = 1\n'
        f"proxy = [{json.dumps(proxy)}]\nproxy_windows = 64\nlabelled = [{json.dumps(labelled)}]\n"
        f"test = {json.dumps(test)}\n[window]\nwindow_s = 2.56\nstride_s = 1.28\n"
        '[[modalities]]\nname = "acc"\nshape = [3]\nrate_hz = 50\nunit = "g"\n'
        '[[modalities]]\nname = "gyro"\nshape = [3]\nrate_hz = 50\nunit = "rad/s"\n'
        f"[method]\nlocal_epochs = 1\ndistil_epochs = 2\n{method}\n"
        f"[round]\n{rules or all_of_them}\n"
        f"[broker]\n{broker_of('coordinator', broker.port)}\n"
    )
    for number, (name, modalities) in enumerate(devices.items(), start=1):
        (folder / name).mkdir()
        (folder / name / "device.toml").write_text(
            f'federation = "ward"\ndevice = "{name}"\nthreads = 1\n{device}\n'
            "[windows]\nwhole_source = true\ncapacity = 256\n"
            f'[[sensors]]\nkind = "replay"\nspeed = 1e6\nmodalities = {json.dumps(modalities)}\n'
            f"recordings = {json.dumps(persons(recordings, (number,), duration_s))}\n"
            f"[broker]\n{broker_of(name, broker.port)}\n"
            # Devices need not be alike: what they share is the embedding's width.
            + ('[architectures]\ngyro = "lstm"\n' if name == "pi-gyro" else "")
        )
    return Federation(folder, broker, rounds=rounds, launch=launch, patience_s=patience_s)


def undisturbed_release(
    folder: Path, recordings: Path, *, devices: Mapping[str, tuple[str, ...]], **sizes: Any
) -> bytes:
    """The last release of a run that nobody disturbs; `sizes` are further arguments of `federation`."""
    made = federation(folder, recordings, devices=devices, **sizes)
    try:
        made.listen()
        made.start("coordinator", *devices)
        made.finish()
        made.stop()
        return made.release.read_bytes()
    finally:
        made.end()
