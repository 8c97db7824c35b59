"""Methods that exchange parameters: MM-FedAvg, MM-FedProx, MM-MOON. They are here to be compared with, nowhere else.

Each modality's encoder and decoder, and what contrast needs beside them, are averaged over the participants that have
both it and the same architecture; other architectures have a global model of their own. Parameters cross in float32.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.arena import Arena
from bench.contender import Payload
from bench.contenders.local import Term, global_architectures, learn_locally, private_windows
from mekt.checkpoint import load_weights, pack_weights
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, knowledge_of, tensors
from mekt.plan import Architecture, Plan, derived_seed

# The weight of FedProx' term (its section 5.1 tries 0.001 to 1).
FEDPROX_MU = 0.01
# MOON's weight and temperature (its sections 3.3 and 4.1).
MOON_MU, MOON_TEMPERATURE = 1.0, 0.5

# What a method adds to local learning: the model as it came, the device's model before, private windows -> a term.
MakeTerm = Callable[[SplitAutoencoder, SplitAutoencoder, SplitAutoencoder, Arrays], Term]


class Averaging:
    """MM-FedAvg (Zhao et al., IoTDI 2022, arXiv 2109.02999): local autoencoders averaged, weighted by their windows.

    Their extra weight for devices with several modalities is left at 1, so that all parameter methods average alike.
    `make_term` is what FedProx and MOON add to a device's loss; it gets the model that learns, the global one as it was
    received, and this device's model as it was after its last round.
    """

    uses_proxy = False

    def __init__(self, arena: Arena, plan: Plan, make_term: MakeTerm | None = None) -> None:
        self._plan = plan
        self._make_term = make_term
        self._devices = {each.name: each for each in arena.devices}
        self._private = {each.name: private_windows(arena, each) for each in arena.devices}
        self._architectures = global_architectures(arena)
        self._parts: dict[str, nn.ModuleDict] = {}
        for each in arena.devices:
            for name, architecture in each.architectures.items():
                self._parts.setdefault(f"{name}/{architecture}", _part(plan, name, architecture))
        for name, architecture in self._architectures.items():
            self._parts.setdefault(f"{name}/{architecture}", _part(plan, name, architecture))
        self._previous: dict[str, SplitAutoencoder] = {}

    def announce(self, number: int, device: str) -> Payload:
        """The global encoders and decoders that the device has the architecture of."""
        return {part: pack_weights(self._parts[part]) for part in self._parts_of(device)}

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """Local learning from the received parameters on; gives the device's."""
        model = self.filled(device, received)
        term = None
        if self._make_term is not None:
            first = SplitAutoencoder(self._plan, self._devices[device].architectures)
            previous = self._previous.get(device, first)
            term = self._make_term(model, self.filled(device, received), previous, self._private[device])
        learn_locally(
            model, self._private[device], self._plan, number, derived_seed(self._plan.seed, device, number), term
        )
        self._previous[device] = model
        return {part: pack_weights(_joined(model, part)) for part in self._parts_of(device)}

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """The weighted mean of each part that anybody sent."""
        for part, module in self._parts.items():
            having = [name for name, payload in sent.items() if part in payload]
            if having:
                states = [_unpacked(module, sent[name][part], f"{name}, {part}") for name in having]
                module.load_state_dict(weighted_mean(states, [self._count(name) for name in having]))

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By the global encoders of the architecture that most devices have."""
        model = SplitAutoencoder(self._plan, self._architectures)
        for name, architecture in self._architectures.items():
            _joined(model, name).load_state_dict(self._parts[f"{name}/{architecture}"].state_dict())
        known = knowledge_of(model, tensors(windows), sends_hidden=False)
        return ({name: each.embedding for name, each in known.items()},)

    def mean(self, device: str, sent: Mapping[str, Payload]) -> Payload:
        """What the mean over these devices is of the parts that `device` has."""
        mean = {}
        for part in self._parts_of(device):
            module = copy.deepcopy(self._parts[part])
            having = [name for name, payload in sent.items() if part in payload]
            states = [_unpacked(module, sent[name][part], f"{name}, {part}") for name in having]
            module.load_state_dict(weighted_mean(states, [self._count(name) for name in having]))
            mean[part] = pack_weights(module)
        return mean

    def _parts_of(self, device: str) -> list[str]:
        return [f"{name}/{kind}" for name, kind in sorted(self._devices[device].architectures.items())]

    def filled(self, device: str, received: Payload) -> SplitAutoencoder:
        """The device's model with these parameters."""
        model = SplitAutoencoder(self._plan, self._devices[device].architectures)
        for part in self._parts_of(device):
            load_weights(_joined(model, part), received[part], f"{device}, {part}")
        return model

    def _count(self, device: str) -> int:
        return len(next(iter(self._private[device].values())))


