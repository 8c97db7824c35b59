from dataclasses import replace
from pathlib import Path

import pytest

from bench.attacks import ATTACKS, Moment, told
from bench.contenders.fedmekt import FedMekt
from bench.engine import run
from coordinator.learner import NOBODY, Learner
from coordinator.ledger import Delivery
from coordinator.round import RoundRules
from edge.lessons import Lesson
from edge.stock import InMemory
from mekt.files import BlobStore
from mekt.plan import Architecture, Fusion
from tests.bench.small import DEVICES, arena, plan

GUARDED = RoundRules(aggregator="geometric-median", quarantine="odd")


@pytest.mark.parametrize(
    ("fusion", "hidden", "augment", "rules"),
    [
        ("separate", 0.0, 1.0, RoundRules()),
        ("separate", 0.0, 0.0, RoundRules()),
        ("concatenated", 0.5, 1.0, RoundRules()),
        ("separate", 0.5, 1.0, GUARDED),
    ],
)
def test_it_gives_the_knowledge_that_the_product_gives(
    tmp_path: Path, fusion: Fusion, hidden: float, augment: float, rules: RoundRules
) -> None:
    """Two rounds by lessons and a learner, as devices and coordinator have them, on disk and all."""
    small = replace(arena(duration_s=10.0), rules=rules)
    of = plan(small, fusion=fusion, beta=hidden, gamma=hidden, augment=augment)
    ours = FedMekt(small, of)
    learner = Learner(
        federation="ward", plan=of, datasets=small.datasets, architectures={}, folder=tmp_path, rules=rules
    )
    standings = NOBODY
    blobs = BlobStore(tmp_path / "blobs")
    for data in small.datasets.blobs.values():
        blobs.put(data)
    weights: dict[str, bytes] = {}
    for number in range(of.rounds):
        refs = {name: blobs.put(data) for name, data in learner.knowledge(number).items()}
        deliveries, sent = [], {}
        for device in small.devices:
            announced = ours.announce(number, device.name)
            assert announced == {name: blobs.get(refs[name]) for name in device.modalities}
            sent[device.name] = ours.learn(device.name, number, announced)
            lesson = Lesson(
                device=device.name, round=number, plan=of, architectures=device.architectures, knowledge=refs
            )
            learned = lesson.learn(
                InMemory(device.private.arrays), weights.get(device.name), blobs, lambda done, whole: None
            )
            weights[device.name] = learned.weights
            assert sent[device.name] == learned.knowledge
            mine = {name: blobs.put(data) for name, data in learned.knowledge.items()}
            deliveries.append(Delivery(device=device.name, windows=learned.windows, knowledge=mine))
        ours.close(number, sent)
        standings = learner.close_round(number, deliveries, blobs, lambda done, whole: None, 0.0, standings).standings
        assert {**ours.announce(number + 1, "pi-both")} == learner.knowledge(number + 1)


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
def test_every_encoding_is_spoken(encoding: str) -> None:
    small = arena(duration_s=8.0)
    of = plan(small, rounds=1, encoding=encoding)
    [played] = run(FedMekt(small, of), small, of, evaluate=()).played
    assert set(played.participants) == set(DEVICES)


def test_what_a_device_gets_is_of_its_modalities() -> None:
    small = arena(duration_s=8.0)
    ours = FedMekt(small, plan(small))
    assert {name: set(ours.announce(0, name)) for name in DEVICES} == {
        name: set(modalities) for name, modalities in DEVICES.items()
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_attackers_lie_before_they_encode_and_all_others_do_not(name: str) -> None:
    small = arena(duration_s=8.0)
    of = plan(small, encoding="float32")
    attack = ATTACKS[name]
    honest = FedMekt(small, of)
    spoiled = FedMekt(replace(small, attack=attack, attackers=frozenset({"pi-both"})), of)
    first: dict[str, bytes] = {}
    for number in range(2):
        announced = {device: honest.announce(number, device) for device in DEVICES}
        assert {device: spoiled.announce(number, device) for device in DEVICES} == announced
        truth = {device: honest.learn(device, number, announced[device]) for device in DEVICES}
        said = {device: spoiled.learn(device, number, announced[device]) for device in DEVICES}
        first = first or dict(truth["pi-both"])
        assert {device for device in DEVICES if said[device] != truth[device]} == (
            set() if name == "replay" and number == 0 else {"pi-both"}
        )
        known = {"received": announced["pi-both"], "own": truth["pi-both"], "first": first}[attack.base]
        expected = told(attack, honest.opened(known), Moment(device="pi-both", round=number, seed=of.seed))
        assert said["pi-both"] == honest._packed(expected)
        sizes = [{modality: len(data) for modality, data in each["pi-both"].items()} for each in (said, truth)]
        assert sizes[0] == sizes[1], "what crosses the wire is as large"


def test_a_guarded_coordinator_leaves_an_attacker_out_and_follows_the_others() -> None:
    names: dict[str, dict[str, Architecture]] = {f"pi-{n}": {"acc": "conv"} for n in range(5)}
    small = arena(names, names=("acc",), duration_s=8.0)
    small = replace(small, attack=ATTACKS["noise"], attackers=frozenset({"pi-1"}))
    of = plan(small, rounds=1)
    guarded = FedMekt(replace(small, rules=RoundRules(quarantine="odd")), of)
    sent = {name: guarded.learn(name, 0, guarded.announce(0, name)) for name in names}
    guarded.close(0, sent)
    assert set(guarded._standings) == {"pi-1"}
    honest = FedMekt(small, of)
    honest.announce(0, "pi-0")
    honest.close(0, {name: data for name, data in sent.items() if name != "pi-1"})
    assert guarded.announce(1, "pi-0") == honest.announce(1, "pi-0")
