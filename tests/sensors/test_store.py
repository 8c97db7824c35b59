"""The private store: the newest windows, in order, on disk; what a round holds stays; what a crash tears is none."""

import errno
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt import catalogue
from mekt.errors import SensorError, StateError
from sensors.rows import ENTRY, HEADER_BYTES
from sensors.store import WindowStore, largest_capacity, rows_for
from sensors.windows import Window

SHAPES = {"acc": (4, 2), "depth": (2, 3, 3)}
ROW_BYTES = 4 * (8 + 18)


def window(number: float) -> Window:
    acc, depth = (np.full(shape, number, np.float32) for shape in SHAPES.values())
    return Window(start_s=number, values={"acc": acc, "depth": list(depth)})


def numbers(store: WindowStore) -> list[float]:
    """What the windows that count were made of, oldest first; every value of a window has to be the same."""
    with store.hold().check() as held:
        arrays = held.take(range(len(held)))
        assert {name: array.shape for name, array in arrays.items()} == {
            name: (len(held), *shape) for name, shape in SHAPES.items()
        }
        flat = np.concatenate(
            [array.reshape(len(held), math.prod(array.shape[1:])) for array in arrays.values()], axis=1
        )
        assert (flat == flat[:, :1]).all(), "a window that is not what was kept"
        return [float(value) for value in flat[:, 0]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for tests that need many: each begins afresh in it."""
    yield tmp_path_factory.mktemp("store")


def filled(folder: Path, capacity: int, *made: float, **options: Any) -> WindowStore:
    store = WindowStore(folder, SHAPES, capacity, **options)
    for number in made:
        store.add(window(number))
    return store


@given(st.integers(1, 7), st.integers(0, 20))
def test_the_newest_windows_come_back_in_the_order_in_which_they_came(place: Path, capacity: int, count: int) -> None:
    store = filled(place, capacity, *range(count), afresh=True)
    assert numbers(store) == list(range(count))[-capacity:] and len(store) == min(count, capacity)
    store.close()
    again = WindowStore(place, SHAPES, capacity)
    assert numbers(again) == list(range(count))[-capacity:]
    again.close()


@given(st.integers(1, 9), st.lists(st.sampled_from(["add", "hold", "let go", "restart"]), max_size=60))
def test_what_is_held_stays_and_the_newest_are_there_whatever_happens(
    place: Path, capacity: int, steps: list[str]
) -> None:
    store, made = WindowStore(place, SHAPES, capacity, afresh=True), 0
    holds: list[tuple[Any, list[float]]] = []
    for step in steps:
        match step:
            case "add":
                store.add(window(made))
                made += 1
            case "hold" if not holds:
                expected = numbers(store)
                holds.append((store.hold().check(), expected))
            case "let go" if holds:
                holds.pop()[0].let_go()
            case "restart":
                while holds:
                    holds.pop()[0].let_go()
                store.close()
                store = WindowStore(place, SHAPES, capacity)
            case _:
                pass
        for held, expected in holds:
            assert held.take(range(len(held)))["acc"][:, 0, 0].tolist() == expected
        there = numbers(store)
        # However long a round holds its windows, what came last is there; nothing is twice, and all is in order.
        assert len(there) == min(made, capacity) and there == sorted(set(there)) and there[-1:] == [made - 1][:made]
    store.close()


def test_a_round_that_lasts_long_costs_the_oldest_of_what_came_meanwhile(tmp_path: Path) -> None:
    store = filled(tmp_path, 8, *range(8))
    assert rows_for(8) == 10
    with store.hold() as held:
        for number in range(8, 20):
            store.add(window(number))
        assert held.take([0, 7])["acc"][:, 0, 0].tolist() == [0, 7]
        assert numbers(store) == [2, 3, 4, 5, 6, 7, 18, 19]
    store.add(window(20))
    assert numbers(store) == [3, 4, 5, 6, 7, 18, 19, 20]
    store.close()


def test_while_rounds_hold_all_that_fits_new_windows_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, 0)
    first = store.hold()
    store.add(window(1))
    second = store.hold()
    with pytest.raises(StateError, match="rounds hold every window that fits"):
        store.add(window(2))
    first.let_go()
    first.let_go()
    store.add(window(3))
    assert numbers(store) == [3]
    second.let_go()
    store.close()


def test_what_is_kept_and_given_are_copies(tmp_path: Path) -> None:
    store, added = WindowStore(tmp_path, SHAPES, 2), window(1)
    store.add(added)
    added.arrays["acc"][:] = 9
    with store.hold() as held:
        held.take([0])["acc"][:] = 9
    assert numbers(store) == [1]
    store.close()


def test_once_closed_it_keeps_nothing_and_what_is_there_can_be_held(tmp_path: Path) -> None:
    store = filled(tmp_path, 4, 1, 2, most_age_s=1e6)
    store.close()
    store.add(window(3))
    store.expire()
    assert numbers(store) == [1, 2]


def test_modalities_that_the_store_does_not_have_are_passed_over(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, {"acc": SHAPES["acc"]}, 2)
    store.add(window(1))
    assert store.hold().names == ("acc",) and list(store.hold().take([0])) == ["acc"]
    store.close()


def test_a_window_that_does_not_fit_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = filled(tmp_path, 2, 1)
    with pytest.raises(SensorError, match=r"^a window's depth is missing, the store keeps \(2, 3, 3\); use one plan"):
        store.add(Window(start_s=2, values={"acc": np.zeros((4, 2), np.float32)}))
    wide = {**window(2).arrays, "depth": np.zeros((2, 3, 4), np.float32)}
    with pytest.raises(SensorError, match=r"^a window's depth has shape \(2, 3, 4\), the store keeps \(2, 3, 3\)"):
        store.add(Window(start_s=2, values=wide))
    assert numbers(store) == [1]
    store.close()


def test_a_store_of_nothing_is_refused(tmp_path: Path) -> None:
    for shapes, capacity in ((SHAPES, 0), (SHAPES, -1), ({}, 5)):
        with pytest.raises(SensorError, match=r"holds nothing; name at least one of each$"):
            WindowStore(tmp_path, shapes, capacity)


# On disk


def test_files_are_their_owners_alone_and_take_room_as_it_is_used(tmp_path: Path) -> None:
    store = filled(tmp_path / "private" / "all", 100_000, 1, 2, 3)
    folder = tmp_path / "private" / "all"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {"index", "acc", "depth"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert sum(512 * (folder / name).stat().st_blocks for name in SHAPES) < 200_000
    store.close()


@given(st.integers(1, 10**7))
def test_no_more_windows_count_than_rows_for_them_fit(size_bytes: int) -> None:
    capacity = largest_capacity(SHAPES, size_bytes)
    assert capacity == 0 or rows_for(capacity) * ROW_BYTES <= size_bytes
    assert rows_for(capacity + 1) * ROW_BYTES > size_bytes


def test_windows_of_another_kind_or_shape_are_removed(tmp_path: Path) -> None:
    filled(tmp_path, 4, 1, 2, kind="a").close()
    other = WindowStore(tmp_path, SHAPES, 4, kind="b")
    assert len(other) == 0
    other.close()
    filled(tmp_path, 4, 1, kind="b").close()
    assert (tmp_path / "depth").exists()
    narrow = WindowStore(tmp_path, {"acc": (4, 3)}, 4, kind="b")
    assert len(narrow) == 0 and not (tmp_path / "depth").exists()
    narrow.close()


def test_another_capacity_keeps_what_fits(tmp_path: Path) -> None:
    filled(tmp_path, 4, 1, 2, 3, 4).close()
    larger = filled(tmp_path, 8, 5, 6)
    assert numbers(larger) == [1, 2, 3, 4, 5, 6]
    larger.close()
    smaller = WindowStore(tmp_path, SHAPES, 2)
    there = numbers(smaller)
    assert len(there) == 2 and set(there) < {1, 2, 3, 4, 5, 6}
    smaller.close()


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def restored(folder: Path, files: dict[str, bytes]) -> WindowStore:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return WindowStore(folder, SHAPES, 3)


def test_a_crash_at_any_byte_costs_the_window_that_is_written_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every prefix of the bytes that keeping a window writes, in their order; the row is an old window's."""
    store, writes = filled(tmp_path, 3, 1, 2, 3, 4), []
    before = snapshot(tmp_path)
    names = {file: name for name, file in store._rows._files.items()}
    real = os.pwrite

    def noted(file: int, data: bytes, offset: int) -> int:
        writes.append((names[file], bytes(data), offset))
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", noted)
    store.add(window(5))
    monkeypatch.undo()
    store.close()
    whole = sum(len(data) for _, data, _ in writes)
    assert whole == ROW_BYTES + ENTRY.itemsize
    outcomes = set()
    for cut in range(whole + 1):
        files, left = {name: bytearray(content) for name, content in before.items()}, cut
        for name, data, offset in writes:
            part = data[: min(left, len(data))]
            files[name][offset : offset + len(part)] = part
            left -= len(part)
        again = restored(tmp_path, {name: bytes(content) for name, content in files.items()})
        again_there = numbers(again)
        outcomes.add(tuple(again_there))
        again.add(window(6))
        assert numbers(again)[-1] == 6
        again.close()
    assert outcomes == {(2, 3, 4), (3, 4, 5)}


def test_when_the_power_goes_whatever_was_not_written_is_no_window(tmp_path: Path) -> None:
    """Any of the files may be as it was before: each alone, and pairs of them."""
    store = filled(tmp_path, 3, 1, 2, 3, 4)
    before = snapshot(tmp_path)
    store.add(window(5))
    store.close()
    after = snapshot(tmp_path)
    for old in (["acc"], ["depth"], ["index"], ["acc", "depth"], ["acc", "index"]):
        again = restored(tmp_path, {name: (before if name in old else after)[name] for name in after})
        assert set(numbers(again)) <= {2, 3, 4, 5} and {3, 4} <= set(numbers(again))
        again.close()


@given(st.data())
def test_no_byte_that_the_disk_changes_gives_a_window_that_was_not_kept(place: Path, data: st.DataObject) -> None:
    filled(place, 3, 1, 2, 3, afresh=True).close()
    files = {name: bytearray(content) for name, content in snapshot(place).items()}
    name = data.draw(st.sampled_from(sorted(files)))
    for _ in range(data.draw(st.integers(1, 3))):
        files[name][data.draw(st.integers(0, len(files[name]) - 1))] ^= data.draw(st.integers(1, 255))
    again = restored(place, {each: bytes(content) for each, content in files.items()})
    assert set(numbers(again)) <= {1, 2, 3}
    again.close()


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 33])
def test_an_index_that_is_cut_off_gives_what_is_left_of_it(tmp_path: Path, size: int) -> None:
    filled(tmp_path, 3, 1, 2, 3).close()
    index = (tmp_path / "index").read_bytes()
    (tmp_path / "index").write_bytes(index[:size])
    again = WindowStore(tmp_path, SHAPES, 3)
    assert len(numbers(again)) == (1 if size > HEADER_BYTES else 0)
    again.close()


