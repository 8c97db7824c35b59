"""The daemon of a wearable: what it senses becomes decisions, as long as it runs: `mekt infer --config`.

    from edge.wearable.daemon import run_wearable
    from mekt.process import Stop

    with Stop().on_signals() as stop:
        run_wearable(Path("wearable.toml"), stop=stop, callback=lambda told: print(told.decision.label))

Between windows nothing runs: sources are read on threads of their own, which wait in their drivers, and the loop waits
for what they give. A trouble is logged once, and the loop goes on with what is left: a source that fails is opened
again, a modality that stops is done without until it is back, a broker that is away is dialled again. Nothing but the
end of all sources, a signal or a fault of Mekt's own ends it.

Where updates are wanted, a keeper says which release to run; it has the loop's windows for its self-tests.
"""

import contextlib
import logging
import queue
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from edge.runtime import Decisions
from edge.wearable.decisions import Decision
from edge.wearable.fitted import Fitted, fitted
from edge.wearable.readers import INBOX_EVENTS, RETRY_S, Readers, Sensed, SourceEnded
from edge.wearable.recogniser import Recognised
from edge.wearable.settings import WearableSettings, read_wearable
from edge.wearable.telling import Telling, Told
from export.release import Release, read_trusted_release
from mekt import catalogue
from mekt.errors import MektError, ReleaseError, SensorError
from mekt.process import Stop
from mekt.standin import put_off
from sensors.source import Block, Floats

if TYPE_CHECKING:
    from edge.wearable.broadcast import Broadcast

log = logging.getLogger(__name__)

# How long the keeper is not asked while nothing is sensed.
LOOK_S = 5.0
# Of how many troubles it is remembered that they were logged.
MOST_PROBLEMS = 64


class Keeper(Protocol):
    """Who knows which release is to run. It never blocks, and its memory is bounded."""

    def look(self, now_s: float) -> Release | None:
        """Asked at first, between windows and while waiting: another release to run from now on, or None.

        It is given away: a release holds the bytes of its models, and is forgotten once there are sessions of them.
        """

    def sensed(self) -> None:
        """The sensors gave something, whether or not a window comes of it."""

    def saw(self, arrays: Mapping[str, Floats], decisions: Decisions, latency_ms: float) -> None:
        """One window, what was said of it, and how long that took."""

    def failed(self, error: Exception) -> None:
        """The release at work could not be loaded, or failed at a window."""

    def close(self, *, is_fault: bool = False) -> None:
        """The loop ends, because of an error of its own or because somebody wants that."""


class OneRelease:
    """A keeper of the release in a file, which stays what it is."""

    def __init__(self, release: Release) -> None:
        self._release: Release | None = release

    def look(self, now_s: float) -> Release | None:
        """That one at first, and no other."""
        release, self._release = self._release, None
        return release

    def sensed(self) -> None:
        """Nobody wants to know."""

    def saw(self, arrays: Mapping[str, Floats], decisions: Decisions, latency_ms: float) -> None:
        """Nobody wants to know."""

    def failed(self, error: Exception) -> None:
        """There is no other to run."""

    def close(self, *, is_fault: bool = False) -> None:
        """Nothing is to be done."""


