"""Blobs in chunks: over any channel the exact bytes, within bounds, and nothing that nobody asked for."""

import hashlib
import itertools
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mekt.blobs import (
    BLOBS_REMEMBERED,
    CHUNKS_IN_FLIGHT,
    LONGEST_RETRY_S,
    RECEIVERS_REMEMBERED,
    RETRY_S,
    Fetch,
    Serving,
    blob_ref,
    chunk_count,
    proxy_hash,
    read_chunk,
)
from mekt.errors import WireError
from mekt.messages import CHUNK_BYTES, Chunk, Want
from mekt.plan import LARGEST_BLOB_BYTES, BlobRef


def data_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def chunk_of(data: bytes, index: int) -> Chunk:
    chunk = read_chunk(data, blob_ref(data), index)
    assert chunk is not None
    return chunk


def answers(data: bytes, wants: list[Want]) -> list[Chunk]:
    return [chunk_of(data, index) for want in wants for index in want.chunks]


def asked(wants: list[Want]) -> list[tuple[bytes, int]]:
    return [(want.sha256, index) for want in wants for index in want.chunks]


sizes = st.sampled_from([1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 10 * CHUNK_BYTES + 7])


@given(sizes)
def test_chunks_are_the_blob_in_order(size: int) -> None:
    data = data_of(size)
    ref = blob_ref(data)
    chunks = [chunk_of(data, index) for index in range(chunk_count(ref))]
    assert b"".join(chunk.data for chunk in chunks) == data
    assert all(len(chunk.data) == CHUNK_BYTES for chunk in chunks[:-1])
    assert read_chunk(data, ref, len(chunks)) is None
    assert ref == BlobRef(sha256=hashlib.sha256(data).digest(), size_bytes=size)


@settings(max_examples=40)
@given(st.lists(sizes, min_size=1, max_size=3), st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.6))
def test_over_a_channel_that_loses_doubles_and_reorders_the_exact_bytes_arrive(
    lengths: list[int], seed: int, loses: float, doubles: float
) -> None:
    chance = random.Random(seed)
    blobs = {blob_ref(data).sha256: data for data in (data_of(size, number) for number, size in enumerate(lengths))}
    fetch, now_s, done = Fetch(), 0.0, dict[bytes, bytes]()
    for data in blobs.values():
        fetch.want(blob_ref(data))
    under_way: list[Chunk] = []
    for _ in range(20_000):
        for want in fetch.due(now_s):
            for index in want.chunks:
                copies = (chance.random() >= loses) * (1 + (chance.random() < doubles))
                under_way += [chunk_of(blobs[want.sha256], index)] * copies
        assert sum(len(assembly.asked) for assembly in fetch._open.values()) <= CHUNKS_IN_FLIGHT
        chance.shuffle(under_way)
        for chunk in [under_way.pop() for _ in range(min(len(under_way), 3))]:
            whole = fetch.take(chunk)
            if whole is not None:
                done[chunk.sha256] = whole
        now_s += 0.5
        if not fetch.wanted and not under_way:
            break
    assert done == blobs
    assert fetch.due(now_s) == []


def test_chunks_on_their_way_are_few_and_each_arrival_lets_one_more_go() -> None:
    data = data_of(20 * CHUNK_BYTES)
    fetch = Fetch()
    fetch.want(blob_ref(data))
    first = answers(data, fetch.due(0.0))
    assert [chunk.index for chunk in first] == list(range(CHUNKS_IN_FLIGHT))
    assert fetch.due(0.1) == []
    for chunk in first[:3]:
        assert fetch.take(chunk) is None
    (want,) = fetch.due(0.2)
    assert want.chunks == (8, 9, 10)
    fetch.want(blob_ref(data_of(5)))
    assert fetch.due(0.3) == [], "a second blob waits for its turn"


def test_what_was_lost_is_asked_for_again_after_a_silence_and_nothing_else() -> None:
    data = data_of(4 * CHUNK_BYTES)
    fetch = Fetch()
    fetch.want(blob_ref(data))
    chunks = answers(data, fetch.due(0.0))
    fetch.take(chunks[0])
    fetch.take(chunks[2])
    assert fetch.due(1.0) == []
    assert fetch.due(1.0 + RETRY_S - 0.01) == []
    (want,) = fetch.due(1.0 + RETRY_S)
    assert want.chunks == (1, 3)
    assert fetch.take(chunks[1]) is None
    assert fetch.take(chunks[3]) == data


def test_on_a_slow_link_chunks_are_not_asked_for_again_and_again() -> None:
    """One chunk takes 12 seconds here, more than the first patience: what is repeated must stay a small part."""
    data = data_of(30 * CHUNK_BYTES)
    fetch = Fetch()
    fetch.want(blob_ref(data))
    link: deque[Chunk] = deque()
    sent = 0
    for second in range(1200):
        chunks = answers(data, fetch.due(float(second)))
        sent += len(chunks)
        link.extend(chunks)
        if link and second % 12 == 11 and fetch.take(link.popleft()) is not None:
            break
    assert fetch.wanted == ()
    assert sent <= 30 + 2 * CHUNKS_IN_FLIGHT
    assert second < 12 * (30 + 2 * CHUNKS_IN_FLIGHT)


