"""`mekt chaos`: the proof that `kill -9` at any step changes nothing.

A small federation runs undisturbed; then it runs again, with the same seed, while its coordinator, its devices and its
broker are killed at moments that are drawn, and started again. Every release and every model must be the same to the
byte. What started the parts again is no help to them: it does what a service manager does.
"""

import contextlib
import json
import queue
import re
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from mekt import catalogue
from mekt.broker import Broker
from mekt.errors import LinkError, MektError
from mekt.files import make_folder
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import Envelope
from mekt.parts import Parts, fresh_folder, parts_in
from mekt.plan import derived_seed
from mekt.post import Post
from mekt.process import Stop
from mekt.scenes import FEDERATION, Scene, Work, choose_scene, write_settings
from mekt.strikes import (
    BROKER,
    CLOSINGS,
    COORDINATOR,
    STEPS,
    Moment,
    Standing,
    Strike,
    draw_strikes,
    is_work,
    speaker_of,
)
from mekt.topics import ROOT, Direction, parse_topic
from mekt.verdict import HEADING, Played, Struck, closing_step, differences, hashes, results, summary

Memory = Literal["persistent", "forgetful"]
# A round that takes seconds, and ends only when every device has delivered: else which one comes late would decide.
SMALL = Work(
    device_persons=1,
    test_persons=2,
    sensed_s=900.0,
    recorded_s=240.0,
    proxy_windows=64,
    windows={"whole_source": True, "capacity": 256},
    method={"local_epochs": 2, "distil_epochs": 4, "knowledge_rows": 128},
    deadline_s=3600.0,
)
# So long after the last kill or the end of a round, the next round's end has to be there.
PATIENCE_S = 300.0
LISTEN_S = 0.1
CLOSE_LOOK_S = 0.002
# What a service manager waits before it starts again what ended because the broker was away.
RESTART_S = 0.5
# The clients of a broker that was started come back within about this time.
BROKER_START_S = 2.0
LINES_SHOWN = 3
LOGIN = re.compile(r"New client connected from \S+ as (\S+) \(")

Say = Callable[[str], None]


class ChaosError(MektError):
    """The federation stands still."""


