"""The rate of an IIO device: which of those that its driver offers is nearest to what is wanted.

After Documentation/ABI/testing/sysfs-bus-iio: `sampling_frequency_available` is a list, `10 20 50`, or a range,
`[min step max]`, and both files stand beside the channel, the kind, the device, the buffer or the trigger.
"""

import logging
from collections.abc import Iterable

from sensors.iio_axes import AXES, names, number
from sensors.iio_device import FORBIDDEN, GONE, Folder

log = logging.getLogger(__name__)

FREQUENCY = "sampling_frequency"
# Drivers read six decimals.
SLOWEST_HZ = 1e-6


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
    return min((_set(folder, each, rate_hz) for each in files if each is not None), default=rate_hz)


def set_trigger_rate(trigger: Folder, rate_hz: float) -> float | None:
    """The same of a trigger that has a rate of its own (a timer); None when it has none."""
    return _set(trigger, FREQUENCY, rate_hz) if trigger.has(FREQUENCY) else None


def _set(folder: Folder, name: str, rate_hz: float) -> float:
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
