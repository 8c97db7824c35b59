"""Windows under a key: nothing of them is legible on the disk, and another key, row or byte gives none."""

import stat
import zlib
from pathlib import Path

import numpy as np
import pytest

from mekt import catalogue
from mekt.errors import MektError, SettingsError, StateError
from sensors.rows import ENTRY, HEADER_BYTES
from sensors.store import WindowStore
from sensors.windows import Window

pytest.importorskip("cryptography")

from sensors.seal import CREDENTIAL, Seal, seal_of

SHAPES = {"acc": (4, 2), "depth": (3, 1, 2)}
SEAL = Seal(b"a" * 32)


def window(value: float) -> Window:
    acc, depth = (np.full(shape, value, np.float32) for shape in SHAPES.values())
    return Window(start_s=value, values={"acc": acc, "depth": list(depth)})


def values(store: WindowStore) -> list[float]:
    with store.hold().check() as held:
        arrays = held.take(range(len(held)))
        assert arrays["acc"].dtype == np.float32 and arrays["depth"].shape == (len(held), 3, 1, 2)
        return [float(each) for each in arrays["acc"][:, 3, 1]]


def test_sealed_windows_come_back_and_nothing_of_them_is_legible(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, SHAPES, 3, seal=SEAL)
    for number in range(5):
        store.add(window(number + 0.125))
    assert values(store) == [2.125, 3.125, 4.125]
    store.close()
    content = b"".join((tmp_path / name).read_bytes() for name in SHAPES)
    for number in range(5):
        assert np.float32(number + 0.125).tobytes() not in content
    again = WindowStore(tmp_path, SHAPES, 3, seal=Seal(b"a" * 32))
    assert values(again) == [2.125, 3.125, 4.125]
    again.close()


@pytest.mark.parametrize(("before", "after"), [(SEAL, Seal(b"b" * 32)), (SEAL, None), (None, SEAL)])
def test_what_lies_under_another_key_or_none_is_removed(
    tmp_path: Path, before: Seal | None, after: Seal | None
) -> None:
    store = WindowStore(tmp_path, SHAPES, 3, seal=before)
    store.add(window(1.5))
    store.close()
    again = WindowStore(tmp_path, SHAPES, 3, seal=after)
    assert len(again) == 0 and not any((tmp_path / "acc").read_bytes())
    again.close()


def test_equal_windows_are_sealed_to_other_bytes(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, SHAPES, 3, seal=SEAL)
    for _ in range(2):
        store.add(window(1.5))
    store.close()
    content, size = (tmp_path / "acc").read_bytes(), 32 + SEAL.overhead
    used = [
        content[first : first + size] for first in range(0, len(content), size) if any(content[first : first + size])
    ]
    assert len(used) == 2 and used[0] != used[1] and used[0][:12] != used[1][:12]


def test_what_is_sealed_opens_only_whole_and_for_what_it_was_sealed() -> None:
    sealed = SEAL.close(b"content", b"acc/1")
    assert SEAL.open(sealed, b"acc/1") == b"content" and len(sealed) == 7 + SEAL.overhead
    wrong = [(sealed, b"acc/2"), (sealed[:-1], b"acc/1"), (b"", b"acc/1")]
    wrong += [(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], b"acc/1") for at in range(len(sealed))]
    for bad, about in wrong:
        with pytest.raises(StateError, match="not what was sealed"):
            SEAL.open(bad, about)
    with pytest.raises(StateError):
        Seal(b"c" * 32).open(sealed, b"acc/1")


def test_rows_that_somebody_exchanged_with_right_checksums_are_left_out(tmp_path: Path) -> None:
    store = WindowStore(tmp_path, SHAPES, 2, seal=SEAL)
    store.add(window(1.5))
    store.add(window(2.5))
    rows = store._places.tolist()
    store.close()
    sizes = {name: 4 * int(np.prod(shape)) + SEAL.overhead for name, shape in SHAPES.items()}
    files = {name: bytearray((tmp_path / name).read_bytes()) for name in SHAPES}
    parts = [[bytes(files[name][row * sizes[name] : (row + 1) * sizes[name]]) for name in SHAPES] for row in rows]
    for row, other in zip(rows, reversed(parts), strict=True):
        for name, part in zip(SHAPES, other, strict=True):
            files[name][row * sizes[name] : (row + 1) * sizes[name]] = part
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    index = bytearray((tmp_path / "index").read_bytes())
    for row in rows:
        at = HEADER_BYTES + row * ENTRY.itemsize
        entry = np.frombuffer(bytes(index[at : at + ENTRY.itemsize]), dtype=ENTRY).copy()
        crc = 0
        for name in SHAPES:
            crc = zlib.crc32(files[name][row * sizes[name] : (row + 1) * sizes[name]], crc)
        entry["content"] = crc
        entry["check"] = zlib.crc32(entry.tobytes()[:28])
        index[at : at + ENTRY.itemsize] = entry.tobytes()
    (tmp_path / "index").write_bytes(index)
    again = WindowStore(tmp_path, SHAPES, 2, seal=SEAL)
    assert values(again) == []
    again.close()


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "windows.key"
    first, second = seal_of(path, None, {}), seal_of(path, None, {})
    assert first.identity == second.identity and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == 32 and path.read_bytes().hex() not in first.identity


def test_a_named_key_counts_before_the_service_managers_and_that_before_one_of_ones_own(tmp_path: Path) -> None:
    named, given = tmp_path / "named", tmp_path / "given"
    named.write_bytes(b"n" * 32)
    named.chmod(0o600)
    given.mkdir()
    environment = {"CREDENTIALS_DIRECTORY": str(given)}
    own = seal_of(tmp_path / "own", None, environment).identity
    (given / CREDENTIAL).write_bytes(b"g" * 32)
    credential = seal_of(tmp_path / "other", None, environment).identity
    assert credential == Seal(b"g" * 32).identity and not (tmp_path / "other").exists()
    assert seal_of(tmp_path / "own", named, environment).identity == Seal(b"n" * 32).identity != own


@pytest.mark.parametrize(
    ("content", "mode", "entry"),
    [
        (None, 0, catalogue.WINDOWS_KEY_UNUSABLE),
        (b"k" * 31, 0o600, catalogue.WINDOWS_KEY_UNUSABLE),
        (b"k" * 32, 0o640, catalogue.SECRET_READABLE),
    ],
)
def test_a_key_that_cannot_be_used_is_a_settings_error(
    tmp_path: Path, content: bytes | None, mode: int, entry: catalogue.Entry
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        seal_of(tmp_path / "own", path, {})
    assert isinstance(caught.value, MektError) and caught.value.entry is entry and str(path) in str(caught.value)
