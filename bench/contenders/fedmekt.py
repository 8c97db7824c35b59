"""FedMEKT (arXiv 2307.13214): the product's own trainer, aggregate and distiller, without broker, disk and release.

Devices that attack lie before anything is encoded: what crosses the wire is as large as ever.
"""

from collections.abc import Mapping

import numpy as np

from bench.arena import Arena
from bench.attacks import Moment, told
from bench.contender import Payload
from bench.contenders.local import global_architectures, private_windows
from coordinator.aggregate import Contribution, aggregate
from coordinator.distil import Distiller
from coordinator.quarantine import Standings
from coordinator.weighing import weigh
from edge.protection import protected
from edge.stock import InMemory
from edge.trainer import LocalTrainer
from mekt.arrays import pack_knowledge, unpack_knowledge
from mekt.augment import view
from mekt.encoders import SplitAutoencoder
from mekt.learning import Arrays, Knowledge
from mekt.noise import Mechanism
from mekt.plan import Plan, derived_seed


class FedMekt:
    """Embeddings of the proxy set both ways, in the method's encoding. Devices keep their models between rounds.

    `plan.method.fusion` says whether it is FedMEKT-S ("separate") or FedMEKT-C ("concatenated").
    """

    uses_proxy = True

    def __init__(self, arena: Arena, plan: Plan) -> None:
        # What devices protect their knowledge with, if anything.
        self.mechanism: Mechanism | None = None
        self._plan = plan
        self._rules = arena.rules
        self._attack, self._attackers = arena.attack, arena.attackers
        self._first: dict[str, dict[str, Knowledge]] = {}
        self._standings: Standings = {}
        self._proxy = self._view = arena.datasets.normalised_proxy()
        self._distiller = Distiller(plan, global_architectures(arena))
        self._trainers = {each.name: LocalTrainer(plan, each.architectures) for each in arena.devices}
        self._private = {each.name: private_windows(arena, each) for each in arena.devices}
        self._announced: tuple[int, Payload] = (-1, {})

    def announce(self, number: int, device: str) -> Payload:
        """The global knowledge of the device's modalities."""
        if self._announced[0] != number:
            self._view = view(self._plan, self._proxy, number)
            self._announced = number, self._packed(self._distiller.knowledge(self._view))
        return {name: data for name, data in self._announced[1].items() if name in self._private[device]}

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """Local learning; gives the device's knowledge, or what it says instead."""
        known = self.opened(received)
        if self._attack is None or device not in self._attackers:
            return self._packed(self._learned(device, number, known))
        match self._attack.base:
            case "received":
                pass
            case "own":
                known = self._learned(device, number, known)
            case "first":
                if device not in self._first:
                    self._first[device] = self._learned(device, number, known)
                known = self._first[device]
        return self._packed(told(self._attack, known, Moment(device=device, round=number, seed=self._plan.seed)))

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """Aggregation and distillation."""
        known = self._distiller.embed(self._view) if number else None
        weighed = weigh(self._contributions(sent), known, self._standings, self._rules, number)
        self._standings = weighed.standings
        self._distiller.distil(self._proxy, weighed.aggregate, number)

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By the global encoders."""
        return (self._distiller.embed(windows),)

    def _learned(self, device: str, number: int, received: Mapping[str, Knowledge]) -> dict[str, Knowledge]:
        """What the device knows after it has learned, as it may be shown."""
        trainer = self._trainers[device]
        proxy = {name: self._view[name] for name in self._private[device]}
        seed = derived_seed(self._plan.seed, device, number)
        trainer.learn(InMemory(self._private[device]), proxy, received, number, seed)
        knowledge = trainer.knowledge(proxy)
        if self.mechanism is None:
            return knowledge
        # Noise is drawn from the seed: a run can be repeated, and devices in the field do otherwise.
        bits = np.random.default_rng(derived_seed(self._plan.seed, "noise", device, number)).bytes
        return protected(knowledge, received, self.mechanism, bits)

    # What only a coordinator that is curious looks at

    @property
    def global_model(self) -> SplitAutoencoder:
        """The coordinator's encoders and decoders, of all modalities."""
        return self._distiller.model

    @property
    def seen(self) -> Arrays:
        """The proxy set as the round that was announced last looks at it."""
        return self._view

    def mean(self, sent: Mapping[str, Payload]) -> dict[str, Knowledge]:
        """The weighted mean of what these devices sent."""
        return aggregate(self._contributions(sent))

    def opened(self, payload: Payload) -> dict[str, Knowledge]:
        """The knowledge in these bytes."""
        method = self._plan.method
        knowledge = {}
        for name, data in payload.items():
            embedding_ND, hidden_NH = unpack_knowledge(
                data,
                windows=self._plan.knowledge_rows,
                embedding=method.embedding,
                hidden=method.hidden if method.sends_hidden else None,
            )
            knowledge[name] = Knowledge(embedding=embedding_ND, hidden=hidden_NH)
        return knowledge

    def _contributions(self, sent: Mapping[str, Payload]) -> list[Contribution]:
        return [
            Contribution(device=name, windows=self._count(name), knowledge=self.opened(payload))
            for name, payload in sent.items()
        ]

    def _count(self, device: str) -> int:
        return len(next(iter(self._private[device].values())))

    def _packed(self, knowledge: Mapping[str, Knowledge]) -> Payload:
        encoding = self._plan.method.encoding
        return {name: pack_knowledge(each.embedding, each.hidden, encoding) for name, each in knowledge.items()}
