"""Global distillation: both fusions step by step, and what the encoders must not depend on."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from coordinator.distil import Distiller
from mekt.augment import view
from mekt.checkpoint import load_weights, pack_weights
from mekt.learning import Arrays, Knowledge
from mekt.losses import reconstruction_distance, transfer_loss
from mekt.modality import Modality
from mekt.plan import Architecture, Fusion, Method, Transfer
from tests.export.small import plan_of, random_windows

torch.set_num_threads(1)

ACC = Modality(name="acc", shape=(3,), rate_hz=12.0, unit="g")
GYRO = Modality(name="gyro", shape=(2,), rate_hz=10.0, unit="rad/s")
DEPTH = Modality(name="depth", shape=(6, 8), rate_hz=4.0, unit="m")
KINDS: list[list[Modality]] = [[ACC], [DEPTH], [ACC, GYRO], [ACC, GYRO, DEPTH]]
METHOD = Method(
    embedding=4,
    hidden=5,
    batch=64,
    distil_epochs=1,
    distil_rate=3e-3,
    eta=0.7,
    gamma=0.3,
    reconstruction="spectral",
    transfer="mse",
    contrast=0.0,
    augment=0.0,
    knowledge_rows=1,
)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
TRANSFERS: tuple[Transfer, ...] = get_args(Transfer)
PROXY = 9


def distiller_of(kinds: Sequence[Modality], method: Method = METHOD, architecture: Architecture = "conv") -> Distiller:
    plan = plan_of(*kinds, method=method, proxy_windows=PROXY)
    return Distiller(plan, {each.name: architecture for each in kinds})


def proxy_of(distiller: Distiller) -> Arrays:
    return random_windows(distiller.plan, PROXY, seed=21)


def aggregated(kinds: Sequence[Modality] = (ACC, GYRO, DEPTH), *, hidden: bool = True) -> dict[str, Knowledge]:
    rng = np.random.default_rng(22)
    return {
        each.name: Knowledge(
            embedding=rng.normal(0, 1, (PROXY, METHOD.embedding)).astype(np.float32),
            hidden=rng.normal(0, 1, (PROXY, METHOD.hidden)).astype(np.float32) if hidden else None,
        )
        for each in kinds
    }


def terms(distiller: Distiller, proxy: Arrays, aggregate: Mapping[str, Knowledge]) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction, transfer of embeddings, transfer of hidden layers; by plain sums."""
    method, model = distiller.plan.method, distiller.model
    zero = torch.zeros(())
    x = {name: torch.from_numpy(proxy[name]) for name in model.modalities}
    both = {name: model.encoders[name](x[name]) for name in x}
    h, z = ({name: pair[i] for name, pair in both.items()} for i in (0, 1))

    def distance(student: Tensor, teacher: Tensor, whole: Tensor | None = None) -> Tensor:
        spread = (teacher if whole is None else whole).var(dim=0, unbiased=False).mean().sqrt()
        return transfer_loss(method.transfer, student / spread, teacher / spread, method.temperature)

    def rebuilt_from(embedding: Tensor, k: str) -> Tensor:
        return reconstruction_distance(method.reconstruction, model.decoders[k](embedding), x[k])

    rebuilt = sum((rebuilt_from(z[m], k) for m, k in itertools.product(x, x)), zero)
    teacher = {name: torch.from_numpy(each.embedding) for name, each in aggregate.items() if name in x}
    if distiller.fusion is None or not teacher:
        transferred = sum((distance(z[name], teacher[name]) for name in teacher), zero)
    else:
        weight = distiller.fusion.weight
        fused = torch.cat([z[name] for name in sorted(x)], dim=1) @ weight.T
        with torch.no_grad():
            stood_in = torch.cat([teacher.get(name, z[name]) for name in sorted(x)], dim=1) @ weight.T
            known = [teacher.get(name, torch.zeros_like(z[name])) for name in sorted(x)]
        transferred = distance(fused, stood_in, torch.cat(known, dim=1) @ weight.T)
    hidden = sum(
        (
            distance(h[name], torch.from_numpy(each.hidden))
            for name, each in aggregate.items()
            if each.hidden is not None
        ),
        zero,
    )
    return rebuilt, transferred, hidden


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("kinds", KINDS, ids=lambda each: "+".join(one.name for one in each))
@pytest.mark.parametrize("transfer", ["mse", "kl"])
def test_one_step_follows_the_formula(fusion: Fusion, kinds: list[Modality], transfer: Transfer) -> None:
    method = replace(METHOD, fusion=fusion, transfer=transfer)
    distiller, by_hand = distiller_of(kinds, method), distiller_of(kinds, method)
    proxy, aggregate = proxy_of(distiller), aggregated(kinds)
    rebuilt, transferred, hidden = terms(by_hand, proxy, aggregate)
    torch.autograd.backward(rebuilt + 0.7 * transferred + 0.3 * hidden)
    loss = distiller.distil(proxy, aggregate, round=0)
    assert loss.reconstruction == pytest.approx(rebuilt.item(), rel=1e-5)
    assert loss.transfer == pytest.approx(transferred.item(), rel=1e-5)
    # One batch holds the whole proxy set, so there was one step, and its slopes are still there.
    slopes = dict(by_hand.model.named_parameters())
    for name, parameter in distiller.model.named_parameters():
        torch.testing.assert_close(parameter.grad, slopes[name].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_where_no_device_sent_a_modality_only_the_others_are_followed(fusion: Fusion) -> None:
    method = replace(METHOD, fusion=fusion)
    kinds = [ACC, GYRO, DEPTH]
    distiller, by_hand = distiller_of(kinds, method), distiller_of(kinds, method)
    aggregate = aggregated([GYRO])
    rebuilt, transferred, hidden = terms(by_hand, proxy_of(distiller), aggregate)
    torch.autograd.backward(rebuilt + 0.7 * transferred + 0.3 * hidden)
    assert distiller.distil(proxy_of(distiller), aggregate, round=0).transfer == pytest.approx(transferred.item())
    slopes = dict(by_hand.model.named_parameters())
    for name, parameter in distiller.model.named_parameters():
        torch.testing.assert_close(parameter.grad, slopes[name].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_round_without_knowledge_still_learns_to_rebuild(fusion: Fusion) -> None:
    distiller = distiller_of([ACC, GYRO], replace(METHOD, fusion=fusion, distil_epochs=30))
    first = distiller_of([ACC, GYRO], replace(METHOD, fusion=fusion)).distil(proxy_of(distiller), {}, round=0)
    last = distiller.distil(proxy_of(distiller), {}, round=0)
    assert last.transfer == first.transfer == 0
    assert last.reconstruction < first.reconstruction


def test_the_fused_transfer_worked_by_hand() -> None:
    # Two modalities of one dimension each, the fusion 2 * acc - gyro.
    method = replace(METHOD, embedding=1, hidden=2, fusion="concatenated", eta=1.0, gamma=0.0)
    distiller = distiller_of([ACC, GYRO], method)
    assert distiller.fusion is not None
    with torch.no_grad():
        distiller.fusion.weight.copy_(torch.tensor([[2.0, -1.0]]))
    own = {name: each.embedding for name, each in distiller.knowledge(proxy_of(distiller)).items()}
    # The aggregate is 1 and 3 above the student's own: fused 2 * 1 - 3 = -1, squared 1, for every window.
    aggregate = {"acc": Knowledge(embedding=own["acc"] + 1), "gyro": Knowledge(embedding=own["gyro"] + 3)}
    variance = (2 * aggregate["acc"].embedding - aggregate["gyro"].embedding).var()
    assert distiller.distil(proxy_of(distiller), aggregate, round=0).transfer == pytest.approx(1 / variance, rel=1e-4)


def test_the_separate_transfer_worked_by_hand() -> None:
    method = replace(METHOD, embedding=1, hidden=2, fusion="separate", gamma=0.0)
    distiller = distiller_of([ACC, GYRO], method)
    own = {name: each.embedding for name, each in distiller.knowledge(proxy_of(distiller)).items()}
    aggregate = {"acc": Knowledge(embedding=own["acc"] + 1), "gyro": Knowledge(embedding=own["gyro"] + 3)}
    expected = 1 / aggregate["acc"].embedding.var() + 9 / aggregate["gyro"].embedding.var()
    assert distiller.distil(proxy_of(distiller), aggregate, round=0).transfer == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_who_already_agrees_with_the_devices_has_nothing_to_follow(fusion: Fusion) -> None:
    distiller = distiller_of([ACC, GYRO], replace(METHOD, fusion=fusion))
    own = distiller.knowledge(proxy_of(distiller))
    assert distiller.distil(proxy_of(distiller), own, round=0).transfer == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.7, 0.0), (0.0, 0.3)])
