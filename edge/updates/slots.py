"""A wearable's releases on its disk, and the record of which of them runs: whole at every moment, whenever power goes.

In the state folder lie `updates`, the record, and `releases/`, the files that it names, by their hash: the one that
runs, the last good one, and one that has arrived. The record is replaced in one step, and that is the swap: a file is
there before the record names it, and goes after the record names it no more. What was verified when it arrived is
known by its hash from then on; a file that has another one is as good as gone.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import msgpack

from edge.updates.machine import Updates
from export.release import Release, open_release
from mekt import catalogue
from mekt.errors import ReleaseError, StateError, WireError
from mekt.files import BlobStore, make_folder, write_atomically
from mekt.messages import unpack
from mekt.plan import BlobRef
from mekt.schema import Count, SchemaError, build, plain
from mekt.signature import Trust

log = logging.getLogger(__name__)

RECORD, RELEASES = "updates", "releases"
SCHEMA = 1
LARGEST_RECORD_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    schema: Count = SCHEMA
    state: Updates


class Slots:
    """The releases in `folder`, and `state`, the record about them. One process has the folder, one thread this."""

    def __init__(self, folder: Path) -> None:
        """Take up what is there. Where the record is damaged, the oldest release that is there is the one to run.

        Raises:
            StateError: when it cannot be read, or is of a newer Mekt.
        """
        self._path = make_folder(folder) / RECORD
        self._store = BlobStore(folder / RELEASES)
        self.state = self._read()

    def keep(self, state: Updates) -> None:
        """Have this state on the disk, and no file that it does not need.

        Raises:
            StateError: when the disk does not take it; the former state is then still there.
        """
        if state != self.state:
            packed = msgpack.packb(plain(_Record(state=state)))
            write_atomically(self._path, hashlib.sha256(packed).digest() + packed)
            self.state = state
        self.clean()

    def clean(self) -> None:
        """Remove what the state does not need."""
        try:
            self._store.keep_only(frozenset(ref.sha256 for ref in self.state.kept))
        except (StateError, OSError) as error:
            # A file too many does no harm; what has to be written will say what is wrong with the disk.
            log.warning("a release that is not needed any more stays: %s", error)

    def put(self, raw: bytes, trust: Trust | None) -> Release:
        """Verify a release that has arrived, and have its file on the disk.

        Raises:
            ReleaseError: when it is none, or not signed by whom is trusted.
            StateError: when the disk does not take it.
        """
        ref = BlobRef(sha256=hashlib.sha256(raw).digest(), size_bytes=len(raw))
        release = open_release(raw, self.path(ref), trust)
        self._store.put(raw)
        return release

    def read(self, ref: BlobRef) -> Release | None:
        """A release that was verified when it arrived, or None when its file is not that any more."""
        try:
            raw = self._store.get(ref)
            return None if raw is None else open_release(raw, self.path(ref))
        except (ReleaseError, StateError) as error:
            log.error("a release cannot be used any more: %s", error)
            return None

    def path(self, ref: BlobRef) -> Path:
        """The file of a release."""
        return self._store.folder / ref.sha256.hex()

    # The record

    def _read(self) -> Updates:
        try:
            with self._path.open("rb") as file:
                raw = file.read(LARGEST_RECORD_BYTES + 1)
        except FileNotFoundError:
            return self._recovered("is not there") if any(self._store.folder.iterdir()) else Updates()
        except OSError as error:
            raise StateError(
                f"{self._path}: cannot be read ({error.strerror}); mend the disk or its permissions",
                catalogue.of_disk(error),
            ) from error
        digest, packed = raw[:32], raw[32:]
        if hashlib.sha256(packed).digest() != digest:
            return self._recovered("is damaged")
        try:
            data = unpack(packed)
            if isinstance(data, dict) and isinstance(data.get("schema"), int) and data["schema"] > SCHEMA:
                raise StateError(
                    f"{self._path}: schema {data['schema']} is of a newer Mekt than this one ({SCHEMA}); install that",
                    catalogue.STATE_NEWER,
                )
            return build(_Record, data).state
        except (WireError, SchemaError) as error:
            return self._recovered(f"is damaged ({error})")

    def _recovered(self, why: str) -> Updates:
        """The state where nothing but the files is known: the oldest release has proved good, others perhaps not yet.

        The newest rollout will be announced again.
        """
        found: list[tuple[int, bytes, BlobRef]] = []
        for path in self._store.folder.iterdir():
            ref = _ref_of(path)
            release = None if ref is None else self.read(ref)
            if ref is not None and release is not None:
                found.append((release.manifest.round, ref.sha256, ref))
        running = min(found)[2] if found else None
        log.error("%s %s; of the %d releases beside it the oldest is run", self._path, why, len(found))
        return Updates(running=running)


def _ref_of(path: Path) -> BlobRef | None:
    """What a file in the store is called after, if it is a release's."""
    try:
        return BlobRef(sha256=bytes.fromhex(path.name), size_bytes=path.stat().st_size)
    except (ValueError, OSError):
        return None
