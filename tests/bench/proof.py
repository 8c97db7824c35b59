"""The proof that what a recording is for is all that it reaches: it is replaced by noise, and what changes is named."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import pytest

from bench.arena import Arena
from bench.protocol import ProtocolSpec, Roles, read_arena
from sensors.source import Floats
from sensors.windows import WindowSet
from tests.recordings import HAPT

DATA = HAPT.parent
# Writes noise of the same form as the first file to the second.
Spoil = Callable[[Path, Path], None]


def needs(folder: str) -> pytest.MarkDecorator:
    """Skips where these recordings are not."""
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=f"{DATA / folder} is not there (MEKT_DATA names it)")


def names_of(roles: Roles) -> dict[str, set[str]]:
    """Recordings by role."""
    clients = {name for client in roles.clients for name in client}
    return {"client": clients, "proxy": set(roles.proxy), "labelled": set(roles.labelled), "test": set(roles.test)}


def assert_apart(groups: Mapping[str, set[str]]) -> None:
    """Nobody is in two roles."""
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))


def fingerprints(arena: Arena) -> dict[str, str]:
    """Every part of an arena by name, a device as "device <name>", to the byte."""
    datasets = arena.datasets
    assert datasets.labelled is not None and datasets.test is not None
    told: dict[str, list[bytes]] = {
        "scaling": [repr(datasets.scaling).encode()],
        "proxy": [*_bytes(datasets.proxy), *(datasets.blobs[name] for name in sorted(datasets.blobs))],
        "classes": [repr(datasets.classes).encode()],
        "labelled": _of(datasets.labelled),
        "test": _of(datasets.test),
    }
    for each in arena.devices:
        kind = repr(sorted(each.architectures.items())).encode()
        told[f"device {each.name}"] = [kind, *_of(each.private), *_of(each.whole)]
    return {name: hashlib.sha256(b"".join(parts)).hexdigest() for name, parts in told.items()}


def changed(before: Arena, after: Arena) -> set[str]:
    """The parts that differ; both have the same ones."""
    first, second = fingerprints(before), fingerprints(after)
    assert set(first) == set(second)
    return {name for name in first if first[name] != second[name]}


def spoilt(
    protocol: ProtocolSpec, rotation: int, data: Path, folder: Path, names: Collection[str], spoil: Spoil
) -> Path:
    """A folder of all data like `data`, with links to its files but for noise in place of these."""
    for name in set().union(*names_of(protocol.rotations[rotation]).values()):
        source = protocol.locate(data, name)
        target = folder / source.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in names:
            spoil(source, target)
        else:
            target.symlink_to(source)
    return folder


def spoil_npz(source: Path, target: Path) -> None:
    """Signals, frames and labels become noise; times, trials and names stay."""
    rng = np.random.default_rng(len(source.stem))
    with np.load(source) as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.startswith(("skel", "y_skel"))}
    for name in {"acc", "gyro", "feat"} & set(kept):
        kept[name] = rng.normal(40, 30, kept[name].shape).astype(np.float32)
    if "depth" in kept:
        kept["depth"] = rng.integers(0, 250, kept["depth"].shape).astype(np.uint8)
    kept["y"] = rng.choice(kept["label_values"], len(kept["y"])).astype(kept["y"].dtype)
    np.savez(target, **kept)


def prove(protocol: ProtocolSpec, data: Path, folder: Path, spoil: Spoil, rotation: int = 0) -> None:
    """Each role's recordings, replaced by noise, change what the role is for, and that alone."""
    roles = protocol.rotations[rotation]
    before = read_arena(protocol, rotation, data)
    client = roles.clients[0]
    own = {f"device {each.name}" for each in before.devices if each.name.startswith(client[0])}
    assert len(own) == protocol.parts
    reached = {
        roles.test: {"test"},
        client: own,
        roles.labelled: {"labelled"},
        # All is scaled by the proxy set, but devices hold what they sense unscaled.
        roles.proxy: {"proxy", "scaling", "labelled", "test"},
    }
    for number, (names, parts) in enumerate(reached.items()):
        after = read_arena(protocol, rotation, spoilt(protocol, rotation, data, folder / str(number), names, spoil))
        assert changed(before, after) == parts, f"{names} reach {changed(before, after)}"


def _bytes(arrays: Mapping[str, Floats]) -> list[bytes]:
    return [part for name in sorted(arrays) for part in (name.encode(), arrays[name].tobytes())]


def _of(windows: WindowSet) -> list[bytes]:
    return [*_bytes(windows.arrays), windows.labels.tobytes()]
