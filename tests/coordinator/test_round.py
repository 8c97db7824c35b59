import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.round import (
    OPEN,
    Command,
    DeviceOffline,
    DeviceOnline,
    Distilled,
    DistilRound,
    Event,
    Finish,
    KnowledgeStored,
    OpenRound,
    Phase,
    RoundRules,
    RoundState,
    SettleStep,
    StepTaken,
    Tick,
    advance,
    resumed,
    resumed_sum,
)

RULES = RoundRules(min_devices=2, deadline_s=60.0)
START = RoundState(rounds=2, seed=7)


def run(
    state: RoundState, *events: Event, rules: RoundRules = RULES, now_s: float = 0.0
) -> tuple[RoundState, list[Command]]:
    commands: list[Command] = []
    for event in events:
        state, more = advance(state, event, rules, now_s)
        commands += more
    return state, commands


def both_online() -> RoundState:
    return run(START, DeviceOnline(device="a"), DeviceOnline(device="b"))[0]


def test_a_round_opens_when_enough_devices_are_online() -> None:
    state, commands = run(START, DeviceOnline(device="b"))
    assert state.phase == "waiting" and commands == []
    state, commands = run(state, DeviceOnline(device="a"))
    assert commands == [OpenRound(round=0, participants=("a", "b"))]
    assert state.phase == "collecting" and state.deadline_at_s == 60.0


def test_the_same_device_twice_is_one_device() -> None:
    state, commands = run(START, DeviceOnline(device="a"), DeviceOnline(device="a"))
    assert state.phase == "waiting" and commands == []


def test_a_round_ends_as_soon_as_all_have_delivered() -> None:
    state, commands = run(both_online(), KnowledgeStored(device="b", round=0))
    assert commands == [] and state.waiting_for == ("a",)
    state, commands = run(state, KnowledgeStored(device="a", round=0))
    assert commands == [DistilRound(round=0, devices=("a", "b"))] and state.phase == "distilling"


def test_a_round_ends_by_quorum() -> None:
    rules = RoundRules(min_devices=3, quorum=0.5)
    state, _ = run(START, *[DeviceOnline(device=name) for name in "abc"], rules=rules)
    state, commands = run(state, KnowledgeStored(device="c", round=0), rules=rules)
    assert commands == []
    state, commands = run(state, KnowledgeStored(device="a", round=0), rules=rules)
    assert commands == [DistilRound(round=0, devices=("a", "c"))]


def test_a_round_ends_at_its_deadline_with_what_is_there() -> None:
    state, _ = run(both_online(), KnowledgeStored(device="a", round=0))
    assert run(state, Tick(), now_s=59.9)[1] == []
    assert run(state, Tick(), now_s=60.0)[1] == [DistilRound(round=0, devices=("a",))]


def test_a_round_without_any_knowledge_opens_anew_for_those_online() -> None:
    state, _ = run(both_online(), DeviceOffline(device="a"), DeviceOnline(device="c"))
    state, commands = run(state, Tick(), now_s=61.0)
    assert commands == [OpenRound(round=0, participants=("b", "c"))]
    assert state.deadline_at_s == 121.0


def test_a_round_without_knowledge_or_devices_waits_for_devices() -> None:
    state, _ = run(both_online(), DeviceOffline(device="a"), DeviceOffline(device="b"))
    state, commands = run(state, Tick(), now_s=61.0)
    assert state.phase == "waiting" and commands == []


def test_knowledge_of_strangers_old_rounds_and_repeats_changes_nothing() -> None:
    state, _ = run(both_online(), KnowledgeStored(device="a", round=0))
    for event in (
        KnowledgeStored(device="a", round=0),
        KnowledgeStored(device="x", round=0),
        KnowledgeStored(device="b", round=1),
    ):
        assert run(state, event) == (state, [])


CARRY = RoundRules(min_devices=2, deadline_s=60.0, late="carry")


def test_late_knowledge_is_learned_from_and_does_not_end_the_waiting_for_the_rounds_own() -> None:
    late = KnowledgeStored(device="a", round=0, late=True)
    state, commands = run(both_online(), late, KnowledgeStored(device="b", round=0), rules=CARRY)
    assert commands == [] and (state.late, state.received, state.waiting_for) == (("a",), ("b",), ("a",))
    assert run(state, Tick(), rules=CARRY, now_s=60.0)[1] == [DistilRound(round=0, devices=("a", "b"))]
    state, commands = run(state, KnowledgeStored(device="a", round=0), rules=CARRY)
    assert commands == [DistilRound(round=0, devices=("a", "b"))] and state.late == ()


