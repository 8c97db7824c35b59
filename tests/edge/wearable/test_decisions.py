"""What is said of class probabilities, in every stream of them that hypothesis thinks of."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.wearable.decisions import AlarmSettings, ClassSettings, Decider, DecideSettings, Decision
from mekt.schema import SchemaError, build

LABELS = ("sit", "walk", "fall")
STRIDE_S = 0.5
SIT, WALK, FALL = (tuple(0.9 if i == row else 0.05 for i in range(3)) for row in range(3))
UNSURE = (0.34, 0.33, 0.33)

probability = st.floats(0, 1)
windows = st.lists(st.tuples(probability, probability, probability), min_size=1, max_size=60)
thresholds = st.tuples(probability, probability).map(sorted)
durations = st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.5, 3.0])
steps = st.lists(st.sampled_from([STRIDE_S] * 6 + [2 * STRIDE_S, 3.3, 20.0]), min_size=60, max_size=60)


@st.composite
def all_settings(draw: st.DrawFn) -> DecideSettings:
    leave, enter = draw(thresholds)
    return DecideSettings(
        stay_s=draw(durations),
        enter=enter,
        leave=leave,
        least_s=draw(durations),
        gap_s=draw(st.sampled_from([1.0, 10])),
    )


def fed(decider: Decider, stream: Sequence[Sequence[float]], after: Sequence[float] = ()) -> Iterator[Decision]:
    """Decisions over windows that end these times after one another, a stride by default."""
    at_s = 100.0
    for row, probabilities in enumerate(stream):
        at_s += after[row] if after else STRIDE_S
        yield decider.feed(at_s, probabilities)


def labels(settings: DecideSettings, stream: Sequence[Sequence[float]]) -> list[str | None]:
    return [each.label for each in fed(Decider(LABELS, STRIDE_S, settings), stream)]


@given(settings=all_settings(), stream=windows, after=steps)
def test_a_decision_never_changes_faster_than_its_minimum_duration_but_for_a_gap(
    settings: DecideSettings, stream: list[tuple[float, ...]], after: list[float]
) -> None:
    changes: list[Decision] = []
    before: Decision | None = None
    for row, now in enumerate(fed(Decider(LABELS, STRIDE_S, settings), stream, after)):
        if before is not None and now.label != before.label:
            if after[row] > max(settings.gap_s, STRIDE_S):
                assert now.label is None or settings.least_s == 0
            elif changes:
                assert now.at_s - changes[-1].at_s >= settings.least_s - 1e-9
            changes.append(now)
        before = now


@example(settings=DecideSettings(stay_s=0.1, enter=0.0, leave=0.0), constant=(0.0, 0.0, 0.0078125))
@given(settings=all_settings(), constant=st.tuples(probability, probability, probability))
def test_a_constant_input_settles_and_stays(settings: DecideSettings, constant: tuple[float, ...]) -> None:
    said = labels(settings, [constant] * 300)
    changes = [(before, now) for before, now in itertools.pairwise(said) if before != now]
    assert len(changes) <= 1 and len(set(said[100:])) == 1
    if said[-1] is not None:
        assert constant[LABELS.index(said[-1])] >= max(constant) - 1e-9
    elif settings.stay_s == 0:
        assert max(constant) < settings.enter


@given(settings=all_settings(), odd=st.tuples(probability, probability, probability), place=st.integers(20, 30))
def test_a_single_odd_window_changes_nothing(settings: DecideSettings, odd: tuple[float, ...], place: int) -> None:
    # Belief remembers the odd window for a while: see below.
    settings = DecideSettings(stay_s=0, enter=settings.enter, leave=settings.leave, least_s=settings.least_s or 0.1)
    quiet = [WALK] * 40
    assert labels(settings, [*quiet[:place], odd, *quiet[place:]])[8:] == labels(settings, [*quiet, WALK])[8:]


@given(
    odd=st.tuples(probability, probability, probability),
    stay_s=st.sampled_from([1.0, 3.0, 10.0, 60.0]),
    least_s=st.sampled_from([0.6, 1.0, 2.0]),
)
def test_what_belief_remembers_of_one_odd_window_is_no_news_either(
    odd: tuple[float, ...], stay_s: float, least_s: float
) -> None:
    settings = DecideSettings(stay_s=stay_s, least_s=least_s)
    said = labels(settings, [*[WALK] * 20, odd, *[WALK] * 20])
    assert set(said[6:]) == {"walk"}


def test_an_odd_window_that_is_not_sure_is_no_news_even_without_a_minimum_duration() -> None:
    for odd in (UNSURE, (0.5, 0.2, 0.3), (0.6, 0.1, 0.3)):
        assert set(labels(DecideSettings(), [*[WALK] * 20, odd, *[WALK] * 20])[1:]) == {"walk"}


def test_a_change_that_windows_agree_on_is_told_within_two() -> None:
    said = labels(DecideSettings(), [*[SIT] * 20, *[WALK] * 3])
    assert said[-4:] == ["sit", "sit", "walk", "walk"] or said[-4:] == ["sit", "walk", "walk", "walk"]


@given(settings=all_settings(), stream=windows, row=st.integers(0, 59), threshold=st.floats(0.01, 1))
def test_a_class_that_is_told_at_once_is_told_with_the_very_window_whatever_was_before(
    settings: DecideSettings, stream: list[tuple[float, ...]], row: int, threshold: float
) -> None:
    row %= len(stream)
    settings = DecideSettings(
        stay_s=settings.stay_s,
        enter=settings.enter,
        leave=settings.leave,
        least_s=settings.least_s,
        alarms={"fall": AlarmSettings(threshold=threshold, hold_s=2.0)},
    )
    stream[row] = (0.0, 0.0, 1.0)
    for now, given_ in zip(fed(Decider(LABELS, STRIDE_S, settings), stream), stream, strict=True):
        if given_[2] >= threshold:
            [alarm] = now.alarms
            assert alarm.label == "fall"
            assert alarm.since_s <= now.at_s


@given(settings=all_settings(), stream=windows, after=steps)
def test_what_is_said_is_always_a_class_or_nothing_with_a_share_and_a_beginning(
    settings: DecideSettings, stream: list[tuple[float, ...]], after: list[float]
) -> None:
    for each in fed(Decider(LABELS, STRIDE_S, settings), stream, after):
        assert each.label in (None, *LABELS)
        assert 0 <= each.probability <= 1
        assert -math.inf < each.since_s <= each.at_s


def test_an_alarm_lasts_as_long_as_its_hold_after_the_last_window_that_raised_it() -> None:
    settings = DecideSettings(alarms={"fall": AlarmSettings(threshold=0.8, hold_s=1.0)})
    said = list(fed(Decider(LABELS, STRIDE_S, settings), [SIT, FALL, SIT, FALL, *[SIT] * 4]))
    assert [bool(each.alarms) for each in said] == [False, True, True, True, True, True, False, False]
    [alarm] = said[3].alarms
    assert alarm.since_s == said[1].at_s
    assert alarm.probability == 0.9
    assert [each.label for each in said][-2:] == ["sit", "sit"]


def test_an_alarm_outlasts_a_gap_as_nobody_knows_better() -> None:
    settings = DecideSettings(alarms={"fall": AlarmSettings(threshold=0.8, hold_s=1.0)})
    decider = Decider(LABELS, STRIDE_S, settings)
    decider.feed(1.0, FALL)
    assert decider.lapse().alarms
    assert decider.feed(500.0, SIT).alarms
    assert not list(fed(decider, [SIT] * 4))[-1].alarms


def test_over_a_gap_what_was_said_no_longer_holds() -> None:
    decider = Decider(LABELS, STRIDE_S, DecideSettings(gap_s=5, least_s=2))
    said = [decider.feed(row * STRIDE_S, WALK) for row in range(10)][-1]
    assert said.label == "walk"
    after = decider.feed(said.at_s + 5.5, WALK)
    assert (after.label, after.since_s) == (None, after.at_s)
    lapsed = [decider.feed(after.at_s + (row + 1) * STRIDE_S, WALK).label for row in range(5)]
    assert lapsed == [None, None, None, "walk", "walk"]
    assert decider.lapse().label is None


def test_a_clock_that_is_set_back_is_a_gap() -> None:
    decider = Decider(LABELS, STRIDE_S, DecideSettings(least_s=0.5))
    assert [each.label for each in fed(decider, [WALK] * 3)][-1] == "walk"
    assert decider.feed(1.0, WALK).label is None


def test_hysteresis_keeps_what_is_said_between_both_thresholds() -> None:
    settings = DecideSettings(stay_s=0, enter=0.7, leave=0.4, least_s=0)
    shares = [0.6, 0.7, 0.6, 0.5, 0.4, 0.39, 0.6, 0.7]
    said = labels(settings, [(share, (1 - share) / 2, (1 - share) / 2) for share in shares])
    assert said == [None, "sit", "sit", "sit", "sit", None, None, "sit"]


def test_a_class_has_thresholds_and_a_duration_of_its_own() -> None:
    settings = DecideSettings(
        stay_s=0, enter=0.8, least_s=2, classes={"walk": ClassSettings(enter=0.5, leave=0.4, least_s=0.5)}
    )
    slow = [(0.85, 0.1, 0.05)] * 6
    brisk = [(0.2, 0.55, 0.25)] * 3
    assert labels(settings, [*slow, *brisk]) == [None] * 4 + ["sit"] * 2 + ["sit"] + ["walk"] * 2


def test_nothing_is_sure_is_said_when_no_class_enters() -> None:
    settings = DecideSettings(stay_s=0, least_s=0.5, leave=0.4)
    assert labels(settings, [WALK, WALK, WALK, UNSURE, UNSURE, UNSURE]) == [None, "walk", "walk", "walk", None, None]


def test_what_is_no_number_counts_for_nothing_and_poisons_nothing() -> None:
    settings = DecideSettings(stay_s=1.0, least_s=0.5)
    said = labels(settings, [*[WALK] * 4, (math.nan, math.inf, -math.inf), *[WALK] * 4])
    assert said[-1] == "walk"
    assert all(each.probability <= 1 for each in fed(Decider(LABELS, STRIDE_S, settings), [(math.nan,) * 3] * 4))


def test_belief_is_the_forward_filter_worked_out_by_hand() -> None:
    decider = Decider(LABELS, STRIDE_S, DecideSettings(stay_s=2.0, enter=0.0, leave=0.0))
    first = decider.feed(0.0, (0.6, 0.3, 0.1))
    assert (first.label, round(first.probability, 9)) == ("sit", 0.6)
    second = decider.feed(0.5, (0.2, 0.8, 0.0))
    stays = math.exp(-0.25)
    before = [stays * each + (1 - stays) / 3 for each in (0.6, 0.3, 0.1)]
    beliefs = [share * said for share, said in zip(before, (0.2, 0.8, 0.01), strict=True)]
    assert second.label == "walk"
    np.testing.assert_allclose(second.probability, beliefs[1] / sum(beliefs), rtol=1e-12)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"enter": 0.4, "leave": 0.5}, "leave: 0.5 is more than enter"),
        ({"classes": {"walk": {"enter": 0.1}}}, "classes.walk.leave: 0.3 is more than enter"),
        ({"alarms": {"fall": {"threshold": 0}}}, "alarms.fall.threshold"),
        ({"least_s": -1}, "least_s"),
    ],
)
def test_settings_that_would_flicker_are_refused(table: dict[str, object], words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        build(DecideSettings, table)


def test_classes_that_no_release_has_are_named() -> None:
    settings = DecideSettings(
        classes={"swim": ClassSettings()}, alarms={"fall": AlarmSettings(), "drown": AlarmSettings()}
    )
    assert settings.unknown(LABELS) == ["drown", "swim"]
