"""A small arena of simulated persons for the bench's tests."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from bench.arena import Arena, Device
from bench.engine import plan_for
from coordinator.datasets import Datasets
from mekt.arrays import pack_windows, unpack_windows
from mekt.modality import WindowSpec
from mekt.plan import Architecture, Method, Plan
from sensors.normalise import RunningStatistics, normalise
from sensors.simulator import MODALITIES, simulate
from sensors.stream import class_names
from sensors.windows import UNLABELLED, WindowSet, windows_of

torch.set_num_threads(1)

SPEC = WindowSpec(window_s=1.0, stride_s=0.5)
METHOD: dict[str, Any] = {
    "embedding": 8,
    "hidden": 12,
    "batch": 16,
    "local_epochs": 1,
    "distil_epochs": 2,
    # Two views.
    "knowledge_rows": 48,
}
DEVICES: Mapping[str, Mapping[str, Architecture]] = {
    "pi-acc": {"acc": "conv"},
    "pi-both": {"acc": "conv", "gyro": "conv"},
    "pi-gyro": {"gyro": "conv"},
}
PROXY = 24


@cache
def person(number: int, duration_s: float = 20.0) -> WindowSet:
    """The windows of one simulated person, all labelled or UNLABELLED by `classes`."""
    recording = simulate(number, seed=1, duration_s=duration_s, modalities=("acc", "gyro"))
    return windows_of(recording, [MODALITIES["acc"], MODALITIES["gyro"]], SPEC, classes())


@cache
def classes() -> tuple[str, ...]:
    """Names of what simulated persons do."""
    return class_names([simulate(1, seed=1, duration_s=2.0, modalities=("acc",))])


def arena(
    devices: Mapping[str, Mapping[str, Architecture]] = DEVICES,
    *,
    names: Sequence[str] = ("acc", "gyro"),
    share: float = 1.0,
    duration_s: float = 20.0,
    scored: int | None = None,
) -> Arena:
    """One person a device, one for the proxy set, one with labels, one to be tested on; `scored` windows of these."""
    modalities = tuple(MODALITIES[name] for name in names)
    rows = np.linspace(0, len(person(100)) - 1, PROXY).round().astype(int)
    blobs = {name: pack_windows(person(100).arrays[name][rows]) for name in names}
    proxy = {name: unpack_windows(blobs[name], (PROXY, *SPEC.shape(MODALITIES[name]))) for name in names}
    scaling = {}
    for each in modalities:
        statistics = RunningStatistics(each)
        statistics.update(proxy[each.name])
        scaling[each.name] = statistics.scaling()

    def labelled(number: int) -> WindowSet:
        windows = person(number, 60.0)
        windows = windows.select(windows.labels != UNLABELLED)
        windows = windows.select(np.linspace(0, len(windows) - 1, scored or len(windows)).round().astype(int))
        return WindowSet(
            arrays={name: normalise(windows.arrays[name], scaling[name]) for name in names}, labels=windows.labels
        )

    def device(number: int, name: str, architectures: Mapping[str, Architecture]) -> Device:
        windows = person(number, duration_s)
        return Device(
            name=name,
            architectures=architectures,
            private=WindowSet(arrays={each: windows.arrays[each] for each in architectures}, labels=windows.labels),
            whole=WindowSet(arrays={each: windows.arrays[each] for each in names}, labels=windows.labels),
        )

    return Arena(
        protocol="simulated",
        rotation=0,
        modalities=modalities,
        window=SPEC,
        datasets=Datasets(
            scaling=scaling,
            blobs=blobs,
            proxy=proxy,
            classes=classes(),
            labelled=labelled(101),
            test=labelled(102),
        ),
        devices=tuple(device(number, name, kinds) for number, (name, kinds) in enumerate(devices.items(), start=1)),
        share=share,
    )


def plan(of: Arena, *, rounds: int = 2, seed: int = 3, **method: Any) -> Plan:
    """A plan that is learned in moments."""
    return plan_for(of, Method(**{**METHOD, **method}), rounds=rounds, seed=seed)