def test_late_knowledge_alone_ends_a_round_at_its_deadline() -> None:
    state, _ = run(both_online(), KnowledgeStored(device="a", round=0, late=True), rules=CARRY)
    assert run(state, Tick(), rules=CARRY, now_s=60.0)[1] == [DistilRound(round=0, devices=("a",))]


def test_late_knowledge_behind_the_rounds_own_changes_nothing() -> None:
    state, _ = run(both_online(), KnowledgeStored(device="a", round=0), rules=CARRY)
    assert run(state, KnowledgeStored(device="a", round=0, late=True), rules=CARRY) == (state, [])


def test_a_buffered_round_ends_after_so_many_arrivals() -> None:
    rules = RoundRules(min_devices=3, late="carry", arrivals=2)
    state, _ = run(START, *[DeviceOnline(device=name) for name in "abc"], rules=rules)
    state, commands = run(state, KnowledgeStored(device="c", round=0, late=True), rules=rules)
    assert commands == []
    assert run(state, KnowledgeStored(device="c", round=0), rules=rules)[1] == [], "one device is one arrival"
    _, commands = run(state, KnowledgeStored(device="b", round=0), rules=rules)
    assert commands == [DistilRound(round=0, devices=("b", "c"))]


def test_arrivals_without_carrying_over_would_drop_the_slow_for_good() -> None:
    with pytest.raises(ValueError, match='set late = "carry" too'):
        RoundRules(arrivals=2)


def test_a_restart_goes_on_with_late_knowledge_and_closes_what_was_closed() -> None:
    state, commands = resumed(START, ("a", "b"), (), CARRY, 0.0, late=("a",))
    assert commands == (OpenRound(round=0, participants=("a", "b")),) and state.late == ("a",)
    _, commands = resumed(START, ("a", "b"), ("b",), CARRY, 0.0, late=("a",))
    assert commands == (DistilRound(round=0, devices=("a", "b")),)


def test_knowledge_while_distilling_changes_nothing() -> None:
    state, _ = run(both_online(), KnowledgeStored(device="a", round=0))
    state, _ = run(state, Tick(), now_s=60.0)
    assert run(state, KnowledgeStored(device="b", round=0), now_s=61.0) == (state, [])


def test_after_the_last_round_the_federation_is_finished_for_good() -> None:
    state, commands = both_online(), list[Command]()
    for number in (0, 1):
        state, _ = run(state, KnowledgeStored(device="a", round=number), KnowledgeStored(device="b", round=number))
        state, commands = run(state, Distilled(round=number))
    assert commands == [Finish()] and state.phase == "finished"
    assert run(state, DeviceOnline(device="z"), Tick(), now_s=1e9)[1] == []


def test_a_distillation_of_another_round_is_ignored() -> None:
    state, _ = run(both_online(), KnowledgeStored(device="a", round=0), KnowledgeStored(device="b", round=0))
    assert run(state, Distilled(round=1)) == (state, [])


def test_a_share_of_the_devices_is_chosen_by_seed_and_round_alone() -> None:
    rules = RoundRules(min_devices=6, share=0.34)
    chosen = set()
    for order in itertools.islice(itertools.permutations("abcdef"), 0, 720, 97):
        _, commands = run(START, *[DeviceOnline(device=name) for name in order], rules=rules)
        assert isinstance(commands[0], OpenRound) and len(commands[0].participants) == 3
        chosen.add(commands[0].participants)
    assert len(chosen) == 1


def test_a_resumed_round_is_announced_again_with_its_participants() -> None:
    state, commands = resumed(RoundState(rounds=3, seed=7, round=1), ("a", "b"), ("b",), RULES, 100.0)
    assert commands == (OpenRound(round=1, participants=("a", "b")),)
    assert state.waiting_for == ("a",) and state.deadline_at_s == 160.0


def test_a_resumed_round_that_was_complete_is_distilled_at_once() -> None:
    _, commands = resumed(RoundState(rounds=3, seed=7, round=1), ("a", "b"), ("b", "a"), RULES, 100.0)
    assert commands == (DistilRound(round=1, devices=("a", "b")),)


@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=3, unique=True))
def test_the_order_of_deliveries_does_not_matter(order: list[str]) -> None:
    rules = RoundRules(min_devices=3)
    state, _ = run(START, *[DeviceOnline(device=name) for name in "abc"], rules=rules)
    _, commands = run(state, *[KnowledgeStored(device=name, round=0) for name in order], rules=rules)
    assert commands == [DistilRound(round=0, devices=("a", "b", "c"))]


EVENTS = st.one_of(
    st.builds(DeviceOnline, device=st.sampled_from("abc")),
    st.builds(DeviceOffline, device=st.sampled_from("abc")),
    st.builds(KnowledgeStored, device=st.sampled_from("abcx"), round=st.integers(0, 3)),
    st.builds(Distilled, round=st.integers(0, 3)),
    st.just(Tick()),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 100)), max_size=60))
