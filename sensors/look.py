"""`mekt sensors`: the sensors that a machine has, how their samples come, and recordings of them.

Sources are read one after the other in turn, each for a moment: all of them wait for their samples, and none is busy.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np

from mekt import catalogue
from mekt.errors import SensorError, SettingsError
from mekt.process import Stop
from mekt.schema import Bounds, SchemaError, build, plain
from mekt.settings import read_table, refusal
from sensors.found import Found
from sensors.lasting import Lasting
from sensors.meter import Figures, Meter
from sensors.recording import write_recording
from sensors.settings import SensorSettings
from sensors.shift import Apart, Shift
from sensors.source import Block, Floats, Gap, Item, Seconds, Source
from sensors.stream import Recording, Segment, Stream

log = logging.getLogger(__name__)

READ_S = 0.05
RETRY_S = 1.0
REDRAWN_S = 0.5
# What a terminal does to draw over the lines above.
UP, CLEAR = "\x1b[{}A", "\x1b[K"
BARS = "▁▂▃▄▅▆▇█"
# A recording is held in memory until it is written.
MOST_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sensors:
    sensors: Annotated[tuple[SensorSettings, ...], Bounds(shortest=1, longest=16)]


def tables_of(config: Path, modalities: Sequence[str] = ()) -> list[tuple[int, SensorSettings]]:
    """The `[[sensors]]` tables of a settings file with their places in it, or those that give one of these modalities.

    Raises:
        SettingsError: when the file is none, or no sensor gives what is asked for.
    """
    try:
        sensors = build(_Sensors, {"sensors": read_table(config).get("sensors", ())}).sensors
    except SchemaError as error:
        raise refusal(config, error) from error
    there = [name for each in sensors for name in each.modalities]
    if unknown := [name for name in modalities if name not in there]:
        raise SettingsError(
            f"{config}: no sensor gives {', '.join(unknown)}; there are {', '.join(there)}", catalogue.CHOICE_UNKNOWN
        )
    wanted = set(modalities or there)
    return [(index, each) for index, each in enumerate(sensors) if wanted & set(each.modalities)]


def sources_of(config: Path, modalities: Sequence[str] = ()) -> list[Source]:
    """The sources that a settings file describes, or those that give one of these modalities.

    Raises:
        SettingsError: when the file is none, or no source gives what is asked for.
        SensorError: when a source can never give what its settings say.
    """
    return [each.source(config.parent) for _, each in tables_of(config, modalities)]


def show_list(found: Sequence[Found], *, as_json: bool, out: TextIO) -> int:
    """Print what was found, each with the table that opens it."""
    if as_json:
        print(json.dumps([plain(each) for each in found]), file=out)
    elif not found:
        print("No sensor is here that could be found without being told where it is.", file=out)
    else:
        print("\n".join(f"# {each.text}\n{each.toml.rstrip()}\n" for each in found), end="", file=out)
    return 0


def run_watch(
    config: Path, *, modalities: Sequence[str], seconds: float | None, as_json: bool, out: TextIO, stop: Stop
) -> int:
    """Show how samples come, until asked to stop, for so many seconds, or until all sources have ended.

    Raises:
        MektError: when the settings cannot work. A sensor that fails is told and opened again.
    """
    sources = sources_of(config, modalities)
    kinds = [each for source in sources for each in source.modalities]
    meters = {each.name: Meter(each) for each in kinds}
    bodies = [each for each in kinds if each.unit in ("g", "rad/s")][:1]
    shifts = [Shift(body, camera) for body in bodies for camera in kinds if camera.is_frames]
    drawn, due_s = 0, 0.0
    for item, now_s in reading(sources, stop, seconds):
        if isinstance(item, Block):
            meters[item.modality].take(item, now_s)
            for shift in shifts:
                shift.take(item)
        elif isinstance(item, Gap):
            for name in item.modalities:
                meters[name].gap()
            for shift in shifts:
                shift.gap(item.modalities)
        if now_s >= due_s:
            due_s = now_s + REDRAWN_S
            drawn = _draw(meters, shifts, drawn, as_json=as_json, out=out)
    _draw(meters, shifts, drawn, as_json=as_json, out=out)
    return 0


def run_record(
    config: Path, path: Path, *, modalities: Sequence[str], seconds: float | None, out: TextIO, stop: Stop
) -> int:
    """Record until asked to stop, for so many seconds, or until all sources have ended; what is there is written.

    A new segment begins where a stream starts anew; modalities of which nothing came are left out.

    Raises:
        MektError: when the settings cannot work, nothing came, or the file cannot be written.
    """
    if path.exists():
        raise SettingsError(f"{path}: is there already; name another file", catalogue.ARGUMENTS_UNFIT)
    sources = sources_of(config, modalities)
    kept, size_bytes = _Kept(sources), 0
    for item, _ in reading(sources, stop, seconds):
        kept.take(item)
        if isinstance(item, Block):
            size_bytes += item.values.nbytes + item.t_s.nbytes
            if size_bytes > MOST_BYTES:
                log.warning("a recording holds %.0f GB at most; it ends here", MOST_BYTES / 1e9)
                break
    recording = kept.recording(path.stem)
    write_recording(path, recording)
    samples = {
        each.name: sum(len(part.streams[each.name].t_s) for part in recording.segments) for each in recording.modalities
    }
    told = ", ".join(f"{count} samples of {name}" for name, count in samples.items())
    count = len(recording.segments)
    print(f"{path}: {told} in {count} segment{'s'[: count - 1]}", file=out)
    return 0


def reading(
    sources: Sequence[Source],
    stop: Stop,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Item | None, float]]:
    """What the sources give and when it was read, None now and then; until asked to stop, for so long, to their ends.

    A source that fails is told, closed, and opened again a while later, which is a gap.
    """
    turns = {index: Lasting(source, RETRY_S) for index, source in enumerate(sources)}
    began_s = clock()
    try:
        while turns and not stop.requested and (seconds is None or clock() - began_s < seconds):
            for index, turn in list(turns.items()):
                items = turn.read(READ_S)
                if items is None:
                    turn.close()
                    del turns[index]
                for item in items or ():
                    yield item, clock()
                yield None, clock()
    finally:
        for turn in turns.values():
            turn.close()


class _Kept:
    """Samples on their way into a recording, segment by segment."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._modalities = {each.name: each for source in sources for each in source.modalities}
        self._segments: list[dict[str, list[Block]]] = []
        self._open: dict[str, list[Block]] = {}

    def take(self, item: Item | None) -> None:
        match item:
            case Block() if len(item.t_s):
                sound = np.isfinite(item.t_s) & np.isfinite(item.values).reshape(len(item.t_s), -1).all(axis=1)
                kept = Block(modality=item.modality, t_s=item.t_s[sound], values=item.values[sound])
                if len(kept.t_s):
                    self._open.setdefault(item.modality, []).append(kept)
            case Gap():
                self._end()
            case _:
                pass

    def recording(self, name: str) -> Recording:
        """All of it. A segment that lacks a modality which others have is left out, and that is told."""
        self._end()
        names = [each for each in self._modalities if any(each in segment for segment in self._segments)]
        if not names:
            raise SensorError("nothing came of any sensor; there is nothing to record", catalogue.SENSOR_SILENT)
        whole = [segment for segment in self._segments if set(names) <= set(segment)]
        if len(whole) < len(self._segments):
            left_out = len(self._segments) - len(whole)
            log.warning("%d stretches without all of %s are left out", left_out, ", ".join(names))
        segments = tuple(
            Segment(name=str(number), streams={each: self._stream(each, segment[each]) for each in names})
            for number, segment in enumerate(whole)
        )
        return Recording(name=name, segments=segments, label_names={})

    def _stream(self, name: str, blocks: Sequence[Block]) -> Stream:
        t_s: Seconds = np.concatenate([each.t_s for each in blocks])
        values: Floats = np.concatenate([each.values for each in blocks])
        return Stream(modality=self._modalities[name], t_s=t_s, values=values)

    def _end(self) -> None:
        if self._open:
            self._segments.append(self._open)
            self._open = {}


