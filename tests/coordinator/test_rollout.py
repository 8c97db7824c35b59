"""Rollouts decided without clock or disk: each way from state to state, and whatever wearables say in any order."""

import itertools
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.rollout import (
    ABOUT_THE_WEARABLE,
    HOUR_S,
    WORDS,
    Announce,
    Event,
    GoBack,
    Heard,
    Passed,
    Progress,
    RolloutRules,
    Stopped,
    Widened,
    advance,
    text_of,
    too_few,
    word_of,
)
from mekt.messages import FitnessState, Unfit
from mekt.share import takes_part

RULES = RolloutRules(share=0.5, least=2, failures=2, failed_share=0.25, hours=10.0)
FLEET = [f"watch-{index}" for index in range(12)]
BEGUN = Progress(federation="ward", number=1, release="ward-00002", share=0.5)
CANARIES = [each for each in FLEET if takes_part("ward", 1, each, 0.5)]
OTHERS = [each for each in FLEET if each not in CANARIES]
STATES: tuple[FitnessState, ...] = get_args(FitnessState)
WHYS: tuple[Unfit, ...] = get_args(Unfit)[1:]


def good(device: str) -> Heard:
    return Heard(device=device, state="good")


def failed(device: str, why: Unfit = "slow") -> Heard:
    return Heard(device=device, state="rolled-back", why=why)


def after(*events: Event, begun: Progress = BEGUN, rules: RolloutRules = RULES) -> Progress:
    for event in events:
        begun, _ = advance(begun, event, rules)
    return begun


def hours(count: float) -> Passed:
    return Passed(seconds=count * HOUR_S)


def test_there_are_canaries_and_others() -> None:
    assert len(CANARIES) >= 4 and len(OTHERS) >= 4


def test_it_goes_on_to_all_when_enough_canaries_are_good_and_nobody_is_left_to_say_otherwise() -> None:
    one, other, third, *_ = CANARIES
    trying = after(Heard(device=third, state="trial"), good(one), good(other))
    assert trying.state == "canary", "the third may still fail"
    progress, commands = advance(trying, good(third), RULES)
    assert (progress.state, progress.share, progress.waited_s) == ("everybody", 1.0, 0.0)
    assert commands == (Announce(),)


def test_whoever_is_still_trying_when_the_time_is_over_is_not_waited_for() -> None:
    one, other, third, *_ = CANARIES
    trying = after(Heard(device=third, state="trial"), good(one), good(other))
    assert after(hours(9.9), begun=trying).state == "canary"
    assert after(hours(9.9), hours(0.1), begun=trying).state == "everybody"


def test_too_few_good_canaries_within_the_time_take_it_back() -> None:
    progress, commands = advance(after(good(CANARIES[0])), hours(10), RULES)
    assert progress.state == "stopped"
    assert commands == (GoBack(reason="1 of 2 wearables said good within 10 h"),)


def test_as_many_failures_as_are_certain_take_it_back_and_the_reason_names_them() -> None:
    one, other, *_ = CANARIES
    progress, commands = advance(after(failed(one, "crashed")), failed(other), RULES)
    assert progress.state == "stopped"
    assert commands == (GoBack(reason=f"2 failed ({one}: crashed, {other}: slow)"),)


def test_where_canaries_are_few_one_that_fails_lets_nothing_go_on_without_a_person() -> None:
    one, other, third, *_ = CANARIES
    held = after(failed(one), good(other), good(third))
    assert held.state == "canary" and "unless a person promotes it" in text_of(held, RULES)
    assert after(Widened(share=1.0), begun=held).state == "everybody"
    progress, commands = advance(held, hours(10), RULES)
    assert progress.state == "stopped" and commands == (GoBack(reason=f"1 failed ({one}: slow)"),)


def test_where_canaries_are_enough_one_that_fails_keeps_nothing_from_the_others() -> None:
    """One of four is a quarter, and no more than a quarter may fail."""
    one, *others = CANARIES[:4]
    assert after(failed(one), *(good(device) for device in others)).state == "everybody"
    assert after(*(good(device) for device in others), failed(one)).state == "everybody"
    assert after(failed(one), *(good(device) for device in others[1:])).state == "canary"


def test_by_default_two_have_to_fail_and_more_than_a_tenth() -> None:
    fleet = [f"watch-{index}" for index in range(20)]
    begun, rules = replace(BEGUN, share=0.99999), RolloutRules()
    trying = after(*(Heard(device=each, state="trial") for each in fleet), begun=begun, rules=rules)
    assert after(failed(fleet[0]), begun=trying, rules=rules).state == "canary"
    assert after(failed(fleet[0]), failed(fleet[1]), begun=trying, rules=rules).state == "stopped"
    eighteen = after(*(good(each) for each in fleet[2:]), begun=trying, rules=rules)
    assert after(failed(fleet[0]), failed(fleet[1]), begun=eighteen, rules=rules).state == "everybody"


