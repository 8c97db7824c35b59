"""A release at work says what torch would say, for what is sensed, or says why it cannot."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.runtime import BATCH, Runtime
from export.graphs import classifier_model, encoder_model
from export.manifest import FileEntry, Int8Form, Measured
from export.release import Release, read_release
from mekt.errors import ReleaseError, SensorError
from tests.export.small import ACC, DEPTH, FUSED, GYRO, LABELS, Parts, parts_of, random_windows

torch.set_num_threads(1)

PARTS = parts_of(ACC, GYRO, DEPTH)
WINDOWS = random_windows(PARTS.plan, 9, seed=5)


def release_of(parts: Parts, folder: Path) -> Release:
    parts.write(folder / "release")
    return read_release(folder / "release")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release_of(PARTS, tmp_path_factory.mktemp("runtime"))


def with_model(release: Release, file: str, data: bytes) -> Release:
    """The release with another model under this name, and a manifest that agrees to it."""
    entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    manifest = replace(release.manifest, files={**release.manifest.files, file: entry})
    return Release(path=release.path, manifest=manifest, models={**release.models, file: data})


@pytest.mark.parametrize("name", ["acc", "gyro", "depth", FUSED])
def test_probabilities_are_those_of_torch(release: Release, name: str) -> None:
    decisions = Runtime(release).classify(WINDOWS, name)
    expected = torch.softmax(torch.from_numpy(PARTS.scores(name, WINDOWS)), dim=1).numpy()
    np.testing.assert_allclose(decisions.probabilities, expected, atol=1e-5)
    assert decisions.probabilities.dtype == np.float32
    assert (decisions.classifier, decisions.modalities, decisions.labels) == (
        name,
        tuple(PARTS.classifiers[name][0]),
        LABELS,
    )


def test_the_best_class_of_each_window_comes_with_its_probability(release: Release) -> None:
    decisions = Runtime(release).classify(WINDOWS)
    rows = decisions.probabilities
    assert decisions.best == [(LABELS[int(row.argmax())], float(row.max())) for row in rows]
    assert len(decisions) == len(decisions.best) == 9


@pytest.mark.parametrize(
    ("sensed", "used"),
    [
        (("acc", "gyro", "depth"), FUSED),
        (("acc",), "acc"),
        (("depth",), "depth"),
        (("gyro", "depth", "unheard-of"), "gyro"),
    ],
)
def test_a_subset_of_the_modalities_is_enough(release: Release, sensed: Sequence[str], used: str) -> None:
    release = replace_metrics(release, {"weighted_f1/gyro": 0.9, "weighted_f1/depth": 0.8})
    runtime = Runtime(release, sensed)
    arrays = {name: WINDOWS[name] for name in sensed if name in WINDOWS}
    decisions = runtime.classify(arrays)
    assert decisions.classifier == used
    np.testing.assert_array_equal(decisions.probabilities, Runtime(release).classify(WINDOWS, used).probabilities)


def replace_metrics(release: Release, metrics: Mapping[str, float]) -> Release:
    return replace(release, manifest=replace(release.manifest, metrics=dict(metrics)))


def test_more_modalities_are_preferred_then_the_better_score_then_the_name(release: Release) -> None:
    scored = {"weighted_f1/acc": 0.4, "weighted_f1/depth": 0.9, f"weighted_f1/{FUSED}": 0.1}
    assert Runtime(replace_metrics(release, scored)).classifiers == (FUSED, "depth", "acc", "gyro")
    assert Runtime(replace_metrics(release, {})).classifiers == (FUSED, "acc", "depth", "gyro")
    runtime = Runtime(replace_metrics(release, scored))
    assert runtime.choose(["gyro", "acc"]) == "acc"
    assert runtime.choose([]) is None
    assert runtime.takes(FUSED) == ("acc", "gyro", "depth")


def test_embeddings_go_side_by_side_in_the_order_of_the_classifier_not_of_the_names(tmp_path: Path) -> None:
    parts = parts_of(ACC, GYRO, groups={"both": ("gyro", "acc")})
    windows = random_windows(parts.plan, 3)
    decisions = Runtime(release_of(parts, tmp_path)).classify(windows)
    expected = torch.softmax(torch.from_numpy(parts.scores("both", windows)), dim=1).numpy()
    np.testing.assert_allclose(decisions.probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 3])
def test_any_number_of_windows_gives_what_each_alone_gives(release: Release, count: int) -> None:
    runtime = Runtime(release, ["acc"])
    windows = random_windows(PARTS.plan, count)["acc"]
    together = runtime.classify({"acc": windows}).probabilities
    assert together.shape == (count, 3)
    for row in {0, count // 2, count - 1}:
        alone = runtime.classify({"acc": windows[row : row + 1]}).probabilities
        np.testing.assert_allclose(together[row], alone[0], atol=1e-6)


def test_no_windows_give_no_decisions(release: Release) -> None:
    decisions = Runtime(release).classify({name: array[:0] for name, array in WINDOWS.items()})
    assert decisions.probabilities.shape == (0, 3)
    assert decisions.best == []


def test_windows_of_another_shape_are_refused(release: Release) -> None:
    runtime = Runtime(release)
    for wrong in (WINDOWS["acc"][:, :40], WINDOWS["acc"][:, :, :2], WINDOWS["acc"][0]):
        with pytest.raises(SensorError, match=r"windows of acc have shape .* the release needs \('N', 50, 3\)"):
            runtime.classify({"acc": wrong})


def test_windows_that_are_not_equally_many_are_refused(release: Release) -> None:
    with pytest.raises(SensorError, match="different numbers of windows"):
        Runtime(release).classify({**WINDOWS, "gyro": WINDOWS["gyro"][:4]})


def test_a_missing_modality_is_named(release: Release) -> None:
    with pytest.raises(SensorError, match="no windows of depth; there are acc, gyro"):
        Runtime(release).classify({"acc": WINDOWS["acc"], "gyro": WINDOWS["gyro"]}, FUSED)
    with pytest.raises(SensorError, match=r"no classifier for nothing; there are acc \(acc\)"):
        Runtime(release).classify({})


def test_no_classifier_for_what_is_sensed_is_an_error_of_the_release(tmp_path: Path) -> None:
    release = release_of(parts_of(ACC, GYRO, groups={"both": ("acc", "gyro")}), tmp_path)
    with pytest.raises(ReleaseError, match=r"no classifier for acc alone; there are both \(acc, gyro\)"):
        Runtime(release, ["acc"])
    with pytest.raises(ReleaseError, match="no classifier for nothing alone"):
        Runtime(release, [])


def test_encoders_without_a_classifier_decide_nothing(tmp_path: Path) -> None:
    release = release_of(replace(parts_of(ACC), classifiers={}, labels=(), metrics={}), tmp_path)
    with pytest.raises(ReleaseError, match="holds encoders but no classifier; give the coordinator labelled"):
        Runtime(release)


def test_only_the_models_that_are_needed_are_loaded(release: Release) -> None:
    broken = with_model(release, "encoder-depth.onnx", b"no model")
    assert Runtime(broken, ["acc", "gyro"]).classifiers == ("acc", "gyro")
    with pytest.raises(ReleaseError, match=r"encoder-depth\.onnx cannot be loaded by onnxruntime"):
        Runtime(broken)


def test_a_model_that_does_not_fit_the_manifest_is_found_at_once(release: Release) -> None:
    gyro_for_depth = encoder_model("depth", PARTS.encoders["gyro"], 10)
    with pytest.raises(ReleaseError, match=r"encoder-depth\.onnx does not run .* export the release again"):
        Runtime(with_model(release, "encoder-depth.onnx", gyro_for_depth))
    four_classes = classifier_model("acc", np.zeros((4, 4)), np.zeros(4))
    with pytest.raises(ReleaseError, match=r"classifier-acc\.onnx gives \(1, 4\), its manifest says \(1, 3\)"):
        Runtime(with_model(release, "classifier-acc.onnx", four_classes))


@pytest.mark.parametrize(("int8_ms", "runs_int8"), [(0.4, True), (0.6, False)])
def test_of_an_encoders_forms_the_one_is_run_that_the_manifest_finds_best(
    release: Release, int8_ms: float, runs_int8: bool
) -> None:
    # In the place of the smaller form another encoder, which is told from the first by what it says.
    other = parts_of(GYRO, DEPTH).encoders["gyro"]
    assert other.sizes == PARTS.encoders["acc"].sizes
    model = encoder_model("acc", other, 50)
    file = "encoder-acc-int8.onnx"
    int8 = Int8Form(file=file, how="static", f1_lost={"acc": 0.0, FUSED: 0.0})
    manifest = release.manifest
    encoders = tuple(replace(each, int8=int8) if each.modality.name == "acc" else each for each in manifest.encoders)
    digest = hashlib.sha256(model).hexdigest()
    files = {**manifest.files, file: FileEntry(sha256=digest, size_bytes=len(model) // 2)}
    measured = Measured(machine="-", onnxruntime="-", latency_ms={**dict.fromkeys(files, 0.5), file: int8_ms})
    finished = replace(
        release,
        manifest=replace(manifest, encoders=encoders, files=files, measured=measured),
        models={**release.models, file: model},
    )
    parts = replace(PARTS, encoders={**PARTS.encoders, "acc": other}) if runs_int8 else PARTS
    expected = torch.softmax(torch.from_numpy(parts.scores("acc", WINDOWS)), dim=1).numpy()
    np.testing.assert_allclose(Runtime(finished).classify(WINDOWS, "acc").probabilities, expected, atol=1e-5)
