"""Chips on a bus as sources: settings, samples and their times, losses, unplugging, copies without FIFO, the search."""

import errno
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality, WindowSpec
from mekt.schema import SchemaError, plain
from sensors.i2c import I2cDevice
from sensors.imu import ImuSettings, found, rotation
from sensors.imu_source import ImuSource
from sensors.settings import sensor_settings
from sensors.source import Block, Gap, Item
from sensors.windows import Windower
from tests.sensors.i2c_bench import (
    SMBUS_FUNCTIONS,
    Bench,
    FakeAdxl345,
    FakeChip,
    FakeLsm6ds3,
    FakeLsm6dso,
    FakeMpu,
    counts,
)

TABLE: dict[str, Any] = {"kind": "imu", "modalities": ["acc", "gyro"], "chip": "mpu6050"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A chip, what it is called in settings, what a count is in g and degrees per second, the FIFO's samples."""

    chip: str
    address: int
    fake: Any
    acc_g: float
    gyro_dps: float | None
    more: dict[str, Any] = field(default_factory=dict)

    def make(self, **more: Any) -> FakeChip:
        made: FakeChip = self.fake(**self.more, **more)
        return made

    @property
    def names(self) -> list[str]:
        return ["acc"] if self.gyro_dps is None else ["acc", "gyro"]

    def settings(self, **more: Any) -> ImuSettings:
        made = sensor_settings(TABLE | {"chip": self.chip, "modalities": self.names} | more)
        assert isinstance(made, ImuSettings)
        return made


MPU = Case(chip="mpu6050", address=0x68, fake=FakeMpu, acc_g=1 / 4096, gyro_dps=1 / 32.75)
ADXL = Case(chip="adxl345", address=0x53, fake=FakeAdxl345, acc_g=1 / 256, gyro_dps=None)
DSO = Case(chip="lsm6dso", address=0x6A, fake=FakeLsm6dso, acc_g=0.244e-3, gyro_dps=0.035)
DS3 = Case(chip="lsm6ds3", address=0x6A, fake=FakeLsm6ds3, acc_g=0.244e-3, gyro_dps=0.035)
CASES = [
    MPU,
    Case(
        chip="mpu6500",
        address=0x68,
        fake=FakeMpu,
        acc_g=1 / 4096,
        gyro_dps=1 / 32.75,
        more={"identity": 0x70, "fifo_bytes": 512},
    ),
    Case(
        chip="mpu9250",
        address=0x68,
        fake=FakeMpu,
        acc_g=1 / 4096,
        gyro_dps=1 / 32.75,
        more={"identity": 0x71, "fifo_bytes": 512},
    ),
    DS3,
    DSO,
    ADXL,
]
every_chip = pytest.mark.parametrize("case", CASES, ids=lambda case: case.chip)


def on(bench: Bench, settings: ImuSettings, address: int) -> ImuSource:
    device = I2cDevice(settings.bus, address, root=bench.folder, ioctl=bench.ioctl)
    return settings.on(device, clock=bench.clock, wait=bench.wait)


def read_for(source: ImuSource, bench: Bench, seconds: float, timeout_s: float = 0.5) -> list[Item]:
    """What comes in so many seconds of the bench's time; a read never takes more than its timeout and the transfer."""
    items: list[Item] = []
    ends_s = bench.now_s + seconds
    while bench.now_s < ends_s:
        began_s = bench.now_s
        items += source.read(timeout_s)
        # A few kilobytes cross the bus in a tenth of a second.
        assert bench.now_s - began_s < timeout_s + 0.15
        assert bench.now_s > began_s, "it turns around without waiting"
    return items


@dataclass
class Seen:
    numbers: list[int]
    t_s: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]


