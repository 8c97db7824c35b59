"""`mekt sensors`: which sensors are here, whether they are well, how their samples come, and recordings of them."""

import argparse
import sys
from pathlib import Path

from mekt.commands.command import Command, group, part, until_signal


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return value


_seconds.__name__ = "number of seconds"


def _add_list(parser: argparse.ArgumentParser) -> None:
    text = "also read identity registers on I2C buses: devices of another kind at the same address may be disturbed"
    parser.add_argument("--probe", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="JSON instead of tables for a settings file")


def _list(options: argparse.Namespace) -> int:
    found = part("sensors.search", "found")(probe=options.probe)
    code: int = part("sensors.look", "show_list")(found, as_json=options.json, out=sys.stdout)
    return code


def _add_config(parser: argparse.ArgumentParser) -> None:
    text = "a settings file with [[sensors]] tables, such as device.toml"
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help=text)
    parser.add_argument("modalities", nargs="*", metavar="MODALITY", help="only sensors that give these (all)")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--seconds", type=_seconds, metavar="N", help="for so long (until Ctrl-C)")


def _add_watch(parser: argparse.ArgumentParser) -> None:
    _add_reading(parser)
    parser.add_argument("--json", action="store_true", help="a line of JSON twice a second instead of a picture")


def _watch(options: argparse.Namespace) -> int:
    return until_signal(
        part("sensors.look", "run_watch"),
        config=options.config,
        modalities=options.modalities,
        seconds=options.seconds,
        as_json=options.json,
        out=sys.stdout,
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--seconds", type=_seconds, default=5.0, metavar="N", help="read each for so long (5)")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def _check(options: argparse.Namespace) -> int:
    return until_signal(
        part("sensors.checkup", "run_check"),
        config=options.config,
        modalities=options.modalities,
        seconds=options.seconds,
        as_json=options.json,
        out=sys.stdout,
    )


def _add_record(parser: argparse.ArgumentParser) -> None:
    _add_reading(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file, .npz")


def _record(options: argparse.Namespace) -> int:
    return until_signal(
        part("sensors.look", "run_record"),
        config=options.config,
        path=options.out,
        modalities=options.modalities,
        seconds=options.seconds,
        out=sys.stdout,
    )


COMMANDS = (
    Command(
        name="sensors",
        text="The sensors of this machine: find, check, watch and record them.",
        add=group(
            Command(name="list", text="Sensors that are here, as settings.", add=_add_list, run=_list),
            Command(name="check", text="Check sensors that lie still.", add=_add_check, run=_check),
            Command(name="watch", text="Show how samples come.", add=_add_watch, run=_watch),
            Command(name="record", text="Record sensors, to be replayed.", add=_add_record, run=_record),
        ),
    ),
)
