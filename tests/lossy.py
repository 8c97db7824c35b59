"""A network that loses packets: a namespace whose only way out leads through this process, as `tc netem` would do it.

    python -m tests.lossy --loss 0.3 --delay-s 0.5

Two TUN devices, one on each side, and between them every packet is lost with that chance or comes that much later,
both ways. TCP is the kernel's own: its retransmissions and timeouts are real. It takes root and /dev/net/tun, and no
module of the kernel. The namespace and both devices are gone with the process.
"""

import argparse
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

TUN = Path("/dev/net/tun")
# Of the network that RFC 2544 sets aside for measurements.
NEAR, FAR = "198.18.{}.1", "198.18.{}.2"
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
PACKET_BYTES = 65536
START_S = 20.0


class LossyNetwork:
    """A namespace whose processes reach this machine at `address`, over a network that loses and delays."""

    def __init__(self, *, loss: float, delay_s: float, seed: int = 0, number: int = 0) -> None:
        self.address = NEAR.format(number)
        self._command = [sys.executable, "-m", "tests.lossy", "--loss", str(loss), "--delay-s", str(delay_s)]
        self._command += ["--seed", str(seed), "--number", str(number)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_S)
        assert readable and self._process.stdout.readline() == "ready\n", "the lossy network did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._process.stdout is not None and self._process.stdin is not None
        self._process.stdin.close()
        self.counts = self._process.stdout.read().strip()
        self._process.stdout.close()
        self._process.wait(START_S)

    def within(self, command: list[str]) -> list[str]:
        """The command, run within the namespace."""
        assert self._process is not None
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", *command]


def why_not() -> str:
    """Why there can be no such network here; "" where there can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if not TUN.exists():
        return f"{TUN} is not there"
    return ""


def main() -> None:
    """Be the network until standard input ends; then say how many packets there were."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loss", type=float, default=0.3)
    parser.add_argument("--delay-s", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=0)
    options = parser.parse_args()
    here, there = NEAR.format(options.number), FAR.format(options.number)
    near = _tun(f"mekt-near{options.number}", here, there)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    far = _tun(f"mekt-far{options.number}", there, here)
    print("ready", flush=True)
    _carry(near, far, options.loss, options.delay_s, random.Random(options.seed))


def _tun(name: str, here: str, there: str) -> int:
    """A TUN device in the namespace of this moment, up and with its addresses."""
    file = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    for command in (["addr", "add", here, "peer", there, "dev", name], ["link", "set", name, "up"]):
        subprocess.run(["ip", *command], check=True)
    return file


def _carry(near: int, far: int, loss: float, delay_s: float, rng: random.Random) -> None:
    other = {near: far, far: near}
    on_their_way: list[tuple[float, int, int, bytes]] = []
    seen = lost = 0
    poller = select.poll()
    for file in (near, far, 0):
        poller.register(file, select.POLLIN)
    while True:
        now_s = time.monotonic()
        while on_their_way and on_their_way[0][0] <= now_s:
            _, _, file, packet = heapq.heappop(on_their_way)
            os.write(file, packet)
        wait_s = on_their_way[0][0] - now_s if on_their_way else 1.0
        for file, _ in poller.poll(wait_s * 1000):
            if file == 0:
                print(f"{seen} packets, {lost} lost", flush=True)
                return
            packet = os.read(file, PACKET_BYTES)
            seen += 1
            if rng.random() < loss:
                lost += 1
            else:
                heapq.heappush(on_their_way, (time.monotonic() + delay_s, seen, other[file], packet))


if __name__ == "__main__":
    main()
