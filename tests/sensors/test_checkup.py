"""`mekt sensors check`: each sensor that is sound, and each way in which one is not."""

import errno
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mekt.check import Check
from mekt.cli import main
from mekt.modality import Modality
from mekt.process import Stop
from sensors.checkup import examine, run_check
from sensors.i2c import I2cDevice
from sensors.iio.source import IioSettings
from sensors.imu import ImuSettings
from sensors.mqtt import MqttSettings
from sensors.recording import write_recording
from sensors.settings import SensorSettings, sensor_settings
from sensors.simulator import simulate
from sensors.source import Block, Gap, Item, Source
from tests.sensors.i2c_bench import Bench, FakeMpu
from tests.sensors.iio.tree import MPU6050, Tree
from tests.sensors.test_mpu6050 import ACC_TRIM, GYRO_TRIM, STEP, trimmed

ACC = Modality(name="acc", shape=(3,), rate_hz=50, unit="g")


class Scripted:
    """A source that gives samples (n, 3) at times, ten a read; a gap before every one of `gaps`."""

    def __init__(self, t_s: object, values: object, gaps: Sequence[int] = ()) -> None:
        self.modalities: tuple[Modality, ...] = (ACC,)
        self.t_s, self.values = np.asarray(t_s, np.float64), np.asarray(values, np.float32)
        self.gaps, self.at = gaps, 0

    def open(self) -> None:
        self.at = 0

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        if self.at >= len(self.t_s):
            return None
        now, self.at = slice(self.at, self.at + 10), self.at + 10
        block = Block(modality="acc", t_s=self.t_s[now], values=self.values[now])
        return [*([Gap(modalities=("acc",))] if now.start in self.gaps else []), block]

    def close(self) -> None:
        pass


def imu(bench: Bench, fake: FakeMpu) -> tuple[ImuSettings, Source]:
    bench.plug(0x68, fake)
    table = {"kind": "imu", "chip": "mpu6050", "modalities": ["acc", "gyro"], "rate_hz": 50}
    settings = sensor_settings(table)
    assert isinstance(settings, ImuSettings)
    device = I2cDevice("1", 0x68, root=bench.folder, ioctl=bench.ioctl)
    return settings, settings.on(device, clock=bench.clock, wait=bench.wait)


def mqtt() -> MqttSettings:
    settings = sensor_settings(
        {
            "kind": "mqtt",
            "topic": "a",
            "broker": {"host": "h"},
            "signals": [{"name": "acc", "fields": ["x", "y", "z"], "rate_hz": 50}],
        }
    )
    assert isinstance(settings, MqttSettings)
    return settings


def said(settings: SensorSettings, source: Source, bench: Bench | None = None) -> dict[str, Check]:
    clock = {"clock": bench.clock} if bench else {}
    checks = list(examine("sensors[0]", settings, source, 5.0, Stop(), **clock))
    named = {each.name: each for each in checks}
    assert len(named) == len(checks)
    return named


def marks(checks: dict[str, Check]) -> dict[str, str]:
    return {name: each.mark for name, each in checks.items()}


def still(*, seconds: float = 5.0, rate_hz: float = 50, noise: float = 0.002) -> Scripted:
    t_s = np.arange(0, seconds, 1 / rate_hz)
    values = np.random.default_rng(3).normal([0, 0, 1], noise, (len(t_s), 3))
    return Scripted(t_s, values)


def test_a_sound_chip_passes_everything_with_its_numbers_and_lies_asleep_again(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), trimmed()
    fake.source = lambda k: (10 + k % 5, -20, 4096, 5, 6 + k % 3, 7)
    trims = (ACC_TRIM, ACC_TRIM * STEP, ACC_TRIM * STEP**2, GYRO_TRIM, -GYRO_TRIM, GYRO_TRIM)
    fake.response = tuple(round(each) for each in trims)  # type: ignore[assignment]
    checks = said(*imu(bench, fake), bench)
    assert list(checks) == [
        "sensors[0]", "acc rate", "acc range", "acc at rest", "gyro rate", "gyro range", "sensors[0] test",
    ]  # fmt: skip
    assert set(marks(checks).values()) == {"ok"}
    assert checks["acc rate"].seen.startswith("49.9") and "0 missing" in checks["acc rate"].seen
    assert checks["acc range"].seen == "-0.00488 to 1 g; reaches +-8 g"
    assert checks["acc at rest"].seen.startswith("|g| = 1.000 +- 0.0")
    assert checks["sensors[0] test"].seen == "MPU-6050: all 6 axes passed"
    assert fake.rate_hz() == 0


