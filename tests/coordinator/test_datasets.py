import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.datasets import Datasets, plan_of, read_datasets
from mekt.arrays import unpack_windows
from mekt.errors import SensorError, SettingsError
from mekt.modality import Modality
from sensors.recording import read_recording, write_recording
from sensors.simulator import MODALITIES, simulate
from sensors.stream import Labels, Recording, Segment, Stream
from tests.coordinator.conftest import settings_of, write_people


def with_labels(path: Path, change: dict[int, int]) -> None:
    """Give instants of one label another one; what is -1 then has no name."""
    recording = read_recording(path)
    segment = recording.segments[0]
    assert segment.labels is not None
    values = segment.labels.values.copy()
    for old, new in change.items():
        values[segment.labels.values == old] = new
    segment = replace(segment, labels=Labels(t_s=segment.labels.t_s, values=values))
    write_recording(path, replace(recording, segments=(segment,)))


def test_the_proxy_set_and_the_scaling_depend_on_the_proxy_recordings_alone(people: Path, tmp_path: Path) -> None:
    before = read_datasets(settings_of(), people)
    shutil.copy(people / "proxy.npz", tmp_path)
    write_people(tmp_path, labelled=8, test=9)
    others = read_datasets(settings_of(), tmp_path)
    without = read_datasets(settings_of(labelled=(), test=()), tmp_path)
    for after in (others, without):
        assert after.blobs == before.blobs and after.scaling == before.scaling
        assert plan_of(settings_of(), after, "0a").identity == plan_of(settings_of(), before, "0a").identity
    write_people(tmp_path, proxy=7)
    assert read_datasets(settings_of(), tmp_path).blobs != before.blobs


def test_equal_files_give_equal_bytes(people: Path, datasets: Datasets) -> None:
    again = read_datasets(settings_of(), people)
    assert again.blobs == datasets.blobs and again.scaling == datasets.scaling
    assert plan_of(settings_of(), again, "0a") == plan_of(settings_of(), datasets, "0a")


def test_the_coordinator_learns_from_what_devices_will_unpack(datasets: Datasets) -> None:
    settings = settings_of()
    plan = plan_of(settings, datasets, "")
    normalised = datasets.normalised_proxy()
    for modality in settings.modalities:
        name, shape = modality.name, (24, *settings.window.shape(modality))
        unpacked = unpack_windows(datasets.blobs[name], shape)
        assert np.array_equal(unpacked, datasets.proxy[name])
        assert np.array_equal(plan.scaling[name].normalise(unpacked), normalised[name])
        assert np.allclose(normalised[name].reshape(-1, modality.channels).mean(axis=0), 0, atol=1e-3)
        assert np.allclose(normalised[name].reshape(-1, modality.channels).std(axis=0), 1, atol=1e-3)


def test_windows_of_the_proxy_set_are_spread_over_its_recordings(people: Path) -> None:
    whole = read_datasets(settings_of(proxy_windows=512), people)
    few = read_datasets(settings_of(proxy_windows=5), people)
    assert whole.proxy_windows > 50 and few.proxy_windows == 5
    assert np.array_equal(few.proxy["acc"][[0, -1]], whole.proxy["acc"][[0, -1]])


def test_recordings_without_two_windows_are_no_proxy_set(tmp_path: Path) -> None:
    write_people(tmp_path, labelled=2, test=3)
    write_recording(tmp_path / "proxy.npz", simulate(1, duration_s=1.2))
    with pytest.raises(SettingsError, match=r"^proxy: the recordings hold 1 windows of 1 s; name longer ones"):
        read_datasets(settings_of(), tmp_path)


def test_classes_are_those_of_labelled_and_tested_recordings(people: Path, tmp_path: Path) -> None:
    names = read_datasets(settings_of(), people).classes
    assert names[:3] == ("walk", "climb", "descend")
    for name in ("proxy", "labelled", "test"):
        shutil.copy(people / f"{name}.npz", tmp_path)
    recording = read_recording(tmp_path / "test.npz")
    write_recording(tmp_path / "test.npz", replace(recording, label_names={**recording.label_names, 9: "swim"}))
    assert read_datasets(settings_of(), tmp_path).classes == (*names, "swim")
    assert read_datasets(settings_of(labelled=(), test=()), tmp_path).classes == ()


