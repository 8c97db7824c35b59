"""IIO devices as the kernel's files show them, in a temporary folder, with the kernel's answers to changes.

The attributes are those of real drivers, with numbers as these print them.
"""

import errno
import os
import shutil
import struct
import time
from pathlib import Path

from sensors.iio.attributes import Kernel
from sensors.iio.source import IioSettings, IioSource

# drivers/iio/imu/inv_mpu6050: one device of three kinds, big-endian, with the temperature between them.
MPU6050 = {
    "name": "mpu6050",
    "current_timestamp_clock": "realtime",
    "in_accel_mount_matrix": "0, 1, 0; -1, 0, 0; 0, 0, 1",
    "in_accel_scale": "0.000598",
    "in_accel_scale_available": "0.000598 0.001196 0.002392 0.004785",
    "in_accel_x_calibbias": "-2390",
    "in_accel_x_raw": "164",
    "in_accel_y_raw": "-16400",
    "in_accel_z_raw": "820",
    "in_anglvel_mount_matrix": "0, 1, 0; -1, 0, 0; 0, 0, 1",
    "in_anglvel_scale": "0.001064724",
    "in_anglvel_scale_available": "0.000133090 0.000266181 0.000532362 0.001064724",
    "in_anglvel_x_raw": "10",
    "in_anglvel_y_raw": "-20",
    "in_anglvel_z_raw": "1000",
    "in_temp_offset": "12420",
    "in_temp_raw": "-1824",
    "in_temp_scale": "2.941176",
    "sampling_frequency": "20",
    "sampling_frequency_available": "10 20 50 100 200 500",
    "trigger/current_trigger": "mpu6050-dev0",
    "buffer0/data_available": "0",
    "buffer0/direction": "in",
    "buffer0/enable": "0",
    "buffer0/length": "2",
    "buffer0/watermark": "1",
} | {
    f"buffer0/in_{channel}_{what}": text
    for index, channel in enumerate(
        ["accel_x", "accel_y", "accel_z", "temp", "anglvel_x", "anglvel_y", "anglvel_z", "timestamp"]
    )
    for what, text in (
        ("en", "1" if channel == "temp" else "0"),
        ("index", str(index)),
        ("type", "le:s64/64>>0" if channel == "timestamp" else "be:s16/16>>0"),
    )
}

# drivers/iio/accel/hid-sensor-accel-3d before Linux 5.12: 16 of 32 bits, the others garbage.
HID_ACCEL = {
    "name": "accel_3d",
    "in_accel_hysteresis": "0.000000",
    "in_accel_offset": "0",
    "in_accel_sampling_frequency": "50.000000",
    "in_accel_scale": "0.009806650",
    "in_accel_x_raw": "0",
    "in_accel_y_raw": "0",
    "in_accel_z_raw": "1000",
    "current_timestamp_clock": "realtime",
    "trigger/current_trigger": "",
    "buffer/enable": "0",
    "buffer/length": "2",
    "buffer/watermark": "1",
    "scan_elements/in_timestamp_en": "0",
    "scan_elements/in_timestamp_index": "3",
    "scan_elements/in_timestamp_type": "le:s64/64>>0",
} | {
    f"scan_elements/in_accel_{axis}_{what}": text
    for index, axis in enumerate("xyz")
    for what, text in (("en", "0"), ("index", str(index)), ("type", "le:s16/32>>0"))
}

# drivers/iio/magnetometer/ak8975: a scale for each axis, a matrix for all inputs, no rate.
AK8963 = {
    "name": "ak8963",
    "current_timestamp_clock": "realtime",
    "in_magn_x_raw": "100",
    "in_magn_y_raw": "200",
    "in_magn_z_raw": "-300",
    "in_magn_x_scale": "0.001774",
    "in_magn_y_scale": "0.001786",
    "in_magn_z_scale": "0.001716",
    "in_mount_matrix": "1, 0, 0; 0, -1, 0; 0, 0, -1",
}


class Clock:
    """Time that passes only when it is waited for; the wall clock is `wall_s` ahead."""

    def __init__(self) -> None:
        self.now_s, self.wall_s = 5000.0, 1.7e9


