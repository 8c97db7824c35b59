"""The releases in a coordinator's state, by name, and which of them wearables run."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coordinator.rollouts import Shipped, settled
from export.manifest import SUFFIX
from export.release import Release, read_release
from export.words import kilobytes
from mekt import catalogue
from mekt.errors import ReleaseError

FOLDER = "releases"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
# Of a metric that is a score.
SCORE = "weighted_f1/"


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


def table(state: Path, rollouts: tuple[Shipped, ...]) -> list[dict[str, Any]]:
    """A row for each release of this state folder, by name, for machines. `rollouts`: every one there has been."""
    # While one is on trial, all others run the one before it.
    at_work = (*rollouts[-1:], settled(rollouts))
    latest = {each.progress.release: each for each in rollouts}
    rows: list[dict[str, Any]] = []
    for path in sorted((state / FOLDER).glob(f"*{SUFFIX}")):
        if not NAME.fullmatch(path.stem):
            continue
        row = {"release": path.stem, **_content(path)}
        if (shipped := latest.get(path.stem)) is not None:
            row["rollout"] = {
                "number": shipped.progress.number,
                "state": shipped.progress.state,
                "share": shipped.progress.share,
                "since_s": shipped.began_s,
                "runs": shipped in at_work and shipped.progress.state != "stopped",
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


def _content(path: Path) -> dict[str, Any]:
    """What is in the file: round, scores and size, or the trouble with it."""
    try:
        manifest = read_release(path).manifest
        size_bytes = path.stat().st_size
    except ReleaseError as error:
        return {"size_bytes": 0, "trouble": str(error).splitlines()[0]}
    scores = {name.removeprefix(SCORE): value for name, value in manifest.metrics.items() if name.startswith(SCORE)}
    return {"size_bytes": size_bytes, "round": manifest.round, "scores": scores}


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
