"""Rate and range of an IIO device: of what its driver offers, that which is nearest to what is wanted.

After Documentation/ABI/testing/sysfs-bus-iio. `sampling_frequency_available` is a list, `10 20 50`, or a range,
`[min step max]`, and stands beside the channel, the kind, the device, the buffer or the trigger, as the frequency does.
`in_accel_scale_available` is a list; what a scale holds follows from the bits of a number in the buffer.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial

from sensors.iio.attributes import FORBIDDEN, GONE, Folder
from sensors.iio.axes import AXES, UNITS, names, number
from sensors.iio.scan import scan_type

log = logging.getLogger(__name__)

FREQUENCY = "sampling_frequency"
# Drivers read six decimals.
SLOWEST_HZ = 1e-6
# They round their scales: 0.000598 m/s2 times 32768 is 1.998 g.
SLACK = 0.99


def nearest(available: str | None, rate_hz: float) -> str:
    """What to write for `rate_hz`, as the driver would: of a list the word itself, and of two as near the higher.

    Raises:
        ValueError: when `available` is neither list nor range of numbers above 0.
    """
    if available is None:
        return _written(rate_hz)
    if available.startswith("["):
        low, step, high = (number(each) for each in available.strip("[] \t").split())
        if not 0 <= low <= high or high < SLOWEST_HZ or step < 0:
            raise ValueError(f"expected [min step max], got {available[:80]!r}")
        wanted = min(max(rate_hz, low), high)
        # Steps below what is written are none.
        if step >= SLOWEST_HZ:
            wanted = min(low + round((wanted - low) / step) * step, high)
        return _written(wanted if wanted >= SLOWEST_HZ else min(max(step, SLOWEST_HZ), high))
    # A frequency of 0 stops some devices (stm32-timer-trigger).
    offered = [(number(each), each) for each in available.split() if number(each) > 0]
    if not offered:
        raise ValueError(f"expected a list of rates, got {available[:80]!r}")
    return min(offered, key=lambda each: (abs(each[0] - rate_hz), -each[0]))[1]


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


def set_rate(folder: Folder, kinds: Iterable[str], rate_hz: float) -> float:
    """Have the device sample as near to `rate_hz` as it can, and say how fast that is.

    It is `rate_hz` itself when the driver does not say. A driver that refuses keeps its rate, which is logged.

    Raises:
        OSError: when this user may not change it, or the device is gone.
        SensorError: when what the driver offers cannot be understood.
    """
    files = dict.fromkeys(
        folder.first([*names(kind, axis, FREQUENCY), f"buffer0/{FREQUENCY}", f"buffer/{FREQUENCY}"])
        for kind in kinds
        for axis in AXES
    )
    return min((_set_rate(folder, each, rate_hz) for each in files if each is not None), default=rate_hz)


def set_trigger_rate(trigger: Folder, rate_hz: float) -> float | None:
    """The same of a trigger that has a rate of its own (a timer); None when it has none."""
    return _set_rate(trigger, FREQUENCY, rate_hz) if trigger.has(FREQUENCY) else None


def set_ranges(folder: Folder, ranges: Mapping[str, float]) -> None:
    """Have each kind of channel measure up to the value (in our unit) that `ranges` has, or as far as it goes.

    A driver that does not let one choose, or not any more, keeps its range, which is logged.

    Raises:
        OSError: when this user may not change it, or the device is gone.
        SensorError: when what the driver offers cannot be understood.
    """
    for kind, largest in ranges.items():
        _set_range(folder, kind, largest / UNITS[kind][1])


def bits_of(folder: Folder, kind: str) -> int | None:
    """How many bits a number of this kind has in the device's buffer; None where it has none.

    Raises:
        SensorError: when what the driver says cannot be understood.
    """
    said = folder.first([f"{where}/in_{kind}_x_type" for where in ("buffer0", "scan_elements")])
    return None if said is None else folder.parsed(said, scan_type).bits


def _set_range(folder: Folder, kind: str, largest: float) -> None:
    bits = bits_of(folder, kind)
    for name in dict.fromkeys(folder.first(names(kind, axis, "scale")) for axis in AXES):
        offers = folder.first([f"{name}_available", *(f"{each}_available" for each in names(kind, "x", "scale"))])
        if name is None or offers is None or bits is None:
            log.warning("%s: the range of %s cannot be chosen; it stays as it is", folder.path, kind)
            return
        wanted = folder.parsed(offers, partial(scale_for, largest=largest, bits=bits))
        if folder.parsed(name, number) == float(wanted):
            continue
        try:
            folder.change(name, wanted)
        except OSError as error:
            if error.errno in (*FORBIDDEN, *GONE):
                raise
            log.warning("%s: %s %s is refused (%s)", folder.path, name, wanted, error.strerror)


def _set_rate(folder: Folder, name: str, rate_hz: float) -> float:
    base = name.rpartition("/")[2]
    offers = folder.first([f"{name}_available", f"in_{FREQUENCY}_available", f"{FREQUENCY}_available"])
    if offers is None:
        wanted = nearest(None, rate_hz)
    else:
        wanted = folder.parsed(offers, lambda text: nearest(text, rate_hz))
    now_hz = folder.parsed(name, number)
    if now_hz != float(wanted):
        try:
            folder.change(name, wanted)
        except OSError as error:
            if error.errno in (*FORBIDDEN, *GONE):
                raise
            log.warning("%s: %s %s is refused (%s); it stays %g", folder.path, base, wanted, error.strerror, now_hz)
    now_hz = folder.parsed(name, number)
    return now_hz if now_hz > 0 else rate_hz


def _written(rate_hz: float) -> str:
    """A rate as drivers read it: whole where it is, for some take nothing else."""
    return f"{rate_hz:.6f}".rstrip("0").rstrip(".")
