from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge.agent import (
    NEVER,
    AgentState,
    Command,
    Event,
    Fetched,
    KnowledgeLost,
    LateReady,
    OfferDue,
    Receipted,
    RoundClosed,
    RoundOpened,
    SendLateOffer,
    SendOffer,
    StartFetch,
    StartTraining,
    Trained,
    TrainingFailed,
    WindowsReady,
    advance,
)


def run(state: AgentState, *events: Event) -> tuple[AgentState, list[Command]]:
    commands: list[Command] = []
    for event in events:
        state, more = advance(state, event)
        commands += more
    return state, commands


def opened(number: int, invited: bool = True, late: bool = False) -> RoundOpened:
    return RoundOpened(round=number, invited=invited, late=late)


def overtaken(late: bool = True) -> tuple[AgentState, list[Command]]:
    """A device that was learning for round 0 when round 1 opened, and now begins to learn for that."""
    return run(
        AgentState(),
        WindowsReady(),
        opened(0),
        Fetched(round=0),
        opened(1, late=late),
        Trained(round=0),
        Fetched(round=1),
    )


def test_a_whole_round_in_order() -> None:
    state, commands = run(
        AgentState(), WindowsReady(), opened(3), Fetched(round=3), Trained(round=3), Receipted(round=3)
    )
    assert commands == [StartFetch(round=3), StartTraining(round=3), SendOffer(round=3)]
    assert (state.phase, state.trained, state.delivered) == ("idle", 3, 3)


def test_training_waits_for_enough_windows() -> None:
    state, commands = run(AgentState(), opened(0), Fetched(round=0))
    assert state.phase == "sensing" and commands == [StartFetch(round=0)]
    assert run(state, WindowsReady())[1] == [StartTraining(round=0)]


def test_a_device_that_is_not_invited_does_nothing() -> None:
    assert run(AgentState(), opened(0, invited=False))[1] == []


def test_an_announcement_heard_twice_is_followed_once() -> None:
    state, _ = run(AgentState(), opened(0))
    assert run(state, opened(0)) == (state, [])


def test_a_newer_round_ends_the_fetching_of_the_older() -> None:
    state, commands = run(AgentState(), opened(0), opened(1), Fetched(round=0))
    assert commands == [StartFetch(round=0), StartFetch(round=1)]
    assert state.phase == "fetching" and state.round == 1


def test_a_newer_round_waits_for_the_end_of_training() -> None:
    state, _ = run(AgentState(), WindowsReady(), opened(0), Fetched(round=0))
    state, commands = run(state, opened(1))
    assert commands == [] and state.phase == "training"
    state, commands = run(state, Trained(round=0))
    assert commands == [StartFetch(round=1)] and state.trained == 0


def test_a_result_of_a_closed_round_is_kept_and_not_offered() -> None:
    state, commands = run(AgentState(), WindowsReady(), opened(0), Fetched(round=0), RoundClosed(), Trained(round=0))
    assert SendOffer(round=0) not in commands and state.trained == 0 and state.phase == "idle"


def test_an_offer_is_repeated_until_a_receipt_comes() -> None:
    state, _ = run(AgentState(), WindowsReady(), opened(0), Fetched(round=0), Trained(round=0))
    assert run(state, OfferDue(), OfferDue())[1] == [SendOffer(round=0)] * 2
    state, _ = run(state, Receipted(round=0))
    assert run(state, OfferDue())[1] == []


def test_an_announcement_heard_anew_is_answered_with_the_offer_that_has_no_receipt_yet() -> None:
    state, _ = run(AgentState(), WindowsReady(), opened(0), Fetched(round=0), Trained(round=0))
    assert run(state, opened(0)) == (state, [SendOffer(round=0)])
    assert run(state, opened(0, invited=False))[1] == []


def test_after_a_restart_the_stored_result_is_offered_without_training_again() -> None:
    assert run(AgentState(trained=4, delivered=3, kept=frozenset({4})), opened(4))[1] == [SendOffer(round=4)]


def test_a_delivered_round_announced_anew_is_offered_again() -> None:
    """The coordinator may have lost what it had received; it answers with a receipt when it has not."""
    assert run(AgentState(trained=4, delivered=4, kept=frozenset({4})), opened(4))[1] == [SendOffer(round=4)]


def test_an_earlier_round_announced_anew_is_offered_from_the_outbox() -> None:
    """The coordinator went back to an older copy of its state."""
    state = AgentState(trained=4, delivered=4, kept=frozenset({2, 3, 4}))
    state, commands = run(state, opened(2), Receipted(round=2), opened(3), Receipted(round=3))
    assert commands == [SendOffer(round=2), SendOffer(round=3)]


def test_knowledge_that_was_lost_is_learned_anew() -> None:
    state, commands = run(AgentState(trained=4, delivered=3, kept=frozenset({3, 4})), opened(4), KnowledgeLost(round=4))
    assert commands == [SendOffer(round=4), StartFetch(round=4)] and state.kept == {3}
    assert run(state, KnowledgeLost(round=3)) == (replace(state, kept=frozenset()), [])


