import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from coordinator.delivery import LARGEST_VALUE, MOST_DAMAGED, MOST_WINDOWS, Incoming, Unusable, Whole, offer_problem
from mekt.arrays import largest_knowledge_bytes, pack_knowledge
from mekt.blobs import CHUNKS_IN_FLIGHT, RETRY_S, blob_ref, chunk_count, read_chunk
from mekt.errors import WireError
from mekt.messages import CHUNK_BYTES, Chunk, Offer
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import LARGEST_BLOB_BYTES, BlobRef, Method, Plan
from sensors.layouts import ACC, GYRO

WINDOWS = 3000
PLAN = Plan(
    seed=1,
    rounds=1,
    window=WindowSpec(window_s=1.0, stride_s=0.5),
    modalities=(ACC, GYRO),
    scaling=dict.fromkeys(("acc", "gyro"), Scaling(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
    proxy=dict.fromkeys(("acc", "gyro"), BlobRef(sha256=bytes(32), size_bytes=1)),
    proxy_windows=WINDOWS,
    method=Method(embedding=64, hidden=8, encoding="float16"),
)


def knowledge(seed: int = 0, *, windows: int = WINDOWS, width: int = 64, value: float | None = None) -> bytes:
    x = np.random.default_rng(seed).normal(0, 1, (windows, width)).astype(np.float32)
    if value is not None:
        x[7, 3] = value
    return pack_knowledge(x, None, "float16" if value is None else "float32")


ACC_BLOB, GYRO_BLOB = knowledge(1), knowledge(2)


def offer_of(**blobs: bytes) -> Offer:
    return Offer(knowledge={name: blob_ref(data) for name, data in blobs.items()}, windows=5, metrics={})


def chunks_of(data: bytes) -> list[Chunk]:
    ref = blob_ref(data)
    found = [read_chunk(data, ref, index) for index in range(chunk_count(ref))]
    return [chunk for chunk in found if chunk is not None]


def test_an_offer_is_asked_for_chunk_by_chunk_a_few_at_a_time() -> None:
    incoming = Incoming(offer_of(acc=ACC_BLOB, gyro=GYRO_BLOB), PLAN)
    wants = incoming.due(0.0)
    assert [want.sha256 for want in wants] == [blob_ref(ACC_BLOB).sha256, blob_ref(GYRO_BLOB).sha256]
    assert sum(len(want.chunks) for want in wants) == min(CHUNKS_IN_FLIGHT, 2 * len(chunks_of(ACC_BLOB)))
    assert incoming.due(1.0) == []
    assert incoming.due(RETRY_S) == wants


@given(st.randoms(use_true_random=False))
@examples(max_examples=30)
def test_shuffled_doubled_and_damaged_chunks_give_the_whole_in_the_end(rng: random.Random) -> None:
    incoming = Incoming(offer_of(acc=ACC_BLOB, gyro=GYRO_BLOB), PLAN)
    waiting = chunks_of(ACC_BLOB) + chunks_of(GYRO_BLOB)
    waiting += rng.sample(waiting, 3)
    foreign = replace(waiting[0], sha256=bytes(32))
    short = replace(waiting[0], data=waiting[0].data[:-1])
    damaged = replace(waiting[1], data=bytes(len(waiting[1].data)))
    outcomes = []
    rng.shuffle(waiting)
    for chunk in (foreign, short, damaged, *waiting, *chunks_of(ACC_BLOB), *chunks_of(GYRO_BLOB)):
        try:
            outcome = incoming.take(chunk)
        except WireError:
            continue
        outcomes += [] if outcome is None else [outcome]
    assert [type(each) for each in outcomes] == [Whole]
    assert isinstance(outcomes[0], Whole) and outcomes[0].blobs == {"acc": ACC_BLOB, "gyro": GYRO_BLOB}
    assert incoming.due(1e6) == []


def test_an_offer_that_keeps_arriving_damaged_is_given_up() -> None:
    incoming = Incoming(offer_of(acc=ACC_BLOB), PLAN)
    short = replace(chunks_of(ACC_BLOB)[0], data=b"x")
    for _ in range(100):
        with pytest.raises(WireError, match="nobody asked for"):
            incoming.take(chunks_of(GYRO_BLOB)[0])
    for _ in range(MOST_DAMAGED - 1):
        with pytest.raises(WireError, match="does not fit"):
            incoming.take(short)
    outcome = incoming.take(short)
    assert isinstance(outcome, Unusable) and "keeps arriving damaged" in outcome.reason


def test_the_same_blob_for_two_modalities_crosses_once() -> None:
    incoming = Incoming(offer_of(acc=ACC_BLOB, gyro=ACC_BLOB), PLAN)
    outcomes = [incoming.take(chunk) for chunk in chunks_of(ACC_BLOB)]
    assert outcomes[:-1] == [None] * (len(outcomes) - 1)
    whole = outcomes[-1]
    assert isinstance(whole, Whole) and whole.blobs == {"acc": ACC_BLOB, "gyro": ACC_BLOB}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (knowledge(windows=WINDOWS - 1), "has 384000 bytes, not 383872"),
        (knowledge(width=63), "has 384000 bytes"),
        (b"garbage", "msgpack"),
        (b"\x80", "a knowledge blob is a map of embedding"),
        (knowledge(value=2 * LARGEST_VALUE), "beyond 65504; the model has diverged"),
        (knowledge(value=-3e38), "beyond 65504"),
        (knowledge(value=7.0).replace(np.float32(7).tobytes(), np.float32("nan").tobytes()), "not finite"),
        (knowledge(value=7.0).replace(np.float32(7).tobytes(), np.float32("-inf").tobytes()), "not finite"),
    ],
)
def test_what_arrives_whole_and_is_not_knowledge_is_unusable_at_once(data: bytes, says: str) -> None:
    incoming = Incoming(offer_of(acc=data, gyro=GYRO_BLOB), PLAN)
    outcomes = [incoming.take(chunk) for chunk in chunks_of(data)]
    assert isinstance(outcomes[-1], Unusable) and says in outcomes[-1].reason


