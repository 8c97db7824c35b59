"""Signatures checked against the vectors of RFC 8032, section 7.1, and against another implementation."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from mekt.ed25519 import KEY_BYTES, SIGNATURE_BYTES, L, P, is_signed

VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
MESSAGE = b"round 3 opens"
SIGNATURE = KEY.sign(MESSAGE)


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_the_vectors_of_the_standard(key: str, message: str, signature: str) -> None:
    assert is_signed(bytes.fromhex(message), bytes.fromhex(signature), bytes.fromhex(key))
    assert not is_signed(bytes.fromhex(message) + b"!", bytes.fromhex(signature), bytes.fromhex(key))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_what_another_implementation_signs_is_signed(secret: bytes, message: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(secret)
    assert is_signed(message, key.sign(message), key.public_key().public_bytes_raw())


def test_a_bit_flipped_anywhere_is_noticed() -> None:
    for index in range(8 * SIGNATURE_BYTES):
        assert not is_signed(MESSAGE, flipped(SIGNATURE, index), PUBLIC)
    for index in range(8 * KEY_BYTES):
        assert not is_signed(MESSAGE, SIGNATURE, flipped(PUBLIC, index))


def flipped(data: bytes, index: int) -> bytes:
    number = int.from_bytes(data, "little") ^ 1 << index
    return number.to_bytes(len(data), "little")


@given(st.binary(max_size=100), st.binary(max_size=70), st.binary(max_size=40))
def test_whatever_comes_gives_an_answer(message: bytes, signature: bytes, key: bytes) -> None:
    assert is_signed(message, signature, key) in (True, False)
    assert not is_signed(message, signature, PUBLIC)


def test_nobody_makes_another_signature_of_one() -> None:
    """With L added to its scalar the equation would hold as well."""
    scalar = int.from_bytes(SIGNATURE[32:], "little") + L
    assert scalar < 2**256 and not is_signed(MESSAGE, SIGNATURE[:32] + scalar.to_bytes(32, "little"), PUBLIC)


@pytest.mark.parametrize("y", [P, P + 1, 2**255 - 1, 2])
def test_what_is_no_point_is_no_key(y: int) -> None:
    """Over P, where every point has a shorter name; and 2, above which there is no point."""
    assert not is_signed(MESSAGE, SIGNATURE, y.to_bytes(32, "little"))
