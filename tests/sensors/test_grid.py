"""Windows of those modalities that are there: what each source's gaps, holes and silences cost, and nothing more."""

import itertools
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mekt.modality import Modality, WindowSpec
from sensors.grid import Grid, decide
from sensors.source import Block, Gap, Item, Seconds
from sensors.track import HOLE_PERIODS, HOLE_S, LAG_S, SLACK_S, Track
from sensors.windows import Window, Windower

KINDS = {
    each.name: each
    for each in (
        Modality(name="acc", shape=(1,), rate_hz=10, unit="g"),
        Modality(name="mag", shape=(1,), rate_hz=4, unit="uT"),
        Modality(name="depth", shape=(2, 2), rate_hz=5, unit="m"),
    )
}
SPEC = WindowSpec(window_s=1, stride_s=0.5)
WAIT_S = 2.0
EVERY_SET = [set(names) for count in (3, 2, 1) for names in itertools.combinations(KINDS, count)]
SETS: list[list[set[str]]] = [
    [set(KINDS)],
    EVERY_SET,
    [set(KINDS), {"acc"}, {"depth"}],
    [{"acc", "mag"}, {"depth"}],
    [{"depth"}, {"acc", "depth"}, {"mag"}],
]


def windower(sets: Sequence[Collection[str]] = (), wait_s: float = WAIT_S) -> Windower:
    return Windower(list(KINDS.values()), SPEC, sets=sets, wait_s=wait_s)


def block(name: str, *t_s: float) -> Block:
    """Samples whose values are their times."""
    times = np.array(t_s)
    values = times.reshape(-1, *[1] * len(KINDS[name].shape)) * np.ones(KINDS[name].shape)
    return Block(modality=name, t_s=times, values=values.astype(np.float32))


def span(name: str, begin_s: float, end_s: float) -> Block:
    return block(name, *np.arange(begin_s, end_s - 1e-9, 1 / KINDS[name].rate_hz).tolist())


def gap(*names: str) -> Gap:
    return Gap(modalities=names)


def fed(made: Windower, *items: Item) -> list[tuple[float, str]]:
    """Of the windows that come: when each begins, and the first letters of what it has."""
    return [told(window) for item in items for window in made.feed(item)]


def told(window: Window) -> tuple[float, str]:
    assert window.arrays.keys() == window.quality.keys()
    return round(window.start_s, 6), "".join(sorted(name[0] for name in window.arrays))


def test_a_gap_of_one_modality_costs_the_others_nothing() -> None:
    made = windower(EVERY_SET)
    items: list[Item] = [span(name, t_s, t_s + 0.5) for t_s in np.arange(0, 6, 0.5).tolist() for name in KINDS]
    items.insert(18, gap("depth"))
    # The window at 2.5 s lies across the gap, and that at 2 s ends with the last frame before it.
    whole = [(k / 2, "am" if k == 5 else "adm") for k in range(11)]
    assert fed(made, *items, gap(*KINDS)) == whole


def test_a_gap_of_one_modality_costs_only_the_windows_across_it_where_all_are_needed() -> None:
    made = windower()
    items = [span(name, 0, 3) for name in KINDS] + [gap("depth")] + [span(name, 3, 6) for name in KINDS]
    assert [start_s for start_s, _ in fed(made, *items)] == [0, 0.5, 1, 1.5, 2, 3, 3.5, 4, 4.5, 5]


def test_when_all_have_begun_anew_so_does_the_grid() -> None:
    made = windower()
    first = fed(made, *(span(name, 0, 2) for name in KINDS), *(gap(name) for name in KINDS))
    assert first == [(0, "adm"), (0.5, "adm"), (1, "adm")]
    assert fed(made, *(span(name, 0.3, 2) for name in KINDS)) == [(0.3, "adm"), (0.8, "adm")]


def test_a_modality_that_stops_is_waited_for_once_and_taken_up_again() -> None:
    made = windower(EVERY_SET)
    whole = fed(made, *(span(name, 0, 3) for name in KINDS))
    assert whole[-1] == (2, "adm")
    quick = [span(name, t_s, t_s + 0.5) for t_s in np.arange(3, 6, 0.5).tolist() for name in ("acc", "mag")]
    # The window at 2.5 s ends at 3.5 s; from 5.5 s on it is not waited for depth any longer.
    assert fed(made, *quick[:10]) == []
    assert fed(made, *quick[10:]) == [(t_s, "am") for t_s in (2.5, 3, 3.5, 4, 4.5, 5)]
    # What is lost is not waited for again.
    assert fed(made, span("acc", 6, 6.5), span("mag", 6, 6.5)) == [(5.5, "am")]
    assert fed(made, span("depth", 6.2, 7), span("acc", 6.5, 7), span("mag", 6.5, 7)) == [(6, "am")]
    assert fed(made, *(span(name, 7, 8) for name in KINDS)) == [(6.5, "adm"), (7, "adm")]


