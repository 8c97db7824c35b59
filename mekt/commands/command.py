"""What a command of `mekt` is: its name, its options, and what runs it. Other parts of Mekt are imported late."""

import argparse
import gc
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mekt import catalogue
from mekt.errors import MissingPackageError
from mekt.process import Stop
from mekt.schema import NAME_PATTERN

EXTRAS = {"torch": "edge", "onnx": "coordinator", "onnxruntime": "wearable", "cryptography": "authority"}
LEVELS = ("debug", "info", "warning", "error")
Add = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A word after `mekt`. `add` gives its parser the options; one that `run` is None of has commands of its own."""

    name: str
    text: str
    add: Add
    run: Callable[[argparse.Namespace], int] | None = None

    def parser(self, within: Any) -> argparse.ArgumentParser:
        """A parser for it among `within`, still without options."""
        parents = [] if self.run is None else [common()]
        made: argparse.ArgumentParser = within.add_parser(
            self.name, parents=parents, help=self.text, description=self.text
        )
        if self.run is not None:
            made.set_defaults(run=self.run)
        return made


def group(*commands: Command) -> Add:
    """What `add` is of a command that only has others below it."""

    def add(parser: argparse.ArgumentParser) -> None:
        within = parser.add_subparsers(metavar="COMMAND", required=True)
        for command in commands:
            command.add(command.parser(within))

    return add


def common() -> argparse.ArgumentParser:
    """The options that every command has."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="how much goes to standard error (info)")
    return parser


def part(module: str, name: str) -> Any:
    """A function of another part of Mekt.

    Raises:
        MissingPackageError: when a package that it needs is not installed.
    """
    # What is imported stays. To look through it for garbage, sixty times at a start, takes a tenth of that.
    gc.disable()
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        extra = "bench" if module.startswith("bench.") else EXTRAS[package]
        raise MissingPackageError(
            f'{package} is not installed here; in the folder of Mekt: pip install -e ".[{extra}]"',
            catalogue.PACKAGE_MISSING,
        ) from error
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()


def until_signal(run: Callable[..., int], **arguments: Any) -> int:
    """Run what comes to its end when SIGTERM or Ctrl-C asks for that."""
    with Stop().on_signals() as stop:
        return run(**arguments, stop=stop)


def whole_number(low: int, high: int = 1_000_000) -> Callable[[str], int]:
    """The type of an option that is a whole number from `low` to `high`."""

    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {low} to {high}, got {text}")
        return value

    number.__name__ = "whole number"
    return number


def name(text: str) -> str:
    """The type of an option that is a federation's name."""
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"expected letters, digits, '_', '.' and '-', got {text!r}")
    return text


PORT = whole_number(1, 65535)
