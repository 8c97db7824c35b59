"""`mekt infer`, `mekt score` and `mekt release`: what releases are good for, and which one wearables are to run."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mekt import catalogue
from mekt.commands.command import Command, group, part, until_signal
from mekt.errors import SettingsError

TRUST = "the coordinator's public key: only its releases"


def _add_infer(parser: argparse.ArgumentParser) -> None:
    text = "as a daemon, by the settings in this file, wearable.toml: decisions, MQTT, Home Assistant"
    parser.add_argument("--config", type=Path, metavar="FILE", help=text)
    parser.add_argument("--release", type=Path, metavar="FILE", help="instead of --config: the release")
    parser.add_argument("--source", type=Path, metavar="FILE", help="with --release: a recording or a sensor (.toml)")
    parser.add_argument("--modalities", nargs="+", metavar="NAME", help="use only these (all that are there)")
    parser.add_argument("--speed", type=float, default=0.0, help="times real time; 0 (default) as fast as it is read")
    parser.add_argument("--trust", type=Path, metavar="FILE", help=TRUST)
    parser.add_argument("--json", action="store_true", help="JSON lines instead of text")


def _infer(options: argparse.Namespace) -> int:
    if options.config is not None and (options.release, options.source, options.trust) == (None, None, None):
        return until_signal(part("edge.wearable.daemon", "run_wearable"), config=options.config)
    if options.config is not None or options.release is None or options.source is None:
        raise SettingsError(
            "infer: name a settings file with --config, or a release and what it is to classify with --release and "
            "--source",
            catalogue.ARGUMENTS_UNFIT,
        )
    code: int = part("edge.infer", "run_infer")(
        options.release,
        options.source,
        modalities=options.modalities,
        speed=options.speed,
        as_json=options.json,
        trust=options.trust,
    )
    return code


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", type=Path, required=True, metavar="FILE", help="the release")
    parser.add_argument("--recordings", type=Path, nargs="+", required=True, metavar="FILE", help="labelled recordings")
    parser.add_argument("--trust", type=Path, metavar="FILE", help=TRUST)
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def _score(options: argparse.Namespace) -> int:
    scores = part("edge.score", "score_release")(options.release, options.recordings, options.trust)
    if options.json:
        print(json.dumps({"windows": scores.windows, "weighted_f1": scores.weighted_f1}))
    else:
        for name, value in scores.weighted_f1.items():
            print(f"{name:<20} weighted F1 {value:.4f} over {scores.windows} windows")
    return 0


# mekt release


def _with_config(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    text = "the federation's settings, federation.toml" + (
        "" if required else ": where the names are those of its releases"
    )
    parser.add_argument("--config", type=Path, required=required, metavar="FILE", help=text)
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def _place(options: argparse.Namespace) -> tuple[Any, Path, Path]:
    """The federation's settings, the folder of their file, and the one of its state."""
    settings, base = part("coordinator.settings", "read_federation")(options.config), options.config.parent
    return settings, base, base / settings.state


def _release(options: argparse.Namespace, name: str) -> Any:
    """The release of this name in the federation's state, or in the file that it is the path of."""
    if name.endswith(".zip"):
        return part("export.release", "read_release")(Path(name))
    if options.config is None:
        raise SettingsError(
            f"release: {name} is no file that ends in .zip; name the federation's settings with --config",
            catalogue.ARGUMENTS_UNFIT,
        )
    return part("coordinator.promotion", "taken")(*_place(options), name)


def _print(lines: list[str], table: Any, options: argparse.Namespace) -> int:
    print(json.dumps(table) if options.json else "\n".join(lines))
    return 0


def _list(options: argparse.Namespace) -> int:
    place = _place(options)
    with part("coordinator.promotion", "opened")(*place) as rollouts:
        rows = part("coordinator.shelf", "table")(place[2], rollouts.all)
    return _print(part("coordinator.shelf", "lines")(rows), rows, options)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="NAME", help="its name, or its file (.zip)")
    _with_config(parser, required=False)


def _show(options: argparse.Namespace) -> int:
    manifest = _release(options, options.release).manifest
    return _print(part("export.words", "manifest_lines")(manifest), part("mekt.schema", "plain")(manifest), options)


