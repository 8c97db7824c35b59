"""Samples out of the payload of a foreign message: JSON or msgpack, of bounded size, depth and count. Pure.

Whatever the bytes are, they are numbers at the places that the settings name, or a MisfitError.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgpack
import numpy as np

from sensors.columns import number
from sensors.dropped import MisfitError
from sensors.intake import MOST_SAMPLES, Samples, one_time
from sensors.signals import Signal, TimeField
from sensors.source import Seconds

Form = Literal["json", "msgpack"]
LARGEST_PAYLOAD_BYTES = 256 * 1024
# The path of the payload itself.
WHOLE = "."
_MISSING = object()


def unpacked(raw: bytes, form: Form) -> Any:
    """The plain data that the bytes hold.

    Raises:
        MisfitError: when they are too many or not of that form.
    """
    if len(raw) > LARGEST_PAYLOAD_BYTES:
        raise MisfitError("a payload over the limit", f"{len(raw)} bytes, at most {LARGEST_PAYLOAD_BYTES}")
    try:
        if form == "json":
            return json.loads(raw.decode("utf-8"), parse_int=_whole)
        return msgpack.unpackb(raw, ext_hook=_no_extension, max_ext_len=0, strict_map_key=False)
    except MisfitError:
        raise
    except (Exception, RecursionError) as error:  # both name a dozen; all mean the same here
        raise MisfitError(f"a payload that is no {form}", f"{type(error).__name__}: {str(error)[:100]}") from error


def found(data: Any, path: str) -> Any:
    """What stands at a path of names and, in lists, indexes from 0; None when nothing does."""
    value = _found(data, path)
    return None if value is _MISSING else value


def sampled(data: Any, signal: Signal, time: TimeField | None) -> Samples | None:
    """The signal's samples in one message; None when it has none of the signal's fields.

    A field is a number, or a list of numbers, one for each sample; then all of them are, of one length. A time is a
    list as well, or one number for all.

    Raises:
        MisfitError: when only some of the fields are there, or they are not numbers, or not equally many.
    """
    columns = [_found(data, path) for path in signal.fields]
    missing = [path for path, column in zip(signal.fields, columns, strict=True) if column is _MISSING]
    if len(missing) == len(columns):
        return None
    if missing:
        raise MisfitError(f"{signal.name}: a field is missing", missing[0])
    batch = isinstance(columns[0], list)
    if any(isinstance(column, list) != batch for column in columns):
        raise MisfitError(f"{signal.name}: a list beside a number")
    rows = [_numbers(column, signal) if batch else [_number(column, signal)] for column in columns]
    if len({len(row) for row in rows}) > 1:
        raise MisfitError(f"{signal.name}: lists of different lengths", ", ".join(str(len(row)) for row in rows)[:80])
    values = np.array(rows, dtype=np.float64).T
    return Samples(values=values, times=None if time is None else _times(data, signal, time, len(values)))


def samples_of(data: Any, signal: Signal, time: TimeField | None, records: str | None) -> Samples | None:
    """The same; with `records` the path of a list whose entries are messages, of which some may not have the signal.

    Raises:
        MisfitError: as above, or when there is no such list, or a longer one than MOST_SAMPLES.
    """
    if records is None:
        return sampled(data, signal, time)
    entries = _found(data, records)
    if not isinstance(entries, list):
        raise MisfitError("no list of records", records)
    if len(entries) > MOST_SAMPLES:
        raise MisfitError("too many records", f"{len(entries)}, at most {MOST_SAMPLES}")
    parts = [part for entry in entries if (part := sampled(entry, signal, time)) is not None]
    if not parts:
        return None
    values = np.concatenate([part.values for part in parts])
    if len(values) > MOST_SAMPLES:
        raise MisfitError(f"{signal.name}: too many samples", f"{len(values)}, at most {MOST_SAMPLES}")
    times = None if time is None else np.concatenate([part.times for part in parts if part.times is not None])
    return Samples(values=values, times=times)


def _found(data: Any, path: str) -> Any:
    if path == WHOLE:
        return data
    for part in path.split("."):
        if isinstance(data, Mapping):
            # Short msgpack has whole numbers for keys.
            data = data[part] if part in data else data.get(_index(part), _MISSING)
        elif isinstance(data, list) and 0 <= _index(part) < len(data):
            data = data[_index(part)]
        else:
            return _MISSING
    return data


def _index(part: str) -> int:
    """The index that a part of a path is; -1 for a name."""
    return int(part) if part.isascii() and part.isdigit() and len(part) <= 9 else -1


def _times(data: Any, signal: Signal, time: TimeField, count: int) -> Seconds:
    value = _found(data, time.field)
    if value is _MISSING:
        raise MisfitError(f"{signal.name}: the time is missing", time.field)
    if not isinstance(value, list):
        return one_time(_number(value, signal), count, signal, time)
    if len(value) != count:
        raise MisfitError(f"{signal.name}: not one time for each sample", f"{len(value)} times, {count} samples")
    return np.array(_numbers(value, signal), dtype=np.float64)


def _numbers(column: list[Any], signal: Signal) -> list[float]:
    if len(column) > MOST_SAMPLES:
        raise MisfitError(f"{signal.name}: too many samples", f"{len(column)}, at most {MOST_SAMPLES}")
    return [_number(each, signal) for each in column]


def _number(value: Any, signal: Signal) -> float:
    """A number, or text that is one: many boards put theirs in quotes."""
    if isinstance(value, str):
        told = number(value)
        if told is not None:
            return told
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38:
        return float(value)
    seen = repr(value[:40]) if isinstance(value, str | bytes) else type(value).__name__
    raise MisfitError(f"{signal.name}: a field that is no number", seen)


def _whole(text: str) -> int | float:
    """Whole numbers beyond any sensor's are not computed digit by digit."""
    return int(text) if len(text) <= 40 else float(text)


def _no_extension(code: int, data: bytes) -> Any:
    raise MisfitError("a payload that is no msgpack", f"an extension of type {code}")
