"""The `mekt` command: arguments in, a part at work, an exit code out. `mekt/commands` has what it can be told to do."""

import argparse
import contextlib
import sys
from collections.abc import Sequence

from mekt import __version__, catalogue
from mekt.commands import daemons, questions, releases, sensors, trials, trust
from mekt.errors import MektError
from mekt.process import log_to_stderr

# In the order of the help.
PARTS = (daemons, trust, releases, sensors, questions, trials)
COMMANDS = tuple(command for part in PARTS for command in part.COMMANDS)


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
    """A parser of all commands, and of the options of the one that is given: another's might need what is not here."""
    parser = argparse.ArgumentParser(
        prog="mekt",
        description="Federated learning of multimodal encoders over MQTT: no window, label or weight leaves a device.",
        epilog="Exit codes: 0 well, 1 a fault of Mekt's own, 2 settings, 3 wire, 4 broker, 5 sensor, 6 release, "
        "7 state, 8 missing package; `mekt explain` has the remedies.",
    )
    parser.add_argument("--version", action="version", version=f"mekt {__version__}")
    within = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    word = next((each for each in given if not each.startswith("-")), None)
    for command in COMMANDS:
        made = command.parser(within)
        if command.name == word:
            command.add(made)
    return parser
