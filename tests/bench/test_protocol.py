import dataclasses
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.arena import Arena
from bench.choice import random
from bench.protocol import (
    QUICK_DEVICES,
    QUICK_PROXY_WINDOWS,
    QUICK_SCORED_WINDOWS,
    QUICK_WINDOWS,
    ProtocolSpec,
    Roles,
    read_arena,
)
from mekt.errors import SensorError, SettingsError
from mekt.modality import WindowSpec
from mekt.plan import Architecture
from sensors.recording import read_recording, write_recording
from sensors.simulator import simulate
from sensors.windows import UNLABELLED, windows_of
from tests.bench.proof import changed, prove

ROLES = Roles(clients=(("p1", "p2"), ("p3",)), proxy=("p4",), labelled=("p5",), test=("p6", "p7"))
PROTOCOL = ProtocolSpec(
    name="made up",
    modalities=simulate(1, duration_s=1.0, modalities=("acc", "gyro")).modalities,
    window=WindowSpec(window_s=1.0, stride_s=0.5),
    classes=("walk", "sit", "lie"),
    rotations=(ROLES, replace(ROLES, proxy=("p5",), labelled=("p4",))),
    sets=(("acc",), ("gyro", "acc")),
    share=0.5,
    locate=lambda data, name: data / "made" / f"{name}.npz",
    page="nowhere",
    proxy_windows=40,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with seven simulated persons, each recorded twice."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(1, 8):
        first, second = (simulate(number, seed=seed, duration_s=40.0, modalities=("acc", "gyro")) for seed in (3, 4))
        recording = replace(first, segments=(*first.segments, *second.segments))
        write_recording(folder / "made" / f"p{number}.npz", recording)
    return folder


def spoil(source: Path, target: Path) -> None:
    """Signals become noise, and each kind of label a stretch of its own."""
    recording = read_recording(source)
    noise = np.random.default_rng(1)
    segments = []
    for each in recording.segments:
        assert each.labels is not None
        streams = {
            name: replace(stream, values=noise.normal(9, 5, stream.values.shape).astype(np.float32))
            for name, stream in each.streams.items()
        }
        values = np.sort(noise.choice(list(recording.label_names), len(each.labels.values)))
        segments.append(replace(each, streams=streams, labels=replace(each.labels, values=values)))
    write_recording(target, replace(recording, segments=tuple(segments)))


@pytest.mark.parametrize("rotation", [0, 1])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_recording_reaches_only_what_it_is_for(data: Path, tmp_path: Path, rotation: int, parts: int) -> None:
    prove(replace(PROTOCOL, parts=parts), data, tmp_path, spoil, rotation)


def test_devices_are_the_clients_in_order_with_the_modalities_in_turn(data: Path) -> None:
    arena = read_arena(PROTOCOL, 0, data)
    assert [(each.name, each.modalities) for each in arena.devices] == [("p1", ("acc",)), ("p3", ("acc", "gyro"))]
    assert (arena.protocol, arena.rotation, arena.share) == ("made up", 0, 0.5)
    own = [read_recording(data / "made" / f"p{number}.npz") for number in (1, 2, 3)]
    first, second = (
        windows_of(played, PROTOCOL.modalities, PROTOCOL.window, PROTOCOL.classes) for played in (own[:2], own[2:])
    )
    for device, whole in zip(arena.devices, (first, second), strict=True):
        assert all(np.array_equal(device.whole.arrays[name], whole.arrays[name]) for name in ("acc", "gyro"))
        assert np.array_equal(device.whole.labels, whole.labels) and np.array_equal(device.private.labels, whole.labels)
        assert set(device.private.arrays) == set(device.modalities)
        assert all(np.array_equal(array, whole.arrays[name]) for name, array in device.private.arrays.items())
    assert (first.labels == UNLABELLED).any() and (first.labels != UNLABELLED).any()


def test_a_client_s_segments_are_dealt_to_its_devices(data: Path) -> None:
    arena = read_arena(replace(PROTOCOL, parts=2), 0, data)
    assert [(each.name, each.modalities) for each in arena.devices] == [
        ("p1a", ("acc",)),
        ("p1b", ("acc", "gyro")),
        ("p3a", ("acc",)),
        ("p3b", ("acc", "gyro")),
    ]
    undivided = read_arena(PROTOCOL, 0, data).devices[1].whole.arrays["acc"]
    both = [each.whole.arrays["acc"] for each in arena.devices[2:]]
    assert np.array_equal(np.concatenate(both), undivided)
    with pytest.raises(SensorError, match="p3: a device of made up gets no window"):
        read_arena(replace(PROTOCOL, parts=3, rotations=(replace(ROLES, clients=(("p3",),)),)), 0, data)


def test_the_coordinator_has_labelled_windows_scaled_and_a_proxy_set_as_devices_unpack_it(data: Path) -> None:
    datasets = read_arena(PROTOCOL, 0, data).datasets
    assert datasets.labelled is not None and datasets.test is not None
    assert datasets.classes == PROTOCOL.classes and datasets.proxy_windows == 40
    for windows in (datasets.labelled, datasets.test):
        assert set(windows.labels.tolist()) <= {0, 1, 2}
    played = read_recording(data / "made/p5.npz")
    raw = windows_of(played, PROTOCOL.modalities, PROTOCOL.window, PROTOCOL.classes)
    raw = raw.select(raw.labels != UNLABELLED)
    for name, array in datasets.proxy.items():
        assert np.array_equal(array, array.astype(np.float16).astype(np.float32))
        scaled = datasets.scaling[name].normalise(raw.arrays[name])
        assert np.array_equal(datasets.labelled.arrays[name], scaled)
        assert np.allclose(datasets.normalised_proxy()[name].mean(axis=(0, 1)), 0, atol=1e-3)


def test_equal_files_and_arguments_give_equal_bytes_and_a_seed_changes_only_what_is_drawn(data: Path) -> None:
    def read(seed: int, **arguments: Any) -> Arena:
        return read_arena(PROTOCOL, 0, data, seed=seed, **arguments)

    assert changed(read(1), read(2)) == set()
    drawn: dict[str, Any] = {"labelled_share": 0.4, "proxy_rows": random}
    assert changed(read(1, **drawn), read(1, **drawn)) == set()
    assert changed(read(1, **drawn), read(2, **drawn)) == {"proxy", "scaling", "labelled", "test"}
    assert changed(read(1, labelled_share=0.4), read(2, labelled_share=0.4)) == {"labelled"}


def test_a_share_of_the_labels_is_of_every_class_and_part_of_a_larger_share(data: Path) -> None:
    def rows(share: float) -> tuple[dict[int, int], set[bytes]]:
        labelled = read_arena(PROTOCOL, 0, data, labelled_share=share).datasets.labelled
        assert labelled is not None
        return Counter(labelled.labels.tolist()), {each.tobytes() for each in labelled.arrays["acc"]}

    counts, everything = rows(1.0)
    before = everything
    for share in (0.5, 0.2, 0.001):
        few, windows = rows(share)
        assert few == {label: math.ceil(share * count) for label, count in counts.items()}
        assert windows < before
        before = windows


def test_the_proxy_set_is_of_the_wanted_size_and_chosen_as_wanted(data: Path) -> None:
    every = read_arena(PROTOCOL, 0, data, proxy_windows=10_000).datasets.proxy["acc"]
    assert len(every) > 100
    assert np.array_equal(read_arena(PROTOCOL, 0, data, proxy_windows=2).datasets.proxy["acc"], every[[0, -1]])
    last = read_arena(PROTOCOL, 0, data, proxy_windows=7, proxy_rows=lambda w, count, s: np.arange(count) + 3)
    assert np.array_equal(last.datasets.proxy["acc"], every[3:10])


def test_architectures_are_conv_where_nothing_is_said(data: Path) -> None:
    told: dict[int, dict[str, Architecture]] = {1: {"gyro": "lstm"}, 0: {"gyro": "lstm"}}
    first, second = read_arena(PROTOCOL, 0, data, architectures=told).devices
    assert first.architectures == {"acc": "conv"}
    assert second.architectures == {"acc": "conv", "gyro": "lstm"}


def test_quick_is_less_of_everything_and_nothing_else(data: Path) -> None:
    clients = tuple((f"p{number}",) for number in (1, 2, 3))
    protocol = replace(PROTOCOL, rotations=(replace(ROLES, clients=clients),), parts=2, proxy_windows=512)
    whole, quick = (read_arena(protocol, 0, data, quick=quick) for quick in (False, True))
    assert quick.datasets.proxy_windows == QUICK_PROXY_WINDOWS < whole.datasets.proxy_windows
    assert len(whole.devices) == len(quick.devices) == QUICK_DEVICES
    assert {len(each.private) for each in quick.devices} == {QUICK_WINDOWS}
    longer = replace(protocol, window=WindowSpec(window_s=1.0, stride_s=0.1))
    test = read_arena(longer, 0, data, quick=True).datasets.test
    assert test is not None and len(test) == QUICK_SCORED_WINDOWS
    one = replace(protocol, parts=1, sets=(("acc",),))
    assert len(read_arena(one, 0, data, quick=True).devices) == 3
    assert read_arena(one, 0, data, quick=True, proxy_windows=9).datasets.proxy_windows == 9


def test_a_recording_cannot_have_two_roles() -> None:
    fields = {each.name: getattr(ROLES, each.name) for each in dataclasses.fields(ROLES)}
    for role in ("proxy", "labelled", "test"):
        with pytest.raises(ValueError, match="p2 has two roles"):
            Roles(**{**fields, role: ("p2",)})
        with pytest.raises(ValueError, match="every role needs a recording"):
            Roles(**{**fields, role: ()})
    with pytest.raises(ValueError, match="p1 has two roles"):
        replace(ROLES, clients=(("p1",), ("p1",)))


def test_what_cannot_be_read_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^rotation: made up has 0 to 1, not 2"):
        read_arena(PROTOCOL, 2, data)
    for share in (0.0, 1.5):
        with pytest.raises(SettingsError, match=r"^labelled_share: expected"):
            read_arena(PROTOCOL, 0, data, labelled_share=share)
    with pytest.raises(SensorError, match=rf"{tmp_path}.*there is no folder .*; made up is from nowhere$"):
        read_arena(PROTOCOL, 0, tmp_path)
    with pytest.raises(SettingsError, match=r"^proxy: p4 hold 0 windows"):
        read_arena(replace(PROTOCOL, window=WindowSpec(window_s=50.0, stride_s=50.0)), 0, data)
    with pytest.raises(SettingsError, match=r"^labelled: the recordings hold no labelled window"):
        read_arena(replace(PROTOCOL, classes=("swim",)), 0, data)
