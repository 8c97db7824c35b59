"""Knowledge as it may be shown: every matrix of it is clipped around the global one and under noise of its own."""

import numpy as np

from edge.protection import Protection, protected
from mekt.learning import Knowledge
from mekt.noise import Mechanism
from tests.edge.conftest import noise

OWN = {name: Knowledge(embedding=noise(6, 4, seed=1), hidden=noise(6, 3, seed=2)) for name in ("acc", "gyro")}
KNOWN = {"acc": Knowledge(embedding=noise(6, 4, seed=3), hidden=noise(6, 3, seed=4))}


def test_without_noise_rows_lie_within_the_bound_of_the_global_ones() -> None:
    shown = protected(OWN, KNOWN, Mechanism(clip=0.5, noise_multiplier=0.0))
    for name in OWN:
        for part in ("embedding", "hidden"):
            around = getattr(KNOWN[name], part) if name in KNOWN else 0.0
            assert np.linalg.norm(getattr(shown[name], part) - around, axis=1).max() <= 0.5 + 1e-6


def test_every_number_is_under_noise_and_never_the_same() -> None:
    protection = Protection(mechanism=Mechanism(clip=1.0, noise_multiplier=1.0), cost=1.0)
    one, other = protection(OWN, KNOWN), protection(OWN, KNOWN)
    for name in OWN:
        for part in ("embedding", "hidden"):
            assert (getattr(one[name], part) != getattr(other[name], part)).all()


def test_knowledge_without_a_hidden_layer_has_none_afterwards() -> None:
    shown = protected({"acc": Knowledge(embedding=OWN["acc"].embedding)}, {}, Mechanism(clip=1.0, noise_multiplier=1.0))
    assert shown["acc"].hidden is None
