"""A protocol: which recordings are whose and what for, in several rotations; and one of them read as an arena."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.arena import Arena, Device
from bench.cells import ROOT
from bench.choice import Choice, Rows, even
from coordinator.datasets import datasets_of
from mekt import catalogue
from mekt.errors import SensorError, SettingsError
from mekt.modality import Modality, WindowSpec
from mekt.plan import Architecture, derived_seed
from sensors.recording import not_there, read_recording
from sensors.stream import Recording
from sensors.windows import UNLABELLED, WindowSet, windows_of

# What is left of a protocol where a whole comparison shall take a minute: devices with every set of modalities, and no
# more windows than that; a rare class may be lost.
QUICK_DEVICES = 6
QUICK_WINDOWS = 48
QUICK_PROXY_WINDOWS = 64
QUICK_SCORED_WINDOWS = 240


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """What each recording is for, by name; `clients` holds the recordings of each client.

    Raises:
        ValueError: when a recording has two roles, or a role none.
    """

    clients: tuple[tuple[str, ...], ...]
    proxy: tuple[str, ...]
    labelled: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [name for role in (*self.clients, self.proxy, self.labelled, self.test) for name in role]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]} has two roles")
        if not self.clients or not all((*self.clients, self.proxy, self.labelled, self.test)):
            raise ValueError("every role needs a recording")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolSpec:
    """All that fixes a protocol.

    A client's recordings are dealt to `parts` devices, segment by segment in turn. Device i has the modalities
    `sets[i % len(sets)]`; a round draws `share` of the devices. `classes` are the labels' names that are scored, any
    other label is none. `locate` gives the file of a recording below the folder of all data, `page` says where to
    fetch them, `prepare` makes of a recording what is cut into windows. `architecture` is everybody's,
    `method` what is changed in every method's settings.
    """

    name: str
    modalities: tuple[Modality, ...]
    window: WindowSpec
    classes: tuple[str, ...]
    rotations: tuple[Roles, ...]
    sets: tuple[tuple[str, ...], ...]
    share: float
    locate: Callable[[Path, str], Path]
    page: str
    parts: int = 1
    proxy_windows: int = 512
    architecture: Architecture = "conv"
    method: Mapping[str, int] = field(default_factory=dict)
    prepare: Callable[[Recording], Recording] = lambda recording: recording


def data_folder(named: Path | None) -> Path:
    """The folder of all recordings.

    Raises:
        SettingsError: when it is not there.
    """
    path = named or Path(os.environ.get("MEKT_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        raise SettingsError(
            f"--data: no folder {path}; name the recordings' folder with --data DIR or MEKT_DATA",
            catalogue.DATA_FOLDER_UNFIT,
        )
    return path.absolute()


def read_arena(
    protocol: ProtocolSpec,
    rotation: int,
    data: Path,
    *,
    quick: bool = False,
    proxy_windows: int | None = None,
    labelled_share: float = 1.0,
    seed: int = 0,
    proxy_rows: Choice = even,
    architectures: Mapping[int, Mapping[str, Architecture]] | None = None,
) -> Arena:
    """One rotation, read from the recordings below `data`; equal files and arguments give equal bytes.

    Args:
        protocol: says which recordings are whose.
        rotation: an index of its rotations.
        data: the folder of all data.
        quick: fewer devices and fewer windows of everything.
        proxy_windows: how many, of those that the proxy recordings hold; the protocol's number when None.
        labelled_share: the share of each class's labelled windows that the coordinator has, one of each at least.
            A smaller share of the same seed is a part of a larger one.
        seed: draws the labelled windows and the proxy set, where they are drawn.
        proxy_rows: chooses the proxy set.
        architectures: per device, counted from 0, and modality; the protocol's own where nothing is said.

    Raises:
        SettingsError: when there is no such rotation or share, or a set of windows cannot be what it is for.
        SensorError: when a recording is not there or cannot be read, or a client's hold no window.
    """
    if not 0 <= rotation < len(protocol.rotations):
        raise SettingsError(
            f"rotation: {protocol.name} has 0 to {len(protocol.rotations) - 1}, not {rotation}",
            catalogue.CHOICE_UNKNOWN,
        )
    if not 0 < labelled_share <= 1:
        raise SettingsError(
            f"labelled_share: expected a share above 0 up to 1, got {labelled_share:g}", catalogue.ARGUMENTS_UNFIT
        )
    roles = protocol.rotations[rotation]
    sensed = _windows(protocol, (_read(protocol, data, name) for name in roles.proxy))
    if len(sensed) < 2:
        raise SettingsError(
            f"proxy: {', '.join(roles.proxy)} hold {len(sensed)} windows; a proxy set needs two",
            catalogue.TOO_FEW_RECORDED,
        )
    wanted = proxy_windows or (QUICK_PROXY_WINDOWS if quick else protocol.proxy_windows)
    rows = proxy_rows(sensed.arrays, min(wanted, len(sensed)), seed)
    labelled, test = (
        _scored(_windows(protocol, (_read(protocol, data, name) for name in names)), quick)
        for names in (roles.labelled, roles.test)
    )
    labelled = labelled.select(_share_of_each(labelled, labelled_share, derived_seed(seed, "labelled")))
    return Arena(
        protocol=protocol.name,
        rotation=rotation,
        modalities=protocol.modalities,
        window=protocol.window,
        datasets=datasets_of(protocol.modalities, protocol.classes, sensed.select(rows).arrays, labelled, test),
        devices=tuple(_devices(protocol, roles, data, quick, architectures or {})),
        share=protocol.share,
    )


def read_test(protocol: ProtocolSpec, rotation: int, data: Path) -> dict[str, Recording]:
    """The recordings of a rotation's test as they are, by name.

    Raises:
        SensorError: when one is not there or cannot be read.
    """
    return {name: _read(protocol, data, name) for name in protocol.rotations[rotation].test}


def _devices(
    protocol: ProtocolSpec,
    roles: Roles,
    data: Path,
    quick: bool,
    architectures: Mapping[int, Mapping[str, Architecture]],
) -> Iterable[Device]:
    """The clients' devices, in their order; each is named by its client's first recording."""
    clients = roles.clients[: max(1, QUICK_DEVICES // protocol.parts)] if quick else roles.clients
    for number, names in enumerate(clients):
        played = [_read(protocol, data, name) for name in names]
        for part in range(protocol.parts):
            dealt = [(each, each.segments[part :: protocol.parts]) for each in played]
            whole = _windows(protocol, [replace(each, segments=kept) for each, kept in dealt if kept])
            if len(whole) == 0:
                raise SensorError(
                    f"{', '.join(names)}: a device of {protocol.name} gets no window of them", catalogue.SENSOR_SILENT
                )
            whole = _thinned(whole, QUICK_WINDOWS) if quick else whole
            index = number * protocol.parts + part
            own = sorted(protocol.sets[index % len(protocol.sets)])
            chosen = architectures.get(index, {})
            yield Device(
                name=names[0] + ("" if protocol.parts == 1 else "abcdefgh"[part]),
                architectures={name: chosen.get(name, protocol.architecture) for name in own},
                private=WindowSet(arrays={name: whole.arrays[name] for name in own}, labels=whole.labels),
                whole=whole,
            )


def _read(protocol: ProtocolSpec, data: Path, name: str) -> Recording:
    path = protocol.locate(data, name)
    if not path.is_file():
        raise SensorError(f"{not_there(path)}; {protocol.name} is from {protocol.page}", catalogue.RECORDING_MISSING)
    return protocol.prepare(read_recording(path, [each.name for each in protocol.modalities]))


def _windows(protocol: ProtocolSpec, played: Iterable[Recording]) -> WindowSet:
    """The windows of all modalities, of no recording none."""
    if recordings := list(played):
        return windows_of(recordings, protocol.modalities, protocol.window, protocol.classes)
    empty = {each.name: np.empty((0, *protocol.window.shape(each)), np.float32) for each in protocol.modalities}
    return WindowSet(arrays=empty, labels=np.empty(0, dtype=np.int64))


def _scored(windows: WindowSet, quick: bool) -> WindowSet:
    """Those that have a label; where it shall be quick some of them."""
    windows = windows.select(windows.labels != UNLABELLED)
    return _thinned(windows, QUICK_SCORED_WINDOWS) if quick else windows


def _thinned(windows: WindowSet, count: int) -> WindowSet:
    return windows.select(even(windows.arrays, count))


def _share_of_each(windows: WindowSet, share: float, seed: int) -> Rows:
    """Rows in ascending order: of each class this share, drawn by the seed, rounded up."""
    if share == 1:
        return np.arange(len(windows))
    order = np.random.default_rng(seed).permutation(len(windows))
    kept = [np.empty(0, dtype=np.intp)]
    for label in np.unique(windows.labels):
        rows = order[windows.labels[order] == label]
        kept.append(rows[: int(np.ceil(share * len(rows)))])
    return np.sort(np.concatenate(kept)).astype(np.intp)
