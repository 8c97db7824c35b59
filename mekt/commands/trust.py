"""`mekt ca`, `mekt enroll`, `mekt device` and `mekt broker`: who belongs to a federation, and how the broker knows."""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mekt import catalogue
from mekt.commands.command import PORT, Command, group, name, part, whole_number
from mekt.errors import SettingsError

WEARABLE = "; on a wearable, with --wearable"


def _authority(options: argparse.Namespace) -> Any:
    return part("coordinator.authority", "Authority")(options.authority)


def _with_authority(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--authority", type=Path, default=Path("authority"), metavar="DIR", help="the authority's folder (authority)"
    )


# mekt ca


def _add_init(parser: argparse.ArgumentParser) -> None:
    _with_authority(parser)
    parser.add_argument("--federation", type=name, required=True, metavar="NAME", help="whose authority it is")


def _init(options: argparse.Namespace) -> int:
    authority = part("coordinator.authority", "Authority").create(options.authority, options.federation)
    authority.close()
    print(f"The authority of {options.federation} is in {options.authority}. Keep a copy, where nobody else reads.")
    return 0


def _add_issue(parser: argparse.ArgumentParser) -> None:
    _with_authority(parser)
    parser.add_argument("role", choices=("coordinator", "watch"), help="the coordinator, or somebody who only looks")
    parser.add_argument("--name", type=name, metavar="NAME", help="who looks (the coordinator: the federation's name)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for certificate and key")


def _issue(options: argparse.Namespace) -> int:
    if options.role == "watch" and options.name is None:
        raise SettingsError("ca issue watch: say who it is with --name", catalogue.ARGUMENTS_UNFIT)
    authority = _authority(options)
    whose = authority.federation if options.role == "coordinator" else options.name
    part("coordinator.authority", "write_part")(authority, options.role, whose, options.out)
    authority.close()
    print(f"Certificate and key of {options.role}:{whose} are in {options.out}.")
    if options.role == "watch":
        print("Give `mekt broker config` again, so that the broker's access list knows the name.")
    return 0


# mekt enroll


def _add_token(parser: argparse.ArgumentParser) -> None:
    _with_authority(parser)
    parser.add_argument("device", type=name, help="the name under which the device joins")
    parser.add_argument("--host", required=True, help="the broker's address, as the device sees it")
    parser.add_argument("--port", type=PORT, default=8883, help="the broker's port (8883)")
    parser.add_argument("--hours", type=whole_number(1, 720), default=24, help="how long it can be used (24)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a new file for it, instead of standard output")


def _token(options: argparse.Namespace) -> int:
    if options.out is None:
        token = _new_token(options)
        print(token.text())
        print(f"{_terms(token)}. On the device: mekt enroll join{WEARABLE}", file=sys.stderr)
        return 0
    # First of all: a token that has nowhere to go is none that somebody could find later.
    with part("mekt.files", "new_secret")(options.out) as file:
        token = _new_token(options)
        file.write(token.text().encode() + b"\n")
    print(f"The token is in {options.out}, which nobody else can read.")
    print(f"{_terms(token)}. On the device: mekt enroll join --token {options.out.name}{WEARABLE}")
    return 0


def _new_token(options: argparse.Namespace) -> Any:
    authority = _authority(options)
    try:
        return authority.token(options.device, hours=options.hours, host=options.host, port=options.port)
    finally:
        authority.close()


def _terms(token: Any) -> str:
    return f"Good once, for {token.device}, until {_moment(token.expires_s)}"


