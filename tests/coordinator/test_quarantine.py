"""Who is left out: every transition, and every one that must not be."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.quarantine import Standing, Standings, after, is_out, told
from coordinator.round import RoundRules
from mekt.messages import LONGEST_SENTENCE, Finding
from mekt.schema import SchemaError, build, plain

RULES = RoundRules(quarantine="odd", quarantine_after=2, quarantine_back=2)
ODD = Finding(name="odd-device", modality="gyro", device="pi-3", evidence="far from all", remedy="mend it")
SUSPECT = Standing(odd=1, modality="gyro", reason="far from all")
OUT = Standing(odd=2, since=5, modality="gyro", reason="far from all")


def moved(before: Standing | None, *, odd: bool = False, compared: bool = True, rules: RoundRules = RULES) -> Standings:
    """How pi-3 stands after round 5 (counted from 1), in which others were there as well."""
    standings = {} if before is None else {"pi-3": before}
    there = ["pi-1", "pi-2", *(["pi-3"] if compared else [])]
    return after(standings, {"pi-3": ODD} if odd else {}, there, rules, 4)


def test_it_is_off_unless_asked_for() -> None:
    assert RoundRules().quarantine == "off"


def test_one_that_agrees_is_never_suspect() -> None:
    assert moved(None) == {}


def test_one_that_is_odd_becomes_suspect_with_the_reason() -> None:
    assert moved(None, odd=True) == {"pi-3": SUSPECT}
    assert not is_out({"pi-3": SUSPECT}, "pi-3") and not is_out({}, "pi-3")


def test_one_suspect_that_agrees_is_trusted_again() -> None:
    assert moved(SUSPECT) == {}


def test_one_suspect_that_is_odd_again_is_quarantined_in_that_very_round() -> None:
    assert moved(SUSPECT, odd=True) == {"pi-3": OUT}
    assert is_out({"pi-3": OUT}, "pi-3")


def test_the_first_time_is_enough_where_the_rules_say_so() -> None:
    assert moved(None, odd=True, rules=replace(RULES, quarantine_after=1)) == {"pi-3": replace(OUT, odd=1)}


def test_one_in_quarantine_that_agrees_stays_for_now_and_then_comes_back() -> None:
    once = {"pi-3": replace(OUT, odd=0, agreed=1)}
    assert moved(OUT) == once and is_out(once, "pi-3")
    assert moved(once["pi-3"]) == {}
    assert moved(OUT, rules=replace(RULES, quarantine_back=1)) == {}


def test_one_in_quarantine_that_is_odd_again_begins_anew_and_keeps_its_first_round() -> None:
    agreed = replace(OUT, odd=0, agreed=1, since=2)
    assert moved(agreed, odd=True) == {"pi-3": replace(OUT, odd=1, since=2)}
    assert moved(replace(OUT, since=2), odd=True) == {"pi-3": replace(OUT, odd=3, since=2)}


@pytest.mark.parametrize("before", [None, SUSPECT, OUT, replace(OUT, odd=0, agreed=1)])
def test_one_that_is_away_or_cannot_be_compared_stays_what_it_is(before: Standing | None) -> None:
    assert moved(before, compared=False) == ({} if before is None else {"pi-3": before})


def test_the_reason_is_that_of_the_last_time() -> None:
    anew = replace(ODD, modality="acc", evidence="out of scale")
    found = after({"pi-3": SUSPECT}, {"pi-3": anew}, (), RULES, 7)
    assert found == {"pi-3": Standing(odd=2, since=8, modality="acc", reason="out of scale")}


def test_those_in_quarantine_are_told_with_reason_and_way_back() -> None:
    [finding] = told({"pi-1": SUSPECT, "pi-3": OUT}, RULES)
    assert str(finding) == (
        "quarantined pi-3 (gyro): left out since round 5: far from all; "
        "mend it; it counts again once it has agreed in 2 rounds in a row"
    )
    [long] = told({"pi-3": replace(OUT, reason="r" * LONGEST_SENTENCE)}, RULES)
    assert build(Finding, plain(long)) == long


@given(st.lists(st.sampled_from(["odd", "agrees", "away"]), max_size=20), st.integers(1, 3), st.integers(1, 3))
def test_a_device_is_out_exactly_from_its_last_odd_round_to_its_last_agreeing_one(
    past: list[str], strikes: int, back: int
) -> None:
    """Against the words at the top of the module, told another way: by the runs of odd and of agreeing rounds."""
    rules = replace(RULES, quarantine_after=strikes, quarantine_back=back)
    standings: Standings = {}
    out, odd_run, agreeing_run = False, 0, 0
    for number, what in enumerate(past):
        odd = {"pi-3": ODD} if what == "odd" else {}
        standings = after(standings, odd, () if what == "away" else ("pi-3",), rules, number)
        if what == "odd":
            odd_run, agreeing_run = odd_run + 1, 0
            out = out or odd_run >= strikes
        elif what == "agrees":
            odd_run, agreeing_run = 0, agreeing_run + 1
            out = out and agreeing_run < back
        assert is_out(standings, "pi-3") == out
        assert build(Standing, plain(standings["pi-3"])) == standings["pi-3"] if standings else True
    assert set(standings) <= {"pi-3"}


def test_devices_are_kept_in_order_of_names() -> None:
    odd = {name: replace(ODD, device=name) for name in ("b", "a", "c")}
    assert list(after({"z": OUT, "aa": SUSPECT}, odd, (), RULES, 0)) == ["a", "aa", "b", "c", "z"]


@pytest.mark.parametrize(
    "bad",
    [
        {"aggregator": "mode"},
        {"quarantine": "on"},
        {"odd_above": 1.0},
        {"quarantine_after": 0},
        {"quarantine_back": 0},
    ],
)
def test_rules_that_cannot_be_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SchemaError, match=next(iter(bad))):
        build(RoundRules, bad)
