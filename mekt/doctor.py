"""`mekt doctor`: whether this machine can be the coordinator, a device or a wearable, looked at before it is one.

It goes from the inside out: interpreter, packages, settings, memory and disk, clock, broker, sensors. What may crash or
hang is tried in a process of its own. All of it ends within `WHOLE_S`, nothing is left behind, no secret is shown.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from mekt import catalogue
from mekt.attempt import Attempt, Died, Done, Hung, Refused
from mekt.check import REACH, VISIT, Check, Role, failed, ok, refused, report, skipped, warning
from mekt.errors import MektError, MissingPackageError, ReleaseError, SensorError, SettingsError
from mekt.login import BrokerSettings, located
from mekt.machine import check_clock, check_memory, check_state
from mekt.packages import BASE, Extra, check_compute, check_packages, check_python, check_torch_build, gpu_is_there
from mekt.process import held_by
from mekt.reach import check_reach
from mekt.schema import SchemaError, build
from mekt.settings import read_table

WHOLE_S = 30.0
IMPORT_S, SETTINGS_S = 15.0, 10.0
# To make a source and open it, which for a replay is to read its recordings; then to wait for samples.
SENSOR_S, SAMPLES_S = 8.0, 3.0
# What a login and permissions take where the broker is slow to answer, and what sensors are left in any case.
VISIT_S, LEFT_FOR_SENSORS_S = 6.0, 4.0
# What only a wearable's settings have.
WEARABLES = frozenset({"release", "updates", "decide", "publish", "home_assistant"})
FAMILIES: dict[int, type[MektError]] = {each.exit_code: each for each in (SettingsError, SensorError, ReleaseError)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What this machine is to be. `config` gives all but the role; without it, a broker may be named.

    `broker` is the federation's, where a wearable takes updates; `second` is then where it publishes. `beside_daemon`:
    log in also where a daemon is at work under the same login.
    """

    role: Role | None
    config: Path | None = None
    table: dict[str, Any] | None = None
    broker: BrokerSettings | None = None
    second: BrokerSettings | None = None
    beside_daemon: bool = False

    @property
    def member(self) -> dict[str, Any]:
        """The table that names federation, device and state: all settings, or a wearable's [updates]; else empty."""
        table = self.table or {}
        return _updates(table) if self.role == "wearable" else table

    @property
    def state(self) -> Path | None:
        """The state folder, where the settings are those of a daemon that has one."""
        if self.config is None or self.table is None or (self.role == "wearable" and not self.member):
            return None
        named = self.member.get("state", "state")
        return self.config.parent / named if isinstance(named, str) and "\0" not in named else None

    @property
    def extras(self) -> tuple[Extra, ...]:
        """What the settings ask for beside the role's own packages."""
        table = self.table or {}
        rules = table.get("round")
        secure = table.get("sums_only") is True or (isinstance(rules, dict) and rules.get("secure") is True)
        signs = self.role == "coordinator" and "trust" in table
        return (*(("authority",) if signs else ()), *(("secure",) if secure else ()))

    def name(self, key: str) -> str:
        """A name in the settings, "" where there is none."""
        value = self.member.get(key, "")
        return value if isinstance(value, str) else ""


def run_doctor(
    *,
    config: Path | None,
    role: Role | None,
    host: str | None,
    port: int | None,
    beside_daemon: bool,
    as_json: bool,
    out: TextIO,
) -> int:
    """Look at everything and print a line for each check as soon as it is known; the exit code.

    Raises:
        SettingsError: when the arguments do not belong together.
    """
    if config is not None and (host is not None or port is not None):
        raise SettingsError(
            "doctor: the settings file names the broker; leave out --host and --port, or name a --role",
            catalogue.ARGUMENTS_UNFIT,
        )
    question, first = Question(role=role, beside_daemon=beside_daemon), None
    if config is not None:
        question, first = read_question(config, beside_daemon=beside_daemon)
    elif host is not None or port is not None:
        broker = BrokerSettings(host=host or "127.0.0.1", port=port or 1883, plain_text_allowed=True)
        question = Question(role=role, broker=broker, beside_daemon=beside_daemon)
    what = question.role or "unknown"
    return report(what, examine(question, first), as_json=as_json, out=out, about={"role": what})