def _add_join(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--identity", type=Path, default=Path("identity"), metavar="DIR", help="its folder (identity)")
    parser.add_argument(
        "--token", type=Path, metavar="FILE", help="a file with the token; without it, a line of standard input"
    )
    text = "print what the settings file of a wearable needs, instead of a device's"
    parser.add_argument("--wearable", action="store_true", help=text)


def _join(options: argparse.Namespace) -> int:
    try:
        # Never an argument: everybody on a machine can read those.
        if options.token is not None:
            part("mekt.credentials", "check_private")(options.token)
        text = sys.stdin.readline() if options.token is None else options.token.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{options.token}: no token can be read there", catalogue.TOKEN_UNUSABLE) from error
    token = part("mekt.token", "read_token")(text)
    ahead_s = part("edge.enrolment", "enrol")(token, options.identity)
    # Apart, so that `> wearable.toml` makes a file.
    print(f"{token.device} belongs to {token.federation} now. Its settings file begins so:\n", file=sys.stderr)
    print(part("edge.enrolment", "settings_text")(token, str(options.identity), wearable=options.wearable), end="")
    if abs(ahead_s) > part("edge.enrolment", "TOLERANCE_S"):
        print(f"This machine's clock is {ahead_s:+.0f} s off the coordinator's: set it.", file=sys.stderr)
    return 0


# mekt device


def _add_revoke(parser: argparse.ArgumentParser) -> None:
    _with_authority(parser)
    parser.add_argument("device", type=_holder, help="who is not to take part any more: a device, or watch:NAME")
    parser.add_argument("--broker", type=Path, metavar="DIR", help="the folder that `mekt broker config` made (broker)")
    parser.set_defaults(broker=Path("broker"))


def _holder(text: str) -> str:
    """The type of an option that is a device's name, or that of somebody who only looks."""
    name(text.removeprefix("watch:"))
    return text


def _revoke(options: argparse.Namespace) -> int:
    authority = _authority(options)
    if not authority.knows(options.device):
        raise SettingsError(
            f"device revoke: {options.device} has neither a certificate nor a token here; see `mekt device list`",
            catalogue.CHOICE_UNKNOWN,
        )
    count = authority.revoke(options.device)
    print(f"{options.device}: {count} certificate{'s' * (count != 1)} revoked", end="", flush=True)
    is_told = part("coordinator.fence", "expel")(options.broker, authority, options.device)
    authority.close()
    print(", and its connection ended." if is_told else ".")
    if not is_told:
        print(
            f"No broker runs here on the files in {options.broker}. One that starts with them knows; one that runs "
            "elsewhere, as in a container, has to be restarted.",
            file=sys.stderr,
        )
    return 0


def _add_list(parser: argparse.ArgumentParser) -> None:
    _with_authority(parser)
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def _list(options: argparse.Namespace) -> int:
    authority = _authority(options)
    rows = [
        {"name": each.name, "issued": _moment(each.issued_s), "ends": _moment(each.ends_s), "state": _state(each)}
        for each in authority.certified()
    ]
    authority.close()
    if options.json:
        print(json.dumps(rows))
        return 0
    print(f"{'name':<28} {'state':<8} {'issued':<24} ends")
    for row in rows:
        print(f"{row['name']:<28} {row['state']:<8} {row['issued']:<24} {row['ends']}")
    return 0


def _state(certified: Any) -> str:
    if certified.revoked_s is not None:
        return "revoked"
    return "good" if certified.ends_s > time.time() else "expired"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# mekt broker


def _add_config(parser: argparse.ArgumentParser) -> None:
    _with_authority(parser)
    parser.add_argument("--out", type=Path, default=Path("broker"), metavar="DIR", help="the broker's folder (broker)")
    parser.add_argument(
        "--host", action="append", metavar="NAME", help="a name or address that devices use for it; may be repeated"
    )
    parser.add_argument("--port", type=PORT, default=8883, help="the port that it listens on (8883)")
    parser.add_argument("--user", default="mosquitto", help="who the broker becomes when root starts it (mosquitto)")


def _config(options: argparse.Namespace) -> int:
    authority = _authority(options)
    fence = part("coordinator.fence", "Fence")(
        folder=options.out,
        port=options.port,
        hosts=tuple(options.host or ("localhost", "127.0.0.1")),
        user=options.user,
    )
    fence.write(authority)
    authority.close()
    print(f"Start the broker with: mosquitto -c {(options.out / 'mosquitto.conf').resolve()}")
    return 0


COMMANDS = (
    Command(
        name="ca",
        text="The authority that says who belongs to a federation.",
        add=group(
            Command(name="init", text="Make a federation's authority.", add=_add_init, run=_init),
            Command(name="issue", text="Certificate and key for a part on a server.", add=_add_issue, run=_issue),
        ),
    ),
    Command(
        name="enroll",
        text="A device joins: a token is made beside the coordinator, and used on the device.",
        add=group(
            Command(name="token", text="Make a token that lets one device join.", add=_add_token, run=_token),
            Command(name="join", text="Join with a token, on the device.", add=_add_join, run=_join),
        ),
    ),
    Command(
        name="device",
        text="The devices of a federation.",
        add=group(
            Command(name="list", text="Every certificate, and whether it is good.", add=_add_list, run=_list),
            Command(name="revoke", text="Take a device out of the federation, at once.", add=_add_revoke, run=_revoke),
        ),
    ),
    Command(
        name="broker",
        text="The broker that a federation speaks over.",
        add=group(
            Command(
                name="config", text="Write mosquitto's configuration and access list.", add=_add_config, run=_config
            ),
        ),
    ),
)
