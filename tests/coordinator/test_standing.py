from dataclasses import replace
from typing import Any

import pytest

from coordinator.round import DeviceOffline, DeviceOnline, RoundRules, RoundState
from coordinator.standing import RETURN_S, Fleet, status_of
from mekt.blobs import blob_ref
from mekt.errors import WireError
from mekt.messages import KINDS, SCORES_KEPT, Envelope, Finding, Offer, Presence, Privacy, RoundReport, Status, encode

RULES = RoundRules(min_devices=2)
WAITING = RoundState(rounds=5, seed=0)
COLLECTING = replace(
    WAITING,
    phase="collecting",
    round=2,
    online=frozenset({"pi-5", "pi-1"}),
    participants=("pi-1", "pi-3", "pi-4", "pi-5"),
    received=("pi-1", "pi-5"),
    deadline_at_s=160.4,
)


def status(state: RoundState, **changes: Any) -> Status:
    known: dict[str, Any] = {"now_s": 100.0, "seen_at_s": {}, "share_learned": 0.0, "reports": (), "trouble": {}}
    return status_of(state, RULES, **(known | changes))


def presence(state: Any = "online", session: int = 1, modalities: tuple[str, ...] = ("acc",)) -> Presence:
    return Presence(state=state, session=session, activity="idle", modalities=dict.fromkeys(modalities, "conv"))


def report(number: int, devices: tuple[str, ...] = ("a",)) -> RoundReport:
    metrics = {f"weighted_f1/{'m' * 15}{n:x}": 0.5 for n in range(16)}
    return RoundReport(round=number, devices=devices, metrics=metrics, seconds={"collect": 1.0})


def test_nobody_waits_for_a_device_whose_privacy_budget_is_spent_until_it_has_more() -> None:
    fleet = Fleet(["acc"])
    privacy = Privacy(epsilon=7.5, delta=1e-5, budget=8.0)
    spent = replace(presence(), privacy=replace(privacy, is_spent=True))
    assert fleet.told("a", replace(presence(), privacy=privacy), 0.0) == DeviceOnline(device="a")
    assert fleet.told("a", spent, 1.0) == DeviceOffline(device="a")
    assert fleet.told("a", replace(spent, privacy=replace(privacy, budget=20.0)), 2.0) == DeviceOnline(device="a")


def test_before_a_round_it_says_how_many_devices_are_missing() -> None:
    assert status(WAITING).text == "round 1 of 5 opens once 2 devices are online; 0 are"
    one = replace(WAITING, online=frozenset({"a"}))
    assert status_of(one, RoundRules(), now_s=0, seen_at_s={}, share_learned=0, reports=(), trouble={}).text == (
        "round 1 of 5 opens once 1 device is online; 1 is"
    )


def test_in_a_round_it_names_who_is_missing_and_when_it_was_last_seen() -> None:
    said = status(COLLECTING, seen_at_s={"pi-3": 58.6, "pi-1": 99.0})
    assert said.text == (
        "round 3 of 5 ends in 60 s at the latest; waiting for 2 of 4: "
        "pi-3 (last seen 41 s ago), pi-4 (not seen since the coordinator started)"
    )
    assert (said.phase, said.rounds) == ("collecting", 5)
    assert (said.online, said.waiting_for, said.received) == (("pi-1", "pi-5"), ("pi-3", "pi-4"), ("pi-1", "pi-5"))


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("sharing", "dealing shares of secrets"),
        ("masking", "sending masked words"),
        ("unmasking", "unmasking their sum"),
    ],
)
def test_in_a_secure_sum_it_names_the_step_and_who_has_not_taken_it(phase: Any, words: str) -> None:
    said = status(replace(COLLECTING, phase=phase), seen_at_s={"pi-3": 58.6, "pi-4": 99.0})
    assert said.text == (
        f"round 3 of 5: {words} ends in 60 s at the latest; waiting for 2 of 4: "
        "pi-3 (last seen 41 s ago), pi-4 (last seen 1 s ago)"
    )
    assert said.waiting_for == ("pi-3", "pi-4")


