"""What a coordinator that is curious makes of what crosses: a model of one device, out of parameters or of knowledge.

Parameters are the device's model. Knowledge is not, but the coordinator knows the encoders' architecture, its own
global model, which the device began with in the first round and has followed since, and the windows that the knowledge
is of: it has a copy of the global model follow the knowledge, as devices follow its own. With the sum alone it does the
same with what all devices are together, which is the best that it has of any one of them.
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

# On a HAPT device's private windows the surrogate's embeddings then leave 0.02 (first round) to 0.07 (second) of the
# variance of the device's own unexplained; after 20 epochs, 0.02 to 0.06.
EPOCHS = 8
LAST_RATE = 0.1


class Watcher(Protocol):
    """The coordinator's view of a round, between what devices sent and what it makes of that."""

    def reference(self, device: str, received: Payload) -> SplitAutoencoder:
        """The global model as the device got it, of the device's modalities."""
        ...

    def own(self, device: str, number: int, sent: Payload) -> SplitAutoencoder:
        """A model of the device, out of what it sent in round `number`."""
        ...

    def summed(self, device: str, number: int, sent: Mapping[str, Payload]) -> SplitAutoencoder:
        """The same out of the weighted sum of what these devices sent, which is all that secure aggregation shows."""
        ...


class ParameterWatcher:
    """Where parameters cross."""

    def __init__(self, contender: Averaging) -> None:
        self._contender = contender

    def reference(self, device: str, received: Payload) -> SplitAutoencoder:
        """As received."""
        return self._contender.filled(device, received)

    def own(self, device: str, number: int, sent: Payload) -> SplitAutoencoder:
        """As sent."""
        return self._contender.filled(device, sent)

    def summed(self, device: str, number: int, sent: Mapping[str, Payload]) -> SplitAutoencoder:
        """The mean of all."""
        return self._contender.filled(device, self._contender.mean(device, sent))


class KnowledgeWatcher:
    """Where knowledge crosses."""

    def __init__(self, contender: FedMekt, plan: Plan) -> None:
        self._contender, self._plan = contender, plan
        # Of devices with the same modalities it is the same.
        self._summed: dict[tuple[object, ...], SplitAutoencoder] = {}

    def reference(self, device: str, received: Payload) -> SplitAutoencoder:
        """The coordinator's own encoders and decoders."""
        model = SplitAutoencoder(self._plan, self._contender.architectures(device))
        weights = self._contender.global_model.state_dict()
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
        return model

    def own(self, device: str, number: int, sent: Payload) -> SplitAutoencoder:
        """A surrogate of the device's encoders."""
        return self._surrogate(device, number, self._contender.opened(sent))

    def summed(self, device: str, number: int, sent: Mapping[str, Payload]) -> SplitAutoencoder:
        """A surrogate of all that have sent something."""
        key = number, tuple(sorted(sent)), tuple(sorted(self._contender.architectures(device).items()))
        if key not in self._summed:
            self._summed[key] = self._surrogate(device, number, self._contender.mean(sent))
        return self._summed[key]

    def _surrogate(self, device: str, number: int, knowledge: Mapping[str, Knowledge]) -> SplitAutoencoder:
        seed = derived_seed(self._plan.seed, "surrogate", device, number)
        having = {name: each for name, each in knowledge.items() if name in self._contender.architectures(device)}
        seen = {name: self._contender.seen[name] for name in having}
        return surrogate(self.reference(device, {}), self._plan, seen, having, seed)


def surrogate(
    start: SplitAutoencoder, plan: Plan, seen: Arrays, knowledge: Mapping[str, Knowledge], seed: int
) -> SplitAutoencoder:
    """A copy of `start` whose encoders give this knowledge of the windows `seen`, and whose decoders rebuild these."""
    model, method = copy.deepcopy(start), plan.method
    generator = torch.Generator().manual_seed(seed)
    windows, (_, targets) = tensors(seen), targets_of(knowledge)
    spread = spreads(targets)
    rows = len(next(iter(windows.values())))
    optimizer = torch.optim.Adam(model.parameters(), lr=method.distil_rate, fused=True)
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
