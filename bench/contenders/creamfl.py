"""CreamFL (Yu et al., ICLR 2023, arXiv 2302.08888), adapted to devices without labels.

Kept: representations of the public set both ways, of all modalities to every device (section 3.1); the inter-modal and
the intra-modal contrast that hold a device's embeddings (eq. 5 and 6); the aggregation whose weights come from how well
a device's representation of a window finds that window in the server's other modality (eq. 2 to 4); distillation of
the aggregate by L2 (section 3.4); its server's own task, matching the modalities of one window; devices keep models.

Adapted: a device's own task is our own loss, as it has no labels; the server learns that beside matching, too.
Of more than two modalities the "other" one is the mean over all others; with a single one it is that one. Distillation
weighs the method's `eta`, as it does for us, where the published settings have 0.3 of a loss of another size.

Shapes: C devices, N proxy windows, B of a batch, D embedding width. Similarities are of vectors scaled to length one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from bench.arena import Arena
from bench.contender import Payload
from bench.contenders.local import (
    Term,
    global_architectures,
    learn_locally,
    private_windows,
    step,
)
from bench.contenders.parameters import model_contrast
from mekt.arrays import pack_knowledge, unpack_knowledge
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, Windows, batches, endless_batches, knowledge_of, tensors
from mekt.plan import Plan, derived_seed
from mekt.solvers import Adam

# The published weight of both contrasts, and their temperature.
CONTRAST_WEIGHT = 0.5
TEMPERATURE = 0.5
MATCHING_WEIGHT = 0.5


class CreamFl:
    """Contrastive representation ensemble and aggregation."""

    uses_proxy = True

    def __init__(self, arena: Arena, plan: Plan) -> None:
        self._plan = plan
        self._proxy = tensors(arena.datasets.normalised_proxy())
        self._server = SplitAutoencoder(plan, global_architectures(arena))
        self._models = {each.name: SplitAutoencoder(plan, each.architectures) for each in arena.devices}
        self._private = {each.name: private_windows(arena, each) for each in arena.devices}
        self._announced: tuple[int, Payload] = (-1, {})

    def announce(self, number: int, device: str) -> Payload:
        """The server's representations of every modality."""
        if self._announced[0] != number:
            self._announced = number, self._packed(self._embedded(self._server))
        return self._announced[1]

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """Local learning under both contrasts; gives the device's representations."""
        model, seed = self._models[device], derived_seed(self._plan.seed, device, number)
        proxy = {name: self._proxy[name] for name in model.modalities}
        term = self._contrasts(model, proxy, self._unpacked(received), seed)
        learn_locally(model, self._private[device], self._plan, number, seed, term)
        return self._packed(self._embedded(model))

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """Aggregation and distillation."""
        known = self._embedded(self._server)
        aggregated: dict[str, Tensor] = {}
        for name in self._server.modalities:
            local = [self._unpacked(payload)[name] for _, payload in sorted(sent.items()) if name in payload]
            if local:
                local_CND = torch.stack(local)
                weights_CN = aggregation_weights(local_CND, [known[other] for other in _others(name, known)])
                aggregated[name] = (weights_CN[:, :, None] * local_CND).sum(dim=0)
        self._distil(aggregated, derived_seed(self._plan.seed, "distil", number))

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By the server's encoders."""
        known = knowledge_of(self._server, tensors(windows), sends_hidden=False)
        return ({name: each.embedding for name, each in known.items()},)

    def _contrasts(self, model: SplitAutoencoder, proxy: Windows, known: Windows, seed: int) -> Term:
        """The term that both contrasts make, on one batch of the proxy set for each of private windows."""
        previous = self._embedded(model)
        proxy_batches = endless_batches(
            self._plan.proxy_windows,
            self._plan.method.batch,
            torch.Generator().manual_seed(derived_seed(seed, "proxy")),
        )

        def term(_: Tensor) -> Tensor:
            rows = next(proxy_batches)
            embeddings = model.encode({name: array[rows] for name, array in proxy.items()})[1]
            losses = []
            for name, z_BD in embeddings.items():
                losses.append(model_contrast(z_BD, known[name][rows], previous[name][rows], TEMPERATURE))
                others = [other for other in _others(name, known) if other != name]
                inter = [found_in(z_BD, known[other], rows, TEMPERATURE) for other in others]
                losses += [torch.stack(inter).mean()] if inter else []
            return CONTRAST_WEIGHT * torch.stack(losses).sum()

        return term

    def _distil(self, aggregated: Windows, seed: int) -> None:
        method = self._plan.method
        generator = torch.Generator().manual_seed(seed)
        optimizer = Adam(self._server.parameters(), lr=method.distil_rate, fused=True)

        def term(rows: Tensor) -> Tensor:
            _, embeddings = self._server.encode({name: array[rows] for name, array in self._proxy.items()})
            losses = [method.eta * functional.mse_loss(embeddings[name], aggregated[name][rows]) for name in aggregated]
            return torch.stack([*losses, MATCHING_WEIGHT * matching(embeddings)]).sum()

        for _ in range(method.distil_epochs):
            for rows in batches(self._plan.proxy_windows, method.batch, generator):
                step(self._server, self._proxy, rows, self._plan, optimizer, generator, term)

    def _embedded(self, model: SplitAutoencoder) -> dict[str, Tensor]:
        known = knowledge_of(model, self._proxy, sends_hidden=False)
        return tensors({name: each.embedding for name, each in known.items()})

    def _packed(self, embedded: Windows) -> Payload:
        encoding = self._plan.method.encoding
        return {name: pack_knowledge(each.numpy(), None, encoding) for name, each in embedded.items()}

    def _unpacked(self, payload: Payload) -> dict[str, Tensor]:
        sizes = {"windows": self._plan.proxy_windows, "embedding": self._plan.method.embedding}
        return tensors({name: unpack_knowledge(data, **sizes, hidden=None)[0] for name, data in payload.items()})


