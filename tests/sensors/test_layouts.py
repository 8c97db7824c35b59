"""The public sets' layouts: rates, units, segments, labels; and what is said when an array cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mekt.errors import SensorError
from mekt.modality import WindowSpec
from sensors.layouts import ACC, GYRO, URFALL_CAMERA, UTD_DEPTH
from sensors.recording import read_recording
from sensors.stream import class_names
from sensors.windows import UNLABELLED, windows_of

Arrays = dict[str, Any]


def signal(count: int, channels: int = 3) -> Any:
    return np.arange(count * channels, dtype=np.float32).reshape(count, channels)


def hapt() -> Arrays:
    return {
        "acc": signal(6),
        "gyro": signal(6),
        "y": np.array([0, 5, 5, 5, 4, 0], np.uint8),
        "exp": np.array([1, 1, 1, 2, 2, 2], np.uint8),
        "hz": np.float32(50),
        "label_values": np.array([0, 4, 5], np.uint8),
        "label_names": np.array(["(unlabelled)", "SITTING", "STANDING"]),
    }


def utd_mhad() -> Arrays:
    return {
        "acc": signal(6),
        "gyro": np.full((6, 3), 180, np.float32),
        "y": np.array([1, 1, 1, 1, 2, 2], np.uint8),
        "depth": np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((48, 64), np.uint8),
        "trials": np.array([[1, 1, 0, 4, 0, 3, 0, 3], [2, 1, 4, 6, 3, 4, 3, 4]], np.int32),
        "hz": np.float32(50),
        "depth_mm_per_unit": np.float32(16),
        "label_values": np.array([1, 2], np.uint8),
        "label_names": np.array(["wave", "clap"]),
    }


def urfall() -> Arrays:
    return {
        "acc": signal(5),
        "acc_t_ms": np.array([-2, 30, 30, 20, 70], np.int32),
        "acc_t_ok": np.array([1, 1, 0, 0, 1], np.uint8),
        "feat": signal(3, 8),
        "feat_t_ms": np.array([0, 33.5, 100], np.float32),
        "y": np.array([-1, 0, 1], np.int8),
        "label_values": np.array([-1, 0, 1], np.int8),
        "label_names": np.array(["not lying", "transition", "lying"]),
    }


def saved(folder: Path, arrays: Arrays) -> Path:
    np.savez(folder / "s1.npz", **arrays)
    return folder / "s1.npz"


def test_hapt_has_a_segment_for_each_experiment_and_no_name_for_0(tmp_path: Path) -> None:
    recording = read_recording(saved(tmp_path, hapt()))
    assert recording.name == "s1"
    assert recording.modalities == (ACC, GYRO)
    assert recording.label_names == {4: "SITTING", 5: "STANDING"}
    assert [segment.name for segment in recording.segments] == ["exp01", "exp02"]
    second = recording.segments[1]
    np.testing.assert_allclose(second.streams["gyro"].t_s, [0, 0.02, 0.04])
    np.testing.assert_array_equal(second.streams["gyro"].values, signal(6)[3:])
    assert second.labels is not None
    assert second.labels.values.tolist() == [5, 4, 0]


def test_utd_mhad_has_a_segment_for_each_trial_with_its_frames_spread_over_it(tmp_path: Path) -> None:
    recording = read_recording(saved(tmp_path, utd_mhad()))
    assert recording.modalities == (ACC, GYRO, UTD_DEPTH)
    assert recording.label_names == {1: "wave", 2: "clap"}
    assert [segment.name for segment in recording.segments] == ["a1t1", "a2t1"]
    first, second = recording.segments
    np.testing.assert_allclose(first.streams["acc"].t_s, [0, 0.02, 0.04, 0.06])
    np.testing.assert_allclose(first.streams["depth"].t_s, [0, 0.03, 0.06])
    np.testing.assert_allclose(second.streams["depth"].values, np.full((1, 48, 64), 0.048), rtol=1e-6)
    np.testing.assert_allclose(second.streams["gyro"].values, np.full((2, 3), np.pi), rtol=1e-6)
    assert second.labels is not None
    assert second.labels.values.tolist() == [2, 2]


def test_ur_fall_leaves_out_bad_stamps_and_labels_frames(tmp_path: Path) -> None:
    [segment] = (recording := read_recording(saved(tmp_path, urfall()))).segments
    assert recording.modalities == (ACC, URFALL_CAMERA)
    assert recording.label_names == {-1: "not lying", 0: "transition", 1: "lying"}
    np.testing.assert_allclose(segment.streams["acc"].t_s, [-0.002, 0.03, 0.07])
    np.testing.assert_array_equal(segment.streams["acc"].values, signal(5)[[0, 1, 4]])
    assert segment.labels is not None
    np.testing.assert_allclose(segment.labels.t_s, [0, 0.0335, 0.1])
    assert segment.labels.values.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("arrays", [hapt(), utd_mhad(), urfall()])
def test_any_modalities_of_a_set_can_be_read_alone(tmp_path: Path, arrays: Arrays) -> None:
    path = saved(tmp_path, arrays)
    for each in read_recording(path).modalities:
        assert read_recording(path, [each.name]).modalities == (each,)
    with pytest.raises(SensorError, match=r"s1.npz: has no modality eeg; it has acc, .*: name these$"):
        read_recording(path, ["eeg"])


def test_arrays_of_modalities_that_are_not_wanted_are_not_looked_at(tmp_path: Path) -> None:
    path = saved(tmp_path, utd_mhad() | {"depth": np.array(["?"])})
    assert read_recording(path, ["gyro", "acc"]).modalities == (GYRO, ACC)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (hapt() | {"gyro": signal(5)}, "y has shape (6,), another array of the same rows (5, 3)"),
        (hapt() | {"exp": np.uint8(1)}, "y has shape (6,), another array of the same rows ()"),
        (hapt() | {"acc": signal(6, 2)}, "acc has times (3,) and values (3, 2), expected (n,) and (n, 3)"),
        (hapt() | {"hz": np.float32(0)}, "hz is 0.0, expected a rate in samples per second"),
        (hapt() | {"hz": np.float32(np.nan)}, "hz is nan, expected a rate in samples per second"),
        (
            hapt() | {name: hapt()[name][:0] for name in ("acc", "gyro", "y", "exp")},
            "acc has no samples",
        ),
        (
            hapt() | {"label_names": np.array(["a"])},
            "label_values (3,) and label_names (1,) do not belong together",
        ),
        (utd_mhad() | {"trials": np.zeros((2, 4), np.int32)}, "trials are int32 (2, 4), expected whole numbers (k, 8)"),
        (utd_mhad() | {"trials": np.zeros((0, 8), np.int32)}, "holds no segment"),
        (
            utd_mhad() | {"trials": np.array([[1, 1, 0, 7, 0, 3, 0, 3]])},
            "trial 1 of action 1 lies outside of the recording",
        ),
        (
            utd_mhad() | {"trials": np.array([[1, 1, 0, 4, 0, 5, 0, 3]])},
            "trial 1 of action 1 lies outside of the recording",
        ),
        (urfall() | {"acc_t_ok": np.zeros(5, np.uint8)}, "acc has no samples"),
        (urfall() | {"acc_t_ms": np.zeros(4)}, "acc has shape (5, 3), another array of the same rows (4,)"),
        (urfall() | {"feat": np.full((3, 8), np.nan)}, "camera holds values that are not finite (NaN or infinity)"),
        (urfall() | {"y": np.zeros(2, np.int8)}, "labels are (2,) at times (3,), expected (n,) and (n,)"),
    ],
)
def test_arrays_that_do_not_belong_together_are_explained(tmp_path: Path, arrays: Arrays, said: str) -> None:
    path = saved(tmp_path, arrays)
    with pytest.raises(SensorError) as caught:
        read_recording(path)
    assert str(caught.value) == f"{path}: not a readable recording, {said}; record or fetch the file again"


@pytest.mark.parametrize("made", [hapt, utd_mhad, urfall])
def test_every_missing_array_is_named(tmp_path: Path, made: Callable[[], Arrays]) -> None:
    for name in made():
        path = saved(tmp_path, {each: array for each, array in made().items() if each != name})
        with pytest.raises(SensorError) as caught:
            read_recording(path)
        assert name in str(caught.value)


def test_a_hapt_subject_has_12_activities(public: Callable[[str], Path]) -> None:
    recording = read_recording(public("hapt/user01.npz"))
    assert len(recording.segments) == 2
    assert sum(len(segment.streams["acc"].t_s) for segment in recording.segments) == 39_884
    assert class_names([recording])[:6] == (
        *("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS"),
        *("SITTING", "STANDING", "LAYING"),
    )
    assert len(class_names([recording])) == 12


def test_a_utd_mhad_subject_has_27_actions_and_every_trial_gives_windows(public: Callable[[str], Path]) -> None:
    recording = read_recording(public("utd_mhad/s1.npz"), ["acc", "gyro", "depth"])
    assert len(recording.segments) == 107
    # No figure stands further away than the room is long, and none moves its wrist at more than 17 turns a second.
    assert max(segment.streams["depth"].values.max() for segment in recording.segments) < 5
    assert 5 < max(np.abs(segment.streams["gyro"].values).max() for segment in recording.segments) < 35
    windows = windows_of(recording, ["acc", "depth"], WindowSpec(window_s=1, stride_s=1), class_names([recording]))
    assert set(windows.labels.tolist()) == set(range(27))
    assert windows.arrays["depth"].shape[1:] == (30, 48, 64)


def test_every_ur_fall_sequence_is_read_and_most_give_windows(public: Callable[[str], Path]) -> None:
    folder = public("urfall/adl-27.npz").parent
    names = [*(f"adl-{number:02d}" for number in range(1, 41)), *(f"fall-{number:02d}" for number in range(1, 31))]
    recordings = [read_recording(folder / f"{name}.npz") for name in names]
    assert {class_names([each]) for each in recordings} == {("not lying", "transition", "lying")}
    spec, classes = WindowSpec(window_s=1.28, stride_s=0.64), ("not lying", "transition", "lying")
    sets = [windows_of(each, ["acc", "camera"], spec, classes) for each in recordings]
    assert sum(len(each) > 0 for each in sets) > 60
    labels = np.concatenate([each.labels for each in sets])
    assert set(labels.tolist()) == {0, 1, 2}
    assert UNLABELLED not in labels


def test_a_file_of_the_set_that_is_no_recording_is_told_apart(public: Callable[[str], Path]) -> None:
    with pytest.raises(SensorError, match=r"of no known layout, its arrays are depth_mm, frame, hz \(Mekt needs meta"):
        read_recording(public("urfall/fall-01_cam0_depth.npz"))
