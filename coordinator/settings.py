"""The settings file of a federation, as the coordinator reads it."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from coordinator.rollout import RolloutRules
from coordinator.round import RoundRules
from mekt import catalogue
from mekt.errors import SettingsError
from mekt.login import BrokerSettings, located
from mekt.modality import LARGEST_WINDOW_VALUES, Modality, ModalityName, WindowSpec
from mekt.plan import LARGEST_PROXY_WINDOWS, Architecture, Method
from mekt.schema import Bounds, Count, Name, SchemaError, build
from mekt.settings import read_table, refusal

PathText = Annotated[str, Bounds(longest=4096, pattern=r"[^\0]+")]
Paths = Annotated[tuple[PathText, ...], Bounds(longest=10_000)]
Kind = Literal["proxy", "labelled", "test"]
KINDS: tuple[Kind, ...] = ("proxy", "labelled", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustSettings:
    """The folder of the authority that certifies devices and signs announcements and releases.

    `broker`: the folder that `mekt broker config` made, where the broker is on this machine and may be told who was
    revoked.
    """

    authority: PathText
    broker: PathText | None = None


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
    rollout: RolloutRules = field(default_factory=RolloutRules)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    trust: TrustSettings | None = None

    def __post_init__(self) -> None:
        names = [each.name for each in self.modalities]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"modalities: {twice[0]} is named twice; remove one")
        if unknown := sorted(set(self.architectures) - set(names)):
            raise ValueError(f"architectures: {', '.join(unknown)} is no modality of this federation; remove it")
        for each in self.modalities:
            if self.window.values(each) > LARGEST_WINDOW_VALUES:
                raise ValueError(
                    f"window: of {each.name} it holds more than {LARGEST_WINDOW_VALUES} values; make it shorter"
                )
        if self.round.secure and self.method.sends_hidden:
            raise ValueError("method: beta and gamma send hidden layers, which no secure sum is made of; set both to 0")
        if self.test and not self.labelled:
            raise ValueError("test: scores need a classifier; name labelled recordings too")


def read_federation(path: Path) -> FederationSettings:
    """The settings in the file at `path`, with the paths of certificates and keys located.

    A single recording may stand without brackets. Whether recordings are there is not looked at: who only wants to
    know where the broker is need not have them.

    Raises:
        SettingsError: naming everything that cannot work.
    """
    table = read_table(path)
    table |= {kind: [table[kind]] for kind in KINDS if isinstance(table.get(kind), str)}
    try:
        settings = build(FederationSettings, table)
        _keep_tests_apart(settings, path.parent)
    except SchemaError as error:
        raise refusal(path, error) from error
    return replace(settings, broker=located(settings.broker, path.parent))


def _keep_tests_apart(settings: FederationSettings, base: Path) -> None:
    """Refuse a recording that is both learned from and tested on, by whatever names and links it is called.

    Raises:
        SchemaError: naming every such recording.
    """
    places = {kind: [os.path.realpath(base / text) for text in getattr(settings, kind)] for kind in KINDS}
    problems = [
        f"test[{index}]: {settings.test[index]} is also in {kind}; what is learned from cannot be a test"
        for kind in ("proxy", "labelled")
        for index, place in enumerate(places["test"])
        if place in places[kind]
    ]
    problems += [
        f"{kind}[{index}]: {getattr(settings, kind)[index]} is named before; remove it here"
        for kind in KINDS
        for index, place in enumerate(places[kind])
        if place in places[kind][:index]
    ]
    if problems:
        raise SchemaError(problems)


def recordings(settings: FederationSettings, base: Path, kind: Kind) -> list[Path]:
    """The paths of one kind of recordings; relative ones start at `base`.

    Raises:
        SettingsError: naming every one that is not there.
    """
    paths = [base / text for text in getattr(settings, kind)]
    missing = [
        f"{kind}[{index}]: {path} is not there (looked in {path.absolute().parent}); correct it"
        for index, path in enumerate(paths)
        if not path.is_file()
    ]
    if missing:
        raise SettingsError("\n".join(missing), catalogue.RECORDING_NOT_FOUND)
    return paths
