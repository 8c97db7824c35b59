"""What devices send that want to spoil the global encoders, in place of their honest knowledge. Pure.

An attacker knows the plan, the proxy set and the global knowledge that it was sent, and so of which size and spread
that of others is; colluders have also agreed on a seed. Some learn as everybody does, and lie about what came of it.
What is sent fits every limit of the wire, and has the modalities and shapes of what was received.

Shapes: N rows of the round's view of the proxy set, D width of an embedding or hidden layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mekt.learning import Knowledge
from mekt.plan import derived_seed

Floats = NDArray[np.float32]

# In units of the deviation that the global knowledge has over the proxy set.
NOISE_SPREADS = 10.0
CONSTANT_SPREADS = 10.0
COLLUSION_SPREADS = 3.0
# Shares of the devices that attack, where nothing else is asked for.
ATTACKERS = 0.2
COLLUDERS = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """What an attacker knows: its name, the round, counted from 0, and the plan's seed."""

    device: str
    round: int
    seed: int

    def own(self, name: str) -> np.random.Generator:
        """Draws of this device, round and modality."""
        return np.random.default_rng(derived_seed(self.seed, "attack", self.device, self.round, name))

    def shared(self, name: str) -> np.random.Generator:
        """Draws of this modality, the same for everybody and in every round."""
        return np.random.default_rng(derived_seed(self.seed, "collusion", name))


# Values (N, D) that are known, what they are of, and the moment -> what is sent.
Lie = Callable[[Floats, str, Moment], Floats]
# What a lie is made of: the global knowledge as received, or what the device itself knows, now or when it first did.
Base = Literal["received", "own", "first"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """An attack: its label in tables, the share of devices that usually take part, and what they send, out of what."""

    label: str
    share: float = ATTACKERS
    base: Base
    lie: Lie


def told(attack: Attack, known: Mapping[str, Knowledge], moment: Moment) -> dict[str, Knowledge]:
    """What an attacker sends; `known` is what the attack is based on. Equal arguments give equal bytes."""
    return {
        name: Knowledge(
            embedding=attack.lie(each.embedding, name, moment),
            hidden=None if each.hidden is None else attack.lie(each.hidden, f"{name}/hidden", moment),
        )
        for name, each in known.items()
    }


def attackers(devices: list[str], share: float, seed: int) -> frozenset[str]:
    """Which devices attack: this share of them, rounded, drawn by the seed; the order given does not matter."""
    drawn = np.random.default_rng(derived_seed(seed, "attackers")).permutation(len(devices))
    ordered = sorted(devices)
    return frozenset(ordered[index] for index in drawn[: round(share * len(devices))].tolist())


def _noise(known_ND: Floats, name: str, moment: Moment) -> Floats:
    return _drawn(moment.own(name), known_ND, NOISE_SPREADS)


def _sign_flip(known_ND: Floats, name: str, moment: Moment) -> Floats:
    return -known_ND


def _constant(known_ND: Floats, name: str, moment: Moment) -> Floats:
    """Every window alike, and far from all that anybody knows."""
    flat = known_ND.mean(axis=0) + np.float32(CONSTANT_SPREADS) * known_ND.std()
    return np.broadcast_to(flat, known_ND.shape).astype(np.float32)


def _permuted(known_ND: Floats, name: str, moment: Moment) -> Floats:
    """The honest rows, each of another window."""
    permuted: Floats = moment.own(name).permutation(known_ND)
    return permuted


def _replay(known_ND: Floats, name: str, moment: Moment) -> Floats:
    """The same for ever: what the device knew the first time that it took part."""
    return known_ND


def _collusion(known_ND: Floats, name: str, moment: Moment) -> Floats:
    """Noise that all attackers have agreed on, the same in every round: a target that can be learned."""
    return _drawn(moment.shared(name), known_ND, COLLUSION_SPREADS)


def _drawn(rng: np.random.Generator, known_ND: Floats, spreads: float) -> Floats:
    noise = rng.standard_normal(known_ND.shape, dtype=np.float32)
    drawn: Floats = known_ND.mean(axis=0) + np.float32(spreads) * known_ND.std() * noise
    return drawn


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "noise": Attack(label="noise", base="received", lie=_noise),
        "sign-flip": Attack(label="sign flip", base="own", lie=_sign_flip),
        "constant": Attack(label="constant", base="received", lie=_constant),
        "permuted": Attack(label="permuted rows", base="own", lie=_permuted),
        "replay": Attack(label="replay", base="first", lie=_replay),
        "collusion": Attack(label="colluding third", share=COLLUDERS, base="received", lie=_collusion),
    }
)
