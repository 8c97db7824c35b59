"""Recordings for tests of whole parts: HAPT where it is, else simulated persons."""

import os
from collections.abc import Sequence
from pathlib import Path

from sensors.recording import write_recording
from sensors.simulator import simulate

HAPT = Path(os.environ.get("MEKT_DATA", Path(__file__).parents[2] / "shared" / "data")).absolute() / "hapt"


def persons(folder: Path, numbers: Sequence[int], duration_s: float = 240.0) -> list[str]:
    """Paths of a recording with acc and gyro for each person."""
    if HAPT.is_dir():
        return [str(HAPT / f"user{number:02d}.npz") for number in numbers]
    paths = [folder / f"person-{number:02d}.npz" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        if not path.exists():
            write_recording(path, simulate(number, seed=5, duration_s=duration_s, modalities=("acc", "gyro")))
    return [str(path) for path in paths]
