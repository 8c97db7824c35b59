"""InvenSense's chips, register by register."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt import catalogue
from mekt.errors import SensorError
from sensors.chip import Wish, burst
from sensors.i2c import I2cDevice
from sensors.mpu6050 import MPU6050, MPU6500, MPU9250, RATES_HZ, Model, Mpu
from tests.sensors.i2c_bench import SMBUS_FUNCTIONS, Bench, FakeMpu, counts

AT = 0x68
BOTH = Wish(acc=True, gyro=True, rate_hz=50.0, acc_range_g=8, gyro_range_dps=1000)


def chip(bench: Bench, fake: FakeMpu, wish: Wish = BOTH, model: Model = MPU6050) -> Mpu:
    bench.plug(AT, fake)
    device = I2cDevice("1", AT, root=bench.folder, ioctl=bench.ioctl)
    device.open()
    return Mpu(device, model, wish, bench.wait)


def test_it_is_set_up_by_exactly_these_writes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    chip(bench, FakeMpu()).start(fifo=True)
    assert bench.settings_written(AT) == [
        (0x6B, 0x80),  # reset
        (0x6B, 0x01),  # awake, on the gyroscope's clock
        (0x6C, 0x00),  # all axes on
        (0x1A, 0x04),  # 20 Hz, below half of the rate
        (0x19, 19),  # 1000 / 20 = 50 Hz
        (0x1B, 0x10),  # 1000 degrees per second
        (0x1C, 0x10),  # 8 g
        (0x38, 0x11),  # overflow and data ready
        (0x23, 0x00),
        (0x6A, 0x04),  # FIFO emptied,
        (0x6A, 0x40),  # and on,
        (0x23, 0x78),  # for all axes
    ]
    assert bench.waits[0] == 0.1


def test_a_later_one_has_its_other_filter_set_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    wish = Wish(acc=True, gyro=False, rate_hz=100.0, acc_range_g=2, gyro_range_dps=250)
    chip(bench, FakeMpu(identity=0x70), wish, MPU6500).start(fifo=True)
    written = dict(bench.settings_written(AT))
    assert (written[0x1A], written[0x1D]) == (3, 3)
    assert written[0x23] == 0x08


@pytest.mark.parametrize(("model", "identity"), [(MPU6050, 0x68), (MPU6500, 0x70), (MPU9250, 0x71), (MPU9250, 0x73)])
def test_each_model_knows_itself(tmp_path: Path, model: Model, identity: int) -> None:
    chip(Bench(tmp_path), FakeMpu(identity=identity), model=model).identify()


@pytest.mark.parametrize(
    ("seen", "hint"), [(0x71, "that is the identity of MPU-9250: name the right chip"), (0x98, "name the right chip")]
)
def test_another_identity_is_told(tmp_path: Path, seen: int, hint: str) -> None:
    with pytest.raises(SensorError) as caught:
        chip(Bench(tmp_path), FakeMpu(identity=seen)).identify()
    assert caught.value.entry is catalogue.SENSOR_UNUSABLE
    assert str(caught.value) == (
        f"I2C bus 1, address 0x68: no MPU-6050: its identity reads {seen:#04x}, expected 0x68; {hint} in the settings,"
        " or check the address"
    )


@pytest.mark.parametrize(
    ("wanted_hz", "has_hz"), [(50, 50.0), (1, 1000 / 256), (2000, 1000.0), (333, 1000 / 3), (60, 1000 / 17), (64, 62.5)]
)
def test_the_rate_is_the_nearest_that_the_divider_gives(tmp_path: Path, wanted_hz: float, has_hz: float) -> None:
    wish = Wish(acc=True, gyro=True, rate_hz=wanted_hz, acc_range_g=8, gyro_range_dps=1000)
    fake = FakeMpu()
    bench = Bench(tmp_path)
    mpu = chip(bench, fake, wish)
    mpu.start(fifo=False)
    assert mpu.rate_hz == pytest.approx(has_hz) == pytest.approx(fake.rate_hz())
    assert all(abs(mpu.rate_hz - wanted_hz) <= abs(each - wanted_hz) for each in RATES_HZ)


@pytest.mark.parametrize(("acc_g", "counts_per_g"), [(2, 16384), (4, 8192), (8, 4096), (16, 2048)])
@pytest.mark.parametrize(("gyro_dps", "counts_per_dps"), [(250, 131), (500, 65.5), (1000, 32.75), (2000, 16.375)])
def test_counts_become_g_and_radians_per_second(
    tmp_path: Path, acc_g: int, counts_per_g: float, gyro_dps: int, counts_per_dps: float
) -> None:
    wish = Wish(acc=True, gyro=True, rate_hz=100.0, acc_range_g=acc_g, gyro_range_dps=gyro_dps)  # type: ignore[arg-type]
    bench = Bench(tmp_path)
    mpu = chip(bench, FakeMpu(source=lambda k: (-32768, 32767, 4096, -131, 131, 0)), wish)
    mpu.start(fifo=True)
    bench.wait(0.015)
    batch = mpu.take(mpu.fill())
    assert len(batch) == 1 and batch.acc is not None and batch.gyro is not None
    np.testing.assert_allclose(batch.acc[0], np.array([-32768, 32767, 4096]) / counts_per_g, rtol=1e-6)
    np.testing.assert_allclose(batch.gyro[0], np.radians([-131 / counts_per_dps, 131 / counts_per_dps, 0]), rtol=1e-6)


@pytest.mark.parametrize(("acc", "gyro"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("functions", [1, SMBUS_FUNCTIONS])
def test_the_fifo_is_fetched_whole_and_in_order(tmp_path: Path, acc: bool, gyro: bool, functions: int) -> None:
    wish = Wish(acc=acc, gyro=gyro, rate_hz=100.0, acc_range_g=8, gyro_range_dps=1000)
    bench, fake = Bench(tmp_path, functions=functions), FakeMpu()
    mpu = chip(bench, fake, wish)
    mpu.start(fifo=True)
    before = len(fake.taken_s)
    bench.wait(0.405)
    fill = mpu.fill()
    batch = mpu.take(fill)
    assert (fill.samples, fill.overrun, len(batch), batch.lost) == (40, False, 40, False)
    expected = np.array([counts(before + k) for k in range(40)])
    if batch.acc is not None:
        np.testing.assert_allclose(batch.acc, expected[:, :3] / 4096, rtol=1e-6)
    if batch.gyro is not None:
        np.testing.assert_allclose(batch.gyro, np.radians(expected[:, 3:] / 32.75), rtol=1e-6)
    assert (batch.acc is not None, batch.gyro is not None) == (acc, gyro)


def test_a_fifo_that_has_overflowed_is_emptied_and_the_loss_is_told(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    mpu = chip(bench, fake)
    mpu.start(fifo=True)
    bench.wait(10)
    batch = mpu.take(mpu.fill())
    assert (len(batch), batch.lost) == (0, True)
    before = len(fake.taken_s)
    bench.wait(0.21)
    batch = mpu.take(mpu.fill())
    assert (len(batch), batch.lost) == (10, False)
    assert batch.acc is not None
    np.testing.assert_allclose(batch.acc[:, 0] * 4096, [counts(before + k)[0] for k in range(10)])


def test_a_full_fifo_counts_as_overflowed_also_when_the_flag_is_gone(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    mpu = chip(bench, fake)
    mpu.start(fifo=True)
    bench.wait(10)
    fill = mpu.fill()
    fake.registers[0x3A] = 0
    batch = mpu.take(fill)
    assert (len(batch), batch.lost) == (0, True)


def test_what_overflowed_before_the_fifo_was_emptied_is_not_told_again(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    mpu = chip(bench, fake)
    store = fake.store

    def late(register: int, value: int) -> None:
        store(register, value)
        if register == 0x6A and value & 0x04:
            fake.registers[0x3A] |= 0x10

    fake.store = late  # type: ignore[method-assign]
    mpu.start(fifo=True)
    bench.wait(0.1)
    assert not mpu.take(mpu.fill()).lost


def test_what_is_overwritten_while_it_is_fetched_is_thrown_away(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    mpu = chip(bench, fake)
    mpu.start(fifo=True)
    bench.wait(1.62)  # 81 of 85 samples
    fill = mpu.fill()
    assert not fill.overrun
    bench.delays[3] = 1.0
    batch = mpu.take(fill)
    assert (len(batch), batch.lost) == (0, True)
    bench.wait(0.1)
    assert not mpu.take(mpu.fill()).lost


@pytest.mark.parametrize("count", [1025, 0xFFFF])
def test_a_count_beyond_the_fifo_is_an_error(tmp_path: Path, count: int) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    mpu = chip(bench, fake)
    mpu.start(fifo=True)
    fake.fifo_bytes = 1 << 17
    fake.fifo.extend([0xFF] * (count - len(fake.fifo)))
    with pytest.raises(SensorError, match=f"{count} bytes in a FIFO of 1024"):
        mpu.fill()


def test_half_a_sample_waits_for_its_rest(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    mpu = chip(bench, fake)
    mpu.start(fifo=True)
    bench.wait(0.05)
    assert mpu.fill().samples == 2
    whole = list(fake.fifo)
    fake.fifo.extend(whole[:5])
    fill = mpu.fill()
    assert fill.samples == 2
    assert len(mpu.take(fill)) == 2
    fake.fifo.extend(whole[5:12])
    batch = mpu.take(mpu.fill())
    assert batch.acc is not None and len(batch) == 1
    np.testing.assert_allclose(batch.acc[0] * 4096, np.frombuffer(bytes(whole[:6]), ">i2"))


def test_without_fifo_a_sample_is_ready_once_and_read_at_once(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    mpu = chip(bench, fake)
    mpu.start(fifo=False)
    mpu.look()
    assert mpu.look() is None
    bench.wait(0.02)
    batch = mpu.look()
    assert batch is not None and batch.acc is not None and batch.gyro is not None
    expected = counts(len(fake.taken_s) - 1)
    np.testing.assert_allclose(batch.acc[0] * 4096, expected[:3], rtol=1e-6)
    np.testing.assert_allclose(np.degrees(batch.gyro[0]) * 32.75, expected[3:], rtol=1e-6)
    assert bench.trace[-2][2] == b"\x3a" and len(bench.trace[-1][2]) == 15
    assert mpu.look() is None


def test_it_is_put_to_sleep(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    mpu = chip(bench, fake)
    mpu.start(fifo=True)
    mpu.stop()
    assert fake.rate_hz() == 0


# Self test. The trim codes of acceleration are 16 for x, 17 and 18 for y and z: at 8 g, 4096 counts a g.
ACC_TRIM = 4096 * math.sqrt(0.34 * 0.92)
STEP = (0.92 / 0.34) ** (1 / 30)
GYRO_TRIM = 25 * 131 * 1.046**9
STILL = (10, -20, 4096, 5, 6, 7)


def trimmed() -> FakeMpu:
    fake = FakeMpu(source=lambda k: STILL)
    # Upper three bits are 100, lower two 00, 01 and 10; rotation 10.
    fake.trim = bytes((0x80 | 10, 0x80 | 10, 0x80 | 10, 0b00_01_10))
    return fake


def test_a_response_near_the_factorys_passes_with_its_numbers(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), trimmed()
    fake.response = (
        round(ACC_TRIM),
        round(1.1 * ACC_TRIM * STEP),
        round(0.9 * ACC_TRIM * STEP**2),
        round(GYRO_TRIM),
        round(-1.13 * GYRO_TRIM),
        round(0.87 * GYRO_TRIM),
    )
    result = chip(bench, fake).self_test()
    assert result.passed and result.chip == "MPU-6050"
    assert [each.axis for each in result.axes] == ["acc x", "acc y", "acc z", "gyro x", "gyro y", "gyro z"]
    np.testing.assert_allclose([each.value for each in result.axes], [0, 10, -10, 0, 13, -13], atol=0.1)
    assert "MPU-6050: passed" in str(result) and "acc y: 10" in str(result)
    written = bench.settings_written(AT)
    assert written[-2:] == [(0x1C, 0xF0), (0x1B, 0xE0)]
    assert (0x1C, 0x10) in written and (0x1B, 0x00) in written


@pytest.mark.parametrize(
    ("axis", "response", "value"),
    [(1, 1.15 * ACC_TRIM * STEP, 15.0), (0, 0.0, -100.0), (4, 1.0 * GYRO_TRIM, -200.0), (5, 0.85 * GYRO_TRIM, -15.0)],
)
def test_a_response_off_by_more_fails_on_its_axis(tmp_path: Path, axis: int, response: float, value: float) -> None:
    bench, fake = Bench(tmp_path), trimmed()
    sound = [ACC_TRIM, ACC_TRIM * STEP, ACC_TRIM * STEP**2, GYRO_TRIM, -GYRO_TRIM, GYRO_TRIM]
    sound[axis] = response
    fake.response = tuple(round(each) for each in sound)  # type: ignore[assignment]
    result = chip(bench, fake).self_test()
    assert [each.passed for each in result.axes] == [index != axis for index in range(6)]
    assert result.axes[axis].value == pytest.approx(value, abs=0.1)
    assert not result.passed and "FAILED" in str(result)


def test_an_axis_without_a_trim_code_is_judged_by_its_response_alone(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu(source=lambda k: STILL)
    fake.response = (round(0.31 * 4096), -2000, round(0.29 * 4096), 11 * 131, -104 * 131, 106 * 131)
    # Of six codes one is there: rotation about x.
    fake.trim = bytes((10, 0, 0, 0))
    result = chip(bench, fake).self_test()
    assert [each.passed for each in result.axes] == [True, True, False, False, True, False]
    np.testing.assert_allclose([each.value for each in result.axes[:3]], [0.31, 0.488, 0.29], atol=1e-3)
    assert [each.unit for each in result.axes] == ["g"] * 3 + ["% off factory trim"] + ["degrees/s"] * 2
    assert result.axes[4].value == pytest.approx(104)


def test_a_later_ones_response_is_a_share_of_the_factorys(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu(identity=0x70, source=lambda k: (0, 0, 16384, 0, 0, 0))
    fake.trim, fake.gyro_trim = bytes((101, 101, 101, 0)), bytes((1, 1, 1))
    acc, gyro = 2620 * 1.01**100, 2620.0
    # The driver of its maker takes of rotation the amount.
    fake.response = (round(acc), round(0.51 * acc), round(1.6 * acc), -round(gyro), round(0.49 * gyro), round(3 * gyro))
    result = chip(bench, fake, model=MPU6500).self_test()
    np.testing.assert_allclose([each.value for each in result.axes], [100, 51, 160, 100, 49, 300], rtol=1e-3)
    assert [each.passed for each in result.axes] == [True, True, False, True, False, True]


def test_a_later_one_without_codes_is_judged_by_its_response_alone(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu(identity=0x70, source=lambda k: (0, 0, 16384, 0, 0, 0))
    fake.response = (8192, -8192, 1000, 131 * 61, -131 * 61, 131 * 59)
    result = chip(bench, fake, model=MPU6500).self_test()
    np.testing.assert_allclose([each.value for each in result.axes], [0.5, 0.5, 0.061, 61, 61, 59], rtol=1e-2)
    assert [each.passed for each in result.axes] == [True, True, False, True, True, False]


def test_a_chip_that_gives_no_samples_ends_its_self_test(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    fake.rate_hz = lambda: 0.0  # type: ignore[method-assign]
    with pytest.raises(SensorError, match="MPU-6050: gives no samples"):
        chip(bench, fake).self_test()


@given(frames=st.integers(0, 90), longest=st.sampled_from([32, 252]), frame=st.sampled_from([6, 7, 12]))
def test_bursts_hold_whole_frames_and_all_of_them(frames: int, longest: int, frame: int) -> None:
    class Counting:
        where = "here"

        def __init__(self) -> None:
            self.longest, self.given, self.sizes = longest, 0, list[int]()

        def read(self, register: int, count: int) -> bytes:
            self.sizes.append(count)
            self.given += count
            return bytes((self.given - count + k) % 256 for k in range(count))

        def write(self, register: int, value: int) -> None:
            raise AssertionError

    registers = Counting()
    data = burst(registers, 0x74, frames, frame)
    assert data == bytes(k % 256 for k in range(frames * frame))
    assert all(size % frame == 0 and size <= longest for size in registers.sizes)
