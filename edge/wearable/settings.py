"""The settings file of a wearable: what it senses, by which release, how it decides, and who is told."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edge.wearable.decisions import DecideSettings
from mekt.schema import Bounds, FilePath, Later
from mekt.settings import read_toml
from sensors.settings import SensorSettings

if TYPE_CHECKING:
    from edge.updates.settings import UpdateSettings
    from mekt.login import BrokerSettings
else:
    UpdateSettings = Annotated[object, Later("edge.updates.settings.UpdateSettings")]
    BrokerSettings = Annotated[object, Later("mekt.login.BrokerSettings")]

# As Home Assistant wants the parts of its topics, without what MQTT keeps for filters.
Id = Annotated[str, Bounds(pattern=r"[A-Za-z0-9_-]{1,64}")]
Topic = Annotated[str, Bounds(pattern=r"[^\x00-\x1f\x7f+#$\ud800-\udfff][^\x00-\x1f\x7f+#\ud800-\udfff]{0,199}")]
Words = Annotated[str, Bounds(pattern=r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,64}")]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseSettings:
    """The release's file, and the public key of the coordinator that must have signed it, where there is one."""

    file: FilePath
    trust: FilePath | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishSettings:
    """Decisions as JSON under an MQTT topic, at QoS 1; with `retain` the broker keeps the latest."""

    topic: Topic
    retain: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HomeAssistantSettings:
    """What Home Assistant is to show: a device called `name`. `id` tells it from all others, and must not change."""

    id: Id
    name: Words
    discovery_prefix: Topic = "homeassistant"


@dataclass(frozen=True, kw_only=True, slots=True)
class WearableSettings:
    """All about a wearable. It runs one `release`, or those that come by `updates`.

    What it says goes to standard output and, where that is named, to the broker.
    It looks at a window `every_s`, by default as often as the release's windows were taken for learning.
    It says something when that has changed, and again after `repeat_s`; with 0, after every window. Without `[broker]`
    the broker is on this machine.
    """

    sensors: Annotated[tuple[SensorSettings, ...], Bounds(shortest=1, longest=16)]
    release: ReleaseSettings | None = None
    updates: UpdateSettings | None = None
    every_s: Annotated[float, Bounds(low=0.01, high=60)] | None = None
    decide: DecideSettings = field(default_factory=DecideSettings)
    repeat_s: Annotated[float, Bounds(low=0, high=3600)] = 60.0
    stdout: bool = True
    broker: BrokerSettings | None = None
    publish: PublishSettings | None = None
    home_assistant: HomeAssistantSettings | None = None

    def __post_init__(self) -> None:
        names = [name for each in self.sensors for name in each.modalities]
        if len(set(names)) != len(names):
            raise ValueError("sensors: two of them give the same modality; name each once")
        if (self.release is None) == (self.updates is None):
            raise ValueError("release: name its file, or with [updates] where it comes from over the air; one of both")
        if self.broker is not None and self.publish is None and self.home_assistant is None:
            raise ValueError("broker: nothing is sent there; add [publish] or [home_assistant], or leave it out")


def read_wearable(path: Path) -> WearableSettings:
    """The settings in the file at `path`, with every path in them located.

    Raises:
        SettingsError: naming everything that cannot work.
    """
    settings = read_toml(path, WearableSettings)
    base, release = path.parent, settings.release
    if release is not None:
        trust = None if release.trust is None else str(base / release.trust)
        release = ReleaseSettings(file=str(base / release.file), trust=trust)
    broker = settings.broker
    if broker is not None:
        from mekt.login import located

        broker = located(broker, base)
    return replace(settings, release=release, broker=broker)
