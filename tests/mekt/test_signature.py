"""What the coordinator signed is taken once it is newer, and for nothing but what it was signed for."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mekt.signature import SIGNATURE_BYTES, Purpose, Trust, joined, to_sign

SIGNER, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
KEY = SIGNER.public_key().public_bytes_raw()
PURPOSES = st.sampled_from(("round", "release"))
NUMBERS = st.integers(0, 2**64 - 1)
# Checking takes milliseconds.
laws = settings(derandomize=True, database=None, max_examples=40, deadline=None)


def signed(purpose: Purpose, number: int, content: bytes, by: Ed25519PrivateKey = SIGNER) -> bytes:
    return joined(number, by.sign(to_sign(purpose, number, content)))


@laws
@given(purpose=PURPOSES, number=NUMBERS, content=st.binary(max_size=50))
def test_what_was_signed_is_taken_for_its_purpose_and_for_no_other(
    purpose: Purpose, number: int, content: bytes
) -> None:
    signature = signed(purpose, number, content)
    assert len(signature) == SIGNATURE_BYTES
    assert Trust(KEY).refusal(purpose, content, signature) is None
    other: Purpose = "release" if purpose == "round" else "round"
    assert Trust(KEY).refusal(other, content, signature) == "unsigned"


@laws
@given(first=PURPOSES, one=NUMBERS, a=st.binary(max_size=9), second=PURPOSES, two=NUMBERS, b=st.binary(max_size=9))
def test_no_two_things_that_can_be_signed_have_the_same_bytes(
    first: Purpose, one: int, a: bytes, second: Purpose, two: int, b: bytes
) -> None:
    assert (to_sign(first, one, a) == to_sign(second, two, b)) == ((first, one, a) == (second, two, b))


@laws
@given(bit=st.integers(0, 8 * SIGNATURE_BYTES - 1), cut=st.integers(0, SIGNATURE_BYTES - 1), more=st.binary(min_size=1))
def test_a_signature_with_a_bit_flipped_or_cut_or_longer_is_none(bit: int, cut: int, more: bytes) -> None:
    good = signed("round", 7, b"content")
    flipped = bytearray(good)
    flipped[bit // 8] ^= 1 << bit % 8
    for bad in (bytes(flipped), good[:cut], good + more):
        trust = Trust(KEY, 3)
        assert trust.refusal("round", b"content", bad) == "unsigned"
        assert trust.newest == 3, "what was refused changes nothing"


def test_a_strangers_signature_is_none_whatever_its_number() -> None:
    trust = Trust(KEY, 3)
    assert trust.refusal("round", b"content", signed("round", 2**64 - 1, b"content", STRANGER)) == "unsigned"
    assert trust.refusal("round", b"content", b"") == "unsigned"
    assert trust.newest == 3


@laws
@given(numbers=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_nothing_older_is_taken_and_the_newest_may_come_again(numbers: list[int]) -> None:
    trust, newest = Trust(KEY), 0
    for number in numbers:
        refusal = trust.refusal("round", b"content", signed("round", number, b"content"))
        assert refusal == ("replayed" if number < newest else None)
        newest = max(newest, number)
        assert trust.newest == newest


def test_a_key_of_another_size_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Trust(KEY[:31])
