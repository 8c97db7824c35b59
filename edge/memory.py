"""What a device keeps over a restart: how far it has come, its weights, and an outbox of what it made for the rounds.

One SQLite file; each method is one transaction, durable when it returns. One thread at a time uses it.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

from mekt import catalogue
from mekt.blobs import blob_ref
from mekt.database import DamagedStateError, Database, digest
from mekt.errors import StateError, WireError
from mekt.files import BlobStore
from mekt.messages import Learning, Offer, unpack
from mekt.modality import ModalityName
from mekt.plan import BlobRef
from mekt.schema import Bounds, Count, SchemaError, build, plain

log = logging.getLogger(__name__)

FILE = "device.sqlite"
STEPS = (
    (
        "CREATE TABLE progress (plan TEXT NOT NULL, trained INTEGER NOT NULL, delivered INTEGER NOT NULL,"
        " digest BLOB NOT NULL)",
        "CREATE TABLE model (sha256 BLOB NOT NULL, weights BLOB NOT NULL)",
        "CREATE TABLE offers (round INTEGER PRIMARY KEY, windows INTEGER NOT NULL, metrics TEXT NOT NULL,"
        " digest BLOB NOT NULL)",
        "CREATE TABLE knowledge (round INTEGER NOT NULL, modality TEXT NOT NULL, sha256 BLOB NOT NULL,"
        " data BLOB NOT NULL, PRIMARY KEY (round, modality))",
    ),
    ("CREATE TABLE spending (cost REAL NOT NULL, digest BLOB NOT NULL)",),
    ("CREATE TABLE secret (round INTEGER NOT NULL, content BLOB NOT NULL, digest BLOB NOT NULL)",),
)
Round = Annotated[int, Bounds(low=-1, high=2**31)]
LARGEST_OUTBOX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the device has come: the last rounds trained and delivered, -1 for none.

    `plan` names all that its model depends on: the plan, and the device's own choice of encoders.
    """

    plan: str = ""
    trained: Round = -1
    delivered: Round = -1


def _digest(number: int, windows: int, metrics: str, refs: Mapping[str, BlobRef]) -> bytes:
    """Of all that an offer says."""
    return digest(number, windows, metrics, *((name, ref.sha256) for name, ref in sorted(refs.items())))


def _sayable(metrics: Mapping[str, float]) -> dict[Learning, float]:
    """What an offer may say of these: an earlier Mekt may have kept others, which no coordinator takes any more."""
    names: tuple[Learning, ...] = get_args(Learning)
    return {name: metrics[name] for name in names if name in metrics}