def test_what_cannot_come_any_more_is_not_waited_for() -> None:
    made = windower(EVERY_SET)
    fed(made, *(span(name, 0, 3) for name in KINDS))
    assert fed(made, span("acc", 3, 3.5), span("mag", 3, 3.5)) == []
    assert fed(made, gap("depth")) == [(2.5, "am")]
    assert fed(made, span("acc", 3.5, 4), span("mag", 3.5, 4)) == [], "it may begin anew right there"


def test_a_window_waits_only_for_what_would_be_preferred() -> None:
    made = windower([{"acc"}, {"acc", "depth"}, {"depth"}])
    fed(made, *(span(name, 0, 0.6) for name in KINDS))
    assert fed(made, span("acc", 0.6, 2)) == [(0, "a"), (0.5, "a"), (1, "a")]


def test_a_window_within_a_hole_is_not_waited_for_once_the_hole_is_known() -> None:
    made = windower(EVERY_SET, LAG_S)
    fed(made, *(span(name, 0, 3) for name in KINDS), span("acc", 3, 7), span("mag", 3, 7))
    # Those at 4.5 s and later may have depth again.
    assert fed(made, block("depth", 4.3)) == [(t_s, "am") for t_s in (2.5, 3, 3.5, 4)]


def test_a_window_between_a_gap_and_what_comes_next_is_not_waited_for() -> None:
    made = windower(EVERY_SET, LAG_S)
    fed(made, *(span(name, 0, 3) for name in KINDS), span("acc", 3, 7), span("mag", 3, 7), gap("depth"))
    assert fed(made, block("depth", 3.05)) == [(3, "am")]


@given(
    st.sampled_from([0.0, 0.1, 1e3 / 3, 1.7e9]),
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([-SLACK_S, 0, SLACK_S]), st.integers(-2, 2)), max_size=30),
)
def test_windows_are_those_that_a_look_at_each_of_them_finds_however_times_are_rounded(
    origin_s: float, places: list[tuple[int, float, int]]
) -> None:
    kind, stride_s = KINDS["acc"], 0.1
    track, grid = Track(kind, 3, LAG_S), Grid(origin_s=origin_s, stride_s=stride_s)
    t_s = [grid.start_s(place) + slack_s for place, slack_s, _ in sorted(places)]
    for row, (_, _, steps) in enumerate(sorted(places)):
        for _ in range(abs(steps)):
            t_s[row] = math.nextafter(t_s[row], math.copysign(math.inf, steps))
    track.append(np.array(t_s), np.zeros((len(t_s), 1), np.float32))
    made = decide(grid, {"acc": track}, [frozenset({"acc"})], 0, -math.inf)
    windows = np.arange(made.stop)
    assert made.windows.tolist() == windows[track.covers(grid.starts_s(windows))].tolist()
    assert not track.covers(grid.starts_s(np.arange(made.stop, 50))).any()


def test_at_the_end_all_is_given_that_waited() -> None:
    made = windower(EVERY_SET)
    assert fed(made, span("acc", 0, 2.2)) == []
    assert fed(made, gap("acc")) == [(0, "a"), (0.5, "a"), (1, "a")]


def test_a_modality_that_comes_late_for_the_first_time_does_not_keep_the_others_for_long() -> None:
    made = windower(EVERY_SET)
    assert fed(made, span("acc", 0.1, 3.1)) == []
    assert fed(made, block("acc", 3.1, 3.2)) == [(0.1, "a"), (0.6, "a"), (1.1, "a"), (1.6, "a"), (2.1, "a")]
    assert fed(made, span("depth", 2.9, 5), span("acc", 3.3, 5)) == [(2.6, "a"), (3.1, "ad"), (3.6, "ad")]