def _draw(meters: Mapping[str, Meter], shifts: Sequence[Shift], drawn: int, *, as_json: bool, out: TextIO) -> int:
    """Show all meters, over the `drawn` lines before where it is a terminal; how many lines that were."""
    if as_json:
        print(json.dumps({name: plain(each.figures()) for name, each in meters.items()}), file=out, flush=True)
        return 0
    lines = [line for meter in meters.values() for line in _lines(meter)]
    lines += [_apart(apart) for shift in shifts if (apart := shift.apart()) is not None]
    live = out.isatty()
    if live and drawn:
        out.write(UP.format(drawn))
    end = CLEAR + "\n" if live else "\n"
    out.write("".join(line + end for line in lines))
    out.flush()
    return len(lines)


def _lines(meter: Meter) -> list[str]:
    told = _words(meter.figures())
    plot = meter.plotted()
    return [told, *(f"  {_bars(channel)}" for channel in plot.T)]


def _words(each: Figures) -> str:
    return (
        f"{each.modality:<8} {each.rate_hz:7.2f} Hz of {each.nominal_hz:g}  jitter {each.jitter_ms:.1f} ms  "
        f"longest gap {each.gap_ms:.0f} ms  {each.missing} missing of {each.samples + each.missing}  "
        f"{each.low:.3g} to {each.high:.3g} {each.unit}"
    )


def _apart(each: Apart) -> str:
    return (
        f"{each.later} shows movements {each.shift_s:.2f} s after {each.earlier} does "
        f"(agreement {each.agreement:.2f} over {each.seconds:.0f} s)"
    )


def _bars(channel: Any) -> str:
    """A line of bars, the lowest value at the bottom; blanks where there was no sample."""
    there = np.isfinite(channel)
    if not there.any():
        return " " * len(channel)
    low, high = float(channel[there].min()), float(channel[there].max())
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    heights = np.where(there, channel - low, 0.0) * scale + 0.5
    return "".join(BARS[int(height)] if is_there else " " for height, is_there in zip(heights, there, strict=True))
