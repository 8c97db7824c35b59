import math

import pytest
import torch

from bench.arena import Arena
from bench.contenders.bounds import LocalOnly
from bench.contenders.parameters import (
    Averaging,
    MakeTerm,
    contrastive,
    model_contrast,
    proximal,
    sum_of_squares,
    weighted_mean,
)
from bench.engine import run
from mekt.encoders import SplitAutoencoder
from tests.bench.small import arena, plan


def alone() -> Arena:
    """One device with everything."""
    return arena({"pi": {"acc": "conv", "gyro": "conv"}}, duration_s=10.0)


def test_the_mean_by_hand() -> None:
    states = [{"w": torch.tensor([1.0, 4.0])}, {"w": torch.tensor([5.0, 0.0])}]
    # (1 * 3 + 5 * 1) / 4, (4 * 3 + 0 * 1) / 4
    assert weighted_mean(states, [3, 1])["w"].tolist() == [2.0, 3.0]
    assert weighted_mean(states[:1], [7])["w"].tolist() == [1.0, 4.0]


def test_the_proximal_distance_by_hand() -> None:
    ours, theirs = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])], [torch.zeros(2), torch.tensor([[1.0]])]
    assert float(sum_of_squares(ours, theirs)) == 1 + 4 + 4


def test_the_proximal_term_is_half_mu_of_it_and_pulls_back() -> None:
    of = plan(arena())
    model, received = (SplitAutoencoder(of, {"acc": "conv"}) for _ in range(2))
    term = proximal(0.5)(model, received, received, {})
    assert float(term(torch.tensor([0])).detach()) == 0.0
    moved = next(model.parameters())
    with torch.no_grad():
        moved.view(-1)[0] += 2.0
    loss = term(torch.tensor([0]))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(0.5 / 2 * 4)
    assert moved.grad is not None and float(moved.grad.view(-1)[0]) == pytest.approx(0.5 * 2)


def test_the_model_contrast_by_hand() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    towards, away = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    # Cosines: 1 and 0; 1 / sqrt 2 and -1; temperature 0.5 doubles them.
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(0)))
    second = -math.log(math.exp(math.sqrt(2)) / (math.exp(math.sqrt(2)) + math.exp(-2)))
    assert float(model_contrast(z, towards, away, 0.5)) == pytest.approx((first + second) / 2)


def test_moon_adds_its_contrast_of_each_modality_to_the_global_and_the_previous_model() -> None:
    small = alone()
    of = plan(small)
    private = {name: array[:4] for name, array in small.devices[0].private.arrays.items()}
    model, received = (SplitAutoencoder(of, {"acc": "conv", "gyro": "conv"}) for _ in range(2))
    term = contrastive(2.0, 0.5)(model, received, received, private)
    # Equal models pull and push alike: log 2 of each modality.
    assert float(term(torch.tensor([1, 3])).detach()) == pytest.approx(2.0 * 2 * math.log(2))


@pytest.mark.parametrize("make_term", [None, proximal(0.0), contrastive(0.0)])
def test_with_one_device_and_no_term_it_is_a_device_alone(make_term: MakeTerm | None) -> None:
    small = alone()
    of = plan(small)
    averaged, local = Averaging(small, of, make_term), LocalOnly(small, of)
    one, other = (run(each, small, of, evaluate=(1, 2)) for each in (averaged, local))
    assert [each.scores for each in one.evaluated] == [each.scores for each in other.evaluated]


def test_only_equal_architectures_are_averaged() -> None:
    devices = {"a": {"acc": "conv"}, "b": {"acc": "lstm"}, "c": {"acc": "conv"}}
    small = arena(devices, names=("acc",), duration_s=8.0)  # type: ignore[arg-type]
    of = plan(small)
    ours = Averaging(small, of)
    before = {name: ours.announce(0, name) for name in devices}
    assert [list(before[name]) for name in devices] == [["acc/conv"], ["acc/lstm"], ["acc/conv"]]
    sent = {name: ours.learn(name, 0, before[name]) for name in devices}
    ours.close(0, sent)
    after = {name: ours.announce(1, name) for name in devices}
    # The only one of its kind gets back what it sent; the others a mean, which is neither's.
    assert after["b"] == sent["b"]
    assert after["a"] == after["c"] and after["a"] not in (sent["a"], sent["c"], before["a"])


def test_what_nobody_sent_stays_as_it_is() -> None:
    small = arena(duration_s=8.0)
    ours = Averaging(small, plan(small))
    before = ours.announce(0, "pi-gyro")
    ours.close(0, {"pi-acc": ours.learn("pi-acc", 0, ours.announce(0, "pi-acc"))})
    assert ours.announce(1, "pi-gyro") == before
