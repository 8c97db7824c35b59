"""What a part needs installed: the interpreter, the packages of its extra, a build of torch that suits the machine."""

import platform
import re
import struct
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mekt import catalogue
from mekt.attempt import Attempt, Died, Done, Hung, Outcome, Refused
from mekt.check import Check, Role, failed, ok, skipped, warning
from mekt.errors import MissingPackageError, SettingsError

LEAST_PYTHON = (3, 11)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# What packages load that none of them brings, and Debian's package of it.
LIBRARIES = {"libstdc++.so.6": "libstdc++6", "libgomp.so.1": "libgomp1", "libatomic.so.1": "libatomic1"}
LIBRARY = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")
# What the drivers of NVIDIA's cards, of Jetson boards and of WSL make.
GPU_FILES = ("nvidia[0-9]*", "nvmap", "nvhost-ctrl", "dxg")


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A package as pip calls it, the module by which it is tried, and the least version, as in pyproject.toml."""

    name: str
    module: str
    least: str


BASE = (
    Package(name="numpy", module="numpy", least="1.26"),
    Package(name="msgpack", module="msgpack", least="1.0"),
    Package(name="paho-mqtt", module="paho.mqtt.client", least="2.1"),
)
TORCH = Package(name="torch", module="torch", least="2.4")
ONNX = Package(name="onnx", module="onnx", least="1.16")
ONNXRUNTIME = Package(name="onnxruntime", module="onnxruntime", least="1.18")
# What settings ask for beside the role's own, by the name of the extra.
Extra = Literal["secure", "authority"]
CRYPTOGRAPHY = Package(name="cryptography", module="cryptography", least="42")
# By role, which is also the name of the extra.
PACKAGES: dict[Role, tuple[Package, ...]] = {
    "edge": (*BASE, TORCH),
    "coordinator": (*BASE, TORCH, ONNX, ONNXRUNTIME),
    "wearable": (*BASE, ONNXRUNTIME),
}


def check_python(
    version: tuple[int, ...] = sys.version_info[:3],
    pointer_bits: int = 8 * struct.calcsize("P"),
    machine: str = platform.machine(),
) -> Check:
    """Whether this interpreter is new enough and has 64 bits."""
    seen = f"{'.'.join(map(str, version))}, {pointer_bits}-bit, on {machine}"
    if version < LEAST_PYTHON:
        return failed(
            "python",
            seen,
            "Mekt needs Python 3.11 or later; make a new environment",
            MissingPackageError,
            catalogue.PYTHON_UNFIT,
        )
    if pointer_bits < 64:
        remedy = (
            "torch and onnxruntime have no packages for 32-bit systems, such as Arm's armv7l, also where the processor "
            "has 64 bits: pip finds none there; install a 64-bit operating system (`uname -m` says aarch64 or x86_64)"
        )
        return failed("python", seen, remedy, MissingPackageError, catalogue.PYTHON_UNFIT)
    return ok("python", seen)


def check_packages(
    role: Role, limit_s: float, extras: Collection[Extra] = ()
) -> Iterator[tuple[Check, dict[str, Any] | None]]:
    """A check for each package of the role and its extras, with what it told when it was imported, if it was."""
    needed = (*PACKAGES[role], *((CRYPTOGRAPHY,) if extras else ()))
    tried = [(each, Attempt("import", each.module)) for each in needed]
    line = install_line(role, extras)
    for package, attempt in tried:
        outcome = attempt.outcome(limit_s)
        yield _package(package, outcome, line), outcome.facts if isinstance(outcome, Done) else None


def _package(package: Package, outcome: Outcome, line: str) -> Check:
    match outcome:
        case Done(facts=facts):
            version = str(facts["version"])
            if _numbers(version) < _numbers(package.least):
                seen = f"{version} is older than {package.least}"
                return failed(package.name, seen, line, MissingPackageError, catalogue.PACKAGE_MISSING)
            return ok(package.name, version)
        case Refused(error="ModuleNotFoundError", problem=problem):
            return failed(
                package.name,
                f"not installed ({problem})",
                line,
                MissingPackageError,
                catalogue.PACKAGE_MISSING,
            )
        case Refused(error=error, problem=problem):
            seen = f"is installed and cannot be imported ({error}: {problem})"
            remedy = _library(problem) or _other_build(package)
            return failed(package.name, seen, remedy, MissingPackageError, catalogue.PACKAGE_UNUSABLE)
        case Died(how="SIGILL"):
            seen = "ends the process with SIGILL: this build has instructions that this processor does not know"
            return failed(package.name, seen, _other_build(package), MissingPackageError, catalogue.PACKAGE_UNUSABLE)
        case Died(how="SIGKILL"):
            seen, remedy = "its process was killed, as the kernel does where memory runs out", "end others or add swap"
            return failed(package.name, seen, remedy, MissingPackageError, catalogue.PACKAGE_UNUSABLE)
        case Died(how=how):
            seen = f"ends the process when it is imported or computes ({how})"
            return failed(package.name, seen, _other_build(package), MissingPackageError, catalogue.PACKAGE_UNUSABLE)
        case Hung(after_s=after_s, idle=True):
            seen = f"is not imported after {after_s:.0f} s: it hangs, waiting for something and not at work"
            return failed(package.name, seen, _other_build(package), MissingPackageError, catalogue.PACKAGE_UNUSABLE)
        case Hung(after_s=after_s):
            seen = f"is not imported after {after_s:.0f} s, and was given up at work: this machine is slow or busy"
            remedy = f"try again when it has less to do; else: {_other_build(package)}"
            return warning(package.name, seen, remedy)


def install_line(role: Role, extras: Collection[Extra] = ()) -> str:
    """The one line that installs what a role and its extras need."""
    index = f" --extra-index-url {CPU_INDEX}" if role != "wearable" and platform.machine() == "aarch64" else ""
    return f'in the folder of Mekt: pip install -c constraints.txt{index} -e ".[{",".join((role, *sorted(extras)))}]"'


def _library(problem: str) -> str:
    """How to install a library of the system's that is missing; "" when nothing says so."""
    found = LIBRARY.search(problem)
    return f"sudo apt-get install {LIBRARIES[found[1]]}" if found and found[1] in LIBRARIES else ""