def test_while_bytes_arrive_nothing_is_asked_for_again() -> None:
    ref = blob_ref(bytes(3 * CHUNK_BYTES))
    fetch = Fetch()
    fetch.want(ref)
    assert len(fetch.due(0.0)) == 1
    for second in range(1, 100):
        fetch.arriving(float(second))
        assert fetch.due(float(second)) == []
    assert fetch.due(99.0 + RETRY_S - 0.01) == []
    assert len(fetch.due(99.0 + RETRY_S)) == 1


def test_a_chunk_that_has_not_left_yet_is_not_sent_again() -> None:
    ref = blob_ref(bytes(3 * CHUNK_BYTES))
    serving = Serving()
    assert serving.due("pi", ref, Want(sha256=ref.sha256, chunks=(0, 1)), 0) == (0, 1)
    assert serving.due("pi", ref, Want(sha256=ref.sha256, chunks=(0, 1)), 2) == ()
    assert serving.due("pi", ref, Want(sha256=ref.sha256, chunks=(1, 2)), 1) == (2,)
    assert serving.due("other", ref, Want(sha256=ref.sha256, chunks=(0, 1)), 0) == (0, 1)
    # All have left: who asks for one again has lost it.
    assert serving.due("pi", ref, Want(sha256=ref.sha256, chunks=(0, 2)), 0) == (0, 2)


def test_the_chunks_that_are_sent_are_those_of_the_blob() -> None:
    data, serving = data_of(2 * CHUNK_BYTES + 1), Serving()
    ref = blob_ref(data)
    sent = serving.chunks("pi", data, Want(sha256=ref.sha256, chunks=(2, 0, 3)), 0)
    assert sent == (read_chunk(data, ref, 2), read_chunk(data, ref, 0))
    assert serving.chunks("pi", data, Want(sha256=ref.sha256, chunks=(0, 1)), 2) == (read_chunk(data, ref, 1),)


def test_a_sender_sends_a_few_chunks_that_there_are_and_its_memory_is_bounded() -> None:
    ref = blob_ref(bytes(20 * CHUNK_BYTES))
    serving = Serving()
    assert serving.due("pi", ref, Want(sha256=ref.sha256, chunks=tuple(range(20))), 0) == tuple(range(CHUNKS_IN_FLIGHT))
    assert serving.due("pi", ref, Want(sha256=ref.sha256, chunks=(20, 2**24)), 1) == ()
    for number in range(RECEIVERS_REMEMBERED + 10):
        serving.due(f"pi-{number}", ref, Want(sha256=ref.sha256, chunks=(0,)), 0)
    assert len(serving._handed) == RECEIVERS_REMEMBERED


def test_patience_has_an_end() -> None:
    fetch, at_s = Fetch(), [0.0]
    fetch.want(blob_ref(b"never comes"))
    assert fetch.due(0.0)
    for tenth in range(1, 6000):
        if fetch.due(tenth / 10):
            at_s.append(tenth / 10)
    waits = [later - sooner for sooner, later in itertools.pairwise(at_s)]
    assert waits[0] == pytest.approx(RETRY_S) and max(waits) == pytest.approx(LONGEST_RETRY_S)
    assert waits == sorted(waits)


def test_of_a_sender_that_is_back_all_is_asked_again_that_is_not_there_and_no_longer_patience_is_had() -> None:
    data = data_of(4 * CHUNK_BYTES)
    fetch = Fetch()
    fetch.want(blob_ref(data))
    chunks = answers(data, fetch.due(0.0))
    fetch.take(chunks[1])
    for second in range(100):
        fetch.due(float(second))
    fetch.ask_again()
    (want,) = fetch.due(100.0)
    assert want.chunks == (0, 2, 3)
    assert fetch.due(100.0 + RETRY_S - 0.1) == [] and fetch.due(100.0 + RETRY_S) == [want]


def test_a_blob_that_the_sender_does_not_have_does_not_keep_others_waiting() -> None:
    missing, data = data_of(20 * CHUNK_BYTES, 1), data_of(2 * CHUNK_BYTES, 2)
    fetch = Fetch()
    fetch.want(blob_ref(missing))
    fetch.want(blob_ref(data))
    assert {sha256 for sha256, _ in asked(fetch.due(0.0))} == {blob_ref(missing).sha256}
    again = fetch.due(RETRY_S)
    assert again[0].sha256 == blob_ref(data).sha256
    assert [fetch.take(chunk) for chunk in answers(data, again[:1])] == [None, data]
    assert fetch.wanted == (blob_ref(missing),)