def test_whatever_happens_rounds_follow_each_other_and_end(story: list[tuple[Event, float]]) -> None:
    state, now_s, opened = START, 0.0, -1
    for event, later_s in story:
        now_s += later_s
        state, commands = advance(state, event, RULES, now_s)
        for command in commands:
            if isinstance(command, OpenRound):
                assert command.round in (opened, opened + 1) and command.participants
                opened = command.round
            if isinstance(command, DistilRound):
                assert command.round == opened and command.devices
    # However it stands, time and deliveries bring it to the end.
    for _ in range(20):
        now_s += RULES.deadline_s + 1
        number = state.round
        rest: list[Event] = [DeviceOnline(device="a"), DeviceOnline(device="b")]
        rest += [KnowledgeStored(device=device, round=number) for device in "abc"]
        rest += [Tick(), Distilled(round=number)]
        for event in rest:
            state, _ = advance(state, event, RULES, now_s)
    assert state.phase == "finished"


# Secure sums

SECURE = RoundRules(min_devices=3, deadline_s=60.0, secure=True, step_s=30.0)
BOTH: tuple[str, ...] = ("acc", "gyro")


def online(names: str, rules: RoundRules = SECURE) -> RoundState:
    opening = dataclasses.replace(rules, min_devices=len(names))
    return run(START, *[DeviceOnline(device=name) for name in names], rules=opening)[0]


def took(names: str, step: Phase, modalities: tuple[str, ...] = ("acc",)) -> list[Event]:
    return [StepTaken(device=name, round=0, step=step, modalities=modalities) for name in names]


def settle(step: Phase, names: str) -> SettleStep:
    return SettleStep(round=0, step=step, devices=tuple(names))


def test_a_secure_sum_goes_step_by_step_when_all_have_taken_one_and_is_unmasked_by_as_few_as_it_takes() -> None:
    state, commands = run(online("abcd"), *took("abcd", "collecting"), rules=SECURE, now_s=10.0)
    assert commands == [settle("collecting", "abcd")]
    assert state.phase == "sharing" and state.waiting_for == tuple("abcd") and state.deadline_at_s == 40.0
    assert state.groups == {"acc": tuple("abcd")}
    state, commands = run(state, *took("abcd", "sharing"), rules=SECURE)
    assert commands == [settle("sharing", "abcd")] and state.phase == "masking"
    state, commands = run(state, *took("dcba", "masking"), rules=SECURE)
    assert commands == [settle("masking", "abcd")] and state.phase == "unmasking"
    state, commands = run(state, *took("ab", "unmasking"), rules=SECURE)
    assert commands == []
    state, commands = run(state, *took("d", "unmasking"), rules=SECURE)
    assert commands == [settle("unmasking", "abd"), DistilRound(round=0, devices=tuple("abcd"))]
    state, commands = run(state, Distilled(round=0), rules=SECURE)
    assert commands == [OpenRound(round=1, participants=tuple("abcd"))]
    assert state.phase == "collecting" and not state.settled and not state.offered


def test_who_falls_silent_in_a_step_is_in_none_that_follow_but_may_help_to_unmask() -> None:
    state, _ = run(online("abcdefg"), *took("abcdefg", "collecting"), *took("abcdef", "sharing"), rules=SECURE)
    assert state.phase == "sharing" and state.waiting_for == ("g",)
    state, commands = run(state, Tick(), rules=SECURE, now_s=30.0)
    assert commands == [settle("sharing", "abcdef")] and state.participants == tuple("abcdef")
    state, _ = run(state, *took("abcde", "masking"), rules=SECURE, now_s=59.0)
    state, commands = run(state, Tick(), rules=SECURE, now_s=60.0)
    assert commands == [settle("masking", "abcde")] and state.participants == tuple("abcdef")
    state, commands = run(state, *took("bcdef", "unmasking"), rules=SECURE)
    assert commands == [settle("unmasking", "bcdef"), DistilRound(round=0, devices=tuple("abcde"))]


def test_a_modality_of_which_too_few_are_left_is_given_up_and_the_others_are_not() -> None:
    events = [*took("ab", "collecting", BOTH), *took("c", "collecting", ("gyro",)), *took("de", "collecting")]
    state, _ = run(online("abcde"), *events, rules=SECURE)
    assert state.groups == {"acc": tuple("abde"), "gyro": tuple("abc")}
    state, _ = run(state, *took("abde", "sharing"), rules=SECURE)
    state, _ = run(state, Tick(), rules=SECURE, now_s=100.0)
    assert state.phase == "masking" and state.groups == {"acc": tuple("abde")}
    state, commands = run(state, *took("abde", "masking"), *took("abde", "unmasking"), rules=SECURE)
    assert commands[-1] == DistilRound(round=0, devices=tuple("abde"))


