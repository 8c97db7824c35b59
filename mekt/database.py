"""State in an SQLite file: made or brought up to date, every transaction durable, every fault one error."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mekt import catalogue
from mekt.errors import StateError

# What SQLite says of a file that is none of its own, or whose pages do not fit together.
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# What it says where the system refuses; by the lower byte, as below.
REFUSALS = {
    sqlite3.SQLITE_FULL: catalogue.DISK_FULL,
    sqlite3.SQLITE_READONLY: catalogue.DISK_FORBIDDEN,
    sqlite3.SQLITE_PERM: catalogue.DISK_FORBIDDEN,
    sqlite3.SQLITE_CANTOPEN: catalogue.DISK_FORBIDDEN,
    sqlite3.SQLITE_BUSY: catalogue.STATE_IN_USE,
    sqlite3.SQLITE_LOCKED: catalogue.STATE_IN_USE,
    sqlite3.SQLITE_IOERR: catalogue.DISK_FAULTY,
}
# Where a damaged file lets text be none, Python stumbles over it, in an error's message too.
FAULTS = (sqlite3.Error, UnicodeDecodeError)
# How long another process may take over what it writes: a coordinator waits for a person's command on a slow disk.
PATIENCE_S = 60.0


def digest(*values: object) -> bytes:
    """A hash of plain values, kept beside them: SQLite does not notice when bytes within an entry change."""
    return hashlib.sha256(repr(values).encode()).digest()


class DamagedStateError(StateError):
    """What is kept is not what was written. Who can do without it begins anew; who cannot ends with this."""


class Database:
    """The file at `path`, made where it is missing. One thread at a time uses it."""

    def __init__(self, path: Path, steps: Sequence[Sequence[str]]) -> None:
        """Open the file, and bring it from whatever schema it has to the newest.

        Args:
            path: of the file; its folder is there.
            steps: the statements that lead from each schema to the next; the first ones make schema 1 out of nothing.

        Raises:
            DamagedStateError: when it is no such file, or a damaged one.
            StateError: when it is of a newer Mekt, or cannot be read or written.
        """
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
        except FAULTS as error:
            self._fail(error)
        try:
            self._prepare(steps)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done in the block becomes durable together when it ends, and none of it when it raises.

        Raises:
            StateError: when the disk does not take it; the former state is then still there.
        """
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield
        except FAULTS as error:
            self._fail(error)

    def execute(self, statement: str, *values: Any) -> None:
        """Do one thing; outside of a transaction it is durable when this returns.

        Raises:
            StateError: when the disk does not take it.
        """
        try:
            self._db.execute(statement, values)
        except FAULTS as error:
            self._fail(error)

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of the answer, or None."""
        rows = self.rows(query, *values)
        return rows[0] if rows else None

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of the answer.

        Raises:
            StateError: when the file cannot be read.
        """
        try:
            return self._db.execute(query, values).fetchall()
        except FAULTS as error:
            self._fail(error)

    def damaged(self, what: object) -> NoReturn:
        """What was read cannot be what was written.

        Raises:
            DamagedStateError: always.
        """
        raise DamagedStateError(
            f"{self.path}: a damaged entry ({what}); restore the file or start afresh", catalogue.STATE_DAMAGED
        )

    def _prepare(self, steps: Sequence[Sequence[str]]) -> None:
        # EXTRA, because with FULL a power cut may bring back the journal, and with it undo what was committed.
        self.execute("PRAGMA synchronous = EXTRA")
        row = self.row("PRAGMA user_version")
        version = row[0] if row else 0
        if version > len(steps):
            raise StateError(
                f"{self.path}: schema {version} is of a newer Mekt than this one ({len(steps)}); install that",
                catalogue.STATE_NEWER,
            )
        found = self.row("PRAGMA quick_check")
        if found != ("ok",):
            self.damaged(found[0] if found else "it cannot be checked")
        for schema in range(version, len(steps)):
            with self.transaction():
                # Another process may have taken this step meanwhile.
                if self.row("PRAGMA user_version") != (schema,):
                    continue
                for statement in steps[schema]:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {schema + 1}")

    def _fail(self, error: Exception) -> NoReturn:
        # The lower byte is the kind of error, what is above it says more.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if not isinstance(error, sqlite3.Error) or code in DAMAGED:
            raise DamagedStateError(
                f"{self.path}: damaged ({error}); restore the file or start afresh", catalogue.STATE_DAMAGED
            ) from error
        raise StateError(
            f"{self.path}: cannot be used ({error}); free space, mend permissions, or restore it from a copy",
            REFUSALS.get(code, catalogue.STATE),
        ) from error
