"""Blobs on their way into a device's store, over a network that loses, doubles and damages."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge.fetching import ARRIVING_BYTES, Fetching
from mekt.arrays import pack_knowledge
from mekt.blobs import RETRY_S, ChunkError, blob_ref, read_chunk
from mekt.files import BlobStore
from mekt.messages import CHUNK_BYTES, Chunk, Want
from tests.edge.conftest import (
    ACC,
    BOTH,
    GYRO,
    PLAN,
    PROXY,
    SPEC,
    HandMade,
    Running,
    noise,
    plan_of,
    proxy_blob,
    refs_of,
)


def test_knowledge_that_changes_while_it_is_fetched_is_fetched_anew(
    coordinator: HandMade, start: Callable[..., Running]
) -> None:
    served, coordinator.blobs = coordinator.blobs, {}
    with start():
        coordinator.announce(0)
        coordinator.until(Want)
        coordinator.knowledge = {name: pack_knowledge(noise(PROXY, 4, seed=9), None, "float16") for name in BOTH}
        coordinator.serve(PLAN)
        assert not set(refs_of(coordinator.knowledge)) & set(served)
        coordinator.round(0)


class Double:
    """Every chunk arrives twice."""

    def __call__(self, chunk: Chunk) -> list[Chunk]:
        return [chunk, chunk]


class LoseFirst:
    """Every chunk is lost the first time."""

    def __init__(self) -> None:
        self._lost: set[tuple[bytes, int]] = set()

    def __call__(self, chunk: Chunk) -> list[Chunk]:
        key = (chunk.sha256, chunk.index)
        if key in self._lost:
            return [chunk]
        self._lost.add(key)
        return self.instead(chunk)

    def instead(self, chunk: Chunk) -> list[Chunk]:
        return []


class DamageFirst(LoseFirst):
    """Every chunk arrives damaged the first time: with another length, as part of another whole, with other content."""

    def instead(self, chunk: Chunk) -> list[Chunk]:
        flipped = bytes([chunk.data[0] ^ 1]) + chunk.data[1:]
        return [replace(chunk, data=chunk.data[1:]), replace(chunk, count=7), replace(chunk, data=flipped)]


@pytest.mark.parametrize("mangle", [Double, LoseFirst, DamageFirst])
def test_chunks_that_are_lost_doubled_or_damaged_are_asked_for_again(
    mangle: Callable[[], Callable[[Chunk], list[Chunk]]], coordinator: HandMade, start: Callable[..., Running]
) -> None:
    proxy = {each.name: blob_ref(proxy_blob(each, SPEC, 1024)) for each in (ACC, GYRO)}
    assert max(ref.size_bytes for ref in proxy.values()) > CHUNK_BYTES
    plan = plan_of(ACC, GYRO, proxy_windows=1024, proxy=proxy)
    coordinator.knowledge = {name: pack_knowledge(noise(1024, 4), None, "float16") for name in BOTH}
    coordinator.serve(plan)
    coordinator.mangle = mangle()
    with start():
        knowledge = coordinator.round(0, plan=plan)
    assert {len(data) for data in knowledge.values()} == {len(pack_knowledge(noise(1024, 4), None, "float16"))}


def chunk_of(data: bytes) -> Chunk:
    chunk = read_chunk(data, blob_ref(data), 0)
    assert chunk is not None
    return chunk


def test_only_what_is_missing_is_fetched_and_nothing_else_is_kept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    old, here, missing = store.put(b"old"), store.put(b"here"), blob_ref(b"missing")
    fetching = Fetching(store)
    assert fetching.is_complete
    fetching.begin([here, missing])
    assert store.get(old) is None and not fetching.is_complete
    assert fetching.due(0.0, 0) == [Want(sha256=missing.sha256, chunks=(0,))]
    with pytest.raises(ChunkError, match="nobody asked for"):
        fetching.take(chunk_of(b"old"))
    assert fetching.take(chunk_of(b"missing")) and fetching.is_complete
    assert store.get(missing) == b"missing" and fetching.due(1.0, 0) == []


def test_what_still_comes_of_a_plan_that_was_left_is_passed_over(tmp_path: Path) -> None:
    fetching = Fetching(BlobStore(tmp_path))
    fetching.begin([blob_ref(b"missing")])
    assert fetching.due(0.0, 0)
    fetching.forget()
    assert fetching.is_complete and not fetching.take(chunk_of(b"missing"))
    assert list(tmp_path.iterdir()) == []


def test_while_bytes_arrive_nothing_is_asked_for_again(tmp_path: Path) -> None:
    fetching, at_s, arrived_bytes = Fetching(BlobStore(tmp_path)), 0.0, 0
    fetching.begin([blob_ref(b"missing")])
    wants = fetching.due(at_s, arrived_bytes)
    for _ in range(10):
        at_s, arrived_bytes = at_s + 0.9 * RETRY_S, arrived_bytes + ARRIVING_BYTES
        assert fetching.due(at_s, arrived_bytes) == []
    # So few are no chunk.
    assert fetching.due(at_s + RETRY_S, arrived_bytes + ARRIVING_BYTES - 1) == wants
    fetching.ask_again()
    assert fetching.due(at_s + RETRY_S, arrived_bytes) == wants
