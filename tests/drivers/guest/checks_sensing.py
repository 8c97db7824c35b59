"""All of it as a device senses: three sources of three kinds, whose windows are of the same moments."""

from pathlib import Path

import numpy as np

from edge.sensing import Sensing
from edge.settings import PrivateWindows
from mekt.modality import WindowSpec
from tests.drivers.guest.camera import BLACK, set_control, stand
from tests.drivers.guest.checks_i2c import IMU
from tests.drivers.guest.checks_iio import ACC, counting
from tests.drivers.guest.checks_v4l2 import GREY
from tests.drivers.guest.motion_chip import MotionChip, Registers, bus_number
from tests.drivers.guest.reading import Record, Tapped, source_of
from tests.drivers.guest.sensor_hub import SensorHub, accelerometer
from tests.drivers.guest.waiting import iio_device, iio_devices, seconds, until

# Slowly: everything here runs on one emulated processor, and the posing chip passes samples over when it comes late.
GYRO = IMU.replace('"acc", "gyro"', '"gyro"').replace("rate_hz = 10", "rate_hz = 5")


def test_windows_of_three_sensors_go_on_after_one_was_pulled_out_and_plugged_in_again(
    record_property: Record, tmp_path: Path
) -> None:
    stand()
    registers = Registers(bus_number())
    hub = SensorHub([accelerometer(counting)])
    with hub, MotionChip(registers, lambda number: ((0.0, 0.0, 1.0), (90.0, 0.0, 0.0))):
        iio_device("accel_3d")
        sources = [Tapped(source_of(each)) for each in (ACC, GYRO, GREY)]
        modalities = [each for source in sources for each in source.modalities]
        spec = WindowSpec(window_s=1.0, stride_s=0.5)
        kept = PrivateWindows(capacity=64, least=4)
        sensing = Sensing(sources, modalities, spec, kept, folder=tmp_path, enough=lambda: None, retry_s=0.5)
        began_s = seconds()
        sensing.start()
        try:
            until(lambda: sensing.count >= 6, lambda: f"{sensing.count} windows; {[each.told for each in sources]}")
            record_property("six windows after, s", round(seconds() - began_s, 1))
            hub.unplug()
            assert iio_devices("accel_3d") == []
            set_control("Test Pattern", BLACK)
            before = sensing.count
            hub.plug()
            began_s = seconds()
            until(lambda: sensing.count >= before + 6, lambda: f"{sensing.count}; {[each.told for each in sources]}")
            record_property("six more after, s", round(seconds() - began_s, 1))
        finally:
            assert sensing.stop(60.0)
        with sensing.hold().check() as held:
            arrays = held.take(range(len(held)))
    registers.close()
    record_property("sources", [each.told for each in sources])
    record_property("windows", {name: list(each.shape) for name, each in arrays.items()})
    assert np.abs(arrays["acc"][:, :, [0, 2]] - [-0.25, 1.0]).max() < 1e-3
    assert np.abs(arrays["gyro"] - [np.pi / 2, 0.0, 0.0]).max() < 1e-2
    # Dark since it was plugged in again, and in no window before.
    assert arrays["room"][0].mean() > 0.9 and arrays["room"][-1].mean() < 0.1
