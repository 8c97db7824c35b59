"""The look from outside: what is retained on a real broker, as text and as JSON; the table of reports by hand."""

import io
import json
import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mekt.broker import Broker, free_port
from mekt.errors import LinkError
from mekt.link import Link
from mekt.login import BrokerSettings
from mekt.messages import Finding, Presence, Privacy, RolloutStatus, RoundReport, Status
from mekt.post import Post
from mekt.watch import MOST_DEVICES, View, Watch, kilobytes, report_table, show_status

REPORTS = (
    RoundReport(round=0, devices=(), metrics={"weighted_f1/acc": 0.5}, seconds={"score": 0.25, "classify": 1}),
    RoundReport(
        round=1,
        devices=("pi-1", "pi-2"),
        metrics={"weighted_f1/acc": 0.625, "weighted_f1/fused": 0.75, "variance": 0.1},
        seconds={"collect": 12.5, "distil": 3, "classify": 1, "score": 0.25, "export": 0.125},
        release="r",
    ),
)
STATUS = Status(
    phase="collecting",
    rounds=5,
    online=("pi-1", "pi-2"),
    waiting_for=("pi-2",),
    received=("pi-1",),
    reports=REPORTS,
    text="round 2 of 5: waiting for 1 of 2: pi-2",
)
LEARNING = Presence(
    state="online",
    session=1,
    activity="training",
    progress=0.5,
    modalities={"acc": "conv", "gyro": "lstm"},
    windows=64,
    up_bytes=1500,
    down_bytes=2_000_000,
)
GONE = Presence(state="offline", session=2, activity="idle", modalities={"acc": "conv"})


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


@pytest.fixture
def post(broker: Broker) -> Iterator[Post]:
    """The post of a federation in which something has happened."""
    link = Link(settings=BrokerSettings(port=broker.port), client_id="all", inbox=queue.Queue())
    link.start()
    made = Post("ward")
    made.use(link)
    yield made
    link.stop(2.0)


def shown(broker: Broker, *, as_json: bool = False) -> str:
    out = io.StringIO()
    assert show_status(BrokerSettings(port=broker.port), "ward", as_json=as_json, out=out) == 0
    return out.getvalue()


def say_all(post: Post) -> None:
    post.send(LEARNING, "up", device="pi-1", round=1, retain=True)
    post.send(GONE, "up", device="pi-2", retain=True)
    post.send(STATUS, "all", round=1, retain=True)


def test_people_read_where_the_federation_stands(broker: Broker, post: Post) -> None:
    say_all(post)
    lines = shown(broker).splitlines()
    assert lines[0] == "round 2 of 5: waiting for 1 of 2: pi-2"
    assert lines[1].split() == [
        *("pi-1", "training", "50%", "round", "2", "64", "windows", "1.5", "kB", "up", "2,000.0", "kB", "down"),
        *("acc", "(conv),", "gyro", "(lstm)"),
    ]
    assert lines[2].split()[:2] == ["pi-2", "offline"]
    assert lines[3] == "" and lines[4:] == report_table(STATUS)


def test_machines_read_the_same_as_json(broker: Broker, post: Post) -> None:
    say_all(post)
    told = json.loads(shown(broker, as_json=True))
    assert told["round"] == 1 and told["status"]["waiting_for"] == ["pi-2"]
    assert told["status"]["reports"][1]["metrics"]["weighted_f1/fused"] == 0.75
    assert list(told["devices"]) == ["pi-1", "pi-2"]
    assert told["devices"]["pi-1"]["round"] == 1 and told["devices"]["pi-1"]["progress"] == 0.5
    assert told["devices"]["pi-2"]["state"] == "offline"


def test_devices_without_a_coordinator_are_shown(broker: Broker, post: Post) -> None:
    post.send(LEARNING, "up", device="pi-1", retain=True)
    assert shown(broker).splitlines()[0] == "no coordinator has said anything here"
    assert json.loads(shown(broker, as_json=True))["status"] is None