def _others(name: str, known: Windows) -> list[str]:
    """The other modalities; the one itself where there is no other."""
    return [other for other in sorted(known) if other != name] or [name]


def aggregation_weights(local_CND: Tensor, others_ND: list[Tensor]) -> Tensor:
    """Each device's share (C, N) of the aggregate of each window: softmax over devices of its score (eq. 2 and 3).

    The score is log(e^(z_k . g_k) / sum_(j != k) e^(z_k . g_j)), with z a device's and g the server's representations;
    its mean over the server's other modalities.
    """
    local = functional.normalize(local_CND, dim=2)
    scores = []
    for other_ND in others_ND:
        similar_CNN = local @ functional.normalize(other_ND, dim=1).T
        right_CN = similar_CNN.diagonal(dim1=1, dim2=2)
        itself = torch.eye(similar_CNN.shape[1], dtype=torch.bool)
        scores.append(right_CN - similar_CNN.masked_fill(itself, -torch.inf).logsumexp(dim=2))
    return torch.stack(scores).mean(dim=0).softmax(dim=0)


def found_in(z_BD: Tensor, known_ND: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Mean of -log(e^(z_k . g_k / t) / sum_j e^(z_k . g_j / t)) over the windows of these rows (eq. 5)."""
    similar_BN = functional.normalize(z_BD, dim=1) @ functional.normalize(known_ND, dim=1).T
    return functional.cross_entropy(similar_BN / temperature, rows)


def matching(embeddings: Windows) -> Tensor:
    """The server's own task: each window found among those of the batch by every other modality's embedding."""
    names = sorted(embeddings)
    rows = torch.arange(len(embeddings[names[0]]))
    pairs = [(a, b) for a in names for b in names if a != b]
    losses = [found_in(embeddings[a], embeddings[b], rows, TEMPERATURE) for a, b in pairs]
    return torch.stack(losses).mean() if losses else embeddings[names[0]].new_zeros(())
