"""Whatever bytes come, every decoder gives a value that keeps its laws, or the one documented error."""

import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.lessons import Lesson
from mekt.errors import WireError
from mekt.messages import FEW_ENTRIES, KINDS, LONG_KINDS, RoundOpen, decode
from mekt.schema import Bounds
from tests.hostile.decoders import DECODERS, Decoder, golden, topic_of
from tests.hostile.mutants import CHANGES, SCALARS, Pairs, Raw, loosely, pack, spoiled
from tests.mekt.test_messages import hints

# The same inputs every time: new ones are what `make fuzz` is for.
laws = settings(derandomize=True, database=None, max_examples=60)
every_decoder = pytest.mark.parametrize("name", DECODERS)


def seeded(name: str, number: int) -> tuple[Decoder, bytes]:
    decoder = DECODERS[name]
    return decoder, decoder.seeds[number % len(decoder.seeds)]


@every_decoder
def test_what_the_inputs_start_from_is_valid(name: str) -> None:
    decoder = DECODERS[name]
    assert decoder.seeds and all(decoder.accepts(seed) for seed in decoder.seeds)


@every_decoder
@laws
@given(raw=st.binary(max_size=400))
def test_any_bytes_keep_the_laws(name: str, raw: bytes) -> None:
    DECODERS[name].accepts(raw)


@every_decoder
@laws
@given(number=st.integers(0, 7), at=st.integers(0, 2000), cut=st.integers(0, 9), more=st.binary(max_size=9))
def test_valid_bytes_with_a_piece_replaced_keep_the_laws(
    name: str, number: int, at: int, cut: int, more: bytes
) -> None:
    decoder, seed = seeded(name, number)
    at %= len(seed) + 1
    decoder.accepts(seed[:at] + more + seed[at + cut :])


@every_decoder
@laws
@given(number=st.integers(0, 7), chance=st.randoms(use_true_random=False))
def test_messages_that_say_something_else_keep_the_laws(name: str, number: int, chance: random.Random) -> None:
    decoder, seed = seeded(name, number)
    decoder.accepts(decoder.mutant(seed, chance))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_mutants_reach_behind_the_first_check(kind: str) -> None:
    """Else they would prove nothing: a part of them is valid, and of the refused ones many for what the body says."""
    decoder, chance = DECODERS[f"message on {kind}"], random.Random(1)
    valid, in_the_body = 0, 0
    for _ in range(400):
        raw = decoder.mutant(golden(kind), chance)
        try:
            decode(raw, topic_of(kind))
            valid += raw != golden(kind)
        except WireError as error:
            in_the_body += f"{kind}." in str(error) or str(error).startswith(f"{kind}:")
    assert valid >= 40 and in_the_body >= 80


@laws
@given(chance=st.randoms(use_true_random=False))
def test_a_device_knows_what_any_round_asks_of_it_before_it_fetches_a_byte(chance: random.Random) -> None:
    try:
        word = decode(spoiled(golden("round"), chance), topic_of("round")).body
    except WireError:
        return
    assert isinstance(word, RoundOpen)
    names = {modality.name: "conv" for modality in word.plan.modalities}
    lesson = Lesson(device="pi-3", round=0, plan=word.plan, architectures=dict.fromkeys(names, "conv"), knowledge={})
    problem = lesson.size_problem()
    assert problem is None or len(problem) < 300


def test_kinds_with_short_lists_have_no_field_that_would_not_fit() -> None:
    """`unpack` refuses longer lists than `FEW_ENTRIES` before the schema sees them."""
    for kind, (body, _, _) in KINDS.items():
        longest = [
            bounds.longest
            for hint, bounds in hints(body)
            if bounds is not None and bounds.longest is not None and getattr(hint, "__origin__", None) in (tuple, dict)
        ]
        assert (max(longest, default=0) > FEW_ENTRIES) == (kind in LONG_KINDS)
    assert Bounds(longest=1).problem([1, 2]) == "expected at most 1 entries, got 2"


def test_what_is_read_loosely_is_packed_as_it_was() -> None:
    for kind in KINDS:
        assert pack(loosely(golden(kind))) == golden(kind)
    for scalar in SCALARS:
        assert isinstance(pack(scalar), bytes)
    assert pack(Pairs((("a", 1), ("a", Raw(b"\xc1"))))) == b"\x82\xa1a\x01\xa1a\xc1"


def test_every_change_can_be_made_to_everything() -> None:
    for change in CHANGES:
        for value in (
            None,
            True,
            2**64 - 1,
            -(2**63),
            1.5,
            float("nan"),
            "text",
            b"bytes",
            [1, [2]],
            Pairs((("a", 1),)),
        ):
            for seed in range(20):
                assert isinstance(pack(change(value, random.Random(seed))), bytes)


def test_what_is_no_msgpack_is_not_spoiled() -> None:
    assert spoiled(b"\xc1", random.Random(1)) == b"\xc1"
    assert all(spoiled(b"\x91" * 1000 + b"\xc0", random.Random(seed)) for seed in range(20))


# What was found, each input as it was.


def test_a_number_that_is_too_large_as_a_float_is_refused_and_not_read_as_what_cannot_be_sent() -> None:
    data = msgpack.unpackb(golden("offer"))
    for value, fits in ((2**63 - 1, False), (-(2**63) + 1, False), (2**63 - 513, True), (-(2**63) + 513, True)):
        data["body"]["metrics"] = {"transfer": value}
        assert DECODERS["message on offer"].accepts(msgpack.packb(data)) == fits
