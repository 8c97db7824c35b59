"""What the coordinator itself has: the public proxy set, its few labelled windows, and windows kept apart for scores.

Shapes: N windows, T samples, all per modality (N, T, ...).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coordinator.settings import FederationSettings, recordings
from mekt.arrays import pack_windows, unpack_windows
from mekt.blobs import blob_ref
from mekt.errors import SettingsError
from mekt.modality import Scaling
from mekt.plan import LARGEST_BLOB_BYTES, BlobRef, Plan
from sensors.normalise import RunningStatistics, normalise
from sensors.recording import read_recording
from sensors.source import Floats
from sensors.stream import Recording, class_names
from sensors.windows import UNLABELLED, WindowSet, windows_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Datasets:
    """`proxy` is as devices get it, its bytes in `blobs`. Arrays are as sensed but for those of `labelled` and `test`.

    `labelled` and `test` are normalised and hold labelled windows only; labels are indexes of `classes`.
    """

    scaling: dict[str, Scaling]
    blobs: dict[str, bytes]
    proxy: dict[str, Floats]
    classes: tuple[str, ...]
    labelled: WindowSet | None
    test: WindowSet | None

    @property
    def proxy_windows(self) -> int:
        """N of the proxy set."""
        return len(next(iter(self.proxy.values())))

    @property
    def proxy_refs(self) -> dict[str, BlobRef]:
        """The proxy set's blobs by name."""
        return {name: blob_ref(data) for name, data in self.blobs.items()}

    def normalised_proxy(self) -> dict[str, Floats]:
        """The proxy set as encoders take it."""
        return {name: normalise(array, self.scaling[name]) for name, array in self.proxy.items()}


def read_datasets(settings: FederationSettings, base: Path) -> Datasets:
    """The recordings that `settings` name, cut into windows; equal files and settings give equal bytes.

    Only the proxy recordings decide the scaling, so nothing private or tested ever enters it.

    Raises:
        SettingsError: when a recording is not there, gives too few windows, or cannot be a proxy set.
        SensorError: when a recording cannot be read or lacks a modality.
    """
    names = [each.name for each in settings.modalities]
    played = {
        kind: [read_recording(path, names) for path in recordings(settings, base, kind)]
        for kind in ("proxy", "labelled", "test")
    }
    sensed = windows_of(played["proxy"], settings.modalities, settings.window)
    if len(sensed) < 2:
        raise SettingsError(
            f"proxy: the recordings hold {len(sensed)} windows of {settings.window.window_s:g} s; name longer ones"
        )
    rows = np.linspace(0, len(sensed) - 1, min(settings.proxy_windows, len(sensed))).round().astype(np.intp)
    blobs = {name: _packed(name, array[rows]) for name, array in sensed.arrays.items()}
    # What devices get went through float16; the coordinator learns from the same numbers.
    proxy = {name: unpack_windows(blobs[name], (len(rows), *sensed.arrays[name].shape[1:])) for name in blobs}
    scaling = {}
    for modality in settings.modalities:
        statistics = RunningStatistics(modality)
        statistics.update(proxy[modality.name])
        scaling[modality.name] = statistics.scaling()
    classes = class_names(played["labelled"] + played["test"])
    labelled, test = (_labelled(settings, scaling, classes, played[kind], kind) for kind in ("labelled", "test"))
    log.info(
        "proxy set of %d windows; %d labelled windows of %d classes, %d kept apart for scores",
        len(rows),
        0 if labelled is None else len(labelled),
        len(classes),
        0 if test is None else len(test),
    )
    return Datasets(scaling=scaling, blobs=blobs, proxy=proxy, classes=classes, labelled=labelled, test=test)


def _packed(name: str, windows: Floats) -> bytes:
    """The proxy set's blob of one modality."""
    try:
        data = pack_windows(windows)
    except ValueError as error:
        raise SettingsError(f"proxy: {name}: {error}; record it in a larger unit") from error
    if len(data) > LARGEST_BLOB_BYTES:
        raise SettingsError(
            f"proxy_windows: {len(windows)} windows of {name} are {len(data)} bytes, over the limit of "
            f"{LARGEST_BLOB_BYTES}; ask for fewer"
        )
    return data


def _labelled(
    settings: FederationSettings,
    scaling: Mapping[str, Scaling],
    classes: Sequence[str],
    played: Sequence[Recording],
    kind: str,
) -> WindowSet | None:
    """The labelled windows of these recordings, normalised; None of no recordings."""
    if not played:
        return None
    windows = windows_of(played, settings.modalities, settings.window, classes)
    windows = windows.select(windows.labels != UNLABELLED)
    if len(windows) == 0:
        raise SettingsError(f"{kind}: the recordings hold no labelled window; name others")
    arrays = {name: normalise(array, scaling[name]) for name, array in windows.arrays.items()}
    return WindowSet(arrays=arrays, labels=windows.labels)


def plan_of(settings: FederationSettings, datasets: Datasets, run: str) -> Plan:
    """All that a device must know to take part.

    Raises:
        SettingsError: when modalities and windows do not fit together.
    """
    try:
        return Plan(
            run=run,
            seed=settings.seed,
            rounds=settings.rounds,
            window=settings.window,
            modalities=settings.modalities,
            scaling=datasets.scaling,
            proxy=datasets.proxy_refs,
            proxy_windows=datasets.proxy_windows,
            method=settings.method,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
