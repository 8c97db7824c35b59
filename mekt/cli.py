"""The `mekt` command: arguments in, a part at work, an exit code out. The parts are imported by name, and late."""

import argparse
import contextlib
import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mekt import __version__, catalogue
from mekt.errors import MektError, MissingPackageError, SettingsError
from mekt.process import Stop, log_to_stderr
from mekt.schema import NAME_PATTERN

EXTRAS = {"torch": "edge", "onnx": "coordinator", "onnxruntime": "wearable"}
LEVELS = ("debug", "info", "warning", "error")


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


def _part(module: str, name: str) -> Any:
    """A function of another part of Mekt.

    Raises:
        MissingPackageError: when a package that it needs is not installed.
    """
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


def _coordinator(options: argparse.Namespace) -> int:
    run = _part("coordinator.daemon", "run_coordinator")
    with Stop().on_signals() as stop:
        code: int = run(options.config, stop)
    return code


def _edge(options: argparse.Namespace) -> int:
    run = _part("edge.daemon", "run_edge")
    with Stop().on_signals() as stop:
        code: int = run(options.config, stop)
    return code


def _infer(options: argparse.Namespace) -> int:
    code: int = _part("edge.infer", "run_infer")(
        options.release,
        options.source,
        modalities=options.modalities,
        speed=options.speed,
        as_json=options.json,
    )
    return code


def _score(options: argparse.Namespace) -> int:
    scores = _part("edge.score", "score_release")(options.release, options.recordings)
    if options.json:
        print(json.dumps({"windows": scores.windows, "weighted_f1": scores.weighted_f1}))
    else:
        for name, value in scores.weighted_f1.items():
            print(f"{name:<20} weighted F1 {value:.4f} over {scores.windows} windows")
    return 0


def _status(options: argparse.Namespace) -> int:
    show = _part("mekt.watch", "show_status")
    if options.config is not None:
        broker, federation = _from_settings(options.config)
    elif options.federation is not None:
        settings = _part("mekt.login", "BrokerSettings")
        broker, federation = settings(host=options.host, port=options.port, plain_text_allowed=True), options.federation
    else:
        raise SettingsError(
            "status: name a settings file with --config, or a federation with --federation", catalogue.ARGUMENTS_UNFIT
        )
    code: int = show(broker, federation, as_json=options.json, out=sys.stdout)
    return code


def _doctor(options: argparse.Namespace) -> int:
    code: int = _part("mekt.doctor", "run_doctor")(
        config=options.config,
        role=options.role,
        host=options.host,
        port=options.port,
        beside_daemon=options.beside_daemon,
        as_json=options.json,
        out=sys.stdout,
    )
    return code


def _explain(options: argparse.Namespace) -> int:
    code: int = _part("mekt.explain", "explain")(options.number, as_json=options.json, out=sys.stdout)
    return code


def _from_settings(path: Path) -> tuple[Any, str]:
    """Broker and federation out of either kind of settings file."""
    table = _part("mekt.settings", "read_table")(path)
    kind = ("edge.settings", "read_device") if "device" in table else ("coordinator.settings", "read_federation")
    settings = _part(*kind)(path)
    return settings.broker, settings.federation


def _demo(options: argparse.Namespace) -> int:
    run = _part("mekt.demo", "run_demo")
    with Stop().on_signals() as stop:
        code: int = run(
            rounds=options.rounds,
            agents=options.agents,
            seed=options.seed,
            data=options.data,
            out=options.out,
            port=options.port,
            as_json=options.json,
            stop=stop,
        )
    return code


def _chaos(options: argparse.Namespace) -> int:
    run = _part("mekt.chaos", "run_chaos")
    brokers = ("persistent", "forgetful") if options.broker == "both" else (options.broker,)
    if options.kills < len(brokers):
        raise SettingsError(
            "--kills: one for each kind of broker at least; name one kind with --broker", catalogue.ARGUMENTS_UNFIT
        )
    with Stop().on_signals() as stop:
        code: int = run(
            kills=options.kills,
            seed=options.seed,
            rounds=options.rounds,
            agents=options.agents,
            brokers=brokers,
            data=options.data,
            out=options.out,
            port=options.port,
            as_json=options.json,
            stop=stop,
        )
    return code


def _bench(options: argparse.Namespace) -> int:
    code: int = _part("bench.commands", "run_bench")(options)
    return code


def _bench_list(options: argparse.Namespace) -> int:
    code: int = _part("bench.commands", "show_list")(options)
    return code


