"""Shares of a secret: any that are enough give it back, and fewer fit every secret."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import isprime

from mekt.shamir import PRIME, SECRET_BYTES, join, split


def bits(seed: int) -> "random.Random":
    return random.Random(seed)


def test_the_prime_is_one_and_has_room_for_every_secret() -> None:
    assert isprime(PRIME) and PRIME > 2 ** (8 * SECRET_BYTES)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.integers(0, 11), st.randoms(use_true_random=False))
def test_any_shares_that_are_enough_give_the_secret_back(
    secret: bytes, threshold: int, more: int, chance: random.Random
) -> None:
    shares = dict(enumerate(split(secret, threshold + more, threshold, chance.randbytes), start=1))
    some = dict(chance.sample(sorted(shares.items()), chance.randint(threshold, threshold + more)))
    assert join(some, threshold) == secret


def test_fewer_shares_fit_every_secret() -> None:
    shares = split(bytes(32), 3, 2, bits(1).randbytes)
    for secret in (bytes(32), b"\x01" + bytes(31), bytes([255] * 32)):
        # A line through the one share that is known and any secret: there is always a second share.
        slope = (int.from_bytes(shares[0], "little") - int.from_bytes(secret, "little")) % PRIME
        second = ((int.from_bytes(secret, "little") + 2 * slope) % PRIME).to_bytes(33, "little")
        assert join({1: shares[0], 2: second}, 2) == secret


def test_too_few_shares_or_changed_ones_do_not_give_it() -> None:
    secret = bytes(range(32))
    shares = dict(enumerate(split(secret, 5, 3, bits(2).randbytes), start=1))
    with pytest.raises(ValueError, match="2 shares do not give a secret that needs 3"):
        join(dict(itertools.islice(shares.items(), 2)), 3)
    with pytest.raises(ValueError, match="of no secret"):
        join({1: (PRIME - 1).to_bytes(33, "little")}, 1)
    shares[1] = bytes(33)
    assert join(shares, 3) != secret


@pytest.mark.parametrize(("holders", "threshold", "size"), [(2, 3, 32), (2, 0, 32), (3, 2, 31)])
def test_what_cannot_be_split_is_refused(holders: int, threshold: int, size: int) -> None:
    with pytest.raises(ValueError, match="needed"):
        split(bytes(size), holders, threshold, bits(3).randbytes)
