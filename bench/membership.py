"""Membership inference: was a window among those that a device learned from? Answered from models of that device.

Shapes: N candidate windows, D embedding width, K changed copies of a window, F features.

The attacker holds models that show traces of the device's windows (its own parameters, or surrogates distilled from its
knowledge) and others that show none or fewer: the global model that the device began the round with, and models of
shadow devices, of whose windows it knows everything. What is learned from fits better afterwards than what is not (Yeom
et al., arXiv 1709.01604). How well it fitted before says how hard it is (Watson et al., arXiv 2111.08440), and how well
it fits models that never saw it says so better (Carlini et al., arXiv 2112.03570, its offline attack, of which this has
the mean alone). Of contrast the trace is that changed copies of a window stay nearer to one another (Liu et al.,
EncoderMI, arXiv 2108.11023). Every round shows traces of the same windows, so those of all rounds are looked at
together (Liu et al., CCS 2022, do so with the epochs of a distilled model). How to weigh them the attacker learns on
the shadows (Shokri et al., arXiv 1610.05820), and on these it sees which of several attacks tells most.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from coordinator.classifier import fit_classifier
from mekt.augment import augmentation_of
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, tensors
from mekt.losses import reconstruction_distance
from mekt.plan import Plan, derived_seed

COPIES = 8
# A share of wrong accusations that an attacker may well accept (Carlini et al., arXiv 2112.03570, section III).
FALSE_ALARMS = 0.01
# Traces of several rounds say nearly the same: with the probe's own penalty those who differ by chance get weight.
RIDGE = 0.3


Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """Of a device's candidates: traces (N, F) of each round, how far their loss is below others' (N,), who is a member.

    The second is in units of its own spread over the candidates, added up over models and rounds.
    """

    traces: tuple[Floats, ...]
    lead: Floats
    is_member: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """How well an attack told members: the area under its ROC curve, 0.5 by chance; hits at 1 % of false alarms."""

    auc: float
    tpr: float


def evidence(
    observed: Sequence[SplitAutoencoder],
    reference: SplitAutoencoder,
    others: Sequence[Sequence[SplitAutoencoder]],
    plan: Plan,
    members: Arrays,
    outsiders: Arrays,
) -> Evidence:
    """What one round's models say about normalised windows, of whom the attacker does not know which are members.

    Args:
        observed: models of the device, made in different ways.
        reference: the global model.
        others: models that never saw these windows, of each device made in the same ways; none where nobody else has
            the same modalities, when the reference takes their place.
        plan: gives the losses, and how windows are changed.
        members: windows that the device has learned from, per modality (N, T, ...).
        outsiders: windows that it has not.
    """
    seed = derived_seed(plan.seed, "attack")
    inside, outside = (len(next(iter(each.values()))) for each in (members, outsiders))
    # In an order by lot: a place in a batch shows in the last digits, and must not tell.
    order_N = np.random.default_rng(seed).permutation(inside + outside)
    windows = tensors({name: np.concatenate([members[name], outsiders[name]])[order_N] for name in members})
    before = _fits(reference, plan, windows, seed)
    traces: list[Tensor] = []
    lead_N = np.zeros(len(order_N), np.float32)
    for way, model in enumerate(observed):
        seen = _fits(model, plan, windows, seed)
        elsewhere = [_fits(each[way], plan, windows, seed) for each in others] or [before]
        ahead = {name: torch.stack([each[name] for each in elsewhere]).mean(dim=0) - seen[name] for name in seen}
        fell = [before[name] - seen[name] for name in seen]
        traces += [*seen.values(), *fell, *ahead.values(), _moved(model, reference, windows)]
        lead_N += _standardised((ahead["rebuilt"] + plan.method.contrast * ahead["contrast"]).numpy())
    traces_NF = _standardised(torch.stack(traces, dim=1).numpy())
    return Evidence(traces=(traces_NF,), lead=lead_N, is_member=order_N < inside)


def joined(earlier: Evidence, later: Evidence) -> Evidence:
    """What earlier rounds and a later one say together about the same candidates."""
    return Evidence(traces=(*earlier.traces, *later.traces), lead=earlier.lead + later.lead, is_member=later.is_member)


def by_all_rounds(shadows: Sequence[Evidence], attacked: Evidence) -> Floats:
    """How much each candidate (N,) looks like a member by all its traces, to somebody who learned that from shadows."""
    return _learned(shadows, attacked, 0)


def by_last_round(shadows: Sequence[Evidence], attacked: Evidence) -> Floats:
    """The same by the last round's traces alone."""
    return _learned(shadows, attacked, -1)


def by_loss(shadows: Sequence[Evidence], attacked: Evidence) -> Floats:
    """The same by the loss alone, to somebody who has learned nothing."""
    return attacked.lead


# What gives every candidate (N,) a score.
Attack = Callable[[Sequence[Evidence], Evidence], Floats]
ATTACKS: Mapping[str, Attack] = {"all": by_all_rounds, "last": by_last_round, "loss": by_loss}


