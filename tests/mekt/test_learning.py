"""The two terms of FedMEKT against numbers worked by hand, and how windows are visited."""

import itertools
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mekt.augment import Augmentation, augmentation_of
from mekt.encoders import SignalDecoder, SplitAutoencoder
from mekt.learning import (
    ENCODED_AT_ONCE,
    SMALLEST_SPREAD,
    Knowledge,
    batch_count,
    batches,
    endless_batches,
    knowledge_loss,
    knowledge_of,
    own_loss,
    reconstruction_loss,
    spreads,
    teachers,
    tensors,
)
from mekt.losses import reconstruction_distance, redundancy
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import BlobRef, Method, Plan, Reconstruction, Transfer

torch.set_num_threads(1)


def plan_of(*modalities: Modality, method: Method) -> Plan:
    return Plan(
        seed=1,
        rounds=1,
        window=WindowSpec(window_s=1.0, stride_s=1.0),
        modalities=modalities,
        scaling={each.name: Scaling(mean=(0.0,) * each.channels, std=(1.0,) * each.channels) for each in modalities},
        proxy={each.name: BlobRef(sha256=bytes(32), size_bytes=1) for each in modalities},
        proxy_windows=4,
        method=method,
    )


# One sample of one channel: a window is a number, and so is its embedding.
ONE = [Modality(name=name, shape=(1,), rate_hz=1.0, unit="") for name in ("a", "b")]


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1)


def decoding_to(model: SplitAutoencoder, name: str, factor: float) -> None:
    """Make the decoder of `name` give factor * z for z >= 0."""
    decoder = model.decoders[name]
    assert isinstance(decoder, SignalDecoder)
    first, _, last = decoder.layers
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        for parameter in (first.weight, first.bias, last.weight, last.bias):
            parameter.zero_()
        first.weight[0, 0] = 1
        last.weight[0, 0] = factor


@pytest.mark.parametrize("kind", get_args(Reconstruction))
def test_every_embedding_rebuilds_every_modality_worked_by_hand(kind: Reconstruction) -> None:
    model = SplitAutoencoder(plan_of(*ONE, method=Method(embedding=1)), {"a": "conv", "b": "conv"})
    decoding_to(model, "a", 1)
    decoding_to(model, "b", 2)
    windows = {"a": numbers(1, 0).unsqueeze(2), "b": numbers(3, 0).unsqueeze(2)}
    embeddings = {"a": numbers(1, 0), "b": numbers(2, 0)}
    # First window: D_a(1) = 1 for 1, D_b(1) = 2 for 3, D_a(2) = 2 for 1, D_b(2) = 4 for 3: squares 0 + 1 + 1 + 1.
    # The second is rebuilt without error, so that the means over two windows are half of it.
    loss = reconstruction_loss(kind, model, windows, embeddings)
    assert loss.item() == pytest.approx(3 / 2)


def test_the_sum_over_pairs_is_that_of_a_plain_loop() -> None:
    acc = Modality(name="acc", shape=(3,), rate_hz=20.0, unit="g")
    depth = Modality(name="depth", shape=(6, 8), rate_hz=4.0, unit="m")
    plan = plan_of(acc, depth, method=Method(embedding=4, hidden=5))
    model = SplitAutoencoder(plan, {"acc": "lstm", "depth": "conv"})
    generator = torch.Generator().manual_seed(0)
    windows = {each.name: torch.randn(6, *plan.window.shape(each), generator=generator) for each in (acc, depth)}
    _, embeddings = model.encode(windows)
    kinds: tuple[Reconstruction, ...] = get_args(Reconstruction)
    for kind in kinds:
        expected = sum(
            reconstruction_distance(kind, model.decoders[k](embeddings[m]), windows[k])
            for m, k in itertools.product(windows, windows)
        )
        torch.testing.assert_close(reconstruction_loss(kind, model, windows, embeddings), expected)


ACC = Modality(name="acc", shape=(3,), rate_hz=8.0, unit="g")
DEPTH = Modality(name="depth", shape=(4, 5), rate_hz=2.0, unit="m")


def learner_of(method: Method) -> tuple[SplitAutoencoder, dict[str, Tensor], Augmentation]:
    """A tiny model of two modalities, five windows for it, and how they are changed."""
    plan = plan_of(ACC, DEPTH, method=method)
    generator = torch.Generator().manual_seed(0)
    windows = {each.name: torch.randn(5, *plan.window.shape(each), generator=generator) for each in (ACC, DEPTH)}
    return SplitAutoencoder(plan, {"acc": "conv", "depth": "conv"}), windows, augmentation_of(plan)


@pytest.mark.parametrize("augment", [0.0, 1.0])
def test_without_contrast_what_is_learned_alone_is_to_rebuild(augment: float) -> None:
    model, windows, augmentation = learner_of(Method(embedding=4, hidden=5, contrast=0.0, augment=augment))
    loss, rebuilt = own_loss(model, windows, augmentation, torch.Generator().manual_seed(1))
    expected = reconstruction_loss(model.method.reconstruction, model, windows, model.encode(windows)[1])
    assert loss is rebuilt
    assert rebuilt.item() == expected.item()


