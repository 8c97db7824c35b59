"""Local learning: FedMEKT's loss on a device, step by step, and what it must not depend on."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from edge.stock import InMemory
from edge.trainer import LocalTrainer
from mekt.checkpoint import pack_weights
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, Knowledge
from mekt.losses import reconstruction_distance, transfer_loss
from mekt.modality import Modality
from mekt.plan import Architecture, Method, Plan, Transfer
from tests.export.small import plan_of, random_windows

torch.set_num_threads(1)

ACC = Modality(name="acc", shape=(3,), rate_hz=12.0, unit="g")
GYRO = Modality(name="gyro", shape=(2,), rate_hz=10.0, unit="rad/s")
DEPTH = Modality(name="depth", shape=(6, 8), rate_hz=4.0, unit="m")
METHOD = Method(
    embedding=4,
    hidden=5,
    batch=64,
    local_epochs=1,
    local_rate=3e-3,
    alpha=0.7,
    beta=0.3,
    reconstruction="spectral",
    transfer="mse",
    contrast=0.0,
    augment=0.0,
    knowledge_rows=1,
    follow_epochs=0,
)
PRIVATE, PROXY = 9, 8
FLEET: list[dict[str, Architecture]] = [
    {"acc": "conv"},
    {"gyro": "lstm"},
    {"depth": "conv"},
    {"acc": "lstm", "gyro": "conv"},
    {"acc": "conv", "gyro": "conv", "depth": "conv"},
]


def plan(method: Method = METHOD) -> Plan:
    return plan_of(ACC, GYRO, DEPTH, method=method, proxy_windows=PROXY)


def trainer_of(architectures: Mapping[str, Architecture], method: Method = METHOD) -> LocalTrainer:
    return LocalTrainer(plan(method), architectures)


def private_of(trainer: LocalTrainer, count: int = PRIVATE) -> Arrays:
    windows = random_windows(trainer.plan, count, seed=11)
    return {name: windows[name] for name in trainer.model.modalities}


def stock_of(trainer: LocalTrainer, count: int = PRIVATE) -> InMemory:
    return InMemory(private_of(trainer, count))


def proxy_of(trainer: LocalTrainer) -> Arrays:
    return random_windows(trainer.plan, PROXY, seed=12)


def global_knowledge(names: Sequence[str] = ("acc", "gyro", "depth"), hidden: bool = True) -> dict[str, Knowledge]:
    rng = np.random.default_rng(13)
    return {
        name: Knowledge(
            embedding=rng.normal(0, 1, (PROXY, METHOD.embedding)).astype(np.float32),
            hidden=rng.normal(0, 1, (PROXY, METHOD.hidden)).astype(np.float32) if hidden else None,
        )
        for name in names
    }


def terms(
    method: Method, model: SplitAutoencoder, private: Arrays, proxy: Arrays, knowledge: Mapping[str, Knowledge]
) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction, transfer of embeddings and of hidden layers, as in DESIGN: plain sums over modalities."""
    zero = torch.zeros(())
    x = {name: torch.from_numpy(private[name]) for name in model.modalities}
    z = {name: model.encoders[name](x[name])[1] for name in x}
    rebuilt = sum(
        (
            reconstruction_distance(method.reconstruction, model.decoders[k](z[m]), x[k])
            for m, k in itertools.product(x, x)
        ),
        zero,
    )
    on_proxy = {name: model.encoders[name](torch.from_numpy(proxy[name])) for name in model.modalities}
    followed = [name for name in model.modalities if name in knowledge]

    def distance(student: Tensor, teacher: np.ndarray | None) -> Tensor:
        if teacher is None:
            return zero
        spread = float(teacher.var(axis=0).mean() ** 0.5)
        return transfer_loss(method.transfer, student / spread, torch.from_numpy(teacher) / spread, method.temperature)

    embedding = sum((distance(on_proxy[name][1], knowledge[name].embedding) for name in followed), zero)
    hidden = sum((distance(on_proxy[name][0], knowledge[name].hidden) for name in followed), zero)
    return rebuilt, embedding, hidden


@pytest.mark.parametrize("architectures", FLEET, ids=lambda each: "+".join(each))
@pytest.mark.parametrize("method", [METHOD, replace(METHOD, transfer="kl", reconstruction="waveform")])
def test_one_step_follows_the_formula(architectures: Mapping[str, Architecture], method: Method) -> None:
    trainer, by_hand = trainer_of(architectures, method), trainer_of(architectures, method).model
    private, proxy, knowledge = private_of(trainer), proxy_of(trainer), global_knowledge()
    rebuilt, embedding, hidden = terms(method, by_hand, private, proxy, knowledge)
    torch.autograd.backward(rebuilt + 0.7 * embedding + 0.3 * hidden)
    loss = trainer.learn(InMemory(private), proxy, knowledge, round=0, seed=0)
    assert loss.reconstruction == pytest.approx(rebuilt.item(), rel=1e-5)
    assert loss.transfer == pytest.approx(embedding.item(), rel=1e-5)
    # One batch holds all, so there was one step, and its slopes are still there.
    slopes = dict(by_hand.named_parameters())
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.grad, slopes[name].grad, rtol=1e-4, atol=1e-6)


