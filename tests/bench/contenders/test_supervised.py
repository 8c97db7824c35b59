from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.contenders.supervised import Supervised, all_labelled_windows, labelled_windows
from bench.engine import evaluate, run
from mekt.learning import Windows
from sensors.windows import UNLABELLED
from tests.bench.small import arena, plan

SMALL = arena()


def test_it_learns_what_it_was_shown() -> None:
    shown = labelled_windows(SMALL)
    seen = replace(SMALL, datasets=replace(SMALL.datasets, test=shown))
    of = plan(SMALL, rounds=1)
    bound = Supervised(SMALL, of, shown, epochs=15)
    before = evaluate(bound, seen, of, 0).heads["fused"]["accuracy"]
    [after] = run(bound, seen, of).evaluated
    assert after.heads["fused"]["accuracy"] > max(0.8, before)
    assert set(after.heads) == set(after.scores) == {"acc", "gyro", "fused"}


def test_later_rounds_change_nothing() -> None:
    of = plan(SMALL)
    done = run(Supervised(SMALL, of, labelled_windows(SMALL), epochs=1), SMALL, of, evaluate=(1, 2))
    assert done.evaluated[0].heads == done.evaluated[1].heads


def test_everybodys_labels_are_the_coordinators_and_the_private_ones_without_those_that_have_none() -> None:
    device = SMALL.devices[0]
    labels = np.where(np.arange(len(device.whole)) < 5, device.whole.labels, UNLABELLED)
    some = replace(device, whole=replace(device.whole, labels=labels))
    few = replace(SMALL, devices=(some,))
    windows = all_labelled_windows(few)
    assert len(windows) == len(labelled_windows(SMALL)) + int((labels != UNLABELLED).sum())
    assert (windows.labels != UNLABELLED).all() and set(windows.arrays) == {"acc", "gyro"}


def test_batches_go_through_the_augmentation_that_is_given() -> None:
    seen: list[int] = []

    def augment(windows: Windows, generator: torch.Generator) -> Windows:
        seen.append(len(windows["acc"]))
        return {name: array + torch.randn(array.shape, generator=generator) for name, array in windows.items()}

    of = plan(SMALL, rounds=1, batch=64)
    shown = labelled_windows(SMALL)
    changed, plain = (Supervised(SMALL, of, shown, 1, each) for each in (augment, None))
    results = [run(each, SMALL, of).evaluated for each in (changed, plain)]
    assert sum(seen) == len(shown) and results[0] != results[1]


def test_an_arena_without_labels_has_no_such_bound() -> None:
    with pytest.raises(ValueError, match="no labelled windows"):
        labelled_windows(replace(SMALL, datasets=replace(SMALL.datasets, labelled=None)))
