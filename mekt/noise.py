"""Knowledge under the Gaussian mechanism: every row clipped, noise on every number. Pure.

Shapes: N rows (proxy windows of each view), D embedding width. What is clipped is how far a row lies from that of the
global knowledge, which everybody has; so a device that agrees loses nothing, and the bound is the same: whatever a
device's private data are, a clipped row lies within `clip` of a point that does not depend on them. Two sets of private
data move it by 2 * clip at most, and all N rows by sqrt(N) * 2 * clip.
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from mekt.accounting import mu_of
from mekt.schema import Bounds

Floats = NDArray[np.float32]
# A number of bytes -> so many, each as good as the last. Those of a device come from the system's generator.
Bits = Callable[[int], bytes]
# What a uniform number is made of: the bits that a float64 holds exactly.
MANTISSA_BITS = 53


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """How knowledge is released: rows within `clip` of the global ones, noise of `noise_multiplier` * `clip`."""

    clip: Annotated[float, Bounds(low=1e-6, high=1e6)]
    noise_multiplier: Annotated[float, Bounds(low=0, high=1e6)]

    @property
    def noise(self) -> float:
        """The deviation of the noise in each number."""
        return self.noise_multiplier * self.clip

    def mu_squared(self, rows: int) -> float:
        """What one release of a matrix of so many rows gives away of a device's whole private data."""
        return mu_of(math.sqrt(rows) * 2 * self.clip, self.noise) ** 2

    def release(self, rows_ND: Floats, global_ND: Floats | None, bits: Bits = secrets.token_bytes) -> Floats:
        """The rows as they may be shown. `global_ND` are those that everybody knows, zeros where there are none."""
        own_ND = rows_ND.astype(np.float64)
        around_ND = np.zeros_like(own_ND) if global_ND is None else global_ND.astype(np.float64)
        kept_ND = around_ND + clipped(own_ND - around_ND, self.clip)
        return (kept_ND + self.noise * normals(kept_ND.size, bits).reshape(kept_ND.shape)).astype(np.float32)


def clipped(rows_ND: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """Rows longer than `clip` shortened to it; the others as they are."""
    length_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    shorter: NDArray[np.float64] = rows_ND * np.minimum(1.0, clip / np.maximum(length_N1, clip))
    return shorter


def normals(count: int, bits: Bits) -> NDArray[np.float64]:
    """So many independent standard normal numbers out of random bits (Box and Muller, 1958).

    NumPy's own generators are fast and can be told apart from chance; noise that can be foretold protects nothing.
    """
    pairs = -(-count // 2)
    whole = np.frombuffer(bits(2 * pairs * 8), dtype="<u8") >> np.uint64(64 - MANTISSA_BITS)
    # Halves of a step off both ends: the logarithm of 0 is none.
    uniform = (whole.astype(np.float64) + 0.5) * 2.0**-MANTISSA_BITS
    radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