def test_the_windows_before_the_preferred_modalities_begin_are_given_too() -> None:
    made = windower([{"acc", "mag", "depth"}, {"acc"}])
    items = [span("acc", 0, 2.5), span("mag", 1.2, 2.5), span("depth", 1.0, 2.5)]
    assert fed(made, *items, gap(*KINDS)) == [(0.2, "a"), (0.7, "a"), (1.2, "adm")]


def test_a_clock_that_is_set_back_begins_all_anew_and_gives_what_waited() -> None:
    made = windower(EVERY_SET)
    assert fed(made, span("acc", 100, 102)) == []
    assert fed(made, span("acc", 7, 8.05)) == [(100, "a"), (100.5, "a"), (101, "a")]
    assert fed(made, gap("acc")) == [(7, "a")]


def test_a_clock_that_leaps_ahead_by_ten_thousand_years_costs_no_more_than_any() -> None:
    made = windower(EVERY_SET)
    given_now = fed(made, *(span(name, 0, 3) for name in KINDS), block("acc", 9e11), span("mag", 3, 6))
    assert given_now == [(t_s / 2, "adm") for t_s in range(5)] + [(t_s / 2, "m") for t_s in range(5, 11)]


# What follows holds for everything that sources do.


@st.composite
def streams(draw: st.DrawFn) -> dict[str, Seconds]:
    """Per modality the times of a sensor with jitter, lost samples, holes, silences; some never come."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    made: dict[str, Seconds] = {}
    for name, kind in KINDS.items():
        t_s = np.cumsum(rng.normal(1, 0.1, int(draw(st.sampled_from([4, 12, 20])) * kind.rate_hz))) / kind.rate_hz
        t_s += draw(st.sampled_from([0, 0.3, 1.7, 4]))
        kept = rng.random(len(t_s)) >= draw(st.sampled_from([0, 0.02, 0.2]))
        for begin_s, length_s in draw(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 8)), max_size=2)):
            kept &= (t_s < begin_s) | (t_s > begin_s + length_s)
        made[name] = t_s[kept & draw(st.sampled_from([True, True, True, False]))].round(3)
    return made


Stretches = dict[str, list[Seconds]]


def stretches(draw: Any, streams_s: dict[str, Seconds]) -> Stretches:
    """The streams cut at gaps that their sources tell."""
    borders = {name: sorted(draw(st.lists(st.integers(0, len(t_s)), max_size=2))) for name, t_s in streams_s.items()}
    return {name: np.split(t_s, borders[name]) for name, t_s in streams_s.items()}


def items_of(draw: Any, parts: Stretches, block_s: float) -> dict[str, list[Item]]:
    """What each source gives, in blocks of up to `block_s`."""
    items: dict[str, list[Item]] = {name: [] for name in parts}
    for name, cut in parts.items():
        for number, t_s in enumerate(cut):
            if number:
                items[name].append(gap(name))
            for piece in np.split(t_s, np.flatnonzero(np.diff(np.floor(t_s / block_s))) + 1):
                if len(piece):
                    items[name].append(block(name, *piece.tolist()))
    return items


def in_order(items: dict[str, list[Item]]) -> list[Item]:
    """The items in the order in which their last samples were taken; a gap comes before what follows it."""

    def keyed(each: list[Item]) -> list[tuple[float, int, Item]]:
        keys, next_s = [], math.inf
        for place in range(len(each) - 1, -1, -1):
            item = each[place]
            next_s = float(item.t_s[-1]) if isinstance(item, Block) else next_s
            keys.append((next_s, place, item))
        return keys

    return [item for _, _, item in sorted((key for each in items.values() for key in keyed(each)), key=lambda k: k[:2])]


def grids(items: Sequence[Item]) -> list[list[Item]]:
    """The items cut behind each gap at which nothing has come of any modality since its own last one."""
    made: list[list[Item]] = [[]]
    there: set[str] = set()
    for item in items:
        made[-1].append(item)
        if isinstance(item, Block):
            there.add(item.modality)
        else:
            there -= set(item.modalities)
            if not there:
                made.append([])
    return made


def parts_of(items: Sequence[Item]) -> Stretches:
    """The samples of each modality, in stretches without a gap."""
    parts: Stretches = {name: [np.empty(0)] for name in KINDS}
    for item in items:
        for name in KINDS:
            if isinstance(item, Block) and item.modality == name:
                parts[name][-1] = np.concatenate([parts[name][-1], item.t_s])
            elif isinstance(item, Gap) and name in item.modalities and len(parts[name][-1]):
                parts[name].append(np.empty(0))
    return parts


def covers(kind: Modality, parts: Sequence[Seconds], start_s: float) -> bool:
    """By the definition: all the window's grid points lie between samples of one stretch that has no hole."""
    last_s = start_s + (SPEC.samples(kind) - 1) / kind.rate_hz
    for t_s in parts:
        inside = t_s[(t_s > start_s - 100) & (t_s < last_s + 100)]
        begins, ends = inside[inside <= start_s + SLACK_S], inside[inside >= last_s - SLACK_S]
        if len(begins) and len(ends):
            between = inside[(inside >= begins[-1]) & (inside <= ends[0])]
            return bool((np.diff(between) <= max(HOLE_PERIODS / kind.rate_hz, HOLE_S)).all())
    return False


