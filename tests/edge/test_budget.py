"""A privacy budget: what a round costs, until when rounds are taken part in, and what is told of it."""

import math

import pytest

from edge.budget import Budget, PrivacySettings, budget_of
from mekt.accounting import epsilon_of
from mekt.schema import SchemaError, build
from tests.edge.conftest import ACC, GYRO, PROXY, plan_of

PLAN = plan_of(ACC, GYRO)
SETTINGS = PrivacySettings(clip=2.0, noise_multiplier=10.0, epsilon_budget=8.0)
BUDGET = Budget(SETTINGS)
# Of one matrix of twelve rows, each of which may move by twice the bound: (sqrt(12) * 2 / 10)^2.
ONE = PROXY * 4 / 100


def test_a_round_costs_the_square_of_its_sensitivity_over_its_noise_for_each_modality() -> None:
    assert BUDGET.cost(PLAN, 1) == pytest.approx(ONE)
    assert BUDGET.cost(PLAN, 2) == pytest.approx(2 * ONE)


def test_more_views_of_the_proxy_set_and_hidden_layers_cost_more() -> None:
    assert BUDGET.cost(plan_of(ACC, GYRO, method={"knowledge_rows": 3 * PROXY}), 1) == pytest.approx(3 * ONE)
    assert BUDGET.cost(plan_of(ACC, GYRO, method={"beta": 1.0}), 1) == pytest.approx(2 * ONE)


def test_the_bound_itself_costs_nothing_as_the_noise_grows_with_it() -> None:
    wider = Budget(PrivacySettings(clip=50.0, noise_multiplier=10.0, epsilon_budget=8.0))
    assert wider.cost(PLAN, 2) == pytest.approx(BUDGET.cost(PLAN, 2))


def test_rounds_are_allowed_until_the_next_would_exceed_the_budget() -> None:
    cost, spent, rounds = BUDGET.cost(PLAN, 2), 0.0, 0
    while BUDGET.allows(spent, cost):
        spent, rounds = spent + cost, rounds + 1
    assert rounds == max(count for count in range(100) if epsilon_of(count * cost, 1e-5) <= 8.0)
    assert BUDGET.epsilon(spent) <= 8.0 < BUDGET.epsilon(spent + cost)
    assert "privacy budget: epsilon" in BUDGET.refusal(spent, cost) and "over the budget of 8" in BUDGET.refusal(0, 9.0)


def test_what_is_told_names_delta_and_budget_and_whether_a_round_is_left() -> None:
    fresh = BUDGET.told(0.0, BUDGET.cost(PLAN, 2))
    assert (fresh.epsilon, fresh.delta, fresh.budget, fresh.is_spent) == (0.0, 1e-5, 8.0, False)
    assert BUDGET.told(100.0, 1.0).is_spent and not BUDGET.told(100.0, None).is_spent
    assert math.isfinite(BUDGET.told(1e300, None).epsilon)


def test_without_settings_there_is_no_budget() -> None:
    assert budget_of(None) is None
    assert budget_of(SETTINGS) is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [("clip", 0), ("noise_multiplier", 0), ("epsilon_budget", 0), ("delta", 0), ("delta", 0.7), ("accountant", "me")],
)
def test_settings_that_protect_nothing_are_refused(key: str, value: object) -> None:
    table = {"noise_multiplier": 10.0, "epsilon_budget": 8.0, key: value}
    with pytest.raises(SchemaError, match=key):
        build(PrivacySettings, table, "privacy")
