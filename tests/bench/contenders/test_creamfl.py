import math

import pytest
import torch

from bench.contenders.creamfl import CreamFl, aggregation_weights, found_in, matching
from tests.bench.small import DEVICES, arena, plan


def test_the_weights_of_devices_by_hand() -> None:
    other = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    # One device's representations point to the right windows, the other's to the wrong ones; length does not count.
    local = torch.tensor([[[1.0, 0.0], [0.0, 5.0]], [[0.0, 1.0], [1.0, 0.0]]])
    # Scores: log(e^1 / e^0) = 1 against log(e^0 / e^1) = -1, for both windows.
    expected = math.exp(1) / (math.exp(1) + math.exp(-1))
    weights = aggregation_weights(local, [other])
    assert weights.tolist() == [pytest.approx([expected] * 2), pytest.approx([1 - expected] * 2)]
    # A second modality in which both find nothing halves the scores' distance.
    halved = aggregation_weights(local, [other, torch.tensor([[1.0, 1.0], [1.0, 1.0]])])
    assert halved[0].tolist() == pytest.approx([math.exp(0.5) / (math.exp(0.5) + math.exp(-0.5))] * 2)


def test_a_single_device_has_all_the_weight() -> None:
    assert aggregation_weights(torch.randn(1, 5, 3), [torch.randn(5, 3)]).tolist() == [[1.0] * 5]


def test_the_contrast_between_modalities_by_hand() -> None:
    known = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    z = torch.tensor([[2.0, 0.0]])
    # Cosines 1 and 0 at temperature 0.5.
    assert float(found_in(z, known, torch.tensor([0]), 0.5)) == pytest.approx(math.log(1 + math.exp(-2)))
    assert float(found_in(z, known, torch.tensor([1]), 0.5)) == pytest.approx(math.log(1 + math.exp(2)))


def test_matching_is_between_modalities_and_nothing_with_one() -> None:
    z = torch.eye(2)
    assert float(matching({"acc": z})) == 0.0
    assert float(matching({"acc": z, "gyro": z})) == pytest.approx(math.log(1 + math.exp(-2)))


def test_every_device_gets_every_modality_and_sends_its_own() -> None:
    small = arena(duration_s=8.0)
    ours = CreamFl(small, plan(small))
    for name, modalities in DEVICES.items():
        received = ours.announce(0, name)
        assert set(received) == {"acc", "gyro"}
        assert set(ours.learn(name, 0, received)) == set(modalities)
