"""A device's knowledge as it may be shown: clipped and under noise, before anything of it is kept. Pure."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from mekt.learning import Knowledge
from mekt.noise import Bits, Mechanism


@dataclass(frozen=True, kw_only=True, slots=True)
class Protection:
    """What is done to the knowledge of one round before anything of it is kept, and what showing it costs."""

    mechanism: Mechanism
    cost: float

    def __call__(self, knowledge: Mapping[str, Knowledge], known: Mapping[str, Knowledge]) -> dict[str, Knowledge]:
        """The knowledge as it may be shown, with noise that nobody can foretell or draw again."""
        return protected(knowledge, known, self.mechanism)


def protected(
    knowledge: Mapping[str, Knowledge],
    known: Mapping[str, Knowledge],
    mechanism: Mechanism,
    bits: Bits = secrets.token_bytes,
) -> dict[str, Knowledge]:
    """A device's knowledge as it may be shown: clipped around the global one that was `known` before, under noise."""
    shown = {}
    for name, own in sorted(knowledge.items()):
        around = known.get(name)
        hidden = None
        if own.hidden is not None:
            hidden = mechanism.release(own.hidden, None if around is None else around.hidden, bits)
        embedding = mechanism.release(own.embedding, None if around is None else around.embedding, bits)
        shown[name] = Knowledge(embedding=embedding, hidden=hidden)
    return shown
