"""The made-up person: the same each time, different from others, and neither too easy nor impossible to tell apart."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mekt.errors import SensorError
from mekt.modality import WindowSpec
from sensors.layouts import ACC, GYRO
from sensors.recording import read_recording, write_recording
from sensors.simulator import ACTIVITIES, DEPTH, simulate
from sensors.stream import Recording, class_names
from sensors.windows import WindowSet, windows_of

NAMES = ("walk", "climb", "descend", "sit", "stand", "lie", "fall")


def values(recording: Recording, name: str) -> NDArray[np.float32]:
    return recording.segments[0].streams[name].values


def test_a_recording_has_the_modalities_asked_for_over_the_whole_time() -> None:
    recording = simulate(1, duration_s=20, modalities=("depth", "acc", "gyro"))
    assert recording.modalities == (DEPTH, ACC, GYRO)
    [segment] = recording.segments
    assert {name: stream.values.shape for name, stream in segment.streams.items()} == {
        "acc": (1000, 3),
        "gyro": (1000, 3),
        "depth": (200, 24, 32),
    }
    for stream in segment.streams.values():
        np.testing.assert_allclose(stream.t_s, np.arange(len(stream.t_s)) / stream.modality.rate_hz)
        assert stream.values.dtype == np.float32
    assert segment.labels is not None
    assert len(segment.labels.values) == 1000


def test_every_value_has_the_name_of_an_activity_0_as_well() -> None:
    recording = simulate(1, duration_s=120, modalities=["acc"])
    assert recording.label_names == dict(enumerate(NAMES))
    assert class_names([recording]) == NAMES == tuple(each.name for each in ACTIVITIES)
    labels = recording.segments[0].labels
    assert labels is not None
    assert set(labels.values.tolist()) == set(range(7))


def test_the_same_subject_and_seed_give_the_same_bytes_and_others_do_not() -> None:
    first = simulate(3, seed=7, duration_s=10)
    for name in ("acc", "gyro", "depth"):
        assert values(first, name).tobytes() == values(simulate(3, seed=7, duration_s=10), name).tobytes()
        assert not np.array_equal(values(first, name), values(simulate(4, seed=7, duration_s=10), name))
        assert not np.array_equal(values(first, name), values(simulate(3, seed=8, duration_s=10), name))


def test_a_modality_does_not_depend_on_which_others_are_asked_for() -> None:
    everything = simulate(3, duration_s=10)
    for name in ("acc", "gyro", "depth"):
        alone = simulate(3, duration_s=10, modalities=[name])
        np.testing.assert_array_equal(values(alone, name), values(everything, name))


def test_a_longer_recording_begins_like_a_shorter_one() -> None:
    shorter, longer = simulate(3, duration_s=70), simulate(3, duration_s=100)
    for name in ("acc", "gyro", "depth"):
        # The very last samples of a movement are sensed by what comes next.
        end = len(values(shorter, name)) - 2
        np.testing.assert_array_equal(values(shorter, name)[:end], values(longer, name)[:end])


def test_values_are_those_of_real_sensors() -> None:
    recording = simulate(2, duration_s=300)
    strength_g = np.linalg.norm(values(recording, "acc"), axis=1)
    assert 0.95 < np.median(strength_g) < 1.1
    assert strength_g.max() < 8
    assert np.abs(values(recording, "gyro")).max() < 17
    depth_m = values(recording, "depth")
    assert 0.003 < (depth_m == 0).mean() < 0.03
    assert 1 < depth_m[depth_m > 0].min() < depth_m.max() < 5


def test_a_fall_is_the_hardest_movement() -> None:
    recording = simulate(5, duration_s=600, modalities=["acc"])
    labels = recording.segments[0].labels
    assert labels is not None
    away_g = np.abs(np.linalg.norm(values(recording, "acc"), axis=1) - 1)
    hardest = {name: np.quantile(away_g[labels.values == value], 0.999) for value, name in enumerate(NAMES)}
    assert max(hardest, key=lambda name: hardest[name]) == "fall"
    assert max(hardest["sit"], hardest["stand"], hardest["lie"]) < 0.5 < hardest["fall"]


def test_a_recording_can_be_written_and_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("simulated") / "one.npz"
    write_recording(path, simulate(1, duration_s=5))
    assert read_recording(path).name == "simulated-1"


def test_what_the_simulator_does_not_have_is_refused() -> None:
    with pytest.raises(SensorError, match=r"^the simulator has no mag; it has acc, gyro, depth: name these$"):
        simulate(1, duration_s=5, modalities=["acc", "mag"])
    for duration_s, modalities in ((0.0, ["acc"]), (-1.0, ["acc"]), (float("nan"), ["acc"]), (5.0, [])):
        with pytest.raises(SensorError, match=r"; simulate a second or more of one or more$"):
            simulate(1, duration_s=duration_s, modalities=modalities)


def features(windows: WindowSet, name: str) -> NDArray[np.float64]:
    """Means and deviations over time (N, F)."""
    array = windows.arrays[name].astype(np.float64)
    if name == "depth":
        array = array.reshape(*array.shape[:2], 8, 3, 8, 4).mean(axis=(3, 5)).reshape(*array.shape[:2], 64)
    return np.concatenate([array.mean(axis=1), array.std(axis=1)], axis=1)


def test_activities_of_strangers_can_be_told_apart_but_not_too_easily() -> None:
    spec = WindowSpec(window_s=2.56, stride_s=1.28)
    sets = [windows_of(simulate(n, duration_s=200), ["acc", "gyro", "depth"], spec, NAMES) for n in range(6)]
    known, unknown = sets[:4], sets[4:]
    labels, answers = (np.concatenate([each.labels for each in group]) for group in (known, unknown))
    right = {}
    for name in ("acc", "gyro", "depth"):
        x, asked = (np.concatenate([features(each, name) for each in group]) for group in (known, unknown))
        x, asked = (x - x.mean(axis=0)) / x.std(axis=0), (asked - x.mean(axis=0)) / x.std(axis=0)
        means = np.stack([x[labels == value].mean(axis=0) for value in range(7)])
        nearest = ((asked[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        right[name] = float((nearest == answers).mean())
    assert all(0.25 < share < 0.95 for share in right.values()), right
