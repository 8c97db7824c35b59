"""The settings file of a federation, as the coordinator reads it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from coordinator.round import RoundRules
from mekt.errors import SettingsError
from mekt.link import BrokerSettings, located
from mekt.modality import Modality, ModalityName, WindowSpec
from mekt.plan import LARGEST_PROXY_WINDOWS, Architecture, Method
from mekt.schema import Bounds, Count, Name
from mekt.settings import read_toml

PathText = Annotated[str, Bounds(shortest=1, longest=4096)]
Paths = Annotated[tuple[PathText, ...], Bounds(longest=10_000)]


@dataclass(frozen=True, kw_only=True, slots=True)
class FederationSettings:
    """What a federation learns, from what, and where its coordinator keeps its state.

    `proxy`, `labelled` and `test` are recordings: public to the federation, the coordinator's own, and only for
    scores. `architectures` are those of the global encoders ("conv" where nothing is said).
    """

    federation: Name
    state: PathText = "state"
    rounds: Count
    seed: Annotated[int, Bounds(low=0, high=2**31 - 1)] = 0
    proxy: Annotated[Paths, Bounds(shortest=1)]
    proxy_windows: Annotated[int, Bounds(low=2, high=LARGEST_PROXY_WINDOWS)] = 512
    labelled: Paths = ()
    test: Paths = ()
    compute: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Bounds(low=1, high=1024)] | None = None
    window: WindowSpec
    modalities: Annotated[tuple[Modality, ...], Bounds(shortest=1, longest=16)]
    architectures: dict[ModalityName, Architecture] = field(default_factory=dict)
    method: Method = field(default_factory=Method)
    round: RoundRules = field(default_factory=RoundRules)
    broker: BrokerSettings = field(default_factory=BrokerSettings)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.architectures) - {each.name for each in self.modalities}):
            raise ValueError(f"architectures: {', '.join(unknown)} is no modality of this federation; remove it")
        for name, others in (("proxy", self.proxy), ("labelled", self.labelled)):
            if both := sorted(set(others) & set(self.test)):
                raise ValueError(f"test: {both[0]} is also in {name}; what is learned from cannot be a test")
        if self.test and not self.labelled:
            raise ValueError("test: scores need a classifier; name labelled recordings too")


def read_federation(path: Path) -> FederationSettings:
    """The settings in the file at `path`, with the paths of certificates and keys located.

    Raises:
        SettingsError: naming everything that cannot work.
    """
    settings = read_toml(path, FederationSettings)
    return replace(settings, broker=located(settings.broker, path.parent))


def recordings(settings: FederationSettings, base: Path, kind: Literal["proxy", "labelled", "test"]) -> list[Path]:
    """The paths of one kind of recordings; relative ones start at `base`.

    Raises:
        SettingsError: when one is not there.
    """
    paths = [base / text for text in getattr(settings, kind)]
    for index, path in enumerate(paths):
        if not path.is_file():
            raise SettingsError(
                f"{kind}[{index}]: {path} is not there (looked in {path.absolute().parent}); correct it"
            )
    return paths
