"""The releases in a coordinator's state, by name, and which of them wearables run."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coordinator.rollouts import Shipped
from export.manifest import SUFFIX
from export.release import Release, read_release
from export.words import kilobytes
from mekt import catalogue
from mekt.errors import ReleaseError

FOLDER = "releases"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
# Of a metric that is a score.
SCORE = "weighted_f1/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A release on the shelf; `release` is None where its file cannot be used, and `trouble` says why."""

    name: str
    release: Release | None
    size_bytes: int = 0
    trouble: str = ""


def entries(state: Path) -> list[Entry]:
    """Every release of this state folder, in order of name."""
    paths = sorted((state / FOLDER).glob(f"*{SUFFIX}"))
    return [_entry(path) for path in paths if NAME.fullmatch(path.stem)]


def find(state: Path, name: str) -> Release:
    """The release of this name, every byte of it checked.

    Raises:
        ReleaseError: when there is none, or it cannot be used.
    """
    path = state / FOLDER / f"{name}{SUFFIX}"
    if not NAME.fullmatch(name) or not path.exists():
        there = [each.stem for each in sorted((state / FOLDER).glob(f"*{SUFFIX}"))]
        raise ReleaseError(
            f"{state / FOLDER}: there is no release {name!r}; the newest are {', '.join(there[-3:]) or 'none'}",
            catalogue.RELEASE_UNKNOWN,
        )
    return read_release(path)


def table(on_shelf: list[Entry], rollouts: tuple[Shipped, ...]) -> list[dict[str, Any]]:
    """A row for each release, for machines. `rollouts`: every one there has been."""
    newest = rollouts[-1] if rollouts else None
    # While one is on trial, all others run the one before it.
    settled = next((each for each in reversed(rollouts) if each.progress.state in ("everybody", "done")), None)
    latest = {each.progress.release: each for each in rollouts}
    rows: list[dict[str, Any]] = []
    for entry in on_shelf:
        row: dict[str, Any] = {"release": entry.name, "size_bytes": entry.size_bytes}
        if entry.release is None:
            row["trouble"] = entry.trouble
        else:
            manifest = entry.release.manifest
            scores = {name: value for name, value in manifest.metrics.items() if name.startswith(SCORE)}
            row |= {"round": manifest.round, "scores": {name.removeprefix(SCORE): scores[name] for name in scores}}
        if (shipped := latest.get(entry.name)) is not None:
            row["rollout"] = {
                "number": shipped.progress.number,
                "state": shipped.progress.state,
                "share": shipped.progress.share,
                "since_s": shipped.began_s,
                "runs": shipped in (newest, settled) and shipped.progress.state != "stopped",
                "reason": shipped.progress.reason,
            }
        rows.append(row)
    return rows


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The same for people: weighted F1 per classifier, and what wearables have to do with it."""
    names = list(dict.fromkeys(name for row in rows for name in row.get("scores", {})))
    wide = max([7, *(len(row["release"]) for row in rows)])
    columns = [max(8, len(name) + 1) for name in names]
    head = f"{'release':<{wide}}  round  {'size':>12}" + _cells(names, columns)
    found = [head + "  wearables"]
    for row in rows:
        if "trouble" in row:
            found.append(f"{row['release']:<{wide}}  {row['trouble']}")
            continue
        values = [format(row["scores"][name], ".3f") if name in row["scores"] else "-" for name in names]
        line = f"{row['release']:<{wide}}  {row['round']:>5}  {kilobytes(row['size_bytes']):>12}" + _cells(
            values, columns
        )
        found.append(f"{line}  {_shipped(row.get('rollout'))}".rstrip())
    return found


def _entry(path: Path) -> Entry:
    try:
        release = read_release(path)
        return Entry(name=path.stem, release=release, size_bytes=path.stat().st_size)
    except ReleaseError as error:
        return Entry(name=path.stem, release=None, trouble=str(error).splitlines()[0])


def _cells(values: list[str], columns: list[int]) -> str:
    return "".join(f"{value:>{width}}" for value, width in zip(values, columns, strict=True))


def _shipped(rollout: dict[str, Any] | None) -> str:
    if rollout is None:
        return ""
    since = datetime.fromtimestamp(rollout["since_s"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    because = f" ({rollout['reason']})" if rollout["reason"] else ""
    if rollout["state"] == "stopped":
        return f"taken back, shipped {since}{because}"
    if not rollout["runs"]:
        return f"shipped {since}, replaced since"
    if rollout["state"] == "canary":
        return f"on trial on {rollout['share']:.0%} since {since}"
    return f"shipped to all {since}{because}"
