"""Files that are whole or absent: atomic, durable writes, and a store of blobs by content."""

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mekt import catalogue
from mekt.errors import SettingsError, StateError

if TYPE_CHECKING:
    from mekt.plan import BlobRef

log = logging.getLogger(__name__)


def write_atomically(path: Path, data: bytes, mode: int = 0o644, owner: int | None = None) -> None:
    """Give `path` the content `data`, wholly or not at all, durable when this returns; `mode` says who may read it.

    `owner` is the number of the user whose file it is to be, by default of whoever writes it; no other user can read
    or lead astray what is written, not even in a folder that is another's.

    Raises:
        StateError: when the disk is full or read-only; a former content is then still there.
    """
    # No other living thread on this machine has this number.
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    try:
        # What a crash or somebody else left there is not written to: it may be a link, or open to everybody.
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(temporary, flags, mode), "wb") as file:  # noqa: PTH123
            if owner is not None:
                os.fchown(file.fileno(), owner, -1)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def new_secret(path: Path) -> Iterator[BinaryIO]:
    """A file for a secret: one that was not there, and that nobody but its owner can read, at no moment.

    Whoever fails within leaves no file behind.

    Raises:
        SettingsError: when something of this name is there; it stays as it is, even a link that leads nowhere.
        StateError: when the disk does not take it.
    """
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")
    except FileExistsError as error:
        raise SettingsError(
            f"{path}: there is a file already, which may hold a secret; name another, or remove it",
            catalogue.SECRET_THERE,
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


def _unwritable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"{path}: cannot be written ({error.strerror}); free space or mend permissions", catalogue.of_disk(error)
    )


def make_folder(path: Path) -> Path:
    """`path` as a folder that is there, for its owner alone.

    Raises:
        StateError: when it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StateError(
            f"{path}: cannot be made a folder ({error.strerror}); choose another state folder", catalogue.of_disk(error)
        ) from error
    return path


class BlobStore:
    """Blobs in a folder, one file each, named by hash; a file that does not have its hash is removed when read."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)

    def put(self, data: bytes) -> "BlobRef":
        """Keep `data`; durable when this returns.

        Raises:
            StateError: when the disk is full or read-only.
        """
        # Only here, as it brings all of the wire along: not everybody who writes a file speaks to peers.
        from mekt.blobs import blob_ref

        ref = blob_ref(data)
        if self.get(ref) is None:
            write_atomically(self._path(ref), data)
        return ref

    def get(self, ref: "BlobRef") -> bytes | None:
        """The blob's bytes, or None when it is not here or was damaged.

        Raises:
            StateError: when the disk or its permissions do not let it be read.
        """
        path = self._path(ref)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(
                f"{path}: cannot be read ({error.strerror}); mend the disk or its permissions", catalogue.of_disk(error)
            ) from error
        if len(data) != ref.size_bytes or hashlib.sha256(data).digest() != ref.sha256:
            log.warning("%s: damaged, removed; it will be fetched or computed again", path)
            _remove(path)
            return None
        return data

    def keep_only(self, refs: frozenset[bytes]) -> None:
        """Remove every blob whose hash is not in `refs`, and what interrupted writes left. Nobody may `put` meanwhile.

        Raises:
            StateError: when one cannot be removed.
        """
        kept = {sha256.hex() for sha256 in refs}
        for path in self.folder.iterdir():
            if path.name not in kept:
                _remove(path)

    def _path(self, ref: "BlobRef") -> Path:
        return self.folder / ref.sha256.hex()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(
            f"{path}: cannot be removed ({error.strerror}); mend permissions", catalogue.of_disk(error)
        ) from error
