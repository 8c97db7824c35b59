"""A secret in shares, so that some of them give it back and fewer tell nothing (Shamir, 1979). Pure."""

from collections.abc import Callable, Mapping

# The smallest prime above 2^256, so that any 32 bytes are a number below it.
PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
Bits = Callable[[int], bytes]


def split(secret: bytes, holders: int, threshold: int, bits: Bits) -> tuple[bytes, ...]:
    """A share for each of the holders 1, 2, ...; any `threshold` of them give the secret back.

    Raises:
        ValueError: when there are fewer holders than that, or the secret is not of 32 bytes.
    """
    if not 1 <= threshold <= holders or len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes for {holders} holders, {threshold} of them needed")
    # Of numbers that are drawn from twice as many bits as the prime has, none is likelier than another by 2^-256.
    drawn = [int.from_bytes(bits(2 * SHARE_BYTES), "little") % PRIME for _ in range(threshold - 1)]
    polynomial = [int.from_bytes(secret, "little"), *drawn]
    return tuple(_value(polynomial, holder).to_bytes(SHARE_BYTES, "little") for holder in range(1, holders + 1))


def join(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret out of shares by their holder's number; more than `threshold` are not looked at.

    Raises:
        ValueError: when there are too few shares, or they are of no secret.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares do not give a secret that needs {threshold}")
    points = {holder: int.from_bytes(shares[holder], "little") for holder in sorted(shares)[:threshold]}
    total = 0
    for holder, value in points.items():
        above = below = 1
        for other in points:
            if other != holder:
                above = above * other % PRIME
                below = below * (other - holder) % PRIME
        total = (total + value * above * pow(below, -1, PRIME)) % PRIME
    if total >= 1 << 8 * SECRET_BYTES:
        raise ValueError("these shares are of no secret")
    return total.to_bytes(SECRET_BYTES, "little")


def _value(polynomial: list[int], at: int) -> int:
    value = 0
    for factor in reversed(polynomial):
        value = (value * at + factor) % PRIME
    return value
