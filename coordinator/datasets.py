"""What the coordinator itself has: the public proxy set, its few labelled windows, and windows kept apart for scores.

Shapes: N windows, T samples, all per modality (N, T, ...).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coordinator.settings import FederationSettings, recordings
from mekt import catalogue
from mekt.arrays import pack_windows, unpack_windows
from mekt.blobs import blob_ref
from mekt.errors import SettingsError
from mekt.modality import Modality, Scaling
from mekt.plan import LARGEST_BLOB_BYTES, BlobRef, Plan
from mekt.scores import Indexes
from sensors.normalise import RunningStatistics, normalise
from sensors.recording import read_recording
from sensors.source import Floats
from sensors.stream import class_names
from sensors.windows import UNLABELLED, WindowSet, windows_of


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
            f"proxy: the recordings hold {len(sensed)} windows of {settings.window.window_s:g} s; name longer ones",
            catalogue.TOO_FEW_RECORDED,
        )
    rows = np.linspace(0, len(sensed) - 1, min(settings.proxy_windows, len(sensed))).round().astype(np.intp)
    classes = class_names(played["labelled"] + played["test"])
    labelled, test = (
        windows_of(played[kind], settings.modalities, settings.window, classes) if played[kind] else None
        for kind in ("labelled", "test")
    )
    return datasets_of(settings.modalities, classes, sensed.select(rows).arrays, labelled, test)


def datasets_of(
    modalities: Sequence[Modality],
    classes: Sequence[str],
    proxy: Mapping[str, Floats],
    labelled: WindowSet | None,
    test: WindowSet | None,
) -> Datasets:
    """Windows, all as sensed and of all modalities, as datasets; `proxy` alone decides the scaling.

    Raises:
        SettingsError: when the windows cannot be a proxy set, or no window of `labelled` or `test` has a label.
    """
    blobs = {name: _packed(name, windows) for name, windows in proxy.items()}
    # What devices get went through float16; the coordinator learns from the same numbers.
    public = {name: unpack_windows(blobs[name], windows.shape) for name, windows in proxy.items()}
    scaling = {}
    for modality in modalities:
        statistics = RunningStatistics(modality)
        statistics.update(public[modality.name])
        scaling[modality.name] = statistics.scaling()
    return Datasets(
        scaling=scaling,
        blobs=blobs,
        proxy=public,
        classes=tuple(classes),
        labelled=None if labelled is None else _labelled(scaling, labelled, "labelled"),
        test=None if test is None else _labelled(scaling, test, "test"),
    )


def labelled_windows(settings: FederationSettings, base: Path, classes: Sequence[str]) -> tuple[WindowSet, Indexes]:
    """The windows of the labelled recordings, as sensed, in the order of their time, and the number of each one's (N).

    Labels are indexes of `classes`. There are none of either where no recording is labelled.

    Raises:
        SettingsError: when a recording is not there.
        SensorError: when one cannot be read or lacks a modality.
    """
    names = [each.name for each in settings.modalities]
    cut = [
        windows_of(read_recording(path, names), settings.modalities, settings.window, classes)
        for path in recordings(settings, base, "labelled")
    ]
    nothing = {each.name: np.empty((0, *settings.window.shape(each)), np.float32) for each in settings.modalities}
    arrays = {name: np.concatenate([none, *(each.arrays[name] for each in cut)]) for name, none in nothing.items()}
    labels = np.concatenate([np.empty(0, np.int64), *(each.labels for each in cut)])
    return WindowSet(arrays=arrays, labels=labels), np.repeat(np.arange(len(cut)), [len(each) for each in cut])


def _packed(name: str, windows: Floats) -> bytes:
    """The proxy set's blob of one modality."""
    try:
        data = pack_windows(windows)
    except ValueError as error:
        raise SettingsError(
            f"proxy: {name}: {error}; record it in a larger unit", catalogue.PROXY_OUT_OF_RANGE
        ) from error
    if len(data) > LARGEST_BLOB_BYTES:
        raise SettingsError(
            f"proxy_windows: {len(windows)} windows of {name} are {len(data)} bytes, over the limit of "
            f"{LARGEST_BLOB_BYTES}; ask for fewer",
            catalogue.PROXY_TOO_LARGE,
        )
    return data


def _labelled(scaling: Mapping[str, Scaling], windows: WindowSet, kind: str) -> WindowSet:
    """Those of the windows that have a label, normalised."""
    windows = windows.select(windows.labels != UNLABELLED)
    if len(windows) == 0:
        raise SettingsError(f"{kind}: the recordings hold no labelled window; name others", catalogue.NOTHING_LABELLED)
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
        raise SettingsError(str(error), catalogue.SETTINGS_CONTRADICT) from error
