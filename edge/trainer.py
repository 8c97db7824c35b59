"""Local learning on a device: it rebuilds private windows and follows the global knowledge of the proxy set."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

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


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalLoss:
    """Means over the last epoch: reconstruction of private windows, transfer on the proxy set."""

    reconstruction: float
    transfer: float


class LocalTrainer:
    """A device's split autoencoder and how one round changes it."""

    def __init__(self, plan: Plan, architectures: Mapping[str, Architecture]) -> None:
        self.plan = plan
        self.model = SplitAutoencoder(plan, architectures)

    def learn(
        self,
        windows: Arrays,
        proxy: Arrays,
        knowledge: Mapping[str, Knowledge],
        round: int,
        seed: int,
        progress: Progress = lambda done, whole: None,
    ) -> LocalLoss:
        """Train for the plan's local epochs; equal inputs and seed give equal weights.

        Args:
            windows: private, normalised, per modality (B, T, ...), one at least.
            proxy: the normalised proxy set as the round looks at it, per modality (N, T, ...).
            knowledge: global knowledge of the round, per modality.
            round: counted from 0; the rate falls with it.
            seed: orders the batches, and draws how windows are changed.
            progress: is told how far it is after each batch.
        """
        method = self.plan.method
        generator = torch.Generator().manual_seed(seed)
        private, public = tensors(windows), tensors(proxy)
        hidden_teacher, embedding_teacher = teachers(knowledge)
        hidden_spread, embedding_spread = spreads(hidden_teacher), spreads(embedding_teacher)
        count = len(next(iter(private.values())))
        proxy_batches = endless_batches(self.plan.proxy_windows, method.batch, generator)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.plan.local_rate(round))
        means = (0.0, 0.0)
        augmentation = augmentation_of(self.plan)
        followed = not embedding_teacher.keys().isdisjoint(self.model.modalities)
        follow = method.follow_epochs * batch_count(self.plan.proxy_windows, method.batch) if followed else 0
        done, whole = 0, follow + method.local_epochs * batch_count(count, method.batch)
        for _ in range(follow):
            rows = next(proxy_batches)
            _, embeddings = self.model.encode({name: array[rows] for name, array in public.items()})
            targets = {name: teacher[rows] for name, teacher in embedding_teacher.items()}
            transferred = knowledge_loss(method, embeddings, targets, embedding_spread)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(transferred)
            optimizer.step()
            done += 1
            progress(done, whole)
        for _ in range(method.local_epochs):
            sums = [0.0, 0.0]
            for index in batches(count, method.batch, generator):
                batch = {name: array[index] for name, array in private.items()}
                learned, rebuilt = own_loss(self.model, batch, augmentation, generator)
                rows = next(proxy_batches)
                hidden, embeddings = self.model.encode({name: array[rows] for name, array in public.items()})
                targets = {name: teacher[rows] for name, teacher in embedding_teacher.items()}
                transferred = knowledge_loss(method, embeddings, targets, embedding_spread)
                loss = learned + method.alpha * transferred
                if method.beta > 0:
                    targets = {name: teacher[rows] for name, teacher in hidden_teacher.items()}
                    loss = loss + method.beta * knowledge_loss(method, hidden, targets, hidden_spread)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                sums[0] += float(rebuilt.detach()) * len(index)
                sums[1] += float(transferred.detach()) * len(index)
                done += 1
                progress(done, whole)
            means = (sums[0] / count, sums[1] / count)
        return LocalLoss(reconstruction=means[0], transfer=means[1])

    def knowledge(self, proxy: Arrays) -> dict[str, Knowledge]:
        """This device's knowledge of each of its modalities, from the normalised proxy set."""
        return knowledge_of(self.model, tensors(proxy), self.plan.method.sends_hidden)
