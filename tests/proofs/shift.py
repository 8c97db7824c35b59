"""How well a shift in time is found on real recordings: `python -m tests.proofs.shift`, or `make shift`.

The stamps of UTD-MHAD's frames are made late by shifts that are known, and what is found is held against them:
whole recordings, and each third of them. Where the camera shows other trials than the sensor, nothing may be found.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sensors.recording import read_recording
from sensors.shift import Shift
from sensors.stream import Recording, Segment

LATE_S = (0.0, 0.1, -0.1, 0.2, -0.2, 0.3, -0.3, 0.5, -0.5)
PEOPLE = 8
# By so many trials the camera's are another's.
OTHERS = 37


def found(recording: Recording, late_s: float = 0.0, trials: slice = slice(None), others: int = 0) -> float | None:
    """By how much later the camera is found to be, over some trials; None when nothing is found."""
    shift = Shift(recording.modality("acc"), recording.modality("depth"))
    shown = recording.segments[others:] + recording.segments[:others]
    for felt, seen in zip(recording.segments[trials], shown[trials], strict=True):
        _play(shift, felt, seen, late_s)
    apart = shift.apart()
    return None if apart is None else apart.shift_s if apart.later == "depth" else -apart.shift_s


def _play(shift: Shift, felt: Segment, seen: Segment, late_s: float) -> None:
    blocks = [*felt.blocks(["acc"], 0.5), *(each.earlier(-late_s) for each in seen.blocks(["depth"], 0.5))]
    for block in sorted(blocks, key=lambda each: float(each.t_s[-1])):
        shift.take(block)
    shift.gap(["acc", "depth"])


def _told(name: str, pairs: Sequence[tuple[float, float | None]]) -> str:
    errors_s = [abs(told_s - late_s) for late_s, told_s in pairs if told_s is not None]
    figures = "" if not errors_s else f": off by {np.median(errors_s):.2f} s (median), {max(errors_s):.2f} s at most"
    return f"{name}: found {len(errors_s)} of {len(pairs)}{figures}"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MEKT_DATA", "../shared/data")))
    folder = parser.parse_args().data / "utd_mhad"
    people = [read_recording(folder / f"s{number}.npz", ["acc", "depth"]) for number in range(1, PEOPLE + 1)]
    whole = [(late_s, found(each, late_s)) for each in people for late_s in LATE_S]
    print(_told("whole recordings", whole), flush=True)
    thirds = [slice(first, None, 3) for first in range(3)]
    parts = [(late_s, found(each, late_s, part)) for each in people for late_s in LATE_S for part in thirds]
    print(_told("a third of the trials", parts))
    other = [(0.0, found(each, others=OTHERS)) for each in people]
    print(_told("other trials on camera", other))
    return int(any(told_s is not None for _, told_s in other))


if __name__ == "__main__":
    sys.exit(main())
