"""A release's scores by onnxruntime are those of torch, over the windows that count."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.score import score_release
from mekt.errors import ReleaseError, SensorError
from mekt.scores import weighted_f1
from sensors.recording import read_recording, write_recording
from sensors.simulator import ACTIVITIES, simulate
from sensors.stream import Recording, Segment, class_names
from sensors.windows import UNLABELLED, windows_of
from tests.export.small import ACC, DEPTH, FUSED, GYRO, Parts, parts_of

torch.set_num_threads(1)

DATA = Path(os.environ.get("MEKT_DATA", Path(__file__).parents[3] / "shared" / "data"))
NAMES = tuple(each.name for each in ACTIVITIES)
BODY = simulate(2, duration_s=60)


def parts_with(labels: tuple[str, ...], parts: Parts) -> Parts:
    """The parts with other classes, and random classifiers for them."""
    rng = np.random.default_rng(4)
    classifiers = {}
    for name, (modalities, weight_KD, _) in parts.classifiers.items():
        weight = 3 * rng.normal(0, 1, (len(labels), weight_KD.shape[1])).astype(np.float32)
        classifiers[name] = (modalities, weight, rng.normal(0, 1, len(labels)).astype(np.float32))
    return replace(parts, labels=labels, classifiers=classifiers)


PARTS = parts_with(NAMES, parts_of(ACC, GYRO, DEPTH))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("score") / "release"
    PARTS.write(path)
    return path


def recorded(path: Path, recording: Recording = BODY, name: str = "body") -> Path:
    write_recording(path / f"{name}.npz", recording)
    return path / f"{name}.npz"


def by_torch(parts: Parts, recordings: list[Recording], modalities: list[str]) -> tuple[int, dict[str, float]]:
    kinds = [each for each in parts.plan.modalities if each.name in modalities]
    windows = windows_of(recordings, kinds, parts.plan.window, parts.labels)
    windows = windows.select(windows.labels != UNLABELLED)
    usable = [name for name, (needed, _, _) in parts.classifiers.items() if set(needed) <= set(modalities)]
    scores = {
        name: weighted_f1(windows.labels, parts_scores(parts, name, windows.arrays).argmax(axis=1), len(parts.labels))
        for name in usable
    }
    return len(windows), scores


def parts_scores(parts: Parts, name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    known = replace(parts, encoders={each: parts.encoders[each] for each in parts.classifiers[name][0]})
    return known.scores(name, arrays)


def test_the_f1_of_every_classifier_is_that_of_torch(release: Path, tmp_path: Path) -> None:
    scores = score_release(release, [recorded(tmp_path)])
    windows, expected = by_torch(PARTS, [BODY], ["acc", "gyro", "depth"])
    assert scores.windows == windows == 119
    assert scores.weighted_f1 == pytest.approx(expected)
    assert set(scores.weighted_f1) == {"acc", "gyro", "depth", FUSED}
    assert len(set(scores.weighted_f1.values())) > 1


def test_several_recordings_count_as_one(release: Path, tmp_path: Path) -> None:
    other = simulate(5, duration_s=20)
    scores = score_release(release, [recorded(tmp_path), recorded(tmp_path, other, "other")])
    windows, expected = by_torch(PARTS, [BODY, other], ["acc", "gyro", "depth"])
    assert scores.windows == windows == 119 + 39
    assert scores.weighted_f1 == pytest.approx(expected)


def test_only_what_every_recording_has_is_scored(release: Path, tmp_path: Path) -> None:
    no_depth = recorded(tmp_path, BODY.only(["gyro", "acc"]), "no-depth")
    scores = score_release(release, [no_depth, recorded(tmp_path)])
    assert scores.weighted_f1 == pytest.approx(by_torch(PARTS, [BODY, BODY], ["acc", "gyro"])[1])
    assert set(scores.weighted_f1) == {"acc", "gyro"}


def test_windows_of_classes_that_the_release_does_not_know_are_left_out(tmp_path: Path) -> None:
    parts = parts_with(("walk", "lie", "swim"), parts_of(ACC))
    parts.write(tmp_path / "release")
    scores = score_release(tmp_path / "release", [recorded(tmp_path)])
    windows, expected = by_torch(parts, [BODY], ["acc"])
    assert scores.windows == windows
    assert 0 < windows < 119
    assert scores.weighted_f1 == pytest.approx(expected)


def test_recordings_without_a_known_label_are_an_error(release: Path, tmp_path: Path) -> None:
    segment = BODY.segments[0]
    silent = Segment(name=segment.name, streams=segment.streams)
    for recording in (
        Recording(name="silent", segments=(silent,), label_names=BODY.label_names),
        Recording(name="foreign", segments=BODY.segments, label_names={0: "swim"}),
    ):
        with pytest.raises(SensorError, match=r"no window is labelled with one of the release's classes walk, climb"):
            score_release(release, [recorded(tmp_path, recording)])


def test_recordings_that_share_no_modality_with_the_release_are_an_error(release: Path, tmp_path: Path) -> None:
    acc = recorded(tmp_path, BODY.only(["acc"]), "acc")
    gyro = recorded(tmp_path, BODY.only(["gyro"]), "gyro")
    for recordings in ([acc, gyro], []):
        with pytest.raises(SensorError, match="name recordings that have acc, depth, gyro"):
            score_release(release, recordings)


def test_a_release_without_a_classifier_for_them_is_an_error(tmp_path: Path) -> None:
    parts = parts_of(ACC, GYRO, groups={"both": ("acc", "gyro")})
    parts.write(tmp_path / "release")
    with pytest.raises(ReleaseError, match="no classifier for acc alone"):
        score_release(tmp_path / "release", [recorded(tmp_path, BODY.only(["acc"]))])


def test_another_unit_is_refused(release: Path, tmp_path: Path) -> None:
    streams = BODY.segments[0].streams
    metric = replace(streams["acc"], modality=replace(ACC, unit="m/s^2"))
    segment = replace(BODY.segments[0], streams={"acc": metric})
    with pytest.raises(SensorError, match=r"in m/s\^2, expected \(3,\) in g"):
        score_release(release, [recorded(tmp_path, replace(BODY, segments=(segment,)))])


def test_a_real_person_is_scored_as_torch_does(tmp_path: Path) -> None:
    path = DATA / "hapt" / "user01.npz"
    if not path.is_file():
        pytest.skip(f"no {path}; name the recordings' folder with MEKT_DATA")
    recording = read_recording(path)
    parts = parts_with(class_names([recording]), parts_of(ACC, GYRO))
    parts.write(tmp_path / "release")
    scores = score_release(tmp_path / "release", [path])
    windows, expected = by_torch(parts, [recording], ["acc", "gyro"])
    assert scores.windows == windows > 500
    assert scores.weighted_f1 == pytest.approx(expected)
