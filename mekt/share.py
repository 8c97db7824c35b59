"""Which wearables take part in a rollout: a share of a federation's, drawn by their names. Pure.

Both sides work it out for themselves. Who takes part in a rollout at one share does at every larger one; another
rollout has another number, and draws anew.
"""

import functools
import hashlib
import math
from collections.abc import Iterable

# A double holds so many bits of a fraction, so that none is rounded up to 1.
FRACTION_BITS = 53


def takes_part(federation: str, number: int, device: str, share: float) -> bool:
    """Whether this device is within the share, from 0 (nobody) to 1 (all), of the rollout with this number."""
    return _drawn(federation, number, device) < share


def share_for(federation: str, number: int, devices: Iterable[str], count: int) -> float:
    """The least share, in whole percent, by which so many of these devices take part in that rollout; 1 for more."""
    drawn = sorted(_drawn(federation, number, device) for device in devices)
    if not 0 < count <= len(drawn):
        return 1.0
    return math.floor(100 * drawn[count - 1] + 1) / 100


# A coordinator asks of every wearable at every word of one.
@functools.lru_cache(maxsize=8192)
def _drawn(federation: str, number: int, device: str) -> float:
    drawn = hashlib.sha256(f"{federation}/{number}/{device}".encode()).digest()
    return (int.from_bytes(drawn[:8], "big") >> (64 - FRACTION_BITS)) / 2.0**FRACTION_BITS
