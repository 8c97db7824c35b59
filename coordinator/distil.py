"""Global distillation: the coordinator's encoders learn from the aggregated knowledge on the proxy set."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mekt.augment import view
from mekt.encoders import SplitAutoencoder
from mekt.learning import (
    Arrays,
    Knowledge,
    Progress,
    Windows,
    batch_count,
    batches,
    knowledge_loss,
    knowledge_of,
    reconstruction_loss,
    spreads,
    tensors,
)
from mekt.plan import Architecture, Plan, derived_seed

FUSED = "fused"
# Rounds whose views are learned from together: with four, HAPT's score rises over more rounds than with one.
VIEWS_KEPT = 4
# The rate at the end of a distillation, as a share of that at its start.
LAST_RATE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilLoss:
    """Means over the last epoch: reconstruction of the proxy set, transfer from the aggregate."""

    reconstruction: float
    transfer: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _View:
    """The proxy set as one round looked at it (N, T, ...), and what the devices then knew of it, (N, D) and (N, H)."""

    windows: Windows
    embedding: Windows
    hidden: Windows
    embedding_spread: Windows
    hidden_spread: Windows


class Distiller(nn.Module):
    """The global encoders and decoders, and with FedMEKT-C the dense layer that fuses all modalities' embeddings.

    That layer is drawn once, with orthonormal rows, and never learns: one that learns agrees with itself by forgetting
    what it is given, and then passes on next to nothing of what the devices know (docs/lab.md, 2026-11-24).

    What the latest rounds knew of their views of the proxy set is part of the state, and learned from together.
    """

    def __init__(
        self, plan: Plan, architectures: Mapping[str, Architecture], device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.plan = plan
        self.model = SplitAutoencoder(plan, architectures)
        self.fusion: nn.Linear | None = None
        if plan.method.fusion == "concatenated":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(plan.seed, "fusion"))
                width = plan.method.embedding
                self.fusion = nn.Linear(width * len(self.model.modalities), width, bias=False)
                nn.init.orthogonal_(self.fusion.weight)
            self.fusion.requires_grad_(False)
        # Whatever the method's weights are, so that a federation whose tuning changes goes on with its state.
        for name in self.model.modalities:
            for layer, width in {"embedding": plan.method.embedding, "hidden": plan.method.hidden}.items():
                self.register_buffer(f"{layer}/{name}", torch.zeros(VIEWS_KEPT, plan.proxy_windows, width))
                # The round whose view the row tells of, counted from 1; 0 where there is none.
                self.register_buffer(f"{layer}_round/{name}", torch.zeros(VIEWS_KEPT))
        self.to(device)
        self.device = device

    def distil(
        self,
        proxy: Arrays,
        aggregate: Mapping[str, Knowledge],
        round: int,
        progress: Progress = lambda done, whole: None,
    ) -> DistilLoss:
        """Train for the plan's distillation epochs; equal inputs give equal weights.

        Args:
            proxy: the normalised proxy set, per modality (N, T, ...).
            aggregate: the devices' aggregated knowledge of the round's view, of all modalities or some.
            round: of the aggregate, counted from 0; orders the batches.
            progress: is told how far it is after each batch.
        """
        method = self.plan.method
        generator = torch.Generator().manual_seed(derived_seed(self.plan.seed, "distil", round))
        self._keep(aggregate, round)
        views = self._views(proxy, round)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=method.distil_rate)
        whole = method.distil_epochs * batch_count(self.plan.proxy_windows, method.batch)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, LAST_RATE, total_iters=whole)
        means = (0.0, 0.0)
        done = 0
        for _ in range(method.distil_epochs):
            sums = torch.zeros(2, device=self.device)
            for rows in batches(self.plan.proxy_windows, method.batch, generator):
                rows = rows.to(self.device)
                seen = views[int(torch.randint(len(views), (1,), generator=generator))]
                batch = {name: array[rows] for name, array in seen.windows.items()}
                hidden, embeddings = self.model.encode(batch)
                rebuilt = reconstruction_loss(method.reconstruction, self.model, batch, embeddings)
                transferred = self._transfer(embeddings, rows, seen)
                loss = rebuilt + method.eta * transferred
                if method.gamma > 0:
                    targets = {name: each[rows] for name, each in seen.hidden.items()}
                    loss = loss + method.gamma * knowledge_loss(method, hidden, targets, seen.hidden_spread)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                falling.step()
                sums += torch.stack([rebuilt.detach(), transferred.detach()]) * len(rows)
                done += 1
                progress(done, whole)
            rebuilt_mean, transferred_mean = (sums / self.plan.proxy_windows).tolist()
            means = (rebuilt_mean, transferred_mean)
        return DistilLoss(reconstruction=means[0], transfer=means[1])

    def _keep(self, aggregate: Mapping[str, Knowledge], round: int) -> None:
        """Put a round's aggregate in the place of the oldest one."""
        slot = round % VIEWS_KEPT
        for name in self.model.modalities:
            for layer in ("embedding", "hidden"):
                known = getattr(aggregate.get(name), layer, None)
                self.get_buffer(f"{layer}_round/{name}")[slot] = 0 if known is None else round + 1
                if known is not None:
                    self.get_buffer(f"{layer}/{name}")[slot] = torch.tensor(known)

    def _views(self, proxy: Arrays, round: int) -> list[_View]:
        """The views of the rounds up to this one of which something is known; the last one's in any case.

        Where all views are the same, the newest knowledge alone counts.
        """
        views = []
        first = round if self.plan.method.augment == 0 else max(0, round + 1 - VIEWS_KEPT)
        for number in range(first, round + 1):
            slot = number % VIEWS_KEPT
            known: dict[str, dict[str, Tensor]] = {"embedding": {}, "hidden": {}}
            for layer, found in known.items():
                for name in self.model.modalities:
                    if int(self.get_buffer(f"{layer}_round/{name}")[slot]) == number + 1:
                        found[name] = self.get_buffer(f"{layer}/{name}")[slot]
            if known["embedding"] or number == round:
                windows = tensors(view(self.plan, proxy, number), self.device)
                views.append(
                    _View(
                        windows=windows,
                        embedding=known["embedding"],
                        hidden=known["hidden"],
                        embedding_spread=spreads(known["embedding"]),
                        hidden_spread=spreads(known["hidden"]),
                    )
                )
        return views

    def knowledge(self, proxy: Arrays) -> dict[str, Knowledge]:
        """The global knowledge: the global encoders' embeddings of the normalised proxy set."""
        return knowledge_of(self.model, tensors(proxy), self.plan.method.sends_hidden)

    def embed(self, windows: Arrays) -> Arrays:
        """Embeddings (N, D) of normalised windows, per modality."""
        known = knowledge_of(self.model, tensors(windows), sends_hidden=False)
        return {name: each.embedding for name, each in known.items()}

    def _transfer(self, embeddings: Windows, rows: Tensor, seen: _View) -> Tensor:
        """KT(fuse(E(P)), fuse(A)) on these rows; FedMEKT-S compares each modality for itself."""
        method = self.plan.method
        teacher = {name: each[rows] for name, each in seen.embedding.items()}
        if self.fusion is None or not teacher:
            return knowledge_loss(method, embeddings, teacher, seen.embedding_spread)
        # Where no device sent a modality, the student's own embedding takes its place on the teacher's side.
        both = {name: teacher.get(name, embeddings[name].detach()) for name in embeddings}
        student = {FUSED: self._fused(embeddings)}
        whole = {name: seen.embedding.get(name, torch.zeros_like(next(iter(seen.embedding.values())))) for name in both}
        return knowledge_loss(method, student, {FUSED: self._fused(both)}, spreads({FUSED: self._fused(whole)}))

    def _fused(self, embeddings: Windows) -> Tensor:
        assert self.fusion is not None
        fused: Tensor = self.fusion(torch.cat([embeddings[name] for name in sorted(embeddings)], dim=1))
        return fused