def read_question(config: Path, *, beside_daemon: bool = False) -> tuple[Question, Check | None]:
    """What the settings file is about, as far as that can be told without reading all of it; or why it cannot."""
    try:
        table = read_table(config)
    except SettingsError as error:
        unknown = Question(role=None, config=config, beside_daemon=beside_daemon)
        return unknown, refused("settings", str(error), SettingsError, entry=error.entry)
    role: Role = "coordinator"
    if table.keys() & WEARABLES:
        role = "wearable"
    elif "device" in table or "sensors" in table:
        role = "edge" if "device" in table or "federation" in table else "wearable"
    own = _broker_of(table, "broker", config.parent)
    question = Question(role=role, config=config, table=table, broker=own, beside_daemon=beside_daemon)
    if role == "wearable":
        own = own if table.keys() & {"broker", "publish", "home_assistant"} else None
        federation = _broker_of(_updates(table), "updates.broker", config.parent) if _updates(table) else None
        question = replace(question, broker=federation or own, second=own if federation else None)
    return question, None


def _updates(table: dict[str, Any]) -> dict[str, Any]:
    """The table [updates] of a wearable's settings, empty where there is none."""
    updates = table.get("updates")
    return updates if isinstance(updates, dict) else {}


def _broker_of(table: dict[str, Any], where: str, base: Path) -> BrokerSettings | None:
    """The broker that this table has; what is wrong with it is said when all of the file is read."""
    try:
        return located(build(BrokerSettings, table.get("broker", {}), where), base)
    except SchemaError:
        return None


def examine(question: Question, first: Check | None = None) -> Iterator[Check]:
    """Every check in order. `first` is what was wrong with the settings file already."""
    ends_s = time.monotonic() + WHOLE_S
    yield check_python()
    if first is not None:
        yield first
    if question.role is None:
        yield skipped("packages", "which are needed, the settings would tell")
        yield from check_clock(None)
        yield from (skipped(name, "the settings cannot be read") for name in (*REACH, *VISIT, "sensors"))
        return
    facts: dict[str, dict[str, Any] | None] = {}
    for check, found in check_packages(question.role, IMPORT_S, question.extras):
        facts[check.name] = found
        yield check
    if "torch" in facts:
        yield check_torch_build(facts["torch"], gpu_is_there())
    lacking = [each.name for each in BASE if facts[each.name] is None]
    sensors: list[list[str]] | None = None
    for check, read in _settings(question, facts, lacking):
        sensors = sensors if read is None else read
        yield check
    if question.role == "wearable" and "release" in (question.table or {}):
        yield _release(question, valid=sensors is not None)
    yield check_memory(question.role)
    if question.state is not None:
        yield from check_state(question.state)
    yield from check_clock(question.state)
    yield from _broker(question, lacking, ends_s)
    if question.second is not None:
        yield from _broker(replace(question, broker=question.second, table={}), lacking, ends_s)
    yield from _sensors(question, sensors, ends_s)


