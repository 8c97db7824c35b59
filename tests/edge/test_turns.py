"""Sources that take turns: in order, together at gaps, and closed whatever happens."""

from collections.abc import Sequence

import numpy as np
import pytest

from edge.turns import Turns
from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.source import Block, Gap, Item

GAP = Gap(modalities=())


class Script:
    """A source that gives what is written down, call by call; a text stands for a failure."""

    def __init__(self, name: str, *calls: Sequence[Item] | str) -> None:
        self.modalities: tuple[Modality, ...] = (Modality(name=name, shape=(1,), rate_hz=1.0, unit=""),)
        self.is_open = False
        self._calls = list(calls)

    def open(self) -> None:
        if self._calls and self._calls[0] == "not there":
            raise SensorError("not there")
        self.is_open = True

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        if not self._calls:
            return None
        call = self._calls.pop(0)
        if isinstance(call, str):
            raise SensorError(call)
        return call

    def close(self) -> None:
        self.is_open = False


def block(name: str, *t_s: float) -> Block:
    return Block(modality=name, t_s=np.array(t_s), values=np.zeros((len(t_s), 1), dtype=np.float32))


def played(*sources: Script) -> list[str]:
    """What comes out until the end: a name and a time for each block, a bar for each gap."""
    turns = Turns(sources)
    turns.open()
    out: list[str] = []
    while (items := turns.read(0.0)) is not None:
        out += ["|" if isinstance(item, Gap) else f"{item.modality}{item.t_s[0]:g}" for item in items]
    turns.close()
    assert not any(source.is_open for source in sources)
    return out


def test_a_source_alone_is_as_it_is() -> None:
    items: list[Item] = [GAP, block("a", 0), block("a", 2), GAP, block("a", 1)]
    assert played(Script("a", items[:2], (), items[2:])) == ["|", "a0", "a2", "|", "a1"]


def test_the_earliest_comes_first_however_far_a_source_reads_ahead() -> None:
    one = Script("a", [block("a", t) for t in range(6)])
    other = Script("b", [block("b", 0.5)], [block("b", 1.5), block("b", 4.5)], (), [block("b", 7)])
    assert played(one, other) == ["a0", "b0.5", "a1", "b1.5", "a2", "a3", "a4", "b4.5", "a5", "b7"]


def test_a_source_that_says_nothing_keeps_the_others_waiting_until_it_ends() -> None:
    one, other = Script("a", [block("a", 0), block("a", 1)]), Script("b", (), ())
    turns = Turns([one, other])
    turns.open()
    assert turns.read(0.0) == []
    assert turns.read(0.0) == []
    rest = turns.read(0.0)
    assert rest is not None
    assert len(rest) == 2
    assert turns.read(0.0) is None


def test_gaps_come_together() -> None:
    one = Script("a", [GAP, block("a", 0), GAP, block("a", 0), block("a", 1)])
    other = Script("b", [GAP, block("b", 0), block("b", 5), GAP, block("b", 0.5)])
    assert played(one, other) == ["|", "|", "a0", "b0", "b5", "|", "|", "a0", "b0.5", "a1"]


def test_a_gap_of_one_waits_only_as_long_as_the_other_goes_on() -> None:
    one = Script("a", [block("a", 0), GAP, block("a", 9)])
    other = Script("b", [block("b", 1), block("b", 2)])
    assert played(one, other) == ["a0", "b1", "b2", "|", "a9"]


def test_times_that_go_back_and_empty_blocks_keep_their_place() -> None:
    one = Script("a", [block("a", 3), block("a", 1), block("a", 4)])
    other = Script("b", [block("b", 2), block("b", 3.5)])
    assert played(one, other) == ["b2", "a3", "a1", "b3.5", "a4"]
    empty = Turns([Script("a", [block("a", 1), block("a"), block("a", 2)])])
    empty.open()
    assert [len(item.t_s) for item in empty.read(0.0) or () if isinstance(item, Block)] == [1, 0, 1]


def test_all_modalities_are_there_in_order() -> None:
    assert [each.name for each in Turns([Script("b"), Script("a")]).modalities] == ["b", "a"]


def test_when_one_is_not_there_the_others_are_closed_again() -> None:
    one, other = Script("a"), Script("b", "not there")
    with pytest.raises(SensorError, match="not there"):
        Turns([one, other]).open()
    assert not one.is_open


def test_a_failure_is_passed_on() -> None:
    turns = Turns([Script("a", [block("a", 0)]), Script("b", "unplugged")])
    turns.open()
    with pytest.raises(SensorError, match="unplugged"):
        turns.read(0.0)


def test_what_is_opened_again_begins_again_even_where_it_had_ended() -> None:
    one, other = Script("a", [block("a", 0)]), Script("b", [block("b", 1)], (), "unplugged")
    turns = Turns([one, other])
    turns.open()
    with pytest.raises(SensorError, match="unplugged"):
        while True:
            turns.read(0.0)
    turns.close()
    one._calls, other._calls = [[block("a", 0)]], [[block("b", 1)]]
    turns.open()
    given = [*(turns.read(0.0) or ()), *(turns.read(0.0) or ())]
    assert [item.modality for item in given if isinstance(item, Block)] == ["a", "b"]
