"""What one round is for a device: which blobs it needs, and the long work that turns them into knowledge.

Shapes: N proxy windows, T samples, D embedding width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edge.trainer import LocalLoss, LocalTrainer
from mekt.arrays import largest_knowledge_bytes, pack_knowledge, unpack_knowledge, unpack_windows
from mekt.checkpoint import load_weights, pack_weights
from mekt.errors import WireError
from mekt.files import BlobStore
from mekt.learning import Arrays, Knowledge, Progress
from mekt.modality import Modality
from mekt.plan import Architecture, BlobRef, Plan, derived_seed

# What msgpack adds to an array's numbers at most.
WRAPPING_BYTES = 128


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Learned:
    """What local learning gave: the weights and the knowledge to keep, from so many windows."""

    round: int
    weights: bytes
    knowledge: Mapping[str, bytes]
    windows: int
    loss: LocalLoss


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lesson:
    """A round's plan and blobs for a device with these modalities. Its blobs' sizes are what the plan implies."""

    device: str
    round: int
    plan: Plan
    architectures: Mapping[str, Architecture]
    knowledge: Mapping[str, BlobRef]

    @property
    def refs(self) -> tuple[BlobRef, ...]:
        """The blobs that are needed: of each of the device's modalities the proxy set and the global knowledge."""
        proxy = [self.plan.proxy[name] for name in sorted(self.architectures)]
        return tuple(proxy + [ref for name, ref in sorted(self.knowledge.items()) if name in self.architectures])

    def size_problem(self) -> str | None:
        """Which blob is larger than the plan allows, or None."""
        method = self.plan.method
        largest = largest_knowledge_bytes(self.plan.proxy_windows, method.embedding, self._hidden, method.encoding)
        for modality in self._modalities():
            values = self.plan.proxy_windows * self.plan.window.values(modality)
            if self.plan.proxy[modality.name].size_bytes > 2 * values + WRAPPING_BYTES:
                return f"the proxy set's {modality.name} is larger than its windows"
            if modality.name in self.knowledge and self.knowledge[modality.name].size_bytes > largest:
                return f"the global knowledge of {modality.name} is larger than its embeddings"
        return None

    def proxy(self, blobs: BlobStore) -> Arrays:
        """The proxy set of the device's modalities, normalised: (N, T, ...).

        Raises:
            WireError: when a blob is not what the plan says.
        """
        arrays = {}
        for modality in self._modalities():
            shape = (self.plan.proxy_windows, *self.plan.window.shape(modality))
            windows = unpack_windows(_content(blobs, self.plan.proxy[modality.name]), shape)
            arrays[modality.name] = self.plan.scaling[modality.name].normalise(windows)
        return arrays

    def teachers(self, blobs: BlobStore) -> dict[str, Knowledge]:
        """The global knowledge of the device's modalities.

        Raises:
            WireError: when a blob is not what the plan says.
        """
        knowledge = {}
        for name in sorted(set(self.knowledge) & set(self.architectures)):
            embedding_ND, hidden_NH = unpack_knowledge(
                _content(blobs, self.knowledge[name]),
                windows=self.plan.proxy_windows,
                embedding=self.plan.method.embedding,
                hidden=self._hidden,
            )
            knowledge[name] = Knowledge(embedding=embedding_ND, hidden=hidden_NH)
        return knowledge

    def learn(self, windows: Arrays, weights: bytes | None, blobs: BlobStore, progress: Progress) -> Learned:
        """Learn from private `windows`, as sensed, going on from `weights`; equal inputs give equal bytes.

        Raises:
            WireError: when a blob is not what the plan says.
            StateError: when the weights are of another model.
            ValueError: when the model has diverged, so that its knowledge cannot be sent.
        """
        trainer = LocalTrainer(self.plan, self.architectures)
        if weights is not None:
            load_weights(trainer.model, weights, "the model")
        proxy = self.proxy(blobs)
        private = {name: self.plan.scaling[name].normalise(array) for name, array in windows.items()}
        seed = derived_seed(self.plan.seed, self.device, self.round)
        loss = trainer.learn(private, proxy, self.teachers(blobs), seed, progress)
        encoding = self.plan.method.encoding
        knowledge = {
            name: pack_knowledge(each.embedding, each.hidden, encoding)
            for name, each in trainer.knowledge(proxy).items()
        }
        count = len(next(iter(windows.values())))
        return Learned(
            round=self.round, weights=pack_weights(trainer.model), knowledge=knowledge, windows=count, loss=loss
        )

    @property
    def _hidden(self) -> int | None:
        return self.plan.method.hidden if self.plan.method.sends_hidden else None

    def _modalities(self) -> list[Modality]:
        return [each for each in self.plan.modalities if each.name in self.architectures]


def _content(blobs: BlobStore, ref: BlobRef) -> bytes:
    data = blobs.get(ref)
    if data is None:
        raise WireError(f"the blob {ref.sha256.hex()[:12]} is not here")
    return data
