from pathlib import Path

import pytest

from bench.contenders.fedmekt import FedMekt
from bench.engine import run
from coordinator.learner import Learner
from coordinator.ledger import Delivery
from edge.lessons import Lesson
from mekt.files import BlobStore
from mekt.plan import Fusion
from tests.bench.small import DEVICES, arena, plan


@pytest.mark.parametrize(
    ("fusion", "hidden", "augment"), [("separate", 0.0, 1.0), ("separate", 0.0, 0.0), ("concatenated", 0.5, 1.0)]
)
def test_it_gives_the_knowledge_that_the_product_gives(
    tmp_path: Path, fusion: Fusion, hidden: float, augment: float
) -> None:
    """Two rounds by lessons and a learner, as devices and coordinator have them, on disk and all."""
    small = arena(duration_s=10.0)
    of = plan(small, fusion=fusion, beta=hidden, gamma=hidden, augment=augment)
    ours = FedMekt(small, of)
    learner = Learner(federation="ward", plan=of, datasets=small.datasets, architectures={}, folder=tmp_path)
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
            learned = lesson.learn(device.private.arrays, weights.get(device.name), blobs, lambda done, whole: None)
            weights[device.name] = learned.weights
            assert sent[device.name] == learned.knowledge
            mine = {name: blobs.put(data) for name, data in learned.knowledge.items()}
            deliveries.append(Delivery(device=device.name, windows=learned.windows, knowledge=mine))
        ours.close(number, sent)
        learner.close_round(number, deliveries, blobs, lambda done, whole: None, 0.0)
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
