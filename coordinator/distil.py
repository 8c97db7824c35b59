"""Global distillation: the coordinator's encoders learn from the aggregated knowledge on the proxy set."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
    teachers,
    tensors,
)
from mekt.losses import transfer_loss
from mekt.plan import Architecture, Plan, derived_seed


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
        seed: int,
        progress: Progress = lambda done, whole: None,
    ) -> DistilLoss:
        """Train for the plan's distillation epochs; equal inputs and seed give equal weights.

        Args:
            proxy: the normalised proxy set, per modality (N, T, ...).
            aggregate: the devices' aggregated knowledge, of all modalities or some.
            seed: orders the batches.
            progress: is told how far it is after each batch.
        """
        method = self.plan.method
        generator = torch.Generator().manual_seed(seed)
        public = tensors(proxy, self.device)
        hidden_teacher, embedding_teacher = teachers(aggregate, self.device)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=method.distil_rate)
        means = (0.0, 0.0)
        done, whole = 0, method.distil_epochs * batch_count(self.plan.proxy_windows, method.batch)
        for _ in range(method.distil_epochs):
            sums = torch.zeros(2, device=self.device)
            for rows in batches(self.plan.proxy_windows, method.batch, generator):
                rows = rows.to(self.device)
                batch = {name: array[rows] for name, array in public.items()}
                hidden, embeddings = self.model.encode(batch)
                rebuilt = reconstruction_loss(method.reconstruction, self.model, batch, embeddings)
                teacher = {name: array[rows] for name, array in embedding_teacher.items()}
                transferred = self._transfer(embeddings, teacher)
                loss = rebuilt + method.eta * transferred
                if method.gamma > 0:
                    targets = {name: array[rows] for name, array in hidden_teacher.items()}
                    loss = loss + method.gamma * knowledge_loss(method, hidden, targets)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                sums += torch.stack([rebuilt.detach(), transferred.detach()]) * len(rows)
                done += 1
                progress(done, whole)
            rebuilt_mean, transferred_mean = (sums / self.plan.proxy_windows).tolist()
            means = (rebuilt_mean, transferred_mean)
        return DistilLoss(reconstruction=means[0], transfer=means[1])

    def knowledge(self, proxy: Arrays) -> dict[str, Knowledge]:
        """The global knowledge: the global encoders' embeddings of the normalised proxy set."""
        return knowledge_of(self.model, tensors(proxy), self.plan.method.sends_hidden)

    def embed(self, windows: Arrays) -> Arrays:
        """Embeddings (N, D) of normalised windows, per modality."""
        known = knowledge_of(self.model, tensors(windows), sends_hidden=False)
        return {name: each.embedding for name, each in known.items()}

    def _transfer(self, embeddings: Windows, teacher: Windows) -> Tensor:
        """KT(fuse(E(P)), fuse(A)); FedMEKT-S compares each modality for itself."""
        method = self.plan.method
        if self.fusion is None or not teacher:
            return knowledge_loss(method, embeddings, teacher)
        # Where no device sent a modality, the student's own embedding takes its place on the teacher's side.
        both = {name: teacher.get(name, embeddings[name].detach()) for name in embeddings}
        fused_student = self.fusion(torch.cat([embeddings[name] for name in sorted(embeddings)], dim=1))
        fused_teacher = self.fusion(torch.cat([both[name] for name in sorted(both)], dim=1))
        return transfer_loss(method.transfer, fused_student, fused_teacher, method.temperature)