def test_what_came_too_late_for_its_round_is_offered_to_the_next_while_learning_for_that() -> None:
    state, commands = overtaken()
    assert commands[-1] == StartTraining(round=1, late=True)
    state, commands = run(state, LateReady(round=1), OfferDue())
    assert commands == [SendLateOffer(round=1)] * 2 and state.phase == "training"
    state, commands = run(state, Receipted(round=1, late=True), OfferDue())
    assert commands == [] and (state.phase, state.delivered) == ("training", 0)
    assert run(state, Trained(round=1))[1] == [SendOffer(round=1)]


def test_a_receipt_for_late_knowledge_does_not_pass_for_that_of_the_rounds_own() -> None:
    state, _ = run(overtaken()[0], LateReady(round=1), Trained(round=1))
    assert run(state, Receipted(round=1, late=True)) == (state, [])
    assert run(state, Receipted(round=1))[0].delivered == 1


def test_late_knowledge_is_not_offered_where_it_is_dropped_or_was_delivered() -> None:
    assert overtaken(late=False)[1][-1] == StartTraining(round=1)
    state = AgentState(trained=0, delivered=0, kept=frozenset({0}), has_windows=True)
    assert run(state, opened(1, late=True), Fetched(round=1))[1][-1] == StartTraining(round=1)


def test_after_a_restart_late_knowledge_is_made_ready_again() -> None:
    state = AgentState(trained=0, delivered=-1, kept=frozenset({0}), has_windows=True)
    assert run(state, opened(3, late=True), Fetched(round=3))[1][-1] == StartTraining(round=3, late=True)


def test_late_knowledge_of_a_round_that_closed_is_not_offered() -> None:
    state, _ = overtaken()
    assert run(state, RoundClosed(), LateReady(round=1))[1] == []
    state, _ = run(state, LateReady(round=1), RoundClosed())
    assert run(state, OfferDue())[1] == []


def test_a_device_whose_learning_failed_sits_the_round_out_and_takes_part_in_the_next() -> None:
    state, _ = run(AgentState(), WindowsReady(), opened(0), Fetched(round=0))
    state, commands = run(state, TrainingFailed(round=0))
    assert commands == [] and (state.phase, state.trained) == ("idle", -1)
    assert run(state, opened(1))[1] == [StartFetch(round=1)]


def test_a_round_that_opened_while_learning_failed_is_pursued() -> None:
    state, _ = run(AgentState(), WindowsReady(), opened(0), Fetched(round=0), opened(1))
    assert run(state, TrainingFailed(round=0))[1] == [StartFetch(round=1)]


def test_receipts_and_results_of_other_rounds_change_nothing() -> None:
    state, _ = run(AgentState(), WindowsReady(), opened(5), Fetched(round=5))
    for event in (Receipted(round=5), Trained(round=4), Fetched(round=5), OfferDue()):
        assert run(state, event) == (state, [])


EVENTS = st.one_of(
    st.builds(RoundOpened, round=st.integers(0, 3), invited=st.booleans(), late=st.booleans()),
    st.builds(LateReady, round=st.integers(0, 3)),
    st.builds(KnowledgeLost, round=st.integers(0, 3)),
    st.just(RoundClosed()),
    st.builds(Fetched, round=st.integers(0, 3)),
    st.just(WindowsReady()),
    st.builds(Trained, round=st.integers(0, 3)),
    st.builds(TrainingFailed, round=st.integers(0, 3)),
    st.builds(Receipted, round=st.integers(0, 3), late=st.booleans()),
    st.just(OfferDue()),
)


@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_one_training_runs_at_a_time_and_only_its_own_results_are_offered(story: list[Event]) -> None:
    state, training, done = AgentState(), False, set[int]()
    for event in story:
        if isinstance(event, Trained):
            if not training or event.round != state.round:
                continue
            done.add(event.round)
            training = False
        if isinstance(event, TrainingFailed) and training and event.round == state.round:
            training = False
        state, commands = advance(state, event)
        for command in commands:
            if isinstance(command, StartTraining):
                assert not training and state.has_windows
                training = True
            if isinstance(command, SendOffer):
                assert command.round in done and command.round == state.open_round
            if isinstance(command, SendLateOffer):
                assert training and command.round == state.round == state.open_round
    # Whatever happened, the next round is taken part in.
    state, begun = run(state, WindowsReady())
    if training or begun:
        state, _ = advance(state, Trained(round=state.round))
    _, last = run(state, opened(9), Fetched(round=9), Trained(round=9))
    assert last[-1] == SendOffer(round=9)


def test_a_receipt_is_awaited_for_what_is_on_offer_to_its_round() -> None:
    idle, sending = AgentState(delivered=3), AgentState(phase="sending", round=4, open_round=4)
    late = AgentState(phase="training", round=4, open_round=4, offers_late=True)
    assert [each.is_offering for each in (idle, sending, late)] == [False, True, True]
    assert [each.latest for each in (AgentState(), idle, sending)] == [NEVER, 3, 4]
    asked = [(number, is_late) for number in (3, 4) for is_late in (False, True)]
    assert [each for each in asked if idle.awaits(*each)] == []
    assert [each for each in asked if sending.awaits(*each)] == [(4, False)]
    assert [each for each in asked if late.awaits(*each)] == [(4, True)]
