"""What the board is made of: an emulator, a kernel, a card with Debian for 64-bit Arm and what a wearable installs."""

import compileall
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.debian import Debian, Emulator, MissingError, alone, emulator, run
from tests.drivers.initramfs import Archive, add_modules
from tests.drivers.packages import kernel_in

ROOT = Path(__file__).parents[2]
GUEST = Path(__file__).parent / "guest"
EMULATOR, PROGRAM = "qemu-system-arm", "qemu-system-aarch64"
KERNEL = "linux-image-arm64"
# openssl makes a wearable's key; onnxruntime and numpy load libstdc++, which no package of Python's brings along.
PACKAGES = ("busybox-static", "python3", "openssl", "libstdc++6")
TOOLS = ("sh", "cat", "cut", "echo", "ip", "ls", "mount", "poweroff", "sed", "sleep", "stty", "sync")
MODULES = {"virtio_mmio": "", "virtio_blk": "", "ext4": "", "crc32c_generic": "", "virtio_net": ""}
OURS = ("mekt", "edge", "export", "sensors")
PROFILE = ROOT / "requirements" / "wearable.txt"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")
PYTHON = (3, 11)
CARD_MB = 768
LEFT_OUT = ("modules", "doc", "man", "locale")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """An emulator, the kernel, its first file system, Debian's files, and the wearable's packages."""

    emulator: Emulator
    kernel: Path
    initramfs: bytes
    root: Path
    profile: Path


def parts(cache: Path) -> Parts:
    """What is in the cache, which is filled first where it has to be.

    Raises:
        MissingError: when what is missing cannot be downloaded, or this machine cannot make a card.
    """
    if shutil.which("mke2fs") is None:
        raise MissingError("mke2fs is not there, which makes the card; install e2fsprogs")
    if sys.version_info[:2] != PYTHON:
        raise MissingError("the card's Python is 3.11, for which this one compiles what is on it; use Python 3.11")
    host, root = cache / "host" / "root", cache / "arm" / "root"
    with alone(cache):
        if not host.is_dir():
            print(f"downloading qemu into {cache}, 20 MB, once", flush=True)
            debian = Debian(host.parent)
            if shutil.which(PROGRAM) is None:
                debian.download(EMULATOR)
            debian.unpack(host)
        if not root.is_dir():
            print(f"downloading Debian for 64-bit Arm into {cache}, 80 MB, once", flush=True)
            debian = Debian(root.parent, "arm64")
            debian.download(*PACKAGES)
            debian.download_alone(debian.kernel(KERNEL))
            debian.unpack(root)
        profile = _profile(cache)
    kernel, modules = kernel_in(root)
    return Parts(
        emulator=emulator(host, PROGRAM),
        kernel=kernel,
        initramfs=_first_files(root, modules),
        root=root,
        profile=profile,
    )


def make_card(made: Parts, image: Path, files: Mapping[str, bytes]) -> None:
    """A card with all of it, this Mekt, and `files` in /etc/mekt, as an image of an ext4 file system."""
    with tempfile.TemporaryDirectory(prefix="mekt-card-", dir=image.parent) as place:
        card = Path(place)
        shutil.copytree(made.root, card, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        shutil.copytree(made.profile, card / "usr/lib/python3/dist-packages", dirs_exist_ok=True)
        for name in OURS:
            shutil.copytree(ROOT / name, card / "opt/mekt" / name, ignore=shutil.ignore_patterns("__pycache__"))
        # A board takes minutes for it.
        for name in ("usr/lib/python3.11", "usr/lib/python3", "opt/mekt"):
            compileall.compile_dir(card / name, quiet=2, stripdir=place)
        for name in ("proc", "sys", "dev", "tmp", "etc/mekt"):
            (card / name).mkdir(parents=True, exist_ok=True)
        for tool in TOOLS:
            (card / "bin" / tool).unlink(missing_ok=True)
            (card / "bin" / tool).symlink_to("busybox")
        shutil.copy(GUEST / "board.sh", card / "sbin/board")
        (card / "sbin/board").chmod(0o755)
        for name, data in files.items():
            (card / "etc/mekt" / name).write_bytes(data)
            (card / "etc/mekt" / name).chmod(0o600)
        run(["mke2fs", "-q", "-t", "ext4", "-d", str(card), str(image), f"{CARD_MB}M"])


def examine(image: Path) -> str:
    """What `e2fsck` finds wrong with a card, once its journal was played back as at the next start; "" when nothing."""
    subprocess.run(["e2fsck", "-p", str(image)], capture_output=True, check=False)
    done = subprocess.run(["e2fsck", "-f", "-n", str(image)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout


def _profile(cache: Path) -> Path:
    """The wearable's packages, as its list of hashes has them, for the board."""
    folder = cache / f"profile-{hashlib.sha256(PROFILE.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        print(f"downloading what a wearable installs into {folder}, 40 MB, once", flush=True)
        fresh = folder.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        which = [word for each in PLATFORMS for word in ("--platform", each)]
        which += ["--python-version", ".".join(map(str, PYTHON)), "--implementation", "cp", "--only-binary", ":all:"]
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--target",
            str(fresh),
            "--require-hashes",
            *which,
        ]
        try:
            run([*command, "-r", str(PROFILE)])
        except subprocess.CalledProcessError as error:
            raise MissingError(f"{PROFILE.name} cannot be fetched for the board: {error.stderr[-500:]}") from error
        fresh.rename(folder)
    return folder


def _first_files(root: Path, modules: Path) -> bytes:
    archive = Archive()
    for path in ("/proc", "/sys", "/dev", "/card"):
        archive.folder(path)
    archive.copy(root / "bin/busybox", "/bin/busybox")
    loaded = add_modules(archive, modules, MODULES)
    archive.add("/modules.txt", "".join(f"{path}\n" for path, _ in loaded).encode())
    archive.add("/init", (GUEST / "init.sh").read_bytes(), mode=0o755)
    return archive.pack()
