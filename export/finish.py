"""A round's release made ready for wearables: smaller and streaming forms of its encoders, each proved, all measured.

Rounds write their releases without: there everything is the same to the byte after any kill. Here latencies are
measured, and what is kept goes by them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from export.bundle import pack
from export.int8 import int8_of
from export.latency import measured, zeros
from export.layers import Floats
from export.manifest import (
    MANIFEST,
    MOST_F1_LOST,
    EncoderEntry,
    FileEntry,
    Int8Form,
    Manifest,
    StepForm,
    pack_manifest,
)
from export.operations import operations
from export.release import Release, open_release
from export.steps import step_of
from export.trial import Judge, Trial
from mekt import catalogue
from mekt.errors import ReleaseError
from mekt.scores import Indexes

Models = dict[str, bytes]
# What makes a release so much larger has to take this share of a window's time at most.
WORTH_A_STEP = 0.8
EMBEDDINGS = "embeddings"


def finish(
    release: Release,
    calibration: Mapping[str, Floats],
    windows: Mapping[str, Floats],
    labels: Indexes,
    judge: Judge,
) -> Release:
    """The release with the forms that serve it, unsigned; the models that it has stay as they are.

    `calibration` are real windows (N, T, ...) per modality, as sensed: those of the proxy set. `windows` are labelled
    ones, as sensed, in the order of their time, `labels` (N) their classes by index, -1 for none. `judge` has
    not learned from those that it is asked about. A form that costs it more than 0.005 of weighted F1 is left out, as
    are an int8 form that is not smaller, and a step that takes over 0.8 of a window's time.

    Raises:
        ReleaseError: when windows do not fit the release, or what is made cannot be read back.
    """
    manifest = release.manifest
    _fit_together(manifest, calibration, windows, labels)
    models = {file: release.models[file] for file in manifest.parity}
    trial = Trial(release, windows, labels, judge)
    encoders, inputs = [], {}
    for entry in manifest.encoders:
        name = entry.modality.name
        x = entry.scaling.normalise(calibration[name])
        inputs[entry.file] = {name: x[:1]}
        int8 = _int8(entry, models, trial, x)
        if int8 is not None:
            inputs[int8.file] = {name: x[:1]}
        step = _step(entry, manifest, models, trial)
        if step is not None:
            inputs[step.file] = {
                name: x[:1, -step.takes :],
                **zeros({each: (1, *shape) for each, shape in step.state.items()}),
            }
        encoders.append(replace(entry, int8=int8, step=step))
    widths = {each.modality.name: each.embedding for each in encoders}
    for classifier in manifest.classifiers.values():
        inputs[classifier.file] = zeros({EMBEDDINGS: (1, sum(widths[each] for each in classifier.modalities))})
    made = replace(
        manifest,
        encoders=tuple(encoders),
        files={
            name: FileEntry(sha256=hashlib.sha256(each).hexdigest(), size_bytes=len(each))
            for name, each in models.items()
        },
        measured=measured(models, inputs),
    )
    for entry in made.encoders:
        if entry.step is not None and not _is_worth_it(made, entry, entry.step):
            made, models = _without_step(made, entry, models)
    return open_release(pack({**models, MANIFEST: pack_manifest(made)}), release.path)


def _int8(entry: EncoderEntry, models: Models, trial: Trial, x: Floats) -> Int8Form | None:
    """The encoder in whole numbers, its model among `models`; None where it is not worth it."""
    how, model = int8_of(models[entry.file], entry.modality.name, x)
    if len(model) >= len(models[entry.file]):
        return None
    lost = trial.of_model(entry.modality.name, model)
    if not _is_little(lost):
        return None
    file = f"encoder-{entry.modality.name}-int8.onnx"
    models[file] = model
    return Int8Form(file=file, how=how, f1_lost=lost)


def _step(entry: EncoderEntry, manifest: Manifest, models: Models, trial: Trial) -> StepForm | None:
    """The encoder in steps, its model among `models`; None where there is none, or it costs too much."""
    step = step_of(entry, manifest.window, models[entry.file])
    if step is None:
        return None
    lost = trial.of_step(entry, step)
    if not _is_little(lost):
        return None
    name = entry.modality.name
    file = f"encoder-{name}-step.onnx"
    models[file] = step.model
    shapes = {name: (1, step.takes, *entry.modality.shape), **{each: (1, *shape) for each, shape in step.state.items()}}
    return StepForm(
        file=file,
        samples=step.samples,
        takes=step.takes,
        history=step.history,
        state=dict(step.state),
        operations=operations(step.model, shapes),
        f1_lost=lost,
    )


def _is_little(lost: Mapping[str, float]) -> bool:
    return bool(lost) and max(lost.values()) <= MOST_F1_LOST


def _is_worth_it(manifest: Manifest, entry: EncoderEntry, step: StepForm) -> bool:
    assert manifest.measured is not None, "just measured"
    latency_ms = manifest.measured.latency_ms
    return latency_ms[step.file] <= WORTH_A_STEP * latency_ms[manifest.file_to_run(entry)]


def _without_step(manifest: Manifest, entry: EncoderEntry, models: Models) -> tuple[Manifest, Models]:
    assert manifest.measured is not None and entry.step is not None, "just made and measured"
    file = entry.step.file
    latency_ms = {name: each for name, each in manifest.measured.latency_ms.items() if name != file}
    left = replace(
        manifest,
        encoders=tuple(replace(each, step=None) if each is entry else each for each in manifest.encoders),
        files={name: each for name, each in manifest.files.items() if name != file},
        measured=replace(manifest.measured, latency_ms=latency_ms),
    )
    return left, {name: each for name, each in models.items() if name != file}


def _fit_together(
    manifest: Manifest, calibration: Mapping[str, Floats], windows: Mapping[str, Floats], labels: Indexes
) -> None:
    for entry in manifest.encoders:
        name = entry.modality.name
        wanted = manifest.window.shape(entry.modality)
        for kind, given in (("calibration", calibration), ("windows", windows)):
            if name not in given or given[name].shape[1:] != wanted or len(given[name]) == 0:
                seen = given[name].shape if name in given else ()
                raise ReleaseError(
                    f"{kind}.{name}: expected an array {('N', *wanted)}, got {seen}", catalogue.RELEASE_NOT_MADE
                )
        if len(windows[name]) != len(labels):
            raise ReleaseError(
                f"labels: expected one for each of {len(windows[name])} windows, got {len(labels)}",
                catalogue.RELEASE_NOT_MADE,
            )
    if len(labels) and labels.max() >= len(manifest.labels):
        raise ReleaseError(
            f"labels: expected classes below {len(manifest.labels)}, got {labels.max()}", catalogue.RELEASE_NOT_MADE
        )
