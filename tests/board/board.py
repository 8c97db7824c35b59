"""A board that is switched on and off, and whose plug can be pulled; its words come over a serial port."""

import os
import queue
import re
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mekt.leash import leashed
from tests.board.card import Parts

MEMORY_MB = 1024
# A Raspberry Pi 4 has it; a 3 has a cortex-a53, a 5 a cortex-a76.
PROCESSOR = "cortex-a72"
BOOT_S = 240.0
KEPT_LINES, LAST_LINES = 1000, 40
DECISION = '{"time"'
UP, DONE = re.compile(r"up ([\d.]+)"), re.compile(r"done (\d+)")


class BoardError(Exception):
    """The board does not do what it should."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """How a command ended, and what it wrote, by line."""

    code: int
    lines: list[str]


class Board:
    """One board with the card `image` in it, its console's text in `log`."""

    def __init__(self, made: Parts, image: Path, log: Path, processor: str = PROCESSOR) -> None:
        self._made, self._image, self._log, self._processor = made, image, log, processor
        self._initramfs = log.with_suffix(".initramfs")
        self._initramfs.write_bytes(made.initramfs)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self.on_since_s = 0.0
        self.decided_s: float | None = None
        self.decisions = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def switch_on(self) -> float:
        """Start it; the seconds until its first program runs."""
        self.on_since_s, self.decided_s = time.monotonic(), None
        self._process = subprocess.Popen(
            leashed(self._command()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | self._made.emulator.environment,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self._answer(UP, BOOT_S)
        return time.monotonic() - self.on_since_s

    def cut(self) -> None:
        """Pull the plug: what the card had not been given is lost."""
        if self._process is not None and self._reader is not None:
            with self._process as process:
                process.kill()
                self._reader.join()
            self._process = None

    def switch_off(self) -> None:
        """Have it end all by itself."""
        assert self._process is not None
        self._write("sync; poweroff -f")
        self._process.wait(BOOT_S)
        self.cut()

    def run(self, command: str, patience_s: float) -> Said:
        """Run a command there and wait for its end."""
        lines: list[str] = []
        self._write(f"{{ {command} ; }} > /tmp/said 2>&1; code=$?; sed 's/^/| /' /tmp/said; ( exit $code )")
        code = self._answer(DONE, patience_s, lines)
        return Said(code=int(code), lines=lines)

    def start(self, command: str) -> None:
        """Have a command go on there; what it decides is counted."""
        self._write(f"{command} &")
        self._answer(DONE, BOOT_S)

    def until_decided(self, patience_s: float) -> float:
        """Wait for the first decision since it was switched on; the seconds from then."""
        while self.decided_s is None:
            self._alive()
            if time.monotonic() - self.on_since_s > patience_s:
                raise BoardError(f"no decision within {patience_s:.0f} s\n{self.last_words()}")
            time.sleep(0.05)
        return self.decided_s - self.on_since_s

    @property
    def text(self) -> str:
        """The newest lines of its console, without decisions."""
        return "\n".join(list(self._last))

    def last_words(self) -> str:
        """The last of them."""
        return "\n".join(list(self._last)[-LAST_LINES:])

    def _command(self) -> list[str]:
        return [
            *self._made.emulator.command,
            *("-accel", "tcg", "-machine", "virt", "-cpu", self._processor, "-smp", "2", "-m", str(MEMORY_MB)),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(self._made.kernel), "-initrd", str(self._initramfs)),
            *("-append", "console=ttyAMA0 panic=-1 loglevel=3 rdinit=/init"),
            *("-drive", f"file={self._image},format=raw,if=none,id=card,cache=writeback"),
            *("-device", "virtio-blk-device,drive=card"),
            # This machine's loopback is 10.0.2.2 there.
            *("-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net"),
        ]

    def _write(self, line: str) -> None:
        self._alive()
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self, wanted: re.Pattern[str], patience_s: float, lines: list[str] | None = None) -> str:
        ends_s = time.monotonic() + patience_s
        while time.monotonic() < ends_s:
            try:
                line = self._answers.get(timeout=0.5)
            except queue.Empty:
                self._alive()
                continue
            if found := wanted.fullmatch(line):
                return found[1]
            if lines is not None and line.startswith("| "):
                lines.append(line[2:])
        raise BoardError(f"no answer within {patience_s:.0f} s\n{self.last_words()}")

    def _alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise BoardError(f"the board is off\n{self.last_words()}")

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with self._log.open("ab") as log:
            for data in process.stdout:
                log.write(data)
                log.flush()
                line = data.decode(errors="replace").strip("\r\n")
                if line.startswith(DECISION):
                    self.decisions += 1
                    self.decided_s = self.decided_s or time.monotonic()
                else:
                    self._last.append(line)
                    self._answers.put(line)
