"""Updates as a state machine: in every order of events there is a release to run, and no swap without a verdict."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge.updates.machine import (
    UNDER_WAY,
    Announced,
    Arrived,
    Command,
    Damaged,
    Ended,
    Event,
    Failed,
    Fetch,
    Figures,
    Forget,
    Judged,
    Ran,
    Report,
    Rules,
    Run,
    Started,
    Try,
    Updates,
    Withdrawn,
    advance,
    commands_at_start,
)
from mekt.plan import BlobRef

A, B, C, D = (BlobRef(sha256=bytes([each]) * 32, size_bytes=each) for each in (1, 2, 3, 4))
RULES = Rules(trial_s=100, proof_s=10, most_starts=3)
RUNS_A = Updates(running=A)
FIGURES = Figures(agreement_percent=93, latency_us=800, memory_mb=70)


def run(state: Updates, *events: Event) -> tuple[Updates, list[Command]]:
    commands: list[Command] = []
    for event in events:
        state, more = advance(state, event, RULES)
        commands += more
    return state, commands


def on_trial(state: Updates = RUNS_A, blob: BlobRef = B, number: int = 1) -> Updates:
    return run(state, Announced(number=number, blob=blob), Arrived(blob=blob), Judged(blob=blob, figures=FIGURES))[0]


def proven(state: Updates = RUNS_A, blob: BlobRef = B, number: int = 1) -> Updates:
    return run(on_trial(state, blob, number), Ran(seconds=100))[0]


def test_a_whole_update_in_order() -> None:
    state, commands = run(RUNS_A, Announced(number=1, blob=B))
    assert commands == [Forget(), Fetch(blob=B), Report()] and state.kept == {A, B}
    state, commands = run(state, Arrived(blob=B))
    assert commands == [Try(blob=B), Report()] and state.phase == "testing"
    state, commands = run(state, Judged(blob=B, figures=FIGURES))
    assert commands == [Run(blob=B), Forget(), Report()]
    assert (state.phase, state.running, state.good, state.figures) == ("trial", B, A, FIGURES)
    state, commands = run(state, Ran(seconds=60))
    assert commands == [] and state.phase == "trial"
    state, commands = run(state, Ran(seconds=40))
    assert commands == [Report()]
    assert (state.phase, state.running, state.good) == ("good", B, A)


def test_the_first_release_of_all_is_tested_and_tried_like_any_other() -> None:
    state = on_trial(Updates())
    assert (state.running, state.good) == (B, None)
    state, commands = run(state, Failed(why="does-not-run"))
    assert (state.phase, state.running) == ("rolled-back", None)
    assert commands == [Forget(), Report()]


def test_what_does_not_pass_is_refused_and_its_file_goes() -> None:
    state, commands = run(
        RUNS_A, Announced(number=1, blob=B), Arrived(blob=B), Judged(blob=B, why="disagrees", figures=FIGURES)
    )
    assert (state.phase, state.why, state.running) == ("refused", "disagrees", A) and state.kept == {A}
    assert commands[-2:] == [Forget(), Report()]


def test_what_cannot_be_fetched_is_refused_before_a_test() -> None:
    state, _ = run(RUNS_A, Announced(number=1, blob=B), Judged(blob=B, why="too-large"))
    assert (state.phase, state.why) == ("refused", "too-large")


def test_nothing_passes_a_test_before_it_has_arrived() -> None:
    assert run(RUNS_A, Announced(number=1, blob=B), Judged(blob=B))[0].phase == "fetching"


def test_a_release_that_was_given_up_is_not_tried_again_in_the_same_rollout_but_in_a_newer_one() -> None:
    refused, _ = run(RUNS_A, Announced(number=1, blob=B), Judged(blob=B, why="disk"))
    for state in (refused, run(on_trial(), Failed(why="slow"))[0]):
        assert run(state, Announced(number=1, blob=B), Arrived(blob=B), Judged(blob=B)) == (state, [])
        assert Fetch(blob=B) in run(state, Announced(number=2, blob=B))[1]


def test_a_rollout_of_what_runs_already_is_nothing_to_do() -> None:
    state, commands = run(RUNS_A, Announced(number=7, blob=A))
    assert (state.phase, state.number, state.running) == ("good", 7, A)
    assert commands == [Forget(), Report()]


def test_a_trial_goes_on_when_its_release_is_announced_anew() -> None:
    state, commands = run(on_trial(), Announced(number=2, blob=B))
    assert state == replace(on_trial(), number=2) and not {type(each) for each in commands} & {Run, Fetch, Try}


def test_the_last_good_release_is_gone_back_to_without_fetching_or_testing() -> None:
    for before, good in ((on_trial(), None), (proven(), B)):
        state, commands = run(before, Announced(number=2, blob=A))
        assert (state.phase, state.running, state.good) == ("good", A, good)
        assert commands == [Run(blob=A), Forget(), Report()]


def test_a_newer_rollout_overtakes_one_under_way() -> None:
    fetching, _ = run(RUNS_A, Announced(number=1, blob=B))
    testing, _ = run(fetching, Arrived(blob=B))
    for before in (fetching, testing):
        state, commands = run(before, Announced(number=2, blob=C))
        assert commands == [Forget(), Fetch(blob=C), Report()] and state.kept == {A, C}
        assert run(state, Arrived(blob=B), Judged(blob=B)) == (state, [])
    state, commands = run(on_trial(), Announced(number=2, blob=C))
    assert commands == [Run(blob=A), Forget(), Fetch(blob=C), Report()]
    assert (state.running, state.good) == (A, None) and state.kept == {A, C}


def test_a_rollout_that_is_withdrawn_is_given_up() -> None:
    fetching, _ = run(RUNS_A, Announced(number=1, blob=B))
    for before in (fetching, on_trial()):
        state, commands = run(before, Withdrawn(number=2))
        assert (state.phase, state.running) == ("running", A) and state.kept == {A}
        assert (Run(blob=A) in commands) == (before.phase == "trial")
    assert run(proven(), Withdrawn(number=2))[0].running == B
    assert run(on_trial(), Withdrawn(number=1)) == (on_trial(), [])


def test_a_trial_counts_what_it_has_run_over_all_starts() -> None:
    state, _ = run(on_trial(), Ran(seconds=60), Ended(), Started(), Ran(seconds=30))
    assert state.phase == "trial"
    assert run(state, Ran(seconds=10))[0].phase == "good"


def test_a_release_that_keeps_ending_the_process_is_rolled_back() -> None:
    """It was started by the swap, and then twice; the process that would start it a fourth time runs the former one."""
    state, commands = run(on_trial(), Started(), Started())
    assert commands == [] and state.starts == 3
    state, commands = run(state, Started())
    assert (state.phase, state.why, state.running) == ("rolled-back", "crashed", A)
    assert commands == [Run(blob=A), Forget(), Report()]


def test_ends_that_were_asked_for_and_starts_long_ago_do_not_count() -> None:
    state = on_trial()
    for _ in range(9):
        state, _ = run(state, Ended(), Started())
    for _ in range(9):
        state, _ = run(state, Started(), Ran(seconds=10))
    assert state.phase == "trial"


def test_what_fails_outside_of_a_trial_is_no_affair_of_a_rollout() -> None:
    for state in (RUNS_A, proven(), run(RUNS_A, Announced(number=1, blob=B))[0]):
        assert run(state, Failed(why="slow"), Started(), Ran(seconds=1000), Ended()) == (state, [])


def test_a_damaged_release_gives_way_to_the_last_good_one_and_is_fetched_again() -> None:
    for before in (proven(), on_trial()):
        state, commands = run(before, Damaged(blob=B))
        assert (state.phase, state.running, state.target) == ("fetching", A, B)
        assert commands == [Run(blob=A), Forget(), Fetch(blob=B), Report()]
    assert run(on_trial(), Damaged(blob=A))[0].good is None
    assert run(RUNS_A, Damaged(blob=C)) == (RUNS_A, [])


def test_a_damaged_release_does_not_end_the_fetching_of_another() -> None:
    state, commands = run(proven(), Announced(number=2, blob=C), Damaged(blob=B))
    assert (state.phase, state.running, state.target) == ("fetching", A, C)
    assert commands[-2:] == [Run(blob=A), Report()]


def test_a_process_that_begins_takes_up_what_the_one_before_was_about() -> None:
    fetching, _ = run(RUNS_A, Announced(number=1, blob=B))
    testing, _ = run(fetching, Arrived(blob=B))
    assert commands_at_start(fetching) == (Forget(), Fetch(blob=B), Report())
    assert commands_at_start(testing) == (Forget(), Try(blob=B), Report())
    for state in (RUNS_A, on_trial(), proven()):
        assert commands_at_start(state) == (Forget(), Report())


# All orders

BLOBS = st.sampled_from((A, B, C, D))
NUMBERS = st.integers(1, 6)
WHYS = st.sampled_from(("", "", "disagrees", "slow"))
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Announced, number=NUMBERS, blob=BLOBS),
    st.builds(Withdrawn, number=NUMBERS),
    st.builds(Arrived, blob=BLOBS),
    st.builds(Judged, blob=BLOBS, why=WHYS),
    st.builds(Judged, blob=BLOBS, why=WHYS),
    st.just(Started()),
    st.just(Ended()),
    st.builds(Ran, seconds=st.sampled_from((1.0, 9.0, 60.0, 100.0))),
    st.builds(Failed, why=st.sampled_from(("does-not-run", "silent"))),
)
# What may follow a phase within one event.
NEXT = {
    "running": {"running", "fetching", "good"},
    "fetching": {"fetching", "testing", "refused", "good", "running"},  # good: one that is here already
    "testing": {"testing", "trial", "refused", "fetching", "good", "running"},
    "trial": {"trial", "good", "rolled-back", "fetching", "running"},
    "good": {"good", "fetching", "running"},
    "refused": {"refused", "fetching", "good", "running"},
    "rolled-back": {"rolled-back", "fetching", "good", "running"},
}


def follow(state: Updates, event: Event) -> tuple[Updates, tuple[Command, ...]]:
    """The step, with all that holds of each."""
    after, commands = advance(state, event, RULES)
    assert after.phase in NEXT[state.phase]
    assert after.number >= state.number
    assert len(after.kept) <= 3 and (after.running is None or after.good != after.running)
    assert bool(after.why) == (after.phase in ("refused", "rolled-back"))
    assert (after.phase in UNDER_WAY) <= (after.target is not None)
    # What is to be run is said exactly when it changes.
    assert [each.blob for each in commands if isinstance(each, Run)] == (
        [] if after.running in (state.running, None) else [after.running]
    )
    if after != state and (after.phase, after.number) != (state.phase, state.number):
        assert Report() in commands
    if after.phase != "trial":
        assert (after.starts, after.ran_s) == (0, 0)
    return after, commands


@given(st.sampled_from((RUNS_A, Updates())), st.lists(EVENTS, max_size=40))
def test_in_any_order_there_is_a_release_to_run_and_always_the_last_good_one_to_go_back_to(
    state: Updates, events: list[Event]
) -> None:
    good = state.running
    for event in events:
        after, _ = follow(state, event)
        if after.phase == "trial":
            if state.phase != "trial":
                assert state.phase == "testing" and (state.running is None or after.good == state.running)
                # Nothing was there before, or only what had never proved itself.
                good = state.running
            assert after.good == good
        elif state.phase == "trial" and after.phase != "good":
            assert after.running == good or (good is None and after.running in (None, state.running))
        if state.running is not None and not (state.phase == "trial" and good is None):
            assert after.running is not None
        state = after


@given(st.lists(EVENTS, max_size=40))
def test_a_rollout_brings_at_most_one_swap(events: list[Event]) -> None:
    state, swapped = RUNS_A, set[int]()
    for event in events:
        after, _ = follow(state, event)
        if after.phase == "trial" and state.phase != "trial":
            assert after.number not in swapped
            swapped.add(after.number)
        state = after


@given(st.lists(EVENTS | st.builds(Damaged, blob=BLOBS), max_size=30))
def test_each_event_may_come_twice_and_a_restart_in_between_changes_nothing(
    events: list[Event],
) -> None:
    state = RUNS_A
    for event in events:
        after, commands = advance(state, event, RULES)
        if not isinstance(event, Ran | Started):
            again, more = advance(after, event, RULES)
            assert again == after and not {type(each) for each in more} & {Run, Fetch, Try}
        # A process that ends now, and begins anew, is about the same.
        under_way = [each for each in commands if isinstance(each, Fetch | Try)]
        if under_way:
            assert [each for each in commands_at_start(after) if isinstance(each, Fetch | Try)] == under_way
        state = after


@given(st.lists(EVENTS | st.builds(Damaged, blob=BLOBS), max_size=40))
def test_from_anywhere_a_new_rollout_that_goes_well_ends_well(events: list[Event]) -> None:
    state, _ = run(RUNS_A, *events)
    state, _ = run(state, Announced(number=9, blob=D), Arrived(blob=D), Judged(blob=D), Ran(seconds=100))
    assert (state.phase, state.number, state.running) == ("good", 9, D)


def test_figures_are_told_in_words() -> None:
    assert str(Figures(agreement_percent=93, latency_us=360)) == "agreement 93 %, 360 us a window"
    assert str(Figures()) == "nothing was measured"
