"""What attackers say: each attack changes what it says it changes, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from bench.attacks import (
    ATTACKERS,
    ATTACKS,
    COLLUDERS,
    COLLUSION_SPREADS,
    CONSTANT_SPREADS,
    NOISE_SPREADS,
    Moment,
    attackers,
    told,
)
from mekt.learning import Knowledge

RNG = np.random.default_rng(0)
KNOWN = {
    "acc": Knowledge(
        embedding=RNG.normal(2, 3, (400, 6)).astype(np.float32), hidden=RNG.normal(0, 1, (400, 9)).astype(np.float32)
    ),
    "gyro": Knowledge(embedding=RNG.normal(-1, 0.5, (400, 6)).astype(np.float32)),
}
ACC = KNOWN["acc"].embedding
HERE = Moment(device="pi-3", round=4, seed=7)


def said(name: str, moment: Moment = HERE) -> np.ndarray:
    return told(ATTACKS[name], KNOWN, moment)["acc"].embedding


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_sent_has_the_shapes_of_what_was_known_and_is_another_thing(name: str) -> None:
    before = ACC.tobytes()
    sent = told(ATTACKS[name], KNOWN, HERE)
    assert set(sent) == {"acc", "gyro"}
    for modality, each in sent.items():
        known = KNOWN[modality]
        assert each.embedding.shape == known.embedding.shape and each.embedding.dtype == np.float32
        assert np.isfinite(each.embedding).all()
        # A replay is the truth of another round: what it is based on makes it a lie.
        assert (each.embedding.tobytes() == known.embedding.tobytes()) == (name == "replay")
        assert (each.hidden is None) == (known.hidden is None)
    hidden = sent["acc"].hidden
    assert hidden is not None and hidden.shape == (400, 9) and hidden.dtype == np.float32
    assert ACC.tobytes() == before, "what is known is not touched"


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_moment_gives_the_same_bytes(name: str) -> None:
    assert said(name).tobytes() == said(name).tobytes()


def test_noise_is_ten_times_as_wide_and_new_each_time() -> None:
    spread = (said("noise") - ACC.mean(axis=0)).std()
    assert spread == pytest.approx(NOISE_SPREADS * ACC.std(), rel=0.05)
    others = [replace(HERE, device="pi-4"), replace(HERE, round=5), replace(HERE, seed=8)]
    assert len({said("noise", moment).tobytes() for moment in (HERE, *others)}) == 4
    assert abs(np.corrcoef(said("noise").ravel(), ACC.ravel())[0, 1]) < 0.2


def test_a_sign_flip_is_the_exact_opposite() -> None:
    assert (said("sign-flip") == -ACC).all()


def test_a_constant_tells_no_windows_apart_and_is_far_off() -> None:
    sent = said("constant")
    assert (sent == sent[0]).all()
    assert sent[0] == pytest.approx(ACC.mean(axis=0) + CONSTANT_SPREADS * ACC.std(), rel=1e-5)


def test_permuted_rows_are_the_same_rows_in_another_order_each_round() -> None:
    sent = said("permuted")
    assert sorted(map(bytes, sent)) == sorted(map(bytes, ACC))
    assert (sent == ACC).all(axis=1).mean() < 0.05
    assert sent.tobytes() != said("permuted", replace(HERE, round=5)).tobytes()


def test_a_replay_is_based_on_what_was_known_first() -> None:
    assert ATTACKS["replay"].base == "first"
    assert {ATTACKS[name].base for name in ("noise", "constant", "collusion")} == {"received"}, "no need to learn"
    assert {ATTACKS[name].base for name in ("sign-flip", "permuted")} == {"own"}


def test_colluders_agree_to_the_byte_in_every_round_and_are_a_third() -> None:
    sent = said("collusion")
    assert sent.tobytes() == said("collusion", replace(HERE, device="pi-9", round=11)).tobytes()
    assert sent.tobytes() != said("collusion", replace(HERE, seed=8)).tobytes()
    assert (sent - ACC.mean(axis=0)).std() == pytest.approx(COLLUSION_SPREADS * ACC.std(), rel=0.05)
    assert ATTACKS["collusion"].share == COLLUDERS
    assert {each.share for name, each in ATTACKS.items() if name != "collusion"} == {ATTACKERS}


def test_attackers_are_drawn_by_the_seed_and_are_the_share_asked_for() -> None:
    names = [f"user{n:02}" for n in range(1, 24)]
    drawn = attackers(names, ATTACKERS, 0)
    assert len(drawn) == 5 and drawn < set(names)
    assert attackers(names[::-1], ATTACKERS, 0) == drawn
    assert len({attackers(names, ATTACKERS, seed) for seed in range(20)}) > 15
    assert len(attackers(names, COLLUDERS, 0)) == 8 and attackers(names, 1.0, 0) == set(names)
    assert attackers(names, 0.01, 0) == frozenset()
