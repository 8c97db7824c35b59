"""Membership inference: its scores by hand, and that it finds members where there is something to find."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from bench.contenders.local import learn_locally
from bench.members import halves
from bench.membership import ATTACKS, Evidence, by_all_rounds, chosen, evidence, hit, joined
from mekt.encoders import SplitAutoencoder
from mekt.plan import Architecture
from sensors.normalise import normalise
from tests.bench import small

MEMBER = np.array([True, True, False, False])


def test_hits_by_hand() -> None:
    assert hit(np.array([4, 3, 2, 1], np.float32), MEMBER).auc == 1.0
    assert hit(np.array([1, 2, 3, 4], np.float32), MEMBER).auc == 0.0
    assert hit(np.array([4, 1, 3, 2], np.float32), MEMBER).auc == 0.5
    assert hit(np.array([4, 2, 2, 1], np.float32), MEMBER).auc == 0.875
    assert hit(np.zeros(4, np.float32), MEMBER).auc == 0.5


def test_at_one_percent_of_false_alarms_one_of_two_hundred_others_may_lie_above() -> None:
    others, members = np.arange(200.0), np.array([197.5, 198.5, 300.0])
    score = np.concatenate([members, others]).astype(np.float32)
    found = hit(score, np.arange(203) < 3)
    # Two of the others are one per cent: those at 198 and 199.
    assert found.tpr == 1.0
    assert hit(np.concatenate([members - 2, others]).astype(np.float32), np.arange(203) < 3).tpr == pytest.approx(1 / 3)


def test_an_attack_without_members_or_without_others_is_none() -> None:
    for member in (np.zeros(3, bool), np.ones(3, bool)):
        with pytest.raises(ValueError, match="none of one kind"):
            hit(np.zeros(3, np.float32), member)


def test_what_shadows_teach_is_used_on_the_attacked() -> None:
    chance = np.random.default_rng(0)
    member = np.arange(400) < 200

    def told(sign: float) -> Evidence:
        traces = chance.normal(size=(400, 3)).astype(np.float32)
        traces[:, 1] += sign * member
        return Evidence(traces=(traces,), lead=traces[:, 1], is_member=member)

    assert hit(by_all_rounds([told(1.0), told(1.0)], told(1.0)), member).auc > 0.7
    assert hit(by_all_rounds([told(-1.0)], told(-1.0)), member).auc > 0.7
    assert hit(by_all_rounds([told(1.0)], told(-1.0)), member).auc < 0.3


def rounds_of(chance: np.random.Generator, trace: float, rounds: int = 4) -> list[Evidence]:
    """What each of so many rounds says of 2000 candidates; members lie `trace` deviations off, each round by itself."""
    member = np.arange(2000) < 1000
    noise = chance.normal(size=(rounds, 2000, 10))
    noise[:, :, 0] += trace * member
    return [
        Evidence(traces=(each.astype(np.float32),), lead=each[:, 0].astype(np.float32), is_member=member)
        for each in noise
    ]


def test_what_several_rounds_say_adds_up() -> None:
    chance = np.random.default_rng(1)
    device, *shadows = (reduce(joined, rounds_of(chance, 0.5)) for _ in range(4))
    # Four times half a deviation come to one, of which the area is 0.760; half a one's is 0.638, to 0.01 by chance.
    areas = {name: hit(attack(shadows, device), device.is_member).auc for name, attack in ATTACKS.items()}
    assert areas == pytest.approx({"all": 0.760, "last": 0.638, "loss": 0.760}, abs=0.05)


def test_where_nothing_is_to_be_found_more_rounds_find_nothing() -> None:
    chance = np.random.default_rng(2)
    device, *shadows = (reduce(joined, rounds_of(chance, 0.0)) for _ in range(4))
    for attack in ATTACKS.values():
        assert hit(attack(shadows, device), device.is_member).auc == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    # What the first round shows of each shadow and the second of all; in the middle the first one misleads.
    ("attack", "early", "late"),
    [("all", (3, 3, 3), 0), ("last", (2, 2, -2), 1), ("loss", (0, 0, 0), 0)],
)
def test_the_attack_is_chosen_that_tells_most_of_the_shadows(attack: str, early: Sequence[float], late: float) -> None:
    chance = np.random.default_rng(3)
    shadows = []
    for trace in early:
        [first], [second] = rounds_of(chance, trace, 1), rounds_of(chance, late, 1)
        lead = first.is_member.astype(np.float32) if attack == "loss" else np.zeros_like(first.lead)
        shadows.append(replace(joined(first, second), lead=lead))
    assert chosen(shadows) == attack
    assert chosen(shadows[:1]) == "all"


@pytest.mark.parametrize("contrast", [0.0, 1.0])
def test_a_model_that_has_learned_its_windows_by_heart_gives_them_away(contrast: float) -> None:
    architectures: dict[str, Architecture] = {"acc": "conv", "gyro": "conv"}
    arena = small.arena()
    plan = small.plan(arena, local_epochs=150, contrast=contrast, augment=0.0, local_rate=5e-3, embedding=16, hidden=64)
    windows = {
        name: normalise(array, arena.datasets.scaling[name]) for name, array in small.person(7, 60.0).arrays.items()
    }
    inside, outside = halves(len(windows["acc"]), small.SPEC, 0)
    members = {name: array[inside] for name, array in windows.items()}
    outsiders = {name: array[outside] for name, array in windows.items()}
    reference, model = SplitAutoencoder(plan, architectures), SplitAutoencoder(plan, architectures)
    learn_locally(model, members, plan, 0, 0)
    found = evidence([model], reference, [], plan, members, outsiders)
    assert found.traces[0].shape == (len(inside) + len(outside), 10) and np.isfinite(found.traces[0]).all()
    assert hit(found.lead, found.is_member).auc > 0.7
    assert hit(-found.traces[0][:, 0], found.is_member).auc > 0.9
    # What one is ahead of the other, the other is behind.
    behind = evidence([reference], reference, [[model]], plan, members, outsiders)
    assert hit(behind.lead, behind.is_member).auc == pytest.approx(1 - hit(found.lead, found.is_member).auc)
    both = evidence([model, reference], reference, [[reference, model]], plan, members, outsiders)
    assert both.traces[0].shape[1] == 20 and np.abs(both.lead).max() < 1e-5
    for others in ([], [[reference]]):
        nothing = evidence([reference], reference, others, plan, members, outsiders)
        assert hit(nothing.lead, nothing.is_member).auc == 0.5