def starts_on(grid_s: float, parts: Stretches) -> list[float]:
    """All starts on a grid that passes through `grid_s`, from before the first sample to behind the last one."""
    t_s = np.concatenate([each for cut in parts.values() for each in cut])
    first, last = (math.floor((instant_s - grid_s) / SPEC.stride_s) for instant_s in (t_s.min(), t_s.max()))
    return [round(grid_s + k * SPEC.stride_s, 6) for k in range(first, last + 1)]


def expected(parts: Stretches, sets: Sequence[set[str]], grid_s: float) -> list[tuple[float, str]]:
    found = []
    for start_s in starts_on(grid_s, parts):
        there = {name for name, cut in parts.items() if covers(KINDS[name], cut, start_s)}
        names = next((each for each in sets if each <= there), None)
        if names is not None:
            found.append((start_s, "".join(sorted(name[0] for name in names))))
    return found


@given(st.data(), streams(), st.sampled_from(SETS))
def test_of_sources_that_are_about_equally_quick_each_window_has_the_first_set_that_covers_it(
    data: st.DataObject, streams_s: dict[str, Seconds], sets: list[set[str]]
) -> None:
    made = windower(sets)
    items = in_order(items_of(data.draw, stretches(data.draw, streams_s), data.draw(st.sampled_from([0.05, 0.3, 0.7]))))
    for grid in grids([*items, gap(*KINDS)]):
        given_now, parts = fed(made, *grid), parts_of(grid)
        begins_s = [[cut[0][0] for name, cut in parts.items() if name in names and len(cut[0])] for names in sets]
        whole = [max(each) for each, names in zip(begins_s, sets, strict=True) if len(each) == len(names)]
        if given_now:
            assert given_now == expected(parts, sets, given_now[0][0])
        elif whole:
            assert expected(parts, sets, whole[0]) == []


@given(st.data(), streams(), st.sampled_from(SETS), st.sampled_from([0.0, WAIT_S, LAG_S, math.inf]))
def test_in_whatever_order_things_come_windows_are_true_and_given_once(
    data: st.DataObject, streams_s: dict[str, Seconds], sets: list[set[str]], wait_s: float
) -> None:
    parts = stretches(data.draw, streams_s)
    waiting = items_of(data.draw, parts, 0.7)
    made, given_now = windower(sets, wait_s), []
    while left := [name for name, items in waiting.items() if items]:
        given_now += fed(made, waiting[data.draw(st.sampled_from(left))].pop(0))
    given_now += fed(made, gap(*KINDS))
    for name in KINDS:
        starts_s = [start_s for start_s, letters in given_now if name[0] in letters]
        assert all(b > a for a, b in itertools.pairwise(starts_s)), "each instant of a modality lies in a window once"
    for start_s, letters in given_now:
        assert any(letters == "".join(sorted(name[0] for name in names)) for names in sets)
        for name, cut in parts.items():
            assert name[0] not in letters or covers(KINDS[name], cut, start_s)
    assert made.counts.get("made", 0) == len(given_now) and made.counts.get("hole", 0) >= 0


@settings(max_examples=50)
@given(st.data(), streams())
def test_where_all_are_needed_nobody_ever_waits_in_vain(data: st.DataObject, streams_s: dict[str, Seconds]) -> None:
    parts = {name: [t_s] for name, t_s in streams_s.items()}
    items = in_order(items_of(data.draw, parts, 0.3))
    by_default = fed(Windower(list(KINDS.values()), SPEC), *items)
    assert by_default == fed(windower([set(KINDS)], wait_s=0.0), *items)
    if by_default:
        assert by_default == expected(parts, [set(KINDS)], max(float(t_s[0]) for t_s in streams_s.values()))