def test_among_all_wearables_a_few_failures_are_not_the_releases() -> None:
    wide = after(*(good(device) for device in CANARIES))
    assert wide.state == "everybody"
    many = replace(RULES, failed_share=0.3)
    held = after(failed(OTHERS[0]), failed(OTHERS[1]), begun=wide, rules=many)
    assert held.state == "everybody", "2 of 8 at most"
    assert after(*(failed(device) for device in OTHERS[2:]), begun=held, rules=many).state == "stopped"
    assert after(hours(10), begun=held, rules=many).state == "done"


def test_among_all_wearables_those_under_way_may_still_be_good() -> None:
    """To fail takes seconds, to be good an hour: the first ones that are done are not like the rest."""
    wide = after(*(good(device) for device in CANARIES))
    trying = after(*(Heard(device=each, state="trial") for each in OTHERS), begun=wide)
    many = replace(RULES, failures=1, failed_share=0.2)
    one = after(failed(OTHERS[0]), failed(OTHERS[1]), begun=trying, rules=many)
    assert one.state == "everybody", "2 of 12"
    assert after(failed(OTHERS[2]), begun=one, rules=many).state == "stopped"
    assert after(hours(10), begun=one, rules=many).state == "stopped", "2 of 8 that are done"


def test_what_is_about_one_wearable_stops_nobody_elses_release() -> None:
    for why in ABOUT_THE_WEARABLE:
        assert after(*(Heard(device=each, state="refused", why=why) for each in CANARIES)).state == "canary"
    for why in set(WHYS) - ABOUT_THE_WEARABLE:
        assert after(*(Heard(device=each, state="refused", why=why) for each in CANARIES[:2])).state == "stopped"


def test_who_takes_no_part_neither_helps_nor_harms_until_the_share_is_theirs_too() -> None:
    assert after(*(good(device) for device in OTHERS)).state == "canary"
    held = after(*(failed(device) for device in OTHERS))
    assert held.state == "canary" and held.counts["failed"] == 0
    assert after(Widened(share=1.0), Passed(seconds=0), begun=held).state == "stopped"


def test_a_person_widens_the_share_and_never_narrows_it() -> None:
    assert advance(BEGUN, Widened(share=0.5), RULES) == (BEGUN, ())
    assert advance(BEGUN, Widened(share=0.2), RULES) == (BEGUN, ())
    progress, commands = advance(after(hours(9)), Widened(share=0.7), RULES)
    assert (progress.state, progress.share, progress.waited_s, commands) == ("canary", 0.7, 0.0, (Announce(),))


def test_a_person_stops_it_at_any_state_once() -> None:
    for begun in (BEGUN, after(Widened(share=1.0)), after(Widened(share=1.0), hours(10))):
        progress, commands = advance(begun, Stopped(), RULES)
        assert progress.state == "stopped" and commands == (GoBack(reason="a person said so"),)
        assert advance(progress, Stopped(), RULES) == (progress, ())


def test_what_is_done_or_stopped_is_moved_by_nothing_but_a_person() -> None:
    done = after(Widened(share=1.0), hours(10))
    stopped = after(Stopped())
    for begun in (done, stopped):
        moved = after(*(failed(device) for device in FLEET), hours(1000), Widened(share=1.0), begun=begun)
        assert (moved.state, moved.share, moved.waited_s) == (begun.state, begun.share, begun.waited_s)


def test_time_never_goes_back() -> None:
    assert after(hours(5), Passed(seconds=-1e9)).waited_s == 5 * HOUR_S


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (
            after(good(CANARIES[0]), Heard(device=CANARIES[1], state="testing"), hours(1)),
            "ward-00002 is on trial on 50% of wearables: 1 good, 1 under way, 0 failed; waits for 2 good, for 9.0 h at "
            "most",
        ),
        (
            after(failed(CANARIES[0])),
            f"ward-00002 is on trial on 50% of wearables: 0 good, 0 under way, 1 failed ({CANARIES[0]}: slow); goes "
            "back in 10.0 h, unless a person promotes it",
        ),
        (
            after(Widened(share=1.0), Heard(device=FLEET[0], state="refused", why="disk")),
            "ward-00002 goes to all wearables: 0 good, 0 under way, 0 failed, 1 unable; watched for 10.0 h more",
        ),
        (after(Widened(share=1.0), hours(11)), "ward-00002 is what wearables run: 0 good, 0 under way, 0 failed"),
        (after(Stopped()), "ward-00002 was stopped (a person said so): 0 good, 0 under way, 0 failed"),
    ],
)
def test_it_says_where_it_stands_and_what_it_waits_for(progress: Progress, text: str) -> None:
    assert text_of(progress, RULES) == text