def _other_build(package: Package) -> str:
    if package is TORCH:
        return f"install the CPU build, of another version if need be: pip install --force-reinstall {_from_index()}"
    return f"install it again, of another version if need be: pip install --force-reinstall {package.name}"


def _from_index(version: str = "") -> str:
    return f"torch{version and f'=={version}'} --index-url {CPU_INDEX}"


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version; of an unknown version, more than any."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(each) for each in found[0].split(".")) if found else (sys.maxsize,)


def gpu_is_there(devices: Path = Path("/dev")) -> bool:
    """Whether a driver of NVIDIA's has made a device here."""
    return any(True for pattern in GPU_FILES for _ in devices.glob(pattern))


def check_torch_build(facts: dict[str, Any] | None, gpu_there: bool) -> Check:
    """Whether the build of torch suits a machine with or without an NVIDIA GPU."""
    if facts is None:
        return skipped("torch build", "torch cannot be imported")
    cuda = facts["cuda"]
    if cuda is None:
        return ok("torch build", "without CUDA")
    if facts["gpu"]:
        return ok("torch build", f"for CUDA {cuda}, with a GPU that it can use")
    if gpu_there:
        remedy = "bring NVIDIA's driver to what this build needs; until then it computes on the processor"
        return warning("torch build", f"for CUDA {cuda}; there is a GPU, and torch cannot use it", remedy)
    version = str(facts["version"]).split("+")[0]
    remedy = f"the CPU build saves gigabytes: pip install --force-reinstall {_from_index(version)}"
    return warning("torch build", f"for CUDA {cuda}, on a machine without an NVIDIA GPU", remedy)


def check_compute(wanted: str, facts: dict[str, Any] | None) -> Iterator[Check]:
    """Whether torch has the GPU that a federation's settings insist on; nothing where they do not."""
    if wanted == "cuda" and facts is not None and not facts["gpu"]:
        remedy = 'install its CUDA build and the driver, or set compute = "cpu"'
        yield failed(
            "compute", 'compute = "cuda", and torch has no GPU that it can use', remedy, SettingsError, catalogue.NO_GPU
        )
