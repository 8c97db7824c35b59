"""Something tried in a process of its own, so that a crash or a hang of it is news and not the end: the doctor's hands.

    python -m mekt.attempt import MODULE          imports it and has it compute something
    python -m mekt.attempt settings ROLE FILE     reads a settings file and looks for the recordings that it names
    python -m mekt.attempt sensor FILE INDEX S    opens one of its sensors and reads for at most S seconds
    python -m mekt.attempt release NEW OLD MB S   tries a release on the windows that it reads (`edge.updates.selftest`)

The answer is a line of JSON: {"facts": ...} or {"problem": text, "error": the exception's name, "number": n},
where the number is 0 for an exception that is none of Mekt's.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mekt import catalogue
from mekt.catalogue import BY_NUMBER, Entry
from mekt.errors import MektError, SensorError
from mekt.leash import leashed

READ_S = 0.5
# Whoever is at work needs more of the processor in this time than the kernel's unit, 0.01 s, or waits for a disk.
IDLE_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """It worked, and this was found."""

    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """It raised an exception; `exit_code` is that of a family of Mekt's, else 1, `entry` says which error of its."""

    problem: str
    error: str
    exit_code: int = 1
    entry: Entry | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Died:
    """The process ended without an answer: by a signal's name, or by an exit code in words."""

    how: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Hung:
    """No answer came in time; the process was ended. `idle`: it waited for something, and computed and read nothing."""

    after_s: float
    idle: bool = False


Outcome = Done | Refused | Died | Hung


