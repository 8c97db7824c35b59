"""qemu and Debian's kernel, downloaded and unpacked into a cache: nothing is installed, and root is not needed."""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

QEMU, KERNEL = "qemu-system-x86", "linux-image-amd64"
LIBRARIES = "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"


class MissingError(Exception):
    """Something that the rig cannot do without; the message says what, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a guest is made of: the command that starts an emulator, its environment, a kernel, and its modules."""

    emulator: tuple[str, ...]
    environment: dict[str, str]
    kernel: Path
    modules: Path


def cache_folder() -> Path:
    """Where downloads stay from one run to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mekt-drivers"


def machine(cache: Path) -> Machine:
    """What is in the cache, which is filled first where it has to be.

    Raises:
        MissingError: when this is no machine for it, or when what is missing cannot be downloaded.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise MissingError(
            f"this is {platform.system()} on {platform.machine()}; the guest runs this machine's own Python on Debian's"
            " amd64 kernel, which takes Linux on x86-64"
        )
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / "root"
    with _alone(cache):
        if not root.is_dir():
            _fill(cache, root)
    kernels = sorted(root.glob("boot/vmlinuz-*"))
    if not kernels:
        raise MissingError(f"{root} holds no kernel; remove it, and it is made anew")
    version = kernels[-1].name.removeprefix("vmlinuz-")
    modules = next(path for path in (root / "lib/modules", root / "usr/lib/modules") if (path / version).is_dir())
    return Machine(
        emulator=_emulator(root),
        environment={"LD_LIBRARY_PATH": ":".join(str(root / each) for each in LIBRARIES)} if _own(root) else {},
        kernel=kernels[-1],
        modules=modules / version,
    )


def _own(root: Path) -> bool:
    return (root / "usr/bin/qemu-system-x86_64").is_file()


def _emulator(root: Path) -> tuple[str, ...]:
    if _own(root):
        firmware = (argument for name in ("qemu", "seabios") for argument in ("-L", str(root / "usr/share" / name)))
        return (str(root / "usr/bin/qemu-system-x86_64"), *firmware)
    installed = shutil.which("qemu-system-x86_64")
    if installed is None:
        raise MissingError(f"qemu-system-x86_64 has gone since {root} was made; remove that, and it is downloaded")
    return (installed,)


def _fill(cache: Path, root: Path) -> None:
    """Download and unpack; the folder appears when all of it is there."""
    for tool in ("apt-get", "apt-cache", "dpkg-deb", "ldd"):
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is not there; qemu and the kernel come from Debian's packages")
    for folder in ("lists/partial", "archives/partial"):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    # Lists and archives of its own: the system's need root and stay as they are.
    own = ("Debug::NoLocking=1", f"Dir::State::lists={cache}/lists", f"Dir::Cache={cache}", "APT::Sandbox::User=root")
    options = [argument for each in own for argument in ("-o", each)]
    archives = cache / "archives"
    print(f"downloading qemu and Debian's kernel into {cache}, 100 MB, once", flush=True)
    _apt(["apt-get", *options, "update", "--quiet", "--error-on=any"])
    kernel = next(
        (
            line.split()[1]
            for line in _apt(["apt-cache", *options, "depends", KERNEL]).splitlines()
            if line.split()[:1] == ["Depends:"] and line.split()[1].startswith("linux-image-")
        ),
        None,
    )
    if kernel is None:
        raise MissingError(f"this system's package sources have no {KERNEL}; those of Debian for amd64 do")
    if shutil.which("qemu-system-x86_64") is None:
        # With all that it needs and this system lacks.
        _apt(["apt-get", *options, "install", "--download-only", "--yes", "--no-install-recommends", QEMU])
    _apt(["apt-get", *options, "download", kernel], within=archives)
    fresh = cache / "root.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for package in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(fresh)])
        package.unlink()
    fresh.rename(root)


def _apt(command: Sequence[str], within: Path | None = None) -> str:
    try:
        return _run(command, within)
    except subprocess.CalledProcessError as error:
        problems = [line for line in error.stderr.splitlines() if line.startswith(("E:", "W:"))]
        raise MissingError(
            f"{' '.join(word for word in command if '=' not in word and word != '-o')} failed; without a network and"
            " Debian's package sources there is no kernel to boot:\n  " + "\n  ".join(problems[:6] or [error.stderr])
        ) from error


def _run(command: Sequence[str], within: Path | None = None) -> str:
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=within, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Two rigs that start at once do not both download."""
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