@pytest.mark.parametrize("taken", range(4))
def test_where_too_few_are_left_of_everything_the_round_is_learned_from_nobody(taken: int) -> None:
    steps: list[Phase] = ["collecting", "sharing", "masking", "unmasking"]
    state = online("abcd")
    for step in steps[:taken]:
        state, _ = run(state, *took("abcd", step)[: 3 if step == "unmasking" else 4], rules=SECURE)
    state, _ = run(state, *took("ab", steps[taken]), rules=SECURE)
    state, commands = run(state, Tick(), rules=SECURE, now_s=1000.0)
    assert commands == [settle(steps[taken], "ab"), DistilRound(round=0, devices=())]
    assert state.phase == "distilling"


def test_a_secure_round_of_which_nobody_was_heard_opens_anew() -> None:
    state, commands = run(online("abc"), DeviceOnline(device="d"), Tick(), rules=SECURE, now_s=60.0)
    assert commands == [OpenRound(round=0, participants=tuple("abcd"))] and state.phase == "collecting"


def test_a_quorum_of_too_few_for_a_sum_waits_for_more() -> None:
    rules = RoundRules(min_devices=3, quorum=0.5, secure=True)
    state, commands = run(online("abcd", rules), *took("ab", "collecting"), rules=rules)
    assert commands == [] and state.phase == "collecting"
    state, commands = run(state, *took("c", "collecting"), rules=rules)
    assert commands == [settle("collecting", "abc")] and state.participants == tuple("abc")


def test_of_more_devices_than_a_sum_takes_some_take_part() -> None:
    names = [f"pi-{number:02}" for number in range(40)]
    state, _ = run(START, *[DeviceOnline(device=name) for name in names], rules=RoundRules(min_devices=40, secure=True))
    assert len(state.participants) == 31 and set(state.participants) < set(names)


def test_what_belongs_to_another_step_round_or_device_changes_nothing_of_a_secure_sum() -> None:
    state, _ = run(online("abc"), *took("abc", "collecting"), rules=SECURE)
    for event in (
        StepTaken(device="a", round=0, step="masking"),
        StepTaken(device="a", round=1, step="sharing"),
        StepTaken(device="d", round=0, step="sharing"),
        KnowledgeStored(device="a", round=0),
        *took("a", "collecting", BOTH),
    ):
        assert run(state, event, rules=SECURE) == (state, [])


@given(st.data())
def test_a_secure_sum_ends_whatever_comes_in_whatever_order_and_resumes_as_it_was(data: st.DataObject) -> None:
    names = "abcdef"
    state = online(names)
    events = st.builds(
        StepTaken,
        device=st.sampled_from(names),
        round=st.just(0),
        step=st.sampled_from(OPEN),
        modalities=st.sampled_from([("acc",), ("gyro",), BOTH]),
    )
    now_s, done = 0.0, False
    for _ in range(60):
        now_s += data.draw(st.sampled_from([0.0, 1.0, 70.0]))
        before = state
        state, commands = run(state, data.draw(events | st.just(Tick())), rules=SECURE, now_s=now_s)
        for step, devices in before.settled.items():
            assert state.settled[step] == devices, "what is settled is settled"
        for command in commands:
            if isinstance(command, DistilRound):
                done = True
                assert set(command.devices) <= set(state.settled.get("masking", ()))
        for name, members in state.groups.items():
            assert len(members) >= 3 and all(name in state.offered[each] for each in members)
        # A coordinator that is killed here knows what was settled and what it has stored.
        again, more = resumed_sum(
            RoundState(rounds=2, seed=7, online=state.online),
            state.participants if state.phase == "collecting" else tuple(names),
            state.offered,
            state.settled,
            state.received,
            SECURE,
            now_s,
        )
        assert (again.phase, again.participants, again.received) == (state.phase, state.participants, state.received)
        assert again.groups == state.groups
        if done:
            assert more == (commands[-1],)
            break
        assert more in ((), (OpenRound(round=0, participants=state.participants),))
    state, commands = run(state, *[Tick()] * 4, rules=SECURE, now_s=now_s)
    for _ in range(4):
        now_s += 1000.0
        state, _ = run(state, Tick(), rules=SECURE, now_s=now_s)
    assert state.phase == "distilling" or not state.received


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"aggregator": "median"}, "aggregator"),
        ({"quarantine": "odd"}, "quarantine"),
        ({"late": "carry"}, "late"),
        ({"min_devices": 2}, "min_devices"),
    ],
)
def test_what_a_sum_cannot_give_is_refused_with_a_remedy(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*set |set {name}"):
        RoundRules(**{"min_devices": 3, "secure": True} | changes)