def test_a_deadline_that_has_passed_is_not_negative() -> None:
    assert status(COLLECTING, now_s=500.0).text.startswith("round 3 of 5 ends in 0 s at the latest")


def test_of_many_missing_it_names_some_and_counts_the_rest() -> None:
    many = tuple(f"device-{n:03d}-{'x' * 50}" for n in range(40))
    said = status(replace(COLLECTING, participants=many, received=()))
    named = said.text.count("device-")
    assert said.text.endswith(f" and {40 - named} more") and 2 < named < 10
    assert len(said.waiting_for) == 40


def test_while_learning_and_at_the_end_it_says_so() -> None:
    learning = replace(COLLECTING, phase="distilling")
    assert status(learning, share_learned=0.42).text == "round 3 of 5: learning from 2 devices, 42% done"
    assert status(replace(learning, received=("a",))).text == "round 3 of 5: learning from 1 device, 0% done"
    assert status(learning).waiting_for == ()
    assert status(replace(WAITING, phase="finished")).text == "all 5 rounds are done"


def test_whatever_is_said_can_be_sent_through_a_common_broker() -> None:
    many = tuple(f"device-{n:05d}" for n in range(2000))
    state = replace(COLLECTING, participants=many, received=many[:1000], online=frozenset(many))
    said = status(state, reports=tuple(report(n, many) for n in range(50)))
    assert [each.round for each in said.reports] == [48, 49]
    raw = encode(Envelope(federation="f", round=2, device="", sequence=1, proxy=b"", body=said))
    assert len(raw) < 256 * 1024 < KINDS["status"][1]


def test_reports_full_of_findings_can_be_sent_too() -> None:
    long = Finding(name="odd-device", modality="m" * 16, device="d" * 64, evidence="e" * 240, remedy="\u00f6" * 240)
    reports = tuple(replace(report(n), findings=(long,) * 16) for n in range(50))
    said = status(WAITING, reports=reports)
    assert said.reports == reports[-len(said.reports) :] and 1 < len(said.reports) < 10
    raw = encode(Envelope(federation="f", round=2, device="", sequence=1, proxy=b"", body=said))
    assert len(raw) < 128 * 1024


def test_reports_full_of_scores_can_be_sent_too() -> None:
    scores = {f"{n:064}": 1.5 for n in range(SCORES_KEPT)}
    reports = tuple(replace(report(n), disagreement=scores) for n in range(50))
    said = status(WAITING, reports=reports)
    assert said.reports == reports[-len(said.reports) :] and 1 < len(said.reports) < 20
    raw = encode(Envelope(federation="f", round=2, device="", sequence=1, proxy=b"", body=said))
    assert len(raw) < 128 * 1024


def test_few_devices_have_all_their_reports_shown() -> None:
    reports = tuple(report(n, ("a", "b", "c")) for n in range(50))
    assert status(WAITING, reports=reports).reports == reports


def test_a_fleet_knows_who_is_there() -> None:
    fleet = Fleet(("acc", "gyro"))
    assert fleet.told("a", presence(), 1.0) == DeviceOnline(device="a")
    assert "a" in fleet and "b" not in fleet
    assert fleet.heard("a", 1, 5.0) is None
    assert fleet.heard("b", 1, 5.0) == "unannounced"
    assert fleet.seen_at_s == {"a": 5.0}
    assert fleet.told("a", presence("offline"), 9.0) == DeviceOffline(device="a")
    assert fleet.seen_at_s == {"a": 5.0}, "a will is not the device's own word"


def test_a_late_will_of_an_earlier_session_says_nothing() -> None:
    fleet = Fleet(("acc",))
    assert fleet.told("a", presence("offline", session=1), 0.0) is None
    fleet.told("a", presence(session=1), 1.0)
    fleet.told("a", presence(session=2), 2.0)
    assert fleet.told("a", presence("offline", session=1), 3.0) is None
    assert fleet.told("a", presence("offline", session=2), 4.0) == DeviceOffline(device="a")


