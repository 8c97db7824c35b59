"""What is told of decisions, and when."""

import math

from edge.wearable.decisions import Decision
from edge.wearable.telling import CLOCK_SLACK_S, Telling, Told

# This machine's clock is so far ahead of the source's.
AHEAD_S = 1.7e9


def decision(label: str | None, at_s: float) -> Decision:
    return Decision(label=label, probability=0.9, at_s=at_s, since_s=at_s, alarms=())


def tell(telling: Telling, label: str | None, at_s: float, late_s: float = 0.0) -> Told | None:
    return telling.tell(decision(label, at_s), ("acc",), 1.0, now_s=at_s, wall_s=at_s + AHEAD_S + late_s)


def test_news_is_told_at_once_and_how_things_stand_when_nothing_was_told_for_so_long() -> None:
    telling = Telling(repeat_s=10)
    assert telling.due_s == math.inf and telling.again(1e9) is None, "nothing is known yet"
    assert [tell(telling, label, at_s) is not None for at_s, label in enumerate(("sit", "sit", "walk", "walk"))] == [
        True,
        False,
        True,
        False,
    ]
    assert telling.due_s == 12
    assert telling.again(11.9) is None
    again = telling.again(12.0)
    assert again is not None and not again.news and again.decision == decision("walk", 3)
    assert telling.due_s == 22


def test_without_repetition_each_decision_is_told() -> None:
    telling = Telling(repeat_s=0)
    said = [tell(telling, "sit", at_s) for at_s in range(3)]
    assert [each is not None and each.news for each in said] == [True, False, False] and None not in said
    assert telling.due_s == math.inf


def test_what_began_at_some_time_keeps_it_until_the_clocks_have_come_apart() -> None:
    telling = Telling(repeat_s=0)
    said = [tell(telling, "sit", at_s, late_s) for at_s, late_s in enumerate((0, 0.4, -0.4, CLOCK_SLACK_S + 1))]
    assert [None if each is None else each.wall_s - each.decision.at_s - AHEAD_S for each in said] == [0, 0, 0, 2]
