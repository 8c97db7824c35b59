"""The coordinator's memory on disk: which round it is, who takes part and who is out, what came, how rounds ended.

Each method is one transaction, durable when it returns. One thread at a time uses it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from coordinator.quarantine import Standing, Standings
from mekt import catalogue
from mekt.database import Database
from mekt.errors import StateError
from mekt.messages import REPORTS_KEPT, Devices, RoundReport
from mekt.plan import BlobRef
from mekt.schema import SchemaError, build, plain

T = TypeVar("T")

STEPS = (
    (
        "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "CREATE TABLE rounds (round INTEGER PRIMARY KEY, participants TEXT NOT NULL)",
        "CREATE TABLE deliveries (round INTEGER NOT NULL, device TEXT NOT NULL, windows INTEGER NOT NULL,"
        " knowledge TEXT NOT NULL, PRIMARY KEY (round, device))",
        "CREATE TABLE reports (round INTEGER PRIMARY KEY, report TEXT NOT NULL)",
        "INSERT INTO about VALUES ('run', lower(hex(randomblob(8))))",
    ),
    ("ALTER TABLE deliveries ADD COLUMN age INTEGER NOT NULL DEFAULT 0",),
    ("CREATE TABLE standings (device TEXT PRIMARY KEY, standing TEXT NOT NULL)",),
    (
        "CREATE TABLE said (round INTEGER NOT NULL, step TEXT NOT NULL, device TEXT NOT NULL, word BLOB NOT NULL,"
        " PRIMARY KEY (round, step, device))",
        "CREATE TABLE steps (round INTEGER NOT NULL, step TEXT NOT NULL, devices TEXT NOT NULL,"
        " PRIMARY KEY (round, step))",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What a device delivered for a round: the blobs of its knowledge per modality, and what weighs it.

    `age`: so many rounds ago the device learned what it delivered; 0 in this round.
    """

    device: str
    windows: int
    knowledge: Mapping[str, BlobRef]
    age: int = 0


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
        self._db = Database(path, STEPS)
        self.path = path
        try:
            self.run: str = self._about("run")
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
        self._db.execute("INSERT OR IGNORE INTO about VALUES ('plan', ?)", identity)
        known = self._about("plan")
        if known != identity:
            self.close()
            raise StateError(
                f"{self.path}: belongs to a federation with other modalities, windows, proxy set, seed or widths; "
                "restore those settings, or name another state folder",
                catalogue.STATE_OF_ANOTHER_PLAN,
            )

    @property
    def rounds_done(self) -> int:
        """How many rounds are over; the number of the round that is open or comes next."""
        row = self._db.row("SELECT max(round) FROM reports")
        return 0 if row is None or row[0] is None else int(row[0])

    def open_round(self, number: int, participants: Sequence[str]) -> None:
        """Remember that this round is open, for these devices; what was delivered for it stays."""
        self._db.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?)", number, json.dumps(list(participants)))

    def participants(self, number: int) -> tuple[str, ...] | None:
        """The devices of a round that was opened, or None."""
        row = self._db.row("SELECT participants FROM rounds WHERE round = ?", number)
        return None if row is None else self._built(_Participants, {"devices": self._parsed(row[0])}).devices

    def collected(self, number: int, devices: Sequence[str]) -> None:
        """Remember that this round is closed with what these devices delivered: from now on they alone took part."""
        self.open_round(number, devices)

    def deliver(self, number: int, delivery: Delivery) -> None:
        """Remember a delivery, whose blobs are durable already.

        A second one of the same device changes nothing, unless it is of what the device has learned since.
        """
        refs = {name: [ref.sha256.hex(), ref.size_bytes] for name, ref in sorted(delivery.knowledge.items())}
        self._db.execute(
            "INSERT INTO deliveries (round, device, windows, knowledge, age) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (round, device) DO UPDATE SET windows = excluded.windows, knowledge = excluded.knowledge,"
            " age = excluded.age WHERE excluded.age < age",
            *(number, delivery.device, delivery.windows, json.dumps(refs), delivery.age),
        )

    def withdraw(self, number: int, device: str) -> None:
        """Forget a delivery whose blobs were lost, so that the device is asked for it anew."""
        self._db.execute("DELETE FROM deliveries WHERE round = ? AND device = ?", number, device)

    def deliveries(self, number: int) -> tuple[Delivery, ...]:
        """What was delivered for a round, in order of device."""
        query = "SELECT device, windows, knowledge, age FROM deliveries WHERE round = ? ORDER BY device"
        return tuple(
            Delivery(device=device, windows=windows, knowledge=self._refs(knowledge), age=age)
            for device, windows, knowledge, age in self._db.rows(query, number)
        )

    def say(self, number: int, step: str, device: str, word: bytes) -> None:
        """Remember what a device said in a step of a round's secure sum, the first time it did."""
        self._db.execute("INSERT OR IGNORE INTO said VALUES (?, ?, ?, ?)", number, step, device, word)

    def said(self, number: int, step: str) -> dict[str, bytes]:
        """What devices said in a step, in order of device."""
        query = "SELECT device, word FROM said WHERE round = ? AND step = ? ORDER BY device"
        return {device: bytes(word) for device, word in self._db.rows(query, number, step)}

    def settle(self, number: int, step: str, devices: Sequence[str]) -> None:
        """Remember who took a step of a round's secure sum; that is never told otherwise."""
        self._db.execute("INSERT OR IGNORE INTO steps VALUES (?, ?, ?)", number, step, json.dumps(list(devices)))

    def settled(self, number: int) -> dict[str, tuple[str, ...]]:
        """Who took each step that is over, in the order in which they were settled."""
        rows = self._db.rows("SELECT step, devices FROM steps WHERE round = ? ORDER BY rowid", number)
        return {step: self._built(_Participants, {"devices": self._parsed(text)}).devices for step, text in rows}

    def report(self, report: RoundReport, standings: Standings | None = None) -> None:
        """Remember how the global encoders are after `report.round` rounds; the round before that number is over.

        With it the standings are those given, if any are; what was kept for rounds that are over, and reports that
        nobody will ask for, are forgotten.
        """
        number, text = report.round, json.dumps(plain(report), allow_nan=False)
        with self._db.transaction():
            self._db.execute("INSERT OR REPLACE INTO reports VALUES (?, ?)", number, text)
            self._db.execute("DELETE FROM reports WHERE round <= ?", number - REPORTS_KEPT)
            self._db.execute("DELETE FROM rounds WHERE round < ?", number)
            for table in ("deliveries", "said", "steps"):
                self._db.execute(f"DELETE FROM {table} WHERE round < ?", number)  # noqa: S608
            if standings is not None:
                self._db.execute("DELETE FROM standings")
                for device, each in standings.items():
                    self._db.execute("INSERT INTO standings VALUES (?, ?)", device, json.dumps(plain(each)))

    def standings(self) -> dict[str, Standing]:
        """Of each device that something can be said against, how it stands after the rounds that are over."""
        rows = self._db.rows("SELECT device, standing FROM standings ORDER BY device")
        return {device: self._built(Standing, self._parsed(text)) for device, text in rows}

    def reports(self) -> tuple[RoundReport, ...]:
        """The latest reports, in order of round."""
        rows = self._db.rows("SELECT report FROM reports ORDER BY round DESC LIMIT ?", REPORTS_KEPT)
        return tuple(self._built(RoundReport, self._parsed(text)) for (text,) in reversed(rows))

    def _refs(self, text: str) -> dict[str, BlobRef]:
        table = self._parsed(text)
        try:
            data = {name: {"sha256": bytes.fromhex(each[0]), "size_bytes": each[1]} for name, each in table.items()}
        except (AttributeError, TypeError, LookupError, ValueError) as error:
            self._db.damaged(error)
        return {name: self._built(BlobRef, each) for name, each in data.items()}

    def _built(self, cls: type[T], data: object) -> T:
        try:
            return build(cls, data)
        except SchemaError as error:
            self._db.damaged(error)

    def _parsed(self, text: Any) -> Any:
        try:
            return json.loads(text)
        except (TypeError, ValueError) as error:
            self._db.damaged(error)

    def _about(self, name: str) -> str:
        row = self._db.row("SELECT value FROM about WHERE name = ?", name)
        return str(row[0]) if row else self._db.damaged(f"no {name}")