def test_without_transfer_the_knowledge_changes_nothing() -> None:
    method = replace(METHOD, alpha=0.0, beta=0.0)
    packed = []
    for knowledge in (global_knowledge(), global_knowledge(["acc"]), {}):
        trainer = trainer_of({"acc": "conv", "gyro": "conv"}, method)
        trainer.learn(stock_of(trainer), proxy_of(trainer), knowledge, round=0, seed=0)
        packed.append(pack_weights(trainer.model))
    assert len(set(packed)) == 1


@pytest.mark.parametrize("weights", [(0.7, 0.0), (0.0, 0.3)])
def test_each_weight_lets_its_own_layer_follow(weights: tuple[float, float]) -> None:
    method = replace(METHOD, alpha=weights[0], beta=weights[1])

    def learned(knowledge: Mapping[str, Knowledge]) -> bytes:
        trainer = trainer_of({"acc": "conv"}, method)
        trainer.learn(stock_of(trainer), proxy_of(trainer), knowledge, round=0, seed=0)
        return pack_weights(trainer.model)

    given = global_knowledge()["acc"]
    assert given.hidden is not None
    other_embedding = learned({"acc": Knowledge(embedding=given.embedding + 1, hidden=given.hidden)})
    other_hidden = learned({"acc": Knowledge(embedding=given.embedding, hidden=given.hidden + 1)})
    assert (other_embedding != learned({"acc": given})) == (weights[0] > 0)
    assert (other_hidden != learned({"acc": given})) == (weights[1] > 0)


def test_knowledge_without_hidden_layers_is_followed_as_far_as_it_goes() -> None:
    trainer = trainer_of({"acc": "conv"})
    loss = trainer.learn(stock_of(trainer), proxy_of(trainer), global_knowledge(hidden=False), round=0, seed=0)
    assert loss.transfer > 0


def test_knowledge_of_other_modalities_alone_is_no_loss() -> None:
    trainer = trainer_of({"acc": "conv"})
    assert (
        trainer.learn(stock_of(trainer), proxy_of(trainer), global_knowledge(["gyro"]), round=0, seed=0).transfer == 0
    )


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    method = replace(METHOD, batch=4, local_epochs=2)

    def learned(seed: int) -> bytes:
        trainer = trainer_of({"acc": "conv", "depth": "conv"}, method)
        torch.manual_seed(seed + 1000 * len(packed))
        trainer.learn(stock_of(trainer), proxy_of(trainer), global_knowledge(), 0, seed)
        return pack_weights(trainer.model)

    packed: list[bytes] = []
    for seed in (1, 1, 2):
        packed.append(learned(seed))
    assert packed[0] == packed[1] != packed[2]


@pytest.mark.parametrize("transfer", get_args(Transfer))
def test_the_losses_fall_and_the_device_comes_near_to_the_global_knowledge(transfer: Transfer) -> None:
    method = replace(METHOD, transfer=transfer, alpha=5.0, beta=0.0, local_rate=5e-3)
    trainer = trainer_of({"acc": "conv", "gyro": "conv"}, method)
    private, proxy, knowledge = private_of(trainer), proxy_of(trainer), global_knowledge(hidden=False)
    first, *_, last = (trainer.learn(InMemory(private), proxy, knowledge, 0, seed) for seed in range(25))
    assert last.transfer < 0.7 * first.transfer
    assert last.reconstruction < first.reconstruction


def test_progress_is_told_after_each_batch() -> None:
    trainer = trainer_of({"acc": "conv"}, replace(METHOD, batch=4, local_epochs=2))
    told: list[tuple[int, int]] = []
    trainer.learn(stock_of(trainer), proxy_of(trainer), {}, 0, 0, lambda done, whole: told.append((done, whole)))
    # Nine windows are three batches of at most four; two epochs of them.
    assert told == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(("names", "followed"), [(["acc", "gyro"], 6), (["gyro"], 0), ([], 0)])
def test_following_before_learning_counts_as_progress(names: list[str], followed: int) -> None:
    trainer = trainer_of({"acc": "conv"}, replace(METHOD, batch=4, local_epochs=2, follow_epochs=3))
    told: list[tuple[int, int]] = []
    trainer.learn(
        stock_of(trainer),
        proxy_of(trainer),
        global_knowledge(names),
        0,
        0,
        lambda done, whole: told.append((done, whole)),
    )
    # Eight proxy windows are two batches, three times; six of private windows come then.
    assert told == [(done, followed + 6) for done in range(1, followed + 7)]


def test_who_follows_first_starts_nearer_to_the_global_knowledge() -> None:
    losses = []
    for follow_epochs in (0, 30):
        trainer = trainer_of({"acc": "conv", "gyro": "conv"}, replace(METHOD, beta=0.0, follow_epochs=follow_epochs))
        losses.append(trainer.learn(stock_of(trainer), proxy_of(trainer), global_knowledge(), 0, 0).transfer)
    assert losses[1] < 0.7 * losses[0]