def test_messages_that_come_twice_or_late_are_known_for_what_they_are() -> None:
    fleet = Fleet(("acc",))
    fleet.told("a", presence(session=1), 0.0)
    numbers = (3, 4, 4, 7, 5, 4, 5, 8, 100, 8)
    assert [fleet.heard("a", number, 1.0) for number in numbers] == [
        *(None, None, "repeated", None, "out-of-order", "repeated", "repeated", None, None, "out-of-order")
    ]
    for number in range(101, 300):
        assert fleet.heard("a", number, 2.0) is None
    assert fleet.heard("a", 200, 2.0) == "out-of-order", "what came long ago is not remembered"
    fleet.told("a", presence(session=2), 3.0)
    assert fleet.heard("a", 3, 4.0) is None, "another session counts anew"


def test_two_processes_that_are_one_device_are_noticed() -> None:
    fleet = Fleet(("acc",))
    twins = []
    for session in (1, 2, 2, 3, 2, 3, 3, 4):
        fleet.told("a", presence(session=session), 0.0)
        twins.append(fleet.has_twin("a"))
    assert twins == [False, False, False, False, True, True, True, False]
    assert not fleet.has_twin("b")


def test_a_device_without_a_useful_modality_is_as_good_as_offline() -> None:
    fleet = Fleet(("acc",))
    assert fleet.told("a", presence(modalities=("acc", "mag")), 0.0) == DeviceOnline(device="a")
    assert fleet.told("a", presence(session=2, modalities=("mag",)), 1.0) == DeviceOffline(device="a")


def test_who_does_not_return_with_the_broker_is_lost() -> None:
    fleet = Fleet(("acc",))
    for name in ("back", "gone", "left", "heard"):
        fleet.told(name, presence(), 0.0)
    fleet.told("left", presence("offline"), 1.0)
    assert fleet.lost(1e6) == [], "the broker was never away"
    fleet.connected(10.0)
    fleet.told("back", presence(), 12.0)
    fleet.heard("heard", 1, 13.0)
    assert fleet.lost(10.0 + RETURN_S - 1) == []
    assert fleet.lost(10.0 + RETURN_S) == [DeviceOffline(device="gone")]
    assert fleet.lost(1e6) == []
    assert fleet.told("gone", presence(), 200.0) == DeviceOnline(device="gone")


def test_a_device_is_back_with_its_first_word_after_it_or_the_broker_was_away() -> None:
    fleet, offer = Fleet(("acc",)), Offer(knowledge={"acc": blob_ref(b"x")}, windows=1, metrics={})
    assert not fleet.is_back("a", presence())
    fleet.told("a", presence(), 1.0)
    assert not fleet.is_back("a", presence()) and not fleet.is_back("a", offer)
    assert fleet.is_back("a", presence(session=2))
    fleet.connected(10.0)
    assert fleet.is_back("a", presence()) and fleet.is_back("a", offer)
    fleet.heard("a", 1, 11.0)
    assert not fleet.is_back("a", presence())


def test_a_full_fleet_makes_room_for_the_living_and_refuses_when_all_live() -> None:
    fleet = Fleet(("acc",), most=3)
    for at_s, name in enumerate(("a", "b", "c")):
        fleet.told(name, presence(), float(at_s))
    with pytest.raises(WireError, match="more than 3 devices"):
        fleet.told("d", presence(), 5.0)
    assert fleet.told("a", presence(), 5.0) == DeviceOnline(device="a")
    fleet.told("a", presence("offline"), 6.0)
    fleet.told("b", presence("offline"), 6.0)
    assert fleet.told("d", presence(), 7.0) == DeviceOnline(device="d")
    assert set(fleet.seen_at_s) == {"a", "c", "d"}, "the one that was heard longest ago went"
