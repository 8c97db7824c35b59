"""Whom to kill when: drawn from the seed alone, exactly as often as asked for, at every step; and what is heard."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.messages import Body, Envelope, Offer, Presence, Receipt, RoundOpen, Status
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import BlobRef, Method, Plan
from mekt.strikes import BROKER, CLOSINGS, COORDINATOR, STEPS, UNSEEN_S, Standing, draw_strikes, is_work, speaker_of

DEVICES = ("device-1", "device-2", "device-3")
REF = BlobRef(sha256=bytes(32), size_bytes=1)
PLAN = Plan(
    seed=0,
    rounds=5,
    window=WindowSpec(window_s=2.56, stride_s=1.28),
    modalities=(Modality(name="acc", shape=(3,), rate_hz=50.0, unit="g"),),
    scaling={"acc": Scaling(mean=(0.0,) * 3, std=(1.0,) * 3)},
    proxy={"acc": REF},
    proxy_windows=64,
    method=Method(),
)


def said(body: Body, *, device: str = "", round: int = 0) -> Envelope:
    return Envelope(federation="ward", round=round, device=device, sequence=1, proxy=b"", body=body)


def presence(activity: str, state: str = "online") -> Presence:
    return Presence(state=state, session=1, activity=activity, modalities={"acc": "conv"})  # type: ignore[arg-type]


def status(phase: str, *waiting_for: str) -> Status:
    return Status(phase=phase, rounds=5, online=(), waiting_for=waiting_for, received=(), reports=(), text="")


def opened(state: str) -> RoundOpen:
    return RoundOpen(state=state, deadline_s=1.0, participants=DEVICES, plan=PLAN, knowledge={})  # type: ignore[arg-type]


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 2**31 - 1))
def test_exactly_as_many_kills_as_asked_for_in_order(kills: int, rounds: int, seed: int) -> None:
    strikes = draw_strikes(kills, rounds=rounds, devices=DEVICES, seed=seed)
    assert sum(each.kills for each in strikes) == kills
    assert [each.moment for each in strikes] == sorted(each.moment for each in strikes)
    for each in strikes:
        assert 0 <= each.round < max(1, rounds - 1) and 0 <= each.share < 1 and each.pause_s >= 0
        assert len(set(each.victims)) == len(each.victims) and each.witness in DEVICES
        assert set(each.victims) <= {COORDINATOR, BROKER, *DEVICES}


def test_the_seed_alone_decides() -> None:
    drawn = [draw_strikes(50, rounds=25, devices=DEVICES, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("seed", range(5))
def test_many_kills_meet_every_step_everybody_and_every_round_in_pairs_and_anew(seed: int) -> None:
    strikes = draw_strikes(50, rounds=12, devices=DEVICES, seed=seed)
    assert {each.step for each in strikes} == set(STEPS)
    assert {each.closing for each in strikes if each.step == "distilling"} == set(CLOSINGS)
    assert strikes[0].moment == (0, STEPS.index("opening")), "before the first round"
    kinds = Counter("device" if name in DEVICES else name for each in strikes for name in each.victims)
    assert min(kinds[COORDINATOR], kinds[BROKER], kinds["device"]) >= 5
    assert {each.round for each in strikes} == set(range(11))
    assert any(len(each.victims) == 2 for each in strikes) and any(each.again is not None for each in strikes)


def test_a_strike_waits_for_its_step_and_for_no_more_than_a_round() -> None:
    [strike] = draw_strikes(1, rounds=1, devices=DEVICES, seed=0)
    strike = replace(strike, round=3, step="training")
    training = STEPS.index("training")
    due = [(3, training), (4, training), (4, training + 1), (5, 0)]
    early = [(2, training), (3, training - 1), (3, training + 1), (4, 0), (4, training - 1)]
    assert all(strike.is_due(each, 9) for each in due) and not any(strike.is_due(each, 9) for each in early)
    assert [strike.is_due(each, 4) for each in early] == [False, False, True, True, True], "none follows the last round"


def test_a_device_is_farther_than_the_coordinator_until_that_closes_the_round() -> None:
    standing = Standing(began_s=0.0)
    assert standing.moment("device-1") == (0, STEPS.index("opening"))
    standing.take(said(opened("open"), round=1), 1.0)
    standing.take(said(presence("training"), device="device-1", round=1), 2.0)
    assert standing.moment("device-1") == (1, STEPS.index("training"))
    assert standing.moment("device-2") == (1, STEPS.index("opening"))
    standing.take(said(status("distilling"), round=1), 3.0)
    assert {standing.moment(name) for name in DEVICES} == {(1, STEPS.index("distilling"))}
    standing.take(said(status("collecting", "device-2"), round=2), 4.0)
    assert standing.moment("device-1") == (2, STEPS.index("opening")) and standing.waiting_for == {"device-2"}
    standing.take(said(status("finished"), round=5), 5.0)
    assert standing.is_finished and standing.moment("device-1") == (5, STEPS.index("opening"))


def test_what_a_killed_device_was_at_is_forgotten() -> None:
    standing = Standing(began_s=0.0)
    standing.take(said(presence("sending"), device="device-1", round=1), 1.0)
    standing.forget("device-1")
    assert standing.moment("device-1") == (0, STEPS.index("opening"))


def test_steps_are_timed_from_their_first_sign_to_that_of_the_next() -> None:
    standing = Standing(began_s=10.0)
    assert standing.length_s("training") == UNSEEN_S and standing.start_up_s == 0
    standing.take(said(opened("open")), 13.0)
    for activity, at_s in (
        ("fetching", 14.0),
        ("training", 14.5),
        ("training", 15.0),
        ("sending", 16.5),
        ("idle", 17.0),
    ):
        standing.take(said(presence(activity), device="device-1"), at_s)
    standing.take(said(opened("open"), round=1), 20.0)
    assert standing.start_up_s == 3.0
    lengths = {"fetching": 0.5, "training": 2.0, "sending": 0.5}
    assert {step: standing.length_s(step) for step in lengths} == lengths  # type: ignore[arg-type]


def test_who_speaks() -> None:
    offer = said(Offer(knowledge={"acc": REF}, windows=1, metrics={}), device="device-1")
    assert speaker_of(offer, "up") == "device-1"
    assert speaker_of(said(Receipt(state="accepted"), device="device-1"), "down") == COORDINATOR
    assert speaker_of(said(opened("open")), "all") == COORDINATOR
    assert speaker_of(said(presence("idle", "offline"), device="device-1"), "up") == ""


def test_what_counts_as_work() -> None:
    assert is_work(said(Receipt(state="accepted"))) and is_work(said(presence("training")))
    assert is_work(said(status("distilling"))) and is_work(said(opened("finished")))
    assert not is_work(said(presence("idle"))) and not is_work(said(presence("idle", "offline")))
    assert not is_work(said(status("collecting"))) and not is_work(said(opened("open")))
