"""Which wearables take part in a rollout: a share of a federation's, drawn by their names. Pure.

Both sides work it out for themselves. Who takes part in a rollout at one share does at every larger one; another
rollout has another number, and draws anew.
"""

import hashlib

# A double holds so many bits of a fraction, so that none is rounded up to 1.
FRACTION_BITS = 53


def takes_part(federation: str, number: int, device: str, share: float) -> bool:
    """Whether this device is within the share, from 0 (nobody) to 1 (all), of the rollout with this number."""
    drawn = hashlib.sha256(f"{federation}/{number}/{device}".encode()).digest()
    fraction = (int.from_bytes(drawn[:8], "big") >> (64 - FRACTION_BITS)) / 2.0**FRACTION_BITS
    return fraction < share
