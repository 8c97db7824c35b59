"""The last mile with every part a process, and kills: `python -m tests.proofs.rollout`, or `make rollout`.

An authority is made, a broker that lets nobody in without a certificate of it, and everybody is enrolled, by the
commands that people give. A small federation learns; then its releases go to wearables over the air while they say what
their wearers do: the first one to all, the second to canaries first while coordinator, wearables and broker are killed
with SIGKILL in mid fetch, self-test and trial; a bad one, which must reach nobody but canaries; a third one, under
which a canary ends again and again, and without that to all; back from it by command; and once more to canaries, of
which one dies and is sent away. Meanwhile every wearable's certificate is in its last third, and is renewed. What came
of it is asked of `mekt status`, `mekt release list` and `mekt device list`. docs/proofs.md has a run.
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edge.updates.slots import RECORD, RELEASES
from export.bundle import pack
from export.manifest import MANIFEST, FileEntry, pack_manifest
from export.release import read_release
from mekt.clock import DEVICE_DAYS
from mekt.errors import LinkError
from mekt.messages import unpack
from mekt.parts import Parts, parts_in
from mekt.share import share_for, takes_part
from mekt.strikes import BROKER, COORDINATOR
from tests.proofs.enrolled import NAME as FEDERATION
from tests.proofs.enrolled import Enrolled, enrolled, said
from tests.recordings import persons

DEVICES = {"pi-acc": ("acc",), "pi-gyro": ("gyro",)}
ROUNDS = 3
METHOD = "knowledge_rows = 128\nfollow_epochs = 1"
WEARABLES, CANARIES, LEAST = 6, 3, 2
FIRST_WEARER = 11
BAD = 9
# Recordings are played so many times as fast: a window each eighth of a second.
SPEED = 10
TRIAL_S = 4.0
# What a few small rounds have learned may well be worse, which is not what this is about.
PROMOTE = ("release", "promote", "--even-if-worse")
# How long after its beginning a phase is struck at most, in seconds.
PHASES = {"fetching": 0.02, "testing": 1.0, "trial": TRIAL_S / 2}
WEARABLE = "wearable"
LONGEST_PAUSE_S = 1.0
MOST_FILES = 3
# A wearable's start to its first decision, on a busy machine; so long decisions may stop, and no longer.
RESTART_S = 15.0
# What a service manager waits.
AGAIN_S = 0.5
PATIENCE_S = 120.0
LOOK_S = 0.002
LAST_LINES = 5


class ProofError(Exception):
    """What should be so is not."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A kill of `victim`, or of the witness itself, when a wearable has been at `phase` for `after_s`."""

    phase: str
    victim: str
    after_s: float
    pause_s: float


def draw(seed: int) -> list[Strike]:
    """Every phase with every victim, in an order and at moments that are drawn."""
    rng = np.random.default_rng(seed)
    every = list(product(PHASES, (COORDINATOR, WEARABLE, BROKER)))
    return [
        Strike(
            phase=phase,
            victim=victim,
            after_s=float(rng.uniform(0, PHASES[phase])),
            pause_s=float(rng.uniform(0, LONGEST_PAUSE_S)),
        )
        for phase, victim in (every[index] for index in rng.permutation(len(every)))
    ]


@dataclass
class Diary:
    """When a wearable said something, as its log has it: seconds between two lines, and from a start to the first."""

    path: Path
    read_bytes: int = 0
    lines: int = 0
    said_s: float | None = None
    was_killed: bool = False
    pauses_s: list[float] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)

    def look(self, now_s: float) -> None:
        """Take in what was said since."""
        with self.path.open("rb") as file:
            file.seek(self.read_bytes)
            data = file.read()
        count = data.count(b'{"time"')
        self.read_bytes += len(data)
        if not count:
            return
        if self.said_s is not None:
            (self.starts_s if self.was_killed else self.pauses_s).append(now_s - self.said_s)
        self.lines, self.said_s, self.was_killed = self.lines + count, now_s, False

    def started(self, now_s: float) -> None:
        """It was killed, and is started again."""
        if self.said_s is not None:
            self.said_s, self.was_killed = now_s, True


