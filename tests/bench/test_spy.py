"""Rounds with a curious coordinator: what is attacked, what protects, and that shadows change nothing for others."""

import numpy as np
import pytest
import torch

from bench.arena import Arena
from bench.cells import Attacked
from bench.contenders.bounds import LocalOnly
from bench.contenders.fedmekt import FedMekt
from bench.contenders.parameters import Averaging
from bench.spy import attack, spied_on, watcher_of
from bench.surrogate import KnowledgeWatcher, surrogate
from mekt.errors import SettingsError
from mekt.noise import Mechanism
from mekt.plan import Plan
from tests.bench import small

FOUR = {f"pi-{n}": {"acc": "conv"} | ({"gyro": "conv"} if n % 2 else {}) for n in range(4)}


def arena_and_plan() -> tuple[Arena, Plan]:
    arena = small.arena(FOUR, duration_s=30.0)  # type: ignore[arg-type]
    return arena, small.plan(arena, rounds=2)


@pytest.mark.parametrize("kind", [FedMekt, Averaging])
def test_every_target_is_attacked_after_each_moment_and_in_the_sum_after_the_last(
    kind: type[FedMekt] | type[Averaging],
) -> None:
    whole, plan = arena_and_plan()
    arena, targets, shadows = spied_on(whole, 0)
    done: list[tuple[int, int]] = []
    told = attack(
        kind(arena, plan), arena, plan, targets, shadows, (1, 2), progress=lambda count, of: done.append((count, of))
    )
    assert [(each.round, each.way, each.device) for each in told] == [
        (number, way, device) for number, way in ((1, "own"), (2, "own"), (2, "sum")) for device in ("pi-0", "pi-1")
    ]
    assert all(0 <= each.auc <= 1 and 0 <= each.loss_tpr <= 1 for each in told)
    assert done[-1][0] == done[-1][1]
    again = attack(kind(arena, plan), arena, plan, targets, shadows, (1, 2))
    assert again == told


def test_shadows_are_in_no_aggregate() -> None:
    whole, plan = arena_and_plan()
    arena, targets, shadows = spied_on(whole, 0)

    spied, alone = FedMekt(arena, plan), FedMekt(arena, plan)
    attack(spied, arena, plan, targets, shadows, (2,))
    for number in range(2):
        names = [each.device.name for each in targets]
        sent = {name: alone.learn(name, number, alone.announce(number, name)) for name in names}
        alone.close(number, sent)
    ours = alone.global_model.state_dict()
    assert all(torch.equal(each, ours[name]) for name, each in spied.global_model.state_dict().items())


def test_a_surrogate_comes_near_the_devices_encoder_on_windows_that_nobody_sent() -> None:
    whole, plan = arena_and_plan()
    contender = FedMekt(whole, plan)
    watcher = KnowledgeWatcher(contender, plan)
    received = contender.announce(0, "pi-0")
    sent = contender.learn("pi-0", 0, received)
    reference = watcher.reference("pi-0", received)
    seen = {"acc": contender.seen["acc"]}
    model = surrogate(reference, plan, seen, contender.opened(sent), 0)
    windows = torch.from_numpy(contender._private["pi-0"]["acc"])
    with torch.no_grad():
        own, ours, before = (
            each.encode({"acc": windows})[1]["acc"] for each in (contender._trainers["pi-0"].model, model, reference)
        )
    assert (own - ours).square().mean() < 0.7 * (own - before).square().mean()


def test_noise_is_what_crosses_and_equal_seeds_give_equal_noise() -> None:
    whole, plan = arena_and_plan()

    def sent(noise: float) -> np.ndarray:
        contender = FedMekt(whole, plan)
        contender.mechanism = Mechanism(clip=1.0, noise_multiplier=noise)
        return contender.opened(contender.learn("pi-0", 0, contender.announce(0, "pi-0")))["acc"].embedding

    assert np.std(sent(50.0) - sent(0.0)) == pytest.approx(50.0, rel=0.2)
    assert (sent(50.0) == sent(50.0)).all()


def test_what_nobody_knows_how_to_attack_is_refused() -> None:
    whole, plan = arena_and_plan()
    with pytest.raises(SettingsError, match="are attacked"):
        watcher_of(LocalOnly(whole, plan), plan)
    with pytest.raises(SettingsError, match="an attack needs two"):
        spied_on(small.arena({"pi": {"acc": "conv"}}, names=("acc",)), 0)


def test_an_attack_is_kept_as_it_is_told() -> None:
    one = Attacked(round=1, way="own", device="pi", auc=0.5, tpr=0.0, loss_auc=0.5, loss_tpr=0.0)
    assert (one.way, one.auc) == ("own", 0.5)
