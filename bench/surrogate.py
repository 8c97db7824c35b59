"""What a coordinator that is curious makes of what crosses: models of one device, out of parameters or of knowledge.

Parameters are the device's model. Knowledge is not, but the coordinator knows its own global model, which the device
began with in the first round and has followed since, and the windows that the knowledge is of: it has a copy of the
global model follow the knowledge, as devices follow its own. From the second round on it has two such surrogates: one
that follows the round's knowledge alone, and one that goes on from where it was after the round before and so has
followed the knowledge of every round. With the sum alone it does the same with what all devices are together, which is
the best that it has of any one of them.
"""

import copy
from collections.abc import Mapping
from typing import Protocol

import torch

from bench.contender import Payload
from bench.contenders.fedmekt import FedMekt
from bench.contenders.parameters import Averaging
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, Knowledge, batch_count, batches, knowledge_loss, reconstruction_loss, spreads, tensors
from mekt.learning import teachers as targets_of
from mekt.plan import Plan, derived_seed
from mekt.solvers import Adam

# On a HAPT device's private windows the surrogate's embeddings then leave 0.02 (first round) to 0.07 (second) of the
# variance of the device's own unexplained; after 20 epochs, 0.02 to 0.06.
EPOCHS = 8
LAST_RATE = 0.1


class Watcher(Protocol):
    """The coordinator's view of a round, between what devices sent and what it makes of that."""

    def reference(self, device: str, received: Payload) -> SplitAutoencoder:
        """The global model as the device got it."""
        ...

    def models(self, device: str, number: int, sent: Mapping[str, Payload]) -> tuple[SplitAutoencoder, ...]:
        """Models of the device out of the weighted sum of what these devices sent in round `number`.

        Of one alone that is what it sent; of several it is all that secure aggregation shows. Rounds come in order.
        """
        ...


class ParameterWatcher:
    """Where parameters cross."""

    def __init__(self, contender: Averaging) -> None:
        self._contender = contender

    def reference(self, device: str, received: Payload) -> SplitAutoencoder:
        """As received."""
        return self._contender.filled(device, received)

    def models(self, device: str, number: int, sent: Mapping[str, Payload]) -> tuple[SplitAutoencoder, ...]:
        """The mean."""
        return (self._contender.filled(device, self._contender.mean(device, sent)),)


class KnowledgeWatcher:
    """Where knowledge crosses. Its models have all modalities; those that were not sent are the global model's."""

    def __init__(self, contender: FedMekt, plan: Plan) -> None:
        self._contender, self._plan = contender, plan
        # Who sent -> the last round of theirs, and the surrogates made of it.
        self._made: dict[tuple[str, ...], tuple[int, tuple[SplitAutoencoder, ...]]] = {}

    def reference(self, device: str, received: Payload) -> SplitAutoencoder:
        """The coordinator's own encoders and decoders."""
        return self._contender.global_model

    def models(self, device: str, number: int, sent: Mapping[str, Payload]) -> tuple[SplitAutoencoder, ...]:
        """A surrogate of the round's knowledge, and after the first round one that has followed all of it."""
        names = tuple(sorted(sent))
        last, before = self._made.get(names, (-1, ()))
        if last != number:
            knowledge = self._contender.mean(sent)
            seen = {name: self._contender.seen[name] for name in knowledge}
            seed = derived_seed(self._plan.seed, "surrogate", *names, number)
            starts = (self._contender.global_model, *before[-1:])
            self._made[names] = number, tuple(surrogate(each, self._plan, seen, knowledge, seed) for each in starts)
        return self._made[names][1]


def surrogate(
    start: SplitAutoencoder, plan: Plan, seen: Arrays, knowledge: Mapping[str, Knowledge], seed: int
) -> SplitAutoencoder:
    """A copy of `start` whose encoders give this knowledge of the windows `seen`, and whose decoders rebuild these."""
    model, method = copy.deepcopy(start), plan.method
    generator = torch.Generator().manual_seed(seed)
    windows, (_, targets) = tensors(seen), targets_of(knowledge)
    spread = spreads(targets)
    rows = len(next(iter(windows.values())))
    optimizer = Adam(model.parameters(), lr=method.distil_rate, fused=True)
    steps = EPOCHS * batch_count(rows, method.batch)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, LAST_RATE, total_iters=steps)
    for _ in range(EPOCHS):
        for index in batches(rows, method.batch, generator):
            batch = {name: array[index] for name, array in windows.items()}
            _, embedded = model.encode(batch)
            followed = knowledge_loss(method, embedded, {name: each[index] for name, each in targets.items()}, spread)
            loss = method.eta * followed + reconstruction_loss(method.reconstruction, model, batch, embedded)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            falling.step()
    return model
