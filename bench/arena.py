"""What every contender gets of one protocol: devices with their private windows, and what the coordinator has.

Shapes: N windows, per modality (N, T, ...). Nothing of a test subject is in anything but `test`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.attacks import Attack
from coordinator.datasets import Datasets
from coordinator.round import RoundRules
from mekt.modality import Modality, WindowSpec
from mekt.plan import Architecture
from sensors.windows import WindowSet


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Device:
    """One simulated device. `private` is as sensed, of the device's own modalities alone.

    Its labels are known to the bound "pooled, with labels" alone; UNLABELLED where a window has none. `whole` holds
    every modality of the same windows: only the pooled bounds look at it.
    """

    name: str
    architectures: Mapping[str, Architecture]
    private: WindowSet
    whole: WindowSet

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in sorted order."""
        return tuple(sorted(self.architectures))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Arena:
    """One rotation of one protocol, read. `datasets.labelled` and `.test` are normalised and labelled.

    `attackers` are devices that send what the `attack` makes of their knowledge; `rules` say how the coordinator
    aggregates and whom it leaves out. FedMEKT alone heeds these three.
    """

    protocol: str
    rotation: int
    modalities: tuple[Modality, ...]
    window: WindowSpec
    datasets: Datasets
    devices: tuple[Device, ...]
    share: float
    attack: Attack | None = None
    attackers: frozenset[str] = frozenset()
    rules: RoundRules = field(default_factory=RoundRules)