class Stage:
    """All parts at work, and who kills them."""

    def __init__(self, place: Enrolled, parts: Parts, names: Sequence[str]) -> None:
        self.place, self.made, self.parts, self.names = place, place.made, parts, names
        self.config = place.config
        # Who is dead, and is to stay so for a while.
        self.dead: set[str] = set()
        self.diaries: dict[str, Diary] = {}
        self.fetched: dict[str, set[str]] = {name: set() for name in names}
        self._phases: dict[str, tuple[int, str]] = {}
        self._since_s: dict[str, float] = {}
        self._again_at_s: dict[str, float] = {}
        self.restarts = 0

    # Parts

    def start(self) -> None:
        """The coordinator, and all wearables."""
        self.parts.start(COORDINATOR, "coordinator", "run", "--config", str(self.config))
        for name in self.names:
            self.parts.start(name, "infer", "--config", str(self.made.folder / name / "wearable.toml"))
            self.diaries[name] = Diary(self.parts.log_path(name))

    def kill(self, name: str) -> None:
        """End it as a power cut would."""
        if name == BROKER:
            self.made.broker.kill()
        else:
            self.parts.kill(name)

    def bring_back(self, name: str, pause_s: float) -> None:
        """Start it again after a while."""
        self._wait(pause_s, without=name)
        if name == BROKER:
            self.made.broker.start()
        else:
            self._start_again(name)

    def _start_again(self, name: str) -> None:
        self.parts.start_again(name)
        if name in self.diaries:
            self.diaries[name].started(time.monotonic())

    # Looking on

    def look(self, *, without: str | None = None) -> None:
        """See what everybody is at. Only the coordinator ends by itself: when the broker is away while it starts."""
        now_s = time.monotonic()
        for name, code in self.parts.ended().items():
            if name == without or name in self.dead:
                continue
            if code != LinkError.exit_code or name != COORDINATOR:
                raise self.parts.failure(name)
            if now_s >= self._again_at_s.setdefault(name, now_s + AGAIN_S):
                del self._again_at_s[name]
                self.restarts += 1
                self.parts.start_again(name)
        for name in self.names:
            self.diaries[name].look(now_s)
            there = {each.name for each in self._releases(name).iterdir() if len(each.name) == 64}
            self.fetched[name] |= there
            if len(there) > MOST_FILES:
                raise ProofError(f"{name} keeps {len(there)} releases")
            at = self.phase(name)
            if self._phases.get(name) != at:
                self._phases[name], self._since_s[name] = at, now_s

    def phase(self, name: str) -> tuple[int, str]:
        """The number of the rollout that a wearable is at, and how far it is, as its disk has it."""
        state = self._record(name)
        return state.get("number", 0), state.get("phase", "running")

    def _record(self, name: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = unpack((self.made.folder / name / "state" / RECORD).read_bytes()[32:])["state"]
        except FileNotFoundError:
            return {}
        return record

    def _releases(self, name: str) -> Path:
        folder = self.made.folder / name / "state" / RELEASES
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _wait(self, seconds: float, *, without: str | None = None) -> None:
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            self.look(without=without)
            time.sleep(LOOK_S)

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Look on until that is so."""
        began_s = time.monotonic()
        while not is_so():
            self.look()
            time.sleep(LOOK_S)
            if time.monotonic() - began_s > PATIENCE_S:
                raise ProofError(f"not within {PATIENCE_S:g} s: {what}\n{self.last_words()}")
        print(f"  {what}: after {time.monotonic() - began_s:.1f} s", flush=True)

    def all_are(self, number: int, *phases: str) -> bool:
        """Whether every wearable has come so far with this rollout."""
        alive = [name for name in self.names if name not in self.dead]
        return all(self.phase(name)[0] == number and self.phase(name)[1] in phases for name in alive)

    def mekt(self, *arguments: str) -> Any:
        """What a command says as JSON."""
        with self.begun(*arguments) as command:
            return command()

    @contextlib.contextmanager
    def begun(self, *arguments: str) -> Iterator[Callable[[], Any]]:
        """The same of a command that has begun: called, it waits for its end."""
        command = [sys.executable, "-m", "mekt", *arguments, "--config", str(self.config), "--json"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)

            def said() -> Any:
                while process.poll() is None:
                    self.look()
                    time.sleep(LOOK_S)
                out.seek(0)
                text = out.read().decode()
                if process.returncode:
                    raise ProofError(f"mekt {' '.join(arguments)} ended with {process.returncode}: {text}")
                return json.loads(text.splitlines()[-1])

            yield said

    def rollout(self) -> dict[str, Any]:
        """Where the newest rollout stands, by `mekt status`."""
        told: dict[str, Any] = self.mekt("status")["status"]["rollout"]
        return told

    def told(self, what: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask `mekt status` until it says so."""
        ends_s = time.monotonic() + PATIENCE_S
        while not is_so(status := self.rollout()):
            if time.monotonic() > ends_s:
                raise ProofError(f"mekt status does not say that {what}: {status}\n{self.last_words()}")
        print(f"  mekt status: {what}: {status['text']}", flush=True)
        return status

    def listed(self) -> dict[str, dict[str, Any]]:
        """What `mekt release list` says of each release's rollout."""
        return {row["release"]: row.get("rollout", {}) for row in self.mekt("release", "list")}

    def last_words(self) -> str:
        """The ends of all logs."""
        names = (COORDINATOR, *self.names)
        return "\n".join(f"{name}: {line}" for name in names for line in self.parts.last_lines(name, LAST_LINES))

    # Killing

    def end_again_and_again(self, name: str, number: int) -> int:
        """Kill this wearable, on trial, as soon as it has started, until it goes back by itself; how often."""
        kills = 0
        while self.phase(name) == (number, "trial"):
            starts = self._record(name)["starts"]
            self.kill(name)
            self.bring_back(name, 0.0)
            kills += 1
            ends_s = time.monotonic() + PATIENCE_S
            while self.phase(name) == (number, "trial") and self._record(name)["starts"] == starts:
                self.look()
                time.sleep(LOOK_S)
                if time.monotonic() > ends_s:
                    raise ProofError(f"{name} does not start again\n{self.last_words()}")
        return kills

    def missed(self, number: int, strikes: Sequence[Strike]) -> list[Strike]:
        """Strike while this rollout goes on; what met nobody at its phase. No wearable is met twice at one."""
        left = list(strikes)
        touched: set[tuple[str, str]] = set()
        began_s = time.monotonic()
        while left and time.monotonic() - began_s < PATIENCE_S and not self.all_are(number, "good"):
            self.look()
            for name in self.names:
                at, phase = self.phase(name)
                due = [each for each in left if each.phase == phase and at == number and (name, phase) not in touched]
                if not due:
                    continue
                strike = due[0]
                touched.add((name, phase))
                self._wait(strike.after_s - (time.monotonic() - self._since_s.get(name, time.monotonic())))
                if self.phase(name) != (number, phase):
                    continue
                victim = name if strike.victim == WEARABLE else strike.victim
                self.kill(victim)
                is_met = self.phase(name) == (number, phase)
                self.bring_back(victim, strike.pause_s)
                print(f"  killed {victim} while {name} was {phase}, away for {strike.pause_s:.1f} s", flush=True)
                if is_met:
                    left.remove(strike)
                break
            time.sleep(LOOK_S)
        return left


def permuted(path: Path, into: Path) -> None:
    """A release like that in the file `path`, but every classifier takes each class for the next one."""
    release = read_release(path)
    models, entries = dict(release.models), dict(release.manifest.files)
    for classifier in release.manifest.classifiers.values():
        model = onnx.load_from_string(models[classifier.file])
        count = len(release.manifest.labels)
        for tensor in model.graph.initializer:
            if count in tensor.dims:
                weight = numpy_helper.to_array(tensor)
                turned = np.roll(weight, 1, axis=list(tensor.dims).index(count))
                tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))
        data = model.SerializeToString()
        models[classifier.file] = data
        entries[classifier.file] = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    manifest = replace(release.manifest, files=entries, round=BAD)
    into.write_bytes(pack({**models, MANIFEST: pack_manifest(manifest)}))


