"""`mekt demo`: a whole federation on this machine. Broker, coordinator and every device are processes of their own.

The demo writes their settings files, starts the same commands that production uses, and from then on only watches:
what it prints comes over MQTT, and the last scores from a process that has onnxruntime and no torch.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from mekt import catalogue
from mekt.broker import Broker, available_kind
from mekt.login import BrokerSettings
from mekt.messages import Presence, Status
from mekt.parts import Parts, ended, fresh_folder, parts_in
from mekt.process import Stop
from mekt.scenes import DEMO, FEDERATION, Work, choose_scene, write_settings
from mekt.schema import plain
from mekt.traffic import WireBytes
from mekt.watch import Watch, kilobytes, report_table


def run_demo(
    *,
    rounds: int,
    agents: int,
    seed: int,
    data: Path | None,
    out: Path | None,
    port: int,
    secure: bool,
    as_json: bool,
    stop: Stop,
) -> int:
    """Run the federation and print how it went; the exit code.

    Raises:
        MektError: when a part cannot start or ends before its time.
    """
    available_kind()
    folder = fresh_folder(out, "demo")
    try:
        work = replace(DEMO, secure=secure)
        return _run(folder, work, rounds, agents=agents, seed=seed, data=data, port=port, as_json=as_json, stop=stop)
    finally:
        # What could not even begin leaves nothing behind; a folder that holds something stays.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _run(
    folder: Path,
    work: Work,
    rounds: int,
    *,
    agents: int,
    seed: int,
    data: Path | None,
    port: int,
    as_json: bool,
    stop: Stop,
) -> int:
    began_s = time.monotonic()
    say = Talk(sys.stderr if as_json else sys.stdout)
    scene = choose_scene(folder, data=data, agents=agents, seed=seed, work=work)
    say.line(f"Learning from {scene.title}. All that is made goes to {folder}.")
    with Broker(folder / "broker", port=port) as broker, parts_in(folder) as parts:
        say.line(f"broker: {broker.kind}, process {broker.pid}, 127.0.0.1:{broker.port}")
        write_settings(folder, scene, rounds=rounds, agents=agents, seed=seed, port=broker.port, work=work)
        parts.start("coordinator", "coordinator", "run", "--config", str(folder / "federation.toml"))
        for name in scene.devices:
            parts.start(name, "edge", "run", "--config", str(folder / name / "device.toml"))
        for name, process in parts.running.items():
            say.line(f"{name}: process {process.pid}")
        watch = Watch(BrokerSettings(port=broker.port), FEDERATION)
        watch.start()
        try:
            status, delivered = _follow(watch, parts, say, rounds, stop)
        finally:
            watch.stop()
        pids = {name: process.pid for name, process in parts.running.items()} | {"broker": broker.pid}
    release = folder / "state" / "releases" / f"{status.reports[-1].release}.zip"
    exported = _score(release, scene.test)
    with zipfile.ZipFile(release) as files:
        parity: dict[str, float] = json.loads(files.read("manifest.json"))["parity"]
    exported["largest_difference"] = max(parity.values())
    devices = [_Account(name, delivered.get(name, {}), each) for name, (_, each) in sorted(watch.view.devices.items())]
    seconds = time.monotonic() - began_s
    if as_json:
        print(json.dumps(_results(status, devices, release, exported, pids, seconds)))
    else:
        for line in _summary(status, devices, release, exported, seconds):
            say.line(line)
    return 0


# What is shown


class Talk:
    """Lines on a stream. On a terminal the lines of a round that is under way are written over; elsewhere never."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._shown = 0
        self._rows: dict[str, str] = {}

    def line(self, text: str) -> None:
        """A line that stays, below what was said before."""
        self.settle()
        print(text, file=self._out, flush=True)

    def row(self, key: str, text: str, *, last: bool) -> None:
        """What is to be said about `key`; `last` when nothing more follows. Only a terminal shows what is not."""
        if self._rows.get(key) == text:
            return
        self._rows[key] = text
        if self._live:
            up = f"\x1b[{self._shown}A" if self._shown else ""
            # A row that wrapped would be two, and the next one would be written over the wrong one.
            columns = shutil.get_terminal_size().columns
            rows = [self._rows[each][:columns] for each in sorted(self._rows)]
            self._out.write(up + "".join(f"\x1b[2K{row}\n" for row in rows))
            self._out.flush()
            self._shown = len(self._rows)
        elif last:
            print(text, file=self._out, flush=True)

    def settle(self) -> None:
        """Leave the rows as they are and begin new ones below."""
        self._rows, self._shown = {}, 0


