"""Devices that come late, leave, and are back after many rounds: nobody has to do anything about it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mekt.messages import Presence, Status
from tests.federation import LITTLE, Federation, federation
from tests.nursery import forked

DEVICES = {"pi-stays": ("acc", "gyro"), "pi-leaves": ("gyro",), "pi-late": ("acc",)}
ROUNDS = 12


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Federation]:
    """A federation that waits for nobody for long, and of which nothing runs yet but the broker."""
    rules = "min_devices = 1\ndeadline_s = 20"
    sizes: dict[str, Any] = {"rounds": ROUNDS, "duration_s": 100.0, "method": LITTLE}
    made = federation(tmp_path, tmp_path, devices=DEVICES, launch=forked, rules=rules, **sizes)
    try:
        made.listen()
        yield made
    finally:
        made.end()


def heard_at(ward: Federation, number: int) -> Status:
    """The status once so many rounds are done."""
    while True:
        status = ward.until(Status).body
        assert isinstance(status, Status)
        if status.reports and status.reports[-1].round >= number:
            return status


def test_who_comes_late_leaves_or_is_back_after_many_rounds_takes_part(ward: Federation) -> None:
    ward.start("coordinator", "pi-leaves")
    ward.until(Presence, device="pi-leaves", activity="training", round=0)
    ward.start("pi-stays")
    heard_at(ward, 2)
    process = ward.processes.pop("pi-leaves")
    process.kill()
    process.wait()
    ward.start("pi-late")
    heard_at(ward, 7)
    ward.start("pi-leaves")
    reports = {each.round: set(each.devices) for each in ward.finish().reports}
    ward.stop()
    assert set(reports) == set(range(ROUNDS + 1))
    took_part = {name: [number for number, who in reports.items() if name in who] for name in DEVICES}
    assert 1 in took_part["pi-leaves"], "alone at first"
    assert took_part["pi-stays"][0] <= 3 and took_part["pi-stays"][-1] == ROUNDS
    assert took_part["pi-late"][0] >= 3 and took_part["pi-late"][-1] == ROUNDS
    # Away for rounds on end, and back: what it had learned was for a round long over.
    away = [number for number in range(1, ROUNDS + 1) if number not in took_part["pi-leaves"]]
    assert len(away) >= 3 and max(took_part["pi-leaves"]) > max(away)
