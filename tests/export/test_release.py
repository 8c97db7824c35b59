"""A file is a release with every byte in its place, or it is refused."""

import hashlib
import os
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from export.bundle import pack, unpack
from export.manifest import FORMAT, LARGEST_RELEASE_BYTES, MANIFEST, SIGNATURE, FileEntry, pack_manifest
from export.release import read_release
from mekt.errors import ReleaseError
from mekt.signature import Purpose, Trust, joined, to_sign
from tests.export.small import ACC, GYRO, parts_of
from tests.export.test_manifest import MANIFEST as WELL_FORMED
from tests.export.test_manifest import sealed


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "ward-3-00007.zip"
    parts_of(ACC, GYRO).write(path)
    return path


@pytest.fixture
def release(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(written, tmp_path / written.name))


def change(release: Path, name: str, data: bytes | None) -> None:
    """Give a file within another content, or none; the bundle is a good one all the same."""
    files = unpack(release.read_bytes())
    files.pop(name, None)
    release.write_bytes(pack(files if data is None else {**files, name: data}))


def content(release: Path, name: str) -> bytes:
    return unpack(release.read_bytes())[name]


def test_a_release_comes_with_its_manifest_and_the_bytes_of_its_models(release: Path) -> None:
    read = read_release(release)
    assert read.path == release
    assert [each.name for each in read.manifest.modalities] == ["acc", "gyro"]
    files = unpack(release.read_bytes())
    assert dict(read.models) == {name: data for name, data in files.items() if name != MANIFEST}
    assert len(read.models) == 5


def test_any_changed_bit_of_the_file_is_found(tmp_path: Path) -> None:
    contents = {name: hashlib.sha256(name.encode()).digest()[:9] for name in WELL_FORMED.files}
    entries = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=9) for name, data in contents.items()
    }
    small = pack({**contents, MANIFEST: pack_manifest(replace(WELL_FORMED, files=entries))})
    path = tmp_path / "small.zip"
    path.write_bytes(small)
    assert len(read_release(path).models) == 3
    manifest = range(small.index(b"{"), small.rindex(b"}"))
    for bit in range(8 * len(small)):
        # Of the manifest, whose every bit has its own test, some here and there.
        if bit // 8 in manifest and bit % 67:
            continue
        changed = bytearray(small)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ReleaseError):
            read_release(path)