def test_a_chip_that_fails_its_own_test_says_on_which_axis(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), trimmed()
    sound = round(GYRO_TRIM)
    fake.response = (0, round(ACC_TRIM * STEP), round(ACC_TRIM * STEP**2), sound, 9, sound)
    test = said(*imu(bench, fake), bench)["sensors[0] test"]
    assert test.mark == "FAILED" and "acc x: -100" in test.seen and "gyro y" in test.seen and "acc y" not in test.seen


def test_a_chip_that_falls_silent_in_its_own_test_says_so(tmp_path: Path) -> None:
    class Tired(FakeMpu):
        resets = 0

        def power_on(self) -> None:
            super().power_on()
            self.resets += 1

        def rate_hz(self) -> float:
            # Plugged in, started to be read, started to be tested.
            return super().rate_hz() if self.resets < 3 else 0.0

    bench = Bench(tmp_path)
    test = said(*imu(bench, Tired(source=lambda k: (0, k % 2, 4096, 0, k % 3, 0))), bench)["sensors[0] test"]
    assert (test.mark, test.seen, test.remedy) == ("FAILED", "MPU-6050: gives no samples", "switch it off and on")


def test_who_is_asked_to_stop_judges_nothing() -> None:
    stop = Stop()
    stop.request()
    source = still()
    [check] = examine("sensors[0]", mqtt(), source, 5.0, stop)
    assert check.mark == "skipped" and source.at == 0


def test_a_chip_that_moves_is_not_tested(tmp_path: Path) -> None:
    bench, fake = Bench(tmp_path), trimmed()
    fake.source = lambda k: (4000 * (k % 2), 0, 4096, 0, 0, 0)
    checks = said(*imu(bench, fake), bench)
    assert (checks["acc at rest"].mark, checks["sensors[0] test"].mark) == ("warning", "skipped")
    assert checks["acc at rest"].remedy == "it moves: lay it down and try again"


def test_a_chip_at_an_end_of_its_range_is_a_warning_and_no_gravity_a_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    checks = said(*imu(bench, FakeMpu(source=lambda k: (32767, 0, k % 3, 0, 0, k % 2))), bench)
    assert (checks["acc range"].mark, checks["acc at rest"].mark) == ("warning", "FAILED")
    assert "1 g was expected" in checks["acc at rest"].remedy


def test_a_sensor_that_is_not_there_fails_with_what_it_says_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    settings, source = imu(bench, FakeMpu())
    bench.chips.clear()
    [(name, check)] = said(settings, source, bench).items()
    assert (name, check.mark) == ("sensors[0]", "FAILED")
    assert check.remedy == "nothing answers there: check cable, power and address"


