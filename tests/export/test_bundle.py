"""Files go into one and come out again; of any bytes that `pack` does not give nothing comes out."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import MOST_FILES, pack, unpack
from mekt.errors import ReleaseError

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,40}", fullmatch=True)
FILES = st.dictionaries(NAMES, st.binary(max_size=300), min_size=1, max_size=6)


@given(FILES)
def test_files_come_out_as_they_went_in(files: dict[str, bytes]) -> None:
    assert unpack(pack(files)) == files


@given(FILES)
def test_the_order_in_which_they_go_in_is_nothing(files: dict[str, bytes]) -> None:
    names = sorted(files)
    assert pack({name: files[name] for name in names}) == pack({name: files[name] for name in reversed(names)})


@given(FILES)
def test_any_tool_opens_it(files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(pack(files))) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == files


@given(FILES, st.data())
def test_of_other_bytes_nothing_comes_out(files: dict[str, bytes], data: st.DataObject) -> None:
    packed = pack(files)
    at = data.draw(st.integers(0, len(packed) - 1))
    inserted = data.draw(st.binary(max_size=4))
    cut = data.draw(st.integers(0, 4))
    changed = packed[:at] + inserted + packed[at + cut :]
    if changed == packed:
        return
    with pytest.raises(ReleaseError):
        unpack(changed)


@given(st.binary(max_size=200))
def test_whatever_comes_is_refused_in_words(raw: bytes) -> None:
    for each in (raw, b"PK\x03\x04" + raw):
        with pytest.raises(ReleaseError, match=r"not a release|damaged"):
            unpack(each)


def test_what_others_packed_is_refused_whatever_they_compress() -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", compression) as bundle:
            bundle.writestr("manifest.json", b"{}" * 100)
        with pytest.raises(ReleaseError, match="whoever packs it anew changes it"):
            unpack(packed.getvalue())


def test_more_files_than_any_release_has_are_not_read() -> None:
    with pytest.raises(ReleaseError, match="damaged"):
        unpack(pack({f"file-{number}": b"" for number in range(MOST_FILES + 1)}))


def test_the_manifest_comes_first() -> None:
    assert list(unpack(pack({"a": b"1", "manifest.json": b"2"}))) == ["manifest.json", "a"]
