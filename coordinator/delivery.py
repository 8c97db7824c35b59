"""One offer on its way in: what a device may offer, which chunks to ask it for, when all is there. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mekt import catalogue
from mekt.arrays import largest_knowledge_bytes, unpack_knowledge
from mekt.blobs import ChunkError, Fetch
from mekt.errors import WireError
from mekt.fixedpoint import FINE
from mekt.messages import Chunk, Offer, Want
from mekt.plan import LARGEST_BLOB_BYTES, Plan

# No embedding of a sound model comes near this, and the distances between embeddings up to it are still finite.
LARGEST_VALUE = float(np.finfo(np.float16).max)
# A device keeps no more windows than this; what weighs more would drown the others out.
MOST_WINDOWS = 1_000_000
# Chunks of an offer that do not fit, or gave a damaged whole. No network does that so often: its sender is broken.
MOST_DAMAGED = 8


def offer_problem(offer: Offer, plan: Plan) -> str | None:
    """Why this offer can never be accepted, or None."""
    method = plan.method
    hidden = method.hidden if method.sends_hidden else None
    largest = largest_knowledge_bytes(plan.knowledge_rows, method.embedding, hidden, method.encoding)
    if offer.windows > MOST_WINDOWS:
        return f"{offer.windows} windows are more than the {MOST_WINDOWS} that a device can keep"
    for name, ref in offer.knowledge.items():
        if plan.modality(name) is None:
            return f"the federation has no modality {name}"
        if ref.size_bytes > largest:
            return f"{name}: {ref.size_bytes} bytes of knowledge are over this plan's limit of {largest}"
    total = sum(ref.size_bytes for ref in offer.knowledge.values())
    if total > LARGEST_BLOB_BYTES:
        return f"{total} bytes of knowledge are over the {LARGEST_BLOB_BYTES} that may be fetched at a time"
    return None


def masked_problem(offer: Offer, modalities: Collection[str], plan: Plan) -> str | None:
    """Why this offer of masked words can never be accepted, or None; they have to be of exactly these modalities."""
    size_bytes = FINE.size_bytes((plan.knowledge_rows, plan.method.embedding))
    if set(offer.knowledge) != set(modalities):
        return f"words of {', '.join(sorted(offer.knowledge))}, where {', '.join(sorted(modalities))} are summed"
    if any(ref.size_bytes != size_bytes for ref in offer.knowledge.values()):
        return f"words of another length than {size_bytes} bytes"
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """All of an offer has arrived and holds what it should: the blobs per modality."""

    offer: Offer
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """What was offered arrived as it was sent, and is not what it should be; sending it again changes nothing."""

    reason: str


class Incoming:
    """One device's offer while its blobs are fetched."""

    def __init__(self, offer: Offer, plan: Plan) -> None:
        self.offer = offer
        self._plan = plan
        self._fetch = Fetch()
        self._blobs: dict[bytes, bytes] = {}
        self._hashes = frozenset(ref.sha256 for ref in offer.knowledge.values())
        self._damaged = 0
        for ref in offer.knowledge.values():
            self._fetch.want(ref)

    def due(self, now_s: float) -> list[Want]:
        """What to ask the device for now."""
        return self._fetch.due(now_s)

    def ask_again(self) -> None:
        """The device is back: what it was asked for before may be lost."""
        self._fetch.ask_again()

    def take(self, chunk: Chunk) -> Whole | Unusable | None:
        """Accept a chunk; the whole when it was the last one.

        Raises:
            ChunkError: when the chunk does not belong, or a blob was damaged on its way and is asked for again.
        """
        try:
            data = self._fetch.take(chunk)
        except ChunkError as error:
            self._damaged += chunk.sha256 in self._hashes
            if self._damaged >= MOST_DAMAGED:
                return Unusable(reason=f"it keeps arriving damaged: {error}")
            raise
        if data is None:
            return None
        try:
            # Of masked words nothing but their number can be told, which was looked at when they were offered.
            if not self.offer.masked:
                _check(data, self._plan)
        except WireError as error:
            return Unusable(reason=str(error))
        self._blobs[chunk.sha256] = data
        if self._fetch.wanted:
            return None
        return Whole(
            offer=self.offer,
            blobs={name: self._blobs[ref.sha256] for name, ref in sorted(self.offer.knowledge.items())},
        )


def _check(data: bytes, plan: Plan) -> None:
    """Raise WireError when `data` is not knowledge that this plan's encoders can learn from."""
    method = plan.method
    hidden = method.hidden if method.sends_hidden else None
    for array in unpack_knowledge(data, windows=plan.knowledge_rows, embedding=method.embedding, hidden=hidden):
        if array is not None and float(np.abs(array).max()) > LARGEST_VALUE:
            raise WireError(
                f"it has values beyond {LARGEST_VALUE:g}; the model has diverged", catalogue.KNOWLEDGE_UNFIT
            )