class FakeKernel(Kernel):
    """Files with the kernel's manners: nothing is changed while the buffer runs, and some things never.

    `refused` are errors for attributes, by the end of their paths; `log` is what was written.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.refused: dict[str, int] = {}
        self.unreadable: dict[str, int] = {}
        self.log: list[tuple[str, str]] = []
        self.gone = False

    def seconds(self, clock: int = time.CLOCK_MONOTONIC) -> float:
        return self.clock.now_s + (self.clock.wall_s if clock == time.CLOCK_REALTIME else 0)

    def wait(self, duration_s: float) -> None:
        assert duration_s > 0
        self.clock.now_s += duration_s

    def read(self, path: Path) -> str:
        self._refuse(path, self.unreadable)
        return super().read(path)

    def write(self, path: Path, text: str) -> None:
        self._refuse(path, self.refused)
        running = any(
            (each / "enable").read_text() == "1\n"
            for each in (path.parent, path.parent.parent / "buffer")
            if (each / "enable").exists()
        )
        if running and path.name != "enable":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        super().write(path, text)
        self.log.append((path.name if path.parent.name.startswith("iio:") else f"{path.parent.name}/{path.name}", text))

    def open(self, path: Path) -> int:
        self._refuse(path, self.unreadable)
        return super().open(path)

    def take(self, descriptor: int, size: int) -> bytes:
        if self.gone:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return super().take(descriptor, size)

    def again(self, descriptor: int) -> str:
        if self.gone:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return super().again(descriptor)

    def _refuse(self, path: Path, refused: dict[str, int]) -> None:
        for end, number in refused.items():
            if str(path).endswith(end):
                raise OSError(number, os.strerror(number), str(path))


class Tree:
    """`/sys/bus/iio/devices` and `/dev` of a machine; device nodes are pipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.nodes = folder / "sys/bus/iio/devices", folder / "dev"
        self.clock = Clock()
        self.kernel = FakeKernel(self.clock)
        self._pipes: dict[int, int] = {}
        for each in (self.root, self.nodes):
            each.mkdir(parents=True)

    def add(self, number: int, attributes: dict[str, str], at: str = "1-0068") -> Path:
        """A device as of now; its folder."""
        real = self.folder / "sys/devices/platform/soc/fe804000.i2c/i2c-1" / at / f"iio:device{number}"
        for name, text in attributes.items():
            (real / name).parent.mkdir(parents=True, exist_ok=True)
            (real / name).write_text(f"{text}\n")
        (self.root / real.name).symlink_to(os.path.relpath(real, self.root))
        node = self.nodes / real.name
        os.mkfifo(node)
        self._pipes[number] = os.open(node, os.O_RDWR | os.O_NONBLOCK)
        return real

    def add_trigger(self, number: int, name: str, **attributes: str) -> Path:
        folder = self.root / f"trigger{number}"
        folder.mkdir()
        for each, text in {"name": name, **attributes}.items():
            (folder / each).write_text(f"{text}\n")
        return folder

    def remove(self, number: int) -> None:
        """Unplug a device."""
        shutil.rmtree((self.root / f"iio:device{number}").resolve())
        (self.root / f"iio:device{number}").unlink()
        (self.nodes / f"iio:device{number}").unlink()
        os.close(self._pipes.pop(number))

    def send(self, data: bytes, number: int = 0) -> None:
        """Let the device's buffer hold this as well."""
        assert os.write(self._pipes[number], data) == len(data)

    def text(self, name: str, number: int = 0) -> str:
        return (self.root / f"iio:device{number}" / name).read_text().strip()

    def snapshot(self, number: int = 0) -> dict[str, str]:
        """All attributes of a device."""
        folder = self.root / f"iio:device{number}"
        return {
            str(path.relative_to(folder.resolve())): path.read_text().strip()
            for path in folder.resolve().rglob("*")
            if path.is_file()
        }

    def source(self, **settings: object) -> IioSource:
        table = {"modalities": ("acc",), "name": "mpu6050", "root": str(self.root), "nodes": str(self.nodes)} | settings
        return IioSource(IioSettings(**table), kernel=self.kernel)  # type: ignore[arg-type]

    def close(self) -> None:
        for each in self._pipes.values():
            os.close(each)
        self._pipes = {}


def mpu6050_sample(acc: tuple[int, int, int], gyro: tuple[int, int, int], t_s: float) -> bytes:
    """What the driver pushes for one sample of both kinds: 12 bytes, four that hold anything, the time stamp."""
    return struct.pack(">6h", *acc, *gyro) + b"\xde\xad\xbe\xef" + struct.pack("<q", round(t_s * 1e9))


def hid_sample(acc: tuple[int, int, int], t_s: float, garbage: int = 0xC955) -> bytes:
    """16 bits a channel with garbage above; three words, four bytes to the time stamp's place."""
    words = [(garbage << 16) | (each & 0xFFFF) for each in acc]
    return struct.pack("<3I", *words) + b"\x55\xaa\x55\xaa" + struct.pack("<q", round(t_s * 1e9))
