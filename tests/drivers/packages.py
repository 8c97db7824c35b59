"""What the guest is made of: qemu and Debian's kernel, from a cache that is filled first where it has to be."""

import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.debian import Debian, Emulator, MissingError, alone, emulator

PACKAGE, PROGRAM, KERNEL = "qemu-system-x86", "qemu-system-x86_64", "linux-image-amd64"


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """An emulator, a kernel, and its modules."""

    emulator: Emulator
    kernel: Path
    modules: Path


def machine(cache: Path) -> Machine:
    """What is in the cache.

    Raises:
        MissingError: when this is no machine for it, or when what is missing cannot be downloaded.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise MissingError(
            f"this is {platform.system()} on {platform.machine()}; the guest runs this machine's own Python on Debian's"
            " amd64 kernel, which takes Linux on x86-64"
        )
    root = cache / "root"
    with alone(cache):
        if not root.is_dir():
            print(f"downloading qemu and Debian's kernel into {cache}, 100 MB, once", flush=True)
            debian = Debian(cache)
            if shutil.which("ldd") is None:
                raise MissingError("ldd is not there; it tells which libraries this Python needs")
            if shutil.which(PROGRAM) is None:
                debian.download(PACKAGE)
            debian.download_alone(debian.kernel(KERNEL))
            debian.unpack(root)
    kernel, modules = kernel_in(root)
    return Machine(emulator=emulator(root, PROGRAM, ("qemu", "seabios")), kernel=kernel, modules=modules)


def kernel_in(root: Path) -> tuple[Path, Path]:
    """The kernel of an unpacked package, and the folder of its modules.

    Raises:
        MissingError: when there is none.
    """
    kernels = sorted(root.glob("boot/vmlinuz-*"))
    if not kernels:
        raise MissingError(f"{root} holds no kernel; remove it, and it is made anew")
    version = kernels[-1].name.removeprefix("vmlinuz-")
    modules = next(path for path in (root / "lib/modules", root / "usr/lib/modules") if (path / version).is_dir())
    return kernels[-1], modules / version
