"""A small model and its release, made in moments: what the tests of export and edge start from."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from export.layers import Floats
from export.manifest import FileEntry, Manifest, Measured, StepForm
from export.steps import step_of
from export.writer import Classifier, write_release
from mekt.encoders import Encoder, SplitAutoencoder
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import Architecture, BlobRef, Method, Plan
from sensors.layouts import ACC, GYRO
from sensors.simulator import DEPTH

LABELS = ("sit", "stand", "walk")
FUSED = "fused"


def plan_of(*modalities: Modality, method: Method | None = None, proxy_windows: int = 8) -> Plan:
    """Windows of one second; means and deviations that are not 0 and 1."""
    return Plan(
        seed=3,
        rounds=2,
        window=WindowSpec(window_s=1.0, stride_s=0.5),
        modalities=modalities,
        scaling={
            each.name: Scaling(
                mean=tuple(0.1 * (i + 1) for i in range(each.channels)),
                std=tuple(0.5 + 0.2 * i for i in range(each.channels)),
            )
            for each in modalities
        },
        proxy={each.name: BlobRef(sha256=bytes(32), size_bytes=1) for each in modalities},
        proxy_windows=proxy_windows,
        method=method or Method(embedding=4, hidden=6, knowledge_rows=1),
    )


def random_windows(plan: Plan, count: int, seed: int = 0) -> dict[str, Floats]:
    """Windows (count, T, ...) of every modality of the plan, as sensed."""
    rng = np.random.default_rng(seed)
    return {
        each.name: rng.normal(0.2, 1, (count, *plan.window.shape(each))).astype(np.float32) for each in plan.modalities
    }


def encoders_of(plan: Plan, architecture: Architecture = "conv") -> dict[str, Encoder]:
    """Untrained encoders of every modality of the plan."""
    model = SplitAutoencoder(plan, dict.fromkeys((each.name for each in plan.modalities), architecture))
    encoders: dict[str, Encoder] = {}
    for name, module in model.encoders.items():
        assert isinstance(module, Encoder)
        encoders[name] = module
    return encoders


def embeddings_of(plan: Plan, encoders: Mapping[str, Encoder], windows: Mapping[str, Floats]) -> dict[str, Floats]:
    """What torch says: embeddings (N, D) of windows as sensed."""
    with torch.inference_mode():
        return {
            name: encoder(torch.from_numpy(plan.scaling[name].normalise(windows[name])))[1].numpy()
            for name, encoder in encoders.items()
        }


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that `write_release` takes."""

    plan: Plan
    encoders: Mapping[str, Encoder]
    classifiers: Mapping[str, Classifier]
    labels: Sequence[str] = LABELS
    windows: Mapping[str, Floats]
    metrics: Mapping[str, float]
    federation: str = "ward-3"
    round: int = 7

    def write(self, out: Path, sign: Callable[[bytes], bytes] | None = None) -> Manifest:
        """The release as the file `out`."""
        return write_release(
            out,
            plan=self.plan,
            federation=self.federation,
            round=self.round,
            encoders=self.encoders,
            classifiers=self.classifiers,
            labels=self.labels,
            windows=self.windows,
            metrics=self.metrics,
            sign=sign,
        )

    def scores(self, classifier: str, windows: Mapping[str, Floats]) -> Floats:
        """What torch and numpy say: class scores (N, K) of windows as sensed."""
        embeddings = embeddings_of(self.plan, self.encoders, windows)
        modalities, weight_KD, bias_K = self.classifiers[classifier]
        scores: Floats = np.concatenate([embeddings[each] for each in modalities], axis=1) @ weight_KD.T + bias_K
        return scores


def parts_of(
    *modalities: Modality, architecture: Architecture = "conv", groups: Mapping[str, Sequence[str]] | None = None
) -> Parts:
    """Parts of a release: a random classifier for each modality alone and one of all, or those of `groups`."""
    plan = plan_of(*modalities)
    names = [each.name for each in modalities]
    rng = np.random.default_rng(1)
    classifiers: dict[str, Classifier] = {}
    for name, members in (groups or {**{name: (name,) for name in names}, FUSED: names}).items():
        weight_KD = 4 * rng.normal(0, 1, (len(LABELS), plan.method.embedding * len(members)))
        classifiers[name] = (tuple(members), weight_KD.astype(np.float32), rng.normal(0, 1, len(LABELS)).astype("f4"))
    return Parts(
        plan=plan,
        encoders=encoders_of(plan, architecture),
        classifiers=classifiers,
        windows=random_windows(plan, 70),
        metrics={f"weighted_f1/{name}": 0.5 for name in classifiers},
    )


__all__ = ["ACC", "DEPTH", "FUSED", "GYRO", "LABELS"]


def with_steps(
    manifest: Manifest, models: Mapping[str, bytes], *, takes: float, model: bytes | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    """These with the first encoder in steps too, one of which `takes` that much of a window; `model` for its own."""
    encoder, *others = manifest.encoders
    step = step_of(encoder, manifest.window, models[encoder.file])
    assert step is not None
    form = StepForm(
        file=f"encoder-{encoder.modality.name}-step.onnx",
        samples=step.samples,
        takes=step.takes,
        history=step.history,
        state=dict(step.state),
        operations=1,
        f1_lost=dict.fromkeys(manifest.users(encoder.modality.name), 0.0),
    )
    data = step.model if model is None else model
    entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    files = {**manifest.files, form.file: entry}
    measured = Measured(machine="-", onnxruntime="-", latency_ms={**dict.fromkeys(files, 1.0), form.file: takes})
    stepping = replace(manifest, encoders=(replace(encoder, step=form), *others), files=files, measured=measured)
    return stepping, {**models, form.file: data}
