"""One run and all that decides it, and what is kept of it: a file for each, written as soon as it is done."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from mekt import catalogue
from mekt.errors import StateError
from mekt.files import make_folder, write_atomically
from mekt.schema import Bounds, Count, Name, SchemaError, build, plain

log = logging.getLogger(__name__)

FORMAT = 1
ROOT = Path(__file__).parents[1]
# Whose code decides what a run gives, but for what only chooses runs and shows them.
PACKAGES = ("bench", "coordinator", "edge", "mekt", "sensors")
SHOWING = frozenset(
    f"bench/{name}.py"
    for name in (
        *("arguments", "commands", "experiments", "offers", "plots"),
        *("pool", "progress", "summary", "tables", "work", "worker"),
    )
)
Setting = int | float | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """All that decides one run. `changes` are settings of `mekt.plan.Method` that differ from the protocol's own.

    0 proxy windows and an empty proxy choice leave both to the protocol. `only` names the one modality that everybody
    has, empty for all; `models` names who has which architecture, empty for the protocol's own; 0 participants leave
    the share of a round's devices to the protocol. Of a `timed` one seconds are taken, neither scores nor bytes; in a
    `curious` one the coordinator tries to tell who was learned from. With a `clip` devices protect their knowledge,
    with Gaussian noise of `noise` times that. `aggregator` and `quarantine` are empty for the product's own; `attack`
    names what the share `attackers` of the devices does, empty for nobody, 0 for the attack's own share.
    """

    protocol: str
    method: str
    rounds: int
    rotation: int = 0
    seed: int = 0
    changes: tuple[tuple[str, Setting], ...] = ()
    proxy_windows: int = 0
    proxy_choice: str = ""
    labelled_share: float = 1.0
    only: str = ""
    models: str = ""
    participants: int = 0
    timed: bool = False
    quick: bool = False
    noise: float = 0.0
    clip: float = 0.0
    curious: bool = False
    aggregator: str = ""
    quarantine: str = ""
    attack: str = ""
    attackers: float = 0.0

    @property
    def key(self) -> str:
        """A short name for all of it; equal cells have equal keys, on any machine."""
        # What is left at its default is left out: a field that comes later changes no key.
        table = self.plain().items()
        told = {_FIRST_NAMES.get(name, name): value for name, value in table if value != _DEFAULTS[name]}
        text = json.dumps({**told, "format": FORMAT}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """For people; two cells may share it."""
        return f"{self.protocol} {self.method}, rotation {self.rotation}, seed {self.seed}"

    def plain(self) -> dict[str, Any]:
        """The cell as plain data, for JSON; the inverse of `cell_of`."""
        return {**plain(self), "changes": dict(sorted(self.changes))}


# What a field was called when its first cells were kept: by that name it stays in keys, and they are found.
_FIRST_NAMES = {"curious": "attacked"}
_DEFAULTS: dict[str, Any] = {each.name: each.default for each in fields(Cell)} | {"changes": {}}


def cell_of(table: Mapping[str, Any]) -> Cell:
    """The cell that `Cell.plain` gave."""
    return Cell(**{**table, "changes": changes(**table["changes"])})


def changes(**settings: Setting) -> tuple[tuple[str, Setting], ...]:
    """Settings as a cell holds them."""
    return tuple(sorted(settings.items()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores after so many rounds, 0 for the start: group ("acc", "fused", ...) -> measure -> share from 0 to 1.

    `scores` are those of the probe, the same for all; `heads` those of a method's own classifier, where it has one.
    """

    round: Annotated[int, Bounds(low=0)]
    scores: dict[str, dict[str, float]]
    heads: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """What crossed the wire in a round (from 1), in bytes by kind, all devices together; `devices` took part.

    `others` is what those got who did not take part.
    """

    round: Annotated[int, Bounds(low=1)]
    devices: Annotated[int, Bounds(low=0)]
    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attacked:
    """How well a curious coordinator told a device's members after so many rounds: chance is an `auc` of 0.5.

    `way`: from what the device sent ("own"), or from the sum over all devices alone ("sum"). `by` is which attack it
    was (`bench.membership.ATTACKS`), `tpr` the share of members that it found at 1 % of false alarms; `loss_...` are
    those of the one by loss alone.
    """

    round: Annotated[int, Bounds(low=1)]
    way: Annotated[str, Bounds(longest=8)]
    device: Annotated[str, Bounds(longest=64)]
    auc: float
    tpr: float
    loss_auc: float
    loss_tpr: float
    by: Annotated[str, Bounds(longest=8)] = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run gave. `seconds` by part of the work; `windows` were learned from locally, repeats counted.

    `epsilon` is what the device that took part most has given away, at `bench.trial.DELTA`; None where nothing is
    protected.
    """

    evaluations: tuple[Evaluation, ...]
    traffic: tuple[Traffic, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    windows: Annotated[int, Bounds(low=0)] = 0
    devices: Annotated[int, Bounds(low=0)] = 0
    proxy_windows: Annotated[int, Bounds(low=0)] = 0
    attacks: tuple[Attacked, ...] = ()
    epsilon: float | None = None

    @property
    def last(self) -> Evaluation:
        """The scores that a run ends with."""
        return self.evaluations[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """An outcome on disk: which code made it and how long that took."""

    format: Count
    key: Name
    cell: dict[str, object]
    code: str
    took_s: float
    outcome: Outcome


class Shelf:
    """The outcomes in a folder, a file for each cell."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder / "cells")

    def get(self, cell: Cell) -> Kept | None:
        """What is kept of `cell`, or None; a file that cannot be read counts as none."""
        path = self._path(cell)
        try:
            kept = build(Kept, json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(
                f"{path}: cannot be read ({error.strerror}); mend the disk or its permissions", catalogue.of_disk(error)
            ) from error
        except (ValueError, SchemaError) as error:
            log.warning("%s: damaged (%s); that run will be made again", path, str(error)[:200])
            return None
        return kept if kept.format == FORMAT and kept.key == cell.key and kept.outcome.evaluations else None

    def put(self, cell: Cell, outcome: Outcome, *, code: str, took_s: float) -> Kept:
        """Keep `outcome`; durable when this returns.

        Raises:
            StateError: when the disk is full or read-only.
        """
        took_s = round(took_s, 3)
        kept = Kept(format=FORMAT, key=cell.key, cell=cell.plain(), code=code, took_s=took_s, outcome=outcome)
        write_atomically(self._path(cell), json.dumps(plain(kept), indent=1).encode() + b"\n")
        return kept

    def find(self, cells: Iterable[Cell]) -> dict[Cell, Kept]:
        """What is kept of all these."""
        found = {cell: self.get(cell) for cell in cells}
        return {cell: kept for cell, kept in found.items() if kept is not None}

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.protocol}-r{cell.rotation}-s{cell.seed}-{cell.method}-{cell.key}.json"


def code_fingerprint(root: Path = ROOT) -> str:
    """A short name for the code that runs; it changes with every letter of what decides a run."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if name not in SHOWING:
                digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def of_older_code(kept: Mapping[Cell, Kept], code: str) -> list[Cell]:
    """Those that other code than `code` made."""
    return [cell for cell, each in kept.items() if each.code != code]


def as_json(value: Any) -> str:
    """Dataclasses and plain values as readable JSON."""
    return json.dumps(plain(value), indent=1) + "\n"
