"""Windows out of streams: one grid for all modalities, the same however the streams are cut; labels by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import SensorError
from mekt.modality import Modality, WindowSpec
from sensors.layouts import ACC as REAL_ACC
from sensors.recording import read_recording
from sensors.source import Block, Gap, Item, Seconds
from sensors.stream import Labels, Recording, Segment, Stream, class_names
from sensors.track import LAG_S
from sensors.windows import UNLABELLED, Window, Windower, windows_of

ACC = Modality(name="acc", shape=(2,), rate_hz=10, unit="g")
MAG = Modality(name="mag", shape=(1,), rate_hz=4, unit="uT")
DEPTH = Modality(name="depth", shape=(2, 3), rate_hz=5, unit="m")
SPEC = WindowSpec(window_s=1, stride_s=0.5)
GAP = Gap(modalities=("acc", "mag", "depth"))


def block(modality: Modality, t_s: Seconds) -> Block:
    """Values that are the time itself."""
    values = t_s.reshape(-1, *[1] * len(modality.shape)) * np.ones(modality.shape)
    return Block(modality=modality.name, t_s=t_s, values=values.astype(np.float32))


def feed(windower: Windower, *items: Item) -> list[Window]:
    return [window for each in items for window in windower.feed(each)]


def starts(windows: Sequence[Window]) -> list[float]:
    return [round(window.start_s, 6) for window in windows]


def same(windows: Sequence[Window], others: Sequence[Window]) -> bool:
    return [each.start_s for each in windows] == [each.start_s for each in others] and all(
        each.arrays.keys() == other.arrays.keys()
        and each.quality == other.quality
        and all(np.array_equal(array, other.arrays[name]) for name, array in each.arrays.items())
        for each, other in zip(windows, others, strict=True)
    )


def test_modalities_of_different_rates_lie_on_one_grid() -> None:
    windower = Windower([ACC, MAG, DEPTH], SPEC)
    windows = feed(
        windower,
        block(ACC, np.arange(0, 3, 0.1)),
        block(MAG, np.arange(0.2, 3, 0.25)),
        block(DEPTH, np.arange(0.1, 3, 0.2)),
        block(ACC, np.array([3.0])),
    )
    assert starts(windows) == [0.2, 0.7, 1.2, 1.7]
    for window in windows:
        np.testing.assert_allclose(window.arrays["acc"][:, 1], window.start_s + np.arange(10) / 10, atol=1e-6)
        np.testing.assert_allclose(window.arrays["mag"][:, 0], window.start_s + np.arange(4) / 4, atol=1e-6)
        # Frames are not mixed: each is the nearest one.
        assert np.abs(window.arrays["depth"][:, 1, 2] - window.start_s - np.arange(5) / 5).max() <= 0.1 + 1e-6


def test_a_window_is_given_as_soon_as_its_last_sample_is_there() -> None:
    windower = Windower([ACC], SPEC)
    assert starts(feed(windower, block(ACC, np.arange(9) / 10))) == []
    assert starts(feed(windower, block(ACC, np.array([0.9])))) == [0]
    assert starts(feed(windower, block(ACC, np.array([1.0, 1.1, 1.2, 1.3])))) == []
    assert starts(feed(windower, block(ACC, np.array([1.4])))) == [0.5]


def test_windows_far_apart_leave_out_what_lies_between() -> None:
    windower = Windower([ACC], WindowSpec(window_s=0.5, stride_s=2))
    assert starts(feed(windower, block(ACC, np.arange(0, 7, 0.1)))) == [0, 2, 4, 6]


def test_what_the_windower_was_not_asked_for_is_passed_over() -> None:
    windower = Windower([ACC], SPEC)
    assert (
        feed(
            windower,
            block(MAG, np.arange(100.0)),
            Block(modality="?", t_s=np.zeros(1), values=np.zeros((1, 9, 9), np.float32)),
        )
        == []
    )
    assert len(feed(windower, block(ACC, np.arange(10) / 10))) == 1


def test_nothing_before_a_gap_belongs_to_what_follows() -> None:
    windower = Windower([ACC], SPEC)
    feed(windower, block(ACC, np.arange(0, 0.85, 0.1)))
    windower.feed(GAP)
    assert starts(feed(windower, block(ACC, np.arange(0.93, 2.5, 0.1)))) == [0.93, 1.43]


def test_a_hole_costs_the_windows_over_it_and_the_grid_goes_on() -> None:
    t_s = np.arange(0, 10, 0.1)
    windower = Windower([ACC, MAG], SPEC)
    windows = feed(windower, block(ACC, t_s[(t_s < 3.25) | (t_s > 5.05)]), block(MAG, np.arange(0, 10, 0.25)))
    assert starts(windows) == [0, 0.5, 1, 1.5, 2, *np.arange(5.5, 9.1, 0.5).tolist()]


def test_a_clock_that_is_set_back_acts_as_a_gap() -> None:
    windower = Windower([ACC], SPEC)
    t_s = np.concatenate([np.arange(100, 101.05, 0.1), np.arange(7.3, 8.5, 0.1)])
    assert starts(feed(windower, block(ACC, t_s))) == [100, 7.3]


def test_a_clock_that_leaps_ahead_for_one_sample_costs_only_the_windows_around_it() -> None:
    windower = Windower([ACC], SPEC)
    t_s = np.concatenate([np.arange(0, 3, 0.1), [9e11], np.arange(3, 6, 0.1)])
    assert starts(feed(windower, block(ACC, t_s))) == [0, 0.5, 1, 1.5, 2, 3, 3.5, 4, 4.5, 5]


def test_repeated_and_slightly_backward_stamps_do_no_harm() -> None:
    times = [0, 0.1, 0.1, 0.2, 0.3, 0.25, 0.4, 0.5, 0.6, 0.6, 0.55, 0.7, 0.8, 0.9]
    [window] = feed(Windower([ACC], SPEC), block(ACC, np.array(times)))
    np.testing.assert_allclose(window.arrays["acc"][:, 0], np.arange(10) / 10, atol=1e-6)


def test_times_since_1970_are_as_good_as_any() -> None:
    t_s = 1.7e9 + np.arange(0, 60, 0.1)
    windows = feed(Windower([ACC], SPEC), block(ACC, t_s))
    assert [window.start_s for window in windows] == [1.7e9 + each * 0.5 for each in range(len(windows))]
    assert len(windows) == 119


def test_a_modality_that_stops_ends_the_windows_and_one_that_comes_back_begins_them_again() -> None:
    windower = Windower([ACC, MAG], SPEC)
    feed(windower, block(MAG, np.arange(0, 2, 0.25)))
    for first in range(0, 300, 10):
        given_now = feed(windower, block(ACC, np.arange(first, first + 10, 0.1)))
        assert starts(given_now) == ([0, 0.5, 1] if first == 0 else [])
    windows = feed(windower, block(MAG, np.arange(290, 300, 0.25)))
    assert starts(windows) == np.arange(290, 299.1, 0.5).tolist()


@st.composite
def streams(draw: st.DrawFn, set_back: bool = False) -> Seconds:
    """Times of a bad sensor: jitter, repetitions, small steps back, holes."""
    moves = [0.0, -0.13, 0.5, 3.0] + ([-30.0, 1000.0] if set_back else [])
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.1, 0.02, draw(st.integers(1, 150)))
    odd = rng.random(len(steps)) < draw(st.sampled_from([0, 0.02, 0.2]))
    steps[odd] = rng.choice(moves, odd.sum())
    t_s: Seconds = np.cumsum(steps)
    return t_s.round(draw(st.sampled_from([1, 3, 9])))


def cut(data: st.DataObject, modality: Modality, t_s: Seconds) -> list[Block]:
    borders = sorted(data.draw(st.lists(st.integers(0, len(t_s)), max_size=12)))
    whole = block(modality, t_s)
    return [
        Block(modality=whole.modality, t_s=whole.t_s[first:last], values=whole.values[first:last])
        for first, last in zip([0, *borders], [*borders, len(t_s)], strict=True)
    ]


@given(st.data())
def test_the_cut_of_a_stream_makes_no_difference_however_bad_its_clock_is(data: st.DataObject) -> None:
    t_s = data.draw(streams(set_back=True))
    spec = data.draw(st.sampled_from([SPEC, WindowSpec(window_s=0.3, stride_s=0.7)]))
    at_once = feed(Windower([ACC], spec), block(ACC, t_s))
    assert same(at_once, feed(Windower([ACC], spec), *cut(data, ACC, t_s)))
    assert same(at_once, feed(Windower([ACC], spec), *(block(ACC, t_s[i : i + 1]) for i in range(len(t_s)))))


@given(st.data())
def test_the_order_in_which_modalities_arrive_makes_no_difference(data: st.DataObject) -> None:
    # What lags further behind than LAG_S may lose windows.
    acc, depth = (each[each < LAG_S - 1] for each in (data.draw(streams()), data.draw(streams())))
    at_once = feed(Windower([ACC, DEPTH], SPEC), block(ACC, acc), block(DEPTH, depth))
    waiting = {"acc": cut(data, ACC, acc), "depth": cut(data, DEPTH, depth)}
    mixed = []
    while any(waiting.values()):
        name = data.draw(st.sampled_from([name for name, left in waiting.items() if left]))
        mixed.append(waiting[name].pop(0))
    assert same(at_once, feed(Windower([DEPTH, ACC], SPEC), *mixed))


@given(st.lists(streams(set_back=True), min_size=1, max_size=4))
def test_what_became_of_every_sample_and_every_window_is_counted(parts: list[Seconds]) -> None:
    windower, made, delivered, unsound = Windower([ACC], SPEC), 0, 0, 0
    for number, t_s in enumerate(parts):
        given_block = block(ACC, t_s)
        given_block.values[number::7, 0] = np.nan
        made += len(windower.feed(given_block))
        delivered, unsound = delivered + len(t_s), unsound + len(t_s[number::7])
        if number == 1:
            windower.feed(GAP)
    counts = windower.counts
    assert counts.get("made", 0) == made and counts.get("hole", 0) >= 0
    assert counts.get("acc: not a number", 0) == unsound
    assert sum(counts.get(f"acc: {fate}", 0) for fate in ("kept", "not a number", "not later")) == delivered


def test_windows_over_a_hole_are_counted_however_far_the_clock_leaps() -> None:
    windower = Windower([ACC], SPEC)
    t_s = np.concatenate([np.arange(20) / 10, 5000 + np.arange(11) / 10])
    assert starts(feed(windower, block(ACC, t_s))) == [0, 0.5, 1, 5000]
    assert (windower.counts["made"], windower.counts["hole"]) == (4, 9_997)


@given(streams(set_back=True))
def test_every_value_of_a_window_lies_between_samples_of_the_stream(t_s: Seconds) -> None:
    for window in feed(Windower([ACC], SPEC), block(ACC, t_s)):
        assert window.arrays["acc"].shape == (10, 2)
        np.testing.assert_allclose(
            window.arrays["acc"][:, 0], window.start_s + np.arange(10) / 10, rtol=1e-5, atol=1e-4
        )


def recording(
    labels: Sequence[int] | None, names: dict[int, str], modality: Modality = ACC, length_s: float = 4.0
) -> Recording:
    """A recording of ten samples a second, and with labels of ten a second."""
    t_s = np.arange(round(length_s * 10)) / 10
    given_block = block(modality, t_s)
    stream = Stream(modality=modality, t_s=t_s, values=given_block.values)
    marks = None
    if labels is not None:
        marks = Labels(t_s=np.arange(len(labels)) / 10, values=np.array(labels, dtype=np.int64))
    segment = Segment(name="s", streams={modality.name: stream}, labels=marks)
    return Recording(name="r", segments=(segment,), label_names=names)


ONE_A_SECOND = WindowSpec(window_s=1, stride_s=1)


def labels_of(recordings: Recording | Sequence[Recording], *classes: str) -> list[int]:
    windows = windows_of(recordings, ["acc"], ONE_A_SECOND, classes)
    assert windows.labels.dtype == np.int64
    assert len(windows.labels) == len(windows) == len(windows.arrays["acc"])
    return [int(label) for label in windows.labels]


def test_a_label_is_the_index_of_the_class_of_that_name() -> None:
    first = recording([-1] * 10 + [0] * 10 + [1] * 10 + [-1] * 10, {-1: "stand", 0: "fall", 1: "lie"})
    second = recording([5] * 20 + [0] * 20, {5: "lie", 0: "stand"})
    assert labels_of(first, "stand", "fall", "lie") == [0, 1, 2, 0]
    assert labels_of([first, second], "lie", "stand", "fall") == [1, 2, 0, 1, 0, 0, 1, 1]


def test_a_value_without_a_name_has_no_vote() -> None:
    mostly_unnamed = recording(([0] * 9 + [3]) * 2 + [0] * 20, {3: "walk"})
    assert labels_of(mostly_unnamed, "walk") == [0, 0, UNLABELLED, UNLABELLED]


def test_a_label_that_is_no_class_wins_its_windows_and_leaves_them_unlabelled() -> None:
    made = recording([1] * 6 + [2] * 4 + [1] * 4 + [2] * 6 + [1] * 20, {1: "jump", 2: "walk"})
    assert labels_of(made, "walk") == [UNLABELLED, 0, UNLABELLED, UNLABELLED]
    assert labels_of(made) == [UNLABELLED] * 4


def test_of_equally_many_votes_the_lowest_class_has_it() -> None:
    made = recording(([1] * 5 + [2] * 5) * 2 + ([2] * 5 + [0] * 5) * 2, {0: "a jump", 1: "walk", 2: "run"})
    assert labels_of(made, "walk", "run") == [0, 0, 1, 1]
    assert labels_of(made, "run", "walk") == [0, 0, 0, 0]


def test_two_values_of_one_name_vote_together() -> None:
    made = recording([1, 1, 1, 2, 2, 2, 3, 3, 3, 3] * 4, {1: "walk", 2: "walk", 3: "run"})
    assert labels_of(made, "run", "walk") == [1, 1, 1, 1]


def labelled_at(times: Sequence[float], values: Sequence[int]) -> Recording:
    [segment] = recording(None, {}).segments
    labels = Labels(t_s=np.array(times), values=np.array(values, dtype=np.int64))
    marked = Segment(name="s", streams=segment.streams, labels=labels)
    return Recording(name="r", segments=(marked,), label_names={1: "walk", 2: "run"})


def test_labelled_instants_count_where_they_lie_in_whatever_order_they_come() -> None:
    assert labels_of(labelled_at([3.5, 0.5, 2.5, 1.5], [2, 1, 2, 1]), "walk", "run") == [0, 0, 1, 1]


def test_a_rounded_instant_at_a_border_belongs_to_the_window_that_begins_there() -> None:
    assert labels_of(labelled_at([0, 0.999999, 2.000001, 3], [1, 2, 1, 2]), "walk", "run") == [0, 1, 0, 1]


def test_without_labels_all_windows_are_unlabelled() -> None:
    assert labels_of(recording(None, {1: "walk"}), "walk") == [UNLABELLED] * 4
    assert labels_of(recording([], {1: "walk"}), "walk") == [UNLABELLED] * 4
    assert labels_of(recording([1] * 10, {1: "walk"}), "walk") == [0, *[UNLABELLED] * 3]


@given(st.lists(st.integers(-1, 3), min_size=40, max_size=40))
def test_the_vote_is_what_counting_by_hand_gives(values: list[int]) -> None:
    names, classes = {-1: "a", 0: "b", 1: "c", 2: "d"}, ("c", "a", "b")
    expected = []
    for first in range(0, 40, 10):
        votes = [names[value] for value in values[first : first + 10] if value in names]
        order = [*classes, "d"]
        winner = max(order, key=lambda name: (votes.count(name), -order.index(name)))
        expected.append(classes.index(winner) if votes and winner in classes else UNLABELLED)
    assert labels_of(recording(values, names), *classes) == expected


def test_selected_windows_keep_their_labels() -> None:
    windows = windows_of(recording([1] * 10 + [2] * 30, {1: "a", 2: "b"}), ["acc"], ONE_A_SECOND, ("a", "b"))
    for rows in (np.array([3, 0]), np.array([True, False, False, True])):
        chosen = windows.select(rows)
        np.testing.assert_array_equal(chosen.labels, windows.labels[rows])
        np.testing.assert_array_equal(chosen.arrays["acc"], windows.arrays["acc"][rows])
    assert len(windows.select(np.zeros(4, dtype=bool))) == 0


def test_a_recording_too_short_for_a_window_gives_none() -> None:
    windows = windows_of(recording(None, {}, length_s=0.5), ["acc"], SPEC)
    assert (len(windows), windows.arrays["acc"].shape) == (0, (0, 10, 2))


def test_windows_of_a_recording_are_those_of_its_stream() -> None:
    made = recording(None, {}, length_s=200)
    live = feed(Windower([ACC], SPEC), block(ACC, np.arange(2000) / 10))
    np.testing.assert_array_equal(
        windows_of(made, [ACC], SPEC).arrays["acc"], np.stack([window.arrays["acc"] for window in live])
    )


def test_a_modality_may_ask_for_another_rate_but_not_for_another_shape_or_unit() -> None:
    made = recording(None, {})
    slower = Modality(name="acc", shape=(2,), rate_hz=5, unit="g")
    np.testing.assert_allclose(windows_of(made, [slower], SPEC).arrays["acc"][0, :, 0], [0, 0.2, 0.4, 0.6, 0.8])
    in_si = Modality(name="acc", shape=(2,), rate_hz=5, unit="m/s2")
    with pytest.raises(SensorError, match=r"^r: acc has shape \(2,\) in g, expected \(2,\) in m/s2; use recordings of"):
        windows_of(made, [in_si], SPEC)
    with pytest.raises(SensorError, match=r"^r: has no modality mag; it has acc: name these$"):
        windows_of(made, ["mag"], SPEC)


def test_windows_of_nothing_are_an_error() -> None:
    with pytest.raises(SensorError, match=r"^windows of nothing; name at least one recording and one modality$"):
        windows_of([], ["acc"], SPEC)
    with pytest.raises(SensorError, match=r"^windows of nothing"):
        windows_of(recording(None, {}), [], SPEC)


def test_a_fall_with_repeated_and_backward_stamps_gives_windows(public: Callable[[str], Path]) -> None:
    with np.load(public("urfall/adl-27.npz"), allow_pickle=False) as arrays:
        t_s, values = arrays["acc_t_ms"] / 1000, arrays["acc"]
    assert (np.diff(t_s) < 0).any() and (np.diff(t_s) == 0).any()
    windows = feed(Windower([REAL_ACC], SPEC), Block(modality="acc", t_s=t_s, values=values))
    assert len(windows) > 0
    assert all(np.isfinite(window.arrays["acc"]).all() for window in windows)


def test_real_windows_have_both_modalities_and_known_classes(public: Callable[[str], Path]) -> None:
    recordings = [read_recording(public(f"hapt/user{number:02d}.npz")) for number in (1, 2)]
    classes = class_names(recordings)
    windows = windows_of(recordings, ["acc", "gyro"], WindowSpec(window_s=2.56, stride_s=1.28), classes)
    assert {name: array.shape[1:] for name, array in windows.arrays.items()} == {"acc": (128, 3), "gyro": (128, 3)}
    assert set(windows.labels.tolist()) == {UNLABELLED, *range(12)}
    # Lying, gravity is not along the body; standing it is.
    up_g = windows.arrays["acc"][:, :, 0].mean(axis=1)
    assert up_g[windows.labels == classes.index("STANDING")].mean() > 0.8
    assert abs(up_g[windows.labels == classes.index("LAYING")].mean()) < 0.4
