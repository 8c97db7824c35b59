"""A device with a privacy budget in a whole federation: it gives what it may, is missed by nobody, and says so."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.budget import Budget, PrivacySettings
from mekt.login import BrokerSettings
from mekt.messages import Offer, Presence
from mekt.noise import Mechanism
from mekt.watch import show_status
from tests.federation import Federation, federation
from tests.nursery import forked

ROUNDS, ROWS, NOISE = 4, 128, 20.0
COST = Mechanism(clip=1.0, noise_multiplier=NOISE).mu_squared(ROWS)
# For two rounds and no third.
BUDGET = Budget(PrivacySettings(noise_multiplier=NOISE, epsilon_budget=1.0)).epsilon(2.5 * COST)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Federation]:
    """Two devices, one of which has a budget. A round that waited for it after that would take a minute and a half."""
    made = federation(
        tmp_path,
        tmp_path,
        devices={"pi-budget": ("acc",), "pi-free": ("acc", "gyro")},
        rounds=ROUNDS,
        duration_s=100.0,
        launch=forked,
        rules="min_devices = 1\ndeadline_s = 90",
    )
    settings = tmp_path / "pi-budget" / "device.toml"
    privacy = f"[privacy]\nnoise_multiplier = {NOISE}\nepsilon_budget = {BUDGET}\n"
    settings.write_text(settings.read_text() + privacy)
    try:
        made.listen()
        yield made
    finally:
        made.end()


def test_a_device_whose_budget_is_spent_is_left_out_and_the_others_go_on(ward: Federation) -> None:
    ward.start("pi-budget", "pi-free")
    absent = set(ward.processes)
    while absent:
        # In whatever order they come.
        absent.discard(ward.until(Presence, state="online").device)
    ward.start("coordinator")
    reports = ward.finish().reports
    took_part = [each.round for each in reports if "pi-budget" in each.devices]
    # Whoever is heard first opens the first round, perhaps alone.
    assert took_part in ([1, 2], [2, 3])
    assert all(each.devices == ("pi-free",) for each in reports if each.round > took_part[-1])
    assert all(each.seconds["collect"] < 60 for each in reports if each.round)
    offers = [each.body for _, each in ward.heard if isinstance(each.body, Offer) and each.device == "pi-budget"]
    assert offers and all(each.metrics == {} for each in offers)
    told = [
        each.body.privacy
        for _, each in ward.heard
        if isinstance(each.body, Presence) and each.device == "pi-budget" and each.body.privacy is not None
    ]
    assert told[-1].is_spent and told[-1].epsilon <= BUDGET
    shown = io.StringIO()
    show_status(BrokerSettings(port=ward.broker.port), "ward", as_json=False, out=shown)
    [line] = [line for line in shown.getvalue().splitlines() if line.strip().startswith("pi-budget")]
    assert "epsilon" in line and "its privacy budget is spent" in line
