from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from bench.contenders.bounds import CoordinatorAlone, LocalOnly, PooledAutoencoder
from bench.engine import run
from tests.bench.small import arena, plan


def test_who_takes_no_part_learns_nothing() -> None:
    small = arena({"a": {"acc": "conv"}, "b": {"acc": "conv"}}, names=("acc",), share=0.5, duration_s=8.0)
    of = plan(small, rounds=1)
    local = LocalOnly(small, of)
    test = small.datasets.test
    assert test is not None
    before = local.embed(test.arrays)
    [played] = run(local, small, of, evaluate=()).played
    after = local.embed(test.arrays)
    changed = [not np.array_equal(a["acc"], b["acc"]) for a, b in zip(before, after, strict=True)]
    assert changed == [name in played.participants for name in ("a", "b")]


def test_the_coordinator_alone_learns_from_the_proxy_set_and_from_no_device() -> None:
    small = arena({"a": {"acc": "conv"}, "b": {"acc": "conv"}}, names=("acc",), duration_s=8.0)
    others = arena({"a": {"acc": "conv"}}, names=("acc",), duration_s=16.0)
    of = plan(small, rounds=1)
    test = small.datasets.test
    assert test is not None
    before, one, two = (CoordinatorAlone(each, of) for each in (small, small, replace(small, devices=others.devices)))
    for each, whose in ((one, small), (two, others)):
        for number in range(2):
            each.close(number, {device.name: {} for device in whose.devices})
    first, [learned], [alike] = before.embed(test.arrays)[0], one.embed(test.arrays), two.embed(test.arrays)
    assert not np.array_equal(first["acc"], learned["acc"])
    np.testing.assert_array_equal(learned["acc"], alike["acc"])


def test_the_pooled_bound_learns_from_all_modalities_of_everybody() -> None:
    small = arena({"a": {"acc": "conv"}, "b": {"acc": "conv"}}, duration_s=8.0)
    of = plan(small, rounds=1)
    changed = [
        replace(each, whole=replace(each.whole, arrays={**each.whole.arrays, "gyro": each.whole.arrays["gyro"] + 1}))
        for each in small.devices
    ]
    other = replace(small, devices=tuple(changed))
    one, two = PooledAutoencoder(small, of), PooledAutoencoder(other, of)
    results = [run(each, small, of).evaluated for each in (one, two)]
    assert results[0] != results[1]


def test_the_pooled_bound_makes_as_many_steps_as_the_participants_would() -> None:
    small = arena(duration_s=8.0)
    of = plan(small, local_epochs=2)
    pooled = PooledAutoencoder(small, of)
    drawn: list[torch.Tensor] = []
    batches = pooled._batches

    def counted() -> Iterator[torch.Tensor]:
        for rows in batches:
            drawn.append(rows)
            yield rows

    pooled._batches = counted()
    pooled.close(0, {"pi-acc": {}, "pi-gyro": {}})
    # 15 windows of 8 s each are a batch of 16.
    assert len(drawn) == 2 * 2
