"""Sources read side by side: none waits for another, one that fails comes back, and a reader ends when asked to."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from edge.wearable.readers import Together
from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.source import Block, Gap, Item

WAIT_S = 10.0


class Script:
    """A source that gives what is written down, call by call: items, an error, or a wait until `may_go`."""

    def __init__(self, name: str, *calls: Sequence[Item] | Exception | None) -> None:
        self.modalities: tuple[Modality, ...] = (Modality(name=name, shape=(1,), rate_hz=1.0, unit=""),)
        self.opened = self.closed = 0
        self.may_go = threading.Event()
        self._calls = list(calls)

    def open(self) -> None:
        self.opened += 1
        if self.opened == 1 and self._calls and isinstance(self._calls[0], OSError):
            raise self._calls.pop(0)  # type: ignore[misc]

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        if not self._calls:
            return None
        call = self._calls.pop(0)
        if call is None:
            self.may_go.wait(WAIT_S)
            return ()
        if isinstance(call, Exception):
            raise call
        return call

    def close(self) -> None:
        self.closed += 1
        raise OSError("a driver that fails at the end too")


def block(name: str, t_s: float) -> Block:
    return Block(modality=name, t_s=np.array([t_s]), values=np.zeros((1, 1), dtype=np.float32))


def read_all(together: Together) -> list[str]:
    """Names of the blocks, behind a bar where there is a gap, until all have ended."""
    out = []
    while (items := together.read(WAIT_S)) is not None:
        out += [f"|{item.modalities[0]}" if isinstance(item, Gap) else item.modality for item in items]
    return out


def test_a_silent_source_keeps_no_other_waiting_and_the_end_is_that_of_all() -> None:
    silent, other = Script("a", None, [block("a", 3)]), Script("b", [block("b", 0)], [block("b", 1)])
    together = Together([silent, other])
    together.open()
    first = [together.read(WAIT_S), together.read(WAIT_S)]
    assert [item.modality for items in first for item in items or () if isinstance(item, Block)] == ["b", "b"]
    silent.may_go.set()
    assert read_all(together) == ["a"]
    together.close()
    assert silent.closed == other.closed == 1


def test_a_source_that_fails_however_it_does_is_opened_again_behind_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    faults = SensorError("unplugged"), SensorError("unplugged"), ZeroDivisionError("a driver's own")
    source = Script("a", OSError("not there"), [block("a", 0)], *faults, [block("a", 9)])
    together = Together([source], retry_s=0.0)
    together.open()
    assert read_all(together) == ["a", "|a", "|a", "|a", "a"]
    together.close()
    assert source.opened == source.closed == 5
    told = [each.message.split(";")[0] for each in caplog.records]
    assert told == ["OSError: not there", "unplugged", "ZeroDivisionError: a driver's own"]


def test_closing_ends_a_source_that_waits_to_be_opened_again() -> None:
    source = Script("a", OSError("not there"), [block("a", 0)])
    before = set(threading.enumerate())
    together = Together([source], retry_s=3600.0)
    together.open()
    assert together.read(0.0) == ()
    together.close()
    assert set(threading.enumerate()) <= before
    assert source.opened <= 1
