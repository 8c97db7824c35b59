"""A wearable's updates at work: exchange, slots, arrival, self-test and trial around their state machine.

A thread of its own owns all state, and is told of everything through its inbox. Without a network, or with a disk that
takes nothing any more, what runs goes on.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.updates.arrival import Arrival
from edge.updates.exchange import Exchange
from edge.updates.handover import Failure, Handover, Saw, Sensed
from edge.updates.machine import (
    Announced,
    Arrived,
    Command,
    Damaged,
    Ended,
    Event,
    Failed,
    Fetch,
    Forget,
    Judged,
    Ran,
    Report,
    Rules,
    Run,
    Started,
    Try,
    Updates,
    Withdrawn,
    advance,
    commands_at_start,
)
from edge.updates.settings import UpdateSettings
from edge.updates.slots import Slots
from edge.updates.trial import Trial
from edge.updates.trying import Trying
from mekt import catalogue
from mekt.blobs import ChunkError
from mekt.errors import MektError, ReleaseError, StateError, WireError
from mekt.inbox import Connected, Disconnected, Received
from mekt.messages import Body, Chunk, Fitness, Rollout, Unfit
from mekt.plan import BlobRef
from mekt.process import LOOP_S, JobDone
from mekt.share import takes_part

log = logging.getLogger(__name__)

STOP_S = 2.0
REST_S = 60.0
# What a trial has run is written down this often; a power cut costs it no more.
WRITTEN_S = 30.0
# Of a trial, what a start has to be followed by so that it does not count.
PROOF_SHARE = 1 / 12
UNFIT: dict[catalogue.Entry, Unfit] = {
    catalogue.RELEASE_UNSIGNED: "unsigned",
    catalogue.RELEASE_TOO_NEW: "too-new",
}


class Updating:
    """A wearable's updates, their state in `folder`. What is to be run is in `handover` when this is made."""

    def __init__(self, settings: UpdateSettings, base: Path, folder: Path, handover: Handover) -> None:
        self._settings, self._handover, self._inbox = settings, handover, handover.inbox
        self._rules = rules_of(settings)
        self._stopping, self._is_fault = threading.Event(), False
        self._slots = Slots(folder)
        self._arrival = Arrival(folder, int(1e6 * settings.most_mb))
        self._trying = Trying(settings.self_test, self._slots, handover)
        self._trial: Trial | None = None
        # Of the release at work: before so long there cannot be a window.
        self._window_s = 0.0
        self._resting = False
        self._exchange: Exchange | None = None
        trouble: StateError | None = None
        try:
            self._exchange = Exchange(settings, base, folder, self._inbox)
        except StateError as error:
            trouble = error
        # Settings that cannot work are no fault of a release on trial: only now its start is counted.
        self._begin()
        if trouble is not None:
            self._rest(trouble)

    def stop(self, *, is_fault: bool = False) -> None:
        """Ask for the end; any thread may."""
        self._is_fault = is_fault
        self._stopping.set()
        with contextlib.suppress(queue.Full):
            self._inbox.put_nowait(None)

    def run(self) -> None:
        """Work until asked to stop."""
        try:
            if self._exchange is not None:
                self._exchange.begin()
            self._guarded(self._follow, commands_at_start(self._slots.state))
            while not self._stopping.is_set():
                with contextlib.suppress(queue.Empty):
                    # Nothing is due by the time but while a release comes or is tested.
                    patience_s = LOOP_S if self._slots.state.phase in ("fetching", "testing") else REST_S
                    self._guarded(self._handle, self._inbox.get(timeout=patience_s))
                self._guarded(self._on_time, time.monotonic())
            self._write_down(least_s=0.0)
            if not self._is_fault:
                self._advance(Ended())
        finally:
            self._trying.leave(STOP_S)
            if self._exchange is not None:
                self._exchange.stop(STOP_S)
            self._arrival.close()

    # The start

    def _begin(self) -> None:
        """Count this start, and hand over what is to be run."""
        before = self._slots.state
        if not self._advance(Started()) and before.phase == "trial" and before.good is not None:
            # Whoever cannot count starts does not try anything.
            self._hand_over(before.good)
            return
        running = self._slots.state.running
        if running is not None and self._handover.is_empty and not self._hand_over(running):
            self._advance(Damaged(blob=running))

    # What comes in

    def _guarded(self, work: Callable[[Any], None], what: Any) -> None:
        try:
            work(what)
        except StateError as error:
            self._rest(error)
        except Exception as error:
            # Mekt's own fault is none of the release at work either.
            if not isinstance(error, MektError):
                log.exception("updates stumbled")
            self._rest(error)

    def _handle(self, event: Any) -> None:
        match event:
            case Saw() | Sensed():
                self._on_trial(event)
            case Failure():
                if event.release == self._slots.state.running:
                    self._advance(Failed(why=event.why))
                event.answered.set()
            case JobDone():
                self._judge(self._trying.judged(event))
            case Connected():
                log.info("connected to the broker, MQTT %s", event.protocol)
                self._arrival.ask_again()
                self._report()
            case Disconnected(reason=reason):
                log.info("the broker is away: %s", reason)
            case Received() if self._exchange is not None:
                match self._exchange.read(event):
                    case Rollout() as rollout:
                        self._on_rollout(rollout)
                    case Chunk() as chunk:
                        self._on_chunk(chunk)
                    case None:
                        pass
            case None:
                pass  # the end is asked for
            case _:
                raise AssertionError(f"nobody puts {event!r} into the inbox")

    def _on_rollout(self, rollout: Rollout) -> None:
        settings = self._settings
        if rollout.share == 0:
            self._advance(Withdrawn(number=rollout.number))
        elif takes_part(settings.federation, rollout.number, settings.device, rollout.share):
            self._advance(Announced(number=rollout.number, blob=rollout.blob))

    def _on_chunk(self, chunk: Chunk) -> None:
        try:
            data = self._arrival.take(chunk)
        except ChunkError as error:
            if self._exchange is not None:
                self._exchange.post.reject(error.trouble, str(error))
            return
        if data is not None:
            self._on_whole(data)

    def _on_whole(self, data: bytes) -> None:
        """All bytes are there, as announced: is it a release, and signed?"""
        target = self._slots.state.target
        if target is None or self._exchange is None:
            # Without what is trusted nothing is verified.
            return
        # Not three releases and one more: what is in memory is not needed on the disk twice.
        self._arrival.forget()
        try:
            self._slots.put(data, self._exchange.trust)
        except ReleaseError as error:
            log.error("%s", error)
            self._advance(Judged(blob=target, why=UNFIT.get(error.entry, "damaged")))
        except StateError as error:
            log.error("%s", error)
            self._advance(Judged(blob=target, why="disk"))
        else:
            self._advance(Arrived(blob=target))

    def _on_trial(self, event: Saw | Sensed) -> None:
        state = self._slots.state
        if state.phase != "trial" or event.release != state.running:
            return
        if self._trial is None:
            settings = self._settings.trial
            self._trial = Trial(state.figures, replace(settings, silent_s=settings.silent_s + self._window_s))
        if isinstance(event, Saw):
            why = self._trial.saw(event.now_s, event.probability, event.latency_ms)
        else:
            why = self._trial.sensed(event.now_s)
        if why:
            self._advance(Failed(why=why))
        else:
            self._write_down(min(WRITTEN_S, self._rules.trial_s - state.ran_s))

    def _write_down(self, least_s: float) -> None:
        if self._trial is not None and self._trial.ran_s > 0 and self._trial.ran_s >= least_s:
            self._advance(Ran(seconds=self._trial.taken()))

    # What is to be done

    def _on_time(self, now_s: float) -> None:
        if self._resting or self._exchange is None:
            return
        for want in self._arrival.due(now_s, self._exchange.down_bytes):
            self._send(want)
        self._judge(self._trying.on_time(now_s))

    def _judge(self, judged: Judged | None) -> None:
        if judged is not None:
            self._advance(judged)

    def _advance(self, event: Event) -> bool:
        """One step of the state machine, durable before it is followed; False where the disk does not take it."""
        before = self._slots.state
        state, commands = advance(before, event, self._rules)
        if not self._is_kept(state):
            if isinstance(event, Failed | Damaged):
                # What cannot run does not, whether or not that can be written down.
                for command in commands:
                    if isinstance(command, Run):
                        self._hand_over(command.blob)
            return False
        if state.phase != before.phase:
            log.info("rollout %d: %s%s", state.number, state.phase, f" ({state.why})" if state.why else "")
            self._trial = None
        self._handover.on_trial = state.running if state.phase == "trial" else None
        self._follow(commands)
        return True

    def _is_kept(self, state: Updates) -> bool:
        if not self._resting:
            try:
                self._slots.keep(state)
            except StateError as error:
                self._rest(error)
        return not self._resting

    def _follow(self, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case Forget():
                    # What is fetched goes on from the chunks that have come, where that is the next command.
                    self._trying.leave(STOP_S)
                    if self._slots.state.phase != "fetching":
                        self._arrival.forget()
                case Fetch(blob=blob):
                    self._fetch(blob)
                case Try(blob=blob):
                    self._trying.begin(blob, time.monotonic())
                case Run(blob=blob):
                    if not self._hand_over(blob):
                        self._advance(Damaged(blob=blob))
                case Report():
                    self._report()

    def _fetch(self, blob: BlobRef) -> None:
        if self._slots.read(blob) is not None:
            # It was verified, and the process ended before that was written down.
            self._advance(Arrived(blob=blob))
            return
        try:
            data = self._arrival.begin(blob)
        except WireError as error:
            log.error("%s", error)
            self._advance(Judged(blob=blob, why="too-large"))
            return
        if data is not None:
            self._on_whole(data)

    def _hand_over(self, ref: BlobRef) -> bool:
        release = self._slots.read(ref)
        if release is not None:
            window = release.manifest.window
            self._window_s = max(window.window_s, window.stride_s)
            self._handover.hand_over(ref, release)
        return release is not None

    def _report(self) -> None:
        state = self._slots.state
        self._send(
            Fitness(
                running=None if state.running is None else state.running.sha256,
                number=state.number,
                state=state.phase,
                why=state.why,
                agreement_percent=state.figures.agreement_percent,
                latency_us=state.figures.latency_us,
                memory_mb=state.figures.memory_mb,
            )
        )

    def _send(self, body: Body) -> None:
        if self._exchange is not None and not self._resting:
            self._exchange.send(body)

    def _rest(self, error: Exception) -> None:
        """What cannot be written down is not done: what runs goes on, and updates rest until the next start."""
        if not self._resting:
            log.error("no updates until this is mended and the wearable restarted: %s", error)
        self._resting = True


def rules_of(settings: UpdateSettings) -> Rules:
    """Those of the trial."""
    trial_s = 3600 * settings.trial.hours
    return Rules(trial_s=trial_s, proof_s=PROOF_SHARE * trial_s, most_starts=settings.trial.most_starts)
