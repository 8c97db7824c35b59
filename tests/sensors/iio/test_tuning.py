"""Which rate and which range a driver is asked for, in the words that it offers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.iio.tuning import nearest, scale_for

LSM6DSX = "12.500 26.000 52.000 104.000 208.000 416.000 833.000"
BMC150 = "15.620000 31.260000 62.500000 125 250 500 1000 2000"
MPU_ACCEL, MPU_GYRO = "0.000598 0.001196 0.002392 0.004785", "0.000133090 0.000266181 0.000532362 0.001064724"
G = 9.80665


@pytest.mark.parametrize(
    ("available", "rate_hz", "word"),
    [
        (LSM6DSX, 50, "52.000"),
        (LSM6DSX, 0.1, "12.500"),
        (LSM6DSX, 9999, "833.000"),
        (BMC150, 50, "62.500000"),
        ("10 20 50 100 200 500", 50, "50"),
        # Of two that are as near the higher: samples can be left out, not made up.
        ("25 75", 50, "75"),
        ("75 25", 50, "75"),
        # 0 stops a timer.
        ("0 400", 1, "400"),
        ("[1 1 1000]", 50.4, "50"),
        ("[0.781250 0.001 200.5]", 50, "50.00025"),
        ("[0 1 100]", 0.2, "1"),
        ("[4 0 100]", 7.25, "7.25"),
        ("[4 1 100]", 1, "4"),
        ("[4 1 100]", 1000, "100"),
        (None, 50, "50"),
        (None, 12.5, "12.5"),
    ],
)
def test_the_nearest_rate_is_asked_for_in_the_drivers_word(available: str | None, rate_hz: float, word: str) -> None:
    assert nearest(available, rate_hz) == word


@pytest.mark.parametrize("available", ["", "0", "[1 2]", "[1 2 3 4]", "[5 1 2]", "[0 1 0]", "fast", "nan", "[1 -1 5]"])
def test_what_offers_no_rate_is_refused(available: str) -> None:
    with pytest.raises(ValueError):
        nearest(available, 50)


@given(st.text(max_size=40) | st.from_regex(r"\[?[0-9. e+-]{0,30}\]?", fullmatch=True), st.floats(0.1, 1e4))
def test_any_offer_gives_a_rate_above_0_or_is_refused(available: str, rate_hz: float) -> None:
    try:
        word = nearest(available, rate_hz)
    except ValueError:
        return
    assert float(word) > 0


@pytest.mark.parametrize(
    ("available", "largest", "word"),
    [
        (MPU_ACCEL, 2 * G, "0.000598"),
        (MPU_ACCEL, 2.1 * G, "0.001196"),
        (MPU_ACCEL, 8 * G, "0.002392"),
        (MPU_ACCEL, 100 * G, "0.004785"),
        (MPU_GYRO, 17, "0.000532362"),
        ("0.002392 0.000598", 0, "0.000598"),
    ],
)
def test_the_finest_scale_that_holds_the_largest_value_is_asked_for(available: str, largest: float, word: str) -> None:
    assert scale_for(available, largest, 16) == word


@pytest.mark.parametrize("available", ["", "0.1 inf", "small"])
def test_what_offers_no_scale_is_refused(available: str) -> None:
    with pytest.raises(ValueError):
        scale_for(available, 1, 16)
