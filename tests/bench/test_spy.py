"""Rounds with a curious coordinator: what is attacked, what protects, and that shadows change nothing for others."""

import numpy as np
import pytest
import torch

from bench.arena import Arena
from bench.cells import Attacked
from bench.contenders.bounds import LocalOnly
from bench.contenders.fedmekt import FedMekt
from bench.contenders.parameters import Averaging
from bench.members import Target
from bench.spy import _looked_at, attack, spied_on, watcher_of
from bench.surrogate import KnowledgeWatcher
from mekt.encoders import SplitAutoencoder
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


def unexplained(model: SplitAutoencoder, contender: FedMekt) -> float:
    """How far this model's embeddings of the first device's private windows lie from the device's own."""
    windows = {"acc": torch.from_numpy(contender._private["pi-0"]["acc"])}
    with torch.no_grad():
        own, ours = (each.encode(windows)[1]["acc"] for each in (contender._trainers["pi-0"].model, model))
    return float((own - ours).square().mean())


def test_a_surrogate_comes_near_the_devices_encoder_on_windows_that_nobody_sent() -> None:
    whole, plan = arena_and_plan()
    contender = FedMekt(whole, plan)
    watcher = KnowledgeWatcher(contender, plan)
    received = contender.announce(0, "pi-0")
    sent = contender.learn("pi-0", 0, received)
    [model] = watcher.models("pi-0", 0, {"pi-0": sent})
    assert unexplained(model, contender) < 0.7 * unexplained(watcher.reference("pi-0", received), contender)
    assert watcher.models("pi-0", 0, {"pi-0": sent}) == (model,)


def test_a_surrogate_that_has_followed_every_round_comes_nearer_to_a_device_that_stays_as_it_is() -> None:
    whole, plan = arena_and_plan()
    contender = FedMekt(whole, plan)
    watcher = KnowledgeWatcher(contender, plan)
    contender.learn("pi-0", 0, contender.announce(0, "pi-0"))
    made = []
    for number in range(4):
        # Each round looks at other views of the proxy set.
        contender.announce(number, "pi-0")
        knowledge = contender._trainers["pi-0"].knowledge({"acc": contender.seen["acc"]})
        made.append(watcher.models("pi-0", number, {"pi-0": contender._packed(knowledge)}))
    assert [len(each) for each in made] == [1, 2, 2, 2]
    of_the_last, of_all = made[-1]
    assert unexplained(of_all, contender) < 0.7 * unexplained(of_the_last, contender)


@pytest.mark.parametrize("kind", [FedMekt, Averaging])
def test_out_of_a_sum_of_one_comes_what_that_one_sent(kind: type[FedMekt] | type[Averaging]) -> None:
    whole, plan = arena_and_plan()
    contender = kind(whole, plan)
    sent = contender.learn("pi-1", 0, contender.announce(0, "pi-1"))
    [model] = watcher_of(contender, plan).models("pi-1", 0, {"pi-1": sent})
    if isinstance(contender, Averaging):
        own = contender.filled("pi-1", sent).state_dict()
        assert all(torch.equal(each, own[name]) for name, each in model.state_dict().items())
    else:
        mean, own = contender.mean({"pi-1": sent}), contender.opened(sent)
        assert all(np.array_equal(mean[name].embedding, own[name].embedding) for name in own)


def test_others_that_know_nothing_of_a_window_have_all_its_modalities() -> None:
    _, targets, shadows = spied_on(arena_and_plan()[0], 0)
    acc, both = targets

    def names(way: str, each: Target) -> list[list[str]]:
        return [[one.device.name for one in group] for group in _looked_at(way, each, targets, shadows)]

    assert names("own", acc) == [["pi-0"], ["pi-2"], ["pi-3"]] and names("own", both) == [["pi-1"], ["pi-3"]]
    assert names("own", shadows[0]) == [["pi-2"], ["pi-3"]] and names("own", shadows[1]) == [["pi-3"]]
    assert names("sum", acc) == names("sum", both) == [["pi-0", "pi-1"], ["pi-2", "pi-3"]]
    assert names("sum", shadows[1]) == [["pi-2", "pi-3"], ["pi-0", "pi-1"]]
    assert [len(_looked_at("sum", each, targets, shadows[:1])) for each in targets] == [2, 1]


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
