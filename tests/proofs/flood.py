"""A round under a flood: `python -m tests.proofs.flood`, or `make flood`.

The same federation runs twice, once left alone and once while a client publishes RATE malformed messages a second to
topics that the coordinator listens to. Said are the seconds of a round, how many messages were sent and how many the
coordinator took in and dropped, and the memory of coordinator and broker. The coordinator runs within this process,
where its counts can be read; devices, broker and flood are processes of their own.
"""

import argparse
import os
import queue
import random
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.daemon import Coordinator
from coordinator.settings import read_federation
from mekt.process import Job, JobDone, Stop, log_to_stderr
from tests.federation import ROOT, federation
from tests.proofs.endurance import resident_kb

DEVICES = {"pi-acc": ("acc",), "pi-gyro": ("gyro",)}
METHOD = "embedding = 8\nhidden = 16\nknowledge_rows = 64\nfollow_epochs = 1"
RATE, CONNECTIONS, BATCH = 15_000, 4, 250
ROUNDS = 5
PATIENCE_S = 600.0
KINDS = ("offer", "chunk", "want", "presence", "receipt", "nonsense")
NAMES = ("pi-acc", "pi-gyro", *(f"nobody-{number}" for number in range(20)))
# What the coordinator may take more for a flood: queues and counts have bounds.
LARGEST_GROWTH_KB = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What was measured of one run."""

    seconds: Sequence[float]
    before_kb: int
    peak_kb: int
    broker_kb: int
    dropped: int
    sent: int

    @property
    def whole_s(self) -> float:
        return sum(self.seconds)


def main() -> int:
    """Run both; 1 when the coordinator's memory has no bound. A round that does not finish is an error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rate", type=int, default=RATE, help="messages a second")
    parser.add_argument("--publish", type=int, metavar="PORT", help="be the flood")
    options = parser.parse_args()
    log_to_stderr("error")
    if options.publish is not None:
        publish(options.publish, options.rate)
        return 0
    alone, flooded = run(options.rounds, 0), run(options.rounds, options.rate)
    for name, each in (("left alone", alone), ("flooded", flooded)):
        print(
            f"{name:<11} {each.whole_s / options.rounds:6.2f} s a round, "
            f"{each.sent / each.whole_s:8.0f} messages sent and {each.dropped / each.whole_s:8.0f} dropped a second, "
            f"coordinator {each.before_kb / 1024:.1f} MB before, {each.peak_kb / 1024:.1f} MB at most, "
            f"broker {each.broker_kb / 1024:.1f} MB at most"
        )
    print(f"a round takes {flooded.whole_s / alone.whole_s:.2f} times as long")
    return int(flooded.peak_kb - flooded.before_kb > LARGEST_GROWTH_KB)


def run(rounds: int, rate: int) -> Run:
    """A federation from its first round to its last, under so many messages a second."""
    with tempfile.TemporaryDirectory(prefix="mekt-flood-") as name:
        folder = Path(name)
        (folder / "recordings").mkdir()
        made = federation(
            folder, folder / "recordings", devices=DEVICES, rounds=rounds, method=METHOD, duration_s=100.0
        )
        (folder / "coordinator" / "state").mkdir()
        config = folder / "coordinator" / "federation.toml"
        coordinator = Coordinator(read_federation(config), config.parent, config.parent / "state")
        stop, ended = Stop(), queue.Queue[JobDone]()
        job = Job("coordinator", lambda _: coordinator.run(stop), ended)
        flood: subprocess.Popen[str] | None = None
        try:
            until(lambda: coordinator._closing.reports != (), ended)
            before_kb = resident_kb(os.getpid())
            command = [sys.executable, "-m", "tests.proofs.flood", "--rate", str(rate)]
            command += ["--publish", str(made.broker.port)]
            if rate:
                flood = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
                until(lambda: reached(coordinator) > 0, ended)
            began_s, before = time.monotonic(), reached(coordinator)
            made.start(*DEVICES)
            seconds: list[float] = []
            peak_kb, broker_kb = before_kb, 0
            for number in range(rounds):
                done = number + 1
                while coordinator._state.round < done:
                    until(lambda: True, ended)
                    assert time.monotonic() - began_s < PATIENCE_S, f"round {done}: not in time\n{made.last_lines()}"
                    peak_kb = max(peak_kb, resident_kb(os.getpid()))
                    broker_kb = max(broker_kb, resident_kb(made.broker.pid))
                    time.sleep(0.1)
                seconds.append(time.monotonic() - began_s - sum(seconds))
            dropped = reached(coordinator) - before
            sent = 0
            if flood is not None:
                assert flood.poll() is None, "the flood has ended"
                sent = int(flood.communicate("", timeout=30)[0])
                flood = None
            return Run(
                seconds=seconds, before_kb=before_kb, peak_kb=peak_kb, broker_kb=broker_kb, dropped=dropped, sent=sent
            )
        finally:
            if flood is not None:
                flood.kill()
            stop.request()
            made.end()
            job.cancel(10.0)


def reached(coordinator: Coordinator) -> int:
    """How many messages the coordinator has taken in and dropped."""
    return coordinator._link.strays + sum(coordinator._post.rejected.values())


def until(condition: Callable[[], bool], ended: "queue.Queue[JobDone]") -> None:
    """Wait for this, as long as the coordinator lives."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        assert ended.empty(), ended.get().error
        if condition():
            return
        assert time.monotonic() < deadline_s, "this did not happen in time"
        time.sleep(0.05)


def publish(port: int, rate: int) -> None:
    """Send so many malformed messages a second, QoS 0, until standard input ends; then print how many were sent."""
    rng = random.Random(1)
    batches = [b"".join(_packet(rng) for _ in range(BATCH)) for _ in range(20)]
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    for number, each in enumerate(connections):
        name = f"flood-{number}".encode()
        each.sendall(b"\x10" + bytes([12 + len(name)]) + b"\x00\x04MQTT\x04\x02\x00\x00" + bytes([0, len(name)]) + name)
        each.recv(4)
    poller = select.poll()
    poller.register(sys.stdin, select.POLLIN | select.POLLHUP)
    began_s, sent = time.monotonic(), 0
    while not poller.poll(0):
        connections[sent // BATCH % CONNECTIONS].sendall(batches[sent // BATCH % len(batches)])
        sent += BATCH
        time.sleep(max(0.0, began_s + sent / rate - time.monotonic()))
    print(sent)


def _packet(rng: random.Random) -> bytes:
    topic = f"mekt/1/ward/up/{rng.choice(NAMES)}/{rng.choice(KINDS)}".encode()
    body = len(topic).to_bytes(2, "big") + topic + rng.randbytes(rng.randrange(40))
    return b"\x30" + bytes([len(body)]) + body


if __name__ == "__main__":
    sys.exit(main())
