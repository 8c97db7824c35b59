"""What a round's knowledge goes through: who is named, who is left out, and what the rest comes to."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordinator.aggregate import Contribution, aggregate
from coordinator.quarantine import Standing, Standings, is_out
from coordinator.round import RoundRules
from coordinator.weighing import Weighed, weigh
from mekt.arrays import Floats
from mekt.learning import Knowledge

ON = RoundRules(quarantine="odd")
OFF = RoundRules()
TRUTH = {name: np.random.default_rng(seed).normal(0, 1, (200, 8)) for name, seed in (("acc", 1), ("gyro", 2))}


def device(name: str, seed: int, *, lies: dict[str, Callable[[Floats], Floats]] | None = None) -> Contribution:
    """An honest device, but for the modalities that it lies about."""
    rng = np.random.default_rng(seed)
    known = {modality: (x + rng.normal(0, 0.5, x.shape)).astype(np.float32) for modality, x in TRUTH.items()}
    lied = {modality: lie(known[modality]) for modality, lie in (lies or {}).items()}
    return Contribution(
        device=name, windows=10, knowledge={modality: Knowledge(embedding=x) for modality, x in (known | lied).items()}
    )


def opposite(x: Floats) -> Floats:
    return -x


HONEST = [device(f"pi-{n}", n) for n in range(4)]
BAD = device("bad", 9, lies={"gyro": opposite})
KNOWN = {name: x.astype(np.float32) for name, x in TRUTH.items()}


def same(one: Any, other: Any) -> bool:
    return {name: each.embedding.tobytes() for name, each in one.items()} == {
        name: each.embedding.tobytes() for name, each in other.items()
    }


def named(weighed: Weighed) -> set[tuple[str, str]]:
    return {(each.name, each.device) for each in weighed.findings}


def test_without_quarantine_all_count_and_the_odd_one_is_named_and_scored() -> None:
    weighed = weigh([*HONEST, BAD], None, {"bad": Standing(odd=3, since=1, modality="acc", reason="x")}, OFF, 3)
    assert same(weighed.aggregate, aggregate([*HONEST, BAD])) and weighed.standings == {}
    assert named(weighed) == {("odd-device", "bad")}
    assert weighed.scores["bad"] > 2 and max(score for name, score in weighed.scores.items() if name != "bad") < 1.3


@pytest.mark.parametrize("kind", ["mean", "trimmed-mean", "median", "geometric-median"])
def test_the_rules_choose_the_aggregator(kind: Any) -> None:
    weighed = weigh([*HONEST, BAD], None, {}, RoundRules(aggregator=kind), 0)
    assert same(weighed.aggregate, aggregate([*HONEST, BAD], kind))


def test_an_odd_device_is_left_out_in_that_very_round_in_all_its_modalities() -> None:
    weighed = weigh([*HONEST, BAD], None, {}, ON, 6)
    assert same(weighed.aggregate, aggregate(HONEST))
    assert is_out(weighed.standings, "bad") and set(weighed.standings) == {"bad"}
    assert weighed.standings["bad"].modality == "gyro" and weighed.standings["bad"].since == 7
    assert named(weighed) == {("quarantined", "bad"), ("odd-device", "bad")}


def test_it_comes_back_once_it_has_agreed_for_long_enough() -> None:
    standings: Standings = weigh([*HONEST, BAD], None, {}, ON, 0).standings
    mended = device("bad", 9)
    first = weigh([*HONEST, mended], None, standings, ON, 1)
    assert same(first.aggregate, aggregate(HONEST)) and ("quarantined", "bad") in named(first)
    second = weigh([*HONEST, mended], None, first.standings, ON, 2)
    assert same(second.aggregate, aggregate([*HONEST, mended])) and named(second) == set()
    assert second.standings == {}


def test_one_in_quarantine_that_is_away_is_still_told() -> None:
    standings = weigh([*HONEST, BAD], None, {}, ON, 0).standings
    away = weigh(HONEST, None, standings, ON, 1)
    assert away.standings == standings and named(away) == {("quarantined", "bad")}


def test_switched_off_everybody_counts_again() -> None:
    standings = weigh([*HONEST, BAD], None, {}, ON, 0).standings
    assert weigh([*HONEST, BAD], None, standings, OFF, 1).standings == {}


def test_what_has_collapsed_is_left_out_too() -> None:
    flat = device("bad", 9, lies={"acc": lambda x: np.ones_like(x)})
    weighed = weigh([*HONEST, flat], None, {}, ON, 0)
    assert is_out(weighed.standings, "bad") and ("collapse", "bad") in named(weighed)


def test_two_that_err_alike_do_not_vouch_for_each_other() -> None:
    wrong = {"acc": np.random.default_rng(5).normal(0, 1, (200, 8)).astype(np.float32)}
    colluders = [device(name, 9, lies={"acc": lambda _: wrong["acc"]}) for name in ("bad-1", "bad-2")]
    weighed = weigh([*HONEST, *colluders], None, {}, ON, 0)
    assert set(weighed.standings) == {"bad-1", "bad-2"}
    assert "times as far as is usual" in weighed.standings["bad-1"].reason
    # How far is too far can be set.
    lax = weigh([*HONEST, *colluders], None, {}, replace(ON, odd_above=100.0), 0)
    assert lax.standings == {}


def test_with_the_global_knowledge_one_of_two_is_told_apart_and_without_it_neither() -> None:
    pair = [HONEST[0], BAD]
    assert weigh(pair, None, {}, ON, 0).standings == {}
    weighed = weigh(pair, KNOWN, {}, ON, 1)
    assert set(weighed.standings) == {"bad"} and same(weighed.aggregate, aggregate(HONEST[:1]))


def test_where_half_of_all_are_odd_nobody_becomes_suspect() -> None:
    flat = [device(f"bad-{n}", n, lies={"acc": lambda x: np.ones_like(x)}) for n in range(4)]
    weighed = weigh([*HONEST, *flat], None, {}, ON, 0)
    assert weighed.standings == {} and ("collapse", "bad-0") in named(weighed)


def test_one_in_quarantine_does_not_come_back_by_a_round_in_which_nobody_can_tell_who_errs() -> None:
    standings = weigh([*HONEST, BAD], None, {}, ON, 0).standings
    flat = [device(f"flat-{n}", n, lies={"gyro": lambda x: np.ones_like(x)}) for n in range(4)]
    weighed = weigh([*HONEST, *flat, BAD], None, standings, ON, 1)
    assert weighed.standings == standings and ("odd-device", "bad") in named(weighed)


def test_all_may_be_left_out() -> None:
    standings = {each.device: Standing(odd=1, since=1, modality="acc", reason="x") for each in HONEST[:1]}
    weighed = weigh(HONEST[:1], None, standings, ON, 1)
    assert weighed.aggregate == {} and weighed.standings == standings


def test_nobody_delivered() -> None:
    weighed = weigh([], None, {}, ON, 0)
    assert (weighed.aggregate, weighed.scores, weighed.findings, weighed.standings) == ({}, {}, (), {})


def test_the_order_of_deliveries_changes_nothing() -> None:
    one, other = (weigh(given, KNOWN, {}, ON, 1) for given in ([*HONEST, BAD], [BAD, *HONEST[::-1]]))
    assert same(one.aggregate, other.aggregate)
    assert (one.standings, one.scores, one.findings) == (other.standings, other.scores, other.findings)


def test_a_judgement_that_fails_leaves_out_whom_it_left_out_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    standings = weigh([*HONEST, BAD], None, {}, ON, 0).standings

    def stumble(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("coordinator.signs.odd_devices", stumble)
    weighed = weigh([*HONEST, BAD], None, standings, ON, 1)
    assert weighed.standings == standings and same(weighed.aggregate, aggregate(HONEST))
    assert weighed.scores == {} and "nothing can be said of this round's devices" in caplog.text


def test_knowledge_of_the_largest_numbers_is_judged_and_not_feared() -> None:
    huge = device("bad", 9, lies={"acc": lambda x: np.sign(x) * np.float32(3e38)})
    assert set(weigh([*HONEST, huge], KNOWN, {}, ON, 1).standings) == {"bad"}