def test_people_read_what_a_device_has_given_away(broker: Broker, post: Post) -> None:
    privacy = Privacy(epsilon=3.21, delta=1e-5, budget=8.0)
    post.send(replace(LEARNING, privacy=privacy), "up", device="pi-1", retain=True)
    post.send(replace(LEARNING, privacy=replace(privacy, is_spent=True)), "up", device="pi-2", retain=True)
    one, other = shown(broker).splitlines()[1:3]
    assert one.endswith("gyro (lstm)  epsilon 3.21 of 8 (delta 1e-05)")
    assert other.endswith("(delta 1e-05), sits out: its privacy budget is spent")
    assert json.loads(shown(broker, as_json=True))["devices"]["pi-1"]["privacy"]["epsilon"] == 3.21


def test_a_federation_that_nobody_speaks_of_is_an_error(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.watch.PATIENCE_S", 0.5)
    with pytest.raises(LinkError, match="nothing of a federation 'ward' is there; start its coordinator"):
        shown(broker)


def test_a_broker_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LinkError, match="nobody listens there"):
        show_status(BrokerSettings(port=free_port()), "ward", as_json=False, out=io.StringIO())


def test_garbage_is_passed_over_and_the_view_follows(broker: Broker, post: Post) -> None:
    watch = Watch(BrokerSettings(port=broker.port), "ward")
    watch.start()
    try:
        link: Any = post._link
        link.publish("mekt/1/ward/status", b"\xc1 garbage")
        link.publish("mekt/1/ward/up/pi-9/presence", b"")
        post.send(LEARNING, "up", device="pi-1", round=1)
        assert watch.look(15.0) == "pi-1"
        post.send(replace(LEARNING, activity="sending"), "up", device="pi-1", round=2)
        post.send(STATUS, "all", round=2)
        assert [watch.look(15.0), watch.look(15.0)] == ["pi-1", ""]
        assert watch.view.devices == {"pi-1": (2, replace(LEARNING, activity="sending"))}
        assert watch.view.status == STATUS and watch.view.round == 2
        assert watch.look(0.01) is None
    finally:
        watch.stop()


def test_any_number_of_people_may_look_at_once(broker: Broker, post: Post) -> None:
    say_all(post)
    watches = [Watch(BrokerSettings(port=broker.port), "ward") for _ in range(3)]
    try:
        for watch in watches:
            watch.start()
        for watch in watches:
            while watch.view.status is None or len(watch.view.devices) < 2:
                assert watch.look(15.0) is not None
    finally:
        for watch in watches:
            watch.stop()


def test_a_view_does_not_grow_for_ever(broker: Broker, post: Post) -> None:
    watch = Watch(BrokerSettings(port=broker.port), "ward")
    watch.view.devices.update({f"pi-{number}": (0, GONE) for number in range(MOST_DEVICES)})
    watch.start()
    try:
        # Retained, since the subscription may still be on its way.
        post.send(LEARNING, "up", device="one-too-many", retain=True)
        post.send(LEARNING, "up", device="pi-7", retain=True)
        assert watch.look(15.0) == "pi-7"
        assert len(watch.view.devices) == MOST_DEVICES
    finally:
        watch.stop()


ODD = Finding(name="odd-device", modality="acc", device="pi-1", evidence="it agrees with none", remedy="mend it")


def test_what_the_latest_report_found_stands_above_the_table(broker: Broker, post: Post) -> None:
    reports = (replace(REPORTS[0], findings=(replace(ODD, device=""),)), replace(REPORTS[1], findings=(ODD,)))
    post.send(replace(STATUS, reports=reports), "all", round=1, retain=True)
    lines = shown(broker).splitlines()
    assert lines[1:3] == ["round 1: odd-device pi-1 (acc): it agrees with none; mend it", ""]
    told = json.loads(shown(broker, as_json=True))["status"]["reports"]
    assert told[1]["findings"] == [
        {
            "name": "odd-device",
            "modality": "acc",
            "device": "pi-1",
            "evidence": "it agrees with none",
            "remedy": "mend it",
        }
    ]
    assert told[0]["findings"][0]["device"] == ""