def test_a_range_that_a_driver_refuses_is_a_failure(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add(0, MPU6050)
    table = {"modalities": ("acc", "gyro"), "name": "mpu6050", "access": "polled", "ranges": {"acc": 8.0}}
    settings = IioSettings(**table, root=str(tree.root), nodes=str(tree.nodes))  # type: ignore[arg-type]
    # The tree's files never change.
    for refused, mark, reaches in ((False, "warning", 7.993), (True, "FAILED", 1.998)):
        tree.kernel.refused = {"in_accel_scale": errno.EINVAL} if refused else {}
        source = tree.source(**table)
        checks = {
            each.name: each
            for each in examine("sensors[0]", settings, source, 5.0, Stop(), clock=lambda: tree.clock.now_s)
        }
        assert checks["acc range"].mark == mark
        assert f"reaches +-{reaches} g" in checks["acc range"].seen
        assert checks["gyro range"].seen.endswith("every sample is the same")
        assert "reaches +-34.89 rad/s" in checks["gyro range"].seen
        assert checks["acc rate"].mark == "ok" and "sensors[0] test" not in checks
    tree.close()


@pytest.mark.parametrize(
    ("rate_hz", "mark", "remedy"),
    [
        (50, "ok", ""),
        (54, "ok", ""),
        (26, "warning", "it measures at another rate"),
        (100, "warning", "it measures at another rate"),
        (3, "FAILED", "there is a hole behind each sample"),
    ],
)
def test_a_rate_is_held_against_the_one_that_is_configured(rate_hz: float, mark: str, remedy: str) -> None:
    check = said(mqtt(), still(rate_hz=rate_hz, seconds=20))["acc rate"]
    assert (check.mark, check.remedy[: len(remedy)]) == (mark, remedy)


def test_uneven_lost_backward_and_broken_samples_are_told() -> None:
    uneven = still()
    uneven.t_s += np.where(np.arange(len(uneven.t_s)) % 2, 0.015, 0)
    assert said(mqtt(), uneven)["acc rate"].mark == "warning"
    lost = still(seconds=6)
    lost.t_s[100:] += 0.3
    assert "longest gap 320 ms" in said(mqtt(), lost)["acc rate"].seen
    assert said(mqtt(), lost)["acc rate"].remedy.startswith("take load off")
    some = still(seconds=8)
    dropped = np.arange(10, 400, 20)
    some.t_s, some.values = np.delete(some.t_s, dropped), np.delete(some.values, dropped, axis=0)
    assert said(mqtt(), some)["acc rate"].remedy.startswith("take load off")
    backward, broken, anew = still(), still(), still()
    backward.t_s[30] = backward.t_s[28]
    broken.values[40] = np.nan
    anew.gaps = (0, 100)
    for source, seen in (
        (backward, "began anew 0 times, 1 not later than one before, 0 no numbers"),
        (broken, "began anew 0 times, 0 not later than one before, 1 no numbers"),
        (anew, "began anew 1 times, 0 not later than one before, 0 no numbers"),
    ):
        check = said(mqtt(), source)["acc rate"]
        assert check.mark == "warning" and check.seen.endswith(seen)


def test_a_clock_that_is_a_little_slow_and_samples_that_are_a_little_uneven_lose_nothing() -> None:
    slow = still(rate_hz=48.5)
    assert said(mqtt(), slow)["acc rate"].mark == "ok"
    uneven = still()
    uneven.t_s += np.random.default_rng(1).uniform(-0.007, 0.007, len(uneven.t_s))
    check = said(mqtt(), uneven)["acc rate"]
    assert check.mark == "ok" and " 0 missing" not in check.seen


def test_silence_is_a_failure_and_so_is_a_single_sample() -> None:
    none = said(mqtt(), Scripted([], np.zeros((0, 3))))
    assert marks(none) == {"sensors[0]": "ok", "acc rate": "FAILED"}
    assert none["acc rate"].seen.startswith("0 samples in")
    checks = said(mqtt(), Scripted([0], np.zeros((1, 3))))
    assert checks["acc rate"].mark == "FAILED"
    assert (checks["acc range"].mark, checks["acc range"].remedy[:15]) == ("warning", "it may be stuck")
    assert checks["acc at rest"].mark == "skipped"


def test_the_command_looks_at_every_table_and_ends_with_the_first_failures_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recording(tmp_path / "a.npz", simulate(1, seed=1, duration_s=6.0, modalities=["acc", "depth"]))
    replay = '[[sensors]]\nkind = "replay"\nspeed = 1e6\nrecordings = ["a.npz"]\nmodalities = ["acc", "depth"]\n'
    path = tmp_path / "device.toml"
    path.write_text(replay)
    assert main(["sensors", "check", "--config", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8].strip() for line in lines[:-1]] == ["ok", "ok", "ok", "skipped", "ok", "ok"]
    assert lines[0].startswith("ok       sensors[0]     replay (acc, depth): opened, and read for ")
    assert lines[-1] == "sensors: nothing failed, 0 warnings, 1 skipped"

    path.write_text(replay + '[[sensors]]\nkind = "serial"\ndevice = "/dev/nowhere"\n'
                    'signals = [{ name = "gyro", fields = ["1", "2", "3"], rate_hz = 50 }]\n')  # fmt: skip
    out = io.StringIO()
    assert run_check(path, modalities=["gyro"], seconds=5.0, as_json=True, out=out, stop=Stop()) == 5
    said = json.loads(out.getvalue())
    assert said["exit_code"] == 5
    [check] = said["checks"]
    assert (check["name"], check["mark"], check["exit_code"]) == ("sensors[1]", "FAILED", 5) and check["remedy"]
