"""`mekt demo`, `mekt chaos` and `mekt bench`: federations on this machine alone, to see, to break and to compare."""

import argparse
from pathlib import Path
from typing import Any

from mekt import catalogue
from mekt.commands.command import PORT, Command, common, part, until_signal, whole_number
from mekt.errors import SettingsError

# Of devices that have acc, gyro and both in turn, three then have each.
SECURE_AGENTS = 5


def _add_federation(parser: argparse.ArgumentParser, name: str, *, agents: int) -> None:
    """The options of whatever runs a whole federation here."""
    parser.add_argument(
        "--agents",
        type=whole_number(1),
        help=f"how many devices: acc, gyro and both in turn ({agents}; with --secure {max(agents, SECURE_AGENTS)})",
    )
    parser.set_defaults(own_agents=agents)
    text = "the coordinator sees sums of the devices' knowledge alone"
    parser.add_argument("--secure", action="store_true", help=text)
    parser.add_argument("--seed", type=whole_number(0, 2**31 - 1), default=0, help="of everything that is drawn (0)")
    text = "recordings, with a folder hapt (MEKT_DATA; simulated)"
    parser.add_argument("--data", type=Path, metavar="DIR", help=text)
    text = f"an empty folder for all that is made (out/{name}-N)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    parser.add_argument("--port", type=PORT, default=0, help="the broker's port on 127.0.0.1 (a free one)")
    parser.add_argument("--json", action="store_true", help="the results as JSON on standard output")


def _of_federation(options: argparse.Namespace) -> dict[str, Any]:
    """What these options are to the function that runs it."""
    least = SECURE_AGENTS if options.secure else 1
    agents = options.agents or max(options.own_agents, least)
    if agents < least:
        raise SettingsError(
            f"--agents: a secure sum takes {least} devices here, so that three have each modality; ask for more",
            catalogue.ARGUMENTS_UNFIT,
        )
    given = vars(options)
    return {name: given[name] for name in ("rounds", "seed", "data", "out", "port", "secure")} | {
        "agents": agents,
        "as_json": options.json,
    }


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=whole_number(1), default=5, help="how many rounds (5)")
    _add_federation(parser, "demo", agents=6)


def _demo(options: argparse.Namespace) -> int:
    return until_signal(part("mekt.demo", "run_demo"), **_of_federation(options))


def _add_chaos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=whole_number(1, 10_000), default=10, help="how many, over all runs (10)")
    parser.add_argument("--rounds", type=whole_number(1), help="how many rounds a run has (one for each kill)")
    parser.add_argument(
        "--broker",
        choices=("persistent", "forgetful", "both"),
        default="both",
        help="whether the broker's memory outlives it; both (default): a run with each, half of the kills in either",
    )
    _add_federation(parser, "chaos", agents=3)


def _chaos(options: argparse.Namespace) -> int:
    run = part("mekt.chaos", "run_chaos")
    brokers = ("persistent", "forgetful") if options.broker == "both" else (options.broker,)
    if options.kills < len(brokers):
        raise SettingsError(
            "--kills: one for each kind of broker at least; name one kind with --broker", catalogue.ARGUMENTS_UNFIT
        )
    return until_signal(run, kills=options.kills, brokers=brokers, **_of_federation(options))


def _add_bench(parser: argparse.ArgumentParser) -> None:
    part("bench.arguments", "add_commands")(parser, [common()], _bench, _bench_list)


def _bench(options: argparse.Namespace) -> int:
    code: int = part("bench.commands", "run_bench")(options)
    return code


def _bench_list(options: argparse.Namespace) -> int:
    code: int = part("bench.commands", "show_list")(options)
    return code


COMMANDS = (
    Command(
        name="demo",
        text="Run a whole federation on this machine: broker, coordinator, devices, wearable.",
        add=_add_demo,
        run=_demo,
    ),
    Command(
        name="chaos",
        text="Kill parts of a small federation at random moments; all must end as if nobody had.",
        add=_add_chaos,
        run=_chaos,
    ),
    Command(name="bench", text="Compare federated methods on public recordings, in simulation.", add=_add_bench),
)
