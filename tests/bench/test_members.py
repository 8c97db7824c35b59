"""Halves of a device's windows: by lot, whole blocks, and no sample in both."""

import numpy as np
import pytest

from bench.members import BLOCK, halves, target, targets_and_shadows
from mekt.modality import WindowSpec
from tests.bench import small


@pytest.mark.parametrize(("stride_s", "overlapping"), [(1.0, 0), (0.5, 1), (0.25, 3), (0.4, 2)])
@pytest.mark.parametrize("count", [0, 5, 17, 200])
def test_no_sample_is_in_both_halves(stride_s: float, overlapping: int, count: int) -> None:
    inside, outside = halves(count, WindowSpec(window_s=1.0, stride_s=stride_s), 1)
    assert not set(inside) & set(outside) and list(inside) == sorted(inside)
    for row in inside:
        assert all(abs(int(row) - int(other)) > overlapping for other in outside)
    assert abs(len(inside) - len(outside)) <= BLOCK


def test_the_seed_decides_which_half() -> None:
    spec = WindowSpec(window_s=1.0, stride_s=0.5)
    one, same, other = (halves(200, spec, seed)[0] for seed in (1, 1, 2))
    assert one.tolist() == same.tolist() != other.tolist()


def test_a_target_has_learned_from_its_half_and_labels_stay_with_their_windows() -> None:
    device = small.arena().devices[1]
    found = target(device, small.SPEC, 3)
    assert set(found.device.private.arrays) == set(found.outsiders.arrays) == set(device.modalities)
    for windows in (found.device.private, found.outsiders):
        assert 0 < len(windows) < len(device.private) and len(windows.labels) == len(windows)
        for row in range(len(windows)):
            places = [
                place
                for place in range(len(device.private))
                if np.array_equal(device.private.arrays["acc"][place], windows.arrays["acc"][row])
            ]
            assert any(device.private.labels[place] == windows.labels[row] for place in places)


def test_targets_and_shadows_are_other_devices() -> None:
    arena = small.arena({f"pi-{n}": {"acc": "conv"} for n in range(5)}, names=("acc",))
    targets, shadows = targets_and_shadows(arena, 6, 0)
    assert [len(targets), len(shadows)] == [2, 2]
    assert len({each.device.name for each in (*targets, *shadows)}) == 4
