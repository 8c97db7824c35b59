"""The settings file of a device, as its agent reads it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from edge.budget import PrivacySettings
from mekt.login import BrokerSettings, located
from mekt.modality import ModalityName
from mekt.plan import Architecture
from mekt.schema import Bounds, Name
from mekt.settings import read_toml
from sensors.quality import Limits
from sensors.settings import SensorSettings

Share = Annotated[float, Bounds(low=0, high=1)]
Ends = Annotated[tuple[float, ...], Bounds(shortest=2, longest=2)]
PathText = Annotated[str, Bounds(shortest=1, longest=4096, pattern=r"[^\0]*")]
# As many as a federation has at most, and as a presence names.
MOST_MODALITIES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateWindows:
    """How many windows a device keeps, the newest, and how many it needs before it learns.

    They lie in the state folder: of `capacity` windows, and a quarter more while a round is learned, no more than fit
    into `size_mb` (10^6 bytes; half as much again while a modality is lost), none older than `most_age_s`, sealed with
    `encrypt` by the key in `key_file` or by one that is made (`sensors.seal`). After a restart they are taken up.

    With `whole_source` it first waits for the end of a source that ends, such as a replay: a run is then repeatable. A
    restart begins such a source, and its windows, anew; as it does where all sources are recordings.

    Windows that are worse than one of the `worst_` are counted and not learned from (`sensors.quality`); all are kept
    unless set. `ranges` are the two ends, in a modality's unit, beyond which its sensor gives nothing.
    """

    capacity: Annotated[int, Bounds(low=1, high=1_000_000)] = 4096
    least: Annotated[int, Bounds(low=1, high=1_000_000)] = 64
    whole_source: bool = False
    size_mb: Annotated[float, Bounds(above=0, high=1e9)] = 1024.0
    most_age_s: Annotated[float, Bounds(above=0)] | None = None
    encrypt: bool = False
    key_file: PathText | None = None
    worst_gap_share: Share | None = None
    worst_saturated_share: Share | None = None
    worst_resampling_error: Annotated[float, Bounds(low=0)] | None = None
    ranges: dict[ModalityName, Ends] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.least > self.capacity:
            raise ValueError(f"least: {self.least} windows are more than the capacity of {self.capacity}")
        if self.key_file is not None and not self.encrypt:
            raise ValueError("key_file: nothing is sealed with it; add encrypt = true, or leave it out")
        for name, (low, high) in self.ranges.items():
            if not low < high:
                raise ValueError(f"ranges.{name}: expected the lower end first, got {low:g} and {high:g}")

    @property
    def limits(self) -> Limits:
        """The worst that a window may be to be learned from."""
        return Limits(
            gap_share=self.worst_gap_share,
            saturated_share=self.worst_saturated_share,
            resampling_error=self.worst_resampling_error,
        )

    @property
    def ends(self) -> dict[str, tuple[float, float]]:
        """The ranges, as pairs."""
        return {name: (low, high) for name, (low, high) in self.ranges.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustSettings:
    """Whom the device believes: the file with the public key of the coordinator, which signs its announcements."""

    coordinator: PathText


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSettings:
    """Which device this is, what it senses, and where it keeps its state.

    `architectures` are those of its own encoders ("conv" where nothing is said), `threads` what torch may use. Without
    `privacy` knowledge is shown as it is. With `sums_only` it takes part in rounds whose knowledge is summed in secret,
    and in no others.
    """

    federation: Name
    device: Name
    state: PathText = "state"
    threads: Annotated[int, Bounds(low=1, high=1024)] | None = None
    sensors: Annotated[tuple[SensorSettings, ...], Bounds(shortest=1, longest=16)]
    architectures: dict[ModalityName, Architecture] = field(default_factory=dict)
    windows: PrivateWindows = field(default_factory=PrivateWindows)
    privacy: PrivacySettings | None = None
    sums_only: bool = False
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    trust: TrustSettings | None = None

    def __post_init__(self) -> None:
        names = self.modalities
        if len(set(names)) != len(names):
            raise ValueError("sensors: two of them give the same modality; name each once")
        if len(names) > MOST_MODALITIES:
            raise ValueError(f"sensors: {len(names)} modalities are more than {MOST_MODALITIES}; leave some out")
        if unknown := sorted(set(self.architectures) - set(names)):
            raise ValueError(f"architectures: no sensor here gives {', '.join(unknown)}; remove it")
        if unknown := sorted(set(self.windows.ranges) - set(names)):
            raise ValueError(f"windows.ranges: no sensor here gives {', '.join(unknown)}; remove it")

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the device senses."""
        return tuple(name for sensor in self.sensors for name in sensor.modalities)

    def architecture(self, name: str) -> Architecture:
        """That of the encoder for this modality."""
        return self.architectures.get(name, "conv")


def read_device(path: Path) -> DeviceSettings:
    """The settings in the file at `path`, with the paths of certificates and keys located.

    Raises:
        SettingsError: naming everything that cannot work.
    """
    settings = read_toml(path, DeviceSettings)
    return replace(settings, broker=located(settings.broker, path.parent))