def seen(items: Sequence[Item], name: str, unit: float) -> Seen:
    """Samples of one modality, and which of the chip's they are."""
    blocks = [each for each in items if isinstance(each, Block) and each.modality == name]
    values = np.concatenate([each.values for each in blocks])
    column = np.rint(values[:, 0] / unit).astype(int) - (name.startswith("gyro"))
    return Seen(column.tolist(), np.concatenate([each.t_s for each in blocks]), values)


@every_chip
@pytest.mark.parametrize("functions", [1, SMBUS_FUNCTIONS])
@pytest.mark.parametrize("fast", [-0.03, 0.02])
def test_every_sample_comes_once_with_its_values_and_the_time_at_which_it_was_taken(
    tmp_path: Path, case: Case, functions: int, fast: float
) -> None:
    bench, fake = Bench(tmp_path, functions=functions), case.make(fast=fast)
    bench.plug(case.address, fake)
    source = on(bench, case.settings(), case.address)
    source.open()
    items = read_for(source, bench, 60)
    source.close()
    assert not any(isinstance(each, Gap) for each in items)
    acc = seen(items, "acc", case.acc_g)
    assert acc.numbers == list(range(acc.numbers[0], acc.numbers[0] + len(acc.numbers)))
    assert len(acc.numbers) > 50 * 0.95 * 59
    expected = np.array([counts(k) for k in acc.numbers])
    np.testing.assert_allclose(acc.values, expected[:, :3] * case.acc_g, rtol=1e-5)
    if case.gyro_dps is not None:
        gyro = seen(items, "gyro", np.radians(case.gyro_dps))
        assert gyro.numbers == acc.numbers
        np.testing.assert_allclose(gyro.values, np.radians(expected[:, 3:] * case.gyro_dps), rtol=1e-5)
        np.testing.assert_array_equal(gyro.t_s, acc.t_s)
    taken_s = np.array([fake.taken_s[k] for k in acc.numbers])
    late_s = acc.t_s - taken_s
    assert (np.diff(acc.t_s) > 0).all()
    assert np.abs(late_s).max() < 0.025, "never off by more than a period and the bus's delay"
    assert np.abs(late_s[taken_s > taken_s[0] + 15]).max() < 0.008
    assert fake.rate_hz() == 0, "it is put to sleep"


@every_chip
def test_the_modalities_have_the_chips_own_rate_and_the_names_of_the_settings(case: Case) -> None:
    names = [f"{name}_wrist" for name in reversed(case.names)]
    source = case.settings(modalities=names, rate_hz=60).source(Path())
    rate_hz = {"mpu6050": 1000 / 17, "mpu6500": 1000 / 17, "mpu9250": 1000 / 17, "adxl345": 50.0}.get(case.chip, 52.0)
    units = {"acc": "g", "gyro": "rad/s"}
    assert source.modalities == tuple(
        Modality(name=name, shape=(3,), rate_hz=rate_hz, unit=units[name.split("_")[0]]) for name in names
    )


@pytest.mark.parametrize("name", ["acc", "gyro"])
@pytest.mark.parametrize("case", [MPU, DS3, DSO], ids=lambda case: case.chip)
def test_one_of_the_two_sensors_can_be_used_alone(tmp_path: Path, case: Case, name: str) -> None:
    bench = Bench(tmp_path)
    bench.plug(case.address, case.make())
    source = on(bench, case.settings(modalities=[name]), case.address)
    source.open()
    items = read_for(source, bench, 3)
    assert case.gyro_dps is not None
    alone = seen(items, name, case.acc_g if name == "acc" else np.radians(case.gyro_dps))
    assert alone.numbers == list(range(alone.numbers[0], alone.numbers[0] + len(alone.numbers)))
    assert {each.modality for each in items if isinstance(each, Block)} == {name}
    assert [each.name for each in source.modalities] == [name]