def test_the_hidden_layer_comes_exactly_when_the_plan_sends_it() -> None:
    x = np.zeros((WINDOWS, 64), np.float32)
    both = pack_knowledge(x, np.zeros((WINDOWS, 8), np.float32), "float16")
    large = pack_knowledge(x, np.full((WINDOWS, 8), 1e6, np.float32), "float32")
    hidden = replace(PLAN, method=replace(PLAN.method, gamma=0.1))
    for plan, data, kind in (
        (hidden, both, Whole),
        (hidden, ACC_BLOB, Unusable),
        (PLAN, both, Unusable),
        (hidden, large, Unusable),
    ):
        incoming = Incoming(offer_of(acc=data), plan)
        assert isinstance([incoming.take(chunk) for chunk in chunks_of(data)][-1], kind)


def test_a_fitting_offer_has_no_problem() -> None:
    assert offer_problem(offer_of(acc=ACC_BLOB), PLAN) is None
    assert offer_problem(offer_of(acc=ACC_BLOB, gyro=GYRO_BLOB), PLAN) is None


def test_an_unknown_modality_is_refused() -> None:
    assert offer_problem(offer_of(acc=ACC_BLOB, mag=ACC_BLOB), PLAN) == "the federation has no modality mag"


def test_a_blob_larger_than_any_knowledge_of_the_plan_is_refused_before_a_byte_is_asked_for() -> None:
    largest = largest_knowledge_bytes(WINDOWS, 64, None, "float16")
    for size_bytes, fits in ((largest, True), (largest + 1, False), (1 << 30, False)):
        offer = replace(offer_of(acc=ACC_BLOB), knowledge={"acc": BlobRef(sha256=bytes(32), size_bytes=size_bytes)})
        problem = offer_problem(offer, PLAN)
        assert (problem is None) == fits
        assert fits or (problem is not None and f"over this plan's limit of {largest}" in problem)
    assert largest < 5 * CHUNK_BYTES


def test_a_weight_that_no_device_can_have_is_refused() -> None:
    assert offer_problem(replace(offer_of(acc=ACC_BLOB), windows=MOST_WINDOWS), PLAN) is None
    problem = offer_problem(replace(offer_of(acc=ACC_BLOB), windows=MOST_WINDOWS + 1), PLAN)
    assert problem is not None and "more than the 1000000 that a device can keep" in problem


def test_an_offer_of_more_than_may_be_fetched_at_a_time_is_refused_and_does_not_end_the_coordinator() -> None:
    names = [f"s{number}" for number in range(16)]
    wide = replace(
        PLAN,
        modalities=tuple(Modality(name=name, shape=(3,), rate_hz=50.0, unit="g") for name in names),
        scaling=dict.fromkeys(names, PLAN.scaling["acc"]),
        proxy=dict.fromkeys(names, PLAN.proxy["acc"]),
        proxy_windows=16_384,
        method=replace(PLAN.method, embedding=1024, knowledge_rows=16_384, encoding="float32"),
    )
    largest = largest_knowledge_bytes(16_384, 1024, None, "float32")
    assert 15 * largest < LARGEST_BLOB_BYTES < 16 * largest
    for count, fits in ((15, True), (16, False)):
        refs = {name: BlobRef(sha256=name.encode().ljust(32), size_bytes=largest) for name in names[:count]}
        offer = Offer(knowledge=refs, windows=5, metrics={})
        problem = offer_problem(offer, wide)
        assert (problem is None) == fits
        if fits:
            assert Incoming(offer, wide).due(0.0)
        else:
            assert problem == f"{16 * largest} bytes of knowledge are over the 1073741824 that may be fetched at a time"
            with pytest.raises(WireError, match="is too much"):
                Incoming(offer, wide)
