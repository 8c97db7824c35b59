"""Ed25519 signatures, checked with Python's integers alone (RFC 8032, section 5.1.7): no package is needed for it.

Checking handles nothing secret, so how long it takes tells nobody anything; it is some milliseconds. Signing is not
here: it handles a key, and the coordinator has a package for that.
"""

import hashlib
from typing import Final

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

# The curve -x^2 + y^2 = 1 + d x^2 y^2 over the integers modulo P; its base point has prime order L.
P: Final = 2**255 - 19
L: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, -1, P) % P
SQRT_OF_MINUS_ONE: Final = pow(2, (P - 1) // 4, P)

# (X, Y, Z, T) with x = X / Z, y = Y / Z, x y = T / Z.
_Point = tuple[int, int, int, int]
_NEUTRAL: Final[_Point] = (0, 1, 1, 0)


def is_signed(message: bytes, signature: bytes, key: bytes) -> bool:
    """Whether `signature` (64 bytes) is that of the holder of the public `key` (32 bytes) on `message`."""
    if len(signature) != SIGNATURE_BYTES or len(key) != KEY_BYTES:
        return False
    holder = _point(key)
    scalar = int.from_bytes(signature[32:], "little")
    # A scalar over L would be another signature on the same message, made without the key.
    if holder is None or scalar >= L:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    # R = s B - k A, in one go over the bits of both.
    return _encoded(_sum_of_products(scalar, _BASE, challenge, _negated(holder))) == signature[:32]


def _point(encoded: bytes) -> _Point | None:
    """The point that 32 bytes stand for: y, and in the last bit the sign of x; None when there is none."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == -u % P:
        x = x * SQRT_OF_MINUS_ONE % P
    if v * x * x % P != u or (x == 0 and sign):
        return None
    x = x if x & 1 == sign else P - x
    return x, y, 1, x * y % P


def _encoded(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _negated(point: _Point) -> _Point:
    x, y, z, t = point
    return -x % P, y, z, -t % P


def _added(one: _Point, other: _Point) -> _Point:
    """RFC 8032, section 5.1.4; right for every two points, equal ones too."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _sum_of_products(m: int, one: _Point, n: int, other: _Point) -> _Point:
    """M times `one` plus n times `other`."""
    addends = {(1, 0): one, (0, 1): other, (1, 1): _added(one, other)}
    result = _NEUTRAL
    for bit in range(max(m.bit_length(), n.bit_length()) - 1, -1, -1):
        result = _added(result, result)
        addend = addends.get((m >> bit & 1, n >> bit & 1))
        if addend is not None:
            result = _added(result, addend)
    return result


_BASE_OR_NONE: Final = _point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
assert _BASE_OR_NONE is not None
_BASE: Final = _BASE_OR_NONE