def chosen(shadows: Sequence[Evidence]) -> str:
    """The attack that tells most of the shadows, each by what the others teach. Who is attacked has no say in it."""

    def told(name: str) -> float:
        return sum(
            hit(ATTACKS[name]([other for other in shadows if other is not each], each), each.is_member).auc
            for each in shadows
        )

    return max(ATTACKS, key=told) if len(shadows) > 1 else next(iter(ATTACKS))


def _learned(shadows: Sequence[Evidence], attacked: Evidence, first: int) -> Floats:
    """By the traces from round `first` on."""
    traces_NF = np.concatenate([np.concatenate(each.traces[first:], axis=1) for each in shadows])
    member_N = np.concatenate([each.is_member for each in shadows]).astype(np.int64)
    fitted = fit_classifier(traces_NF, member_N, classes=2, ridge=RIDGE)
    scores: Floats = np.concatenate(attacked.traces[first:], axis=1) @ (fitted.weight[1] - fitted.weight[0])
    return scores


def hit(score_N: Floats, member_N: NDArray[np.bool_]) -> Hit:
    """How well higher scores tell members; equal scores count half.

    Raises:
        ValueError: when there are no members, or nobody else.
    """
    inside, outside = np.sort(score_N[member_N]), np.sort(score_N[~member_N])
    if len(inside) == 0 or len(outside) == 0:
        raise ValueError("an attack is scored on members and others; there are none of one kind")
    below = np.searchsorted(outside, inside, side="left") + np.searchsorted(outside, inside, side="right")
    # So high that at most this share of the others lies above.
    threshold = outside[len(outside) - 1 - int(FALSE_ALARMS * len(outside))]
    return Hit(auc=float(below.mean() / 2 / len(outside)), tpr=float((inside > threshold).mean()))


def _fits(model: SplitAutoencoder, plan: Plan, windows: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """How badly each window (N,) is rebuilt, how far apart its changed copies are, how hard to find among others."""
    generator = torch.Generator().manual_seed(seed)
    augmentation = augmentation_of(plan)
    with torch.no_grad():
        copies = [augmentation(windows, generator) for _ in range(COPIES)]
        encoded = [model.encode(each)[1] for each in copies]
        rebuilt = [_rebuilt(model, plan, copy, each) for copy, each in zip(copies, encoded, strict=True)]
        found = {"rebuilt": torch.stack(rebuilt).mean(dim=0), "apart": _apart(encoded)}
        if plan.method.contrast > 0:
            projected = [{name: model.projectors[name](each) for name, each in one.items()} for one in encoded]
            found["contrast"] = _contrast(projected, plan.method.contrast_temperature)
        else:
            found["contrast"] = torch.zeros(len(found["apart"]))
    return found


def _rebuilt(
    model: SplitAutoencoder, plan: Plan, windows: Mapping[str, Tensor], embedded: Mapping[str, Tensor]
) -> Tensor:
    """The loss of reconstruction, of each window for itself."""

    def distance(rebuilt: Tensor, target: Tensor) -> Tensor:
        return reconstruction_distance(plan.method.reconstruction, rebuilt.unsqueeze(0), target.unsqueeze(0))

    each_window = torch.vmap(distance)
    parts = [
        each_window(model.decoders[name](source), windows[name]) for source in embedded.values() for name in windows
    ]
    return torch.stack(parts).sum(dim=0)


def _apart(encoded: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """1 - the mean cosine between two changed copies of a window, summed over modalities."""
    total = torch.zeros(())
    for name in encoded[0]:
        copies_KND = functional.normalize(torch.stack([each[name] for each in encoded]), dim=2)
        cosines_N = (copies_KND.sum(dim=0).square().sum(dim=1) - len(encoded)) / (len(encoded) * (len(encoded) - 1))
        total = total + 1 - cosines_N
    return total


def _contrast(projected: Sequence[Mapping[str, Tensor]], temperature: float) -> Tensor:
    """NT-Xent of each window, its copies in pairs, among all candidates; summed over pairs of modalities."""
    total = torch.zeros(())
    for first, second in zip(projected[::2], projected[1::2], strict=True):
        for one in first.values():
            for other in second.values():
                cosines_NN = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T / temperature
                right_N = torch.arange(len(one))
                total = total + functional.cross_entropy(cosines_NN, right_N, reduction="none")
                total = total + functional.cross_entropy(cosines_NN.T, right_N, reduction="none")
    return total / len(projected)


def _moved(observed: SplitAutoencoder, reference: SplitAutoencoder, windows: Mapping[str, Tensor]) -> Tensor:
    """How far each window's embeddings lie from the reference's."""
    with torch.no_grad():
        here, there = observed.encode(windows)[1], reference.encode(windows)[1]
    return torch.stack([(here[name] - there[name]).norm(dim=1) for name in here]).sum(dim=0)


def _standardised(traces_NF: Floats) -> Floats:
    """Traces, or one (N,), in units of their device's own, which devices with other sensors can be compared in."""
    spread_F = np.maximum(traces_NF.std(axis=0), 1e-9)
    standard: Floats = ((traces_NF - traces_NF.mean(axis=0)) / spread_F).astype(np.float32)
    return standard
