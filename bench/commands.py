"""`mekt bench`: runs what an experiment needs and nobody has run yet, then shows it as table, JSON and picture."""

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bench.arguments import QUICK_ROUNDS, QUICK_SEEDS, ROUNDS, SEEDS
from bench.cells import ROOT, Cell, Kept, Shelf, code_fingerprint, of_older_code
from bench.experiments import EXPERIMENTS, Wanted
from bench.offers import PROTOCOLS, methods
from bench.plots import picture
from bench.pool import Began, Done, Failed, Moved, run_cells
from bench.progress import Progress
from bench.summary import Experiment, Section, summarise
from bench.tables import markdown
from mekt.errors import MissingPackageError, SettingsError
from mekt.files import write_atomically
from mekt.schema import plain

log = logging.getLogger(__name__)

CRASHED = 1


def run_bench(options: argparse.Namespace) -> int:
    """Run one command and show what it gave; the exit code, that of the errors' family when runs failed.

    Raises:
        MektError: when it cannot begin, or what was made cannot be kept.
    """
    wanted = wanted_of(options)
    data = _data(options.data)
    if importlib.util.find_spec("torch") is None:
        raise MissingPackageError('torch is not installed here; in the folder of Mekt: pip install -e ".[coordinator]"')
    experiment = EXPERIMENTS[options.bench](wanted)
    shelf, code = Shelf(options.out), code_fingerprint()
    kept = _kept(shelf, experiment.cells, code, fresh=options.fresh)
    jobs = 1 if options.bench == "speed" else options.jobs
    with _ended_by_sigterm():
        failed = _run(experiment.cells, kept, shelf, code=code, data=data, jobs=jobs)
    sections = summarise(experiment, kept)
    _show(options, experiment, sections, failed, code)
    return _exit_code(failed)


def show_list(options: argparse.Namespace) -> int:
    """Print which methods and protocols there are."""
    found = methods()
    if options.json:
        offers = {each.name: plain(each) for each in found}
        print(json.dumps({"methods": offers, "protocols": list(PROTOCOLS)}))
        return 0
    wide = max(len(each.name) for each in found)
    print("methods:")
    for each in found:
        print(
            f"  {each.name:<{wide}}  {each.text} ({each.paper})"
            if each.paper
            else f"  {each.name:<{wide}}  {each.text}"
        )
    print("protocols: " + ", ".join(PROTOCOLS))
    return 0


def wanted_of(options: argparse.Namespace) -> Wanted:
    """What the options ask for.

    Raises:
        SettingsError: when a method or protocol has no such name, with those that there are.
    """
    named = tuple(dict.fromkeys(options.protocols))
    _check("protocol", named, tuple(PROTOCOLS))
    offered = {each.name: each for each in methods()}
    chosen = tuple(dict.fromkeys(getattr(options, "methods", None) or offered))
    _check("method", chosen, tuple(offered))
    specs = {name: PROTOCOLS[name] for name in named}
    return Wanted(
        protocols=named,
        methods=tuple(offered[name] for name in chosen),
        seeds=options.seeds or (QUICK_SEEDS if options.quick else SEEDS),
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
        all_rotations=getattr(options, "rotations", False),
        quick=options.quick,
        rotations={name: len(each.rotations) for name, each in specs.items()},
        modalities={name: tuple(part.name for part in each.modalities) for name, each in specs.items()},
    )


def _check(what: str, named: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in named if name not in known]:
        raise SettingsError(f"bench: no {what} is called {', '.join(unknown)}; there are {', '.join(known)}")


