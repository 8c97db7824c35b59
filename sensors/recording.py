"""Recordings: streams of several modalities with labels, and the file layouts in which they come.

A `.log` is a subject of MHEALTH and a `.dat` a run of OPPORTUNITY, as the UCI archive has them (`sensors.uci`). Any
other file is an `.npz` without pickled objects. Its layout is told by the names of its arrays:

    HAPT       acc, gyro (n, 3), y, exp (n,)                        one segment for each stretch of equal `exp`
    UTD-MHAD   acc, gyro (n, 3), depth (f, 48, 64), trials (k, 8)   one segment for each trial
    UR Fall    acc (n, 3), acc_t_ms (n,), feat (f, 8), feat_t_ms    one segment
    Mekt       meta, <segment>/<modality>/t_s and /values,          what `write_recording` writes
               where there are labels <segment>/label_t_s and _values

The public sets are read by `sensors.layouts`; here are Mekt's own layout and what every layout must keep.
"""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from mekt import catalogue
from mekt.errors import SensorError, StateError
from mekt.files import write_atomically
from mekt.modality import Modality
from mekt.schema import Bounds, build, plain
from sensors.stream import Array, Arrays, Recording, Segment, as_labels, as_stream

if TYPE_CHECKING:
    from sensors.uci import TextSet

REMEDY = "record or fetch the file again"


def read_recording(path: Path, modalities: Sequence[str] | None = None) -> Recording:
    """The recording in the file at `path`, with all of its modalities or those named, in the order named.

    Raises:
        SensorError: when the file is missing, damaged, of no known layout, or lacks a modality.
    """
    if not path.is_file():
        raise SensorError(not_there(path), catalogue.RECORDING_MISSING)
    try:
        recording = _read(path, None if modalities is None else frozenset(modalities))
    except SensorError:
        raise
    except PermissionError as error:
        raise SensorError(
            f"{path}: cannot be read ({error.strerror}); mend its permissions", catalogue.RECORDING_UNREADABLE
        ) from error
    except KeyError as error:
        raise SensorError(
            f"{path}: an array is missing, {error.args[0]}; {REMEDY}", catalogue.RECORDING_DAMAGED
        ) from error
    except ValueError as error:
        hint = "holds pickled objects, which are never loaded" if "pickle" in str(error) else str(error)
        raise SensorError(f"{path}: not a readable recording, {hint}; {REMEDY}", catalogue.RECORDING_DAMAGED) from error
    except Exception as error:  # A damaged archive fails anywhere: zip, zlib, numpy's header, memory.
        raise SensorError(
            f"{path}: a damaged file, {type(error).__name__} {error}; {REMEDY}", catalogue.RECORDING_DAMAGED
        ) from error
    if modalities is None:
        return recording
    there = [each.name for each in recording.modalities]
    if missing := [name for name in modalities if name not in there]:
        has = ", ".join(each.name for each in read_recording(path).modalities)
        raise SensorError(
            f"{path}: has no modality {', '.join(missing)}; it has {has}: name these", catalogue.MODALITY_MISSING
        )
    return recording.only(modalities)


def write_recording(path: Path, recording: Recording) -> None:
    """Write `recording` in Mekt's own layout: the whole file or nothing.

    Raises:
        SensorError: when the file cannot be written.
    """
    meta = _Meta(
        name=recording.name,
        label_names={str(value): name for value, name in recording.label_names.items()},
        modalities=recording.modalities,
        segments=tuple(segment.name for segment in recording.segments),
    )
    arrays: dict[str, Array] = {"meta": np.array(json.dumps(plain(meta)))}
    for index, segment in enumerate(recording.segments):
        for name, stream in segment.streams.items():
            arrays[f"{index}/{name}/t_s"], arrays[f"{index}/{name}/values"] = stream.t_s, stream.values
        if segment.labels is not None:
            arrays[f"{index}/label_t_s"], arrays[f"{index}/label_values"] = segment.labels.t_s, segment.labels.values
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.getvalue())
    except StateError as error:
        raise SensorError(str(error), catalogue.RECORDING_NOT_WRITTEN) from error
    except OSError as error:
        raise SensorError(
            f"{path}: cannot be written ({error.strerror}); choose another folder", catalogue.RECORDING_NOT_WRITTEN
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meta:
    """The head of a file in Mekt's own layout."""

    name: str
    label_names: dict[Annotated[str, Bounds(pattern=r"-?[0-9]{1,19}")], str]
    modalities: Annotated[tuple[Modality, ...], Bounds(shortest=1, longest=64)]
    segments: Annotated[tuple[str, ...], Bounds(shortest=1)]


def _read(path: Path, wanted: frozenset[str] | None) -> Recording:
    """The recording in the file; what is wrong with it comes as any exception."""
    if (public := _public(path)) is not None:
        return public[1](path, wanted)
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz archive, or only a part of one")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            if "meta" in arrays.files:
                return _mekt(path.stem, arrays, wanted)
            from sensors.layouts import LAYOUTS  # only for public sets

            reader = next((read for _, needed, read in LAYOUTS if needed <= set(arrays.files)), None)
            if reader is None:
                layouts = (("Mekt", {"meta"}), *((name, needed) for name, needed, _ in LAYOUTS))
                kinds = "; ".join(f"{name} needs {', '.join(sorted(needed))}" for name, needed in layouts)
                raise SensorError(
                    f"{path}: of no known layout, its arrays are {_some(arrays.files)} ({kinds})",
                    catalogue.RECORDING_OF_UNKNOWN_LAYOUT,
                )
            return reader(path.stem, arrays, wanted)


def _mekt(name: str, arrays: Arrays, wanted: frozenset[str] | None) -> Recording:
    meta = build(_Meta, json.loads(str(arrays["meta"])), "meta")
    segments = []
    for index, each in enumerate(meta.segments):
        streams = {
            modality.name: as_stream(
                modality, arrays[f"{index}/{modality.name}/t_s"], arrays[f"{index}/{modality.name}/values"]
            )
            for modality in meta.modalities
            if wanted is None or modality.name in wanted
        }
        labels = None
        if f"{index}/label_t_s" in arrays:
            labels = as_labels(arrays[f"{index}/label_t_s"], arrays[f"{index}/label_values"])
        segments.append(Segment(name=each, streams=streams, labels=labels))
    label_names = {int(value): label for value, label in meta.label_names.items()}
    return Recording(name=meta.name, segments=tuple(segments), label_names=label_names)


def not_there(path: Path) -> str:
    """What to say about a `path` at which there is no file."""
    folder = path.absolute().parent
    if path.is_dir():
        return f"{path}: a folder, expected a recording; name an .npz file in it"
    if not folder.is_dir():
        return f"{path}: there is no folder {folder}; mend the path, or name the recordings' folder with MEKT_DATA"
    ending, fetch = ".npz", ""
    if (public := _public(path)) is not None:
        kind = public[0]
        ending, fetch = path.suffix, f", or fetch {kind.name} from {kind.page}"
    near = sorted(each.name for each in folder.glob(f"*{ending}"))
    here = f"which holds {_some(near)}" if near else f"which holds no {ending} file"
    return f"{path}: no such recording in {folder}, {here}; mend the path{fetch}"


def _public(path: Path) -> "tuple[TextSet, Callable[[Path, frozenset[str] | None], Recording]] | None":
    """A public set whose text files end so, and what reads one."""
    if path.suffix == ".npz":
        return None
    # Only where it may be one: it is much for a device that plays Mekt's own.
    from sensors.uci import READERS

    return READERS.get(path.suffix)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