def test_one_step_of_following_and_one_of_learning_worked_by_hand() -> None:
    method = replace(METHOD, beta=0.0, follow_epochs=1)
    trainer, by_hand = trainer_of({"acc": "conv"}, method), trainer_of({"acc": "conv"}, method).model
    private, proxy, knowledge = private_of(trainer), proxy_of(trainer), global_knowledge()
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=method.local_rate)
    torch.autograd.backward(terms(method, by_hand, private, proxy, knowledge)[1])
    optimizer.step()
    rebuilt, embedding, _ = terms(method, by_hand, private, proxy, knowledge)
    loss = trainer.learn(InMemory(private), proxy, knowledge, round=0, seed=0)
    assert loss.reconstruction == pytest.approx(rebuilt.item(), rel=1e-4)
    assert loss.transfer == pytest.approx(embedding.item(), rel=1e-4)


def test_with_contrast_projectors_learn_too_and_the_seed_draws_the_changes() -> None:
    method = replace(METHOD, contrast=1.0, contrast_temperature=0.1, augment=1.0)

    def learned(seed: int) -> tuple[bytes, float]:
        trainer = trainer_of({"acc": "conv", "gyro": "lstm"}, method)
        torch.manual_seed(len(packed))
        loss = trainer.learn(stock_of(trainer), proxy_of(trainer), global_knowledge(), 0, seed)
        fresh = trainer_of({"acc": "conv", "gyro": "lstm"}, method).model
        for name, parameter in trainer.model.projectors.named_parameters():
            assert not torch.equal(parameter, dict(fresh.projectors.named_parameters())[name]), name
        return pack_weights(trainer.model), loss.reconstruction

    packed: list[tuple[bytes, float]] = []
    for seed in (1, 1, 2):
        packed.append(learned(seed))
    assert packed[0] == packed[1] != packed[2]


def test_the_rate_falls_with_the_round() -> None:
    """Adam's first step is as long as the rate, whatever the slope."""
    moved = []
    for number in (0, 1):
        trainer = trainer_of({"acc": "conv"}, replace(METHOD, local_rate=1e-3))
        before = trainer.model.decoders["acc"].layers[2].bias.detach().clone()  # type: ignore[index, union-attr]
        trainer.learn(stock_of(trainer), proxy_of(trainer), {}, number, 0)
        after = trainer.model.decoders["acc"].layers[2].bias.detach()  # type: ignore[index, union-attr]
        moved.append(float((after - before).abs().max()))
    # The plan has two rounds: the second one's rate is the mean of the whole one and a tenth of it.
    assert moved == pytest.approx([1e-3, 0.55e-3], rel=1e-2)


def test_a_progress_that_raises_ends_the_learning() -> None:
    class StopError(Exception):
        pass

    def stop_at_second(done: int, whole: int) -> None:
        told.append(done)
        if done == 2:
            raise StopError

    told: list[int] = []
    trainer = trainer_of({"acc": "conv"}, replace(METHOD, batch=4, local_epochs=2))
    with pytest.raises(StopError):
        trainer.learn(stock_of(trainer), proxy_of(trainer), {}, 0, 0, stop_at_second)
    assert told == [1, 2]
    assert all(np.isfinite(each.embedding).all() for each in trainer.knowledge(proxy_of(trainer)).values())


@pytest.mark.parametrize("architectures", FLEET, ids=lambda each: "+".join(each))
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_knowledge_is_of_the_devices_own_modalities(architectures: Mapping[str, Architecture], beta: float) -> None:
    trainer = trainer_of(architectures, replace(METHOD, beta=beta))
    knowledge = trainer.knowledge(proxy_of(trainer))
    assert set(knowledge) == set(architectures)
    for each in knowledge.values():
        assert each.embedding.shape == (PROXY, METHOD.embedding)
        assert each.embedding.dtype == np.float32
        assert (each.hidden is None) == (beta == 0)
        assert each.hidden is None or each.hidden.shape == (PROXY, METHOD.hidden)


def test_more_windows_than_proxy_windows_and_fewer_both_learn() -> None:
    for count in (1, PROXY, 3 * PROXY + 1):
        trainer = trainer_of({"acc": "conv"}, replace(METHOD, batch=3))
        loss = trainer.learn(stock_of(trainer, count), proxy_of(trainer), global_knowledge(), round=0, seed=0)
        assert np.isfinite([loss.reconstruction, loss.transfer]).all()


def test_what_is_learned_from_is_left_as_it_is() -> None:
    trainer = trainer_of({"acc": "conv"})
    private, proxy, knowledge = private_of(trainer), proxy_of(trainer), global_knowledge()
    before = [array.copy() for array in (private["acc"], proxy["acc"], knowledge["acc"].embedding)]
    trainer.learn(InMemory(private), proxy, knowledge, round=0, seed=0)
    for array, copy in zip((private["acc"], proxy["acc"], knowledge["acc"].embedding), before, strict=True):
        np.testing.assert_array_equal(array, copy)