def weighted_mean(states: Sequence[Mapping[str, Tensor]], weights: Sequence[int]) -> dict[str, Tensor]:
    """sum_i w_i theta_i / sum_i w_i, of each tensor, added up in float64 (McMahan et al., arXiv 1602.05629, alg. 1)."""
    share = torch.tensor(weights, dtype=torch.float64)
    mean = {}
    for name in states[0]:
        stacked = torch.stack([state[name].double() for state in states])
        mean[name] = (torch.tensordot(share, stacked, dims=1) / share.sum()).float()
    return mean


def proximal(mu: float = FEDPROX_MU) -> MakeTerm:
    """MM-FedProx (Li et al., arXiv 1812.06127, eq. 2): mu / 2 * ||w - w_global||^2 over all parameters."""

    def make(model: SplitAutoencoder, received: SplitAutoencoder, previous: SplitAutoencoder, windows: Arrays) -> Term:
        ours = list(model.parameters())
        theirs = [each.detach() for each in received.parameters()]

        def term(_: Tensor) -> Tensor:
            return mu / 2 * sum_of_squares(ours, theirs)

        return term

    return make


def sum_of_squares(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """||w - v||^2 over all tensors of two models."""
    return torch.stack([(a - b).square().sum() for a, b in zip(ours, theirs, strict=True)]).sum()


def contrastive(mu: float = MOON_MU, temperature: float = MOON_TEMPERATURE) -> MakeTerm:
    """MM-MOON (Li et al., CVPR 2021, arXiv 2103.16257, eq. 3): mu times its model-contrastive loss, of each modality.

    The embedding stands for MOON's projected representation. Both models that do not learn see all windows once.
    """

    def make(model: SplitAutoencoder, received: SplitAutoencoder, previous: SplitAutoencoder, windows: Arrays) -> Term:
        private = tensors(windows)
        towards, away = (
            tensors({name: each.embedding for name, each in knowledge_of(frozen, private, False).items()})
            for frozen in (received, previous)
        )

        def term(rows: Tensor) -> Tensor:
            _, embeddings = model.encode({name: array[rows] for name, array in private.items()})
            losses = [
                model_contrast(embeddings[name], towards[name][rows], away[name][rows], temperature)
                for name in sorted(embeddings)
            ]
            return mu * torch.stack(losses).sum()

        return term

    return make


def model_contrast(z_BD: Tensor, towards_BD: Tensor, away_BD: Tensor, temperature: float) -> Tensor:
    """Mean of -log(e^(cos(z, towards)/t) / (e^(cos(z, towards)/t) + e^(cos(z, away)/t))), MOON's eq. 3."""
    near = functional.cosine_similarity(z_BD, towards_BD, dim=1)
    far = functional.cosine_similarity(z_BD, away_BD, dim=1)
    return functional.softplus((far - near) / temperature).mean()


def _part(plan: Plan, modality: str, architecture: Architecture) -> nn.ModuleDict:
    """The encoder and decoder of one modality as the plan's seed gives them."""
    return _joined(SplitAutoencoder(plan, {modality: architecture}), modality)


def _joined(model: SplitAutoencoder, part: str) -> nn.ModuleDict:
    """All that learns of one modality."""
    name = part.partition("/")[0]
    modules = {"encoder": model.encoders[name], "decoder": model.decoders[name]}
    return nn.ModuleDict(modules | ({"projector": model.projectors[name]} if name in model.projectors else {}))


def _unpacked(module: nn.ModuleDict, data: bytes, origin: str) -> dict[str, Tensor]:
    """The tensors in packed weights of the structure of `module`, which is left as it is."""
    copied = copy.deepcopy(module)
    load_weights(copied, data, origin)
    return dict(copied.state_dict())
