"""What windows of a stream take through the whole of a wearable's recogniser, as whole ones and in steps.

Shapes: N windows, T samples.
"""

import itertools
import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edge.wearable.recogniser import Recognised, Recogniser
from export.latency import in_turns
from export.layers import Floats
from export.manifest import FileEntry, Measured, StepForm
from export.release import Release
from export.steps import Step
from sensors.source import Block

FILE = "encoder-step.onnx"
# Samples of no more windows are played, round and round.
PLAYED = 32


def streamed_ms(release: Release, step: Step, windows: Floats, runs: int) -> tuple[float, float]:
    """Milliseconds from samples to a decision, medians in turns: with whole windows, and in steps.

    `windows` (N, T, ...) are of the release's one modality, as sensed, and played as a stream; a window ends with every
    step.
    """
    stream = np.concatenate(list(windows[:PLAYED]))
    whole = _fed(release, step, stream)
    in_steps = _fed(with_steps(release, step), step, stream)
    times_ms = in_turns({"whole": whole, "in steps": in_steps}, runs)
    return statistics.median(times_ms["whole"]), statistics.median(times_ms["in steps"])


def _fed(release: Release, step: Step, stream: Floats) -> Callable[[], None]:
    """Feeds a recogniser in the midst of an endless stream the samples of one step more, which complete a window."""
    [modality] = release.manifest.modalities
    recogniser = Recogniser(release, [modality.name], lambda _: None, step.samples / modality.rate_hz)

    def given(first: int, end: int) -> list[Recognised]:
        places = np.arange(first, end)
        values = stream[places % len(stream)]
        return list(recogniser.feed(Block(modality=modality.name, t_s=places / modality.rate_hz, values=values)))

    begun = release.manifest.window.samples(modality) + step.history // step.samples * step.samples
    given(0, begun)
    firsts = itertools.count(begun, step.samples)

    def feed() -> None:
        first = next(firsts)
        [_] = given(first, first + step.samples)

    return feed


def with_steps(release: Release, step: Step) -> Release:
    """The release with this streaming form of its one encoder, as one that takes no time."""
    manifest, [entry] = release.manifest, release.manifest.encoders
    users = manifest.users(entry.modality.name)
    form = StepForm(
        file=FILE,
        samples=step.samples,
        takes=step.takes,
        history=step.history,
        state=dict(step.state),
        operations=1,
        f1_lost=dict.fromkeys(users, 0.0),
    )
    files = {**manifest.files, FILE: FileEntry(sha256="0" * 64, size_bytes=len(step.model))}
    latency_ms = {**dict.fromkeys(files, 1.0), FILE: 1e-6}
    made = replace(
        manifest,
        encoders=(replace(entry, step=form),),
        files=files,
        measured=Measured(machine="-", onnxruntime="-", latency_ms=latency_ms),
    )
    return replace(release, manifest=made, models={**release.models, FILE: step.model})
