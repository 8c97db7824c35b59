"""A round's release made ready for wearables: smaller and streaming forms of its encoders, each proved, all measured.

Rounds write their releases without: there everything is the same to the byte after any kill. Here latencies are
measured, and what is kept goes by them.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
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
    Measured,
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

log = logging.getLogger(__name__)

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
    figures = measured(models, inputs)
    made = _made_of(manifest, encoders, models, figures)
    worthy = [each if _is_step_worth_it(made, each) else replace(each, step=None) for each in encoders]
    made = _made_of(manifest, worthy, models, figures)
    kept = {name: models[name] for name in made.files}
    return open_release(pack({**kept, MANIFEST: pack_manifest(made)}), release.path)


def _made_of(manifest: Manifest, encoders: Sequence[EncoderEntry], models: Models, figures: Measured) -> Manifest:
    """The manifest with these encoders, and what it says of the files that they and the classifiers have."""
    used = {file for each in encoders for file in each.files} | {each.file for each in manifest.classifiers.values()}
    return replace(
        manifest,
        encoders=tuple(encoders),
        files={
            name: FileEntry(sha256=hashlib.sha256(models[name]).hexdigest(), size_bytes=len(models[name]))
            for name in models
            if name in used
        },
        measured=replace(figures, latency_ms={name: each for name, each in figures.latency_ms.items() if name in used}),
    )


def _int8(entry: EncoderEntry, models: Models, trial: Trial, x: Floats) -> Int8Form | None:
    """The encoder in whole numbers, its model among `models`; None where it is not worth it."""
    how, model = int8_of(models[entry.file], entry.modality.name, x)
    if len(model) >= len(models[entry.file]):
        log.info("%s in 8 bits is left out: it has %d bytes, not less than before", entry.modality.name, len(model))
        return None
    lost = trial.of_model(entry.modality.name, model)
    if not _is_little(f"{entry.modality.name} in 8 bits", lost):
        return None
    file = f"encoder-{entry.modality.name}-int8.onnx"
    models[file] = model
    return Int8Form(file=file, how=how, f1_lost=lost)


def _step(entry: EncoderEntry, manifest: Manifest, models: Models, trial: Trial) -> StepForm | None:
    """The encoder in steps, its model among `models`; None where there is none, or it costs too much."""
    step = step_of(entry, manifest.window, models[entry.file])
    if step is None:
        log.info("%s in steps is left out: its windows are too short for them", entry.modality.name)
        return None
    lost = trial.of_step(entry, step)
    if not _is_little(f"{entry.modality.name} in steps", lost):
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


def _is_little(form: str, lost: Mapping[str, float]) -> bool:
    """Whether a form costs no classifier too much; why it is left out is logged."""
    if not lost:
        log.info("%s is left out: no labelled windows can judge it", form)
        return False
    most, classifier = max((each, name) for name, each in lost.items())
    if most > MOST_F1_LOST:
        log.info("%s is left out: it costs %s %.4f of weighted F1, more than %g", form, classifier, most, MOST_F1_LOST)
    return most <= MOST_F1_LOST


def _is_step_worth_it(manifest: Manifest, entry: EncoderEntry) -> bool:
    """Whether it takes so much less time than a window that a release may be larger for it."""
    assert manifest.measured is not None, "just measured"
    if entry.step is None:
        return True
    latency_ms = manifest.measured.latency_ms
    share = latency_ms[entry.step.file] / latency_ms[manifest.file_to_run(entry)]
    if share > WORTH_A_STEP:
        words = "%s in steps is left out: one takes %.2f of a window's time, more than %g"
        log.info(words, entry.modality.name, share, WORTH_A_STEP)
    return share <= WORTH_A_STEP


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
