"""The self test of installers: gravity, or what is wrong."""

from collections.abc import Sequence

import numpy as np
import pytest

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.rest import Rest, at_rest
from sensors.source import Block, Gap, Item

ACC = Modality(name="acc", shape=(3,), rate_hz=50, unit="g")


class Still:
    """A source that gives ten samples of `values` (n, 3) a read; time passes as it is read."""

    modalities: tuple[Modality, ...] = (ACC,)

    def __init__(self, values: object, *, fails: bool = False) -> None:
        self.values, self.at, self.now_s, self.fails = np.asarray(values, np.float32), 0, 0.0, fails
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        assert 0 < timeout_s <= 0.5
        if self.fails:
            raise SensorError("gone", catalogue.SENSOR_UNUSABLE)
        if self.at >= len(self.values):
            return None
        values = self.values[self.at : self.at + 10]
        t_s = (self.at + np.arange(len(values))) / 50
        self.at += 10
        self.now_s += 0.2
        return [
            Gap(modalities=("acc",)),
            Block(modality="acc", t_s=t_s, values=values),
            Block(modality="x", t_s=t_s, values=values),
        ]

    def close(self) -> None:
        self.calls.append("close")


def seen(vector: Sequence[float], noise: float = 0.004) -> Rest:
    values = np.array(vector) + np.random.default_rng(1).normal(0, noise, (150, 3))
    source = Still(values)
    rest = at_rest(source, clock=lambda: source.now_s)
    assert source.calls == ["open", "close"]
    return rest


def test_gravity_is_as_it_should_be_whichever_way_it_points() -> None:
    rest = seen([0.1, -0.99, 0.05])
    assert (rest.ok, rest.still, rest.samples, rest.up) == (True, True, 150, "-y")
    assert rest.g == pytest.approx(0.996, abs=0.002)
    assert rest.rate_hz == pytest.approx(50)
    assert rest.text == "|g| = 0.996 +- 0.006 g, -y is up, 50.0 Hz: as it should be, if -y is what points up"


@pytest.mark.parametrize(
    ("vector", "noise", "said"),
    [
        ([0, 0, 9.8], 0.04, "the driver's scale gives m/s2 for g: it is too large by 9.8; correct the scale"),
        ([0.102, 0, 0], 0.001, "the driver's scale gives g for m/s2: it is too small by 9.8; correct the scale"),
        ([0, 0, 0.01], 0.001, "it feels no gravity"),
        ([0, 0, 2.0], 0.004, "expected 1 g; look at scale, offset and mount_matrix"),
        ([0, 0, 1.0], 0.2, "it moves; lay it down and try again"),
    ],
)
def test_what_is_wrong_is_named(vector: Sequence[float], noise: float, said: str) -> None:
    rest = seen(vector, noise)
    assert not rest.ok
    assert said in rest.text


def test_samples_that_are_no_numbers_do_not_count() -> None:
    values = np.tile([0.0, 0.0, 1.0], (60, 1))
    values[::3] = np.nan
    values[1::3, 0] = np.inf
    source = Still(values)
    rest = at_rest(source, clock=lambda: source.now_s)
    assert (rest.samples, rest.g, rest.spread_g) == (20, 1.0, 0.0)


def test_too_few_samples_say_so() -> None:
    source = Still(np.ones((19, 3)))
    with pytest.raises(SensorError, match=r"^acc: 19 samples in 3 s; look whether it measures, or give it longer$"):
        at_rest(source, clock=lambda: source.now_s)


def test_a_source_that_fails_is_closed() -> None:
    source = Still(np.ones((19, 3)), fails=True)
    with pytest.raises(SensorError, match="gone"):
        at_rest(source)
    assert source.calls == ["open", "close"]


@pytest.mark.parametrize("unlike", [{"unit": "m/s2"}, {"shape": (6,)}, {"name": "gyro"}])
def test_what_is_no_acceleration_is_not_looked_at(unlike: dict[str, object]) -> None:
    source = Still(np.ones((150, 3)))
    fields = {"name": "acc", "shape": (3,), "rate_hz": 50, "unit": "g"} | unlike
    source.modalities = (Modality(**fields),)  # type: ignore[arg-type]
    with pytest.raises(SensorError, match="acc: is no acceleration in g along three axes; the source has"):
        at_rest(source)
    assert source.calls == []
