"""What an accelerometer shows while it lies still: gravity, or a wrong unit, scale or mounting. For who installs it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from sensors.iio_axes import STANDARD_GRAVITY_M_S2
from sensors.source import Block, Seconds, Source

# Gravity varies by half a percent over the earth; cheap chips are off by some percent.
TOLERANCE_G = 0.1
# A chip's noise is far below this deviation, a hand that holds it above.
STILL_G = 0.03
LEAST_SAMPLES = 20
READ_S = 0.5
MOST_SAMPLES = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """What was seen of some samples: their rate, the length of their mean (g), how they waver, which axis is up."""

    samples: int
    rate_hz: float
    g: float
    spread_g: float
    up: str

    @property
    def still(self) -> bool:
        """Whether it was left alone; else nothing can be said."""
        return self.spread_g <= STILL_G * max(1.0, self.g)

    @property
    def ok(self) -> bool:
        """Whether it shows gravity, in g."""
        return self.still and abs(self.g - 1) <= TOLERANCE_G

    @property
    def text(self) -> str:
        """What it means, for people, in one line."""
        seen = f"|g| = {self.g:.3f} +- {self.spread_g:.3f} g, {self.up} is up, {self.rate_hz:.1f} Hz"
        if not self.still:
            return f"{seen}: it moves; lay it down and try again"
        if self.ok:
            return f"{seen}: as it should be, if {self.up} is what points up"
        for factor, why in (
            (STANDARD_GRAVITY_M_S2, "the driver's scale gives m/s2 for g: it is too large by 9.8"),
            (1 / STANDARD_GRAVITY_M_S2, "the driver's scale gives g for m/s2: it is too small by 9.8"),
        ):
            if abs(self.g / factor - 1) <= TOLERANCE_G:
                return f"{seen}: {why}; correct the scale"
        if self.g < TOLERANCE_G:
            return f"{seen}: it feels no gravity; it measures nothing, or gravity is taken off already"
        return f"{seen}: expected 1 g; look at scale, offset and mount_matrix"


def at_rest(
    source: Source, *, modality: str = "acc", duration_s: float = 3.0, clock: Callable[[], float] = time.monotonic
) -> Rest:
    """Open a source, look at its acceleration for `duration_s` while it lies still, and close it.

    Raises:
        SensorError: when it cannot be opened or read, gives fewer than 20 samples, or has no such acceleration.
    """
    kinds = {each.name: each for each in source.modalities}
    if modality not in kinds or kinds[modality].shape != (3,) or kinds[modality].unit != "g":
        raise SensorError(
            f"{modality}: is no acceleration in g along three axes; the source has {', '.join(kinds)}",
            catalogue.MODALITY_MISSING,
        )
    times: list[Seconds] = []
    samples: list[NDArray[np.float64]] = []
    count = 0
    source.open()
    try:
        ends_s = clock() + duration_s
        while count < MOST_SAMPLES and (left_s := ends_s - clock()) > 0:
            items = source.read(min(READ_S, left_s))
            if items is None:
                break
            for item in items:
                if isinstance(item, Block) and item.modality == modality:
                    sound = np.isfinite(item.t_s) & np.isfinite(item.values).all(axis=1)
                    times.append(item.t_s[sound])
                    samples.append(item.values[sound].astype(np.float64))
                    count += len(times[-1])
    finally:
        source.close()
    if count < LEAST_SAMPLES:
        raise SensorError(
            f"{modality}: {count} samples in {duration_s:g} s; look whether it measures, or give it longer",
            catalogue.SENSOR_SILENT,
        )
    t_s, values = np.concatenate(times), np.concatenate(samples)
    mean = values.mean(axis=0)
    span_s = float(t_s.max() - t_s.min())
    axis = int(np.abs(mean).argmax())
    return Rest(
        samples=count,
        rate_hz=(count - 1) / span_s if span_s > 0 else 0.0,
        g=float(np.linalg.norm(mean)),
        spread_g=float(np.linalg.norm(values - mean, axis=1).mean()),
        up=("+" if mean[axis] > 0 else "-") + "xyz"[axis],
    )
