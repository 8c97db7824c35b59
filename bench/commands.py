"""`mekt bench`: runs what an experiment needs and nobody has run yet, then shows it as table, JSON and picture."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.arguments import defaults
from bench.attacks import ATTACKS
from bench.cells import Shelf, code_fingerprint
from bench.experiments import DEFENCES, EXPERIMENTS, Wanted
from bench.offers import PROTOCOLS, methods
from bench.plots import picture
from bench.pool import Failed
from bench.protocol import data_folder
from bench.summary import Experiment, Section, summarise
from bench.tables import markdown
from bench.work import finish, kept_of
from mekt import catalogue
from mekt.errors import MissingPackageError, SettingsError
from mekt.files import write_atomically
from mekt.schema import plain

# The exit code when runs failed for reasons of several families.
SEVERAL = 1


def run_bench(options: argparse.Namespace) -> int:
    """Run one command and show what it gave; the exit code, that of the errors' family when runs failed.

    Raises:
        MektError: when it cannot begin, or what was made cannot be kept.
    """
    wanted = wanted_of(options)
    data = data_folder(options.data)
    experiment = EXPERIMENTS[options.bench](wanted)
    shelf, code = Shelf(options.out), code_fingerprint()
    # Seconds are compared only when they were taken side by side.
    timed = options.bench == "speed"
    kept = {} if timed else kept_of(shelf, experiment.cells, code, fresh=options.fresh)
    failed = finish(
        experiment.cells,
        kept,
        shelf,
        command=[sys.executable, "-m", "bench.trial", str(data)],
        code=code,
        jobs=1 if timed else options.jobs,
        out=sys.stderr,
    )
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
        print(f"  {each.name:<{wide}}  {each.label}: {each.text}" + (f" ({each.paper})" if each.paper else ""))
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
    attacks = tuple(dict.fromkeys(getattr(options, "attacks", None) or ()))
    defences = tuple(dict.fromkeys(getattr(options, "defences", None) or ()))
    _check("attack", attacks, tuple(ATTACKS))
    _check("defence", defences, DEFENCES)
    seeds, rounds = defaults(options.bench, quick=options.quick)
    specs = {name: PROTOCOLS[name] for name in named}
    return Wanted(
        protocols=named,
        methods=tuple(offered[name] for name in chosen),
        seeds=options.seeds or seeds,
        rounds=options.rounds or rounds,
        all_rotations=getattr(options, "rotations", False),
        quick=options.quick,
        rotations={name: len(each.rotations) for name, each in specs.items()},
        modalities={name: tuple(part.name for part in each.modalities) for name, each in specs.items()},
        attacks=attacks,
        defences=defences,
        attackers=getattr(options, "attackers", None) or 0.0,
    )


def _check(what: str, named: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in named if name not in known]:
        raise SettingsError(
            f"bench: no {what} is called {', '.join(unknown)}; there are {', '.join(known)}", catalogue.CHOICE_UNKNOWN
        )


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
        "failed": [
            {"cell": each.cell.plain(), "reason": each.reason, "exit_code": each.exit_code, "number": each.number}
            for each in failed
        ],
    }


def _exit_code(failed: Sequence[Failed]) -> int:
    codes = {each.exit_code for each in failed}
    return 0 if not codes else codes.pop() if len(codes) == 1 else SEVERAL
