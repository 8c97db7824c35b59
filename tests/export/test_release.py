"""A folder is a release with every byte in its place, or it is refused."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from export.manifest import LARGEST_MANIFEST_BYTES, MANIFEST, SIGNATURE, FileEntry, pack_manifest
from export.release import read_release
from mekt.errors import ReleaseError
from mekt.signature import Purpose, Trust, joined, to_sign
from tests.export.small import ACC, GYRO, parts_of
from tests.export.test_manifest import MANIFEST as WELL_FORMED
from tests.export.test_manifest import sealed


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "ward-3-00007"
    parts_of(ACC, GYRO).write(path)
    return path


@pytest.fixture
def release(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / written.name))


def test_a_release_comes_with_its_manifest_and_the_bytes_of_its_models(release: Path) -> None:
    read = read_release(release)
    assert read.path == release
    assert [each.name for each in read.manifest.modalities] == ["acc", "gyro"]
    assert dict(read.models) == {path.name: path.read_bytes() for path in release.iterdir() if path.name != MANIFEST}
    assert len(read.models) == 5


def test_any_changed_bit_of_any_file_is_found(tmp_path: Path) -> None:
    contents = {name: hashlib.sha256(name.encode()).digest()[:9] for name in WELL_FORMED.files}
    entries = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=9) for name, data in contents.items()
    }
    contents[MANIFEST] = pack_manifest(replace(WELL_FORMED, files=entries))
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    assert len(read_release(tmp_path).models) == 3
    for name, data in contents.items():
        # Of the manifest, whose every bit has its own test, some here and there.
        for bit in range(0, 8 * len(data), 67 if name == MANIFEST else 1):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(changed)
            with pytest.raises(ReleaseError):
                read_release(tmp_path)
        (tmp_path / name).write_bytes(data)
    assert len(read_release(tmp_path).models) == 3


def test_a_changed_byte_anywhere_in_a_real_model_is_found(release: Path) -> None:
    for path in sorted(release.glob("*.onnx")):
        data = path.read_bytes()
        for position in {0, 1, len(data) // 3, len(data) // 2, len(data) - 2, len(data) - 1}:
            path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
            with pytest.raises(ReleaseError, match=rf"{path.name} is damaged.*copy the release again"):
                read_release(release)
        path.write_bytes(data)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\x00", lambda data: b""])
def test_a_model_of_another_length_is_found(release: Path, change: Callable[[bytes], bytes]) -> None:
    path = release / "encoder-acc.onnx"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ReleaseError, match=r"encoder-acc\.onnx.* bytes"):
        read_release(release)


def test_a_missing_model_is_named(release: Path) -> None:
    (release / "classifier-acc.onnx").unlink()
    with pytest.raises(ReleaseError, match=r"classifier-acc\.onnx is missing; copy the release again"):
        read_release(release)


def test_models_that_were_swapped_are_found(release: Path) -> None:
    one, other = release / "encoder-acc.onnx", release / "encoder-gyro.onnx"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    with pytest.raises(ReleaseError, match=r"encoder-\w+\.onnx"):
        read_release(release)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "encoder-mag.onnx", "encoder-acc.onnx.data"])
def test_a_file_that_the_manifest_does_not_name_is_refused(release: Path, name: str) -> None:
    (release / name).write_bytes(b"")
    with pytest.raises(ReleaseError, match=f"holds '{name}', which its manifest does not name; remove it"):
        read_release(release)


def test_a_folder_within_is_refused(release: Path) -> None:
    (release / "more").mkdir()
    with pytest.raises(ReleaseError, match="holds 'more'"):
        read_release(release)


@pytest.mark.parametrize("name", [MANIFEST, "encoder-acc.onnx"])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(release: Path, name: str) -> None:
    aside = release.parent / "aside"
    shutil.move(release / name, aside)
    for make in (lambda path: path.symlink_to(aside), os.mkfifo, Path.mkdir):
        make(release / name)
        with pytest.raises(ReleaseError, match=rf"{name}: not a plain file"):
            read_release(release)
        if (release / name).is_dir() and not (release / name).is_symlink():
            (release / name).rmdir()
        else:
            (release / name).unlink()


def test_a_path_in_the_manifest_never_leaves_the_folder(release: Path) -> None:
    secret = release.parent / "secret.onnx"
    shutil.move(release / "encoder-acc.onnx", secret)
    text = (release / MANIFEST).read_text().replace("encoder-acc.onnx", "../secret.onnx")
    (release / MANIFEST).write_text(text)
    with pytest.raises(ReleaseError, match="expected text like"):
        read_release(release)


def test_what_is_no_release_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="it is not there"):
        read_release(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReleaseError, match="it is a file"):
        read_release(tmp_path / "file")
    with pytest.raises(ReleaseError, match=f"has no {MANIFEST}, so it is no release"):
        read_release(tmp_path)


def test_a_manifest_larger_than_any_is_not_read_whole(release: Path) -> None:
    os.truncate(release / MANIFEST, 1 << 40)
    with pytest.raises(ReleaseError, match=f"more than {LARGEST_MANIFEST_BYTES} bytes"):
        read_release(release)


def test_a_model_larger_than_its_entry_is_not_read_whole(release: Path) -> None:
    os.truncate(release / "encoder-acc.onnx", 1 << 40)
    with pytest.raises(ReleaseError, match=r"encoder-acc\.onnx: has more than \d+ bytes"):
        read_release(release)


def test_a_release_of_a_newer_mekt_says_so(release: Path) -> None:
    (release / MANIFEST).write_bytes(sealed({"format": 2}))
    with pytest.raises(ReleaseError, match=rf"{release.name}: {MANIFEST}: format 2 is newer.*install a newer Mekt"):
        read_release(release)


# Signatures


SIGNER, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))


def sign(release: Path, number: int, by: Ed25519PrivateKey = SIGNER, purpose: Purpose = "release") -> None:
    signed = by.sign(to_sign(purpose, number, (release / MANIFEST).read_bytes()))
    (release / SIGNATURE).write_bytes(joined(number, signed))


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
    good = (release / SIGNATURE).read_bytes()
    for bad in (b"", good[:-1], bytes(len(good)), bytes([good[0] ^ 1]) + good[1:]):
        (release / SIGNATURE).write_bytes(bad)
        with pytest.raises(ReleaseError, match="is not signed"):
            read_release(release, trust)
    (release / SIGNATURE).write_bytes(good + b"x")
    with pytest.raises(ReleaseError, match="more than 72 bytes"):
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
    model = next(path for path in release.iterdir() if path.suffix == ".onnx")
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(ReleaseError, match="is damaged"):
        read_release(release, trusting())
