"""What a device keeps over a restart: how far it has come, its weights, its latest knowledge until it is delivered."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgpack

from mekt.errors import StateError, WireError
from mekt.files import BlobStore, write_atomically
from mekt.messages import Offer, unpack
from mekt.schema import Bounds, SchemaError, build, plain

SCHEMA = 1
Round = Annotated[int, Bounds(low=-1, high=2**31)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the device has come: the last rounds trained and delivered, -1 for none.

    `plan` names all that its model depends on: the plan, and the device's own choice of encoders.
    `offer` is the knowledge of round `trained`.
    """

    schema: int = SCHEMA
    plan: str = ""
    trained: Round = -1
    delivered: Round = -1
    offer: Offer | None = None


class Memory:
    """A device's state in `folder`. The file `progress` is the truth; what it does not name is removed."""

    def __init__(self, folder: Path) -> None:
        """Take up what is there.

        Raises:
            StateError: when it is damaged, of a newer Mekt, or cannot be read.
        """
        self.folder = folder
        self._path = folder / "progress"
        self.blobs = BlobStore(folder / "blobs")
        self.progress = self._read()
        self._tidy()

    def begin(self, plan: str) -> None:
        """Keep to the plan of this name; what belongs to another one is forgotten."""
        if self.progress.plan != plan:
            self._write(Progress(plan=plan))
            self._tidy()

    def weights(self) -> bytes | None:
        """The weights after the last round that was trained, or None before the first.

        Raises:
            StateError: when they cannot be read.
        """
        if self.progress.trained < 0:
            return None
        path = self._weights_path(self.progress.trained)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StateError(
                f"{path}: cannot be read ({error.strerror}); delete {self._path} to learn from the start"
            ) from error

    def trained(self, number: int, weights: bytes, offer: Offer) -> None:
        """Remember a round's result, whose blobs are kept already; durable when this returns.

        Raises:
            StateError: when the disk is full or read-only; the former state is then still there.
        """
        write_atomically(self._weights_path(number), weights)
        self._write(replace(self.progress, trained=number, offer=offer))
        self._tidy()

    def delivered(self, number: int) -> None:
        """Remember that a round's knowledge is durable on the coordinator, or refused for good."""
        self._write(replace(self.progress, delivered=number))

    def _read(self) -> Progress:
        try:
            data = unpack(self._path.read_bytes())
            if isinstance(data, dict) and isinstance(data.get("schema"), int) and data["schema"] > SCHEMA:
                raise StateError(f"{self._path}: schema {data['schema']} is of a newer Mekt than this; install that")
            return build(Progress, data)
        except FileNotFoundError:
            return Progress()
        except OSError as error:
            raise StateError(f"{self._path}: cannot be read ({error.strerror}); mend its permissions") from error
        except (WireError, SchemaError) as error:
            raise StateError(f"{self._path}: damaged ({error}); delete it to learn from the start") from error

    def _write(self, progress: Progress) -> None:
        packed: bytes = msgpack.packb(plain(progress))
        write_atomically(self._path, packed)
        self.progress = progress

    def _weights_path(self, number: int) -> Path:
        return self.folder / f"model-{number:05d}.weights"

    def _tidy(self) -> None:
        """Remove weights of other rounds, and what interrupted writes left; this process has the folder for itself."""
        for path in (*self.folder.glob("model-*.weights"), *self.folder.glob(".*.tmp")):
            if path != self._weights_path(self.progress.trained):
                with contextlib.suppress(OSError):  # a file too many does no harm
                    path.unlink(missing_ok=True)
