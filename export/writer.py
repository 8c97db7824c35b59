"""Writes releases: exports what was trained, proves on real windows that it computes the same, then puts it on disk.

Shapes: N windows, D embedding width, K classes. A release appears whole under its name or not at all.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from export.bundle import pack
from export.graphs import EMBEDDING, EMBEDDINGS, PROBABILITIES, classifier_model, encoder_model
from export.layers import OPSET, Floats
from export.manifest import (
    MANIFEST,
    SIGNATURE,
    ClassifierEntry,
    EncoderEntry,
    FileEntry,
    Manifest,
    pack_manifest,
)
from export.operations import operations
from export.release import read_release
from export.session import session
from mekt import catalogue
from mekt.encoders import Encoder
from mekt.errors import ReleaseError
from mekt.files import make_folder, write_atomically
from mekt.plan import Plan

# The largest difference to torch that a release may have; relative to outputs that are larger than 1.
LARGEST_DIFFERENCE = 1e-4
BATCHES = (1, 5, 64)

Classifier = tuple[tuple[str, ...], Floats, Floats]


def write_release(
    out: Path,
    *,
    plan: Plan,
    federation: str,
    round: int,
    encoders: Mapping[str, Encoder],
    classifiers: Mapping[str, Classifier],
    labels: Sequence[str],
    windows: Mapping[str, Floats],
    metrics: Mapping[str, float],
    sign: Callable[[bytes], bytes] | None = None,
) -> Manifest:
    """Write the release of these encoders and classifiers as the file `out`; durable when this returns.

    A classifier is (modalities in the order of its features, weight (K, sum of D), bias (K,)). `windows` are real
    ones as sensed (N, T, ...), not normalised; the export is checked on them. Writing what is already there, as after
    a crash, changes nothing. `sign` gives the coordinator's signature on the manifest, which names every other file.

    Raises:
        ReleaseError: when the export does not compute what was trained, the parts do not fit together, or `out`
            holds anything else; nothing is written then.
        StateError: when the disk is full or read-only.
    """
    _fit_together(plan, encoders, classifiers, labels, windows)
    trained = {name: copy.deepcopy(encoders[name]).cpu().float().eval() for name in sorted(encoders)}
    samples = {each.name: plan.window.samples(each) for each in plan.modalities}
    models = {_file("encoder", name): encoder_model(name, each, samples[name]) for name, each in trained.items()}
    for name, (_, weight_KD, bias_K) in classifiers.items():
        models[_file("classifier", name)] = classifier_model(name, weight_KD, bias_K)
    parity = _parity(models, plan, trained, classifiers, windows)
    unfaithful = [f"{file} by {parity[file]:.3g}" for file in models if not parity[file] <= LARGEST_DIFFERENCE]
    if unfaithful:
        raise ReleaseError(
            f"{out}: not written, the exported models differ from the trained ones by more than {LARGEST_DIFFERENCE}: "
            f"{', '.join(unfaithful)}; look for weights that are not finite, or a layer that export/ does not know",
            catalogue.RELEASE_UNFAITHFUL,
        )
    try:
        manifest = Manifest(
            federation=federation,
            round=round,
            opset=OPSET,
            window=plan.window,
            encoders=tuple(_entry(plan, name, each, models[_file("encoder", name)]) for name, each in trained.items()),
            classifiers={
                name: ClassifierEntry(modalities=tuple(modalities), file=_file("classifier", name))
                for name, (modalities, _, _) in classifiers.items()
            },
            labels=tuple(labels),
            files={
                name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
                for name, data in models.items()
            },
            metrics=dict(metrics),
            parity=parity,
        )
    except ValueError as error:
        raise ReleaseError(f"{out}: not written, {error}", catalogue.RELEASE_NOT_MADE) from error
    if out.exists():
        _must_be_the_same(out, manifest)
    else:
        packed = pack_manifest(manifest)
        signature = {} if sign is None else {SIGNATURE: sign(packed)}
        make_folder(out.parent)
        _forget_remains(out)
        write_atomically(out, pack({**models, MANIFEST: packed, **signature}))
    return manifest


def _fit_together(
    plan: Plan,
    encoders: Mapping[str, Encoder],
    classifiers: Mapping[str, Classifier],
    labels: Sequence[str],
    windows: Mapping[str, Floats],
) -> None:
    if not encoders:
        raise ReleaseError("encoders: there is none to release", catalogue.RELEASE_NOT_MADE)
    count = len(next(iter(windows.values()), ()))
    for name, encoder in encoders.items():
        modality = plan.modality(name)
        if modality is None or modality.shape != encoder.sizes.shape:
            raise ReleaseError(
                f"encoders.{name}: the plan has no such modality of shape {encoder.sizes.shape}",
                catalogue.RELEASE_NOT_MADE,
            )
        given = windows[name].shape if name in windows else ()
        if count == 0 or given != (count, *plan.window.shape(modality)):
            wanted = ("N", *plan.window.shape(modality))
            raise ReleaseError(
                f"windows.{name}: expected an array {wanted} to check the export on, got {given}",
                catalogue.RELEASE_NOT_MADE,
            )
    for name, (modalities, weight_KD, bias_K) in classifiers.items():
        missing = sorted(set(modalities) - set(encoders))
        if missing or not modalities:
            raise ReleaseError(
                f"classifiers.{name}: needs encoders for its modalities; lacks {', '.join(missing)}",
                catalogue.RELEASE_NOT_MADE,
            )
        width = sum(encoders[each].sizes.embedding for each in modalities)
        if weight_KD.shape != (len(labels), width) or bias_K.shape != (len(labels),):
            raise ReleaseError(
                f"classifiers.{name}: expected weight ({len(labels)}, {width}) and bias ({len(labels)},), "
                f"got {weight_KD.shape} and {bias_K.shape}",
                catalogue.RELEASE_NOT_MADE,
            )


def _entry(plan: Plan, name: str, encoder: Encoder, model: bytes) -> EncoderEntry:
    modality = plan.modality(name)
    assert modality is not None, "checked before"
    return EncoderEntry(
        modality=modality,
        scaling=plan.scaling[name],
        architecture="conv" if modality.is_frames else encoder.sizes.architecture,
        embedding=encoder.sizes.embedding,
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        operations=operations(model, {name: (1, *plan.window.shape(modality))}),
        file=_file("encoder", name),
    )


def _file(kind: str, name: str) -> str:
    return f"{kind}-{name}.onnx"


# Parity


def _parity(
    models: Mapping[str, bytes],
    plan: Plan,
    encoders: Mapping[str, Encoder],
    classifiers: Mapping[str, Classifier],
    windows: Mapping[str, Floats],
) -> dict[str, float]:
    """Per file the largest difference to torch over some of `windows`, in batches of several sizes.

    A classifier is run as a wearable would, on the embeddings of the exported encoders.
    """
    sessions = {file: session(model, file) for file, model in models.items()}
    worst = dict.fromkeys(models, 0.0)
    for size in BATCHES:
        rows = np.unique(np.linspace(0, len(next(iter(windows.values()))) - 1, size).astype(np.intp))
        trained: dict[str, Floats] = {}
        exported: dict[str, Floats] = {}
        for name, encoder in encoders.items():
            x = plan.scaling[name].normalise(windows[name][rows])
            with torch.inference_mode():
                trained[name] = encoder(torch.from_numpy(x))[1].numpy()
            file = _file("encoder", name)
            [exported[name]] = sessions[file].run([EMBEDDING], {name: x})
            worst[file] = _worse(worst[file], difference(exported[name], trained[name]))
        for name, (modalities, weight_KD, bias_K) in classifiers.items():
            features = torch.from_numpy(np.concatenate([trained[each] for each in modalities], axis=1))
            scores = features @ torch.from_numpy(weight_KD).float().T + torch.from_numpy(bias_K).float()
            file = _file("classifier", name)
            joined = np.concatenate([exported[each] for each in modalities], axis=1)
            [probabilities] = sessions[file].run([PROBABILITIES], {EMBEDDINGS: joined})
            worst[file] = _worse(worst[file], difference(probabilities, torch.softmax(scores, dim=1).numpy()))
    return worst


def difference(exported_ND: Floats, trained_ND: Floats) -> float:
    """The largest difference of two outputs, relative per dimension where that goes beyond 1; NaN when any is NaN."""
    if exported_ND.shape != trained_ND.shape:
        return float("inf")
    scale_D = np.maximum(1.0, np.abs(trained_ND).max(axis=0))
    # The difference of two infinities is not a number, and so not faithful either.
    with np.errstate(invalid="ignore"):
        return float((np.abs(exported_ND - trained_ND) / scale_D).max())


def _worse(one: float, other: float) -> float:
    """The larger one; NaN is worse than any number."""
    return float(np.maximum(one, other))


def _must_be_the_same(out: Path, manifest: Manifest) -> None:
    there = read_release(out).manifest
    # How torch rounds may differ between two runs; the models themselves may not.
    if there.files != manifest.files or replace(there, parity=manifest.parity) != manifest:
        raise ReleaseError(
            f"{out}: holds another release (round {there.round}); releases are never overwritten",
            catalogue.RELEASE_IS_ANOTHER,
        )


def _forget_remains(out: Path) -> None:
    """Remove what interrupted writes left."""
    for path in out.parent.glob(f".{out.name}.*.tmp"):
        path.unlink(missing_ok=True)