class Memory:
    """A device's state in `folder`: the file `device.sqlite`, and blobs that were fetched and can be fetched again.

    Knowledge is kept when it has been delivered, too: a coordinator that went back to a copy of its state asks for it
    anew. Beyond `most_bytes` of it the oldest round goes first. What a privacy budget has paid for is never forgotten,
    whatever else is: `spent` is the sum of all costs since the file was made.
    """

    def __init__(self, folder: Path, most_bytes: int = LARGEST_OUTBOX_BYTES, *, keeps_budget: bool = False) -> None:
        """Take up what is there. A damaged file is put aside, and the device begins anew: no round depends on one.

        Raises:
            StateError: when it is of a newer Mekt, or cannot be read or written; where it `keeps_budget` also when it
                is damaged, as nobody would know then how much is spent.
        """
        self.folder = folder
        self._most_bytes = most_bytes
        self.spent = 0.0
        self.blobs = BlobStore(folder / "blobs")
        try:
            self._db = Database(folder / FILE, STEPS)
            self.progress, self.spent = self._read(), self._read_spent()
        except DamagedStateError as error:
            if keeps_budget:
                raise StateError(
                    f"{folder / FILE}: damaged, and with it how much of the privacy budget is spent ({error}); restore "
                    "the file from a copy, or remove it if what was shown before shall not count",
                    catalogue.BUDGET_LOST,
                ) from error
            self.start_afresh(error)
        self._adopt_files()

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def begin(self, plan: str) -> None:
        """Keep to the plan of this name; what belongs to another one is forgotten."""
        if self.progress.plan == plan:
            return
        with self._db.transaction():
            for table in ("model", "offers", "knowledge", "secret"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608
            self._write(Progress(plan=plan))
        self.progress = Progress(plan=plan)

    def weights(self) -> bytes | None:
        """The weights after the last round that was trained, or None before the first.

        Raises:
            DamagedStateError: when they are not those that were kept.
        """
        row = self._db.row("SELECT sha256, weights FROM model")
        if row is None:
            return None
        sha256, weights = row
        if hashlib.sha256(weights).digest() != sha256:
            self._db.damaged("the model's weights")
        return bytes(weights)

    def trained(
        self,
        number: int,
        weights: bytes,
        knowledge: Mapping[str, bytes],
        windows: int,
        metrics: Mapping[Learning, float],
        cost: float = 0.0,
    ) -> None:
        """Remember a round's result, and what it costs to show it: both or neither, before anybody can see it.

        Raises:
            StateError: when the disk is full or read-only; the former state is then still there.
        """
        progress = replace(self.progress, trained=number)
        with self._db.transaction():
            self._db.execute("DELETE FROM model")
            self._db.execute("INSERT INTO model VALUES (?, ?)", hashlib.sha256(weights).digest(), weights)
            self._write(progress)
            self._put(number, knowledge, windows, json.dumps(dict(metrics), allow_nan=False))
            self._make_room(number)
            if cost:
                self._write_spent(self.spent + cost)
        self.progress, self.spent = progress, self.spent + cost

    def recalled(self, number: int, knowledge: Mapping[str, bytes]) -> None:
        """Put knowledge that was lost back to what is known about its round."""
        windows, metrics = self._db.row("SELECT windows, metrics FROM offers WHERE round = ?", number) or (1, "{}")
        with self._db.transaction():
            self._put(number, knowledge, windows, metrics)

    def delivered(self, number: int) -> None:
        """Remember that a round's knowledge is durable on the coordinator, or refused for good."""
        progress = replace(self.progress, delivered=number)
        with self._db.transaction():
            self._write(progress)
        self.progress = progress

    def rounds(self) -> frozenset[int]:
        """The rounds whose knowledge is in the outbox."""
        return frozenset(number for (number,) in self._db.rows("SELECT round FROM offers"))

    def offer(self, number: int) -> Offer | None:
        """The offer of a round whose knowledge is here whole, byte for byte; None otherwise."""
        row = self._db.row("SELECT windows, metrics, digest FROM offers WHERE round = ?", number)
        if row is None:
            return None
        windows, metrics, kept_digest = row
        rows = self._db.rows("SELECT modality, data FROM knowledge WHERE round = ? ORDER BY modality", number)
        refs = {modality: blob_ref(data) for modality, data in rows}
        if kept_digest != _digest(number, windows, metrics, refs):
            log.warning("round %d: what is kept of its knowledge is damaged", number + 1)
            return None
        sayable = _sayable(json.loads(metrics))
        return build(Offer, {"knowledge": plain(refs), "windows": windows, "metrics": sayable})

    def knowledge(self, ref_sha256: bytes) -> bytes | None:
        """The bytes of knowledge with this hash, of any round, or None."""
        row = self._db.row("SELECT data FROM knowledge WHERE sha256 = ?", ref_sha256)
        data = bytes(row[0]) if row else None
        return data if data is not None and hashlib.sha256(data).digest() == ref_sha256 else None

    def secret(self, number: int) -> bytes | None:
        """What is kept of a round's secure sum, or None.

        Raises:
            DamagedStateError: when it is not what was kept.
        """
        row = self._db.row("SELECT content, digest FROM secret WHERE round = ?", number)
        if row is None:
            return None
        content = bytes(row[0])
        if digest(number, content) != row[1]:
            self._db.damaged("the secret of a round")
        return content

    def keep_secret(self, number: int, content: bytes) -> None:
        """Remember this of a round's secure sum, in place of what was kept of any."""
        with self._db.transaction():
            self._db.execute("DELETE FROM secret")
            self._db.execute("INSERT INTO secret VALUES (?, ?, ?)", number, content, digest(number, content))

    def start_afresh(self, why: Exception) -> None:
        """Put the damaged file aside and begin with nothing.

        Raises:
            StateError: when that cannot be done.
        """
        if hasattr(self, "_db"):
            self._db.close()
        path = self.folder / FILE
        aside = path.with_suffix(".damaged")
        log.error("%s; it is put aside as %s, and this device learns from the start", why, aside.name)
        try:
            path.replace(aside)
            path.with_name(f"{FILE}-journal").unlink(missing_ok=True)
        except OSError as error:
            raise StateError(
                f"{path}: damaged, but cannot be put aside ({error.strerror}); remove it", catalogue.of_disk(error)
            ) from error
        self._db = Database(path, STEPS)
        self.progress = self._read()
        if self.spent:
            # It was read before the damage was found.
            self._write_spent(self.spent)

    def _read_spent(self) -> float:
        row = self._db.row("SELECT cost, digest FROM spending")
        if row is None:
            return 0.0
        if digest(row[0]) != row[1]:
            self._db.damaged("what is spent of the privacy budget")
        return float(row[0])

    def _write_spent(self, cost: float) -> None:
        self._db.execute("DELETE FROM spending")
        self._db.execute("INSERT INTO spending VALUES (?, ?)", cost, digest(cost))

    def _read(self) -> Progress:
        row = self._db.row("SELECT plan, trained, delivered, digest FROM progress")
        if row is None:
            return Progress()
        if digest(*row[:3]) != row[3]:
            self._db.damaged("the progress")
        return build(Progress, {"plan": row[0], "trained": row[1], "delivered": row[2]})

    def _write(self, progress: Progress) -> None:
        values = (progress.plan, progress.trained, progress.delivered)
        self._db.execute("DELETE FROM progress")
        self._db.execute("INSERT INTO progress VALUES (?, ?, ?, ?)", *values, digest(*values))

    def _put(self, number: int, knowledge: Mapping[str, bytes], windows: int, metrics: str) -> None:
        refs = {modality: blob_ref(data) for modality, data in sorted(knowledge.items())}
        kept_digest = _digest(number, windows, metrics, refs)
        self._db.execute("INSERT OR REPLACE INTO offers VALUES (?, ?, ?, ?)", number, windows, metrics, kept_digest)
        self._db.execute("DELETE FROM knowledge WHERE round = ?", number)
        for modality, data in knowledge.items():
            values = (number, modality, refs[modality].sha256, data)
            self._db.execute("INSERT INTO knowledge VALUES (?, ?, ?, ?)", *values)

    def _make_room(self, newest: int) -> None:
        """Drop the oldest rounds while the outbox is too large; the newest stays in any case."""
        rows = self._db.rows("SELECT round, sum(length(data)) FROM knowledge GROUP BY round ORDER BY round")
        size_bytes, delivered = sum(size for _, size in rows), self.progress.delivered
        for number, size in rows:
            if size_bytes <= self._most_bytes or number == newest:
                break
            size_bytes -= size
            for table in ("offers", "knowledge"):
                self._db.execute(f"DELETE FROM {table} WHERE round = ?", number)  # noqa: S608
            if number > delivered:
                log.warning("round %d: dropped from the full outbox; it was never delivered", number + 1)

    # The files in which a device kept all this before there was a database

    def _adopt_files(self) -> None:
        """Take over the state of an earlier Mekt: the files `progress`, `model-N.weights` and blobs of knowledge."""
        path = self.folder / "progress"
        models = list(self.folder.glob("model-*.weights"))
        try:
            raw = path.read_bytes() if path.exists() else None
            if raw is not None and self.progress == Progress():
                self._take_over(raw)
            for each in (path, *models, *self.folder.glob(".*.tmp")):
                each.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(
                f"{path}: cannot be taken over ({error.strerror}); mend its permissions", catalogue.of_disk(error)
            ) from error

    def _take_over(self, raw: bytes) -> None:
        try:
            former = build(_FormerProgress, unpack(raw))
        except (WireError, SchemaError) as error:
            log.error("progress: damaged (%s); this device learns from the start", error)
            return
        weights = None
        with contextlib.suppress(FileNotFoundError):
            weights = (self.folder / f"model-{former.trained:05d}.weights").read_bytes()
        refs = former.offer.knowledge if former.offer else {}
        found = {name: self.blobs.get(ref) for name, ref in refs.items()}
        knowledge = {name: data for name, data in found.items() if data is not None}
        self.begin(former.plan)
        if weights is not None and former.offer is not None:
            self.trained(former.trained, weights, knowledge, former.offer.windows, _sayable(former.offer.metrics))
            if len(knowledge) < len(refs):
                # Not whole: what is there may not pass for all of it.
                self._db.execute("UPDATE offers SET digest = x''")
            self.delivered(former.delivered)


@dataclass(frozen=True, kw_only=True, slots=True)
class _FormerOffer:
    """An offer in that file."""

    knowledge: Annotated[dict[ModalityName, BlobRef], Bounds(shortest=1, longest=16)]
    windows: Count
    metrics: Annotated[dict[str, float], Bounds(longest=64)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _FormerProgress:
    """The file `progress` of schema 1."""

    schema: Annotated[int, Bounds(low=1, high=1)]
    plan: str
    trained: Round
    delivered: Round
    offer: _FormerOffer | None = None