def test_who_is_in_quarantine_and_how_far_devices_are_from_the_fleet_is_told_for_the_latest_round(
    broker: Broker, post: Post
) -> None:
    out = replace(ODD, name="quarantined", evidence="left out since round 1: it agrees with none")
    scores = {f"pi-{n}": 1.0 for n in range(1, 10)} | {"pi-7": 3.25, "pi-2": 1.25}
    reports = (
        replace(REPORTS[0], disagreement={"pi-1": 9.0}),
        replace(REPORTS[1], findings=(out,), disagreement=scores),
    )
    post.send(replace(STATUS, reports=reports), "all", round=1, retain=True)
    assert shown(broker).splitlines()[1:4] == [
        "round 1: quarantined pi-1 (acc): left out since round 1: it agrees with none; mend it",
        "round 1: disagreement with the fleet (1 is usual): pi-7 3.25, pi-2 1.25, pi-1 1.00, pi-3 1.00, pi-4 1.00, "
        "pi-5 1.00, pi-6 1.00, pi-8 1.00",
        "",
    ]
    told = json.loads(shown(broker, as_json=True))["status"]["reports"]
    assert told[1]["disagreement"] == scores and told[1]["findings"][0]["name"] == "quarantined"


def test_the_table_of_reports() -> None:
    assert report_table(STATUS) == [
        "                         weighted F1                                                seconds",
        "after round  devices     acc   fused    collect     distil   classify      score     export",
        "      start        -   0.500       -       0.00       0.00       1.00       0.25       0.00",
        "          1        2   0.625   0.750      12.50       3.00       1.00       0.25       0.12",
    ]


def test_a_table_of_nothing_has_its_head_alone() -> None:
    assert report_table(replace(STATUS, reports=())) == ["after round  devices"]


def test_a_phase_of_another_version_stands_behind_those_that_are_known() -> None:
    report = RoundReport(round=1, devices=(), metrics={}, seconds={"dance": 1, "score": 2})
    assert report_table(replace(STATUS, reports=(report,)))[0].split()[-2:] == ["score", "dance"]


def test_no_peer_speaks_to_the_terminal() -> None:
    bad = "\x1b[2J\r\n"
    found = replace(ODD, evidence=bad, remedy=bad)
    report = RoundReport(round=1, devices=(), metrics={f"f/{bad}": 1.0}, seconds={bad: 1.0}, findings=(found,))
    status = replace(STATUS, text=bad, reports=(report,))
    view = View(status=status, devices={"pi": (0, replace(LEARNING, modalities={"acc": bad}))})
    assert all(line.isprintable() for line in view.lines())


def test_bytes_for_people() -> None:
    assert kilobytes(0) == "      0.0 kB" and kilobytes(1_234_567) == "  1,234.6 kB"


def test_a_rollout_is_told_with_what_wearables_run() -> None:
    rollout = RolloutStatus(
        release="ward-00002",
        number=3,
        share=0.25,
        state="canary",
        wearables={"ward-00001": 9, "ward-00002": 2},
        states={"good": 1, "trial": 1},
        text="ward-00002 is on trial on 25% of wearables\x1b[2J",
    )
    view = View(status=replace(STATUS, rollout=rollout, reports=()))
    assert view.lines()[1:] == [
        "rollout 3: ward-00002 is on trial on 25% of wearables?[2J",
        "  wearables, how far: good 1, trial 1",
        "  wearables, running: ward-00001 9, ward-00002 2",
    ]
    assert view.plain()["status"]["rollout"]["wearables"] == {"ward-00001": 9, "ward-00002": 2}
