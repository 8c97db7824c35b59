"""ST's chips, register by register: two kinds of FIFO behind the same settings."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import SensorError
from sensors.chip import Wish
from sensors.i2c import I2cDevice
from sensors.lsm6ds import LSM6DS3, LSM6DSO, RATES_HZ, Lsm6ds, Model, untagged
from tests.sensors.i2c_bench import SMBUS_FUNCTIONS, Bench, FakeLsm, FakeLsm6ds3, FakeLsm6dso, counts, little

AT = 0x6A
BOTH = Wish(acc=True, gyro=True, rate_hz=50.0, acc_range_g=8, gyro_range_dps=1000)
KINDS = [(LSM6DS3, FakeLsm6ds3), (LSM6DSO, FakeLsm6dso)]
G, DPS = 0.244e-3, 0.035


def chip(bench: Bench, fake: FakeLsm, model: Model, wish: Wish = BOTH) -> Lsm6ds:
    bench.plug(AT, fake)
    device = I2cDevice("1", AT, root=bench.folder, ioctl=bench.ioctl)
    device.open()
    return Lsm6ds(device, model, wish, bench.wait)


def test_an_lsm6ds3_is_set_up_by_exactly_these_writes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    chip(bench, FakeLsm6ds3(), LSM6DS3).start(fifo=True)
    assert bench.settings_written(AT) == [
        (0x12, 0x01),  # reset
        (0x12, 0x44),  # block data update, counting on
        (0x10, 0x3C),  # 52 Hz, 8 g
        (0x11, 0x38),  # 52 Hz, 1000 degrees per second
        (0x0A, 0x00),  # FIFO emptied,
        (0x08, 0x09),  # both sensors undecimated,
        (0x0A, 0x1E),  # 52 Hz, continuous
    ]


def test_an_lsm6dso_is_set_up_by_exactly_these_writes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    chip(bench, FakeLsm6dso(), LSM6DSO).start(fifo=True)
    assert bench.settings_written(AT) == [
        (0x12, 0x01),
        (0x12, 0x44),
        (0x10, 0x3C),
        (0x11, 0x38),
        (0x0A, 0x00),
        (0x09, 0x33),  # both sensors batched at 52 Hz
        (0x0A, 0x06),
    ]


# How many samples of an LSM6DSM's gyroscope Linux drops while its filters settle (`samples_to_discard`).
@pytest.mark.parametrize(("model", "fake"), KINDS)
@pytest.mark.parametrize(("rate_hz", "settling"), [(12.5, 2), (26, 5), (52, 7), (104, 12), (208, 20), (416, 36)])
def test_no_sample_is_given_that_was_taken_while_the_filters_settled(
    tmp_path: Path, model: Model, fake: Any, rate_hz: float, settling: int
) -> None:
    bench, there = Bench(tmp_path), fake(fast=0.03)
    lsm = chip(bench, there, model, replace(BOTH, rate_hz=rate_hz))
    lsm.start(fifo=True)
    bench.wait(0.5)
    batch = lsm.take(lsm.fill())
    assert batch.acc is not None
    first = round(float(batch.acc[0, 0]) / G)
    assert counts(first)[0] == first and settling <= first < settling + 0.2 * rate_hz + 5


@pytest.mark.parametrize(
    ("acc", "gyro", "written"),
    [(True, False, {0x10: 0x3C, 0x11: 0x00, 0x09: 0x03}), (False, True, {0x10: 0x00, 0x11: 0x38, 0x09: 0x30})],
)
def test_a_sensor_that_is_not_wished_for_stays_off(
    tmp_path: Path, acc: bool, gyro: bool, written: dict[int, int]
) -> None:
    bench = Bench(tmp_path)
    wish = Wish(acc=acc, gyro=gyro, rate_hz=50.0, acc_range_g=8, gyro_range_dps=1000)
    chip(bench, FakeLsm6dso(), LSM6DSO, wish).start(fifo=True)
    assert {register: dict(bench.settings_written(AT))[register] for register in written} == written


@pytest.mark.parametrize(("model", "identities"), [(LSM6DS3, (0x69, 0x6A)), (LSM6DSO, (0x6C,))])
def test_each_model_knows_itself_and_no_other(tmp_path: Path, model: Model, identities: tuple[int, ...]) -> None:
    bench, fake = Bench(tmp_path), FakeLsm6dso()
    lsm = chip(bench, fake, model)
    for identity in range(256):
        fake.registers[0x0F] = identity
        if identity in identities:
            lsm.identify()
        else:
            with pytest.raises(SensorError, match=f"its identity reads {identity:#04x}, expected {identities[0]:#04x}"):
                lsm.identify()


@pytest.mark.parametrize(("model", "fake"), KINDS)
@pytest.mark.parametrize(("wanted_hz", "has_hz"), [(1, 12.5), (50, 52.0), (100, 104.0), (2000, 1666.0), (300, 208.0)])
def test_the_rate_is_the_nearest_of_the_chips(
    tmp_path: Path, model: Model, fake: Any, wanted_hz: float, has_hz: float
) -> None:
    wish = Wish(acc=True, gyro=True, rate_hz=wanted_hz, acc_range_g=8, gyro_range_dps=1000)
    there = fake()
    lsm = chip(Bench(tmp_path), there, model, wish)
    lsm.start(fifo=False)
    assert lsm.rate_hz == has_hz == there.rate_hz()
    assert has_hz in RATES_HZ


@pytest.mark.parametrize(
    ("acc_g", "bits", "mg"), [(2, 0b00, 0.061), (4, 0b10, 0.122), (8, 0b11, 0.244), (16, 0b01, 0.488)]
)
def test_acceleration_has_the_data_sheets_bits_and_sensitivity(
    tmp_path: Path, acc_g: Any, bits: int, mg: float
) -> None:
    bench = Bench(tmp_path)
    wish = Wish(acc=True, gyro=False, rate_hz=50.0, acc_range_g=acc_g, gyro_range_dps=1000)
    lsm = chip(bench, FakeLsm6dso(source=lambda k: (1000, -1000, 32767, 0, 0, 0)), LSM6DSO, wish)
    lsm.start(fifo=True)
    assert dict(bench.settings_written(AT))[0x10] >> 2 & 3 == bits
    bench.wait(0.05)
    batch = lsm.take(lsm.fill())
    assert batch.acc is not None and batch.gyro is None
    np.testing.assert_allclose(batch.acc[0], np.array([1000, -1000, 32767]) * mg / 1000, rtol=1e-6)


@pytest.mark.parametrize(
    ("gyro_dps", "bits", "mdps"),
    [(125, 0b001, 4.375), (250, 0b000, 8.75), (500, 0b010, 17.5), (1000, 0b100, 35.0), (2000, 0b110, 70.0)],
)
def test_rotation_has_the_data_sheets_bits_and_sensitivity(
    tmp_path: Path, gyro_dps: Any, bits: int, mdps: float
) -> None:
    bench = Bench(tmp_path)
    wish = Wish(acc=False, gyro=True, rate_hz=50.0, acc_range_g=8, gyro_range_dps=gyro_dps)
    lsm = chip(bench, FakeLsm6ds3(source=lambda k: (0, 0, 0, 1000, -1000, 32767)), LSM6DS3, wish)
    lsm.start(fifo=True)
    assert dict(bench.settings_written(AT))[0x11] >> 1 & 7 == bits
    bench.wait(0.05)
    batch = lsm.take(lsm.fill())
    assert batch.gyro is not None and batch.acc is None
    np.testing.assert_allclose(batch.gyro[0], np.radians(np.array([1000, -1000, 32767]) * mdps / 1000), rtol=1e-6)


@pytest.mark.parametrize(("model", "fake"), KINDS)
@pytest.mark.parametrize(("acc", "gyro"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("functions", [1, SMBUS_FUNCTIONS])
def test_the_fifo_is_fetched_whole_and_in_order(
    tmp_path: Path, model: Model, fake: Any, acc: bool, gyro: bool, functions: int
) -> None:
    wish = Wish(acc=acc, gyro=gyro, rate_hz=104.0, acc_range_g=8, gyro_range_dps=1000)
    bench, there = Bench(tmp_path, functions=functions), fake()
    lsm = chip(bench, there, model, wish)
    lsm.start(fifo=True)
    before = len(there.taken_s)
    bench.wait(0.5)
    fill = lsm.fill()
    batch = lsm.take(fill)
    assert (fill.samples, fill.overrun, batch.lost) == (52, False, False)
    assert len(batch) == 51, "the first one is not to be used"
    expected = np.array([counts(before + k) for k in range(1, 52)])
    for wished, values, columns, unit in (
        (acc, batch.acc, slice(0, 3), G),
        (gyro, batch.gyro, slice(3, 6), np.radians(DPS)),
    ):
        assert (values is not None) == wished
        if values is not None:
            np.testing.assert_allclose(values, expected[:, columns] * unit, rtol=1e-6)


def test_an_lsm6ds3_that_has_overrun_is_emptied_and_the_loss_is_told(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeLsm6ds3()
    lsm = chip(bench, fake, LSM6DS3)
    lsm.start(fifo=True)
    bench.wait(60)
    fill = lsm.fill()
    batch = lsm.take(fill)
    assert (fill.overrun, len(batch), batch.lost) == (True, 0, True)
    before = len(fake.taken_s)
    bench.wait(0.2)
    batch = lsm.take(lsm.fill())
    assert batch.acc is not None and (len(batch), batch.lost) == (9, False)
    np.testing.assert_allclose(batch.acc[:, 0] / G, [counts(before + k)[0] for k in range(1, 10)], rtol=1e-6)


def test_what_is_overwritten_while_it_is_fetched_is_thrown_away(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeLsm6ds3()
    lsm = chip(bench, fake, LSM6DS3)
    lsm.start(fifo=True)
    bench.wait(13.1)
    fill = lsm.fill()
    assert fill.samples == 681 and not fill.overrun
    # While the first few are fetched, others come in; a chip that stands in the middle of an instant drops half of it.
    given = fake.given

    def interrupted(count: int) -> bytes:
        first = given(20)
        fake.sample_until(bench.now_s + 0.1)
        fake.given = given  # type: ignore[method-assign]
        return first + given(count - 20)

    bench.delays[1] = 0.02
    fake.given = interrupted  # type: ignore[method-assign]
    batch = lsm.take(fill)
    assert (len(batch), batch.lost) == (0, True)
    bench.wait(0.2)
    batch = lsm.take(lsm.fill())
    assert not batch.lost and batch.acc is not None and batch.gyro is not None
    np.testing.assert_allclose(batch.acc[:, 0] / G + 1, np.degrees(batch.gyro[:, 0]) / DPS, rtol=1e-5)


@pytest.mark.parametrize("odd", [0, 1])
def test_an_lsm6dso_that_has_overrun_keeps_what_is_whole_and_tells_the_loss(tmp_path: Path, odd: int) -> None:
    bench, fake = Bench(tmp_path), FakeLsm6dso()
    lsm = chip(bench, fake, LSM6DSO)
    lsm.start(fifo=True)
    bench.wait(20)
    fake.sample_until(bench.now_s)
    if odd:  # The chip drops word by word: half of the oldest sample may be gone.
        fake.fifo.popleft()
    fill = lsm.fill()
    newest = len(fake.taken_s) - 1
    batch = lsm.take(fill)
    assert fill.overrun and batch.lost and batch.acc is not None and batch.gyro is not None
    kept = [newest - k for k in range(len(batch) - 1, -1, -1)]
    # An odd word at the front makes the last instant wait for its other word, which is fetched next.
    shift = odd
    assert len(batch) == 256 - odd - shift - 1
    expected = np.array([counts(k - shift) for k in kept])
    np.testing.assert_allclose(batch.acc / G, expected[:, :3], rtol=1e-5)
    np.testing.assert_allclose(np.degrees(batch.gyro) / DPS, expected[:, 3:], rtol=1e-5)
    bench.wait(0.2)
    batch = lsm.take(lsm.fill())
    assert batch.acc is not None and not batch.lost
    np.testing.assert_allclose(batch.acc[0, 0] / G, counts(newest + 1 - shift)[0], rtol=1e-6)


def test_words_that_come_in_the_middle_of_an_instant_are_put_together(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeLsm6dso()
    lsm = chip(bench, fake, LSM6DSO)
    lsm.start(fifo=True)
    bench.wait(0.1)
    fake.sample_until(bench.now_s)
    late = fake.fifo.pop()
    first = lsm.take(lsm.fill())
    fake.fifo.append(late)
    second = lsm.take(lsm.fill())
    assert (len(first), len(second), first.lost, second.lost) == (3, 1, False, False)
    assert second.acc is not None and second.gyro is not None
    assert round(float(second.acc[0, 0] / G)) + 1 == round(float(np.degrees(second.gyro[0, 0]) / DPS))


@pytest.mark.parametrize(
    ("model", "fake", "status"),
    [(LSM6DS3, FakeLsm6ds3, 0xFFFF), (LSM6DSO, FakeLsm6dso, 0xFFFF), (LSM6DSO, FakeLsm6dso, 513)],
)
def test_a_status_that_contradicts_itself_is_an_error(tmp_path: Path, model: Model, fake: Any, status: int) -> None:
    bench, there = Bench(tmp_path), fake()
    lsm = chip(bench, there, model)
    lsm.start(fifo=True)
    there.load = lambda register: status >> 8 * (register - 0x3A) & 0xFF
    with pytest.raises(SensorError, match=f"the FIFO's status reads {status:#06x}, which no"):
        lsm.fill()


@pytest.mark.parametrize(("model", "fake"), KINDS)
def test_without_fifo_a_sample_is_ready_once_and_read_at_once(tmp_path: Path, model: Model, fake: Any) -> None:
    bench, there = Bench(tmp_path), fake()
    lsm = chip(bench, there, model)
    lsm.start(fifo=False)
    lsm.look()
    assert lsm.look() is None
    bench.wait(0.02)
    batch = lsm.look()
    expected = counts(len(there.taken_s) - 1)
    assert batch is not None and batch.acc is not None and batch.gyro is not None
    np.testing.assert_allclose(batch.acc[0] / G, expected[:3], rtol=1e-5)
    np.testing.assert_allclose(np.degrees(batch.gyro[0]) / DPS, expected[3:], rtol=1e-5)
    assert lsm.look() is None
    # One that comes between flags and data is seen by its data.
    bench.wait(0.02)
    there.sample_until(bench.now_s)
    there.registers[0x1E] = 0
    assert lsm.look() is not None and lsm.look() is None


@pytest.mark.parametrize(("model", "fake"), KINDS)
def test_it_is_switched_off(tmp_path: Path, model: Model, fake: Any) -> None:
    there = fake()
    lsm = chip(Bench(tmp_path), there, model)
    lsm.start(fifo=True)
    assert there.rate_hz() == 52
    lsm.stop()
    assert there.rate_hz() == 0


def test_a_chip_that_stays_in_reset_is_an_error(tmp_path: Path) -> None:
    fake = FakeLsm6dso()
    lsm = chip(Bench(tmp_path), fake, LSM6DSO)
    fake.load = lambda register: 0x01  # type: ignore[method-assign]
    with pytest.raises(SensorError, match="does not come back from a reset"):
        lsm.start(fifo=True)


# Self test: 0.122 mg a count at 4 g, 70 mdps at 2000 degrees per second.


@pytest.mark.parametrize(("model", "fake", "least_g"), [(LSM6DS3, FakeLsm6ds3, 0.09), (LSM6DSO, FakeLsm6dso, 0.05)])
def test_a_self_test_compares_each_axis_with_the_data_sheets_limits(
    tmp_path: Path, model: Model, fake: Any, least_g: float
) -> None:
    bench, there = Bench(tmp_path), fake(source=lambda k: (100, -100, 8196, 3, 4, 5))
    there.response = (round((least_g + 0.001) / 0.122e-3), -8196, 13900, round(151 / 0.07), -9999, round(702 / 0.07))
    result = chip(bench, there, model).self_test()
    values = [each.value for each in result.axes]
    np.testing.assert_allclose(values, [least_g + 0.001, 1.0, 1.6958, 151, 699.93, 702], atol=0.05)
    assert [each.passed for each in result.axes] == [True, True, True, True, True, False]
    assert [(each.low, each.high) for each in result.axes] == [(least_g, 1.7)] * 3 + [(150, 700)] * 3
    there.response = (round((least_g - 0.001) / 0.122e-3), 14100, 4000, 4000, 4000, 4000)
    result = chip(bench, there, model).self_test()
    assert [each.passed for each in result.axes] == [False, False, True, True, True, True]
    assert bench.settings_written(AT)[-1] == (0x14, 0x00)


# The decoder of tagged words


def word(tag: int, slot: int, *values: int) -> bytes:
    return bytes((tag << 3 | slot << 1,)) + little(*values)


@given(data=st.lists(st.binary(min_size=7, max_size=7), max_size=80), acc=st.booleans(), gyro=st.booleans())
def test_whatever_words_come_samples_are_pairs_and_every_word_is_used_or_kept(
    data: list[bytes], acc: bool, gyro: bool
) -> None:
    wish = Wish(acc=acc or not gyro, gyro=gyro, rate_hz=50.0, acc_range_g=8, gyro_range_dps=1000)
    acc_words, gyro_words, used = untagged(b"".join(data), wish)
    assert used in ({len(data)} if wish.sensors == 1 else {len(data), len(data) - 1})
    if wish.sensors == 2:
        assert len(acc_words) == len(gyro_words) <= used // 2
        neighbours = list(pairwise((each[0] >> 3, each[1:]) for each in data))
        for one, other in zip(acc_words.tolist(), gyro_words.tolist(), strict=True):
            pair = (2, little(*one)), (1, little(*other))
            assert pair in neighbours or pair[::-1] in neighbours


@given(
    instants=st.integers(0, 60),
    acc_first=st.booleans(),
    drop=st.integers(0, 3),
    cut=st.integers(0, 3),
)
def test_of_a_stream_that_begins_and_ends_anywhere_all_whole_instants_come_out(
    instants: int, acc_first: bool, drop: int, cut: int
) -> None:
    words = []
    for k in range(instants):
        pair = [word(1, k % 4, k, 1, 2), word(2, k % 4, -k, 3, 4)]
        words += pair[::-1] if acc_first else pair
    words = words[drop : max(drop, len(words) - cut)]
    first, last = (drop + 1) // 2, (2 * instants - cut) // 2
    acc, gyro, used = untagged(b"".join(words), BOTH)
    whole = list(range(first, last))
    assert gyro[:, 0].tolist() == whole and acc[:, 0].tolist() == [-k for k in whole]
    waiting = len(words) > 0 and (cut % 2 == 1 or (drop % 2 == 1 and len(words) == 1))
    assert used == len(words) - waiting


def test_no_word_is_part_of_two_samples() -> None:
    words = [word(1, 1, 1, 1, 1), word(2, 1, 2, 2, 2), word(1, 1, 3, 3, 3), word(1, 2, 4, 4, 4), word(2, 2, 5, 5, 5)]
    acc, gyro, used = untagged(b"".join(words), BOTH)
    assert (acc[:, 0].tolist(), gyro[:, 0].tolist(), used) == ([2, 5], [1, 4], 5)


def test_a_word_that_is_lost_without_a_word_from_the_chip_is_a_loss(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeLsm6dso()
    lsm = chip(bench, fake, LSM6DSO)
    lsm.start(fifo=True)
    bench.wait(0.2)
    fake.sample_until(bench.now_s)
    del fake.fifo[4]
    batch = lsm.take(lsm.fill())
    assert batch.lost and batch.acc is not None and batch.gyro is not None
    np.testing.assert_allclose(batch.acc[:, 0] / G + 1, np.degrees(batch.gyro[:, 0]) / DPS, rtol=1e-5)


def test_half_an_instant_from_before_an_overrun_is_put_together_with_nothing(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeLsm6dso()
    lsm = chip(bench, fake, LSM6DSO)
    lsm.start(fifo=True)
    bench.wait(0.2)
    fake.sample_until(bench.now_s)
    # A word of another sensor in front, and the last instant's second word gone: its first one waits.
    fake.fifo.appendleft(word(3, 0, 0, 0, 0))
    fake.fifo.pop()
    lsm.take(lsm.fill())
    bench.wait(0.2)
    fake.sample_until(bench.now_s)
    for _ in range(7):  # What is left begins with the second word of an instant whose two bits are the same again.
        fake.fifo.popleft()
    fake.latched = True
    batch = lsm.take(lsm.fill())
    assert batch.lost and batch.acc is not None and batch.gyro is not None
    np.testing.assert_allclose(batch.acc[:, 0] / G + 1, np.degrees(batch.gyro[:, 0]) / DPS, rtol=1e-5)


def test_words_of_other_sensors_are_passed_over() -> None:
    words = [word(3, 0, 9, 9, 9), word(1, 1, 1, 2, 3), word(2, 1, 4, 5, 6), word(0, 2, 0, 0, 0), word(4, 2, 7, 7, 7)]
    acc, gyro, used = untagged(b"".join(words), BOTH)
    assert (acc.tolist(), gyro.tolist(), used) == ([[4, 5, 6]], [[1, 2, 3]], 5)
    alone = Wish(acc=True, gyro=False, rate_hz=50.0, acc_range_g=8, gyro_range_dps=1000)
    acc, gyro, used = untagged(b"".join(words), alone)
    assert (acc.tolist(), gyro.tolist(), used) == ([[4, 5, 6]], [], 5)
