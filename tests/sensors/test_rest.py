"""What installers are told of gravity."""

from collections.abc import Sequence

import numpy as np
import pytest

from sensors.rest import Rest, rest


def seen(vector: Sequence[float], noise: float = 0.004) -> Rest:
    values = np.array(vector) + np.random.default_rng(1).normal(0, noise, (150, 3))
    return rest(values.astype(np.float32))


def test_gravity_is_as_it_should_be_whichever_way_it_points() -> None:
    there = seen([0.1, -0.99, 0.05])
    assert (there.ok, there.still, there.up) == (True, True, "-y")
    assert there.g == pytest.approx(0.996, abs=0.002)
    assert there.seen == "|g| = 0.996 +- 0.006 g, -y is up"


@pytest.mark.parametrize(
    ("vector", "noise", "said"),
    [
        ([0, 0, 9.8], 0.04, "the driver's scale gives m/s2 for g: it is too large by 9.8: correct the scale"),
        ([0.102, 0, 0], 0.001, "the driver's scale gives g for m/s2: it is too small by 9.8: correct the scale"),
        ([0, 0, 0.01], 0.001, "it feels no gravity"),
        ([0, 0, 2.0], 0.004, "1 g was expected: look at scale, offset and mounting"),
        ([0, 0, 1.0], 0.2, "it moves: lay it down and try again"),
    ],
)
def test_what_is_wrong_is_named(vector: Sequence[float], noise: float, said: str) -> None:
    there = seen(vector, noise)
    assert not there.ok
    assert said in there.remedy
