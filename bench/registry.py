"""Every contender by its name, in the order of the tables."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.arena import Arena
from bench.contender import Contender
from bench.contenders.bounds import CoordinatorAlone, LocalOnly, PooledAutoencoder, RandomEncoders
from bench.contenders.creamfl import CreamFl
from bench.contenders.fedmekt import FedMekt
from bench.contenders.parameters import Averaging, contrastive, proximal
from bench.contenders.supervised import (
    LABELS_EPOCHS,
    POOLED_EPOCHS,
    Supervised,
    all_labelled_windows,
    labelled_windows,
)
from mekt.augment import Augmentation
from mekt.plan import Encoding, Fusion, Plan

# How much the labelled windows are changed, whatever the method does with unlabelled ones.
LABELS_STRENGTH = 1.0
# Weights and temperature of FedMEKT's published code; its hidden layer's knowledge is left out, and embeddings are
# compared in units of their spread, as everywhere here.
PUBLISHED_ALPHA, PUBLISHED_ETA, PUBLISHED_TEMPERATURE = 0.1, 0.1, 3.0
PUBLISHED_ENCODING: Encoding = "float16"
# What makes a contender at its start, out of an arena and a plan whose seed is the run's.
Make = Callable[[Arena, Plan], Contender]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A method: its key, the table's label, one line about it, where it comes from, and how it is made.

    `federated` ones learn together over the wire; bounds do not. `learns_once`: further rounds change nothing.
    """

    name: str
    label: str
    text: str
    paper: str
    build: Make
    federated: bool = True
    learns_once: bool = False

    def make(self, arena: Arena, plan: Plan, seed: int) -> Contender:
        """The method at its start; it must be run with the plan of this seed."""
        return self.build(arena, replace(plan, seed=seed))


def _published(build: Make) -> Make:
    """The method as its paper has it, on autoencoders that only rebuild: without the contrast that is Mekt's own.

    What it exchanges beside parameters goes as float16: coarser numbers belong to Mekt's method.
    """
    return lambda arena, plan: build(
        arena, replace(plan, method=replace(plan.method, contrast=0.0, encoding=PUBLISHED_ENCODING))
    )


def _fedmekt(fusion: Fusion) -> Make:
    def build(arena: Arena, plan: Plan) -> Contender:
        return FedMekt(arena, replace(plan, method=replace(plan.method, fusion=fusion)))

    return build


def _from_labels(arena: Arena, plan: Plan) -> Contender:
    return Supervised(arena, plan, labelled_windows(arena), LABELS_EPOCHS)


def _from_changed_labels(arena: Arena, plan: Plan) -> Contender:
    change = Augmentation(modalities=plan.modalities, scaling=plan.scaling, strength=LABELS_STRENGTH)
    return Supervised(arena, plan, labelled_windows(arena), LABELS_EPOCHS, change)


def _published_fedmekt(arena: Arena, plan: Plan) -> Contender:
    method = replace(
        plan.method,
        contrast=0.0,
        augment=0.0,
        follow_epochs=0,
        transfer="kl",
        alpha=PUBLISHED_ALPHA,
        eta=PUBLISHED_ETA,
        temperature=PUBLISHED_TEMPERATURE,
        encoding=PUBLISHED_ENCODING,
    )
    return FedMekt(arena, replace(plan, method=method))


ENTRIES = (
    Entry(
        name="random",
        label="random encoders",
        text="the encoders as the seed gives them",
        paper="",
        build=RandomEncoders,
        federated=False,
        learns_once=True,
    ),
    Entry(
        name="coordinator-alone",
        label="coordinator alone",
        text="the global encoders with no device to follow: from the proxy set by itself",
        paper="",
        build=CoordinatorAlone,
        federated=False,
    ),
    Entry(
        name="labels-only",
        label="labels alone",
        text="encoders and a linear head from the coordinator's few labels alone",
        paper="",
        build=_from_labels,
        federated=False,
        learns_once=True,
    ),
    Entry(
        name="labels-only-augmented",
        label="labels alone, augmented",
        text="the same, from windows that are changed anew each time",
        paper="",
        build=_from_changed_labels,
        federated=False,
        learns_once=True,
    ),
    Entry(
        name="local-only",
        label="devices alone",
        text="every device's autoencoder for itself; the mean of their scores",
        paper="",
        build=LocalOnly,
        federated=False,
    ),
    Entry(
        name="fedavg",
        label="MM-FedAvg",
        text="local autoencoders averaged, weighted by windows",
        paper="Zhao et al., IoTDI 2022, arXiv 2109.02999",
        build=_published(Averaging),
    ),
    Entry(
        name="fedprox",
        label="MM-FedProx",
        text="MM-FedAvg whose devices are held near the global parameters",
        paper="Li et al., MLSys 2020, arXiv 1812.06127",
        build=_published(lambda arena, plan: Averaging(arena, plan, proximal())),
    ),
    Entry(
        name="moon",
        label="MM-MOON",
        text="MM-FedAvg whose devices contrast the global with their previous embeddings",
        paper="Li et al., CVPR 2021, arXiv 2103.16257",
        build=_published(lambda arena, plan: Averaging(arena, plan, contrastive())),
    ),
    Entry(
        name="creamfl",
        label="CreamFL",
        text="embeddings of the proxy set under contrasts, weighed by how well they match",
        paper="Yu et al., ICLR 2023, arXiv 2302.08888",
        build=_published(CreamFl),
    ),
    Entry(
        name="fedmekt-published",
        label="FedMEKT as published",
        text="embeddings of an unchanged proxy set; devices that only rebuild; transfer by KL",
        paper="Le et al., arXiv 2307.13214",
        build=_published_fedmekt,
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
    Entry(
        name="fedavg-contrast",
        label="MM-FedAvg, Mekt's objective",
        text="MM-FedAvg whose devices also contrast, as Mekt's do",
        paper="Zhao et al., IoTDI 2022, arXiv 2109.02999",
        build=Averaging,
    ),
    Entry(
        name="pooled",
        label="pooled autoencoder",
        text="all private windows in one place, rebuilt",
        paper="",
        build=_published(PooledAutoencoder),
        federated=False,
    ),
    Entry(
        name="pooled-contrast",
        label="pooled, Mekt's objective",
        text="all private windows in one place, rebuilt and contrasted as on Mekt's devices",
        paper="",
        build=PooledAutoencoder,
        federated=False,
    ),
    Entry(
        name="pooled-labels",
        label="pooled, with labels",
        text="all private windows and their labels in one place: the upper bound",
        paper="",
        build=lambda arena, plan: Supervised(arena, plan, all_labelled_windows(arena), POOLED_EPOCHS),
        federated=False,
        learns_once=True,
    ),
)
METHODS = {each.name: each for each in ENTRIES}
