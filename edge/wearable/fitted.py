"""A release fitted to a wearable: which sensors it takes, what recognises and decides by it, how it is shown."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.turns import sources_of
from edge.wearable.decisions import Decider
from edge.wearable.recogniser import WAIT_S, Recogniser, usable
from edge.wearable.settings import WearableSettings
from export.manifest import Manifest
from export.release import Release
from mekt import catalogue
from mekt.errors import SensorError, SettingsError
from sensors.source import Settings, Source

if TYPE_CHECKING:
    from edge.wearable.home_assistant import HomeAssistant

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fitted:
    """All that depends on the release at work.

    `sources` are those of the `sensors` that it knows a modality of. Without a window for `silent_s` nothing is sensed.
    """

    name: str
    sensors: tuple[Settings, ...]
    sources: tuple[Source, ...]
    recogniser: Recogniser
    decider: Decider
    silent_s: float
    home: "HomeAssistant | None"


def fitted(release: Release, settings: WearableSettings, base: Path, former: Fitted | None = None) -> Fitted:
    """The release as these settings want it run; paths are relative to `base`. Nothing is opened.

    Sources go on from the `former` release where it takes the same ones, and so does what is said where the classes and
    the windows' stride are the same.

    Raises:
        MektError: when the settings, the sensors and the release do not go together.
    """
    manifest = release.manifest
    sensors = tuple(each for each in settings.sensors if any(map(manifest.encoder, each.modalities)))
    if not sensors:
        known = ", ".join(each.name for each in manifest.modalities)
        raise SensorError(
            f"the settings have no sensor for any of the release's modalities {known}; add a [[sensors]] table",
            catalogue.MODALITY_MISSING,
        )
    if unknown := settings.decide.unknown(manifest.labels):
        raise SettingsError(
            f"decide: the release has no class {', '.join(unknown)}; it has {', '.join(manifest.labels)}",
            catalogue.CHOICE_UNKNOWN,
        )
    same = former is not None and former.sensors == sensors
    sources = former.sources if former is not None and same else tuple(sources_of(sensors, base))
    sensed = usable([each for source in sources for each in source.modalities], manifest)
    recogniser = Recogniser(release, sensed, log.warning, settings.every_s)
    window = recogniser.window
    decider = None if former is None else former.decider
    if decider is None or (decider.labels, decider.stride_s) != (manifest.labels, window.stride_s):
        decider = Decider(manifest.labels, window.stride_s, settings.decide)
    return Fitted(
        name=f"the release of {manifest.federation}, round {manifest.round}",
        sensors=sensors,
        sources=sources,
        recogniser=recogniser,
        decider=decider,
        silent_s=window.window_s + WAIT_S + max(settings.decide.gap_s, 2 * window.stride_s),
        home=_home(manifest, settings, window.stride_s),
    )


def _home(manifest: Manifest, settings: WearableSettings, stride_s: float) -> "HomeAssistant | None":
    if settings.home_assistant is None:
        return None
    from edge.wearable.home_assistant import HomeAssistant

    return HomeAssistant(
        settings=settings.home_assistant,
        labels=manifest.labels,
        alarms=tuple(settings.decide.alarms),
        model=f"{manifest.federation}, round {manifest.round}",
        # After every window, where that is asked for: they may be further apart than anything else is told.
        repeat_s=max(settings.repeat_s, stride_s),
    )
