"""`mekt status`, `mekt audit`, `mekt doctor` and `mekt explain`: how things stand, and what to do about it."""

import argparse
import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mekt import catalogue
from mekt.commands.command import PORT, Command, name, part, whole_number
from mekt.errors import SettingsError

LARGEST_ROUND = 2**31


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="take broker and federation from these settings")
    parser.add_argument("--federation", type=name, metavar="NAME", help="instead of --config: the federation")
    parser.add_argument("--host", default="127.0.0.1", help="its broker's address (127.0.0.1)")
    parser.add_argument("--port", type=PORT, help="its broker's port (1883; with --identity 8883)")
    parser.add_argument("--identity", type=Path, metavar="DIR", help="log in with what `mekt ca issue watch` made")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def _status(options: argparse.Namespace) -> int:
    show = part("mekt.watch", "show_status")
    with contextlib.ExitStack() as until_shown:
        if options.config is not None:
            broker, federation = _from_settings(options.config, until_shown)
        elif options.federation is not None:
            broker, federation = _from_arguments(options), options.federation
        else:
            raise SettingsError(
                "status: name a settings file with --config, or a federation with --federation",
                catalogue.ARGUMENTS_UNFIT,
            )
        code: int = show(broker, federation, as_json=options.json, out=sys.stdout)
    return code


def _from_arguments(options: argparse.Namespace) -> Any:
    settings = part("mekt.login", "BrokerSettings")
    if options.identity is None:
        return settings(host=options.host, port=options.port or 1883, plain_text_allowed=True)
    tls = part("mekt.identity", "tls_settings")(options.identity)
    return settings(host=options.host, port=options.port or 8883, tls=tls)


def _from_settings(path: Path, until_shown: contextlib.ExitStack) -> tuple[Any, str]:
    """Broker and federation out of any kind of settings file."""
    table = part("mekt.settings", "read_table")(path)
    is_member = "device" in table or "updates" in table
    if "updates" in table:
        settings = part("edge.wearable.settings", "read_wearable")(path).updates
        broker = part("mekt.login", "located")(settings.broker, path.parent)
    else:
        kind = ("edge.settings", "read_device") if is_member else ("coordinator.settings", "read_federation")
        settings = part(*kind)(path)
        broker = settings.broker
    if settings.trust is not None and broker.tls is not None and broker.tls.certificate is not None:
        # The broker takes the name in a certificate for the client id: with its own, this would end the daemon's link.
        if is_member:
            raise SettingsError(
                f"{path}: the broker shows a device nothing of others; ask beside the coordinator, or with "
                "--federation, --host and --identity, which `mekt ca issue watch` makes",
                catalogue.ARGUMENTS_UNFIT,
            )
        looking = part("coordinator.lending", "looking")(path.parent / settings.trust.authority)
        lent = until_shown.enter_context(looking)
        broker = replace(broker, tls=replace(broker.tls, certificate=lent.certificate, key=lent.key))
    return broker, settings.federation


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="its settings, device.toml or wearable.toml"
    )
    text = "prove that the log has no gap, instead of listing it"
    parser.add_argument("--verify", action="store_true", help=text)
    text = "list only messages of this round and later ones"
    parser.add_argument("--since", type=whole_number(1, LARGEST_ROUND), metavar="ROUND", help=text)
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def _audit(options: argparse.Namespace) -> int:
    if options.verify and options.since is not None:
        raise SettingsError("audit: --verify is about the whole log; leave --since out", catalogue.ARGUMENTS_UNFIT)
    code: int = part("edge.account", "show_audit")(
        options.config, verify=options.verify, since=options.since, as_json=options.json, out=sys.stdout
    )
    return code


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    about = parser.add_mutually_exclusive_group(required=True)
    about.add_argument("--config", type=Path, metavar="FILE", help="the settings that it is to run with, of any part")
    about.add_argument(
        "--role", choices=("coordinator", "edge", "wearable"), help="instead of --config: what it is to be"
    )
    about.add_argument(
        "--wearable", action="store_const", dest="role", const="wearable", help="the same as --role wearable"
    )
    parser.add_argument("--host", metavar="HOST", help="with --role: a broker to look at too (127.0.0.1 with --port)")
    parser.add_argument("--port", type=PORT, metavar="PORT", help="with --role: its port (1883)")
    text = "log in also while a daemon runs here: only where client ids are not tied to user names"
    parser.add_argument("--beside-daemon", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def _doctor(options: argparse.Namespace) -> int:
    code: int = part("mekt.doctor", "run_doctor")(
        config=options.config,
        role=options.role,
        host=options.host,
        port=options.port,
        beside_daemon=options.beside_daemon,
        as_json=options.json,
        out=sys.stdout,
    )
    return code


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "number", type=int, nargs="?", metavar="NUMBER", help="of an error, or an exit code (lists them all)"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def _explain(options: argparse.Namespace) -> int:
    code: int = part("mekt.explain", "explain")(options.number, as_json=options.json, out=sys.stdout)
    return code


COMMANDS = (
    Command(
        name="status",
        text="Say where a federation stands, and whom its round is waiting for.",
        add=_add_status,
        run=_status,
    ),
    Command(
        name="audit",
        text="List every message that has left a device, or prove that the list has no gap.",
        add=_add_audit,
        run=_audit,
    ),
    Command(
        name="doctor",
        text="Check whether this machine can be a coordinator, a device or a wearable.",
        add=_add_doctor,
        run=_doctor,
    ),
    Command(
        name="explain",
        text="Say what an error's number means, what leads to it, and what to do.",
        add=_add_explain,
        run=_explain,
    ),
)