def set_up(folder: Path, names: Sequence[str], stack: contextlib.ExitStack) -> Enrolled:
    """A federation that has learned, everybody enrolled, and the settings of the wearables; the broker runs."""
    recordings = folder / "recordings"
    recordings.mkdir()
    rules = f"[rollout]\nleast = {LEAST}\nfailures = 1"
    place = enrolled(folder, recordings, more=rules, devices=DEVICES, rounds=ROUNDS, method=METHOD)
    stack.callback(place.made.end)
    place.made.start(COORDINATOR)
    for name in DEVICES:
        place.enrol(name)
        place.made.start(name)
    for index, name in enumerate(names):
        played = persons(recordings, [FIRST_WEARER + index], 240.0) * 40
        (folder / name).mkdir()
        (folder / name / "wearable.toml").write_text(
            f"repeat_s = 0\n"
            f"{place.enrol(name, wearable=True)}"
            f'[[sensors]]\nkind = "replay"\nmodalities = ["acc", "gyro"]\nspeed = {SPEED}\n'
            f"recordings = {json.dumps(played)}\n"
            f"[updates.self_test]\nclasses_s = 20.0\n[updates.trial]\nhours = {TRIAL_S / 3600}\n"
        )
    place.until_finished()
    place.made.stop()
    place.age(names, DEVICE_DAYS * 0.7)
    return place


