"""Two public sets as the UCI archive has them, a text file for each subject and run: MHEALTH and OPPORTUNITY.

A modality joins the channels of one kind from all positions, as in Zhao, Barnaghi and Haddadi (IoTDI 2022), whose
choice FedMEKT follows (arXiv 2307.13214), so that encoders of different modalities see the same body. Channels are in
the file's order, x, y, z of each position. A row that lacks a value of a modality (NaN) is left out of it: a hole
where there are many. Label 0, no activity, has no name.

    MHEALTH       acc  (9,)  50 Hz  g      chest, left ankle, right lower arm; m/s^2 in the file
                  gyro (6,)  50 Hz  rad/s  left ankle, right lower arm; deg/s according to the set's README, but no
                                           value seen passes 1.2, not even in running: right up to a factor at best
                  mag  (6,)  50 Hz  local  left ankle, right lower arm
    OPPORTUNITY   acc  (15,) 30 Hz  g      back, upper and lower arms: RUA, RLA, LUA, LLA; milli-g in the file
                  gyro (15,) 30 Hz  rad/s  the same; thousandths in the file, of a unit that its column names call
                                           unknown: rad/s is what Xsens units give, and fits the range

Of OPPORTUNITY's sensors only the jacket's five inertial units are read: they are wired and have both modalities. The
twelve accelerometers and the shoes send by radio and are often gone, and one of them would make holes for all.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.stream import Recording, Segment, as_labels, as_stream

LabelKind = Literal["locomotion", "gestures"]

G_M_S2 = 9.80665
MHEALTH_LABELS = {
    1: "Standing still",
    2: "Sitting and relaxing",
    3: "Lying down",
    4: "Walking",
    5: "Climbing stairs",
    6: "Waist bends forward",
    7: "Frontal elevation of arms",
    8: "Knees bending (crouching)",
    9: "Cycling",
    10: "Jogging",
    11: "Running",
    12: "Jump front & back",
}
LOCOMOTION = {1: "Stand", 2: "Walk", 4: "Sit", 5: "Lie"}
GESTURES = {
    406516: "Open Door 1",
    406517: "Open Door 2",
    404516: "Close Door 1",
    404517: "Close Door 2",
    406520: "Open Fridge",
    404520: "Close Fridge",
    406505: "Open Dishwasher",
    404505: "Close Dishwasher",
    406519: "Open Drawer 1",
    404519: "Close Drawer 1",
    406511: "Open Drawer 2",
    404511: "Close Drawer 2",
    406508: "Open Drawer 3",
    404508: "Close Drawer 3",
    408512: "Clean Table",
    407521: "Drink from Cup",
    405506: "Toggle Switch",
}
# First columns of the jacket's units; each has acceleration, rotation rate, magnetic field and orientation.
BACK, RUA, RLA, LUA, LLA = 38, 51, 64, 77, 90
# Far above any line of these sets; what has no line ends is not read whole.
LONGEST_LINE_BYTES = 16_384
# No value or label is as large; what is, is missing or no label.
LARGEST = 1e9
MHEALTH_HZ, OPPORTUNITY_HZ = 50.0, 30.0


def _triples(*firsts: int) -> tuple[int, ...]:
    return tuple(first + axis for first in firsts for axis in range(3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """Where a modality of C channels is in a file: its C columns, counted from 1; `scale` brings them to its unit."""

    modality: Modality
    columns: tuple[int, ...]
    scale: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSet:
    """A public set of text files: what a line holds, the folders inside its zip, where to fetch it.

    `ms_column` has a line's time; without one, lines are a period of `rate_hz` apart.
    """

    name: str
    columns: int
    rate_hz: float
    ms_column: int | None
    signals: tuple[Signal, ...]
    folders: tuple[str, ...]
    page: str


def _signal(name: str, rate_hz: float, unit: str, columns: tuple[int, ...], scale: float) -> Signal:
    modality = Modality(name=name, shape=(len(columns),), rate_hz=rate_hz, unit=unit)
    return Signal(modality=modality, columns=columns, scale=scale)


MHEALTH = TextSet(
    name="MHEALTH",
    columns=24,
    rate_hz=MHEALTH_HZ,
    ms_column=None,
    signals=(
        _signal("acc", MHEALTH_HZ, "g", _triples(1, 6, 15), 1 / G_M_S2),
        _signal("gyro", MHEALTH_HZ, "rad/s", _triples(9, 18), np.pi / 180),
        _signal("mag", MHEALTH_HZ, "local", _triples(12, 21), 1.0),
    ),
    folders=("MHEALTHDATASET", "mhealth+dataset/MHEALTHDATASET"),
    page="https://archive.ics.uci.edu/dataset/319/mhealth+dataset",
)
OPPORTUNITY = TextSet(
    name="OPPORTUNITY",
    columns=250,
    rate_hz=OPPORTUNITY_HZ,
    ms_column=1,
    signals=(
        _signal("acc", OPPORTUNITY_HZ, "g", _triples(BACK, RUA, RLA, LUA, LLA), 1e-3),
        _signal("gyro", OPPORTUNITY_HZ, "rad/s", _triples(BACK + 3, RUA + 3, RLA + 3, LUA + 3, LLA + 3), 1e-3),
    ),
    folders=(
        "dataset",
        "OpportunityUCIDataset/dataset",
        "opportunity+activity+recognition/OpportunityUCIDataset/dataset",
    ),
    page="https://archive.ics.uci.edu/dataset/226/opportunity+activity+recognition",
)


def read_mhealth(path: Path, wanted: frozenset[str] | None = None) -> Recording:
    """The subject in an `mHealth_subject<N>.log`, with the wanted modalities (None: all); labels 1 to 12.

    The file has no times: its rows are 20 ms apart.

    Raises:
        SensorError: when the file cannot be read, naming the line if it is one, or when a modality is never complete.
    """
    return _recording(path, MHEALTH, wanted, 24, MHEALTH_LABELS)


def read_opportunity(path: Path, wanted: frozenset[str] | None = None, labels: LabelKind = "locomotion") -> Recording:
    """The run in an `S<N>-ADL<K>.dat` or `S<N>-Drill.dat`, with the wanted modalities (None: all).

    A recording has one kind of labels: modes of locomotion, or `gestures` of both arms (ML_Both_Arms). What
    `read_recording` reads has the former; `write_recording` makes a file of a recording with the latter.

    Raises:
        SensorError: when the file cannot be read, naming the line if it is one, or when a modality is never complete.
    """
    column, names = {"locomotion": (244, LOCOMOTION), "gestures": (250, GESTURES)}[labels]
    return _recording(path, OPPORTUNITY, wanted, column, names)


def mhealth_file(folder: Path, subject: int) -> Path:
    """The file of a subject, 1 to 10, in the folder into which the archive's zip was unpacked, or one inside it.

    Raises:
        SensorError: when it is not there.
    """
    return _file(folder, MHEALTH, f"mHealth_subject{subject}.log")


def opportunity_file(folder: Path, subject: int, run: int | Literal["Drill"]) -> Path:
    """The file of a subject's (1 to 4) run (1 to 5, or the drill) in the folder of the unpacked zip, or one inside it.

    Raises:
        SensorError: when it is not there.
    """
    return _file(folder, OPPORTUNITY, f"S{subject}-{run if run == 'Drill' else f'ADL{run}'}.dat")


# The sets and their readers by the endings of their files' names.
READERS: dict[str, tuple[TextSet, Callable[[Path, frozenset[str] | None], Recording]]] = {
    ".log": (MHEALTH, read_mhealth),
    ".dat": (OPPORTUNITY, read_opportunity),
}


def _file(folder: Path, kind: TextSet, name: str) -> Path:
    for inner in ("", *kind.folders):
        if (path := folder / inner / name).is_file():
            return path
    raise SensorError(
        f"{folder}: {kind.name}'s {name} is neither there nor in {', '.join(kind.folders)} inside;"
        f" fetch the set from {kind.page} and unpack it there",
        catalogue.RECORDING_MISSING,
    )


def _recording(
    path: Path, kind: TextSet, wanted: frozenset[str] | None, label_column: int, label_names: Mapping[int, str]
) -> Recording:
    names = [each.modality.name for each in kind.signals]
    wanted = wanted or frozenset(names)
    if unknown := sorted(wanted - set(names)):
        raise SensorError(
            f"{path}: has no modality {', '.join(unknown)}; it has {', '.join(names)}: name these",
            catalogue.MODALITY_MISSING,
        )
    signals = [each for each in kind.signals if each.modality.name in wanted]
    columns = [column for each in signals for column in each.columns]
    columns += [] if kind.ms_column is None else [kind.ms_column]
    table = _table(path, kind, [*columns, label_column])
    rows = np.arange(len(table))
    t_s = rows / kind.rate_hz if kind.ms_column is None else table[:, columns.index(kind.ms_column)] / 1000
    timed = np.isfinite(t_s)
    streams = {}
    for each in signals:
        values = table[:, [columns.index(column) for column in each.columns]]
        there = np.abs(values) < LARGEST
        whole = timed & there.all(axis=1)
        if not whole.any():
            gone = [str(each.columns[index]) for index in np.flatnonzero(~there.any(axis=0))]
            which = f" (column {', '.join(gone)} has none)" if gone else ""
            raise SensorError(
                f"{path}: {each.modality.name} lacks a value in every line{which}; name other modalities, or leave"
                " the file out",
                catalogue.MODALITY_MISSING,
            )
        streams[each.modality.name] = as_stream(each.modality, t_s[whole], values[whole] * each.scale)
    labelled = timed & np.isfinite(table[:, -1])
    labels = as_labels(t_s[labelled], table[labelled, -1].astype(np.int64))
    segment = Segment(name=path.stem, streams=streams, labels=labels)
    return Recording(name=path.stem, segments=(segment,), label_names=dict(label_names))


def _table(path: Path, kind: TextSet, columns: Sequence[int]) -> NDArray[np.float64]:
    """These columns of all lines, (n, columns), the last of them whole numbers. The others are not looked at."""
    pick = itemgetter(*(column - 1 for column in columns))
    numbers, count = array("d"), 0
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE_BYTES):
                count += 1
                fields = line.split()
                if len(fields) == kind.columns:
                    try:
                        numbers.extend(map(float, pick(fields)))
                    except ValueError:
                        raise _bad_line(path, kind, count, _no_number(fields, columns)) from None
                    if numbers[-1] % 1 > 0 or abs(numbers[-1]) > LARGEST:
                        seen = f"column {columns[-1]} is {numbers[-1]:g}, expected a whole number"
                        raise _bad_line(path, kind, count, seen)
                elif fields:
                    seen = f"expected the {kind.columns} columns of {kind.name}, got {len(fields)}"
                    raise _bad_line(path, kind, count, seen)
    except OSError as error:
        raise SensorError(
            f"{path}: cannot be read ({error.strerror}); mend the path or its permissions",
            catalogue.RECORDING_UNREADABLE,
        ) from error
    if not numbers:
        raise SensorError(
            f"{path}: holds no line; fetch {kind.name} again from {kind.page}", catalogue.RECORDING_DAMAGED
        )
    return np.frombuffer(numbers).reshape(-1, len(columns))


def _bad_line(path: Path, kind: TextSet, number: int, seen: str) -> SensorError:
    return SensorError(
        f"{path}: line {number}: {seen}; fetch {kind.name} again from {kind.page}", catalogue.RECORDING_DAMAGED
    )


def _no_number(fields: Sequence[bytes], columns: Sequence[int]) -> str:
    """Which of the columns is no number, in words."""
    for column in columns:
        try:
            float(fields[column - 1])
        except ValueError:
            return f"column {column} is {fields[column - 1][:20].decode('ascii', 'replace')!r}, expected a number"
    raise AssertionError("all of them are numbers")
