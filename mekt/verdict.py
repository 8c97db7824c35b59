"""What kills did to a federation: the files that must be the same, and how long it took to get over each."""

import contextlib
import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mekt.scenes import FEDERATION
from mekt.strikes import BROKER, COORDINATOR, Closing, Standing


@dataclass(frozen=True, kw_only=True, slots=True)
class Struck:
    """What a strike met, and how the federation got over it.

    `back_s`: from the start of the last victim until each of them had logged in, or answered. `on_s`: from then until
    everybody was logged in, each victim was heard, and the round's next message was there.
    """

    at_s: float
    round: int
    step: str
    victims: tuple[str, ...]
    again: bool
    away_s: float
    back_s: float
    on_s: float

    @property
    def kills(self) -> tuple[str, ...]:
        """Who was killed, as often as that happened."""
        return (*self.victims, *self.victims[: self.again])

    def line(self) -> str:
        """A row of the table."""
        names = ", ".join(self.victims) + (f", {self.victims[0]} again" if self.again else "")
        return (
            f"{self.at_s:7.1f} s  {self.round + 1:>5}  {self.step:<12}{names:<38}"
            f"{self.away_s:>7.1f} s{self.back_s:>9.1f} s{self.on_s:>9.1f} s"
        )


HEADING = f"{'at':>9}  {'round':>5}  {'step':<12}{'killed':<38}{'away':>9}{'back':>11}{'went on':>11}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """A run from start to end: every file that must be the same, by hash, and what was done to it."""

    files: Mapping[str, str]
    standing: Standing
    struck: tuple[Struck, ...]
    restarts: int
    seconds: float


def hashes(folder: Path) -> dict[str, str]:
    """What a run must give to the byte: every release, and the last models of the coordinator and of each device."""
    paths = [*folder.glob("state/releases/*.zip"), *folder.glob("state/encoders-*.weights")]
    whole = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in whole}
    for settings in folder.glob("*/device.toml"):
        with contextlib.closing(sqlite3.connect(settings.parent / "state" / "device.sqlite")) as memory:
            [[weights]] = memory.execute("SELECT weights FROM model")
        found[f"{settings.parent.name}/model"] = weights
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(found.items())}


def differences(expected: Mapping[str, str], seen: Mapping[str, str]) -> list[str]:
    """How the files of a run are not those that were expected: a sentence for each."""
    found = []
    for name in sorted({*expected, *seen}):
        if name not in seen:
            found.append(f"{name} is missing")
        elif name not in expected:
            found.append(f"{name} should not be there")
        elif expected[name] != seen[name]:
            found.append(f"{name} differs")
    return found


def closing_step(state: Path, number: int) -> Closing:
    """What the coordinator is at in a round that it closes, as its files tell."""
    if (state / "releases" / f"{FEDERATION}-{number + 1:05d}.zip").exists():
        return "reporting"
    return "classifying" if (state / f"encoders-{number + 1:05d}.weights").exists() else "distilling"


def summary(struck: Sequence[Struck], restarts: int) -> Iterator[str]:
    """The kills by victim and step, and how long it took to get over them."""
    killed = Counter(_kind(name) for each in struck for name in each.kills)
    steps = Counter(each.step for each in struck for _ in each.kills)
    yield ""
    yield f"{sum(killed.values())} kills: " + ", ".join(f"{count} of {name}" for name, count in sorted(killed.items()))
    yield "  while " + ", ".join(f"{name} {count}" for name, count in sorted(steps.items()))
    yield f"  {restarts} times a part that had given up on an absent broker was started again"
    yield f"{'seconds, median / largest':<28}{'start to back':>18}{'back to next message':>26}"
    for name, (back, on) in recovery(struck).items():
        yield f"  {name:<26}{_spread(back):>18}{_spread(on):>26}"


def recovery(struck: Sequence[Struck]) -> dict[str, tuple[list[float], list[float]]]:
    """By who was killed at a time: seconds from start to back, and from then to the round's next message."""
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for each in struck:
        back, on = found[" and ".join(sorted(map(_kind, each.victims)))]
        back.append(each.back_s)
        on.append(each.on_s)
    return dict(sorted(found.items()))


def _kind(name: str) -> str:
    return name if name in (COORDINATOR, BROKER) else "device"


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.1f} / {max(seconds):.1f}"


def results(
    seed: int, rounds: int, agents: int, reference: Played, runs: Mapping[str, Played], identical: bool
) -> dict[str, Any]:
    """All of it for machines."""
    struck = [each for run in runs.values() for each in run.struck]
    return {
        "identical": identical,
        "seed": seed,
        "rounds": rounds,
        "devices": agents,
        "files": reference.files,
        "seconds": round(reference.seconds, 3),
        "runs": {
            memory: {
                "differences": differences(reference.files, run.files),
                "restarts": run.restarts,
                "seconds": round(run.seconds, 3),
                "kills": [
                    {
                        "at_s": round(each.at_s, 3),
                        "round": each.round + 1,
                        "step": each.step,
                        "killed": list(each.kills),
                        "away_s": round(each.away_s, 3),
                        "back_s": round(each.back_s, 3),
                        "on_s": round(each.on_s, 3),
                    }
                    for each in run.struck
                ],
            }
            for memory, run in runs.items()
        },
        "recovery": {
            name: {
                "strikes": len(back),
                "back_s": {"median": round(median(back), 3), "largest": round(max(back), 3)},
                "on_s": {"median": round(median(on), 3), "largest": round(max(on), 3)},
            }
            for name, (back, on) in recovery(struck).items()
        },
    }
