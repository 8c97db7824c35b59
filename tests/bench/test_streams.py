"""A stream through a recogniser, a window a step: computed whole, and by the step model."""

from pathlib import Path

import pytest

from bench.streams import streamed_ms, with_steps
from export.release import read_release
from export.steps import step_of
from mekt.modality import Modality
from sensors.simulator import DEPTH
from tests.export.small import ACC, parts_of, random_windows


@pytest.mark.parametrize("modality", [ACC, DEPTH])
def test_every_step_of_a_stream_completes_a_window_whole_and_in_steps(tmp_path: Path, modality: Modality) -> None:
    parts = parts_of(modality)
    parts.write(tmp_path / "release")
    release = read_release(tmp_path / "release")
    [entry] = release.manifest.encoders
    step = step_of(entry, release.manifest.window, release.models[entry.file])
    assert step is not None
    stepped = with_steps(release, step).manifest
    every_s = step.samples / modality.rate_hz
    assert [each.steps_to_run(each.encoders[0], every_s) for each in (release.manifest, stepped)] == [0, 1]
    windows = random_windows(parts.plan, 3)[modality.name]
    assert min(streamed_ms(release, step, windows, runs=20)) > 0