def _data(named: Path | None) -> Path:
    """The folder of all recordings.

    Raises:
        SettingsError: when it is not there.
    """
    path = named or Path(os.environ.get("MEKT_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        raise SettingsError(f"--data: no folder {path}; name the recordings' folder with --data DIR or MEKT_DATA")
    return path.absolute()


def _kept(shelf: Shelf, cells: Sequence[Cell], code: str, *, fresh: bool) -> dict[Cell, Kept]:
    kept = shelf.find(cells)
    older = of_older_code(kept, code)
    if older and fresh:
        kept = {cell: each for cell, each in kept.items() if cell not in older}
    elif older:
        log.warning(
            "%d of %d kept runs were made by other code than this; --fresh makes them again", len(older), len(kept)
        )
    return kept


def _run(
    cells: Sequence[Cell], kept: dict[Cell, Kept], shelf: Shelf, *, code: str, data: Path, jobs: int
) -> list[Failed]:
    """Run what is not in `kept` and put it there; those that failed."""
    waiting = [cell for cell in cells if cell not in kept]
    progress = Progress(cells, kept, jobs=jobs, out=sys.stderr)
    if kept:
        progress.say(f"{len(kept)} of {len(cells)} runs are there already, in {shelf.folder}; they are not repeated.")
    failed: list[Failed] = []
    logs = shelf.folder.parent / "logs"
    command = [sys.executable, "-m", "bench.trial", str(data)]
    events = run_cells(waiting, command=command, jobs=min(jobs, len(waiting)), logs=logs)
    try:
        with contextlib.closing(events):
            for event in events:
                match event:
                    case Began():
                        progress.began(event.cell)
                    case Moved():
                        progress.moved(event.cell, event.share)
                    case Done():
                        kept[event.cell] = shelf.put(event.cell, event.outcome, code=code, took_s=event.took_s)
                        progress.ended(event.cell, event.took_s, "done")
                    case Failed():
                        failed.append(event)
                        progress.ended(event.cell, None, f"failed: {event.reason}")
    except KeyboardInterrupt:
        progress.say(
            f"Interrupted. {len(kept)} of {len(cells)} runs are kept in {shelf.folder}; the same command goes on there."
        )
        raise
    finally:
        progress.close()
    return failed


def _show(
    options: argparse.Namespace,
    experiment: Experiment,
    sections: Sequence[Section],
    failed: Sequence[Failed],
    code: str,
) -> None:
    """Write the command's files and print its table, or its JSON."""
    notes = [f"{count} runs failed: {reason}" for reason, count in Counter(each.reason for each in failed).items()]
    table = markdown(experiment, sections, notes)
    results = json.dumps(_results(experiment, sections, failed, code), indent=1) + "\n"
    base = options.out / (experiment.name + ("-quick" if options.quick else ""))
    write_atomically(base.with_suffix(".json"), results.encode())
    write_atomically(base.with_suffix(".md"), table.encode())
    written = [".json", ".md"]
    if any(row.runs for section in sections for row in section.rows):
        try:
            write_atomically(base.with_suffix(".png"), picture(experiment, sections))
            written.append(".png")
        except MissingPackageError as error:
            print(f"No picture: {error}", file=sys.stderr)
    print(results if options.json else "\n" + table, end="" if options.json else "\n")
    for note in notes:
        print(note, file=sys.stderr)
    print(f"Written: {base}" + ", ".join(written), file=sys.stderr)


def _results(
    experiment: Experiment, sections: Sequence[Section], failed: Sequence[Failed], code: str
) -> dict[str, Any]:
    return {
        "command": experiment.name,
        "title": experiment.title,
        "code": code,
        "keys": list(experiment.keys),
        "tables": [
            {
                "name": section.name,
                "groups": list(section.groups),
                "target": section.target,
                "best": {group: list(section.rows[index].keys) for group, index in section.best.items()},
                "rows": [row.plain() for row in section.rows],
            }
            for section in sections
        ],
        "failed": [{"cell": each.cell.plain(), "reason": each.reason, "exit_code": each.exit_code} for each in failed],
    }


def _exit_code(failed: Sequence[Failed]) -> int:
    codes = {each.exit_code for each in failed}
    return 0 if not codes else codes.pop() if len(codes) == 1 else CRASHED


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does."""

    def asked(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