def told_apart(one_BD: Tensor, other_BD: Tensor, temperature: float) -> Tensor:
    """NT-Xent as it stands in the paper, window by window, over the negatives of the other side."""
    total, count = torch.zeros(()), len(one_BD)
    for here, there in ((one_BD, other_BD), (other_BD, one_BD)):
        for i in range(count):
            likeness = [
                torch.exp((here[i] @ there[j]) / (here[i].norm() * there[j].norm()) / temperature) for j in range(count)
            ]
            total = total - torch.log(likeness[i] / torch.stack(likeness).sum())
    return total / (2 * count)


@pytest.mark.parametrize("augment", [0.0, 1.0])
@pytest.mark.parametrize("kind", get_args(Reconstruction))
def test_with_contrast_the_loss_and_its_slopes_are_those_of_plain_sums(augment: float, kind: Reconstruction) -> None:
    method = Method(
        embedding=4,
        hidden=5,
        reconstruction=kind,
        contrast=0.6,
        contrast_temperature=0.3,
        decorrelate=0.4,
        augment=augment,
    )
    (model, windows, augmentation), (by_hand, _, _) = learner_of(method), learner_of(method)
    loss, rebuilt = own_loss(model, windows, augmentation, torch.Generator().manual_seed(1))
    torch.autograd.backward(loss)

    generator = torch.Generator().manual_seed(1)
    copies = [augmentation(windows, generator) for _ in range(2)]
    assert (augment > 0) == (not torch.equal(copies[0]["acc"], copies[1]["acc"]))
    z = [{name: by_hand.encoders[name](copy[name])[1] for name in windows} for copy in copies]
    zero = torch.zeros(())
    expected_rebuilt = sum(
        (
            reconstruction_distance(kind, by_hand.decoders[k](z[0][m]), copies[0][k])
            for m, k in itertools.product(windows, windows)
        ),
        zero,
    )
    p = [{name: by_hand.projectors[name](each[name]) for name in windows} for each in z]
    contrasted = sum((told_apart(p[0][m], p[1][k], 0.3) for m, k in itertools.product(windows, windows)), zero)
    redundant = sum((redundancy(torch.cat([z[0][m], z[1][m]])) for m in windows), zero)
    expected = expected_rebuilt + 0.6 * contrasted + 0.4 * redundant
    torch.autograd.backward(expected)
    assert rebuilt.item() == pytest.approx(expected_rebuilt.item(), rel=1e-5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    slopes = dict(by_hand.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, slopes[name].grad, rtol=1e-3, atol=1e-5)
        assert parameter.grad is not None and parameter.grad.any(), name


def test_what_is_drawn_for_copies_comes_from_the_generator_alone() -> None:
    model, windows, augmentation = learner_of(Method(embedding=4, hidden=5, contrast=1.0, augment=1.0))

    def loss(seed: int, noise: int) -> float:
        torch.manual_seed(noise)
        return own_loss(model, windows, augmentation, torch.Generator().manual_seed(seed))[0].item()

    assert loss(1, noise=1) == loss(1, noise=2) != loss(2, noise=1)


def test_a_batch_of_one_window_has_nothing_to_be_told_apart_from() -> None:
    model, windows, augmentation = learner_of(Method(embedding=4, hidden=5, contrast=1.0, decorrelate=0.0, augment=1.0))
    one = {name: each[:1] for name, each in windows.items()}
    loss, rebuilt = own_loss(model, one, augmentation, torch.Generator().manual_seed(1))
    assert loss.item() == pytest.approx(rebuilt.item())
    model.method = replace(model.method, decorrelate=1.0)
    assert own_loss(model, one, augmentation, torch.Generator().manual_seed(1))[0].isfinite()


def test_knowledge_is_followed_per_modality_and_summed_worked_by_hand() -> None:
    student = {"a": numbers(1, 2), "b": numbers(0, 0), "c": numbers(7, 7)}
    teacher = {"a": numbers(1, 4), "b": numbers(3, 0), "d": numbers(9, 9)}
    # a: (0 + 4) / 2, in units of 2 a quarter; b: (9 + 0) / 2; c and d have no counterpart.
    spread = {"a": torch.tensor(2.0), "b": torch.tensor(1.0), "d": torch.tensor(5.0)}
    assert knowledge_loss(Method(transfer="mse"), student, teacher, spread).item() == pytest.approx(0.5 + 4.5)


def test_the_spread_of_knowledge_worked_by_hand() -> None:
    # Dimension one is 0 and 4, two off its mean; dimension two is 1 and 1: variances 4 and 0.
    both = {"a": torch.tensor([[0.0, 1.0], [4.0, 1.0]]), "still": torch.ones(3, 2)}
    spread = spreads(both)
    assert spread["a"].item() == pytest.approx(2**0.5)
    assert spread["still"].item() == pytest.approx(SMALLEST_SPREAD)


@pytest.mark.parametrize("transfer", ["mse", "kl", "cosine", "relational"])
def test_the_unit_of_embeddings_changes_no_transfer(transfer: Transfer) -> None:
    student, teacher = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(1))
    method = Method(transfer=transfer)
    losses = [
        knowledge_loss(method, {"a": unit * student}, {"a": unit * teacher}, spreads({"a": unit * teacher})).item()
        for unit in (1.0, 0.05)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_with_nothing_to_follow_there_is_no_loss_and_no_gradient() -> None:
    student = {"a": numbers(1, 2).requires_grad_()}
    loss = knowledge_loss(Method(), student, {}, {})
    assert loss.item() == 0
    assert not loss.requires_grad
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("transfer", get_args(Transfer))
def test_the_teacher_learns_nothing(transfer: Transfer) -> None:
    student = {"a": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()}
    teacher = {"a": torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()}
    knowledge_loss(Method(transfer=transfer), student, teacher, spreads(teacher)).backward()  # type: ignore[no-untyped-call]
    assert teacher["a"].grad is None
    assert student["a"].grad is not None
    assert float(student["a"].grad.abs().sum()) > 0


@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 2**31))
def test_batches_visit_every_row_once(count: int, size: int, seed: int) -> None:
    found = list(batches(count, size, torch.Generator().manual_seed(seed)))
    assert len(found) == batch_count(count, size)
    assert all(len(each) == size for each in found[:-1])
    assert 1 <= len(found[-1]) <= size
    assert sorted(torch.cat(found).tolist()) == list(range(count))


