"""The plan of a federation: all that a device needs to take part, carried whole by every round announcement."""

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import msgpack

from mekt.modality import LARGEST_WINDOW_VALUES, Modality, ModalityName, Scaling, WindowSpec
from mekt.schema import Bounds, Count, Positive, plain

Weight = Annotated[float, Bounds(low=0, high=1e6)]
Encoding = Literal["float32", "float16", "int8", "int4"]
Transfer = Literal["kl", "cosine", "mse", "relational"]
Fusion = Literal["separate", "concatenated"]
Reconstruction = Literal["waveform", "spectral"]
# Encoders: convolutions, and what they found anywhere in the window; the same in its beginning, middle and end apart,
# for gestures, whose order counts; the first with half the channels, for the smallest boards; or the paper's LSTM.
Architecture = Literal["conv", "ordered", "narrow", "lstm"]
LARGEST_PROXY_WINDOWS = 16_384
LAST_LOCAL_RATE = 0.1
LARGEST_BLOB_BYTES = 1 << 30


def derived_seed(seed: int, *parts: str | int) -> int:
    """A seed for one purpose, such as one device's learning in one round, out of the federation's."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobRef:
    """A large payload by its content: the SHA-256 of its bytes and how many there are."""

    sha256: Annotated[bytes, Bounds(shortest=32, longest=32)]
    size_bytes: Annotated[int, Bounds(low=1, high=LARGEST_BLOB_BYTES)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """FedMEKT's settings (arXiv 2307.13214), the same for the coordinator and every device.

    `alpha`, `beta` weigh the transfer of embeddings and of the hidden layer on devices, `eta`, `gamma` on the
    coordinator. `hidden` is the width of the hidden layer that every encoder has before its embedding.

    Knowledge is compared in units of its own spread (`mekt.learning.knowledge_loss`).

    `contrast` weighs, beside reconstruction, how well two changed copies of a window find each other among others at
    `contrast_temperature` (NT-Xent, Chen et al., arXiv 2002.05709, eq. 1), over all pairs of modalities; where there is
    contrast, `decorrelate` weighs how little of it embeddings leave to few dimensions (`mekt.losses.redundancy`).
    `augment` scales how far copies differ (`mekt.augment`); with it, each round's knowledge is of other views of the
    proxy set, as many as come nearest to `knowledge_rows` windows.
    `follow_epochs`: a device follows the global knowledge so often before it learns from its own windows.
    """

    embedding: Annotated[int, Bounds(low=1, high=1024)] = 32
    hidden: Annotated[int, Bounds(low=1, high=1024)] = 256
    fusion: Fusion = "separate"
    reconstruction: Reconstruction = "spectral"
    transfer: Transfer = "mse"
    temperature: Positive = 3.0
    alpha: Weight = 0.0
    beta: Weight = 0.0
    eta: Weight = 10.0
    gamma: Weight = 0.0
    contrast: Weight = 0.5
    contrast_temperature: Positive = 0.1
    decorrelate: Weight = 1.0
    augment: Annotated[float, Bounds(low=0, high=4)] = 1.0
    knowledge_rows: Annotated[int, Bounds(low=1, high=LARGEST_PROXY_WINDOWS)] = 1024
    follow_epochs: Annotated[int, Bounds(low=0, high=1000)] = 5
    local_epochs: Annotated[int, Bounds(low=1, high=1000)] = 5
    local_rate: Positive = 2e-3
    distil_epochs: Annotated[int, Bounds(low=1, high=10000)] = 10
    distil_rate: Positive = 2e-3
    batch: Annotated[int, Bounds(low=1, high=65536)] = 64
    encoding: Encoding = "int4"

    @property
    def sends_hidden(self) -> bool:
        """True when the hidden layer's embedding crosses the wire beside the embedding."""
        return self.beta > 0 or self.gamma > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a federation learns from, and how. `proxy` names the proxy set's blob of each modality.

    `run` is drawn when the coordinator's state is made, so that devices never mistake one run's rounds for another's.

    Raises:
        ValueError: when modalities, scaling and proxy set do not name the same modalities, or a window is too large.
    """

    run: Annotated[str, Bounds(pattern=r"[0-9a-f]{0,32}")] = ""
    seed: Annotated[int, Bounds(low=0, high=2**31 - 1)]
    rounds: Count
    window: WindowSpec
    modalities: Annotated[tuple[Modality, ...], Bounds(shortest=1, longest=16)]
    scaling: dict[ModalityName, Scaling]
    proxy: dict[ModalityName, BlobRef]
    proxy_windows: Annotated[int, Bounds(low=2, high=LARGEST_PROXY_WINDOWS)]
    method: Method

    def __post_init__(self) -> None:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError("modalities: a name occurs twice")
        if set(self.scaling) != set(names) or set(self.proxy) != set(names):
            raise ValueError("scaling and proxy must name exactly the modalities")
        for modality in self.modalities:
            if self.window.window_s * modality.rate_hz * math.prod(modality.shape) > LARGEST_WINDOW_VALUES:
                raise ValueError(f"a window of {modality.name} holds more than {LARGEST_WINDOW_VALUES} values")
            scaling = self.scaling[modality.name]
            if not len(scaling.mean) == len(scaling.std) == modality.channels:
                raise ValueError(f"scaling.{modality.name}: expected {modality.channels} means and deviations")

    def modality(self, name: str) -> Modality | None:
        """The modality of this name, or None when the federation has none."""
        return next((modality for modality in self.modalities if modality.name == name), None)

    def local_rate(self, round: int) -> float:
        """The devices' learning rate in a round, counted from 0: it falls evenly, to a tenth after the last one."""
        return self.method.local_rate * (1 - (1 - LAST_LOCAL_RATE) * min(1.0, round / self.rounds))

    @property
    def views(self) -> int:
        """How many views of the proxy set a round's knowledge is of; one where all are the same."""
        return max(1, round(self.method.knowledge_rows / self.proxy_windows)) if self.method.augment > 0 else 1

    @property
    def knowledge_rows(self) -> int:
        """How many rows a round's knowledge has: one for each window of each view."""
        return self.views * self.proxy_windows

    @property
    def identity(self) -> str:
        """A short name for all that a device's model depends on; a plan that differs only in tuning keeps it."""
        parts = (self.run, self.seed, self.window, self.modalities, self.scaling, self.proxy)
        method = [self.method.embedding, self.method.hidden, self.method.contrast > 0]
        packed: bytes = msgpack.packb([plain(part) for part in parts] + method)
        return hashlib.sha256(packed).hexdigest()[:16]