def test_a_file_that_is_gone_or_cut_off_takes_its_windows_along(tmp_path: Path) -> None:
    filled(tmp_path, 3, 1, 2, 3).close()
    (tmp_path / "acc").write_bytes((tmp_path / "acc").read_bytes()[: 32 + 5])
    again = WindowStore(tmp_path, SHAPES, 3)
    assert len(numbers(again)) == 1
    again.close()
    (tmp_path / "acc").unlink()
    again = WindowStore(tmp_path, SHAPES, 3)
    assert numbers(again) == []
    again.close()


def test_damage_is_told_once_and_its_row_is_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, 3, 1, 2, 3).close()
    content = bytearray((tmp_path / "depth").read_bytes())
    content[5] ^= 1
    (tmp_path / "depth").write_bytes(content)
    again = WindowStore(tmp_path, SHAPES, 3)
    assert len(numbers(again)) == 2 and len(numbers(again)) == 2
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "1 private windows on the disk were torn or damaged; they are left out"
    ]
    again.close()


# Age


class Clock:
    """A clock that stands where it is put."""

    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_windows_that_are_too_old_are_overwritten_and_no_byte_of_them_is_left(tmp_path: Path) -> None:
    clock = Clock()
    store = filled(tmp_path, 5, 7.5, most_age_s=60, clock=clock)
    clock.now_s += 40
    store.add(window(8.5))
    clock.now_s += 30
    old = np.float32(7.5).tobytes()
    assert old in (tmp_path / "acc").read_bytes()
    store.expire()
    assert numbers(store) == [8.5]
    assert old not in (tmp_path / "acc").read_bytes() and old not in (tmp_path / "depth").read_bytes()
    store.close()
    clock.now_s += 100
    again = WindowStore(tmp_path, SHAPES, 5, most_age_s=60, clock=clock)
    assert len(again) == 0 and not any((tmp_path / "acc").read_bytes())
    again.close()


