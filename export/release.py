"""Releases on disk, as a wearable reads them: a folder with a manifest and the models that it names, nothing else.

Every byte is checked before it is used, and what was checked is what is used: the models come along in memory.
"""

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from export.manifest import LARGEST_MANIFEST_BYTES, MANIFEST, SIGNATURE, Manifest, unpack_manifest
from mekt import catalogue
from mekt.errors import ReleaseError
from mekt.identity import KeptTrust
from mekt.signature import SIGNATURE_BYTES, Refusal, Trust

AGAIN = "copy the release again from the coordinator"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release whose files all have the content that its manifest names; `models` holds them by file name."""

    path: Path
    manifest: Manifest
    models: Mapping[str, bytes]


def read_release(path: Path, trust: Trust | None = None) -> Release:
    """The release in folder `path`, every file of it verified; with `trust`, its signature too.

    Raises:
        ReleaseError: when the folder is missing, a file is missing, damaged, unknown or not a plain file, the
            release was written by a newer Mekt, or it is not signed or older than one that was read before.
    """
    try:
        if not path.is_dir():
            what = "is a file" if path.exists() else "is not there"
            raise ReleaseError(
                f"{path}: expected the folder of a release, it {what} (looked in {path.absolute().parent})",
                catalogue.RELEASE_MISSING,
            )
        there = {each.name for each in path.iterdir()}
    except OSError as error:
        raise ReleaseError(
            f"{path}: cannot be read ({error.strerror}); mend its permissions", catalogue.RELEASE_UNREADABLE
        ) from error
    if MANIFEST not in there:
        raise ReleaseError(
            f"{path}: has no {MANIFEST}, so it is no release; name the folder that holds one", catalogue.RELEASE_MISSING
        )
    packed = _content(path / MANIFEST, LARGEST_MANIFEST_BYTES)
    if trust is not None:
        signature = _content(path / SIGNATURE, SIGNATURE_BYTES) if SIGNATURE in there else b""
        _check_signature(path, trust.refusal("release", packed, signature))
    try:
        manifest = unpack_manifest(packed)
    except ReleaseError as error:
        raise ReleaseError(f"{path}: {error}", error.entry) from error
    unknown = sorted(there - {MANIFEST, SIGNATURE} - set(manifest.files))
    if unknown:
        raise ReleaseError(
            f"{path}: holds {unknown[0]!r}, which its manifest does not name; remove it, or {AGAIN}",
            catalogue.RELEASE_DAMAGED,
        )
    models: dict[str, bytes] = {}
    for name, entry in manifest.files.items():
        if name not in there:
            raise ReleaseError(f"{path}: {name} is missing; {AGAIN}", catalogue.RELEASE_DAMAGED)
        data = _content(path / name, entry.size_bytes)
        if len(data) != entry.size_bytes:
            raise ReleaseError(
                f"{path}: {name} has {len(data)} bytes instead of {entry.size_bytes}; {AGAIN}",
                catalogue.RELEASE_DAMAGED,
            )
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ReleaseError(
                f"{path}: {name} is damaged, its SHA-256 is not {entry.sha256[:12]}...; {AGAIN}",
                catalogue.RELEASE_DAMAGED,
            )
        models[name] = data
    return Release(path=path, manifest=manifest, models=models)


def read_trusted_release(path: Path, key: Path | None) -> Release:
    """The release in folder `path`, signed by the holder of the public key in this file, where one is named.

    No release is taken that is older than one that was taken before: that is remembered in a file beside the key.

    Raises:
        ReleaseError: as `read_release` does.
        SettingsError: when there is no such key.
        StateError: when what is remembered cannot be read or written.
    """
    if key is None:
        return read_release(path)
    kept = KeptTrust(key, key.with_name(f"{key.name}.newest-release"))
    release = read_release(path, kept.trust)
    kept.keep()
    return release


def _check_signature(path: Path, refusal: Refusal | None) -> None:
    match refusal:
        case "unsigned":
            raise ReleaseError(
                f"{path}: is not signed by this device's coordinator; {AGAIN}, or name another key with --trust",
                catalogue.RELEASE_UNSIGNED,
            )
        case "replayed":
            raise ReleaseError(
                f"{path}: is older than a release that was used here before; take the newest one from the coordinator",
                catalogue.RELEASE_REPLAYED,
            )
        case None:
            pass


def _content(path: Path, largest: int) -> bytes:
    """The bytes of a plain file of at most `largest` bytes."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise ReleaseError(f"{path}: not a plain file; {AGAIN}", catalogue.RELEASE_DAMAGED)
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise ReleaseError(
            f"{path}: cannot be read ({error.strerror}); mend the disk or its permissions", catalogue.RELEASE_UNREADABLE
        ) from error
    if len(data) > largest:
        raise ReleaseError(f"{path}: has more than {largest} bytes; {AGAIN}", catalogue.RELEASE_DAMAGED)
    return data
