"""What an accelerometer shows while it lies still: gravity, or a wrong unit, scale or mounting. Pure."""

from dataclasses import dataclass

import numpy as np

from sensors.iio.axes import STANDARD_GRAVITY_M_S2
from sensors.source import Floats

# Gravity varies by half a percent over the earth; cheap chips are off by some percent.
TOLERANCE_G = 0.1
# A chip's noise is far below this deviation, a hand that holds it above.
STILL_G = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """What was seen of some samples: the length of their mean (g), how they waver (g), which axis is up."""

    g: float
    spread_g: float
    up: str

    @property
    def still(self) -> bool:
        """Whether it was left alone; else nothing can be said."""
        return self.spread_g <= STILL_G * max(1.0, self.g)

    @property
    def ok(self) -> bool:
        """Whether it shows gravity."""
        return self.still and abs(self.g - 1) <= TOLERANCE_G

    @property
    def seen(self) -> str:
        """That in words."""
        return f"|g| = {self.g:.3f} +- {self.spread_g:.3f} g, {self.up} is up"

    @property
    def remedy(self) -> str:
        """What to do where it is not ok, and why."""
        if not self.still:
            return "it moves: lay it down and try again"
        for factor, why in (
            (STANDARD_GRAVITY_M_S2, "the driver's scale gives m/s2 for g: it is too large by 9.8"),
            (1 / STANDARD_GRAVITY_M_S2, "the driver's scale gives g for m/s2: it is too small by 9.8"),
        ):
            if abs(self.g / factor - 1) <= TOLERANCE_G:
                return f"{why}: correct the scale"
        if self.g < TOLERANCE_G:
            return "it feels no gravity: it measures nothing, or gravity is taken off already"
        return "1 g was expected: look at scale, offset and mounting, and whether it is the chip that the settings name"


def rest(acc_n3: Floats) -> Rest:
    """What samples (n, 3), at least one, in g show."""
    values = acc_n3.astype(np.float64)
    mean = values.mean(axis=0)
    axis = int(np.abs(mean).argmax())
    return Rest(
        g=float(np.linalg.norm(mean)),
        spread_g=float(np.linalg.norm(values - mean, axis=1).mean()),
        up=("+" if mean[axis] > 0 else "-") + "xyz"[axis],
    )
