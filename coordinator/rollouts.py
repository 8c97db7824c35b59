"""Rollouts on disk: which release wearables are to run, what they said of it, and the zips that are served.

In the coordinator's state folder lie `rollouts.sqlite` and `shipped/`, the zips by content. The coordinator uses them,
and so does a person's command beside it: each step is one transaction, in which the rollout is read, moved on and kept,
so that both see the same. A zip is durable before a rollout names it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from coordinator.rollout import WORDS, Event, GoBack, Passed, Progress, RolloutRules, Said, Stopped, advance
from export.bundle import pack
from export.manifest import MANIFEST, SIGNATURE, pack_manifest
from export.release import Release, open_release
from mekt import catalogue
from mekt.database import Database
from mekt.errors import ReleaseError
from mekt.files import BlobStore
from mekt.messages import RolloutState, Unfit
from mekt.plan import BlobRef
from mekt.schema import SchemaError, build

log = logging.getLogger(__name__)

FILE, FOLDER = "rollouts.sqlite", "shipped"
STEPS = (
    (
        "CREATE TABLE rollouts (number INTEGER PRIMARY KEY, release TEXT NOT NULL, sha256 BLOB NOT NULL,"
        " size_bytes INTEGER NOT NULL, share REAL NOT NULL, state TEXT NOT NULL, began_s REAL NOT NULL,"
        " waited_s REAL NOT NULL, reason TEXT NOT NULL)",
        "CREATE TABLE said (number INTEGER NOT NULL, device TEXT NOT NULL, word TEXT NOT NULL, why TEXT NOT NULL,"
        " PRIMARY KEY (number, device))",
    ),
)
# Of so many rollouts the zips are kept, and what wearables said.
KEPT = 8
WHYS = get_args(Unfit)
# Signs a release's manifest.
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipped:
    """A rollout as it is kept: where it stands, its zip, and when it began, in seconds since 1970."""

    progress: Progress
    blob: BlobRef
    began_s: float


def settled(every: Sequence[Shipped]) -> Shipped | None:
    """Of these rollouts, the first one first: the newest that is no trial and was not taken back, what most run."""
    return next((each for each in reversed(every) if each.progress.state in ("everybody", "done")), None)


def signed(release: Release, sign: Sign | None) -> bytes:
    """The zip of a release as it is shipped; finished, it is no more what its round wrote and signed."""
    manifest = pack_manifest(release.manifest)
    signature = {} if sign is None else {SIGNATURE: sign(manifest)}
    return pack({**release.models, MANIFEST: manifest, **signature})


class Rollouts:
    """The rollouts of a federation in a coordinator's state folder. One thread at a time uses it."""

    def __init__(self, folder: Path, federation: str, rules: RolloutRules, sign: Sign | None = None) -> None:
        """Open or make the files.

        Args:
            folder: the coordinator's state.
            federation: its name.
            rules: by which rollouts move on.
            sign: the coordinator's signature on a manifest; None where it has no authority.

        Raises:
            StateError: when they are damaged, of a newer Mekt, or cannot be written.
        """
        self._federation, self._rules, self._sign = federation, rules, sign
        self._db = Database(folder / FILE, STEPS)
        self._blobs = BlobStore(folder / FOLDER)
        self._seen: tuple[Any, ...] | None = None

    def close(self) -> None:
        """Let the files go."""
        self._db.close()

    def was_changed(self) -> bool:
        """Whether another process has changed anything since this was asked last; True at first."""
        before, self._seen = self._seen, self._db.row("PRAGMA data_version")
        return before != self._seen

    @property
    def newest(self) -> Shipped | None:
        """The newest rollout, with what wearables have said of it."""
        row = self._db.row("SELECT * FROM rollouts ORDER BY number DESC LIMIT 1")
        return None if row is None else self._shipped(row)

    @property
    def all(self) -> tuple[Shipped, ...]:
        """Every rollout there has been, the first one first."""
        return tuple(self._shipped(row) for row in self._db.rows("SELECT * FROM rollouts ORDER BY number"))

    @property
    def wearables(self) -> frozenset[str]:
        """Everybody who has said anything of the latest rollouts."""
        return frozenset(device for (device,) in self._db.rows("SELECT DISTINCT device FROM said"))

    def zip(self, shipped: Shipped) -> bytes | None:
        """The bytes that a rollout brings, or None when they are gone."""
        return self._blobs.get(shipped.blob)

    def release(self, shipped: Shipped) -> Release | None:
        """The release that a rollout brings, or None when it is gone, or of a format that this Mekt has no more."""
        data = self.zip(shipped)
        try:
            return None if data is None else open_release(data, self._blobs.folder / shipped.progress.release)
        except ReleaseError as error:
            log.error("what was shipped cannot be shipped again: %s", error)
            return None

    def start(self, release: Release, name: str, share: float) -> Shipped:
        """Ship this release, signed, to a share of the wearables, or to all with 1.

        Raises:
            ReleaseError: when another is still on trial, or this one is what wearables run already.
            StateError: when it cannot be kept.
        """
        with self._db.transaction():
            newest = self.newest
            if newest is not None and newest.progress.state == "canary":
                raise ReleaseError(
                    f"{newest.progress.release} is on trial on {newest.progress.share:.0%} of wearables; promote it to "
                    "all with --now or stop it, then promote another",
                    catalogue.ROLLOUT_UNDER_WAY,
                )
            is_there = newest is not None and newest.progress.release == name and newest.progress.state != "stopped"
            if newest is not None and is_there and self.zip(newest) is not None:
                raise ReleaseError(f"{name} is what wearables run already", catalogue.ROLLOUT_UNDER_WAY)
            blob = self._blobs.put(signed(release, self._sign))
            begun = self._insert(name, blob, share, "canary" if share < 1 else "everybody", "")
        self._forget()
        return begun

    def advance(self, event: Event, number: int | None = None) -> Shipped | None:
        """Move the newest rollout on; as it is then, or, where it was stopped, the one that goes back.

        With `number` only if it has this number: what a wearable says is about one.

        Raises:
            StateError: when it cannot be kept.
        """
        with self._db.transaction():
            newest = self.newest
            if newest is None or (number is not None and newest.progress.number != number):
                return newest
            progress, commands = advance(newest.progress, event, self._rules)
            if progress == newest.progress:
                return newest
            self._keep(newest.progress, progress)
            back = next((each for each in commands if isinstance(each, GoBack)), None)
            after = replace(newest, progress=progress)
            if back is not None:
                after = self._go_back(after, back.reason)
        if back is not None:
            self._forget()
        return after

    def forget(self, devices: frozenset[str]) -> Shipped | None:
        """Let what these have said count no more, who were sent away; the newest rollout without their words.

        Raises:
            StateError: when it cannot be kept.
        """
        with self._db.transaction():
            for device in devices & self.wearables:
                self._db.execute("DELETE FROM said WHERE device = ?", device)
        return self.advance(Passed(seconds=0.0))

    def stop(self, *, is_under_way: bool) -> Shipped:
        """Take the newest rollout back, as a person wants it; with `is_under_way` only one that is not done yet.

        Raises:
            ReleaseError: when there is none to take back, or nothing to go back to.
            StateError: when it cannot be kept.
        """
        newest = self.newest
        if newest is None or newest.progress.state == "stopped":
            raise ReleaseError("wearables have no release that could be taken back", catalogue.NO_ROLLOUT)
        if is_under_way and not newest.progress.is_under_way:
            raise ReleaseError(
                f"{newest.progress.release} is under way no more; `mekt release rollback` takes it back",
                catalogue.NO_ROLLOUT,
            )
        former = self.former(newest.progress)
        if not newest.progress.is_under_way and former is None:
            raise ReleaseError(
                f"before {newest.progress.release} no release was on all wearables; there is nothing to go back to",
                catalogue.NO_ROLLOUT,
            )
        if not newest.progress.is_under_way and former is not None and self.release(former) is None:
            name = former.progress.release
            raise ReleaseError(
                f"what was shipped of {name} is gone or of another format; ship it anew: mekt release promote {name}",
                catalogue.NO_ROLLOUT,
            )
        after = self.advance(Stopped(), newest.progress.number)
        assert after is not None, "there was one"
        return after

    def former(self, progress: Progress) -> Shipped | None:
        """The rollout before this one whose release all wearables were to run, and that nobody took back."""
        row = self._db.row(
            "SELECT * FROM rollouts AS one WHERE number < ? AND release != ? AND state IN ('everybody', 'done')"
            " AND NOT EXISTS (SELECT 1 FROM rollouts WHERE release = one.release AND number > one.number"
            " AND state = 'stopped') ORDER BY number DESC LIMIT 1",
            progress.number,
            progress.release,
        )
        return None if row is None else self._shipped(row)

    def _go_back(self, stopped: Shipped, reason: str) -> Shipped:
        """The rollout that follows on one that was stopped: the former release's, or of nothing to nobody."""
        taken_back = stopped.progress.release
        former = self.former(stopped.progress)
        if former is not None and self.release(former) is None:
            reason += f"; what was shipped of {former.progress.release} is gone or foreign"
            former = None
        if former is None:
            return self._insert(taken_back, stopped.blob, 0.0, "stopped", reason)
        # To the byte what it was: whoever has it still fetches nothing. That nobody replays it, its number says.
        return self._insert(former.progress.release, former.blob, 1.0, "done", f"back from {taken_back}: {reason}")

    def _insert(self, name: str, blob: BlobRef, share: float, state: RolloutState, reason: str) -> Shipped:
        [(number,)] = self._db.rows("SELECT 1 + coalesce(max(number), 0) FROM rollouts")
        progress = Progress(
            federation=self._federation, number=number, release=name, share=share, state=state, reason=reason
        )
        began_s = time.time()
        self._db.execute(
            "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(number, name, blob.sha256, blob.size_bytes, share, state, began_s, 0.0, reason),
        )
        return Shipped(progress=progress, blob=blob, began_s=began_s)

    def _forget(self) -> None:
        """Let go of old zips and words, but for what can be gone back to. Zips come in transactions, none meanwhile."""
        with self._db.transaction():
            newest = self.newest
            assert newest is not None, "there has been a rollout"
            oldest = newest.progress.number - KEPT
            self._db.execute("DELETE FROM said WHERE number <= ?", oldest)
            rows = self._db.rows("SELECT sha256 FROM rollouts WHERE number > ?", oldest)
            former = self.former(newest.progress)
            kept = {bytes(sha256) for (sha256,) in rows} | ({former.blob.sha256} if former else set())
            self._blobs.keep_only(frozenset(kept))

    def _keep(self, before: Progress, after: Progress) -> None:
        self._db.execute(
            "UPDATE rollouts SET share = ?, state = ?, waited_s = ?, reason = ? WHERE number = ?",
            *(after.share, after.state, after.waited_s, after.reason, after.number),
        )
        for device, said in after.said.items():
            if before.said.get(device) != said:
                row = (after.number, device, said.word, said.why)
                self._db.execute("INSERT OR REPLACE INTO said VALUES (?, ?, ?, ?)", *row)

    def _shipped(self, row: tuple[Any, ...]) -> Shipped:
        number, release, sha256, size_bytes, share, state, began_s, waited_s, reason = row
        query = "SELECT device, word, why FROM said WHERE number = ? ORDER BY device"
        said = {}
        for device, word, why in self._db.rows(query, number):
            # By hand: there may be thousands of them.
            if word not in WORDS or why not in WHYS:
                self._db.damaged(f"{device}: {word!r}, {why!r}")
            said[device] = Said(word=word, why=why)
        table = {"federation": self._federation, "number": number, "release": release, "share": share, "state": state}
        try:
            shipped = build(
                Shipped,
                {
                    "progress": {**table, "waited_s": waited_s, "reason": reason},
                    "blob": {"sha256": sha256, "size_bytes": size_bytes},
                    "began_s": began_s,
                },
            )
            return replace(shipped, progress=replace(shipped.progress, said=said))
        except SchemaError as error:
            self._db.damaged(error)
