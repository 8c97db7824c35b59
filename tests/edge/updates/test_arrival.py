"""A release on its way: whenever a wearable is switched off, what has come need not come again."""

import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.updates.arrival import ARRIVING, RECORD, Arrival
from mekt.blobs import ChunkError, blob_ref, chunk_count, read_chunk
from mekt.errors import WireError
from mekt.messages import CHUNK_BYTES, Chunk

DATA = random.Random(3).randbytes(3 * CHUNK_BYTES + 77)
OTHER = random.Random(4).randbytes(CHUNK_BYTES)
REF = blob_ref(DATA)
MOST = 1 << 20


def chunk(index: int, data: bytes = DATA) -> Chunk:
    found = read_chunk(data, blob_ref(data), index)
    assert found is not None
    return found


def missing(arrival: Arrival) -> set[int]:
    """What it asks for."""
    return {index for want in arrival.due(0.0, 0) for index in want.chunks}


MADE: list[Arrival] = []


def begun(folder: Path, data: bytes = DATA) -> Arrival:
    arrival = Arrival(folder, MOST)
    MADE.append(arrival)
    assert arrival.begin(blob_ref(data)) is None
    return arrival


@pytest.fixture(autouse=True)
def all_closed() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def test_chunks_in_any_order_and_repeated_make_the_release(tmp_path: Path) -> None:
    arrival = begun(tmp_path)
    assert missing(arrival) == {0, 1, 2, 3}
    assert [arrival.take(chunk(index)) for index in (3, 0, 0, 2)] == [None] * 4
    assert arrival.take(chunk(1)) == DATA


def test_what_has_come_before_a_restart_is_not_asked_for_again(tmp_path: Path) -> None:
    arrival = begun(tmp_path)
    for index in (2, 0):
        arrival.take(chunk(index))
    for _ in range(2):
        arrival.close()
        arrival = begun(tmp_path)
    assert missing(arrival) == {1, 3}
    arrival.take(chunk(3))
    assert arrival.take(chunk(1)) == DATA


def test_wherever_power_went_while_a_chunk_was_written_the_others_are_there(tmp_path: Path) -> None:
    arrival = begun(tmp_path)
    arrival.take(chunk(0))
    one = (tmp_path / ARRIVING).stat().st_size
    arrival.take(chunk(3))
    arrival.close()
    raw = (tmp_path / ARRIVING).read_bytes()
    for end in (*range(one, len(raw)), *range(0, one, 997)):
        (tmp_path / ARRIVING).write_bytes(raw[:end])
        arrival = begun(tmp_path)
        assert missing(arrival) == ({0, 1, 2, 3} if end < one else {1, 2, 3})
        arrival.close()
    # What the disk made of it, and was not written: nothing behind it counts, and all goes on from there.
    spoiled = bytearray(raw)
    spoiled[one + 20] ^= 1
    (tmp_path / ARRIVING).write_bytes(spoiled)
    arrival = begun(tmp_path)
    assert missing(arrival) == {1, 2, 3}
    for index in (1, 2):
        arrival.take(chunk(index))
    arrival.close()
    arrival = begun(tmp_path)
    assert missing(arrival) == {3} and arrival.take(chunk(3)) == DATA


def test_all_chunks_on_the_disk_are_a_release_at_once(tmp_path: Path) -> None:
    arrival = begun(tmp_path, DATA)
    for index in range(3):
        arrival.take(chunk(index))
    arrival.close()
    # As where the last one was kept and the process ended before the whole was.
    last = chunk(3)
    with (tmp_path / ARRIVING).open("ab") as file:
        file.write(RECORD.pack(3, zlib.crc32(last.data)) + last.data)
    MADE.append(arrival)
    assert arrival.begin(REF) == DATA


def test_another_release_begins_anew_and_late_chunks_of_the_former_are_passed_over(tmp_path: Path) -> None:
    arrival = begun(tmp_path)
    arrival.take(chunk(0))
    assert arrival.begin(blob_ref(OTHER)) is None
    assert arrival.take(chunk(1)) is None
    arrival.close()
    arrival = begun(tmp_path, OTHER)
    assert missing(arrival) == {0}
    assert arrival.take(chunk(0, OTHER)) == OTHER


def test_what_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    arrival = begun(tmp_path)
    arrival.take(chunk(0))
    arrival.forget()
    assert list(tmp_path.iterdir()) == [] and missing(arrival) == set()


def test_what_is_too_large_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="too much"):
        Arrival(tmp_path, 1000).begin(REF)


def test_a_release_that_arrived_damaged_is_asked_for_again_whole(tmp_path: Path) -> None:
    arrival = begun(tmp_path)
    lie = Chunk(sha256=REF.sha256, index=1, count=chunk_count(REF), data=bytes(CHUNK_BYTES))
    for each in (chunk(0), lie, chunk(2)):
        arrival.take(each)
    with pytest.raises(ChunkError, match="arrived damaged"):
        arrival.take(chunk(3))
    arrival.close()
    arrival = begun(tmp_path)
    assert missing(arrival) == {0, 1, 2, 3}


def test_a_chunk_that_does_not_fit_costs_nothing_that_has_come(tmp_path: Path) -> None:
    arrival = begun(tmp_path)
    arrival.take(chunk(0))
    with pytest.raises(ChunkError):
        arrival.take(Chunk(sha256=REF.sha256, index=1, count=chunk_count(REF), data=b"short"))
    with pytest.raises(ChunkError):
        arrival.take(chunk(0, OTHER))
    arrival.close()
    arrival = begun(tmp_path)
    assert missing(arrival) == {1, 2, 3}


@given(st.lists(st.integers(0, 3) | st.just("restart"), max_size=20))
def test_in_any_order_with_any_restarts_the_file_stays_small_and_the_release_comes(
    tmp_path_factory: pytest.TempPathFactory, turns: list[int | str]
) -> None:
    folder = tmp_path_factory.mktemp("arrival")
    arrival, data = begun(folder), None
    come: set[int] = set()
    for turn in [*turns, 0, 1, 2, 3]:
        if isinstance(turn, str):
            arrival.close()
            arrival = begun(folder)
            continue
        come.add(turn)
        data = arrival.take(chunk(turn))
        assert (folder / ARRIVING).stat().st_size <= REF.size_bytes + 32 + 8 * 4
        if len(come) == 4:
            break
    assert data == DATA
    arrival.close()


def test_a_disk_that_takes_nothing_costs_the_restart_and_not_the_release(tmp_path: Path) -> None:
    arrival = Arrival(tmp_path / "missing", MOST)
    assert arrival.begin(REF) is None
    for index in range(3):
        arrival.take(chunk(index))
    assert arrival.take(chunk(3)) == DATA
