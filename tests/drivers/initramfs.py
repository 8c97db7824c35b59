"""The guest's whole file system, in memory: this Python, what the sources need, their tests, and kernel modules.

The format is "newc" of cpio, as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst describes it.
"""

import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Of Python's own library, what takes space and is of no use there.
LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "site-packages", "distutils")
EXTENSIONS_LEFT_OUT = ("_tkinter", "_test", "_ctypes_test", "xx")
TRAILER = "TRAILER!!!"
LIBRARY = re.compile(r"(/\S+) \(0x[0-9a-f]+\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file, folder or link: mode as in stat, and for a link its target as content."""

    mode: int
    content: bytes = b""
    mtime: int = 0


class Archive:
    """Files by their absolute path in the guest; folders come by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, path: str, content: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
        """Put a file there."""
        self._put(path, Entry(mode=stat.S_IFREG | mode, content=content, mtime=mtime))

    def folder(self, path: str) -> None:
        """Make an empty folder."""
        self._put(path, Entry(mode=stat.S_IFDIR | 0o755))

    def copy(self, path: Path, to: str | None = None) -> None:
        """Put this machine's file there, at the same place unless `to` says where; for a link, what it points to."""
        there = path.stat()
        # With its time, by which Python knows that what it has compiled is of the same source.
        self.add(to or str(path), path.read_bytes(), mode=stat.S_IMODE(there.st_mode), mtime=int(there.st_mtime))

    def copy_tree(self, folder: Path, to: str | None = None, *, without: Sequence[str] = ()) -> None:
        """Put a folder's files there, without those in folders of these names, however deep."""
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and not any(part in without for part in inside.parts[:-1]):
                self.copy(path, f"{to or folder}/{inside}")

    def paths(self) -> list[str]:
        """All files."""
        return sorted(path for path, entry in self._entries.items() if stat.S_ISREG(entry.mode))

    def pack(self) -> bytes:
        """As the kernel unpacks it."""
        parts = [record(path.lstrip("/"), entry, number) for number, (path, entry) in enumerate(self._entries.items())]
        return b"".join([*parts, record(TRAILER, Entry(mode=0), 0)])

    def _put(self, path: str, entry: Entry) -> None:
        # The kernel makes no folder that was not named before.
        for parent in reversed(Path(path).parents):
            if str(parent) != "/" and str(parent) not in self._entries:
                self._entries[str(parent)] = Entry(mode=stat.S_IFDIR | 0o755)
        self._entries[path] = entry


def record(name: str, entry: Entry, number: int) -> bytes:
    """One entry of the archive, padded to four bytes: a header of eight hexadecimal digits a field, name, content."""
    encoded = name.encode() + b"\0"
    fields = (number, entry.mode, 0, 0, 1, entry.mtime, len(entry.content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return padded(head) + padded(entry.content)


def padded(data: bytes) -> bytes:
    """The data and zeros up to the next multiple of four bytes."""
    return data + bytes(-len(data) % 4)


def add_python(archive: Archive, packages: Iterable[str]) -> None:
    """This interpreter, its library, these packages of its environment, and the shared libraries that they load."""
    interpreter = Path(sys.executable).resolve()
    library, extensions = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_config_var("DESTSHARED"))
    configured = {path.name for path in library.glob("config-*")}
    archive.copy(interpreter)
    archive.copy_tree(library, without=[*LEFT_OUT, *configured, extensions.name])
    needed = [interpreter]
    for path in sorted(extensions.glob("*.so")):
        if not path.name.startswith(EXTENSIONS_LEFT_OUT):
            archive.copy(path)
            needed.append(path)
    for name in packages:
        for root in dict.fromkeys(sysconfig.get_path(key) for key in ("purelib", "platlib")):
            folder = Path(root) / name
            if folder.is_dir():
                archive.copy_tree(folder, f"/site/{name}", without=LEFT_OUT)
                needed += sorted(folder.rglob("*.so*"))
            elif folder.with_suffix(".py").is_file():
                archive.copy(folder.with_suffix(".py"), f"/site/{name}.py")
    environment = sysconfig.get_path("platlib")
    for found in shared_libraries(needed):
        if not found.startswith(environment):
            archive.copy(Path(found).resolve(), found)


def shared_libraries(files: Sequence[Path]) -> list[str]:
    """What the dynamic linker would load for these, by the paths at which it looks."""
    done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    return sorted(set(LIBRARY.findall(done.stdout)))


def add_modules(archive: Archive, modules: Path, wanted: Mapping[str, str]) -> list[tuple[str, str]]:
    """Kernel modules and all that they need: paths in the guest and parameters, in the order to load them."""
    files = {path.name.removesuffix(".ko").replace("-", "_"): path for path in modules.rglob("*.ko")}
    order: list[str] = []
    for name in wanted:
        for each in with_what_it_needs(name.replace("-", "_"), files):
            if each not in order:
                order.append(each)
    parameters = {name.replace("-", "_"): text for name, text in wanted.items()}
    for name in order:
        archive.copy(files[name], f"/modules/{name}.ko")
    return [(f"/modules/{name}.ko", parameters.get(name, "")) for name in order]


def with_what_it_needs(name: str, files: Mapping[str, Path]) -> list[str]:
    """A module behind all those that it depends on."""
    order: list[str] = []
    for needed in depends(files[name].read_bytes()):
        order += [each for each in with_what_it_needs(needed, files) if each not in order]
    return [*order, name]


def depends(module: bytes) -> list[str]:
    """The names in the module's own `depends=`, in its section .modinfo of strings that end with a zero."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    names = found[1].decode().split(",") if found else []
    return [name.replace("-", "_") for name in names if name]
