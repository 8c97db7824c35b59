"""What one round is for a device: which blobs it needs, and the long work that turns them into knowledge.

Shapes: N proxy windows, T samples, D embedding width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edge.protection import Protection
from edge.stock import Normalised, Scale, Stock
from edge.trainer import LocalLoss, LocalTrainer
from mekt import catalogue
from mekt.arrays import largest_knowledge_bytes, pack_knowledge, unpack_knowledge, unpack_windows
from mekt.augment import view
from mekt.checkpoint import load_weights, pack_weights
from mekt.encoders import DECODER_WIDTH
from mekt.errors import WireError
from mekt.files import BlobStore
from mekt.learning import Arrays, Knowledge, Progress
from mekt.modality import Modality
from mekt.plan import LARGEST_BLOB_BYTES, Architecture, BlobRef, Plan, derived_seed
from mekt.process import memory_bytes

# What msgpack adds to an array's numbers at most.
WRAPPING_BYTES = 128
# What a number of the proxy set takes while it is read: as received, in chunks and whole, thrice in float32, and four
# times more while the round's view of it is made.
PROXY_BYTES = 32
# A signal's decoder has a layer of DECODER_WIDTH to every value of a window: weights, slopes and Adam's two means.
DECODER_BYTES = 16 * DECODER_WIDTH
# How many of the proxy set's deviations a device's own may be, or its mean away, before its unit is doubted.
ODD_RATIO = 5.0
# Losses above it could not be told to the coordinator either.
LARGEST_LOSS = 1e18


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Learned:
    """What local learning gave: the weights and the knowledge to keep, from so many windows; what looks odd in them.

    `cost` is what showing the knowledge takes from a privacy budget (edge/budget.py), 0 where nothing is protected.
    """

    round: int
    weights: bytes
    knowledge: Mapping[str, bytes]
    windows: int
    loss: LocalLoss
    remarks: Mapping[str, str]
    cost: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Late:
    """What a device had learned for an earlier round, as it is offered to `round`: embeddings of that one's views."""

    round: int
    knowledge: Mapping[str, bytes]


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
        """Which blob is larger than the plan, or what this device can take, allows; None when all are fine."""
        method = self.plan.method
        largest = largest_knowledge_bytes(self.plan.knowledge_rows, method.embedding, self._hidden, method.encoding)
        needed = 0
        for modality in self._modalities():
            values = self.plan.proxy_windows * self.plan.window.values(modality)
            if self.plan.proxy[modality.name].size_bytes > 2 * values + WRAPPING_BYTES:
                return f"the proxy set's {modality.name} is larger than its windows"
            if modality.name in self.knowledge and self.knowledge[modality.name].size_bytes > largest:
                return f"the global knowledge of {modality.name} is larger than its embeddings"
            needed += PROXY_BYTES * self.plan.knowledge_rows * self.plan.window.values(modality)
            if not modality.is_frames:
                needed += DECODER_BYTES * self.plan.window.values(modality)
        if sum(ref.size_bytes for ref in self.refs) > LARGEST_BLOB_BYTES:
            return f"proxy set and global knowledge are over {LARGEST_BLOB_BYTES} bytes together"
        if needed > memory_bytes():
            return f"learning takes over {needed / 1e6:.0f} MB of memory, and there are {memory_bytes() / 1e6:.0f}"
        return None

    def proxy(self, blobs: BlobStore) -> Arrays:
        """The proxy set of the device's modalities, normalised, as the round looks at it: (N, T, ...).

        Raises:
            WireError: when a blob is not what the plan says.
        """
        arrays = {}
        for modality in self._modalities():
            shape = (self.plan.proxy_windows, *self.plan.window.shape(modality))
            windows = unpack_windows(_content(blobs, self.plan.proxy[modality.name]), shape)
            arrays[modality.name] = self.plan.scaling[modality.name].normalise(windows)
        return view(self.plan, arrays, self.round)

    def teachers(self, blobs: BlobStore) -> dict[str, Knowledge]:
        """The global knowledge of the device's modalities.

        Raises:
            WireError: when a blob is not what the plan says.
        """
        knowledge = {}
        for name in sorted(set(self.knowledge) & set(self.architectures)):
            embedding_ND, hidden_NH = unpack_knowledge(
                _content(blobs, self.knowledge[name]),
                windows=self.plan.knowledge_rows,
                embedding=self.plan.method.embedding,
                hidden=self._hidden,
            )
            knowledge[name] = Knowledge(embedding=embedding_ND, hidden=hidden_NH)
        return knowledge

    def learn(
        self,
        windows: Stock,
        weights: bytes | None,
        blobs: BlobStore,
        progress: Progress,
        protection: Protection | None = None,
    ) -> Learned:
        """Learn from private `windows`, as sensed, going on from `weights`; equal inputs give equal bytes.

        With `protection` the weights are equal and the knowledge is not, which then nobody can compute again. The
        knowledge is of the modalities that the windows have; encoders of others only follow the global knowledge.

        Raises:
            WireError: when a blob is not what the plan says.
            StateError: when the weights are of another model.
            ValueError: when there is no window, or the model has diverged, so that its knowledge cannot be sent.
        """
        if len(windows) == 0:
            raise ValueError("none of the private windows that were kept is whole")
        trainer = self._trainer(weights)
        proxy = self.proxy(blobs)
        private = Normalised(windows, self.plan.scaling)
        seed = derived_seed(self.plan.seed, self.device, self.round)
        known = self.teachers(blobs)
        loss = trainer.learn(private, proxy, known, self.round, seed, progress)
        sizes = [
            loss.reconstruction,
            loss.transfer,
            *(float(each.detach().sum()) for each in trainer.model.parameters()),
        ]
        if not all(math.isfinite(each) and abs(each) < LARGEST_LOSS for each in sizes):
            # Kept, it would spoil every round to come.
            raise ValueError(
                "the model has diverged; the federation's local_rate is too high for this device's windows"
            )
        knowledge = trainer.knowledge({name: proxy[name] for name in windows.names})
        if protection is not None:
            knowledge = protection(knowledge, known)
        return Learned(
            round=self.round,
            weights=pack_weights(trainer.model),
            knowledge=self._packed(knowledge),
            windows=len(windows),
            loss=loss,
            remarks=odd_scales(private.scales),
            cost=0.0 if protection is None else protection.cost,
        )

    def recall(self, weights: bytes, blobs: BlobStore) -> dict[str, bytes]:
        """The knowledge that `learn` gave without protection, byte for byte, out of the weights that it gave.

        Raises:
            WireError: when a blob of the proxy set is missing or not what the plan says.
            StateError: when the weights are of another model.
        """
        return self._packed(self._trainer(weights).knowledge(self.proxy(blobs)))

    def _trainer(self, weights: bytes | None) -> LocalTrainer:
        trainer = LocalTrainer(self.plan, self.architectures)
        if weights is not None:
            load_weights(trainer.model, weights, "this device's model")
        return trainer

    def _packed(self, knowledge: Mapping[str, Knowledge]) -> dict[str, bytes]:
        encoding = self.plan.method.encoding
        return {name: pack_knowledge(each.embedding, each.hidden, encoding) for name, each in knowledge.items()}

    @property
    def _hidden(self) -> int | None:
        return self.plan.method.hidden if self.plan.method.sends_hidden else None

    def _modalities(self) -> list[Modality]:
        return [each for each in self.plan.modalities if each.name in self.architectures]


def odd_scales(scales: Mapping[str, Scale]) -> dict[str, str]:
    """A sentence for each modality whose windows, in the proxy set's scaling, are far from having mean 0 and spread 1.

    That is how m/s2 in place of g looks, or a sensor that stands still; nothing is wrong for sure.
    """
    remarks = {}
    for name, scale in sorted(scales.items()):
        mean, spread = abs(scale.mean), scale.deviation
        if mean > ODD_RATIO or not 1 / ODD_RATIO <= spread <= ODD_RATIO:
            remarks[name] = (
                f"{name}: its windows lie {mean:.1f} deviations of the proxy set off and are {spread:.2f} as wide; "
                "check the sensor's unit, range and mounting"
            )
    return remarks


def _content(blobs: BlobStore, ref: BlobRef) -> bytes:
    data = blobs.get(ref)
    if data is None:
        raise WireError(f"the blob {ref.sha256.hex()[:12]} is not here", catalogue.BLOB_DAMAGED)
    return data
