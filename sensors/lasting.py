"""A source that fails is opened again: its failure is a gap, and told once."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from mekt.errors import SensorError
from sensors.source import Gap, Item, Source

log = logging.getLogger(__name__)


class Lasting:
    """Reads a source, which need not be there yet, and may go and come back; it is opened again every `retry_s`."""

    def __init__(
        self,
        source: Source,
        retry_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """Nothing is opened before it is read."""
        self._source, self._retry_s, self._clock, self._wait = source, retry_s, clock, wait
        self._gap = Gap(modalities=tuple(each.name for each in source.modalities))
        self._is_open = False
        self._retry_at_s = float("-inf")
        self._problem = ""

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """What the source gives; a gap where it failed, nothing while it cannot be opened, None when it has ended."""
        left_s = self._retry_at_s - self._clock()
        if left_s > 0:
            self._wait(min(left_s, timeout_s))
            return ()
        try:
            if not self._is_open:
                self._source.open()
                self._is_open = True
            items = self._source.read(timeout_s)
        except Exception as error:  # a driver may raise anything
            self._tell(error)
            was_open = self._is_open
            self.close()
            self._retry_at_s = self._clock() + self._retry_s
            return (self._gap,) if was_open else ()
        self._problem = "" if items else self._problem
        return items

    def close(self) -> None:
        """Let the source go."""
        self._is_open = False
        with contextlib.suppress(Exception):
            self._source.close()

    def _tell(self, error: Exception) -> None:
        """Once for as long as the reason is the same."""
        expected = isinstance(error, SensorError)
        problem = str(error) if expected else f"{type(error).__name__}: {error}"
        if problem != self._problem:
            log.error("%s; trying again every %g s", problem, self._retry_s, exc_info=None if expected else error)
        self._problem = problem
