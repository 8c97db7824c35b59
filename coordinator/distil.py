"""Global distillation: the coordinator's encoders learn from the aggregated knowledge on the proxy set."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mekt.augment import augmentation_of, view
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
    own_loss,
    spreads,
    teachers,
    tensors,
)
from mekt.plan import Architecture, Plan, derived_seed
from mekt.solvers import Adam

FUSED = "fused"
# The rate at the end of a distillation, as a share of that at its start.
LAST_RATE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilLoss:
    """Means over the last epoch: reconstruction of the proxy set, transfer from the aggregate."""

    reconstruction: float
    transfer: float


class Distiller(nn.Module):
    """The global encoders and decoders, and with FedMEKT-C the dense layer that fuses all modalities' embeddings.

    That layer is drawn once, with orthonormal rows, and never learns: one that learns agrees with itself by forgetting
    what it is given, and then passes on next to nothing of what the devices know (docs/lab.md, 2026-11-24).
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
            round: of the aggregate, counted from 0; gives the view, orders the batches, draws how windows are changed.
            progress: is told how far it is after each batch.
        """
        method = self.plan.method
        generator = torch.Generator().manual_seed(derived_seed(self.plan.seed, "distil", round))
        public, seen = tensors(proxy, self.device), tensors(view(self.plan, proxy, round), self.device)
        hidden_teacher, embedding_teacher = teachers(aggregate, self.device)
        hidden_spread, embedding_spread = spreads(hidden_teacher), spreads(self._compared(embedding_teacher))
        augmentation = augmentation_of(self.plan)
        optimizer = Adam(self.model.parameters(), lr=method.distil_rate, fused=True)
        whole = method.distil_epochs * batch_count(self.plan.knowledge_rows, method.batch)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, LAST_RATE, total_iters=whole)
        means = (0.0, 0.0)
        done = 0
        for _ in range(method.distil_epochs):
            sums = torch.zeros(2, device=self.device)
            for rows in batches(self.plan.knowledge_rows, method.batch, generator):
                rows = rows.to(self.device)
                own = {name: array[rows % self.plan.proxy_windows] for name, array in public.items()}
                learned, rebuilt = own_loss(self.model, own, augmentation, generator)
                hidden, embeddings = self.model.encode({name: array[rows] for name, array in seen.items()})
                targets = {name: each[rows] for name, each in embedding_teacher.items()}
                transferred = self._transfer(embeddings, targets, embedding_spread)
                loss = learned + method.eta * transferred
                if method.gamma > 0:
                    targets = {name: each[rows] for name, each in hidden_teacher.items()}
                    loss = loss + method.gamma * knowledge_loss(method, hidden, targets, hidden_spread)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                falling.step()
                sums += torch.stack([rebuilt.detach(), transferred.detach()]) * len(rows)
                done += 1
                progress(done, whole)
            rebuilt_mean, transferred_mean = (sums / self.plan.knowledge_rows).tolist()
            means = (rebuilt_mean, transferred_mean)
        return DistilLoss(reconstruction=means[0], transfer=means[1])

    def knowledge(self, proxy: Arrays) -> dict[str, Knowledge]:
        """The global knowledge: the global encoders' embeddings of the normalised proxy set."""
        return knowledge_of(self.model, tensors(proxy), self.plan.method.sends_hidden)

    def embed(self, windows: Arrays) -> Arrays:
        """Embeddings (N, D) of normalised windows, per modality."""
        known = knowledge_of(self.model, tensors(windows), sends_hidden=False)
        return {name: each.embedding for name, each in known.items()}

    def _transfer(self, embeddings: Windows, teacher: Windows, spread: Windows) -> Tensor:
        """KT(fuse(E(P)), fuse(A)) on some rows; FedMEKT-S compares each modality for itself."""
        if self.fusion is None or not teacher:
            return knowledge_loss(self.plan.method, embeddings, teacher, spread)
        # Where no device sent a modality, the student's own embedding takes its place on the teacher's side.
        both = {name: teacher.get(name, embeddings[name].detach()) for name in embeddings}
        return knowledge_loss(self.plan.method, self._compared(embeddings), self._compared(both), spread)

    def _compared(self, embeddings: Windows) -> Windows:
        """What is compared of embeddings (N, D): with FedMEKT-C all of them fused, zeros where one is missing."""
        if self.fusion is None or not embeddings:
            return embeddings
        blank = torch.zeros_like(next(iter(embeddings.values())))
        return {FUSED: self._fused({name: embeddings.get(name, blank) for name in self.model.modalities})}

    def _fused(self, embeddings: Windows) -> Tensor:
        assert self.fusion is not None
        fused: Tensor = self.fusion(torch.cat([embeddings[name] for name in sorted(embeddings)], dim=1))
        return fused