# Whatever comes

HEARD = st.builds(
    lambda device, state, why: Heard(
        device=device, state=state, why=why if state in ("refused", "rolled-back") else ""
    ),
    st.sampled_from(FLEET),
    st.sampled_from(STATES),
    st.sampled_from(WHYS),
)
EVENTS = st.lists(HEARD | st.builds(Passed, seconds=st.floats(0, 4 * HOUR_S)), max_size=40)
RULE = st.builds(
    RolloutRules,
    least=st.integers(1, 4),
    failures=st.integers(1, 4),
    failed_share=st.floats(0, 1),
    hours=st.floats(0.1, 20),
)


@given(EVENTS, RULE)
def test_it_only_goes_forward_and_never_to_all_past_too_many_failed_canaries(
    events: list[Event], rules: RolloutRules
) -> None:
    order = ("canary", "everybody", "done", "stopped")
    progress = BEGUN
    for event in events:
        before, (progress, commands) = progress, advance(progress, event, rules)
        assert order.index(progress.state) >= order.index(before.state) and progress.share >= before.share
        assert (progress.state == "stopped") == (
            before.state == "stopped" or any(isinstance(x, GoBack) for x in commands)
        )
        assert (Announce() in commands) == (progress.share > before.share)
        if (before.state, progress.state) == ("canary", "everybody"):
            words = [said.word for device, said in progress.said.items() if device in CANARIES]
            done = words.count("failed") + words.count("good")
            assert words.count("failed") <= rules.failed_share * done and words.count("good") >= rules.least
        for device, said in before.said.items():
            assert WORDS.index(progress.said[device].word) >= WORDS.index(said.word)


@given(EVENTS, RULE)
def test_it_never_waits_for_ever(events: list[Event], rules: RolloutRules) -> None:
    progress = after(*events, rules=rules)
    for _ in range(2):
        progress = after(hours(rules.hours), begun=progress, rules=rules)
    assert not progress.is_under_way


@given(st.lists(HEARD, max_size=12), st.randoms(use_true_random=False))
def test_the_order_and_repetition_of_words_change_nothing_about_what_counts(heard: list[Heard], chance: object) -> None:
    """Where nothing was decided on the way: with limits that are out of reach until time passes."""
    patient = RolloutRules(share=0.5, least=1000, failures=1000, hours=10.0)
    again = [*heard, *heard]
    chance.shuffle(again)  # type: ignore[attr-defined]
    one, other = after(*heard, rules=patient), after(*again, rules=patient)
    assert one.counts == other.counts
    decided = replace(RULES, failures=3)
    one, other = (after(Passed(seconds=0), begun=each, rules=decided) for each in (one, other))
    assert (one.state, one.share) == (other.state, other.share)


def test_every_order_of_three_canaries_words_ends_the_same_once_all_are_said() -> None:
    rules = replace(RULES, failures=1)
    words: tuple[FitnessState, ...] = ("good", "good", "rolled-back")
    for order in itertools.permutations(zip(CANARIES, words, strict=False)):
        said = [
            Heard(device=device, state=state, why="slow" if state == "rolled-back" else "") for device, state in order
        ]
        assert (
            after(*(Heard(device=each, state="trial") for each in CANARIES[:3]), *said, rules=rules).state == "stopped"
        )


def test_every_state_of_a_wearable_has_a_meaning() -> None:
    meant = {state: word_of(state, "slow" if state in ("refused", "rolled-back") else "") for state in STATES}
    assert meant == {
        **dict.fromkeys(("running", "fetching", "testing", "trial"), "pending"),
        "good": "good",
        "refused": "failed",
        "rolled-back": "failed",
    }


def test_a_share_that_draws_too_few_of_those_who_are_known_is_told_with_one_that_does_not() -> None:
    known = OTHERS[:2] + CANARIES[:1]
    assert too_few(BEGUN, known, replace(RULES, least=1)) == ""
    said = too_few(BEGUN, known, RULES)
    assert said.startswith(
        "1 of 3 wearables that are known take part, and 2 have to say good; widen it with --share 0."
    )
    share = float(said.rsplit(" ", 1)[1])
    assert too_few(replace(BEGUN, share=share), known, RULES) == ""
    assert "promote it to all with --now" in too_few(BEGUN, known[:1], RULES)
    # Nobody is known before the first rollout; and to all goes what goes to all.
    assert too_few(BEGUN, (), RULES) == (
        "whether 2 wearables take part is not known, as none was heard before; --now ships it to all"
    )
    assert too_few(replace(BEGUN, state="everybody", share=1.0), (), RULES) == ""