def play(stage: Stage, seed: int) -> None:
    """All of it."""
    names = [f"{FEDERATION}-{number:05d}" for number in (1, 2, 3, BAD)]
    first, second, third, bad = names
    everybody = len(stage.names)

    def share(number: int) -> str:
        """Of so many canaries."""
        return str(share_for(FEDERATION, number, stage.names, CANARIES))

    print("the first release, to all", flush=True)
    stage.mekt(*PROMOTE, first, "--now")
    stage.until(lambda: stage.all_are(1, "good"), "all call it good")
    stage.told("all run it", lambda told: told["wearables"] == {first: everybody})

    print("the second one, to canaries first, while parts are killed", flush=True)
    # A fetch is over in a moment, before the command has ended that it follows on.
    with stage.begun(*PROMOTE, second, "--share", share(2)) as promoted:
        missed = stage.missed(2, draw(seed))
        promoted()
    stage.until(lambda: stage.all_are(2, "good"), "all call it good")
    stage.told("all run it", lambda told: told["wearables"] == {second: everybody} and told["share"] == 1)

    print("a bad one: every class taken for the next, and signed as it should be", flush=True)
    releases = stage.config.parent / "state" / "releases"
    permuted(releases / f"{third}.zip", releases / f"{bad}.zip")
    before = {name: set(seen) for name, seen in stage.fetched.items()}
    stage.mekt(*PROMOTE, bad, "--share", share(3))
    stage.told("it is taken back", lambda told: told["number"] == 4 and told["release"] == second)
    stage.until(lambda: stage.all_are(4, "good"), "all run the former one")
    met_by = [name for name, seen in stage.fetched.items() if seen - before[name]]
    rollout = stage.listed()[bad]
    print(f"  fetched by {len(met_by)} of {CANARIES} canaries; mekt release list: {rollout['reason']}")
    if rollout["state"] != "stopped" or rollout["share"] == 1 or not 0 < len(met_by) <= CANARIES:
        raise ProofError(f"the bad release went to {met_by}: {rollout}")

    print("the third one, to canaries, under which the process of one ends again and again", flush=True)
    few = share(5)
    stage.mekt(*PROMOTE, third, "--share", few)
    canary = next(name for name in stage.names if takes_part(FEDERATION, 5, name, float(few)))
    stage.until(lambda: stage.phase(canary) == (5, "trial"), f"{canary} tries it")
    print(f"  {canary} goes back after {stage.end_again_and_again(canary, 5)} kills", flush=True)
    stage.told("it is taken back", lambda told: told["number"] == 6 and told["release"] == second)
    stage.until(lambda: stage.all_are(6, "good"), "all run the former one")
    reason = stage.listed()[third]["reason"]
    if f"{canary}: crashed" not in reason:
        raise ProofError(f"mekt release list: {reason}")

    print("the same without that, to all; and back, by command", flush=True)
    with stage.begun(*PROMOTE, third, "--now") as promoted:
        missed = stage.missed(7, missed)
        promoted()
    if missed:
        never = ", ".join(f"{each.victim} while {each.phase}" for each in missed)
        raise ProofError(f"the rollouts were over before these were killed: {never}; try another seed")
    stage.until(lambda: stage.all_are(7, "good"), "all call it good")
    before = {name: set(seen) for name, seen in stage.fetched.items()}
    stage.mekt("release", "rollback")
    stage.until(lambda: stage.all_are(8, "good"), "all are back")
    if stage.fetched != before:
        raise ProofError("a release was fetched to go back to one that was still there")
    stage.told("all run the second one", lambda told: told["wearables"] == {second: everybody})
    listed = stage.listed()
    runs = [name for name, each in listed.items() if each.get("runs")]
    if runs != [second] or listed[third]["state"] != "stopped":
        raise ProofError(f"mekt release list: {listed}")

    print("once more to canaries, of which one dies; it is waited for until it is sent away", flush=True)
    few = share(9)
    stage.mekt(*PROMOTE, third, "--share", few)
    canary = next(name for name in stage.names if takes_part(FEDERATION, 9, name, float(few)))
    stage.until(lambda: stage.phase(canary) == (9, "trial"), f"{canary} tries it")
    stage.dead.add(canary)
    stage.kill(canary)
    stage.told(f"all canaries but {canary} are done", lambda told: told["states"].get("good") == CANARIES - 1)
    if stage.rollout()["state"] != "canary":
        raise ProofError(f"{canary} is not waited for")
    said(stage.made.folder, "device", "revoke", canary)
    stage.told("all others run it", lambda told: told["share"] == 1 and told["wearables"] == {third: everybody - 1})
    stage.dead.remove(canary)
    stage.bring_back(canary, 0.0)
    stage.until(lambda: stage.phase(canary) == (9, "good"), f"{canary} goes on with what it has, by itself")
    lines = stage.diaries[canary].lines
    stage.until(lambda: stage.diaries[canary].lines > lines, f"{canary} says what its wearer does, sent away as it is")

    states = stage.place.certificates()
    others = {name: states[name] for name in stage.names if name != canary}
    print(f"  certificates of {canary}: {states[canary]}, of the others: {others}", flush=True)
    for name in stage.names:
        if set(states[name]) != {"revoked" if name == canary else "good"} or len(states[name]) < 2:
            raise ProofError(f"mekt device list: {name}: {states[name]}; a wearable's certificate was not renewed")


