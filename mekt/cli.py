"""The `mekt` command: arguments in, a part at work, an exit code out. `mekt/commands` has what it can be told to do."""

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence

from mekt import __version__, catalogue
from mekt.commands.command import Command
from mekt.errors import MektError
from mekt.process import log_to_stderr

# Which module of `mekt/commands` has which commands, in the order of the help.
PARTS = {
    "daemons": ("coordinator", "edge"),
    "trust": ("ca", "enroll", "device", "broker"),
    "releases": ("infer", "score", "release"),
    "sensors": ("sensors",),
    "questions": ("status", "audit", "doctor", "explain"),
    "trials": ("demo", "chaos", "bench"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code, as docs/errors.md lists them."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser(given).parse_args(given)
    log_to_stderr(options.log_level)
    try:
        code: int = options.run(options)
        return code
    except MektError as error:
        # The log may be on the disk that is full; the code then has to say it alone.
        with contextlib.suppress(OSError):
            print(f"mekt: {catalogue.marked(str(error), error.entry)}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough of it.
        sys.stderr.close()
        return 0


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of the command that is given, of all where none is: another's might need what is not here, or time."""
    parser = argparse.ArgumentParser(
        prog="mekt",
        description="Federated learning of multimodal encoders over MQTT: no window, label or weight leaves a device.",
        epilog="Exit codes: 0 well, 1 a fault of Mekt's own, 2 settings, 3 wire, 4 broker, 5 sensor, 6 release, "
        "7 state, 8 missing package; `mekt explain` has the remedies.",
    )
    parser.add_argument("--version", action="version", version=f"mekt {__version__}")
    within = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    word = next((each for each in given if not each.startswith("-")), None)
    for command in _commands(word):
        made = command.parser(within)
        if command.name == word:
            command.add(made)
    return parser


def _commands(word: str | None) -> list[Command]:
    """The command of this name; all of them where there is none."""
    known = [(module, name) for module, names in PARTS.items() for name in names]
    wanted = [each for each in known if each[1] == word] or known
    found = []
    for module, name in wanted:
        commands: Sequence[Command] = importlib.import_module(f"mekt.commands.{module}").COMMANDS
        found.append(next(each for each in commands if each.name == name))
    return found
