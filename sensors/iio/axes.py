"""What a driver's raw numbers of three axes mean: offset, scale, how the chip is mounted, the unit.

After Documentation/ABI/testing/sysfs-bus-iio: (raw + offset) * scale is in m/s2, rad/s or Gauss (`in_accel_x_raw`,
`in_anglvel_x_raw`, `in_magn_x_raw`), and the mount matrix times that vector is in the axes of the whole device
(`in_accel_mount_matrix`; Documentation/devicetree/bindings/iio/mount-matrix.txt).

Shapes: n samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.iio.attributes import Folder
from sensors.source import Floats

Doubles = NDArray[np.float64]
AXES = ("x", "y", "z")
STANDARD_GRAVITY_M_S2 = 9.80665
# For each of the kernel's kinds of channel: our unit, and how many of it are one of the kernel's.
UNITS = {"accel": ("g", 1 / STANDARD_GRAVITY_M_S2), "anglvel": ("rad/s", 1.0), "magn": ("uT", 100.0)}
UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Axes:
    """Of one kind of channel: `scale` and `offset` (3,), `mount` (3, 3) and `factor`, which turns it into our unit."""

    scale: Doubles
    offset: Doubles
    mount: Doubles
    factor: float

    def values(self, raw: NDArray[Any]) -> Floats:
        """Raw numbers (n, 3) in our unit and in the device's axes; what is too large for that becomes infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (raw.astype(np.float64) + self.offset) * (self.scale * self.factor)
            return (scaled @ self.mount.T).astype(np.float32)

    def reach(self, bits: int) -> float:
        """The largest value that all axes can show in numbers of so many bits, in our unit."""
        # An unsigned number has its middle taken off by the offset, so that it holds what a signed one does.
        return float(np.abs(self.scale).min()) * self.factor * 2.0 ** (bits - 1)


def names(kind: str, axis: str, what: str) -> tuple[str, ...]:
    """The files that may say `what` of an axis: its own, its kind's, all inputs', the device's; the first counts."""
    return f"in_{kind}_{axis}_{what}", f"in_{kind}_{what}", f"in_{what}", what


def number(text: str) -> float:
    """A driver's number.

    Raises:
        ValueError: when it is none, or not finite.
    """
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {text.strip()[:40]!r}")
    return value


def matrix(text: str) -> tuple[float, ...]:
    """A mount matrix's nine numbers by rows, as in `0, 1, 0; -1, 0, 0; 0, 0, 1`.

    Raises:
        ValueError: when it is none.
    """
    rows = [[number(each) for each in row.split(",")] for row in text.split(";")]
    if [len(row) for row in rows] != [3, 3, 3]:
        raise ValueError(f"expected three rows of three numbers, got {text.strip()[:80]!r}")
    return tuple(value for row in rows for value in row)


def read_axes(folder: Folder, kind: str, mount: Sequence[float] = ()) -> Axes:
    """How the raw numbers of a kind are to be understood, by the driver's attributes; by `mount` where it is given.

    Raises:
        SensorError: when an attribute cannot be understood.
    """
    scale, offset = (
        [folder.parsed(found, number) if (found := folder.first(names(kind, axis, what))) else absent for axis in AXES]
        for what, absent in (("scale", 1.0), ("offset", 0.0))
    )
    if not mount:
        # The matrix is of all three axes, so that where it is said of each, all say the same.
        found = folder.first(names(kind, "x", "mount_matrix"))
        mount = folder.parsed(found, matrix) if found else UPRIGHT
    return Axes(scale=np.array(scale), offset=np.array(offset), mount=np.reshape(mount, (3, 3)), factor=UNITS[kind][1])
