"""Releases as a wearable reads them: one file, in it a manifest and the models that it names, nothing else.

Every byte is checked before it is used, and what was checked is what is used: the models come along in memory.
"""

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.bundle import unpack
from export.manifest import LARGEST_RELEASE_BYTES, MANIFEST, SIGNATURE, Manifest, unpack_manifest
from mekt import catalogue
from mekt.errors import ReleaseError

if TYPE_CHECKING:
    from mekt.signature import Refusal, Trust

AGAIN = "copy the release again from the coordinator"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release whose files all have the content that its manifest names; `models` holds them by file name."""

    path: Path
    manifest: Manifest
    models: Mapping[str, bytes]


def read_release(path: Path, trust: "Trust | None" = None) -> Release:
    """The release in the file `path`, every byte of it verified; with `trust`, its signature too.

    Raises:
        ReleaseError: when there is no such file, or as `open_release` does.
    """
    return open_release(_content(path), path, trust)


def open_release(raw: bytes, path: Path, trust: "Trust | None" = None) -> Release:
    """The release in these bytes; `path` is what messages call it.

    Raises:
        ReleaseError: when it is none, a file of it is missing, damaged or unknown, it was written by a newer Mekt, or
            it is not signed or older than one that was read before.
    """
    try:
        files = unpack(raw)
        packed = files.pop(MANIFEST, b"")
        signature = files.pop(SIGNATURE, b"")
        if trust is not None:
            _check_signature(trust.refusal("release", packed, signature))
        manifest = unpack_manifest(packed)
        _check_files(manifest, files)
    except ReleaseError as error:
        raise ReleaseError(f"{path}: {error}", error.entry) from error
    return Release(path=path, manifest=manifest, models=files)


def read_trusted_release(path: Path, key: Path | None) -> Release:
    """The release in the file `path`, signed by the holder of the public key in this file, where one is named.

    No release is taken that is older than one that was taken before: that is remembered in a file beside the key.

    Raises:
        ReleaseError: as `read_release` does.
        SettingsError: when there is no such key.
        StateError: when what is remembered cannot be read or written.
    """
    if key is None:
        return read_release(path)
    # Only here, as it brings a connection's parts along, which a wearable without a key does without.
    from mekt.identity import KeptTrust

    kept = KeptTrust(key, key.with_name(f"{key.name}.newest-release"))
    release = read_release(path, kept.trust)
    kept.keep()
    return release


def _check_files(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Whether these are the manifest's files, no more and no fewer, each with its content."""
    if unknown := sorted(set(files) - set(manifest.files)):
        raise ReleaseError(
            f"holds {unknown[0]!r}, which its manifest does not name; {AGAIN}", catalogue.RELEASE_DAMAGED
        )
    for name, entry in manifest.files.items():
        if name not in files:
            raise ReleaseError(f"{name} is missing; {AGAIN}", catalogue.RELEASE_DAMAGED)
        data = files[name]
        if len(data) != entry.size_bytes:
            raise ReleaseError(
                f"{name} has {len(data)} bytes instead of {entry.size_bytes}; {AGAIN}", catalogue.RELEASE_DAMAGED
            )
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ReleaseError(
                f"{name} is damaged, its SHA-256 is not {entry.sha256[:12]}...; {AGAIN}", catalogue.RELEASE_DAMAGED
            )


def _check_signature(refusal: "Refusal | None") -> None:
    match refusal:
        case "unsigned":
            raise ReleaseError(
                f"is not signed by this device's coordinator; {AGAIN}, or name another key with --trust",
                catalogue.RELEASE_UNSIGNED,
            )
        case "replayed":
            raise ReleaseError(
                "is older than a release that was used here before; take the newest one from the coordinator",
                catalogue.RELEASE_REPLAYED,
            )
        case None:
            pass


def _content(path: Path) -> bytes:
    """The bytes of a release's file."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "is a folder" if stat.S_ISDIR(mode) else "is not a plain file"
            raise ReleaseError(f"{path}: expected the file of a release, it {what}", catalogue.RELEASE_MISSING)
        with path.open("rb") as file:
            data = file.read(LARGEST_RELEASE_BYTES + 1)
    except FileNotFoundError as error:
        raise ReleaseError(
            f"{path}: expected the file of a release, it is not there (looked in {path.absolute().parent})",
            catalogue.RELEASE_MISSING,
        ) from error
    except OSError as error:
        raise ReleaseError(
            f"{path}: cannot be read ({error.strerror}); mend the disk or its permissions", catalogue.RELEASE_UNREADABLE
        ) from error
    if len(data) > LARGEST_RELEASE_BYTES:
        raise ReleaseError(f"{path}: has more than {LARGEST_RELEASE_BYTES} bytes; {AGAIN}", catalogue.RELEASE_DAMAGED)
    return data
