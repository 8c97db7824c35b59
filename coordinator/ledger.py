"""The coordinator's memory on disk: which round it is, who takes part, what was delivered, how earlier rounds ended.

An SQLite file; each method is one transaction, durable when it returns. One thread at a time uses it.
"""

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mekt.errors import StateError
from mekt.messages import REPORTS_KEPT, Devices, RoundReport
from mekt.plan import BlobRef
from mekt.schema import SchemaError, build, plain

T = TypeVar("T")

SCHEMA = 1
TABLES = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE rounds (round INTEGER PRIMARY KEY, participants TEXT NOT NULL)",
    "CREATE TABLE deliveries (round INTEGER NOT NULL, device TEXT NOT NULL, windows INTEGER NOT NULL,"
    " knowledge TEXT NOT NULL, PRIMARY KEY (round, device))",
    "CREATE TABLE reports (round INTEGER PRIMARY KEY, report TEXT NOT NULL)",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What a device delivered for a round: the blobs of its knowledge per modality, and the weight it has."""

    device: str
    windows: int
    knowledge: Mapping[str, BlobRef]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Participants:
    devices: Devices


class Ledger:
    """The file at `path`, made where it is missing. `run` is drawn when it is made."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            StateError: when it is damaged, of a newer Mekt, or cannot be written.
        """
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            self._fail(error)
        try:
            # EXTRA, because with FULL a power cut may bring back the journal, and with it undo what was committed.
            self._db.execute("PRAGMA synchronous = EXTRA")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise StateError(f"{path}: schema {version} is of a newer Mekt than this one ({SCHEMA}); install that")
            if version == 0:
                self._make()
            self.run: str = self._about("run")
        except (sqlite3.Error, TypeError) as error:
            self.close()
            self._fail(error)
        except StateError:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def adopt(self, identity: str) -> None:
        """Bind the file to the plan of this identity, for good.

        Raises:
            StateError: when it belongs to another.
        """
        try:
            self._db.execute("INSERT OR IGNORE INTO about VALUES ('plan', ?)", (identity,))
            known = self._about("plan")
        except (sqlite3.Error, TypeError) as error:
            self._fail(error)
        if known != identity:
            self.close()
            raise StateError(
                f"{self.path}: belongs to a federation with other modalities, windows, proxy set, seed or widths; "
                "restore those settings, or name another state folder"
            )

    @property
    def rounds_done(self) -> int:
        """How many rounds are over; the number of the round that is open or comes next."""
        row = self._row("SELECT max(round) FROM reports")
        return 0 if row is None or row[0] is None else int(row[0])

    def open_round(self, number: int, participants: Sequence[str]) -> None:
        """Remember that this round is open, for these devices; what was delivered for it stays."""
        self._execute("INSERT OR REPLACE INTO rounds VALUES (?, ?)", number, json.dumps(list(participants)))

    def participants(self, number: int) -> tuple[str, ...] | None:
        """The devices of a round that was opened, or None."""
        row = self._row("SELECT participants FROM rounds WHERE round = ?", number)
        return None if row is None else self._built(_Participants, {"devices": self._parsed(row[0])}).devices

    def collected(self, number: int, devices: Sequence[str]) -> None:
        """Remember that this round is closed with what these devices delivered: from now on they alone took part."""
        self.open_round(number, devices)

    def deliver(self, number: int, delivery: Delivery) -> None:
        """Remember a delivery, whose blobs are durable already; a second one of the same device changes nothing."""
        refs = {name: [ref.sha256.hex(), ref.size_bytes] for name, ref in sorted(delivery.knowledge.items())}
        self._execute(
            "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, ?)",
            number,
            delivery.device,
            delivery.windows,
            json.dumps(refs),
        )

    def withdraw(self, number: int, device: str) -> None:
        """Forget a delivery whose blobs were lost, so that the device is asked for it anew."""
        self._execute("DELETE FROM deliveries WHERE round = ? AND device = ?", number, device)

    def deliveries(self, number: int) -> tuple[Delivery, ...]:
        """What was delivered for a round, in order of device."""
        rows = self._rows("SELECT device, windows, knowledge FROM deliveries WHERE round = ? ORDER BY device", number)
        return tuple(
            Delivery(device=device, windows=windows, knowledge=self._refs(knowledge))
            for device, windows, knowledge in rows
        )

    def report(self, report: RoundReport) -> None:
        """Remember how the global encoders are after `report.round` rounds; the round before that number is over.

        What was kept for rounds that are over, and reports that nobody will ask for, are forgotten with it.
        """
        number, text = report.round, json.dumps(plain(report), allow_nan=False)
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("INSERT OR REPLACE INTO reports VALUES (?, ?)", (number, text))
                self._db.execute("DELETE FROM reports WHERE round <= ?", (number - REPORTS_KEPT,))
                self._db.execute("DELETE FROM rounds WHERE round < ?", (number,))
                self._db.execute("DELETE FROM deliveries WHERE round < ?", (number,))
        except sqlite3.Error as error:
            self._fail(error)

    def reports(self) -> tuple[RoundReport, ...]:
        """The latest reports, in order of round."""
        rows = self._rows("SELECT report FROM reports ORDER BY round DESC LIMIT ?", REPORTS_KEPT)
        return tuple(self._built(RoundReport, self._parsed(text)) for (text,) in reversed(rows))

    def _refs(self, text: str) -> dict[str, BlobRef]:
        table = self._parsed(text)
        try:
            data = {name: {"sha256": bytes.fromhex(each[0]), "size_bytes": each[1]} for name, each in table.items()}
        except (AttributeError, TypeError, LookupError, ValueError) as error:
            self._damaged(error)
        return {name: self._built(BlobRef, each) for name, each in data.items()}

    def _built(self, cls: type[T], data: object) -> T:
        try:
            return build(cls, data)
        except SchemaError as error:
            self._damaged(error)

    def _parsed(self, text: Any) -> Any:
        try:
            return json.loads(text)
        except (TypeError, ValueError) as error:
            self._damaged(error)

    def _damaged(self, error: Exception) -> NoReturn:
        raise StateError(f"{self.path}: a damaged entry ({error}); restore the file or start afresh") from error

    def _make(self) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in TABLES:
                self._db.execute(statement)
            self._db.execute("INSERT INTO about VALUES ('run', ?)", (secrets.token_hex(8),))
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def _about(self, name: str) -> str:
        return str(self._db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()[0])

    def _execute(self, statement: str, *values: Any) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            self._fail(error)

    def _row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        rows = self._rows(query, *values)
        return rows[0] if rows else None

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        raise StateError(
            f"{self.path}: cannot be used ({error}); free space, mend permissions, or restore it from a copy"
        ) from error