def _count(low: int, high: int = 1_000_000) -> Any:
    """The type of an option that is a whole number from `low` to `high`."""

    def count(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {low} to {high}, got {text}")
        return value

    count.__name__ = "whole number"
    return count


def _name(text: str) -> str:
    """The type of an option that is a federation's name."""
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"expected letters, digits, '_', '.' and '-', got {text!r}")
    return text


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mekt",
        description="Federated learning of multimodal encoders over MQTT: no window, label or weight leaves a device.",
        epilog="Exit codes: 0 well, 1 a fault of Mekt's own, 2 settings, 3 wire, 4 broker, 5 sensor, 6 release, "
        "7 state, 8 missing package; `mekt explain` has the remedies.",
    )
    parser.add_argument("--version", action="version", version=f"mekt {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--log-level", choices=LEVELS, default="info", help="how much goes to standard error (info)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str, within: Any = commands) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = within.add_parser(name, parents=[common], help=text, description=text)
        made.set_defaults(run=run)
        return made

    for name, run, what in (
        ("coordinator", _coordinator, "federation.toml"),
        ("edge", _edge, "device.toml"),
    ):
        text = "the server of a federation" if name == "coordinator" else "the agent of a device"
        group = commands.add_parser(name, help=text, description=text).add_subparsers(metavar="COMMAND", required=True)
        daemon = command("run", run, f"Run {text} until SIGTERM or Ctrl-C.", group)
        daemon.add_argument("--config", type=Path, required=True, metavar="FILE", help=f"its settings, {what}")

    infer = command("infer", _infer, "Classify what a sensor or a recording gives: a line for each window.")
    infer.add_argument("--release", type=Path, required=True, metavar="DIR", help="the release's folder")
    infer.add_argument("--source", type=Path, required=True, metavar="FILE", help="a recording or a sensor (.toml)")
    infer.add_argument("--modalities", nargs="+", metavar="NAME", help="use only these (all that are there)")
    infer.add_argument("--speed", type=float, default=0.0, help="times real time; 0 (default) as fast as it is read")
    infer.add_argument("--json", action="store_true", help="JSON lines instead of text")

    score = command("score", _score, "Score a release on labelled recordings, by onnxruntime alone.")
    score.add_argument("--release", type=Path, required=True, metavar="DIR", help="the release's folder")
    score.add_argument("--recordings", type=Path, nargs="+", required=True, metavar="FILE", help="labelled recordings")
    score.add_argument("--json", action="store_true", help="JSON instead of text")

    status = command("status", _status, "Say where a federation stands, and whom its round is waiting for.")
    status.add_argument("--config", type=Path, metavar="FILE", help="take broker and federation from these settings")
    status.add_argument("--federation", type=_name, metavar="NAME", help="instead of --config: the federation")
    status.add_argument("--host", default="127.0.0.1", help="its broker's address (127.0.0.1)")
    status.add_argument("--port", type=_count(1, 65535), default=1883, help="its broker's port (1883)")
    status.add_argument("--json", action="store_true", help="JSON instead of text")

    doctor = command("doctor", _doctor, "Check whether this machine can be a coordinator, a device or a wearable.")
    about = doctor.add_mutually_exclusive_group(required=True)
    about.add_argument("--config", type=Path, metavar="FILE", help="the settings that it is to run with, of any part")
    about.add_argument(
        "--role", choices=("coordinator", "edge", "wearable"), help="instead of --config: what it is to be"
    )
    doctor.add_argument("--host", metavar="HOST", help="with --role: a broker to look at too (127.0.0.1 with --port)")
    doctor.add_argument("--port", type=_count(1, 65535), metavar="PORT", help="with --role: its port (1883)")
    text = "log in also while a daemon runs here: only where client ids are not tied to user names"
    doctor.add_argument("--beside-daemon", action="store_true", help=text)
    doctor.add_argument("--json", action="store_true", help="JSON instead of text")

    explain = command("explain", _explain, "Say what an error's number means, what leads to it, and what to do.")
    explain.add_argument(
        "number", type=int, nargs="?", metavar="NUMBER", help="of an error, or an exit code (lists them all)"
    )
    explain.add_argument("--json", action="store_true", help="JSON instead of text")

    demo = command("demo", _demo, "Run a whole federation on this machine: broker, coordinator, devices, wearable.")
    demo.add_argument("--rounds", type=_count(1), default=5, help="how many rounds (5)")
    demo.add_argument("--agents", type=_count(1), default=6, help="how many devices: acc, gyro and both in turn (6)")
    demo.add_argument("--seed", type=_count(0, 2**31 - 1), default=0, help="of everything that is drawn (0)")
    demo.add_argument("--data", type=Path, metavar="DIR", help="recordings, with a folder hapt (MEKT_DATA; simulated)")
    demo.add_argument("--out", type=Path, metavar="DIR", help="an empty folder for all that is made (out/demo-N)")
    demo.add_argument("--port", type=_count(1, 65535), default=0, help="the broker's port on 127.0.0.1 (a free one)")
    demo.add_argument("--json", action="store_true", help="the results as JSON on standard output")

    chaos = command(
        "chaos", _chaos, "Kill parts of a small federation at random moments; all must end as if nobody had."
    )
    chaos.add_argument("--kills", type=_count(1, 10_000), default=10, help="how many, over all runs (10)")
    chaos.add_argument("--seed", type=_count(0, 2**31 - 1), default=0, help="of everything that is drawn (0)")
    chaos.add_argument("--rounds", type=_count(1), help="how many rounds a run has (one for each kill)")
    chaos.add_argument("--agents", type=_count(1), default=3, help="how many devices: acc, gyro and both in turn (3)")
    chaos.add_argument(
        "--broker",
        choices=("persistent", "forgetful", "both"),
        default="both",
        help="whether the broker's memory outlives it; both (default): a run with each, half of the kills in either",
    )
    chaos.add_argument("--data", type=Path, metavar="DIR", help="recordings, with a folder hapt (MEKT_DATA; simulated)")
    chaos.add_argument("--out", type=Path, metavar="DIR", help="an empty folder for all that is made (out/chaos-N)")
    chaos.add_argument("--port", type=_count(1, 65535), default=0, help="the broker's port on 127.0.0.1 (a free one)")
    chaos.add_argument("--json", action="store_true", help="the results as JSON on standard output")

    text = "Compare federated methods on public recordings, in simulation."
    bench = commands.add_parser("bench", help=text, description=text)
    if given[:1] == ["bench"]:
        _part("bench.arguments", "add_commands")(bench, [common], _bench, _bench_list)
    return parser