def shown(stage: Stage, seconds: float) -> None:
    """What was measured, and whether decisions went on."""
    pauses = {name: max(each.pauses_s) for name, each in stage.diaries.items()}
    starts = [each for diary in stage.diaries.values() for each in diary.starts_s]
    lines = sum(each.lines for each in stage.diaries.values())
    print(f"{lines:,} decisions; the longest time between two, where nobody was killed: {max(pauses.values()):.1f} s")
    if starts:
        print(f"a wearable's start to its next decision: median {median(starts):.1f} s, longest {max(starts):.1f} s")
    files = {name: len(list((stage.made.folder / name / "state" / RELEASES).iterdir())) for name in stage.names}
    print(
        f"releases on each wearable's disk: {sorted(files.values())}; the coordinator started again: {stage.restarts}"
    )
    print(f"took {seconds:.0f} s", flush=True)
    if max(files.values()) > MOST_FILES:
        raise ProofError(f"too many files: {files}")
    if max([*pauses.values(), *starts]) > RESTART_S:
        raise ProofError(f"decisions stopped for more than {RESTART_S:g} s")


def main() -> int:
    """Run it; 1 when something is not as it should be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="an empty folder that is kept")
    options = parser.parse_args()
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        if options.out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mekt-rollout-")))
        else:
            folder = options.out.absolute()
            folder.mkdir(parents=True)
        names = [f"watch-{number}" for number in range(1, WEARABLES + 1)]
        place = set_up(folder, names, stack)
        print(f"enrolment, {ROUNDS} rounds of {len(DEVICES)} devices: {time.monotonic() - began_s:.0f} s", flush=True)
        stage = Stage(place, stack.enter_context(parts_in(folder)), names)
        stage.start()
        try:
            play(stage, options.seed)
            shown(stage, time.monotonic() - began_s)
        except ProofError as error:
            print(f"NOT PROVED: {error}", flush=True)
            return 1
    print("proved", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
