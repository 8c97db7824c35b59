"""What each command of `mekt bench` runs: lists of cells, and the rows that they belong to."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from bench.attacks import ATTACKS
from bench.cells import Cell, Setting, changes
from bench.protocol import QUICK_DEVICES
from bench.summary import Entry, Experiment
from coordinator.round import Aggregator
from mekt.plan import Architecture, Encoding, Method

PROXY_CHOICES = ("even", "random", "k-centre", "coverage")
PROXY_SIZES = (64, 128, 256, 512, 1024)
LABELLED_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
DISTIL_EPOCHS = (5, 10, 40)
LOCAL_EPOCHS = (1, 2, 5)
OWN_METHOD = "fedmekt-s"
# The fusion is part of the method's name, not of its settings.
FUSED_METHOD = "fedmekt-c"
LABELS_ONLY = "labels-only"
NO_DEVICES = "coordinator-alone"
DEFAULTS = Method()
# The authors' published code was timed with so many of HAPT's 23 clients in a round.
PUBLISHED_CLIENTS = 10
# The method's own parts, switched off or exchanged one at a time.
ABLATIONS: Mapping[str, Mapping[str, Setting]] = {
    "as it is": {},
    "devices follow while they learn, too (alpha 1)": {"alpha": 1.0},
    "coordinator barely follows (eta 1)": {"eta": 1.0},
    "coordinator does not follow (eta 0)": {"eta": 0.0},
    "no contrast": {"contrast": 0.0},
    "embeddings may use few dimensions": {"decorrelate": 0.0},
    "half the rows, twice the bits": {"knowledge_rows": 512, "encoding": "int8"},
    "no changed windows, one view of the proxy set": {"augment": 0.0},
    "devices do not catch up first": {"follow_epochs": 0},
    "hidden layer too (beta 1, gamma 20)": {"beta": 1.0, "gamma": 20.0},
    "waveforms rebuilt, not spectra": {"reconstruction": "waveform"},
    "transfer by KL (the paper's)": {"transfer": "kl"},
    "transfer by cosine": {"transfer": "cosine"},
    "transfer of relations": {"transfer": "relational"},
    "modalities fused (FedMEKT-C)": {"fusion": "concatenated"},
    "embedding of 64": {"embedding": 64},
}


# What protects a device's knowledge: clipping alone, and noise in multiples of the bound. The largest is for an epsilon
# that would mean something.
CLIP = 1.0
NOISES = (0.0, 0.3, 1.0, 3.0, 100.0)
ATTACKED_NOISES = (0.3, 3.0)
# The same objective as ours, so that what differs is what crosses.
PARAMETERS = "fedavg-contrast"
# Devices that learn their windows by heart, so that there is something to find for an attack that works.
BY_HEART: Mapping[str, Setting] = {"local_epochs": 40, "augment": 0.0, "contrast": 0.0}


AGGREGATORS: tuple[str, ...] = get_args(Aggregator)
QUARANTINE = "quarantine"
# How the coordinator meets poisoned devices: an aggregator, some with quarantine.
DEFENCES = (*AGGREGATORS, *(f"{name} + {QUARANTINE}" for name in ("mean", "median", "geometric-median")))
HONEST = "nobody"


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A method that there is: its name, its label in tables, a line about it; bounds are not federated."""

    name: str
    label: str
    text: str
    paper: str
    federated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a command was asked to run. `rotations`: protocol -> how many it has; `modalities`: their names.

    `attacks` and `defences` are all where none is named, `attackers` is 0 for each attack's own share.
    """

    protocols: tuple[str, ...]
    methods: tuple[Offer, ...]
    seeds: int
    rounds: int
    all_rotations: bool
    quick: bool
    rotations: Mapping[str, int]
    modalities: Mapping[str, tuple[str, ...]]
    attacks: tuple[str, ...] = ()
    defences: tuple[str, ...] = ()
    attackers: float = 0.0


Maker = Callable[[Wanted], Experiment]


def compare(wanted: Wanted) -> Experiment:
    """All methods: the seeds on rotation 0, and every rotation with seed 0."""
    entries = [
        Entry(cell=cell, keys=(offer.label,), federated=offer.federated)
        for cell, offer in _cells_of_methods(wanted, wanted.methods)
    ]
    if wanted.all_rotations:
        entries += [
            Entry(
                cell=replace(cell, rotation=rotation),
                keys=(offer.label,),
                federated=offer.federated,
                section=f"{cell.protocol}, over {wanted.rotations[cell.protocol]} rotations",
            )
            for cell, offer in _cells_of_methods(replace(wanted, seeds=1), wanted.methods)
            for rotation in range(wanted.rotations[cell.protocol])
        ]
    title = f"Methods compared after {wanted.rounds} rounds"
    return Experiment(name="compare", title=title, keys=("method",), entries=tuple(entries))


def measure_bytes(wanted: Wanted) -> Experiment:
    """Every federated method, for its score per megabyte."""
    offers = [offer for offer in wanted.methods if offer.federated]
    entries = [Entry(cell=cell, keys=(offer.label,)) for cell, offer in _cells_of_methods(wanted, offers)]
    title = f"What a score costs in bytes, {wanted.rounds} rounds"
    return Experiment(name="bytes", title=title, keys=("method",), entries=tuple(entries))


def proxy(wanted: Wanted) -> Experiment:
    """How large the proxy set is, and how its windows are chosen; and what it gives with no devices at all."""
    choices, sizes = (PROXY_CHOICES[:2], PROXY_SIZES[:2]) if wanted.quick else (PROXY_CHOICES, PROXY_SIZES)
    series = {choice: (choice, OWN_METHOD) for choice in choices}
    series[f"{choices[0]}, no devices"] = (choices[0], NO_DEVICES)
    entries = [
        Entry(
            cell=replace(cell, method=method, proxy_windows=size, proxy_choice=choice),
            keys=(name, str(size)),
            series=name,
            x=size,
        )
        for name, (choice, method) in series.items()
        for size in sizes
        for cell in _own(wanted)
    ]
    return Experiment(
        name="proxy",
        title="The proxy set: how large, and how chosen (FedMEKT-S)",
        keys=("choice", "windows"),
        entries=tuple(entries),
        x_label="windows of the proxy set",
        x_log=True,
    )


def labels(wanted: Wanted) -> Experiment:
    """How many labels: semi-supervised against supervised on the labels alone."""
    shares = (0.1, 1.0) if wanted.quick else LABELLED_SHARES
    entries = [
        Entry(
            cell=replace(cell, labelled_share=share, method=method),
            keys=(label, f"{100 * share:g} %"),
            federated=method == OWN_METHOD,
            series=label,
            x=100 * share,
        )
        for method, label in ((OWN_METHOD, "FedMEKT-S"), (LABELS_ONLY, "labels alone"))
        for share in shares
        for cell in _own(wanted)
    ]
    return Experiment(
        name="labels",
        title="How many labels: embeddings learned together, and labels alone",
        keys=("method", "labelled"),
        entries=tuple(entries),
        x_label="share of the labelled windows (%)",
        x_log=True,
    )


def steps(wanted: Wanted) -> Experiment:
    """How much transfer: distil epochs, and how much learning on devices there is between."""
    distil, local = ((3, 10), (1, 2)) if wanted.quick else (DISTIL_EPOCHS, LOCAL_EPOCHS)
    entries = [
        Entry(
            cell=_changed(cell, {"distil_epochs": epochs, "local_epochs": each}),
            keys=(str(wanted.rounds), str(epochs), str(each), str(wanted.rounds * epochs)),
            series=f"{each} local epoch{'s' if each > 1 else ''}",
            x=wanted.rounds * epochs,
        )
        for each in local
        for epochs in distil
        for cell in _own(wanted)
    ]
    return Experiment(
        name="steps",
        title="How much transfer: rounds x distil epochs (FedMEKT-S)",
        keys=("rounds", "distil epochs", "local epochs", "transfer steps R"),
        entries=tuple(entries),
        x_label="transfer steps R = rounds x distil epochs",
        x_log=True,
    )


def single(wanted: Wanted) -> Experiment:
    """Every modality for itself: a federation in which nobody has another one."""
    entries = [
        Entry(cell=replace(cell, only=only), keys=(f"{only} alone" if only else "all modalities",))
        for cell in _own(wanted)
        for only in ("", *wanted.modalities[cell.protocol])
    ]
    title = "Each modality's autoencoder alone, and all together (FedMEKT-S)"
    return Experiment(name="single", title=title, keys=("federation",), entries=tuple(entries))


def encodings(wanted: Wanted) -> Experiment:
    """Knowledge on the wire in each encoding."""
    return _varied(
        wanted,
        name="encodings",
        title="Knowledge encoded for the wire (FedMEKT-S)",
        key="encoding",
        variants={name: {"encoding": name} for name in get_args(Encoding)},
    )


def ablate(wanted: Wanted) -> Experiment:
    """The method without one of its parts, each in turn."""
    variants = dict(list(ABLATIONS.items())[:3]) if wanted.quick else ABLATIONS
    return _varied(
        wanted, name="ablate", title="One part changed at a time (FedMEKT-S)", key="change", variants=variants
    )


def mixed(wanted: Wanted) -> Experiment:
    """Everybody with the same architecture, and everybody with another one."""
    names: tuple[str, ...] = get_args(Architecture)
    rows = {f"all {name}": "" if name == names[0] else name for name in names} | {
        f"mixed: {', '.join(names)}": "+".join(names)
    }
    entries = [
        Entry(cell=replace(cell, models=models), keys=(key,)) for key, models in rows.items() for cell in _own(wanted)
    ]
    title = "Devices of one architecture and of several (FedMEKT-S)"
    return Experiment(name="mixed", title=title, keys=("architectures",), entries=tuple(entries))


def privacy(wanted: Wanted) -> Experiment:
    """What a curious coordinator can tell about private windows, with and without protection; and what F1 is left."""
    noises, tried = (ATTACKED_NOISES[:1], NOISES[:2]) if wanted.quick else (ATTACKED_NOISES, NOISES)
    protections = [("none", 0.0, 0.0), *((_noise_name(noise), CLIP, noise) for noise in noises)]
    attacks = [
        ("knowledge", text, replace(cell, clip=clip, noise=noise))
        for text, clip, noise in protections
        for cell in _own(wanted)
    ]
    attacks += [("parameters", "none", replace(cell, method=PARAMETERS)) for cell in _own(wanted)]
    for what, method in (("knowledge", OWN_METHOD), ("parameters", PARAMETERS)):
        attacks += [
            (f"{what}, learned by heart", "none", replace(_changed(cell, BY_HEART), method=method))
            for cell in _own(wanted)
        ]
    scores = [("knowledge", "none", cell) for cell in _own(wanted)]
    scores += [
        ("knowledge", _noise_name(noise), replace(cell, clip=CLIP, noise=noise))
        for noise in tried
        for cell in _own(wanted)
    ]
    scores += [("nothing (eta 0)", "-", _changed(cell, {"eta": 0.0})) for cell in _own(wanted)]
    entries = [
        Entry(cell=replace(cell, curious=True), keys=(what, how), section=f"{cell.protocol}: who was learned from")
        for what, how, cell in attacks
    ]
    entries += [
        Entry(cell=cell, keys=(what, how), section=f"{cell.protocol}: what protection costs")
        for what, how, cell in scores
    ]
    title = f"What a curious coordinator can tell, {wanted.rounds} rounds"
    return Experiment(name="privacy", title=title, keys=("what crosses", "protection"), entries=tuple(entries))


def _noise_name(noise: float) -> str:
    return f"clip {CLIP:g}, noise {noise:g}" if noise else f"clip {CLIP:g}"


def poison(wanted: Wanted) -> Experiment:
    """Devices that send what spoils: every attack against every defence, and all defences with nobody to meet."""
    attacks = ["", *(wanted.attacks or (("noise",) if wanted.quick else ATTACKS))]
    defences = wanted.defences or (("mean", "median", f"mean + {QUARANTINE}") if wanted.quick else DEFENCES)
    # Where few devices take part, nobody can tell who errs.
    everybody = QUICK_DEVICES if wanted.quick else 0
    entries = [
        Entry(
            cell=_defended(
                replace(cell, attack=attack, attackers=wanted.attackers if attack else 0.0, participants=everybody),
                defence,
            ),
            keys=(defence,),
            section=f"{cell.protocol}, {ATTACKS[attack].label if attack else HONEST}",
            measured_by=f"{cell.protocol}, {HONEST}",
        )
        for attack in attacks
        for defence in defences
        for cell in _own(wanted)
    ]
    title = f"Poisoned devices: attacks and what holds against them, {wanted.rounds} rounds (FedMEKT-S)"
    return Experiment(name="poison", title=title, keys=("aggregator",), entries=tuple(entries))


def speed(wanted: Wanted) -> Experiment:
    """What a round takes of every federated method, one run at a time."""
    offers = [offer for offer in wanted.methods if offer.federated]
    entries = [
        Entry(cell=replace(cell, participants=PUBLISHED_CLIENTS, timed=True), keys=(offer.label,))
        for cell, offer in _cells_of_methods(wanted, offers)
    ]
    cores = os.cpu_count() or 1
    title = "What a round takes, on " + ("one core" if cores == 1 else f"{cores} cores")
    title += "" if wanted.quick else f", of {PUBLISHED_CLIENTS} devices"
    return Experiment(name="speed", title=title, keys=("method",), entries=tuple(entries))


EXPERIMENTS: Mapping[str, Maker] = {
    "compare": compare,
    "proxy": proxy,
    "labels": labels,
    "bytes": measure_bytes,
    "steps": steps,
    "single": single,
    "encodings": encodings,
    "mixed": mixed,
    "ablate": ablate,
    "privacy": privacy,
    "poison": poison,
    "speed": speed,
}


def _cells_of_methods(wanted: Wanted, offers: Sequence[Offer]) -> Iterator[tuple[Cell, Offer]]:
    for protocol in wanted.protocols:
        for offer in offers:
            for seed in range(wanted.seeds):
                cell = Cell(protocol=protocol, method=offer.name, rounds=wanted.rounds, seed=seed, quick=wanted.quick)
                yield cell, offer


def _own(wanted: Wanted) -> Iterator[Cell]:
    """Our method with its settings as they are: every protocol and seed."""
    for protocol in wanted.protocols:
        for seed in range(wanted.seeds):
            yield Cell(protocol=protocol, method=OWN_METHOD, rounds=wanted.rounds, seed=seed, quick=wanted.quick)


def _defended(cell: Cell, defence: str) -> Cell:
    aggregator, _, quarantine = defence.partition(" + ")
    # What changes nothing is the same run.
    return replace(
        cell, aggregator="" if aggregator == AGGREGATORS[0] else aggregator, quarantine="odd" if quarantine else ""
    )


def _varied(
    wanted: Wanted, *, name: str, title: str, key: str, variants: Mapping[str, Mapping[str, Setting]]
) -> Experiment:
    entries = [
        Entry(cell=_changed(cell, settings), keys=(text,))
        for text, settings in variants.items()
        for cell in _own(wanted)
    ]
    return Experiment(name=name, title=title, keys=(key,), entries=tuple(entries))


def _changed(cell: Cell, settings: Mapping[str, Setting]) -> Cell:
    if settings.get("fusion") == "concatenated":
        cell, settings = replace(cell, method=FUSED_METHOD), {k: v for k, v in settings.items() if k != "fusion"}
    # What changes nothing is the same run.
    real = {name: value for name, value in settings.items() if getattr(DEFAULTS, name) != value}
    return replace(cell, changes=changes(**real))
