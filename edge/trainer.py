"""Local learning on a device: it rebuilds private windows and follows the global knowledge of the proxy set."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edge.stock import Stock
from mekt.augment import augmentation_of
from mekt.encoders import SplitAutoencoder
from mekt.learning import (
    Arrays,
    Knowledge,
    Progress,
    batch_count,
    batches,
    endless_batches,
    knowledge_loss,
    knowledge_of,
    own_loss,
    spreads,
    teachers,
    tensors,
)
from mekt.plan import Architecture, Plan
from mekt.solvers import Adam


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalLoss:
    """Means over the last epoch: reconstruction of private windows, transfer on the proxy set when it was last seen."""

    reconstruction: float
    transfer: float


class LocalTrainer:
    """A device's split autoencoder and how one round changes it."""

    def __init__(self, plan: Plan, architectures: Mapping[str, Architecture]) -> None:
        self.plan = plan
        self.model = SplitAutoencoder(plan, architectures)

    def learn(
        self,
        windows: Stock,
        proxy: Arrays,
        knowledge: Mapping[str, Knowledge],
        round: int,
        seed: int,
        progress: Progress = lambda done, whole: None,
    ) -> LocalLoss:
        """Train for the plan's local epochs; equal inputs and seed give equal weights.

        Args:
            windows: private, normalised, one at least; batches are taken from it.
            proxy: the normalised proxy set as the round looks at it, per modality (N, T, ...).
            knowledge: global knowledge of the round, per modality.
            round: counted from 0; the rate falls with it.
            seed: orders the batches, and draws how windows are changed.
            progress: is told how far it is after each batch.
        """
        method = self.plan.method
        generator = torch.Generator().manual_seed(seed)
        public = tensors(proxy)
        hidden_teacher, embedding_teacher = teachers(knowledge)
        hidden_spread, embedding_spread = spreads(hidden_teacher), spreads(embedding_teacher)
        count = len(windows)
        optimizer = Adam(self.model.parameters(), lr=self.plan.local_rate(round), fused=True)
        proxy_batches = endless_batches(self.plan.knowledge_rows, method.batch, generator)
        augmentation = augmentation_of(self.plan)

        def transfer() -> tuple[Tensor, Tensor]:
            """Of the next batch of the proxy set: transfer of embeddings and of hidden layers."""
            rows = next(proxy_batches)
            hidden, embeddings = self.model.encode({name: array[rows] for name, array in public.items()})
            targets = {name: teacher[rows] for name, teacher in embedding_teacher.items()}
            hidden_targets = {name: teacher[rows] for name, teacher in hidden_teacher.items()}
            return (
                knowledge_loss(method, embeddings, targets, embedding_spread),
                knowledge_loss(method, hidden, hidden_targets, hidden_spread),
            )

        followed = not embedding_teacher.keys().isdisjoint(self.model.modalities)
        follow = method.follow_epochs * batch_count(self.plan.knowledge_rows, method.batch) if followed else 0
        whole = follow + method.local_epochs * batch_count(count, method.batch)
        transferred = rebuilt = torch.zeros(())
        for done in range(follow):
            transferred, _ = transfer()
            self._step(optimizer, transferred)
            progress(done + 1, whole)
        done = follow
        means = (0.0, float(transferred.detach()))
        for _ in range(method.local_epochs):
            sums = [0.0, 0.0]
            for index in batches(count, method.batch, generator):
                batch = tensors(windows.take(index.numpy()))
                loss, rebuilt = own_loss(self.model, batch, augmentation, generator)
                if method.alpha > 0 or method.beta > 0:
                    transferred, hidden_transferred = transfer()
                    loss = loss + method.alpha * transferred + method.beta * hidden_transferred
                self._step(optimizer, loss)
                sums[0] += float(rebuilt.detach()) * len(index)
                sums[1] += float(transferred.detach()) * len(index)
                done += 1
                progress(done, whole)
            means = (sums[0] / count, sums[1] / count)
        return LocalLoss(reconstruction=means[0], transfer=means[1])

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()

    def knowledge(self, proxy: Arrays) -> dict[str, Knowledge]:
        """This device's knowledge of each of its modalities, from the normalised proxy set."""
        return knowledge_of(self.model, tensors(proxy), self.plan.method.sends_hidden)
