"""`mekt coordinator` and `mekt edge`: what runs for as long as a federation does."""

import argparse
from pathlib import Path

from mekt.commands.command import Command, group, part, until_signal


def _daemon(name: str, text: str, file: str, run: tuple[str, str]) -> Command:
    """The command `mekt <name> run`, whose settings are in such a file and whose work is this function's."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--config", type=Path, required=True, metavar="FILE", help=f"its settings, {file}")

    def work(options: argparse.Namespace) -> int:
        return until_signal(part(*run), config=options.config)

    below = Command(name="run", text=f"Run {text} until SIGTERM or Ctrl-C.", add=add, run=work)
    return Command(name=name, text=text, add=group(below))


COMMANDS = (
    _daemon("coordinator", "the server of a federation", "federation.toml", ("coordinator.daemon", "run_coordinator")),
    _daemon("edge", "the agent of a device", "device.toml", ("edge.daemon", "run_edge")),
)
