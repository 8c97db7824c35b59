"""A source that fails is opened again: its failure is a gap, and told once."""

import logging
import time
from collections.abc import Callable, Sequence

from mekt.errors import SensorError
from sensors.source import Gap, Item, Source

log = logging.getLogger(__name__)

RETRY_S = 1.0


class Lasting:
    """A source around another, which need not be there yet, and may go and come back."""

    def __init__(
        self, source: Source, *, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep
    ) -> None:
        """Nothing is opened before it is read."""
        self.modalities = source.modalities
        self._source, self._clock, self._wait = source, clock, wait
        self._gap = Gap(modalities=tuple(each.name for each in source.modalities))
        self._is_open = False
        self._retry_at_s = float("-inf")
        self._problem = ""

    def open(self) -> None:
        """Nothing is to be done: who is not there yet is opened when it is."""

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What the source gives; a gap where it failed, and nothing while it cannot be opened."""
        if self._clock() < self._retry_at_s:
            self._wait(timeout_s)
            return ()
        try:
            if not self._is_open:
                self._source.open()
                self._is_open = True
            items = self._source.read(timeout_s)
        except SensorError as error:
            if str(error) != self._problem:
                log.error("%s; trying again every %g s", error, RETRY_S)
            self._problem = str(error)
            self._source.close()
            was_open, self._is_open, self._retry_at_s = self._is_open, False, self._clock() + RETRY_S
            return (self._gap,) if was_open else ()
        self._problem = "" if items else self._problem
        return items

    def close(self) -> None:
        """Let the source go."""
        self._is_open = False
        self._source.close()
