"""What bounds methods without labels: no learning, no devices, no exchange, no privacy. Nothing crosses the wire."""

from collections.abc import Mapping

import torch

from bench.arena import Arena
from bench.contender import Payload
from bench.contenders.local import (
    global_architectures,
    learn_locally,
    pooled_windows,
    private_windows,
    step,
)
from coordinator.distil import Distiller
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, batch_count, endless_batches, knowledge_of, tensors
from mekt.plan import Plan, derived_seed
from mekt.solvers import Adam


class RandomEncoders:
    """The global encoders as the seed gives them."""

    uses_proxy = False

    def __init__(self, arena: Arena, plan: Plan) -> None:
        self._model = SplitAutoencoder(plan, global_architectures(arena))

    def announce(self, number: int, device: str) -> Payload:
        """Nothing."""
        return {}

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """Nothing."""
        return {}

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """Nothing."""

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By these encoders."""
        return (_embedded(self._model, windows),)


class LocalOnly:
    """Every device alone: what a round's participants learn stays with them."""

    uses_proxy = False

    def __init__(self, arena: Arena, plan: Plan) -> None:
        self._plan = plan
        self._models = {each.name: SplitAutoencoder(plan, each.architectures) for each in arena.devices}
        self._private = {each.name: private_windows(arena, each) for each in arena.devices}

    def announce(self, number: int, device: str) -> Payload:
        """Nothing."""
        return {}

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """Local learning, and nothing to send."""
        seed = derived_seed(self._plan.seed, device, number)
        learn_locally(self._models[device], self._private[device], self._plan, number, seed)
        return {}

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """Nothing."""

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By every device's encoders of the modalities that it has."""
        return tuple(_embedded(model, windows) for _, model in sorted(self._models.items()))


class CoordinatorAlone:
    """The coordinator as FedMEKT has it, and no device: what it learns from the proxy set by itself."""

    uses_proxy = True

    def __init__(self, arena: Arena, plan: Plan) -> None:
        self._proxy = arena.datasets.normalised_proxy()
        self._distiller = Distiller(plan, global_architectures(arena))

    def announce(self, number: int, device: str) -> Payload:
        """Nothing."""
        return {}

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """Nothing."""
        return {}

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """A round's distillation with nobody to follow."""
        self._distiller.distil(self._proxy, {}, number)

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By the global encoders."""
        return (self._distiller.embed(windows),)


class PooledAutoencoder:
    """All private windows in one place, all modalities of each: what reconstruction could learn without privacy.

    A round is as many batches as its participants would have learned from, so that all methods see as many windows.
    """

    uses_proxy = False

    def __init__(self, arena: Arena, plan: Plan) -> None:
        self._plan = plan
        self._model = SplitAutoencoder(plan, global_architectures(arena))
        self._counts = {each.name: len(each.private) for each in arena.devices}
        self._pooled = tensors(pooled_windows(arena).arrays)
        self._generator = torch.Generator().manual_seed(derived_seed(plan.seed, "pooled"))
        self._batches = endless_batches(sum(self._counts.values()), plan.method.batch, self._generator)

    def announce(self, number: int, device: str) -> Payload:
        """Nothing."""
        return {}

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """Nothing."""
        return {}

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """As many steps as the participants would have made."""
        method = self._plan.method
        optimizer = Adam(self._model.parameters(), lr=self._plan.local_rate(number), fused=True)
        for _ in range(method.local_epochs * sum(batch_count(self._counts[name], method.batch) for name in sent)):
            step(self._model, self._pooled, next(self._batches), self._plan, optimizer, self._generator)

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By the encoders that learned from everything."""
        return (_embedded(self._model, windows),)


def _embedded(model: SplitAutoencoder, windows: Arrays) -> Arrays:
    return {name: each.embedding for name, each in knowledge_of(model, tensors(windows), False).items()}