def test_windows_without_a_label_are_left_out(people: Path, tmp_path: Path) -> None:
    for name in ("proxy", "labelled", "test"):
        shutil.copy(people / f"{name}.npz", tmp_path)
    before = read_datasets(settings_of(), tmp_path)
    assert before.labelled is not None and before.test is not None
    kept = int(before.labelled.labels[0])
    with_labels(tmp_path / "labelled.npz", {label: -1 for label in range(7) if label != kept})
    after = read_datasets(settings_of(), tmp_path)
    assert after.labelled is not None and after.test is not None
    assert set(after.labelled.labels.tolist()) == {kept}
    assert 0 < len(after.labelled) < len(before.labelled) and len(after.test) == len(before.test)
    assert all(len(array) == len(after.labelled) for array in after.labelled.arrays.values())


@pytest.mark.parametrize("kind", ["labelled", "test"])
def test_recordings_without_any_label_are_refused(people: Path, tmp_path: Path, kind: str) -> None:
    for name in ("proxy", "labelled", "test"):
        shutil.copy(people / f"{name}.npz", tmp_path)
    with_labels(tmp_path / f"{kind}.npz", dict.fromkeys(range(7), -1))
    with pytest.raises(SettingsError, match=f"^{kind}: the recordings hold no labelled window"):
        read_datasets(settings_of(), tmp_path)


def test_a_missing_or_broken_recording_is_named(people: Path, tmp_path: Path) -> None:
    shutil.copy(people / "proxy.npz", tmp_path)
    shutil.copy(people / "test.npz", tmp_path)
    with pytest.raises(SettingsError, match=r"^labelled\[0\]: .*labelled.npz is not there"):
        read_datasets(settings_of(), tmp_path)
    (tmp_path / "labelled.npz").write_bytes((people / "labelled.npz").read_bytes()[:5000])
    with pytest.raises(SensorError, match=r"labelled.npz"):
        read_datasets(settings_of(), tmp_path)


def test_a_recording_that_lacks_a_modality_or_has_another_unit_is_refused(people: Path, tmp_path: Path) -> None:
    shutil.copy(people / "labelled.npz", tmp_path)
    shutil.copy(people / "test.npz", tmp_path)
    write_recording(tmp_path / "proxy.npz", simulate(1, duration_s=30.0, modalities=("acc",)))
    with pytest.raises(SensorError, match="has no modality gyro"):
        read_datasets(settings_of(), tmp_path)
    settings = settings_of(modalities=("acc",))
    with pytest.raises(SensorError, match="expected"):
        read_datasets(replace(settings, modalities=(replace(MODALITIES["acc"], unit="m/s2"),)), tmp_path)


def test_values_beyond_float16_are_a_mistake_of_the_unit(tmp_path: Path) -> None:
    pressure = Modality(name="pressure", shape=(1,), rate_hz=10.0, unit="Pa")
    t_s = np.arange(100) / 10
    stream = Stream(modality=pressure, t_s=t_s, values=np.full((100, 1), 101_325, np.float32))
    segment = Segment(name="day", streams={"pressure": stream})
    write_recording(tmp_path / "p.npz", Recording(name="p", segments=(segment,), label_names={}))
    settings = settings_of(proxy=("p.npz",), labelled=(), test=())
    with pytest.raises(SettingsError, match=r"^proxy: pressure: .*record it in a larger unit"):
        read_datasets(replace(settings, modalities=(pressure,)), tmp_path)


def test_a_channel_that_never_moves_still_has_a_scaling(tmp_path: Path) -> None:
    recording = simulate(1, duration_s=30.0, modalities=("acc",))
    segment = recording.segments[0]
    still = replace(segment.streams["acc"], values=np.zeros_like(segment.streams["acc"].values))
    write_recording(tmp_path / "proxy.npz", replace(recording, segments=(replace(segment, streams={"acc": still}),)))
    datasets = read_datasets(settings_of(modalities=("acc",), labelled=(), test=()), tmp_path)
    assert np.isfinite(datasets.normalised_proxy()["acc"]).all()
    assert plan_of(settings_of(modalities=("acc",)), datasets, "").scaling["acc"].std[0] > 0


def test_a_plan_that_cannot_be_is_a_mistake_of_the_settings(datasets: Datasets) -> None:
    with pytest.raises(SettingsError, match="scaling and proxy must name exactly the modalities"):
        plan_of(settings_of(modalities=("acc",)), datasets, "")