class _Account:
    """A device's bytes: what crossed its connection between one delivery and the next, per round."""

    def __init__(self, device: str, delivered: Mapping[int, Presence], last: Presence) -> None:
        self.device = device
        self.last = last
        self.rounds: dict[int, WireBytes] = {}
        before = WireBytes()
        for number, presence in sorted(delivered.items()):
            now = WireBytes(up=presence.up_bytes, down=presence.down_bytes)
            self.rounds[number + 1] = WireBytes(up=now.up - before.up, down=now.down - before.down)
            before = now

    def line(self) -> str:
        """For people: the first round, in which the proxy set comes, and the mean of those that follow."""
        first, *later = self.rounds.values() or [WireBytes()]
        count = max(1, len(later))
        sizes = [self.last.up_bytes, self.last.down_bytes, first.up, first.down]
        sizes += [sum(each.up for each in later) // count, sum(each.down for each in later) // count]
        name = f"{self.device:<12}{', '.join(self.last.modalities):<18}{self.last.windows:>8}"
        return name + "".join(f"{kilobytes(size):>14}" for size in sizes)

    def plain(self) -> dict[str, Any]:
        """For machines."""
        return {
            "modalities": sorted(self.last.modalities),
            "windows": self.last.windows,
            "up_bytes": self.last.up_bytes,
            "down_bytes": self.last.down_bytes,
            "rounds": [{"round": number, **plain(each)} for number, each in self.rounds.items()],
        }


def _follow(
    watch: Watch, parts: Parts, say: Talk, rounds: int, stop: Stop
) -> tuple[Status, dict[str, dict[int, Presence]]]:
    """Show a row for each device and round, and a line for each round that is over, until all are.

    Gives the last status, and of each device and round what it said when it had delivered.
    """
    delivered: dict[str, dict[int, Presence]] = {}
    told = -1
    at = 0
    while True:
        parts.check()
        if stop.requested:
            raise KeyboardInterrupt
        speaker = watch.look(0.5)
        view = watch.view
        if speaker:
            number, presence = view.devices[speaker]
            if number == at and presence.state == "online":
                done = presence.activity == "idle" and presence.windows > 0 and number < rounds
                if done:
                    delivered.setdefault(speaker, {})[number] = presence
                say.row(f"{number}/{speaker}", _device_row(number, rounds, speaker, presence), last=done)
        elif speaker == "" and view.status is not None:
            for report in view.status.reports:
                if report.round > told:
                    told = report.round
                    scores = ", ".join(
                        f"{name.split('/', 1)[1]} {value:.3f}" for name, value in report.metrics.items() if "/" in name
                    )
                    what = "before the first round" if told == 0 else f"after round {told} of {rounds}"
                    say.line(f"{what}: weighted F1 {scores}")
                    at = told
            if view.status.phase == "finished" and told == rounds:
                return view.status, delivered


def _device_row(number: int, rounds: int, device: str, presence: Presence) -> str:
    match presence.activity:
        case "idle":
            activity = "delivered" if presence.windows else "online"
        case "training":
            activity = f"training {presence.progress:>4.0%}"
        case _:
            activity = presence.activity
    return (
        f"round {number + 1} of {rounds}  {device:<10} {', '.join(presence.modalities):<16} {activity:<14}"
        f"{presence.windows:>6} windows  {kilobytes(presence.up_bytes)} up  {kilobytes(presence.down_bytes)} down"
    )


def _summary(
    status: Status, devices: Sequence[_Account], release: Path, exported: dict[str, Any], seconds: float
) -> Iterator[str]:
    yield ""
    yield from report_table(status)
    yield ""
    columns = ("up", "down", "up, round 1", "down, round 1", "up, later", "down, later")
    yield f"{'device':<12}{'modalities':<18}{'windows':>8}" + "".join(f"{column:>14}" for column in columns)
    yield from (each.line() for each in devices)
    yield "(bytes of the TCP connections, as the kernel counted them; later: the mean of the rounds after the first)"
    yield ""
    yield f"release: {release}"
    trained = status.reports[-1].metrics
    for name, value in exported["weighted_f1"].items():
        yield (
            f"  {name:<8} weighted F1 by onnxruntime alone {value:.4f}, by torch "
            f"{trained[f'weighted_f1/{name}']:.4f}, over {exported['windows']} windows"
        )
    yield f"  on windows of the proxy set the outputs of both differ by {exported['largest_difference']:.1e} at most"
    yield f"took {seconds:.0f} s"


def _results(
    status: Status,
    devices: Sequence[_Account],
    release: Path,
    exported: dict[str, Any],
    pids: dict[str, int],
    seconds: float,
) -> dict[str, Any]:
    return {
        "rounds": [
            {"round": each.round, "metrics": each.metrics, "seconds": each.seconds, "devices": list(each.devices)}
            for each in status.reports
        ],
        "devices": {each.device: each.plain() for each in devices},
        "release": str(release),
        "onnxruntime": exported,
        "processes": pids,
        "seconds": round(seconds, 3),
    }


def _score(release: Path, test: list[str]) -> dict[str, Any]:
    """Weighted F1 of the release in a process of its own, which has onnxruntime and no torch."""
    command = [sys.executable, "-m", "mekt", "score", "--json", "--release", str(release), "--recordings", *test]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why, entry = catalogue.unmarked(done.stderr.strip())
        raise ended(done.returncode, f"the release could not be scored: {why}", entry)
    scores: dict[str, Any] = json.loads(done.stdout)
    return scores