def run_chaos(
    *,
    kills: int,
    seed: int,
    rounds: int | None,
    agents: int,
    brokers: Sequence[Memory],
    data: Path | None,
    out: Path | None,
    port: int,
    secure: bool,
    as_json: bool,
    stop: Stop,
) -> int:
    """Run the federation undisturbed, and disturbed with each kind of broker; 0 when all ends alike, else 1.

    `kills` is shared out over the disturbed runs; `rounds` follow from it when they are None.

    Raises:
        MektError: when a part cannot start, ends by itself, or the federation stands still.
    """
    folder = fresh_folder(out, "chaos")

    def say(text: str) -> None:
        print(text, file=sys.stderr if as_json else sys.stdout, flush=True)

    shares = [kills // len(brokers) + (index < kills % len(brokers)) for index in range(len(brokers))]
    rounds = rounds or max(2, *shares)
    work = replace(SMALL, secure=secure)
    scene = choose_scene(folder, data=data, agents=agents, seed=seed, work=work)
    say(f"Learning from {scene.title}. All that is made goes to {folder}.")
    say(f"undisturbed: {rounds} rounds, {agents} devices")
    stage = _Stage(scene, rounds=rounds, agents=agents, seed=seed, port=port, work=work, say=say, stop=stop)
    reference = stage.play(folder / "undisturbed", None, ())
    say(f"  took {reference.seconds:.0f} s, {len(reference.files)} files to compare")
    runs: dict[str, Played] = {}
    for memory, share in zip(brokers, shares, strict=True):
        say(f"\n{memory} broker: {share} kills\n{HEADING}")
        own_seed = derived_seed(seed, "strikes", memory)
        strikes = draw_strikes(share, rounds=rounds, devices=tuple(scene.devices), seed=own_seed)
        runs[memory] = stage.play(folder / memory, reference.standing, strikes, persistent=memory == "persistent")
        found = differences(reference.files, runs[memory].files)
        same = f"all {len(reference.files)} files are the same to the byte" if not found else "; ".join(found)
        say(f"  took {runs[memory].seconds:.0f} s: {same}")
    identical = all(each.files == reference.files for each in runs.values())
    struck = [each for run in runs.values() for each in run.struck]
    for line in summary(struck, sum(run.restarts for run in runs.values())):
        say(line)
    say("verdict: " + ("identical" if identical else f"DIFFERENT; compare the folders in {folder}"))
    if as_json:
        print(json.dumps(results(seed, rounds, agents, reference, runs, identical)))
    return 0 if identical else 1


class _Stage:
    """All that is the same for every run."""

    def __init__(
        self, scene: Scene, *, rounds: int, agents: int, seed: int, port: int, work: Work, say: Say, stop: Stop
    ) -> None:
        self.scene, self.rounds, self.say, self.stop = scene, rounds, say, stop
        self._agents, self._seed, self._port, self._work = agents, seed, port, work

    def play(
        self, folder: Path, reference: Standing | None, strikes: Sequence[Strike], *, persistent: bool = False
    ) -> Played:
        """One run in `folder`. How long steps last is known from the `reference`."""
        broker = Broker(make_folder(folder) / "broker", port=self._port, persistent=persistent, kind="mosquitto")
        with broker, parts_in(folder) as parts:
            sizes = {"rounds": self.rounds, "agents": self._agents, "seed": self._seed}
            write_settings(folder, self.scene, **sizes, port=broker.port, work=self._work)
            with contextlib.closing(_Run(self, folder, broker, parts)) as run:
                return run.play(reference, strikes)


class _Run:
    """A federation at work, and who kills its parts."""

    def __init__(self, stage: _Stage, folder: Path, broker: Broker, parts: Parts) -> None:
        self._stage, self._folder, self._broker, self._parts = stage, folder, broker, parts
        self._names = (COORDINATOR, *stage.scene.devices)
        self._logins = _Logins(broker.folder / "broker.log")
        self._began_s = self._looked_at_s = time.monotonic()
        self._still_s = 0.0
        self._moment: tuple[int, frozenset[str]] = (0, frozenset())
        self._standing = Standing(began_s=self._began_s)
        self._ears: _Ears | None = None
        # Who was killed and is not started again; who has not logged in since a kill of the same or of the broker; who
        # was killed and not heard since; when the last of the killed was back.
        self._down: set[str] = set()
        self._absent: set[str] = set()
        self._silent: set[str] = set()
        self._back_at_s = 0.0
        self._restart_at_s: dict[str, float] = {}
        self._restarts = 0
        self._struck: list[Struck] = []

    def close(self) -> None:
        """Listen no more."""
        if self._ears is not None:
            self._ears.close()
            self._ears = None

    def play(self, reference: Standing | None, strikes: Sequence[Strike]) -> Played:
        """From the start until all rounds are done and all strikes too."""
        self._ears = _Ears(self._broker.port)
        self._parts.start(COORDINATOR, "coordinator", "run", "--config", str(self._folder / "federation.toml"))
        for name in self._names[1:]:
            self._parts.start(name, "edge", "run", "--config", str(self._folder / name / "device.toml"))
        left = deque(strikes)
        while left or not self._standing.is_finished:
            if left and left[0].is_due(self._standing.moment(left[0].witness), self._stage.rounds):
                strike, lengths = left.popleft(), reference or self._standing
                self._approach(strike, lengths)
                self._strike(strike, lengths.start_up_s)
            else:
                self._listen(LISTEN_S)
        return Played(
            files=hashes(self._folder),
            standing=self._standing,
            struck=tuple(self._struck),
            restarts=self._restarts,
            seconds=time.monotonic() - self._began_s,
        )

    # Killing and starting

    def _approach(self, strike: Strike, lengths: Standing) -> None:
        """From the step's beginning until the moment within it."""
        length_s = lengths.length_s(strike.step)
        if strike.moment == (0, STEPS.index("opening")):
            self._wait(strike.share * lengths.start_up_s)
        elif strike.closing == CLOSINGS[0]:
            self._wait(strike.share * length_s)
        else:
            wanted, state, number = CLOSINGS.index(strike.closing), self._folder / "state", self._standing.round
            ends_s = time.monotonic() + 2 * length_s
            # An export takes some milliseconds.
            while time.monotonic() < ends_s and CLOSINGS.index(closing_step(state, number)) < wanted:
                self._listen(CLOSE_LOOK_S)

    def _strike(self, strike: Strike, start_up_s: float) -> None:
        at_s, self._still_s = time.monotonic(), 0.0
        moment = self._standing.moment(strike.witness)
        for name in strike.victims:
            self._kill(name)
        number, step = self._met(moment)
        self._wait(strike.pause_s)
        started_s = self._start(strike.victims)
        if strike.again is not None:
            self._wait(strike.again * (BROKER_START_S if strike.victims[0] == BROKER else start_up_s))
            self._kill(strike.victims[0])
            self._wait(strike.pause_s)
            started_s = self._start(strike.victims[:1])
        back_s, on_s = self._recovered(strike.victims, started_s)
        struck = Struck(
            at_s=at_s - self._began_s,
            round=number,
            step=step,
            victims=strike.victims,
            again=strike.again is not None,
            away_s=started_s - at_s,
            back_s=back_s,
            on_s=on_s,
        )
        self._struck.append(struck)
        self._stage.say(struck.line())

    def _kill(self, name: str) -> None:
        if name == BROKER:
            self.close()
            self._broker.kill()
            self._take_logins()
            self._absent.update(self._names)
        else:
            self._down.add(name)
            self._parts.kill(name)
            self._standing.forget(name)
            self._take_logins()
            self._absent.add(name)
            self._silent.add(name)

    def _start(self, names: Sequence[str]) -> float:
        """Start them again; when."""
        started_s = time.monotonic()
        for name in names:
            if name == BROKER:
                self._broker.start()
                self._ears = _Ears(self._broker.port)
                self._back_at_s = time.monotonic()
            else:
                self._down.discard(name)
                self._parts.start_again(name)
        return started_s

    def _met(self, moment: Moment) -> tuple[int, str]:
        """Round and step of a strike; what the coordinator was at, its files tell better than its messages."""
        number, index = moment
        if self._standing.is_finished:
            return number - 1, "finished"
        if STEPS[index] == "distilling":
            return number, closing_step(self._folder / "state", number)
        return number, STEPS[index]

    def _recovered(self, victims: Sequence[str], started_s: float) -> tuple[float, float]:
        """Wait until the round goes on; the seconds until all victims were back, and from then on."""
        # A killed device that the round waits for has to work itself; else anybody's work will do.
        workers = set(victims) & self._standing.waiting_for
        goes_on = False
        while True:
            envelope = self._listen(LISTEN_S)
            if envelope is not None and is_work(envelope) and not self._silent:
                goes_on = goes_on or not workers or envelope.device in workers
            if not self._absent and (goes_on or self._standing.is_finished):
                return self._back_at_s - started_s, time.monotonic() - self._back_at_s

    # Listening

    def _wait(self, seconds: float) -> None:
        """Go on listening for so long."""
        ends_s = time.monotonic() + seconds
        while (left_s := ends_s - time.monotonic()) > 0:
            self._listen(min(left_s, LISTEN_S))

    def _listen(self, timeout_s: float) -> Envelope | None:
        """The next message of the federation, if one comes in time; meanwhile see that all is in order.

        Raises:
            KeyboardInterrupt: when this process was asked to end.
            ChaosError: when the federation stands still.
            MektError: when a part ended by itself.
        """
        if self._stage.stop.requested:
            raise KeyboardInterrupt
        self._supervise()
        heard = None
        if self._ears is None:
            time.sleep(timeout_s)
        else:
            heard = self._ears.hear(timeout_s)
        now_s = time.monotonic()
        self._take_logins()
        if heard is not None:
            envelope, direction = heard
            self._standing.take(envelope, now_s)
            speaker = speaker_of(envelope, direction)
            if speaker not in self._absent:
                self._silent.discard(speaker)
        moment = (self._standing.round, self._standing.waiting_for)
        # A machine that slept, or another program had to itself, is no federation that stands still.
        self._still_s = 0.0 if moment != self._moment else self._still_s + min(now_s - self._looked_at_s, 1.0)
        self._moment, self._looked_at_s = moment, now_s
        if self._still_s > PATIENCE_S:
            raise ChaosError(self._still(), catalogue.STANDS_STILL)
        return None if heard is None else heard[0]

    def _take_logins(self) -> None:
        for name in self._logins.read():
            self._absent.discard(name)
            if name in self._silent:
                self._back_at_s = time.monotonic()

    def _supervise(self) -> None:
        """Start again what gave up because the broker was away; anything else must not end by itself."""
        now_s = time.monotonic()
        for name, code in self._parts.ended().items():
            if name in self._down:
                continue
            if code != LinkError.exit_code:
                raise self._parts.failure(name)
            if now_s >= self._restart_at_s.setdefault(name, now_s + RESTART_S):
                del self._restart_at_s[name]
                self._restarts += 1
                self._parts.start_again(name)

    def _still(self) -> str:
        standing = self._standing
        late = ", ".join(sorted(standing.waiting_for)) or "nobody"
        logs = [f"{name}: {line}" for name in self._names for line in self._parts.last_lines(name, LINES_SHOWN)]
        head = f"round {standing.round + 1} stands still for {PATIENCE_S:g} s, waiting for {late}"
        return "\n".join([f"{head}; the logs in {self._folder / 'logs'} end with:", *logs])


class _Ears:
    """A connection that hears all that the federation says."""

    def __init__(self, port: int) -> None:
        self._inbox: queue.Queue[Any] = queue.Queue(4096)
        self._post = Post(FEDERATION)
        self._link = Link(
            settings=BrokerSettings(port=port),
            client_id=f"mekt:{FEDERATION}:chaos:{secrets.token_hex(6)}",
            inbox=self._inbox,
            subscriptions=(f"{ROOT}/{FEDERATION}/#",),
            keeps_session=False,
        )
        self._link.start()

    def close(self) -> None:
        """Disconnect."""
        self._link.stop(1.0)

    def hear(self, timeout_s: float) -> tuple[Envelope, Direction] | None:
        """The next message and its direction, if one comes in time. What the broker had kept may be old: it is none."""
        try:
            event = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if not isinstance(event, Received) or event.retained:
            return None
        envelope, topic = self._post.open(event), parse_topic(event.topic)
        return None if envelope is None or topic is None else (envelope, topic.direction)


class _Logins:
    """Who logs in, as the broker's log has it: messages would tell only who is heard by somebody who is there first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def read(self) -> list[str]:
        """Who logged in since this was asked last."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read().rpartition(b"\n")
        self._read_bytes += len(whole[0]) + len(whole[1])
        ids = LOGIN.findall(whole[0].decode(errors="replace"))
        return [each.removeprefix(f"mekt:{FEDERATION}").removeprefix(":") or COORDINATOR for each in ids]
