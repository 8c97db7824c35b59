"""Debian's packages, downloaded and unpacked into a cache: nothing is installed, and root is not needed."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


class MissingError(Exception):
    """Something that cannot be done without; the message says what, and what to do."""


def cache_folder(name: str) -> Path:
    """Where downloads stay from one run to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name


class Debian:
    """Packages of this system's sources, for this machine or for another `architecture`.

    For this machine what is installed counts as there; for another one nothing does.
    """

    def __init__(self, cache: Path, architecture: str | None = None) -> None:
        """`cache` holds lists and archives of its own: the system's need root and stay as they are.

        Raises:
            MissingError: when there is no apt here, or it cannot be reached.
        """
        for tool in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise MissingError(f"{tool} is not there; what runs here comes from Debian's packages")
        for folder in ("lists/partial", "archives/partial"):
            (cache / folder).mkdir(parents=True, exist_ok=True)
        self._archives = cache / "archives"
        own = [
            "Debug::NoLocking=1",
            f"Dir::State::lists={cache}/lists",
            f"Dir::Cache={cache}",
            "APT::Sandbox::User=root",
        ]
        if architecture is not None:
            (cache / "status").touch()
            own += [f"APT::Architecture={architecture}", f"APT::Architectures::={architecture}"]
            own += [f"Dir::State::status={cache / 'status'}"]
        self._options = [argument for each in own for argument in ("-o", each)]
        self._apt("apt-get", "update", "--quiet", "--error-on=any")

    def kernel(self, newest: str) -> str:
        """The name of the kernel's package that the package `newest` stands for."""
        for line in self._apt("apt-cache", "depends", newest).splitlines():
            words = line.split()
            if words[:1] == ["Depends:"] and words[1].startswith("linux-image-"):
                return words[1]
        raise MissingError(f"this system's package sources have no {newest}; those of Debian do")

    def download(self, *packages: str) -> None:
        """These, with all that they need."""
        self._apt("apt-get", "install", "--download-only", "--yes", "--no-install-recommends", *packages)

    def download_alone(self, package: str) -> None:
        """This one, without what it needs."""
        self._apt("apt-get", "download", package, within=self._archives)

    def unpack(self, root: Path) -> None:
        """All that was downloaded, into the folder `root`, which appears when all of it is there."""
        fresh = root.with_name(f"{root.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        for package in sorted(self._archives.glob("*.deb")):
            run(["dpkg-deb", "--extract", str(package), str(fresh)])
            package.unlink()
        fresh.rename(root)

    def _apt(self, program: str, *words: str, within: Path | None = None) -> str:
        try:
            return run([program, *self._options, *words], within)
        except subprocess.CalledProcessError as error:
            problems = [line for line in error.stderr.splitlines() if line.startswith(("E:", "W:"))]
            raise MissingError(
                f"{program} {' '.join(words)} failed; without a network and Debian's package sources there is nothing "
                "to boot:\n  " + "\n  ".join(problems[:6] or [error.stderr])
            ) from error


def run(command: Sequence[str], within: Path | None = None) -> str:
    """What a program writes.

    Raises:
        CalledProcessError: when it ends with anything but 0.
    """
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=within, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Two that start at once do not both download."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, kw_only=True, slots=True)
class Emulator:
    """The command that starts one of qemu's emulators, and its environment."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def emulator(root: Path, program: str, firmware: Sequence[str] = ("qemu",)) -> Emulator:
    """A program of qemu's, unpacked under `root` or of this system; `firmware`: folders of /usr/share.

    Raises:
        MissingError: when it is neither here nor there.
    """
    own, installed = root / "usr/bin" / program, shutil.which(program)
    if own.is_file():
        places = (argument for name in firmware for argument in ("-L", str(root / "usr/share" / name)))
        libraries = ":".join(str(root / each / "x86_64-linux-gnu") for each in ("usr/lib", "lib"))
        return Emulator(command=(str(own), *places), environment={"LD_LIBRARY_PATH": libraries})
    if installed is None:
        raise MissingError(f"{program} has gone since {root} was made; remove that, and it is downloaded")
    return Emulator(command=(installed,))
