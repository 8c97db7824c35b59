"""Every contender by its name, in the order of the tables."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.arena import Arena
from bench.contender import Contender
from bench.contenders.fedmekt import FedMekt
from bench.contenders.parameters import Averaging, contrastive, proximal
from mekt.plan import Fusion, Plan

# What makes a contender at its start, out of an arena and a plan whose seed is the run's.
Make = Callable[[Arena, Plan], Contender]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A method: its key, the table's label, one line about it, where it comes from, and how it is made.

    `learns_once`: all is learned in the first round, further ones change nothing.
    """

    name: str
    label: str
    text: str
    paper: str
    build: Make
    learns_once: bool = False

    def make(self, arena: Arena, plan: Plan, seed: int) -> Contender:
        """The method at its start; it must be run with the plan of this seed."""
        return self.build(arena, replace(plan, seed=seed))


def _fedmekt(fusion: Fusion) -> Make:
    def build(arena: Arena, plan: Plan) -> Contender:
        return FedMekt(arena, replace(plan, method=replace(plan.method, fusion=fusion)))

    return build


ENTRIES = (
    Entry(
        name="fedavg",
        label="MM-FedAvg",
        text="local autoencoders averaged, weighted by windows",
        paper="Zhao et al., IoTDI 2022, arXiv 2109.02999",
        build=Averaging,
    ),
    Entry(
        name="fedprox",
        label="MM-FedProx",
        text="MM-FedAvg whose devices are held near the global parameters",
        paper="Li et al., MLSys 2020, arXiv 1812.06127",
        build=lambda arena, plan: Averaging(arena, plan, proximal()),
    ),
    Entry(
        name="moon",
        label="MM-MOON",
        text="MM-FedAvg whose devices contrast the global with their previous embeddings",
        paper="Li et al., CVPR 2021, arXiv 2103.16257",
        build=lambda arena, plan: Averaging(arena, plan, contrastive()),
    ),
    Entry(
        name="fedmekt-c",
        label="FedMEKT-C",
        text="embeddings of the proxy set, distilled through a layer that joins all modalities",
        paper="Le et al., arXiv 2307.13214",
        build=_fedmekt("concatenated"),
    ),
    Entry(
        name="fedmekt-s",
        label="FedMEKT-S",
        text="embeddings of the proxy set, distilled modality by modality",
        paper="Le et al., arXiv 2307.13214",
        build=_fedmekt("separate"),
    ),
)
METHODS = {each.name: each for each in ENTRIES}
