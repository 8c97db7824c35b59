"""FedMEKT (arXiv 2307.13214): the product's own trainer, aggregate and distiller, without broker, disk and release.

Devices that attack lie before anything is encoded: what crosses the wire is as large as ever.
"""

from collections.abc import Mapping

from bench.arena import Arena
from bench.attacks import Moment, told
from bench.contender import Payload
from bench.contenders.local import global_architectures, private_windows
from coordinator.aggregate import Contribution
from coordinator.distil import Distiller
from coordinator.quarantine import Standings
from coordinator.weighing import weigh
from edge.trainer import LocalTrainer
from mekt.arrays import pack_knowledge, unpack_knowledge
from mekt.augment import view
from mekt.learning import Arrays, Knowledge
from mekt.plan import Plan, derived_seed


class FedMekt:
    """Embeddings of the proxy set both ways, in the method's encoding. Devices keep their models between rounds.

    `plan.method.fusion` says whether it is FedMEKT-S ("separate") or FedMEKT-C ("concatenated").
    """

    uses_proxy = True

    def __init__(self, arena: Arena, plan: Plan) -> None:
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
        known = self._unpacked(received)
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
        contributions = [
            Contribution(device=name, windows=self._count(name), knowledge=self._unpacked(payload))
            for name, payload in sent.items()
        ]
        known = self._distiller.embed(self._view) if number else None
        weighed = weigh(contributions, known, self._standings, self._rules, number)
        self._standings = weighed.standings
        self._distiller.distil(self._proxy, weighed.aggregate, number)

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """By the global encoders."""
        return (self._distiller.embed(windows),)

    def _learned(self, device: str, number: int, received: Mapping[str, Knowledge]) -> dict[str, Knowledge]:
        """What the device knows after it has learned."""
        trainer = self._trainers[device]
        proxy = {name: self._view[name] for name in self._private[device]}
        seed = derived_seed(self._plan.seed, device, number)
        trainer.learn(self._private[device], proxy, received, number, seed)
        return trainer.knowledge(proxy)

    def _count(self, device: str) -> int:
        return len(next(iter(self._private[device].values())))

    def _packed(self, knowledge: Mapping[str, Knowledge]) -> Payload:
        encoding = self._plan.method.encoding
        return {name: pack_knowledge(each.embedding, each.hidden, encoding) for name, each in knowledge.items()}

    def _unpacked(self, payload: Payload) -> dict[str, Knowledge]:
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
