"""Epsilon of releases under Gaussian noise: worked values, laws, and Google's accountant where it is installed."""

import builtins
import math
from typing import Any

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.accounting import accountant, delta_of, epsilon_of, mu_of
from mekt.errors import MissingPackageError

LIBRARY = "dp_accounting"
MUS = st.floats(0.01, 400)
DELTAS = st.sampled_from([1e-9, 1e-6, 1e-5, 1e-3])


def exact_delta(epsilon: float, mu: float) -> float:
    """Balle and Wang's theorem 8 as it stands, in three hundred digits."""
    with mpmath.workdps(300):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        return float(mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m))


def test_one_release_with_noise_as_large_as_its_sensitivity_has_the_published_epsilon() -> None:
    assert epsilon_of(1.0, 1e-5) == pytest.approx(4.377178, abs=1e-6)


@pytest.mark.parametrize(
    ("epsilon", "mu"), [(0.0, 0.5), (0.1, 1.0), (4.0, 1.0), (60.0, 10.0), (2500.0, 64.0), (2e4, 190.0), (60.0, 1.2)]
)
def test_delta_is_that_of_the_formula_in_many_digits(epsilon: float, mu: float) -> None:
    assert delta_of(epsilon, mu * mu) == pytest.approx(exact_delta(epsilon, mu), rel=1e-9, abs=1e-300)


@given(MUS, DELTAS)
def test_epsilon_is_the_smallest_that_holds(mu: float, delta: float) -> None:
    epsilon = epsilon_of(mu * mu, delta)
    assert delta_of(epsilon, mu * mu) <= delta
    if epsilon > 0:
        assert delta_of(epsilon * (1 - 1e-9), mu * mu) >= delta * (1 - 1e-9)


@given(MUS, MUS, DELTAS)
def test_what_gives_away_more_has_a_larger_epsilon(mu: float, more: float, delta: float) -> None:
    assert epsilon_of(mu * mu + more * more, delta) >= epsilon_of(mu * mu, delta)


def test_nothing_released_is_nothing_given_away_and_no_noise_is_everything() -> None:
    assert epsilon_of(0.0, 1e-5) == 0.0
    assert epsilon_of(math.inf, 1e-5) == math.inf
    assert mu_of(3.0, 0.0) == math.inf
    assert delta_of(5.0, math.inf) == 1.0


@given(st.integers(1, 200), st.floats(0.3, 300))
def test_the_library_agrees_on_any_number_of_releases(count: int, noise: float) -> None:
    pytest.importorskip(LIBRARY)
    by_library = accountant("dp-accounting")
    mu_squared = count / noise**2
    assert by_library(mu_squared, 1e-5) == pytest.approx(epsilon_of(mu_squared, 1e-5), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("noise", "count"), [(1.0, 1), (2.0, 24), (0.5, 8)])
def test_the_librarys_renyi_accountant_is_an_upper_bound_and_near(noise: float, count: int) -> None:
    dp = pytest.importorskip(LIBRARY)
    renyi = dp.rdp.RdpAccountant().compose(dp.GaussianDpEvent(noise), count).get_epsilon(1e-5)
    ours = epsilon_of(count / noise**2, 1e-5)
    assert ours <= renyi <= 1.15 * ours


def test_a_missing_library_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == LIBRARY:
            raise ImportError("no module named dp_accounting")
        return there(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingPackageError, match=r"pip install .*\[privacy\]"):
        accountant("dp-accounting")