def _settings(
    question: Question, facts: dict[str, dict[str, Any] | None], lacking: list[str]
) -> Iterator[tuple[Check, list[list[str]] | None]]:
    """What is to be said of the settings; beside the first check, the modalities of each sensor when all is valid."""
    if question.config is None or question.role is None:
        yield skipped("settings", "no settings file was named"), None
        return
    needed = [*lacking]
    if question.role == "wearable" and facts["onnxruntime"] is None:
        needed.append("onnxruntime")
    if needed:
        yield skipped("settings", f"to read them all, {', '.join(needed)} is needed"), None
        return
    match Attempt("settings", question.role, str(question.config)).outcome(SETTINGS_S):
        case Done(facts=found):
            yield ok("settings", f"{question.config}: valid"), found["sensors"]
            for check in _recordings(found):
                yield check, None
            for check in check_compute(found.get("compute", ""), facts.get("torch")):
                yield check, None
        case Refused(problem=problem, exit_code=2, entry=entry):
            for line in problem.splitlines():
                yield refused("settings", line, SettingsError, "correct it in the settings file", entry), None
        case Refused(problem=problem, error=error):
            seen, remedy = (
                f"{question.config}: cannot be read ({error}: {problem})",
                "install Mekt and its packages anew",
            )
            yield failed("settings", seen, remedy, MissingPackageError, catalogue.PACKAGE_UNUSABLE), None
        case Died(how=how):
            seen, remedy = f"{question.config}: reading them ends a process ({how})", "install the packages anew"
            yield failed("settings", seen, remedy, MissingPackageError, catalogue.PACKAGE_UNUSABLE), None
        case Hung(after_s=after_s, idle=True):
            seen = f"{question.config}: reading them hangs: after {after_s:.0f} s it waits for something"
            remedy = "bring back the network disk that they or their recordings are on, or copy them to this machine"
            yield failed("settings", seen, remedy, SettingsError, catalogue.SETTINGS_FILE_UNREADABLE), None
        case Hung(after_s=after_s):
            seen = f"{question.config}: not read after {after_s:.0f} s: this machine is slow or busy, or its disk hangs"
            yield warning("settings", seen, "try again when it has less to do"), None


def _release(question: Question, *, valid: bool) -> Check:
    """Whether the release is whole, and onnxruntime runs it here with what the sensors give."""
    if not valid:
        return skipped("release", "the settings are not valid or not read")
    match Attempt("wearable", str(question.config)).outcome(SETTINGS_S):
        case Done(facts=facts) if facts["unknown"]:
            seen = f"has no class {', '.join(facts['unknown'])}; it has {', '.join(facts['classes'])}"
            return failed("release", seen, "name these in [decide]", SettingsError, catalogue.CHOICE_UNKNOWN)
        case Done(facts=facts):
            seen = f"{facts['federation']}, round {facts['round']}: {len(facts['classes'])} classes"
            return ok("release", f"{seen} by {', '.join(facts['modalities'])}")
        case Refused(problem=problem, exit_code=code, entry=entry) if code in FAMILIES:
            return refused("release", problem, FAMILIES[code], entry=entry)
        case Refused(problem=problem, error=error):
            seen = f"cannot be read ({error}: {problem})"
            return failed(
                "release", seen, "copy it again from the coordinator", ReleaseError, catalogue.RELEASE_DAMAGED
            )
        case Died(how=how):
            seen, remedy = (
                f"running it ends the process ({how})",
                "install onnxruntime anew, of another version if need be",
            )
            return failed("release", seen, remedy, MissingPackageError, catalogue.PACKAGE_UNUSABLE)
        case Hung(after_s=after_s):
            seen = f"not loaded after {after_s:.0f} s: this machine is slow or busy, or its disk hangs"
            return warning("release", seen, "try again when it has less to do")


def _recordings(found: dict[str, Any]) -> Iterator[Check]:
    if "recordings" not in found:
        return
    for line in found["missing"]:
        yield refused("recordings", line, SettingsError, entry=catalogue.RECORDING_NOT_FOUND)
    if there := {kind: count for kind, count in found["recordings"].items() if count}:
        yield ok("recordings", ", ".join(f"{count} {kind}" for kind, count in there.items()) + ": all there")