class Attempt:
    """A process at work, which does not outlive this one. Several may run at a time; each has to be waited for."""

    def __init__(self, *words: str, given: bytes = b"") -> None:
        """Begin with it; what is `given` it can read from its standard input."""
        # It shall import what this process would import, wherever this one has that from.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(
            leashed([sys.executable, "-P", "-m", "mekt.attempt", *words]),
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self._given: bytes | None = given or None

    def outcome(self, limit_s: float) -> Outcome:
        """What came of it, at most `limit_s` from its start; then it is ended, and whatever it has started.

        What it does in the last `IDLE_S` tells one that hangs from one that is slow; that long is looked in any case.
        """
        try:
            said = self._answer(limit_s - IDLE_S, 0.05)
            before = None if said is not None else _work_of(self._process.pid)
            said = self._answer(limit_s, IDLE_S) if said is None else said
            if said is None:
                return Hung(after_s=limit_s, idle=before is not None and before == _work_of(self._process.pid))
        finally:
            self._end()
        return _outcome(said, self._process.returncode)

    def stop(self) -> None:
        """End it, and whatever it has started, while another thread waits for its outcome."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _answer(self, limit_s: float, least_s: float) -> bytes | None:
        """All that it has said, once it has ended; None where it has not by `limit_s` from its start."""
        try:
            # What is given once is sent on by itself when this goes on.
            given, self._given = self._given, None
            left_s = max(least_s, self._began_s + limit_s - time.monotonic())
            said, _ = self._process.communicate(given, timeout=left_s)
        except subprocess.TimeoutExpired:
            return None
        return said

    def _end(self) -> None:
        if self._process.poll() is None:
            self.stop()
            self._process.communicate()


def _outcome(said: bytes, code: int) -> Outcome:
    if code < 0:
        return Died(how=_signal_name(-code))
    try:
        answer = json.loads(said)
        if "facts" in answer:
            return Done(facts=answer["facts"])
        entry = BY_NUMBER.get(answer["number"])
        code = 1 if entry is None else entry.exit_code
        return Refused(problem=answer["problem"], error=answer["error"], exit_code=code, entry=entry)
    except (ValueError, KeyError, TypeError):
        return Died(how=f"exit code {code} without a word")


def _work_of(session: int) -> int | None:
    """Processor time of all processes of a session, in the kernel's unit.

    None where that is not known, and while one of them waits for the processor or a disk: then it is at work.
    """
    used = 0
    for path in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        try:
            # After the name, which may hold anything: state, parent, group, session, ...
            state, *fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(fields[2]) == session:
            if state in ("R", "D"):
                return None
            used += int(fields[10]) + int(fields[11])
    return used or None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# The other side


def main(words: Sequence[str]) -> NoReturn:
    """Try what the words say, print the answer and end the process."""
    # A crash is expected here, and its memory of no use.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Whatever is tried may print; the answer has the pipe for itself.
    answer_fd = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    kind, *rest = words
    try:
        answer: dict[str, Any] = {"facts": KINDS[kind](*rest)}
    except MektError as error:
        answer = {"problem": str(error), "error": type(error).__name__, "number": error.number}
    except Exception as error:
        answer = {"problem": str(error), "error": type(error).__name__, "number": 0}
    with os.fdopen(answer_fd, "w") as pipe:
        json.dump(answer, pipe)
    # An answer has been given; a package that crashes or hangs when it is unloaded must not take it back.
    os._exit(0)


def _import(name: str) -> dict[str, Any]:
    module = importlib.import_module(name)
    facts = TRIALS[name](module) if name in TRIALS else {}
    return {"version": _version(name, module), **facts}


def _version(name: str, module: Any) -> str:
    root = name.split(".")[0]
    import importlib.metadata  # of no use to who only tries

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version({"paho": "paho-mqtt"}.get(root, root))
    return str(getattr(module, "__version__", "") or "of unknown version")


def _try_numpy(numpy: Any) -> dict[str, Any]:
    square = numpy.ones((64, 64), numpy.float32)
    assert (square @ square)[0, 0] == 64, "it computes wrongly"
    return {}


def _try_torch(torch: Any) -> dict[str, Any]:
    """A step forward and back through what encoders are made of: some builds import well, and die at this."""
    x = torch.ones(2, 8, 3)
    sequence, _ = torch.nn.LSTM(3, 4, batch_first=True)(x)
    (sequence.sum() + torch.nn.Conv1d(3, 4, 3)(x.transpose(1, 2)).sum()).backward()
    return {"cuda": getattr(torch.version, "cuda", None), "gpu": bool(torch.cuda.is_available())}


TRIALS: dict[str, Callable[[Any], dict[str, Any]]] = {"numpy": _try_numpy, "torch": _try_torch}


def _settings(role: str, file: str) -> dict[str, Any]:
    path = Path(file)
    if role == "coordinator":
        return _federation(path)
    if role == "edge":
        settings = importlib.import_module("edge.settings").read_device(path)
    elif importlib.import_module("mekt.settings").read_table(path).keys() & {"release", "updates"}:
        settings = importlib.import_module("edge.wearable.settings").read_wearable(path)
    else:
        source = importlib.import_module("edge.infer").SourceSettings
        settings = importlib.import_module("mekt.settings").read_toml(path, source)
    return {"sensors": [list(each.modalities) for each in settings.sensors]}


def _federation(path: Path) -> dict[str, Any]:
    part = importlib.import_module("coordinator.settings")
    settings = part.read_federation(path)
    there, missing = {}, []
    for kind in part.KINDS:
        try:
            there[kind] = len(part.recordings(settings, path.parent, kind))
        except MektError as error:
            missing += str(error).splitlines()
    return {"sensors": [], "compute": settings.compute, "recordings": there, "missing": missing}


def _sensor(file: str, index: str, limit_s: str) -> dict[str, Any]:
    path = Path(file)
    part = importlib.import_module("sensors.settings")
    table = importlib.import_module("mekt.settings").read_table(path)["sensors"][int(index)]
    source = part.sensor_settings(table).source(path.parent)
    block_type = importlib.import_module("sensors.source").Block
    samples, ended = {each.name: 0 for each in source.modalities}, False
    source.open()
    try:
        ends_s = time.monotonic() + float(limit_s)
        while not ended and not all(samples.values()) and (left_s := ends_s - time.monotonic()) > 0:
            items = source.read(min(READ_S, left_s))
            ended = items is None
            for item in items or ():
                if isinstance(item, block_type):
                    samples[item.modality] = samples.get(item.modality, 0) + len(item.t_s)
    finally:
        source.close()
    if ended and not any(samples.values()):
        raise SensorError(
            "it ended before it gave a sample; record for longer, or name another recording", catalogue.SENSOR_SILENT
        )
    return {"samples": samples}


def _wearable(file: str) -> dict[str, Any]:
    """What a wearable's release says of itself, loaded with what its sensors give; nothing is written."""
    settings = importlib.import_module("edge.wearable.settings").read_wearable(Path(file))
    assert settings.release is not None, "it has one"
    trust = None
    if settings.release.trust is not None:
        trust = importlib.import_module("mekt.identity").KeptTrust(Path(settings.release.trust)).trust
    release = importlib.import_module("export.release").read_release(Path(settings.release.file), trust)
    names = [name for each in settings.sensors for name in each.modalities]
    runtime = importlib.import_module("edge.runtime").Runtime(release, names)
    manifest = release.manifest
    return {
        "federation": manifest.federation,
        "round": manifest.round,
        "classes": list(manifest.labels),
        "modalities": list(runtime.takes(runtime.classifiers[0])),
        "unknown": settings.decide.unknown(manifest.labels),
    }


def _release(new: str, old: str, memory_mb: str, limit_s: str) -> dict[str, Any]:
    given = sys.stdin.buffer.read()
    facts: dict[str, Any] = importlib.import_module("edge.updates.selftest").tried(new, old, memory_mb, limit_s, given)
    return facts


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "import": _import,
    "settings": _settings,
    "sensor": _sensor,
    "release": _release,
    "wearable": _wearable,
}


if __name__ == "__main__":
    main(sys.argv[1:])
