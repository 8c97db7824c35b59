from pathlib import Path

import numpy as np
import pytest

from bench.protocol import read_arena
from bench.protocols.utd_mhad import DEPTH, PROTOCOL, prepare
from sensors.layouts import ACC, GYRO, UTD_DEPTH
from sensors.recording import read_recording
from sensors.stream import Labels, Recording, Segment, Stream, class_names
from sensors.windows import windows_of
from tests.bench.proof import DATA, assert_apart, names_of, needs, prove, spoil_npz

TRIALS = 9


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first trials of every subject."""
    folder = tmp_path_factory.mktemp("short")
    (folder / "utd_mhad").mkdir()
    for number in range(1, 9):
        with np.load(DATA / "utd_mhad" / f"s{number}.npz") as arrays:
            kept = {name: arrays[name] for name in arrays.files if "skel" not in name}
        kept["trials"] = kept["trials"][:TRIALS]
        kept["depth"] = kept["depth"][: kept["trials"][-1, 5]]
        np.savez(folder / "utd_mhad" / f"s{number}.npz", **kept)
    return folder


def trial(samples: int, frames: int, label: int) -> Segment:
    """A trial whose signals count samples, and whose frames count frames in one block of each four by four."""
    t_s = np.arange(samples) / 50
    counted = np.repeat(np.arange(samples, dtype=np.float32)[:, None], 3, axis=1)
    depth = np.zeros((frames, 48, 64), np.float32)
    depth[:, ::4, ::4] = np.arange(frames)[:, None, None]
    streams = {
        "acc": Stream(modality=ACC, t_s=t_s, values=counted),
        "gyro": Stream(modality=GYRO, t_s=t_s, values=counted),
        "depth": Stream(modality=UTD_DEPTH, t_s=np.linspace(0, t_s[-1], frames), values=depth),
    }
    return Segment(name="t", streams=streams, labels=Labels(t_s=t_s, values=np.full(samples, label)))


def test_nobody_has_two_roles_and_everybody_is_tested_once() -> None:
    for roles in PROTOCOL.rotations:
        assert_apart(names_of(roles))
        assert {role: len(names) for role, names in names_of(roles).items()} == {
            "client": 4,
            "proxy": 1,
            "labelled": 1,
            "test": 2,
        }
    assert [roles.test for roles in PROTOCOL.rotations] == [("s7", "s8"), ("s1", "s2"), ("s3", "s4"), ("s5", "s6")]


@pytest.mark.parametrize(("samples", "frames"), [(127, 48), (128, 69), (250, 100), (180, 16)])
def test_a_trial_of_any_length_is_one_window_from_its_begin_to_its_end(samples: int, frames: int) -> None:
    trials = (trial(samples, frames, 1), trial(samples + 1, frames, 2))
    recording = prepare(Recording(name="s", segments=trials, label_names={1: "wave", 2: "clap", 3: "other"}))
    assert recording.modalities == (ACC, GYRO, DEPTH)
    windows = windows_of(recording, PROTOCOL.modalities, PROTOCOL.window, ("clap", "wave"))
    assert windows.labels.tolist() == [1, 0]
    acc, depth = windows.arrays["acc"][0], windows.arrays["depth"][0]
    assert acc.shape == (128, 3) and depth.shape == (16, 12, 16)
    assert np.allclose(acc[:, 0], np.arange(128) / 128 * (samples - 1), atol=1e-2)
    # One reading of sixteen is there; the frame nearest in time is taken.
    assert np.abs(depth[:, 5, 5] * 16 - np.arange(16) / 16 * (frames - 1)).max() <= 0.501
    assert np.ptp(depth, axis=(1, 2)).max() == 0


@needs("utd_mhad")
def test_a_recording_reaches_only_what_it_is_for(short: Path, tmp_path: Path) -> None:
    prove(PROTOCOL, short, tmp_path, spoil_npz, rotation=2)


@needs("utd_mhad")
def test_every_trial_is_one_window_and_on_one_device(short: Path) -> None:
    arena = read_arena(PROTOCOL, 0, short)
    datasets = arena.datasets
    assert datasets.labelled is not None and datasets.test is not None
    assert (datasets.proxy_windows, len(datasets.labelled), len(datasets.test)) == (TRIALS, TRIALS, 2 * TRIALS)
    assert [each.name for each in arena.devices[:4]] == ["s1a", "s1b", "s1c", "s2a"]
    assert {each.modalities for each in arena.devices} == {("acc", "gyro"), ("depth", "gyro"), ("acc", "depth")}
    windows = [each.tobytes() for device in arena.devices for each in device.whole.arrays["acc"]]
    assert len(windows) == len(set(windows)) == 4 * TRIALS
    assert np.isfinite(datasets.normalised_proxy()["depth"]).all()


@needs("utd_mhad")
def test_every_action_is_on_every_device_of_a_client() -> None:
    recording = read_recording(DATA / "utd_mhad" / "s1.npz", ["acc"])
    assert class_names([recording]) == PROTOCOL.classes
    actions = [each.labels.values[0] for each in recording.segments if each.labels is not None]
    assert {len(set(actions[part::3])) for part in range(3)} == {27}
