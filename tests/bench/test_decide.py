"""Decisions against single windows: what counts as a change, as false, as told."""

import numpy as np

from bench.decide import Falls, Outcome, Played, Said, _changes, _falls, table


def played(name: str, labels: list[int]) -> Played:
    count = len(labels)
    return Played(
        name=name,
        ends_s=np.arange(count, dtype=np.float64),
        labels=np.array(labels, dtype=np.int64),
        probabilities=np.full((count, 2), 0.5),
    )


def test_a_change_is_false_when_no_label_changes_nearby() -> None:
    labels = [0] * 20 + [1] * 20
    late = np.array([0] * 23 + [1] * 17)
    assert _changes(played("a", labels), late) == (1, 0)
    flicker = np.array([0] * 5 + [1] + [0] * 17 + [1] * 17)
    assert _changes(played("a", labels), flicker) == (3, 2)
    assert _changes(played("a", labels), np.zeros(40, dtype=np.int64)) == (0, 0)


def test_falls_and_daily_life_are_counted_by_the_names_of_their_sequences() -> None:
    both = [played("fall-01", [0]), played("fall-02", [0]), played("adl-01", [0])]
    assert _falls("x", both, [True, False, True]) == Falls(how="x", falls=1, of_falls=2, daily=1, of_daily=1)


def test_the_table_has_a_row_for_each_way_to_say_it() -> None:
    said = Said(weighted_f1=0.5, changes_per_h=10, false_changes_per_h=2, unsure=0.1)
    falls = (Falls(how="alarms", falls=1, of_falls=2, daily=0, of_daily=3),)
    lines = table([Outcome(protocol="p", recordings=2, hours=1, windows=said, decided=said, calm=said, falls=falls)])
    assert len(lines) == 2 + 3 + 1
    assert lines[-1] == "- p, alarms: told in 1 of 2 falls and in 0 of 3 sequences of daily life."