def test_what_a_round_holds_grows_old_when_it_is_let_go(tmp_path: Path) -> None:
    clock = Clock()
    store = filled(tmp_path, 5, 1, 2, most_age_s=60, clock=clock)
    with store.hold() as held:
        clock.now_s += 1000
        store.add(window(3))
        store.expire()
        assert held.take([0, 1])["acc"][:, 0, 0].tolist() == [1, 2]
    assert numbers(store) == [3]
    store.close()


def test_a_clock_that_leaps_forth_or_back_makes_windows_too_old_and_never_younger(tmp_path: Path) -> None:
    clock = Clock()
    store = filled(tmp_path, 5, 1, most_age_s=60, clock=clock)
    clock.now_s -= 1000
    store.add(window(2))
    store.expire()
    assert numbers(store) == [2]
    store.close()


# A full disk


def test_a_full_disk_bounds_the_store_and_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 10, 1, 2, 3)
    real, full_from = os.pwrite, 3 * 32

    def full(file: int, data: bytes, offset: int) -> int:
        if file == store._rows._files["acc"] and offset >= full_from:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    for number in (4, 5):
        store.add(window(number))
    assert numbers(store) == [3, 4, 5]
    full_from = 0
    with pytest.raises(StateError, match="No space left on device") as caught:
        store.add(window(6))
    assert caught.value.entry is catalogue.DISK_FULL
    monkeypatch.undo()
    store.add(window(7))
    assert numbers(store)[-1] == 7
    store.close()


def test_a_write_that_the_system_cuts_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, bytes(data)[:7], offset))
    store = filled(tmp_path, 3, 1, 2)
    assert numbers(store) == [1, 2]
    store.close()


def test_a_folder_that_cannot_be_used_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StateError, match="taken"):
        WindowStore(tmp_path / "taken", SHAPES, 3)
    (tmp_path / "store").mkdir()
    filled(tmp_path / "store", 3, 1).close()
    (tmp_path / "store" / "index").rename(tmp_path / "moved")
    (tmp_path / "store" / "index").symlink_to(tmp_path / "moved")
    with pytest.raises(StateError, match="private windows cannot be kept"):
        WindowStore(tmp_path / "store", SHAPES, 3)


def test_links_of_somebody_else_are_removed_and_what_they_lead_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "store").mkdir()
    for name in ("index", "acc"):
        (tmp_path / "store" / name).symlink_to(tmp_path / "precious")
    filled(tmp_path / "store", 3, 1).close()
    assert (tmp_path / "precious").read_text() == "content" and not (tmp_path / "store" / "acc").is_symlink()
