"""A wearable's keeper of releases: it says what is run, and changes that over the air (`edge/updates/worker.py`).

Whoever recognises activities asks `look` now and then, and is never kept waiting: the updates have a thread of their
own. The trial of a new release goes by what `saw`, `sensed` and `failed` tell.
"""

import contextlib
import logging
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

log = logging.getLogger(__name__)


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
            folder = self._stack.enter_context(only_process(base / settings.state, may_be_read_only=True))
            self._updating = Updating(settings, base, folder, self._handover)
        except BaseException:
            self._stack.close()
            raise
        self._thread = threading.Thread(target=self._updating.run, name="mekt-updates", daemon=True)
        self._thread.start()

    def wait(self, stop: Stop) -> bool:
        """Wait for the first release of all, where none has come yet; False where the end is asked for before."""
        if self._handover.is_empty:
            log.info("no release has come yet; waiting for the first that is promoted to this wearable")
        while self._handover.is_empty and not stop.requested:
            time.sleep(LOOP_S)
        return not stop.requested

    def look(self, now_s: float) -> Release | None:
        """A release that is to be run from now on, every byte of it verified, or None where that is the one at work.

        Each is given away, and none but the first (`wait`) is waited for. `now_s` is monotonic. Never blocks.
        """
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
