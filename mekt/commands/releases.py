"""`mekt infer` and `mekt score`: what a release is good for, by onnxruntime alone."""

import argparse
import json
from pathlib import Path

from mekt import catalogue
from mekt.commands.command import Command, part, until_signal
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
        return until_signal(part("edge.wearable", "run_wearable"), config=options.config)
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
)