def run_wearable(
    config: Path,
    *,
    stop: Stop,
    callback: Callable[[Told], None] | None = None,
    keeper: Keeper | None = None,
    out: TextIO | None = None,
) -> int:
    """Run what the settings file `config` describes until `stop` or the end of all sources; the exit code.

    Decisions go to `callback` too, on the thread that calls this. `keeper` stands for `[release]` or `[updates]`. Where
    the first release is still to come over the air, it is waited for.

    Raises:
        SettingsError: when the settings cannot work, with this release or at all.
        ReleaseError: when the release is damaged or has no classifier for what is sensed.
        SensorError: when no sensor has what the release knows, or one gives it in another shape or unit.
    """
    # Paho imports them for proxies and for names of its own, which it has no use for here: 1.6 MB.
    put_off("urllib.request")
    put_off("uuid")
    settings = read_wearable(config)
    if keeper is None and settings.updates is not None:
        # Only here: it brings along what it takes to speak to a broker.
        from edge.updates.keeper import Keeper as Updates

        keeper = updates = Updates(settings.updates, config.parent)
        if not updates.wait(stop):
            updates.close()
            return 0
    if keeper is None:
        assert settings.release is not None, "one of both is there"
        trust = settings.release.trust
        keeper = OneRelease(read_trusted_release(Path(settings.release.file), None if trust is None else Path(trust)))
    told: list[Callable[[Told], None]] = [] if callback is None else [callback]
    if settings.stdout:
        stream = sys.stdout if out is None else out
        told.append(lambda each: print(each.json_line(), file=stream, flush=True))
    is_fault = False
    try:
        Wearable(settings, config.parent, keeper, stop, told).run()
    except Exception as error:
        # Whoever reads what it says may have enough.
        is_fault = not isinstance(error, BrokenPipeError)
        raise
    finally:
        keeper.close(is_fault=is_fault)
    return 0


