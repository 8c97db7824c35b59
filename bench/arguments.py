"""The options of `mekt bench`, each command's own and those that all have."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT = Path("bench-results")
SEEDS, ROUNDS = 3, 12
QUICK_SEEDS, QUICK_ROUNDS = 2, 2
# A run with an attack takes minutes, and trains and attacks devices that nobody else does.
PRIVACY_SEEDS, PRIVACY_ROUNDS = 2, 4
# Seconds are less uncertain than scores.
SPEED_SEEDS, SPEED_ROUNDS = 1, 3
LARGEST = 1_000_000
# Name, what it does, the protocols that it runs when none is named.
COMMANDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("compare", "All methods: scores, bytes and seconds.", ("hapt", "utd-mhad", "urfall")),
    ("proxy", "The proxy set: how large, and how its windows are chosen.", ("hapt",)),
    ("labels", "How many labels: embeddings learned together against labels alone.", ("hapt",)),
    ("bytes", "What a score costs in bytes, with and without the proxy set.", ("hapt",)),
    ("steps", "How much transfer: distil epochs and local epochs.", ("hapt",)),
    ("single", "Each modality's autoencoder alone, and all together.", ("hapt",)),
    ("encodings", "Knowledge as float32, float16, int8 and int4.", ("hapt",)),
    ("mixed", "Devices of one architecture and of several.", ("hapt",)),
    ("ablate", "The method with one part changed at a time.", ("hapt",)),
    ("privacy", "What knowledge and parameters tell about private windows, and what protecting it costs.", ("hapt",)),
    ("poison", "Attacks by devices that send what spoils, and what holds against them.", ("hapt",)),
    ("speed", "Windows a second, and the seconds of a round by part.", ("hapt",)),
)
# These run every method unless told which.
OF_METHODS = ("compare", "bytes", "speed")

Command = Callable[..., argparse.ArgumentParser]


def add_commands(bench: argparse.ArgumentParser, parents: list[argparse.ArgumentParser], run: Any, show: Any) -> None:
    """Give the parser of `mekt bench` its commands; `run` and `show` are called with the parsed options."""
    within = bench.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = _common()
    for name, text, protocols in COMMANDS:
        command = within.add_parser(name, parents=[*parents, common], help=text, description=text)
        seeds, rounds = defaults(name, quick=False)
        command.set_defaults(run=run, bench=name)
        command.add_argument("--seeds", type=_count, metavar="N", help=f"runs that differ in their draws ({seeds})")
        command.add_argument("--rounds", type=_count, metavar="N", help=f"how many rounds ({rounds})")
        command.add_argument(
            "protocols", nargs="*", default=protocols, metavar="PROTOCOL", help=f"what on ({', '.join(protocols)})"
        )
        if name in OF_METHODS:
            command.add_argument(
                "--methods", type=_names, metavar="NAME,...", help="only these (all that mekt bench list names)"
            )
        if name == "poison":
            command.add_argument("--attacks", type=_names, metavar="NAME,...", help="only these, beside nobody's")
            command.add_argument("--defences", type=_names, metavar="NAME,...", help="only these")
            command.add_argument(
                "--attackers", type=_share, metavar="SHARE", help="the devices that attack (each attack's own share)"
            )
        if name == "compare":
            command.add_argument("--rotations", action="store_true", help="the other rotations too, with seed 0")
    text = "What secure aggregation takes: bytes, seconds, and how exact its sums are."
    command = within.add_parser("secure", parents=parents, help=text, description=text)
    command.set_defaults(run=_secure)
    command.add_argument("--json", action="store_true", help="JSON instead of the table")
    command.add_argument("--quick", action="store_true", help="few devices, once")
    text = "What sensing takes: processor, memory and delay from source to stored window."
    command = within.add_parser("sensing", parents=parents, help=text, description=text)
    command.set_defaults(run=_sensing)
    command.add_argument("--json", action="store_true", help="JSON instead of the tables")
    command.add_argument("--quick", action="store_true", help="two minutes of simulated time, not an hour")
    text = "What a window takes on a wearable: torch, ONNX, 8 bits and steps, in turns on one thread."
    command = within.add_parser("wearable", parents=parents, help=text, description=text)
    command.set_defaults(run=_wearable)
    command.add_argument("--data", type=Path, metavar="DIR", help="the recordings (MEKT_DATA; ../shared/data)")
    command.add_argument("--json", action="store_true", help="JSON instead of the tables")
    command.add_argument("--quick", action="store_true", help="few runs, which say little")
    text = "Whether a wearable's decisions are better than single windows, on HAPT and UR Fall."
    command = within.add_parser("decide", parents=parents, help=text, description=text)
    command.set_defaults(run=_decide)
    command.add_argument("--data", type=Path, metavar="DIR", help="the recordings (MEKT_DATA; ../shared/data)")
    command.add_argument("--json", action="store_true", help="JSON instead of the table")
    command.add_argument("--quick", action="store_true", help="learn for one round only")
    text = "What the process of `mekt infer` takes: memory, start, processor."
    command = within.add_parser("infer", parents=parents, help=text, description=text)
    command.set_defaults(run=_infer)
    command.add_argument("--json", action="store_true", help="JSON instead of the tables")
    command.add_argument("--quick", action="store_true", help="fewer starts, seconds instead of minutes")
    text = "Say which methods and protocols there are."
    command = within.add_parser("list", parents=parents, help=text, description=text)
    command.set_defaults(run=show)
    command.add_argument("--json", action="store_true", help="JSON instead of text")


def _secure(options: argparse.Namespace) -> int:
    # Only here, as it needs a package that nothing else does.
    from bench.secure import show_secure

    return show_secure(as_json=options.json, quick=options.quick, out=sys.stdout)


def _sensing(options: argparse.Namespace) -> int:
    from bench.sensing import show_sensing

    return show_sensing(as_json=options.json, quick=options.quick, out=sys.stdout)


def _wearable(options: argparse.Namespace) -> int:
    # Only here, as it needs onnxruntime, which nothing else does.
    from bench.wearable import show_wearable

    return show_wearable(data=options.data, as_json=options.json, quick=options.quick, out=sys.stdout)


def _decide(options: argparse.Namespace) -> int:
    from bench.decide import show_decide

    return show_decide(options.data, as_json=options.json, quick=options.quick, out=sys.stdout)


def _infer(options: argparse.Namespace) -> int:
    from bench.infer import show_infer

    return show_infer(as_json=options.json, quick=options.quick, out=sys.stdout)


def defaults(name: str, *, quick: bool) -> tuple[int, int]:
    """Seeds and rounds of a command when nothing is said."""
    usual = {"speed": (SPEED_SEEDS, SPEED_ROUNDS), "privacy": (PRIVACY_SEEDS, PRIVACY_ROUNDS)}.get(
        name, (SEEDS, ROUNDS)
    )
    if not quick:
        return usual
    # Three protocols would take more than a minute or two.
    return (1 if name in ("compare", "privacy", "speed") else QUICK_SEEDS), QUICK_ROUNDS


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", type=Path, metavar="DIR", help="the recordings (MEKT_DATA; ../shared/data)")
    common.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help=f"where runs and tables are kept ({OUT}); none is repeated"
    )
    common.add_argument(
        "--jobs", type=_count, metavar="N", default=os.cpu_count() or 1, help="runs at a time (one for each CPU)"
    )
    common.add_argument(
        "--quick", action="store_true", help="few devices, windows and rounds: to see it work, in a minute or two"
    )
    common.add_argument("--fresh", action="store_true", help="make runs again that other code than this one made")
    common.add_argument("--json", action="store_true", help="JSON instead of the table on standard output")
    return common


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= LARGEST:
        raise argparse.ArgumentTypeError(f"expected 1 to {LARGEST}, got {text}")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 up to 1, got {text}")
    return value


_count.__name__ = "whole number"
_share.__name__ = "share"