def test_each_weight_lets_its_own_layer_follow(fusion: Fusion, weights: tuple[float, float]) -> None:
    method = replace(METHOD, fusion=fusion, eta=weights[0], gamma=weights[1])
    kinds = [ACC, GYRO]

    def learned(aggregate: Mapping[str, Knowledge]) -> bytes:
        distiller = distiller_of(kinds, method)
        distiller.distil(proxy_of(distiller), aggregate, round=0)
        return pack_weights(distiller.model)

    given = aggregated(kinds)
    shifted_embedding, shifted_hidden = {}, {}
    for name, each in given.items():
        assert each.hidden is not None
        shifted_embedding[name] = Knowledge(embedding=each.embedding + 1, hidden=each.hidden)
        shifted_hidden[name] = Knowledge(embedding=each.embedding, hidden=each.hidden + 1)
    assert (learned(shifted_embedding) != learned(given)) == (weights[0] > 0)
    assert (learned(shifted_hidden) != learned(given)) == (weights[1] > 0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_equal_inputs_give_equal_bytes_and_another_round_does_not(fusion: Fusion) -> None:
    def learned(round: int, noise: int) -> bytes:
        torch.manual_seed(noise)
        distiller = distiller_of([ACC, DEPTH], replace(METHOD, fusion=fusion, batch=4, distil_epochs=3))
        distiller.distil(proxy_of(distiller), aggregated([ACC, DEPTH]), round)
        return pack_weights(distiller.model)

    assert learned(1, noise=5) == learned(1, noise=6)
    assert learned(1, noise=5) != learned(2, noise=5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_distiller_that_was_stored_goes_on_to_the_same_bytes(fusion: Fusion) -> None:
    method = replace(METHOD, fusion=fusion, batch=4)
    undisturbed = distiller_of([ACC, GYRO], method)
    proxy, aggregate = proxy_of(undisturbed), aggregated([ACC, GYRO])
    undisturbed.distil(proxy, aggregate, round=1)
    restarted = distiller_of([ACC, GYRO], method)
    load_weights(restarted, pack_weights(undisturbed), "here")
    for each in (undisturbed, restarted):
        each.distil(proxy, aggregate, round=2)
    assert pack_weights(restarted) == pack_weights(undisturbed)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_the_losses_fall(fusion: Fusion, transfer: Transfer) -> None:
    method = replace(METHOD, fusion=fusion, transfer=transfer, gamma=0.0, eta=5.0)
    first = distiller_of([ACC, GYRO], method)
    long = distiller_of([ACC, GYRO], replace(method, distil_epochs=90))
    proxy, aggregate = proxy_of(first), aggregated([ACC, GYRO], hidden=False)
    before, after = first.distil(proxy, aggregate, round=0), long.distil(proxy, aggregate, round=0)
    assert after.reconstruction < 0.3 * before.reconstruction
    assert after.transfer < 0.3 * before.transfer


@pytest.mark.parametrize("fusion", FUSIONS)
def test_either_fusion_passes_on_what_the_devices_know(fusion: Fusion) -> None:
    """What the encoders give goes along with what the devices gave: fused, where it is compared fused."""
    method = replace(METHOD, fusion=fusion, transfer="mse", gamma=0.0, eta=20.0, distil_epochs=200, distil_rate=1e-2)
    distiller = distiller_of([ACC, GYRO], method)
    proxy, aggregate = proxy_of(distiller), aggregated([ACC, GYRO], hidden=False)
    distiller.distil(proxy, aggregate, round=0)
    own = distiller.knowledge(proxy)
    learned, taught = (
        torch.from_numpy(np.concatenate([each[name].embedding for name in ("acc", "gyro")], axis=1))
        for each in (own, aggregate)
    )
    if distiller.fusion is not None:
        learned, taught = distiller.fusion(learned), distiller.fusion(taught)
    assert np.corrcoef(learned.numpy().ravel(), taught.numpy().ravel())[0, 1] > 0.9


def test_the_layer_that_fuses_never_learns() -> None:
    distiller = distiller_of([ACC, GYRO], replace(METHOD, fusion="concatenated", distil_epochs=5))
    assert distiller.fusion is not None
    before = distiller.fusion.weight.clone()
    distiller.distil(proxy_of(distiller), aggregated([ACC, GYRO]), round=0)
    torch.testing.assert_close(distiller.fusion.weight, before, rtol=0, atol=0)
    torch.testing.assert_close(before @ before.T, torch.eye(METHOD.embedding))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("kinds", KINDS, ids=lambda each: "+".join(one.name for one in each))
def test_what_comes_out_is_float32_and_of_the_plans_shape(fusion: Fusion, kinds: list[Modality]) -> None:
    distiller = distiller_of(kinds, replace(METHOD, fusion=fusion))
    distiller.distil(proxy_of(distiller), aggregated(kinds), round=0)
    assert all(parameter.dtype == torch.float32 for parameter in distiller.parameters())
    names = {each.name for each in kinds}
    knowledge, embedded = distiller.knowledge(proxy_of(distiller)), distiller.embed(proxy_of(distiller))
    assert set(knowledge) == set(embedded) == names
    for name in names:
        hidden = knowledge[name].hidden
        assert hidden is not None
        assert (knowledge[name].embedding.shape, hidden.shape) == ((PROXY, 4), (PROXY, 5))
        assert knowledge[name].embedding.dtype == hidden.dtype == embedded[name].dtype == np.float32
        np.testing.assert_array_equal(embedded[name], knowledge[name].embedding)


def test_hidden_layers_are_shared_only_when_somebody_follows_them() -> None:
    for beta, gamma, shared in ((0.0, 0.0, False), (0.1, 0.0, True), (0.0, 0.1, True)):
        distiller = distiller_of([ACC], replace(METHOD, beta=beta, gamma=gamma))
        assert (distiller.knowledge(proxy_of(distiller))["acc"].hidden is not None) == shared


def test_progress_is_told_after_each_batch() -> None:
    distiller = distiller_of([ACC], replace(METHOD, batch=4, distil_epochs=2))
    told: list[tuple[int, int]] = []
    distiller.distil(proxy_of(distiller), {}, 0, lambda done, whole: told.append((done, whole)))
    assert told == [(done, 6) for done in range(1, 7)]


def test_a_progress_that_raises_ends_the_learning() -> None:
    class StopError(Exception):
        pass

    def stop(done: int, whole: int) -> None:
        told.append(done)
        raise StopError

    told: list[int] = []
    distiller = distiller_of([ACC], replace(METHOD, batch=4, distil_epochs=2))
    with pytest.raises(StopError):
        distiller.distil(proxy_of(distiller), {}, 0, stop)
    assert told == [1]


def test_what_is_learned_from_is_left_as_it_is() -> None:
    distiller = distiller_of([ACC], replace(METHOD, fusion="concatenated"))
    proxy, aggregate = proxy_of(distiller), aggregated([ACC])
    before = proxy["acc"].copy(), aggregate["acc"].embedding.copy()
    distiller.distil(proxy, aggregate, round=0)
    np.testing.assert_array_equal(proxy["acc"], before[0])
    np.testing.assert_array_equal(aggregate["acc"].embedding, before[1])


def test_arrays_that_must_not_be_written_are_learned_from_too() -> None:
    distiller = distiller_of([ACC])
    proxy = proxy_of(distiller)
    for array in proxy.values():
        array.flags.writeable = False
    assert distiller.distil(proxy, {}, round=0).reconstruction > 0


# Views: what the latest rounds knew is learned from together

VIEWED = replace(METHOD, augment=1.0, batch=4, distil_epochs=2)
Rounds = Sequence[Mapping[str, Knowledge]]


def knowledge_of_rounds(*modalities: Sequence[Modality], hidden: bool = True) -> list[dict[str, Knowledge]]:
    """What was known after each of the rounds, of these modalities each."""
    found = []
    for number, kinds in enumerate(modalities):
        known = aggregated(kinds, hidden=hidden)
        found.append(
            {
                name: Knowledge(
                    embedding=each.embedding + number, hidden=None if each.hidden is None else each.hidden + number
                )
                for name, each in known.items()
            }
        )
    return found


def learned_over(rounds: Rounds, method: Method = VIEWED, *, restarts: bool = False) -> bytes:
    distiller = distiller_of([ACC, GYRO], method)
    for number, aggregate in enumerate(rounds):
        distiller.distil(proxy_of(distiller), aggregate, number)
        if restarts:
            packed = pack_weights(distiller)
            distiller = distiller_of([ACC, GYRO], method)
            load_weights(distiller, packed, "here")
    return pack_weights(distiller)


SOMETIMES = [[ACC, GYRO], [GYRO], [], [ACC], [ACC, GYRO], [GYRO], [ACC]]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("hidden", [True, False])
def test_restarts_after_any_round_change_no_byte(fusion: Fusion, hidden: bool) -> None:
    rounds = knowledge_of_rounds(*SOMETIMES, hidden=hidden)
    method = replace(VIEWED, fusion=fusion)
    assert learned_over(rounds, method, restarts=True) == learned_over(rounds, method)


def followed(views: int, of: int, number: int) -> float:
    """The share of a teacher's spread on a round's views that is left after following what it knows of another's."""
    method = replace(
        VIEWED, knowledge_rows=views * PROXY, gamma=0.0, eta=1e3, distil_epochs=300, distil_rate=5e-3, batch=64
    )
    distiller, teacher = distiller_of([ACC], method), distiller_of([ACC], method, "narrow")
    proxy = proxy_of(distiller)
    known = teacher.knowledge(view(teacher.plan, proxy, of))
    distiller.distil(proxy, known, number)
    looked_at = view(distiller.plan, proxy, number)
    target = teacher.embed(looked_at)["acc"]
    assert len(target) == views * PROXY
    return float(((distiller.embed(looked_at)["acc"] - target) ** 2).mean() / target.var(axis=0).mean())


@pytest.mark.parametrize("views", [1, 3])
def test_knowledge_is_followed_on_the_rounds_own_views(views: int) -> None:
    assert followed(views, of=4, number=4) < 0.5 * followed(views, of=5, number=4)


def test_without_changed_copies_there_is_one_view() -> None:
    distiller = distiller_of([ACC], replace(METHOD, augment=0.0, knowledge_rows=3 * PROXY))
    assert distiller.plan.knowledge_rows == PROXY
    assert distiller.distil(proxy_of(distiller), aggregated([ACC]), 0).transfer > 0


def test_the_global_encoders_learn_from_the_proxy_set_as_devices_do_from_their_windows() -> None:
    """Contrast and use of all dimensions change what is learned, beside what is followed."""
    base = replace(VIEWED, contrast=0.5, decorrelate=1.0)
    packed = [
        learned_over(knowledge_of_rounds([ACC, GYRO]), method)
        for method in (base, replace(base, contrast=0.0), replace(base, decorrelate=0.0))
    ]
    assert len(set(packed)) == 3
