"""What releases under Gaussian noise give away: epsilon for a delta, composed over all of them. Pure.

One release of something that a device's whole private data can move by at most `sensitivity` (L2), with Gaussian noise
of deviation `noise` in each number, is mu-Gaussian differentially private with mu = sensitivity / noise. Releases that
follow one another, each free to depend on what the earlier ones showed, compose to mu^2 = sum of their mu^2, without
loss (Dong, Roth, Su, arXiv 1905.02383, corollaries 2 and 3). What that is as (epsilon, delta) is exact as well: Balle
and Wang, arXiv 1805.06530, theorem 8.
"""

import math
from collections.abc import Callable
from typing import Literal

from mekt import catalogue
from mekt.errors import MissingPackageError

Accountant = Literal["exact", "dp-accounting"]
# From here on 1 - Phi(x) is taken from its asymptotic series: exp(-x^2 / 2) is then too small to divide by.
FAR = 25.0
ROOT_TWO_PI = math.sqrt(2 * math.pi)
REMEDY = 'in the folder of Mekt: pip install -c constraints.txt -e ".[privacy]"'


def mu_of(sensitivity: float, noise: float) -> float:
    """What one release gives away, as mu; infinite without noise."""
    return math.inf if noise == 0 else sensitivity / noise


def delta_of(epsilon: float, mu_squared: float) -> float:
    """The smallest delta for which releases of this mu^2 together are (epsilon, delta)-differentially private.

    delta = Phi(mu / 2 - epsilon / mu) - e^epsilon * Phi(-mu / 2 - epsilon / mu). e^epsilon overflows where noise is
    small, so the second term is written as phi(a) * (1 - Phi(b)) / phi(b), with a and b as below.
    """
    if mu_squared == 0:
        return 0.0
    if math.isinf(mu_squared):
        return 1.0
    mu = math.sqrt(mu_squared)
    a, b = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    tail = 0.5 * math.erfc(a / math.sqrt(2))
    return max(0.0, tail - math.exp(-a * a / 2) / ROOT_TWO_PI * _mills(b))


def epsilon_of(mu_squared: float, delta: float) -> float:
    """The smallest epsilon that holds at this delta; 0 where nothing was released, infinite without noise."""
    if math.isinf(mu_squared):
        return math.inf
    if delta_of(0.0, mu_squared) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(high, mu_squared) > delta:
        low, high = high, 2 * high
    # Ends where no float lies between the two; the upper one is given, so that rounding never flatters.
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if delta_of(middle, mu_squared) > delta else (low, middle)
    return high


def accountant(name: Accountant) -> Callable[[float, float], float]:
    """(mu^2, delta) -> epsilon, by the formula above or by Google's library of the same name.

    Raises:
        MissingPackageError: when the library is not installed.
    """
    if name == "exact":
        return epsilon_of
    try:
        from dp_accounting import get_epsilon_gaussian
    except ImportError as error:
        raise MissingPackageError(
            f'privacy.accountant: "dp-accounting" is not installed ({error}); {REMEDY}', catalogue.PACKAGE_MISSING
        ) from error

    def by_library(mu_squared: float, delta: float) -> float:
        if mu_squared == 0 or math.isinf(mu_squared):
            return mu_squared
        return float(get_epsilon_gaussian(1 / math.sqrt(mu_squared), delta))

    return by_library


def _mills(x: float) -> float:
    """(1 - Phi(x)) / phi(x) of x >= 0; between 25 and infinity good to 15 digits."""
    if x < FAR:
        return 0.5 * math.erfc(x / math.sqrt(2)) * ROOT_TWO_PI * math.exp(x * x / 2)
    total = term = 1.0
    for step in range(1, 12):
        term *= -(2 * step - 1) / (x * x)
        total += term
    return total / x
