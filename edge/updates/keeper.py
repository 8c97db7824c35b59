"""A wearable's keeper of releases: it says what is run, and changes that over the air (`edge/updates/worker.py`).

Whoever recognises activities asks `look` now and then, and is never kept waiting: the updates have a thread of their
own. The trial of a new release goes by what `saw`, `sensed` and `failed` tell.
"""

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from edge.runtime import Decisions
from edge.updates.handover import Handover
from edge.updates.settings import UpdateSettings
from edge.updates.worker import STOP_S, Updating
from export.release import Release
from mekt import catalogue
from mekt.errors import MektError, ReleaseError
from mekt.process import LOOP_S, Stop, only_process
from sensors.source import Floats


class Keeper:
    """Says what to run. One thread, that of the wearable's loop, uses it."""

    def __init__(self, settings: UpdateSettings, base: Path) -> None:
        """Take up what is there; paths are relative to `base`.

        Raises:
            SettingsError: when the settings cannot work.
            StateError: when another process has the state folder, or it cannot be read.
        """
        self._handover = Handover()
        self._stack = contextlib.ExitStack()
        try:
            folder = self._stack.enter_context(only_process(base / settings.state))
            self._updating = Updating(settings, base, folder, self._handover)
        except BaseException:
            self._stack.close()
            raise
        self._thread = threading.Thread(target=self._updating.run, name="mekt-updates", daemon=True)
        self._thread.start()

    def wait(self, stop: Stop) -> bool:
        """Wait for the first release of all, where none has come yet; False where the end is asked for before."""
        while self._handover.current() is None and not stop.requested:
            time.sleep(LOOP_S)
        return not stop.requested

    def current(self) -> Release:
        """What to run now, every byte of it verified.

        Raises:
            ReleaseError: when there is none: the first is still to come (`wait`), or none is left that works.
        """
        release = self._handover.current()
        if release is None:
            raise ReleaseError(
                "no release has come over the air yet; ship one on the coordinator: mekt release promote",
                catalogue.RELEASE_MISSING,
            )
        return release

    def look(self, now_s: float) -> Release | None:
        """Another release that is to be run from now on, new or former, or None; `now_s` is monotonic. Never blocks."""
        return self._handover.take(now_s)

    def sensed(self) -> None:
        """The sensors gave something: a release that makes no window of it is found out. Never blocks."""
        self._handover.sensed()

    def saw(self, arrays: Mapping[str, Floats], decisions: Decisions, latency_ms: float) -> None:
        """The release at work gave these windows as sensed, per modality (N, T, ...), their classes. Never blocks."""
        self._handover.saw(arrays, decisions, latency_ms)

    def failed(self, error: BaseException) -> None:
        """The release at work raised this. Run what `look` gives now; where that is None, there is nothing else."""
        # It is none for these sensors or settings, which says nothing against it elsewhere.
        is_unfit = isinstance(error, MektError) and (
            not isinstance(error, ReleaseError) or error.entry == catalogue.RELEASE_HAS_NO_CLASSIFIER
        )
        self._handover.failed("unfit" if is_unfit else "does-not-run")

    def close(self, *, is_fault: bool = False) -> None:
        """End. Where nobody asked for that, as where a process ends without this, it may be the release's fault."""
        self._updating.stop(is_fault=is_fault)
        self._thread.join(4 * STOP_S)
        self._stack.close()