def test_a_file_that_was_cut_off_or_goes_on_is_damaged(release: Path) -> None:
    data = release.read_bytes()
    for changed in (data[:-1], data[: len(data) // 2], data + b"\0", b"\0" + data, b""):
        release.write_bytes(changed)
        with pytest.raises(ReleaseError, match=rf"{release.name}: (damaged|not a release)"):
            read_release(release)


def test_a_changed_byte_anywhere_in_a_real_model_is_found(release: Path) -> None:
    for name in read_release(release).models:
        data = content(release, name)
        for position in {0, 1, len(data) // 3, len(data) // 2, len(data) - 2, len(data) - 1}:
            change(release, name, data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
            with pytest.raises(ReleaseError, match=rf"{name} is damaged.*copy the release again"):
                read_release(release)
        change(release, name, data)


@pytest.mark.parametrize("changed", [lambda data: data[:-1], lambda data: data + b"\x00", lambda data: b""])
def test_a_model_of_another_length_is_found(release: Path, changed: Callable[[bytes], bytes]) -> None:
    change(release, "encoder-acc.onnx", changed(content(release, "encoder-acc.onnx")))
    with pytest.raises(ReleaseError, match=r"encoder-acc\.onnx.* bytes"):
        read_release(release)


def test_a_missing_model_is_named(release: Path) -> None:
    change(release, "classifier-acc.onnx", None)
    with pytest.raises(ReleaseError, match=r"classifier-acc\.onnx is missing; copy the release again"):
        read_release(release)


def test_a_release_without_a_manifest_is_damaged(release: Path) -> None:
    change(release, MANIFEST, None)
    with pytest.raises(ReleaseError, match=rf"{MANIFEST}: not JSON text"):
        read_release(release)


def test_models_that_were_swapped_are_found(release: Path) -> None:
    one, other = (content(release, f"encoder-{name}.onnx") for name in ("acc", "gyro"))
    change(release, "encoder-acc.onnx", other)
    change(release, "encoder-gyro.onnx", one)
    with pytest.raises(ReleaseError, match=r"encoder-\w+\.onnx"):
        read_release(release)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "encoder-mag.onnx", "encoder-acc.onnx.data", "../up"])
def test_a_file_that_the_manifest_does_not_name_is_refused(release: Path, name: str) -> None:
    change(release, name, b"")
    with pytest.raises(ReleaseError, match=f"holds '{name}', which its manifest does not name"):
        read_release(release)


def test_what_is_no_release_is_told_apart_and_never_waited_for(release: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="it is not there"):
        read_release(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReleaseError, match="not a release"):
        read_release(tmp_path / "file")
    with pytest.raises(ReleaseError, match="it is a folder"):
        read_release(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReleaseError, match="it is not a plain file"):
        read_release(tmp_path / "pipe")


def test_a_link_to_a_release_is_one(release: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(release)
    assert read_release(tmp_path / "current").manifest == read_release(release).manifest


def test_a_file_larger_than_any_release_is_not_read_whole(release: Path) -> None:
    os.truncate(release, 1 << 40)
    with pytest.raises(ReleaseError, match=f"more than {LARGEST_RELEASE_BYTES} bytes"):
        read_release(release)


def test_a_release_of_a_newer_mekt_says_so(release: Path) -> None:
    newer = FORMAT + 1
    change(release, MANIFEST, sealed({"format": newer}))
    with pytest.raises(ReleaseError, match=rf"{release.name}: {MANIFEST}: format {newer} is newer.*install a newer"):
        read_release(release)


# Signatures


SIGNER, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))


def sign(release: Path, number: int, by: Ed25519PrivateKey = SIGNER, purpose: Purpose = "release") -> None:
    signed = by.sign(to_sign(purpose, number, content(release, MANIFEST)))
    change(release, SIGNATURE, joined(number, signed))


def trusting() -> Trust:
    return Trust(SIGNER.public_key().public_bytes_raw())


def test_a_signed_release_is_read_with_and_without_trust(release: Path) -> None:
    sign(release, 7)
    trust = trusting()
    assert read_release(release, trust).manifest == read_release(release).manifest
    assert trust.newest == 7
    read_release(release, trust)  # as often as one likes


def test_a_release_that_is_unsigned_forged_or_signed_for_something_else_is_refused(release: Path) -> None:
    trust = trusting()
    with pytest.raises(ReleaseError, match="is not signed"):
        read_release(release, trust)
    sign(release, 7)
    good = content(release, SIGNATURE)
    for bad in (b"", good[:-1], good + b"x", bytes(len(good)), bytes([good[0] ^ 1]) + good[1:]):
        change(release, SIGNATURE, bad)
        with pytest.raises(ReleaseError, match="is not signed"):
            read_release(release, trust)
    sign(release, 8, STRANGER)
    with pytest.raises(ReleaseError, match="is not signed"):
        read_release(release, trust)
    sign(release, 8, purpose="round")
    with pytest.raises(ReleaseError, match="is not signed"):
        read_release(release, trust)
    assert trust.newest == 0


def test_an_older_release_is_refused_after_a_newer_one(release: Path) -> None:
    trust = trusting()
    for number, is_taken in ((7, True), (6, False), (8, True), (7, False)):
        sign(release, number)
        if is_taken:
            read_release(release, trust)
        else:
            with pytest.raises(ReleaseError, match="is older than a release that was used here before"):
                read_release(release, trust)


def test_a_signed_manifest_vouches_for_every_byte_of_the_models(release: Path) -> None:
    sign(release, 7)
    data = bytearray(content(release, "encoder-acc.onnx"))
    data[len(data) // 2] ^= 1
    change(release, "encoder-acc.onnx", bytes(data))
    with pytest.raises(ReleaseError, match="is damaged"):
        read_release(release, trusting())


def test_reading_takes_memory_by_what_is_there_and_not_by_what_may_be(release: Path) -> None:
    tracemalloc.start()
    try:
        read_release(release)
        assert tracemalloc.get_traced_memory()[1] < 32_000_000
    finally:
        tracemalloc.stop()
