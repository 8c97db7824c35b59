"""The range of an IIO device: the finest scale that still holds the largest value that is expected.

After Documentation/ABI/testing/sysfs-bus-iio, `in_accel_scale_available`. What a scale holds follows from the bits of a
number in the buffer; drivers do not say it otherwise.
"""

import logging

import numpy as np

from sensors.iio_axes import AXES, UNITS, Axes, names, number
from sensors.iio_device import FORBIDDEN, GONE, Folder
from sensors.iio_scan import scan_type

log = logging.getLogger(__name__)

# Drivers round their scales: 0.000598 m/s2 times 32768 is 1.998 g.
SLACK = 0.99


def scale_for(available: str, largest: float, bits: int) -> str:
    """Of a list of scales the driver's word for that which holds `largest` (in the kernel's unit) and is finest.

    When none does, that which holds most.

    Raises:
        ValueError: when it is no list of numbers.
    """
    offered = sorted((number(each), each) for each in available.split())
    if not offered:
        raise ValueError("expected a list of scales, got nothing")
    full = 2.0 ** (bits - 1)
    return next((word for scale, word in offered if scale * full >= SLACK * largest), offered[-1][1])


def type_file(folder: Folder, kind: str) -> str | None:
    """The file that says how many bits a number of this kind has; None where the device has no buffer."""
    return folder.first([f"{where}/in_{kind}_x_type" for where in ("buffer0", "scan_elements")])


def reach(axes: Axes, bits: int) -> float:
    """The largest value that all axes can show in numbers of so many bits, in our unit."""
    return float(np.abs(axes.scale).min()) * axes.factor * 2.0 ** (bits - 1)


def set_range(folder: Folder, kind: str, largest: float) -> None:
    """Have a kind of channel measure up to `largest` (in our unit), or as far as it goes.

    A driver that does not let one choose, or not any more, keeps its range, which is logged.

    Raises:
        OSError: when this user may not change it, or the device is gone.
        SensorError: when what the driver offers cannot be understood.
    """
    said = type_file(folder, kind)
    scales = dict.fromkeys(folder.first(names(kind, axis, "scale")) for axis in AXES)
    for name in scales:
        offers = folder.first([f"{name}_available", *(f"{each}_available" for each in names(kind, "x", "scale"))])
        if name is None or offers is None or said is None:
            log.warning("%s: the range of %s cannot be chosen; it stays as it is", folder.path, kind)
            return
        # An unsigned number has its middle taken off by the offset, so that it holds what a signed one does.
        bits = folder.parsed(said, scan_type).bits
        wanted = folder.parsed(offers, lambda text: scale_for(text, largest / UNITS[kind][1], bits))  # noqa: B023
        if folder.parsed(name, number) == float(wanted):
            continue
        try:
            folder.change(name, wanted)
        except OSError as error:
            if error.errno in (*FORBIDDEN, *GONE):
                raise
            log.warning("%s: %s %s is refused (%s)", folder.path, name, wanted, error.strerror)