def test_no_rows_are_no_batches() -> None:
    assert list(batches(0, 4, torch.Generator())) == []
    assert batch_count(0, 4) == 0


def test_the_order_of_batches_is_that_of_the_seed() -> None:
    def order(seed: int) -> list[int]:
        return torch.cat(list(batches(50, 8, torch.Generator().manual_seed(seed)))).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_endless_batches_begin_anew_in_another_order() -> None:
    generator = torch.Generator().manual_seed(0)
    taken = list(itertools.islice(endless_batches(5, 3, generator), 6))
    epochs = [torch.cat(taken[first : first + 2]).tolist() for first in (0, 2, 4)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("sends_hidden", [True, False])
def test_knowledge_is_the_models_embedding_of_the_proxy_set(sends_hidden: bool) -> None:
    acc = Modality(name="acc", shape=(3,), rate_hz=20.0, unit="g")
    plan = plan_of(acc, method=Method(embedding=4, hidden=5))
    model = SplitAutoencoder(plan, {"acc": "conv"})
    proxy = {"acc": torch.randn(4, 20, 3), "gyro": torch.randn(4, 20, 3)}
    knowledge = knowledge_of(model, proxy, sends_hidden)
    assert set(knowledge) == {"acc"}
    hidden, embedding = model.encoders["acc"](proxy["acc"])
    np.testing.assert_array_equal(knowledge["acc"].embedding, embedding.detach().numpy())
    assert knowledge["acc"].embedding.dtype == np.float32
    if sends_hidden:
        assert knowledge["acc"].hidden is not None
        np.testing.assert_array_equal(knowledge["acc"].hidden, hidden.detach().numpy())
    else:
        assert knowledge["acc"].hidden is None


@pytest.mark.parametrize("count", [1, ENCODED_AT_ONCE, 2 * ENCODED_AT_ONCE + 3])
def test_knowledge_does_not_depend_on_how_many_windows_are_encoded_at_once(count: int) -> None:
    depth = Modality(name="depth", shape=(6, 8), rate_hz=4.0, unit="m")
    model = SplitAutoencoder(plan_of(depth, method=Method(embedding=4, hidden=5)), {"depth": "conv"})
    windows = {"depth": torch.randn(count, 4, 6, 8, generator=torch.Generator().manual_seed(0))}
    knowledge = knowledge_of(model, windows, sends_hidden=True)["depth"]
    hidden, embedding = model.encoders["depth"](windows["depth"])
    np.testing.assert_allclose(knowledge.embedding, embedding.detach().numpy(), atol=1e-6)
    assert knowledge.hidden is not None
    np.testing.assert_allclose(knowledge.hidden, hidden.detach().numpy(), atol=1e-6)


def test_hidden_layers_are_targets_only_where_they_were_sent() -> None:
    ones, twos = np.ones((2, 3), dtype=np.float32), np.full((2, 4), 2, dtype=np.float32)
    hidden, embeddings = teachers({"a": Knowledge(embedding=ones), "b": Knowledge(embedding=ones, hidden=twos)})
    assert set(hidden) == {"b"}
    assert set(embeddings) == {"a", "b"}
    assert hidden["b"].tolist() == twos.tolist()


def test_arrays_of_any_memory_become_float32_tensors() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    locked = array.copy()
    locked.flags.writeable = False
    kinds: dict[str, Any] = {
        "plain": array,
        "locked": locked,
        "turned": np.asfortranarray(array),
        "wide": array.astype(np.float64),
    }
    for name, tensor in tensors(kinds).items():
        assert tensor.dtype == torch.float32, name
        assert tensor.tolist() == array.tolist(), name
    assert np.shares_memory(tensors({"plain": array})["plain"].numpy(), array)
