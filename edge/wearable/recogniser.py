"""A release at work on streams: items of sources in, of each window the class probabilities out."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from edge.runtime import Decisions, Runtime
from export.manifest import Manifest
from export.release import Release
from mekt import catalogue
from mekt.errors import SensorError, SettingsError
from mekt.modality import Modality, WindowSpec
from sensors.source import Floats, Gap, Item
from sensors.windows import Windower

# How long, in the time of the samples, a window waits for a modality that is behind the others.
WAIT_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recognised:
    """One window: its start on the source's clock, its samples (1, T, ...) by modality, and what the release says."""

    start_s: float
    arrays: Mapping[str, Floats]
    decisions: Decisions
    latency_ms: float


class Recogniser:
    """Takes what sources give of `modalities` and classifies each window by the classifier that uses most of it.

    A modality that falls behind is waited for `WAIT_S`, then done without until it is back; that, and what the release
    could use and is not sensed, is said in words to `say`, once and whenever it changes. Windows are `every_s` apart,
    by default as far as those that the release was made of; encoders go through them in steps where that is faster.

    Raises:
        ReleaseError: when no classifier suffices for these modalities, or a model does not run.
        SettingsError: when `every_s` does not suit the release's windows.
    """

    def __init__(
        self,
        release: Release,
        modalities: Collection[str],
        say: Callable[[str], None],
        every_s: float | None = None,
    ) -> None:
        self.manifest = release.manifest
        self._say = say
        self.window = _window(self.manifest.window, every_s)
        self._runtime = Runtime(release, list(modalities), stride_s=self.window.stride_s)
        sets = [self._runtime.takes(each) for each in self._runtime.classifiers]
        self._kinds = [each for each in self.manifest.modalities if any(each.name in names for names in sets)]
        self._windower = Windower(self._kinds, self.window, sets=sets, wait_s=WAIT_S, rated=False)
        # At first it is as if all that the release knows had been used.
        self._used = frozenset(each.name for each in self.manifest.modalities)
        self._note(sets[0])

    def feed(self, item: Item) -> Iterator[Recognised]:
        """The windows that this completes.

        Raises:
            SensorError: when samples do not have their modality's shape.
        """
        for window in self._windower.feed(item):
            began_s = time.perf_counter()
            arrays = {name: array[None] for name, array in window.arrays.items()}
            embedded = {}
            for name in self._runtime.steps.keys() & arrays.keys():
                embedding = self._runtime.steps[name].embed(window.place, arrays[name])
                if embedding is not None:
                    embedded[name] = embedding
            decisions = self._runtime.classify(arrays, embedded=embedded)
            latency_ms = 1000 * (time.perf_counter() - began_s)
            self._note(decisions.modalities)
            yield Recognised(start_s=window.start_s, arrays=arrays, decisions=decisions, latency_ms=latency_ms)

    def finish(self) -> Iterator[Recognised]:
        """The windows that waited, when nothing more comes."""
        yield from self.feed(Gap(modalities=tuple(each.name for each in self._kinds)))

    def _note(self, used: tuple[str, ...]) -> None:
        if frozenset(used) == self._used:
            return
        self._used = frozenset(used)
        unused = ", ".join(each.name for each in self.manifest.modalities if each.name not in self._used)
        named = ", ".join(used)
        self._say(f"without {unused}: classifying by {named} alone" if unused else f"classifying by {named} again")


def _window(window: WindowSpec, every_s: float | None) -> WindowSpec:
    try:
        return window if every_s is None else WindowSpec(window_s=window.window_s, stride_s=every_s)
    except ValueError as error:
        raise SettingsError(
            f"every_s: the release's windows are {window.window_s:g} s long: {error}", catalogue.SETTING_OUT_OF_BOUNDS
        ) from error


def usable(
    sensed_modalities: Iterable[Modality], manifest: Manifest, modalities: Collection[str] | None = None
) -> list[str]:
    """What is sensed, the release knows, and the user wants.

    Raises:
        SensorError: when something wanted is not sensed, or does not have the shape and unit that the release knows.
    """
    sensed = {each.name: each for each in sensed_modalities}
    if modalities is not None:
        if missing := sorted(set(modalities) - sensed.keys()):
            raise SensorError(
                f"the source has no {', '.join(missing)}; it has {', '.join(sensed)}: name these",
                catalogue.MODALITY_MISSING,
            )
        sensed = {name: sensed[name] for name in modalities}
    for trained in manifest.modalities:
        given = sensed.get(trained.name, trained)
        if (given.shape, given.unit) != (trained.shape, trained.unit):
            raise SensorError(
                f"{given.name}: the source gives {given.shape} in {given.unit!r}, the release was trained on "
                f"{trained.shape} in {trained.unit!r}; use the sensor that it was trained for, or leave it out",
                catalogue.MODALITY_UNLIKE,
            )
    return [each.name for each in manifest.modalities if each.name in sensed]