def _add_diff(parser: argparse.ArgumentParser) -> None:
    for name, text in (("before", "a release's name or file"), ("after", "and another's")):
        parser.add_argument(name, metavar=name.upper(), help=text)
    text = "also play these through both: how often do they say the same?"
    parser.add_argument("--recordings", type=Path, nargs="+", default=[], metavar="FILE", help=text)
    _with_config(parser, required=False)


def _diff(options: argparse.Namespace) -> int:
    before, after = _release(options, options.before), _release(options, options.after)
    found = part("export.words", "difference")(before.manifest, after.manifest)
    if options.recordings:
        agreement, windows = part("edge.agreement", "agreements")(before, after, options.recordings)
        found = replace(found, agreement=agreement, windows=windows)
    return _print(
        part("export.words", "difference_lines")(found), part("export.words", "difference_table")(found), options
    )


def _add_ort(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="NAME", help="its name, or its file (.zip)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for the models")
    parser.add_argument("--platform", choices=("arm", "amd64"), default="arm", help="what they are optimised for (arm)")
    _with_config(parser, required=False)


def _ort(options: argparse.Namespace) -> int:
    files = part("export.ort", "ort_files")(_release(options, options.release), options.platform)
    folder = part("mekt.files", "make_folder")(options.out)
    for name, data in files.items():
        part("mekt.files", "write_atomically")(folder / name, data)
    lines = [f"{folder / name}: {len(data) / 1000:,.1f} kB" for name, data in sorted(files.items())]
    return _print(lines, {name: len(data) for name, data in sorted(files.items())}, options)


def _add_promote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="NAME", help="its name, as `mekt release list` has it")
    how = parser.add_mutually_exclusive_group()
    text = "to this share of wearables first, 0 to 1 (by default [rollout] share)"
    how.add_argument("--share", type=_share, metavar="SHARE", help=text)
    how.add_argument("--now", dest="share", action="store_const", const=1.0, help="to all wearables at once")
    text = "also if it finds a class less often than what wearables run"
    parser.add_argument("--even-if-worse", action="store_true", help=text)
    _with_config(parser)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected more than 0 and at most 1, got {text}")
    return value


def _promote(options: argparse.Namespace) -> int:
    place = _place(options)
    promote = part("coordinator.promotion", "promote")
    shipped = promote(*place, options.release, options.share, even_if_worse=options.even_if_worse)
    return _say(shipped, place[0], options)


def _take_back(options: argparse.Namespace, *, is_under_way: bool) -> int:
    place = _place(options)
    with part("coordinator.promotion", "opened")(*place) as rollouts:
        shipped = rollouts.stop(is_under_way=is_under_way)
    return _say(shipped, place[0], options)


def _stop(options: argparse.Namespace) -> int:
    return _take_back(options, is_under_way=True)


def _rollback(options: argparse.Namespace) -> int:
    return _take_back(options, is_under_way=False)


def _say(shipped: Any, settings: Any, options: argparse.Namespace) -> int:
    """Where the newest rollout stands."""
    progress = shipped.progress
    text = part("coordinator.rollout", "text_of")(progress, settings.rollout)
    table = {each: getattr(progress, each) for each in ("number", "release", "share", "state", "reason")}
    return _print([f"rollout {progress.number}: {text}"], table | {"text": text}, options)


RELEASE_COMMANDS = (
    Command(name="list", text="List all releases, and which of them wearables run.", add=_with_config, run=_list),
    Command(name="show", text="Say all about a release, from its manifest.", add=_add_show, run=_show),
    Command(name="diff", text="Say in what two releases differ.", add=_add_diff, run=_diff),
    Command(name="ort", text="Write a release's models in ORT format, for minimal builds.", add=_add_ort, run=_ort),
    Command(
        name="promote",
        text="Ship a release to a share of wearables first; of one on trial, widen the share.",
        add=_add_promote,
        run=_promote,
    ),
    Command(name="stop", text="Take back the release that is on its way.", add=_with_config, run=_stop),
    Command(name="rollback", text="Ship the release before the newest one again.", add=_with_config, run=_rollback),
)

COMMANDS = (
    Command(
        name="infer",
        text="Classify what sensors or a recording give: as a daemon, or a line for each window.",
        add=_add_infer,
        run=_infer,
    ),
    Command(
        name="score", text="Score a release on labelled recordings, by onnxruntime alone.", add=_add_score, run=_score
    ),
    Command(name="release", text="Compare releases, and ship them to wearables.", add=group(*RELEASE_COMMANDS)),
)