def _broker(question: Question, lacking: list[str], ends_s: float) -> Iterator[Check]:
    if question.broker is None:
        why = "no broker was named; --host and --port, or a settings file with --config, name one"
        if question.role == "wearable":
            why = "a wearable needs no broker; one can be named with --host and --port"
        elif question.config is not None:
            why = "the settings of the broker cannot be read"
        yield from (skipped(name, why) for name in (*REACH, *VISIT))
        return
    reached = []
    for check in check_reach(question.broker):
        reached.append(check)
        yield check
    if why := _hinders_a_visit(question, reached, lacking, ends_s):
        yield from (skipped(name, why) for name in VISIT)
        return
    # Not before paho, msgpack and numpy are known to be there and well.
    from mekt.permits import check_permits
    from mekt.visit import Guest

    assert question.role is not None, "a broker is named for a role"
    yield from check_permits(
        Guest(
            role=question.role,
            settings=question.broker,
            federation=question.name("federation"),
            device=question.name("device"),
        ),
        max(VISIT_S, ends_s - LEFT_FOR_SENSORS_S - time.monotonic()),
    )


def _hinders_a_visit(question: Question, reached: list[Check], lacking: list[str], ends_s: float) -> str:
    """Why no login may or can be tried; "" when nothing is in the way."""
    assert question.broker is not None, "only a broker that is known is visited"
    if broken := [each.name for each in reached if each.mark == "FAILED"]:
        return f"it needs {broken[0]} to be well first"
    if lacking:
        return f"it needs {', '.join(lacking)}"
    if ends_s - time.monotonic() < VISIT_S:
        return f"the checks before took nearly all of {WHOLE_S:.0f} s"
    owner = _daemon(question)
    if owner is not None and question.broker.identified and not question.beside_daemon:
        return (
            f"{owner} may be logged in as this user, and some brokers would end its connection; end it first, or "
            "say --beside-daemon where client ids are not tied to user names"
        )
    return ""


def _daemon(question: Question) -> str | None:
    """Who may be at work with this state folder, and so under this login."""
    if question.state is None:
        return None
    try:
        return held_by(question.state)
    except PermissionError:
        return "a process of another user"
    except OSError:
        return None


def _sensors(question: Question, sensors: list[list[str]] | None, ends_s: float) -> Iterator[Check]:
    """Each sensor opened and read in a process of its own, all at a time."""
    if question.role == "coordinator":
        return
    if sensors is None or question.config is None:
        why = "no settings file was named" if question.config is None else "the settings are not valid or not read"
        yield skipped("sensors", why)
        return
    limit_s = min(SENSOR_S, ends_s - time.monotonic())
    if limit_s < SAMPLES_S:
        yield skipped("sensors", f"the checks before took nearly all of {WHOLE_S:.0f} s")
        return
    words = ("sensor", str(question.config))
    tried = [Attempt(*words, str(index), str(SAMPLES_S)) for index in range(len(sensors))]
    for index, (attempt, modalities) in enumerate(zip(tried, sensors, strict=True)):
        yield _sensor(f"sensors[{index}]", ", ".join(modalities), attempt, limit_s)


def _sensor(name: str, modalities: str, attempt: Attempt, limit_s: float) -> Check:
    match attempt.outcome(limit_s):
        case Done(facts=facts):
            samples: dict[str, int] = facts["samples"]
            if silent := [each for each, count in samples.items() if count == 0]:
                seen = f"opened, but {', '.join(silent)} gave no sample within {SAMPLES_S:g} s"
                return warning(
                    name, seen, "look whether it is switched on and measures; `mekt sensors check` tells more"
                )
            return ok(name, ", ".join(f"{count} samples of {each}" for each, count in samples.items()))
        case Refused(problem=problem, exit_code=code, entry=entry) if code in FAMILIES:
            return refused(name, f"{modalities}: {problem}", FAMILIES[code], entry=entry)
        case Refused(problem=problem, error=error):
            seen = f"{modalities}: cannot be read ({error}: {problem})"
            return failed(name, seen, "check its driver and connection", SensorError, catalogue.SENSOR_UNUSABLE)
        case Died(how=how):
            seen = f"{modalities}: reading it ends the process ({how})"
            remedy = "check its driver, and install the packages that it uses anew"
            return failed(name, seen, remedy, SensorError, catalogue.SENSOR_UNUSABLE)
        case Hung(after_s=after_s):
            seen = f"{modalities}: was not opened and read within {after_s:.0f} s"
            return warning(name, seen, "large recordings take longer; else check its driver and connection")