@every_chip
def test_a_reader_that_comes_too_late_gets_a_gap_and_then_sound_samples(
    tmp_path: Path, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    bench, fake = Bench(tmp_path), case.make()
    bench.plug(case.address, fake)
    source = on(bench, case.settings(), case.address)
    source.open()
    before = read_for(source, bench, 5)
    bench.wait(100)
    after = read_for(source, bench, 5)
    bench.wait(100)
    read_for(source, bench, 5)
    assert not any(isinstance(each, Gap) for each in before)
    assert isinstance(after[0], Gap)
    [said] = [each.message for each in caplog.records]
    assert said.endswith("samples were lost; it is read too late, or the bus is too slow for its rate")
    assert sum(isinstance(each, Gap) for each in after) == 1
    first, second = seen(before, "acc", case.acc_g), seen(after, "acc", case.acc_g)
    assert second.numbers == list(range(second.numbers[0], second.numbers[0] + len(second.numbers)))
    assert second.numbers[0] > first.numbers[-1] + 1
    times_s = np.concatenate([first.t_s, second.t_s])
    assert (np.diff(times_s) > 0).all()
    taken_s = np.array([fake.taken_s[k] for k in second.numbers])
    assert np.abs(second.t_s - taken_s).max() < 0.025


def test_times_are_earlier_by_a_known_latency(tmp_path: Path) -> None:
    told = []
    for latency_s in (0.0, 0.0085):
        bench, fake = Bench(tmp_path / str(latency_s)), MPU.make()
        bench.plug(MPU.address, fake)
        source = on(bench, MPU.settings(latency_s=latency_s), MPU.address)
        source.open()
        told.append(seen(read_for(source, bench, 2), "acc", MPU.acc_g).t_s)
    np.testing.assert_allclose(told[0] - told[1], 0.0085, atol=1e-9)


def test_samples_that_are_lost_without_a_word_from_the_chip_are_noticed_by_their_times(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    bench.plug(0x68, fake)
    source = on(bench, MPU.settings(), 0x68)
    source.open()
    read_for(source, bench, 5)
    fake.sample_until(bench.now_s)
    bench.wait(0.4)
    fake.sample_until(bench.now_s)
    fake.fifo.clear()
    items = read_for(source, bench, 3)
    assert [isinstance(each, Gap) for each in items].count(True) == 1 and isinstance(items[0], Gap)
    acc = seen(items, "acc", MPU.acc_g)
    assert np.abs(acc.t_s - np.array([fake.taken_s[k] for k in acc.numbers])).max() < 0.025


@pytest.mark.parametrize("timeout_s", [0.0, 0.003, 0.05])
def test_a_read_returns_within_its_timeout_and_loses_nothing(tmp_path: Path, timeout_s: float) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    source = on(bench, MPU.settings(), 0x68)
    source.open()
    items: list[Item] = []
    for _ in range(600):
        bench.waits.clear()
        items += source.read(timeout_s)
        assert sum(bench.waits) <= timeout_s + 1e-12
        bench.wait(0.004)
    acc = seen(items, "acc", MPU.acc_g)
    assert acc.numbers == list(range(acc.numbers[0], acc.numbers[0] + len(acc.numbers)))


@every_chip
def test_a_read_waits_until_samples_are_due_and_asks_the_bus_but_once(tmp_path: Path, case: Case) -> None:
    bench = Bench(tmp_path)
    bench.plug(case.address, case.make())
    source = on(bench, case.settings(), case.address)
    source.open()
    read_for(source, bench, 5)
    for _ in range(20):
        bench.waits.clear()
        assert source.read(1.0)
        assert len(bench.waits) == 1 and 0.05 < bench.waits[0] < 0.25


@every_chip
def test_a_chip_that_is_unplugged_is_an_error_and_is_found_again(tmp_path: Path, case: Case) -> None:
    bench, fake = Bench(tmp_path), case.make()
    bench.plug(case.address, fake)
    source = on(bench, case.settings(), case.address)
    source.open()
    first = read_for(source, bench, 2)
    del bench.chips[case.address]
    with pytest.raises(SensorError) as caught:
        read_for(source, bench, 2)
    assert "nothing answers there: check cable, power and address" in str(caught.value)
    assert caught.value.entry is catalogue.SENSOR_UNUSABLE
    source.close()
    with pytest.raises(SensorError):
        source.open()
    bench.wait(5)
    again = case.make()
    bench.plug(case.address, again)
    source.open()
    second = read_for(source, bench, 2)
    acc = seen(second, "acc", case.acc_g)
    assert np.abs(acc.t_s - np.array([again.taken_s[k] for k in acc.numbers])).max() < 0.025
    assert acc.t_s[0] > seen(first, "acc", case.acc_g).t_s[-1]


@every_chip
def test_a_chip_that_loses_its_power_for_a_moment_is_an_error_and_is_set_up_again(tmp_path: Path, case: Case) -> None:
    bench, fake = Bench(tmp_path), case.make()
    bench.plug(case.address, fake)
    source = on(bench, case.settings(), case.address)
    source.open()
    read_for(source, bench, 2)
    fake.power_on()
    with pytest.raises(SensorError, match=r"answers, but has measured nothing for \d\.\d s"):
        read_for(source, bench, 4)
    source.close()
    source.open()
    assert read_for(source, bench, 1)


def test_a_chip_that_is_swapped_for_another_while_it_is_read_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    source = on(bench, MPU.settings(), 0x68)
    source.open()
    read_for(source, bench, 1)
    bench.plug(0x68, FakeMpu(identity=0x71))
    with pytest.raises(SensorError, match="reads 0x71, expected 0x68; that is the identity of MPU-9250"):
        read_for(source, bench, 4)


def test_a_fifo_is_read_at_all_phases_of_the_chips_clock(tmp_path: Path) -> None:
    # At one phase alone, a count is the same for all times that the samples may have been taken at.
    bench, fake = Bench(tmp_path), FakeMpu()
    bench.plug(0x68, fake)
    source = on(bench, MPU.settings(), 0x68)
    source.open()
    phases = []
    for _ in range(60):
        source.read(0.5)
        phases.append((bench.now_s - fake.taken_s[-1]) * 50)
    assert min(phases[20:]) < 0.15 and max(phases[20:]) > 0.85


def test_without_fifo_looks_are_unevenly_spaced_and_never_a_period_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    source = on(bench, MPU.settings(fifo=False), 0x68)
    source.open()
    bench.waits.clear()
    read_for(source, bench, 5)
    steps = np.array(bench.waits) * 50
    assert steps.max() < 0.8 and steps.min() < 0.3 < 0.7 < steps.max()


@every_chip
def test_another_chip_at_the_address_is_refused_and_the_bus_let_go(tmp_path: Path, case: Case) -> None:
    bench = Bench(tmp_path)
    other = ADXL if case is not ADXL else MPU
    bench.plug(case.address, other.make())
    source = on(bench, case.settings(), case.address)
    with pytest.raises(SensorError, match=r": no .*: its identity reads 0x00, expected 0x"):
        source.open()
    with pytest.raises(SensorError) as caught:
        source.read(0.1)
    assert caught.value.entry is catalogue.SOURCE_MISUSED


def test_a_copy_with_another_identity_is_used_when_the_settings_say_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu(identity=0x98))
    with pytest.raises(SensorError, match="reads 0x98"):
        on(bench, MPU.settings(), 0x68).open()
    source = on(bench, MPU.settings(identity=0x98), 0x68)
    source.open()
    assert read_for(source, bench, 1)


def test_a_copy_whose_fifo_gives_nothing_is_asked_for_each_sample_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench, fake = Bench(tmp_path), FakeMpu(has_fifo=False, fast=0.02)
    bench.plug(0x68, fake)
    source = on(bench, MPU.settings(), 0x68)
    source.open()
    items = read_for(source, bench, 20)
    assert [each.message for each in caplog.records] == [
        "I2C bus 1, address 0x68: its FIFO gives nothing; asking for each sample instead"
    ]
    acc = seen(items, "acc", MPU.acc_g)
    assert acc.numbers == list(range(acc.numbers[0], acc.numbers[0] + len(acc.numbers)))
    assert acc.numbers[-1] > 900


@every_chip
@pytest.mark.parametrize("fast", [-0.03, 0.03])
def test_without_fifo_every_sample_comes_once_at_its_time_too(tmp_path: Path, case: Case, fast: float) -> None:
    bench, fake = Bench(tmp_path), case.make(fast=fast)
    bench.plug(case.address, fake)
    source = on(bench, case.settings(fifo=False), case.address)
    source.open()
    items = read_for(source, bench, 30)
    acc = seen(items, "acc", case.acc_g)
    assert acc.numbers == list(range(acc.numbers[0], acc.numbers[0] + len(acc.numbers)))
    assert len(acc.numbers) > 50 * 0.95 * 29
    late_s = acc.t_s - np.array([fake.taken_s[k] for k in acc.numbers])
    assert (np.diff(acc.t_s) > 0).all() and np.abs(late_s).max() < 0.02
    assert np.abs(late_s[len(late_s) // 2 :]).max() < 0.008


def test_without_fifo_samples_missed_are_a_hole_in_the_times_and_many_are_a_gap(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeMpu()
    bench.plug(0x68, fake)
    source = on(bench, MPU.settings(fifo=False), 0x68)
    source.open()
    read_for(source, bench, 3)
    bench.wait(0.2)
    few = read_for(source, bench, 1)
    bench.wait(30)
    many = read_for(source, bench, 1)
    assert not any(isinstance(each, Gap) for each in few)
    assert [isinstance(each, Gap) for each in many].count(True) == 1
    for items in (few, many):
        acc = seen(items, "acc", MPU.acc_g)
        assert np.abs(acc.t_s - np.array([fake.taken_s[k] for k in acc.numbers])).max() < 0.02


@every_chip
def test_a_chip_that_falls_silent_without_fifo_is_an_error_too(tmp_path: Path, case: Case) -> None:
    bench, fake = Bench(tmp_path), case.make()
    bench.plug(case.address, fake)
    source = on(bench, case.settings(fifo=False), case.address)
    source.open()
    read_for(source, bench, 1)
    fake.power_on()
    with pytest.raises(SensorError, match="has measured nothing"):
        read_for(source, bench, 4)


def test_what_is_mounted_askew_is_turned_into_the_bodys_axes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu(source=lambda k: (4096, 0, 0, 0, 0, 131)))
    # The chip's x points along the body's y, its y against the body's x.
    source = on(bench, MPU.settings(mounting=[[0, -1, 0], [1, 0, 0], [0, 0, 1]]), 0x68)
    source.open()
    for each in read_for(source, bench, 1):
        assert isinstance(each, Block) and each.values.dtype == np.float32
        expected = [0, 1, 0] if each.modality == "acc" else [0, 0, np.radians(4)]
        np.testing.assert_allclose(each.values, [expected] * len(each.values), atol=1e-6)


def test_a_rotation_that_people_rounded_is_made_exact() -> None:
    half = 0.707
    exact = rotation([[half, -half, 0], [half, half, 0], [0, 0, 1]])
    np.testing.assert_allclose(exact @ exact.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(exact[0], [np.sqrt(0.5), -np.sqrt(0.5), 0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"mounting": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}, "mounting: not a rotation"),
        ({"mounting": [[2, 0, 0], [0, 2, 0], [0, 0, 2]]}, "mounting: not a rotation"),
        ({"mounting": [[1, 0.1, 0], [0, 1, 0], [0, 0, 1]]}, "mounting: not a rotation"),
        ({"mounting": [[1, 0], [0, 1]]}, "mounting: expected three rows of three numbers"),
        ({"mounting": [1, 0, 0]}, r"mounting\[0\]: expected a list"),
        ({"modalities": ["acc", "mag"]}, "modalities: acc, mag: expected one called acc"),
        ({"modalities": ["acc", "acc_wrist"]}, "modalities: acc, acc_wrist: expected one called acc"),
        ({"modalities": ["acc", "acc"]}, "modalities: a name occurs twice"),
        ({"modalities": ["accent"]}, "modalities: accent: expected one called acc"),
        ({"chip": "adxl345"}, "modalities: adxl345 has no gyroscope; name acc alone"),
        ({"gyro_range_dps": 125}, "gyro_range_dps: mpu6050 has 250, 500, 1000, 2000, not 125"),
        ({"acc_range_g": 3}, "acc_range_g: expected one of 2, 4, 8, 16, got 3"),
        ({"chip": "bmi160"}, "chip: expected one of 'mpu6050'"),
        ({"address": 0x78}, "address: expected at most 119, got 120"),
        ({"rate_hz": 0.5}, "rate_hz: expected at least 1"),
        ({"bus": 1}, "bus: expected text, got 1"),
    ],
)
def test_settings_that_cannot_work_are_explained(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError, match=problem):
        sensor_settings(TABLE | change)


def test_settings_come_back_as_they_were_written() -> None:
    full = TABLE | {
        "bus": "/dev/i2c-3",
        "address": 0x69,
        "rate_hz": 100.0,
        "acc_range_g": 16,
        "gyro_range_dps": 2000,
        "mounting": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        "fifo": False,
        "identity": 0x98,
    }
    for table in (TABLE, full):
        settings = sensor_settings(table)
        assert sensor_settings(plain(settings)) == settings
    lsm = sensor_settings(TABLE | {"chip": "lsm6dso", "gyro_range_dps": 125})
    assert isinstance(lsm, ImuSettings) and lsm.gyro_range_dps == 125


def test_windows_of_two_chips_of_different_clocks_show_the_same_movement(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    fakes = {0x68: FakeMpu(fast=0.02), 0x53: FakeAdxl345(fast=-0.02)}
    units = {0x68: 4096, 0x53: 256}
    for address, fake in fakes.items():
        bench.plug(address, fake)

        def moving(k: int, fake: FakeChip = fake, unit: int = units[address]) -> tuple[int, int, int, int, int, int]:
            assert fake.next_s is not None
            return round(unit * np.sin(2 * np.pi * fake.next_s)), 0, 0, 0, 0, 0

        fake.source = moving
    sources = [
        on(bench, MPU.settings(modalities=["acc_arm"]), 0x68),
        on(bench, ADXL.settings(modalities=["acc_leg"]), 0x53),
    ]
    spec = WindowSpec(window_s=2.0, stride_s=1.0)
    windower = Windower([each.modalities[0] for each in sources], spec)
    windows = []
    for source in sources:
        source.open()
    while bench.now_s < 1040:
        for source in sources:
            for item in source.read(0.1):
                assert isinstance(item, Block)
                windows += windower.feed(item)
    assert len(windows) > 30
    for window in windows[15:]:
        arm, leg = (window.arrays[name][:, 0] for name in ("acc_arm", "acc_leg"))
        # A shift of 10 ms would be up to 0.063 of a swing of 1 Hz.
        assert np.abs(arm - leg).max() < 0.06


@every_chip
def test_a_self_test_of_a_closed_source_leaves_it_closed_and_the_chip_asleep(tmp_path: Path, case: Case) -> None:
    bench, fake = Bench(tmp_path), case.make(source=lambda k: (0, 0, 0, 0, 0, 0))
    bench.plug(case.address, fake)
    source = on(bench, case.settings(), case.address)
    result = source.self_test()
    assert not result.passed and len(result.axes) == (3 if case is ADXL else 6)
    assert fake.rate_hz() == 0
    with pytest.raises(SensorError):
        source.read(0.1)
    source.open()
    assert read_for(source, bench, 1)


def test_a_bus_that_is_too_slow_for_the_rate_is_an_error_that_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    source = on(bench, MPU.settings(rate_hz=1000), 0x68)
    source.open()
    assert read_for(source, bench, 1)
    bench.byte_s = 9 / 10_000
    with pytest.raises(SensorError, match="the FIFO held nothing whole, at 1000 Hz; lower rate_hz"):
        for _ in range(100):
            source.read(0.5)


def test_words_of_other_sensors_alone_are_no_samples(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), FakeLsm6dso()
    bench.plug(0x6A, fake)
    source = on(bench, DSO.settings(), 0x6A)
    source.open()
    read_for(source, bench, 1)
    fake.batch = lambda six: fake.push(0x03, six[:3])  # type: ignore[method-assign]
    items: list[Item] = []
    with pytest.raises(SensorError, match=r"held nothing whole|measured nothing"):
        for _ in range(100):
            items += source.read(0.5)
    assert not any(isinstance(each, Block) for each in items)


# The search


def test_nothing_is_touched_unless_a_search_is_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    assert found(root=tmp_path, ioctl=bench.ioctl) == ()
    assert bench.trace == []


def test_a_search_finds_each_chip_and_gives_the_table_that_opens_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, adapter='a "bus"')
    bench.plug(0x69, FakeMpu(identity=0x73))
    bench.plug(0x6A, FakeLsm6ds3())
    bench.plug(0x6B, FakeLsm6dso())
    bench.plug(0x1D, FakeAdxl345())
    there = found(probe=True, root=tmp_path, ioctl=bench.ioctl)
    assert [(each.kind, each.name) for each in there] == [
        ("imu", "mpu9250@0x69"),
        ("imu", "lsm6ds3@0x6a"),
        ("imu", "lsm6dso@0x6b"),
        ("imu", "adxl345@0x1d"),
    ]
    assert there[0].text == 'mpu9250 at 0x69 on I2C bus 1 (a "bus")'
    for each, address in zip(there, (0x69, 0x6A, 0x6B, 0x1D), strict=True):
        [table] = tomllib.loads(each.toml)["sensors"]
        settings = sensor_settings(table)
        assert isinstance(settings, ImuSettings) and settings.address == address and settings.bus == 'a "bus"'
        source = on(bench, settings, address)
        source.open()
        assert read_for(source, bench, 1)
        source.close()


def test_a_search_only_reads_and_leaves_drivers_chips_and_monitors_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.plug(0x68, FakeMpu())
    bench.bound.add(0x68)
    for number, name in enumerate(("i915 gmbus dpc", "NVIDIA i2c adapter 1", "DPDDC-A", "AMDGPU DM aux hw bus 0"), 2):
        bench.add_bus(number, name)
    opened: list[str] = []

    def listening(file: int, request: int, argument: Any) -> int:
        opened.append(Path(f"/proc/self/fd/{file}").readlink().name)
        return bench.ioctl(file, request, argument)

    assert found(probe=True, root=tmp_path, ioctl=listening) == ()
    assert set(opened) == {"i2c-1"}
    bench.bound.clear()
    assert [each.name for each in found(probe=True, root=tmp_path, ioctl=bench.ioctl)] == ["mpu6050@0x68"]
    assert len(bench.trace) == 2, "each register of each address once"
    assert all(len(data) == 1 for _, way, data in bench.trace if way == "W"), "a register's number, and no value"


def test_two_adapters_of_one_name_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, adapter="same")
    bench.add_bus(2, "same")
    bench.plug(0x68, FakeMpu())
    there = found(probe=True, root=tmp_path, ioctl=bench.ioctl)
    assert [tomllib.loads(each.toml)["sensors"][0]["bus"] for each in there] == ["1", "2"]


def test_a_bus_that_may_not_be_opened_ends_no_search(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.failures.extend([errno.EACCES] * 100)
    bench.plug(0x68, FakeMpu())
    assert found(probe=True, root=tmp_path, ioctl=bench.ioctl) == ()