class Wearable:
    """The loop. `tellers` are called with all that it says."""

    def __init__(
        self,
        settings: WearableSettings,
        base: Path,
        keeper: Keeper,
        stop: Stop,
        tellers: Sequence[Callable[[Told], None]] = (),
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        """Open nothing yet.

        Raises:
            MektError: when the settings, the sensors and the release do not go together.
        """
        self._settings, self._base, self._keeper, self._stop = settings, base, keeper, stop
        self._inbox: queue.Queue[Any] = queue.Queue(INBOX_EVENTS)
        self._problems: set[str] = set()
        release = keeper.look(time.monotonic())
        if release is None:
            raise ReleaseError(
                "no release has come over the air yet; ship one on the coordinator: mekt release promote",
                catalogue.RELEASE_MISSING,
            )
        self._fitted = self._first(release)
        log.info("running %s", self._fitted.name)
        self._retry_s = retry_s
        self._readers, self._reading = self._made_readers()
        self._broadcast = self._made_broadcast()
        self._tellers = [*tellers, *(() if self._broadcast is None else (self._broadcast.tell,))]
        self._telling = Telling(settings.repeat_s)
        self._window_at_s = time.monotonic()
        self._is_silent = False

    def _first(self, release: Release) -> Fitted:
        """This release, or the one that the keeper has for it when it cannot be run."""
        try:
            return fitted(release, self._settings, self._base)
        except Exception as error:  # a driver, onnxruntime: anything
            self._keeper.failed(error)
            former = self._keeper.look(time.monotonic())
            if former is None:
                raise
            log.error("the release cannot be run: %s", error)
            return fitted(former, self._settings, self._base)

    def _made_readers(self) -> tuple[Readers, int]:
        sources = self._fitted.sources
        return Readers(sources, self._inbox, retry_s=self._retry_s), len(sources)

    def _made_broadcast(self) -> "Broadcast | None":
        settings = self._settings
        if settings.publish is None and settings.home_assistant is None:
            return None
        # Only here: whoever speaks to no broker needs no paho, which takes memory.
        from edge.wearable.broadcast import Broadcast
        from mekt.login import BrokerSettings

        broker = settings.broker or BrokerSettings()
        return Broadcast(broker, self._inbox, publish=settings.publish, home=self._fitted.home)

    def run(self) -> None:
        """Until the end."""
        self._stop.then = lambda: self._inbox.put(None)
        self._readers.start()
        if self._broadcast is not None:
            self._broadcast.start()
        try:
            while not self._stop.requested and self._reading:
                with contextlib.suppress(queue.Empty):
                    self._take(self._inbox.get(timeout=self._patience_s()))
                self._look_around(time.monotonic())
            if not self._reading:
                self._recognise(self._fitted.recogniser.finish())
        finally:
            self._stop.then = None
            self._readers.stop()
            if self._broadcast is not None:
                self._broadcast.stop()

    def _take(self, event: Any) -> None:
        match event:
            case Sensed(by=by) | SourceEnded(by=by) if by is not self._readers:
                pass  # of the release before, which had other sources
            case Sensed(items=items):
                if any(isinstance(item, Block) for item in items):
                    self._keeper.sensed()
                for item in items:
                    self._recognise(self._fitted.recogniser.feed(item))
            case SourceEnded():
                self._reading -= 1
            case None:
                pass  # somebody wants the loop to look around
            case _:
                if self._broadcast is not None:
                    self._broadcast.heard(event)

    def _recognise(self, windows: Iterator[Recognised]) -> None:
        while (each := self._next(windows)) is not None:
            self._take_in(*each)

    def _next(self, windows: Iterator[Recognised]) -> tuple[Recognised, Decision] | None:
        try:
            found = next(windows, None)
            if found is not None:
                ends_s = found.start_s + self._fitted.recogniser.window.window_s
                return found, self._fitted.decider.feed(ends_s, found.decisions.probabilities[0])
        except SensorError as error:
            # Samples that are none of their modality's, which no release is to blame for.
            self._complain("a window is passed over", error)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            self._complain("a window is passed over", error)
            self._keeper.failed(error)
        return None

    def _take_in(self, found: Recognised, decision: Decision) -> None:
        self._window_at_s = time.monotonic()
        if self._is_silent:
            log.info("there are windows again")
            self._is_silent = False
        decisions = found.decisions
        self._keeper.saw(found.arrays, decisions, found.latency_ms)
        self._tell(decision, decisions.modalities, found.latency_ms)

    def _look_around(self, now_s: float) -> None:
        """What is due by the time, and what the keeper wants."""
        if not self._is_silent and now_s - self._window_at_s >= self._fitted.silent_s:
            self._is_silent = True
            log.warning("no window for %.0f s: nothing is sensed that the release knows", now_s - self._window_at_s)
            if self._telling.latest is not None:
                self._tell(self._fitted.decider.lapse(), (), 0.0)
        self._say(self._telling.again(now_s))
        release = self._keeper.look(now_s)
        if release is not None:
            self._switch(release)

    def _patience_s(self) -> float:
        """How long nothing is due."""
        now_s = time.monotonic()
        due_s = min(now_s + LOOK_S, self._telling.due_s)
        if not self._is_silent:
            due_s = min(due_s, self._window_at_s + self._fitted.silent_s)
        return max(0.0, due_s - now_s)

    def _tell(self, decision: Decision, modalities: tuple[str, ...], latency_ms: float) -> None:
        now_s, wall_s = time.monotonic(), time.time()
        self._say(self._telling.tell(decision, modalities, latency_ms, now_s=now_s, wall_s=wall_s))

    def _say(self, told: Told | None) -> None:
        if told is None:
            return
        for teller in self._tellers:
            try:
                teller(told)
            except BrokenPipeError:
                raise  # whoever read it has enough
            except Exception as error:  # a callback, a disk that is full: the others are told all the same
                self._complain("not told", error)

    def _complain(self, what: str, error: Exception) -> None:
        """Of each trouble once, in the first words that it has."""
        text = f"{type(error).__name__}: {error}"[:200]
        if text not in self._problems and len(self._problems) < MOST_PROBLEMS:
            self._problems.add(text)
            log.error("%s: %s", what, error, exc_info=None if isinstance(error, MektError) else error)

    def _switch(self, release: Release) -> None:
        """Run this release from now on; where that cannot be, the former goes on."""
        former = self._fitted
        try:
            self._fitted = fitted(release, self._settings, self._base, former)
        except Exception as error:  # a driver, onnxruntime: anything
            log.error("the release cannot be run: %s", error)
            self._keeper.failed(error)
            return
        log.info("running %s", self._fitted.name)
        if self._fitted.sources is not former.sources:
            self._readers.stop()
            self._readers, self._reading = self._made_readers()
            self._readers.start()
        if self._broadcast is not None:
            self._broadcast.renew(self._fitted.home)