def test_a_chunk_of_nobodys_blob_is_refused() -> None:
    with pytest.raises(WireError, match="that nobody asked for"):
        Fetch().take(chunk_of(b"pushed", 0))


def test_late_repetitions_of_what_is_complete_or_given_up_are_passed_over_and_the_memory_of_them_is_bounded() -> None:
    fetch = Fetch()
    fetch.want(blob_ref(b"done"))
    assert fetch.take(chunk_of(b"done", 0)) == b"done"
    assert fetch.take(chunk_of(b"done", 0)) is None
    fetch.want(blob_ref(b"given up"))
    fetch.forget()
    assert fetch.wanted == () and fetch.due(0.0) == []
    assert fetch.take(chunk_of(b"given up", 0)) is None
    for number in range(BLOBS_REMEMBERED):
        data = b"%d" % number
        fetch.want(blob_ref(data))
        fetch.take(chunk_of(data, 0))
    with pytest.raises(WireError, match="that nobody asked for"):
        fetch.take(chunk_of(b"done", 0))


def test_what_was_given_up_may_be_wanted_again() -> None:
    fetch = Fetch()
    for _ in range(2):
        fetch.want(blob_ref(b"data"))
        fetch.forget()
    fetch.want(blob_ref(b"data"))
    assert fetch.due(0.0) and fetch.take(chunk_of(b"data", 0)) == b"data"


@pytest.mark.parametrize(
    ("index", "count", "size"),
    [
        (0, 2, CHUNK_BYTES),
        (0, 3, 1),
        (0, 3, CHUNK_BYTES - 1),
        (2, 3, 6),
        (2, 3, 8),
        (2, 3, CHUNK_BYTES),
        (3, 3, 7),
        (3, 4, 7),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_and_the_blob_goes_on(index: int, count: int, size: int) -> None:
    data = data_of(2 * CHUNK_BYTES + 7)
    ref = blob_ref(data)
    fetch = Fetch()
    fetch.want(ref)
    chunks = answers(data, fetch.due(0.0))
    with pytest.raises(WireError, match=f"chunk {index} of {count} does not fit the blob"):
        fetch.take(Chunk(sha256=ref.sha256, index=index, count=count, data=bytes(size)))
    assert [fetch.take(chunk) for chunk in chunks] == [None, None, data]


def test_a_damaged_blob_is_asked_for_again_as_a_whole() -> None:
    data = data_of(2 * CHUNK_BYTES)
    ref = blob_ref(data)
    fetch = Fetch()
    fetch.want(ref)
    good = answers(data, fetch.due(0.0))
    fetch.take(Chunk(sha256=ref.sha256, index=0, count=2, data=bytes(CHUNK_BYTES)))
    with pytest.raises(WireError, match="arrived damaged"):
        fetch.take(good[1])
    assert fetch.wanted == (ref,)
    assert asked(fetch.due(1.0)) == [(ref.sha256, 0), (ref.sha256, 1)]
    assert [fetch.take(chunk) for chunk in good] == [None, data]


def test_a_repeated_chunk_does_not_replace_the_first() -> None:
    data = data_of(2 * CHUNK_BYTES)
    ref = blob_ref(data)
    fetch = Fetch()
    fetch.want(ref)
    good = answers(data, fetch.due(0.0))
    fetch.take(good[0])
    fetch.take(Chunk(sha256=ref.sha256, index=0, count=2, data=bytes(CHUNK_BYTES)))
    assert fetch.take(good[1]) == data


def test_a_receivers_memory_has_a_bound_whatever_sizes_a_peer_names() -> None:
    fetch = Fetch(most_bytes=1000)
    small = blob_ref(bytes(600))
    fetch.want(small)
    fetch.want(small)
    with pytest.raises(WireError, match="a blob of 500 bytes is too much: 1000 may be fetched at a time"):
        fetch.want(BlobRef(sha256=b"b" * 32, size_bytes=500))
    assert fetch.take(chunk_of(bytes(600), 0)) == bytes(600)
    fetch.want(BlobRef(sha256=b"b" * 32, size_bytes=500))
    usual = Fetch()
    usual.want(BlobRef(sha256=b"a" * 32, size_bytes=LARGEST_BLOB_BYTES))
    with pytest.raises(WireError, match="too much"):
        usual.want(BlobRef(sha256=b"b" * 32, size_bytes=1))


def test_a_proxy_sets_name_depends_on_every_name_and_blob_but_not_on_their_order() -> None:
    a, b = blob_ref(b"a"), blob_ref(b"b")
    name = proxy_hash({"acc": a, "gyro": b})
    assert name == proxy_hash({"gyro": b, "acc": a}) and len(name) == 32
    assert len({name, proxy_hash({"acc": b, "gyro": a}), proxy_hash({"acc": a}), proxy_hash({"acc": a, "mag": b})}) == 4
