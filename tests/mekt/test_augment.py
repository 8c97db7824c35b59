"""Changed windows: what a change must be by its geometry, what must not change, and equal views everywhere."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mekt import augment
from mekt.augment import Augmentation, augmentation_of, view
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import BlobRef, Method, Plan

torch.set_num_threads(1)

ACC = Modality(name="acc", shape=(3,), rate_hz=20, unit="g")
GYRO = Modality(name="gyro", shape=(3,), rate_hz=20, unit="rad/s")
THREE = Modality(name="body", shape=(9,), rate_hz=20, unit="m/s2")
CAMERA = Modality(name="camera", shape=(3,), rate_hz=20, unit="mixed")
PAIR = Modality(name="pair", shape=(2,), rate_hz=20, unit="g")
DEPTH = Modality(name="depth", shape=(24, 32), rate_hz=5, unit="m")
ALL = (ACC, GYRO, THREE, CAMERA, PAIR, DEPTH)
SPEC = WindowSpec(window_s=1.0, stride_s=1.0)
COUNT = 6
# What is drawn, one thing at a time; the others are then nothing.
SIZES = {"ROTATION_DEG": 20.0, "GAIN": 0.1, "WARP": 0.15, "NOISE": 0.05, "SHIFT": 0.1}


def scaling_of(modality: Modality) -> Scaling:
    """Means and deviations that are not 0 and 1, and differ between channels."""
    return Scaling(
        mean=tuple(0.3 * (i + 1) for i in range(modality.channels)),
        std=tuple(0.5 + 0.25 * i for i in range(modality.channels)),
    )


def changes(modalities: Sequence[Modality], strength: float = 1.0) -> Augmentation:
    scaling = {each.name: scaling_of(each) for each in modalities}
    return Augmentation(modalities=tuple(modalities), scaling=scaling, strength=strength)


def plan_of(*modalities: Modality, strength: float = 1.0, seed: int = 3) -> Plan:
    return Plan(
        seed=seed,
        rounds=2,
        window=SPEC,
        modalities=modalities,
        scaling={each.name: scaling_of(each) for each in modalities},
        proxy={each.name: BlobRef(sha256=bytes(32), size_bytes=1) for each in modalities},
        proxy_windows=COUNT,
        method=Method(augment=strength, knowledge_rows=COUNT),
    )


def windows_of(modalities: Sequence[Modality], count: int = COUNT, seed: int = 0) -> dict[str, Tensor]:
    made = {}
    for each in modalities:
        generator = torch.Generator().manual_seed(seed + len(each.name))
        made[each.name] = torch.randn(count, *SPEC.shape(each), generator=generator)
    return made


def sensed(modality: Modality, windows: Tensor) -> Tensor:
    scaling = scaling_of(modality)
    return windows * torch.tensor(scaling.std) + torch.tensor(scaling.mean)


def drawn(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let nothing be changed but what these say."""
    for name in SIZES.keys() - set(names):
        monkeypatch.setattr(augment, name, 0.0)


def rotation_between(before_N3: Tensor, after_N3: Tensor) -> Tensor:
    """The matrix (3, 3) that turns the vectors of one into those of the other, by least squares."""
    solved: Tensor = torch.linalg.lstsq(before_N3.double(), after_N3.double()).solution
    return solved.T


def test_the_sizes_are_those_that_these_tests_are_about() -> None:
    assert {name: getattr(augment, name) for name in SIZES} == SIZES


def test_strength_0_changes_nothing_and_draws_nothing() -> None:
    windows, generator = windows_of(ALL), drawn()
    before = generator.get_state()
    changed = changes(ALL, strength=0.0)(windows, generator)
    assert all(changed[name] is windows[name] for name in windows)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("strength", [0.1, 1.0, 4.0])
def test_shapes_kinds_and_names_stay_and_the_windows_given_are_left_alone(strength: float) -> None:
    windows = windows_of(ALL)
    copies = {name: each.clone() for name, each in windows.items()}
    changed = changes(ALL, strength)(windows, drawn())
    assert list(changed) == [each.name for each in ALL]
    for name, each in changed.items():
        assert (each.shape, each.dtype) == (windows[name].shape, torch.float32)
        assert each.isfinite().all()
        assert not torch.allclose(each, windows[name], atol=1e-3)
        assert torch.equal(windows[name], copies[name])


def test_equal_generators_give_equal_changes_and_the_next_call_gives_others() -> None:
    windows, one, other = windows_of(ALL), drawn(), drawn()
    torch.manual_seed(1)
    first = changes(ALL)(windows, one)
    torch.manual_seed(2)
    again, next_one = changes(ALL)(windows, other), changes(ALL)(windows, one)
    assert all(torch.equal(first[name], again[name]) for name in windows)
    assert not any(torch.equal(first[name], next_one[name]) for name in windows)


def test_a_call_leaves_the_process_wide_generator_alone() -> None:
    before = torch.get_rng_state()
    changes(ALL)(windows_of(ALL), drawn())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("names", [("acc",), ("gyro",), ("acc", "depth"), ("depth", "gyro", "acc")])
def test_a_modality_is_changed_alike_whichever_others_are_there(names: tuple[str, ...]) -> None:
    windows = windows_of((ACC, GYRO, DEPTH))
    among = changes((ACC, GYRO, DEPTH))(windows, drawn())
    fewer = changes((ACC, GYRO, DEPTH))({name: windows[name] for name in names}, drawn())
    assert set(fewer) == set(names)
    for name in names:
        assert torch.equal(fewer[name], among[name])


def test_what_the_plan_does_not_know_is_left_out() -> None:
    assert set(changes((ACC,))(windows_of((ACC, GYRO)), drawn())) == {"acc"}


@pytest.mark.parametrize("largest_deg", [1.0, 20.0, 80.0])
def test_rotations_are_rotations_by_at_most_so_much(largest_deg: float) -> None:
    turn_B33 = augment._rotations(500, largest_deg, drawn())
    identity = torch.eye(3).expand(500, 3, 3)
    torch.testing.assert_close(turn_B33 @ turn_B33.transpose(1, 2), identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turn_B33), torch.ones(500))
    # The trace of a rotation is 1 + 2 cos of its angle.
    angles = [math.degrees(math.acos(min(1.0, (float(each.trace()) - 1) / 2))) for each in turn_B33]
    assert max(angles) <= largest_deg + 0.1
    assert max(angles) > 0.95 * largest_deg
    assert np.mean(angles) == pytest.approx(largest_deg / 2, rel=0.1)


def test_a_turn_keeps_the_norms_of_what_was_sensed_and_is_one_for_a_whole_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "ROTATION_DEG")
    windows = windows_of((ACC, GYRO))
    changed = changes((ACC, GYRO))(windows, drawn())
    for each in (ACC, GYRO):
        before, after = sensed(each, windows[each.name]), sensed(each, changed[each.name])
        torch.testing.assert_close(after.norm(dim=2), before.norm(dim=2), rtol=1e-4, atol=1e-5)
    for row in range(COUNT):
        turns = [
            rotation_between(sensed(each, windows[each.name])[row], sensed(each, changed[each.name])[row])
            for each in (ACC, GYRO)
        ]
        torch.testing.assert_close(turns[0], turns[1], atol=1e-4, rtol=0)
        assert float(torch.linalg.det(turns[0])) == pytest.approx(1, abs=1e-4)
        assert not torch.allclose(turns[0], torch.eye(3, dtype=torch.float64), atol=1e-3)


def test_nine_channels_turn_by_three_together(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "ROTATION_DEG")
    windows = windows_of((THREE,))
    before, after = (sensed(THREE, each["body"]) for each in (windows, changes((THREE,))(windows, drawn())))
    for row in range(COUNT):
        turns = [rotation_between(before[row, :, at : at + 3], after[row, :, at : at + 3]) for at in (0, 3, 6)]
        torch.testing.assert_close(turns[1], turns[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(turns[2], turns[0], atol=1e-4, rtol=0)
        assert float(torch.linalg.det(turns[0])) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("modality", [CAMERA, PAIR], ids=lambda each: each.name)
def test_what_has_no_three_axes_in_space_does_not_turn(modality: Modality, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "ROTATION_DEG")
    windows = windows_of((modality,))
    changed = changes((modality,))(windows, drawn())
    torch.testing.assert_close(changed[modality.name], windows[modality.name], atol=1e-5, rtol=1e-5)


def test_a_gain_is_one_for_a_whole_window_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "GAIN")
    windows = windows_of((ACC, PAIR), count=400)
    changed = changes((ACC, PAIR))(windows, drawn())
    gains = []
    for each in (ACC, PAIR):
        before, after = sensed(each, windows[each.name]), sensed(each, changed[each.name])
        gain_B = (before * after).sum((1, 2)) / before.square().sum((1, 2))
        torch.testing.assert_close(after, before * gain_B[:, None, None], atol=1e-4, rtol=1e-3)
        gains.append(gain_B)
    torch.testing.assert_close(gains[0], gains[1], atol=1e-4, rtol=0)
    # Two deviations of a tenth at most, on either side.
    assert 0.8 - 1e-4 <= float(gains[0].min()) < 0.85
    assert 1.15 < float(gains[0].max()) <= 1.2 + 1e-4


def test_frames_have_no_gain_and_do_not_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "GAIN", "ROTATION_DEG")
    windows = windows_of((DEPTH,))
    assert torch.equal(changes((DEPTH,))(windows, drawn())["depth"], windows["depth"])


def test_a_stretch_of_a_ramp_worked_by_hand() -> None:
    # From a quarter on, half of the whole: over samples 0 to 8, of which those from 2 to 6, in nine steps of a half.
    ramp_BTC = torch.arange(9.0)[None, :, None].expand(2, 9, 2)
    stretched = augment._stretched(ramp_BTC, torch.tensor([0.25, 0.0]), torch.tensor([0.5, 1.0]))
    by_hand = torch.tensor([2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0])
    torch.testing.assert_close(stretched[0], by_hand[:, None].expand(9, 2))
    torch.testing.assert_close(stretched[1], ramp_BTC[1])


def test_a_stretch_goes_straight_from_sample_to_sample() -> None:
    # Of 0, 10, 0 the last two thirds: at 0.75, 1.375 and 2 samples.
    window_BTYX = torch.tensor([0.0, 10.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    stretched = augment._stretched(window_BTYX, torch.tensor([0.375]), torch.tensor([0.625]))
    assert stretched.shape == (1, 3, 2, 2)
    assert stretched[0, :, 0, 0].tolist() == pytest.approx([7.5, 6.25, 0.0])
    assert torch.equal(stretched[0, :, 0, 0], stretched[0, :, 1, 1])


def test_modalities_of_other_rates_are_stretched_alike_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "WARP")
    slow = Modality(name="slow", shape=(4, 4), rate_hz=5, unit="m")
    ramps = {}
    for each in (PAIR, slow):
        samples = SPEC.samples(each)
        time = torch.linspace(0, 1, samples).reshape(1, samples, *[1] * len(each.shape))
        ramps[each.name] = time.expand(300, samples, *each.shape)
    changed = changes((PAIR, slow))(ramps, drawn())
    start_B, end_B = changed["pair"][:, 0, 0], changed["pair"][:, -1, 0]
    torch.testing.assert_close(changed["slow"][:, 0, 0, 0], start_B, atol=1e-5, rtol=0)
    torch.testing.assert_close(changed["slow"][:, -1, 0, 0], end_B, atol=1e-5, rtol=0)
    assert float(start_B.min()) >= -1e-6 and float(end_B.max()) <= 1 + 1e-6
    length_B = end_B - start_B
    assert math.exp(-0.15) - 1e-5 <= float(length_B.min()) < 0.88
    assert 0.98 < float(length_B.max()) <= 1 + 1e-6


def test_noise_is_of_its_size_and_differs_between_modalities_of_like_names(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "NOISE")
    left, right = (replace(PAIR, name=f"acc_wrist_{side}") for side in ("left", "right"))
    windows = {each.name: torch.zeros(200, 20, 2) for each in (left, right)}
    changed = changes((left, right), strength=2.0)(windows, drawn())
    noise_of_left, noise_of_right = changed.values()
    assert float(noise_of_left.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([noise_of_left.flatten(), noise_of_right.flatten()]))[0, 1])) < 0.05


def test_frames_shift_by_whole_pixels_worked_by_hand() -> None:
    frame = torch.arange(6.0).reshape(1, 1, 2, 3)
    # Half of two rows down, a third of three columns to the right; what leaves comes in opposite.
    moved = augment._shifted(frame, torch.tensor([[0.5, 1 / 3]]))
    assert moved[0, 0].tolist() == [[5, 3, 4], [2, 0, 1]]
    back = augment._shifted(moved, torch.tensor([[-0.5, -1 / 3]]))
    assert torch.equal(back, frame)


def test_each_window_of_frames_shifts_as_one_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "SHIFT")
    windows = windows_of((DEPTH,), count=60)
    changed = changes((DEPTH,))(windows, drawn())["depth"]
    found = []
    for before, after in zip(windows["depth"], changed, strict=True):
        # A tenth of 24 rows and of 32 columns are 2 and 3 whole pixels.
        fits = [
            move
            for move in itertools.product(range(-4, 5), range(-4, 5))
            if torch.equal(before.roll(move, dims=(1, 2)), after)
        ]
        assert len(fits) == 1
        found += fits
    rows, columns = zip(*found, strict=True)
    assert (min(rows), max(rows), min(columns), max(columns)) == (-2, 2, -3, 3)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("samples", [1, 2])
def test_single_windows_of_single_samples_are_changed_too(count: int, samples: int) -> None:
    windows = {"acc": torch.ones(count, samples, 3), "depth": torch.ones(count, samples, 24, 32)}
    changed = changes((ACC, DEPTH))(windows, drawn())
    assert {name: each.shape for name, each in changed.items()} == {name: each.shape for name, each in windows.items()}
    assert all(each.isfinite().all() for each in changed.values())
    assert not torch.allclose(changed["acc"], windows["acc"], atol=1e-3)


def test_windows_of_one_batch_are_changed_differently() -> None:
    same = {name: each[:1].expand(2, *each.shape[1:]) for name, each in windows_of((ACC, DEPTH)).items()}
    assert all(
        not torch.allclose(each[0], each[1], atol=1e-3) for each in changes((ACC, DEPTH))(same, drawn()).values()
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_windows_are_changed_alike_but_for_rounding() -> None:
    windows = windows_of(ALL)
    here = changes(ALL)(windows, drawn())
    there = changes(ALL)({name: each.cuda() for name, each in windows.items()}, drawn())
    for name, each in here.items():
        torch.testing.assert_close(there[name].cpu(), each, atol=1e-4, rtol=1e-4)


# Views of the proxy set


def arrays_of(modalities: Sequence[Modality]) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in windows_of(modalities).items()}


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_equal_plans_look_at_equal_views_and_other_rounds_and_seeds_at_others() -> None:
    proxy = arrays_of((ACC, DEPTH))
    first = view(plan_of(ACC, DEPTH), proxy, 0)
    assert same(first, view(plan_of(ACC, DEPTH), proxy, 0))
    assert {each.dtype for each in first.values()} == {np.dtype(np.float32)}
    assert {name: each.shape for name, each in first.items()} == {name: each.shape for name, each in proxy.items()}
    for other in (
        view(plan_of(ACC, DEPTH), proxy, 1),
        view(plan_of(ACC, DEPTH, seed=4), proxy, 0),
        view(plan_of(ACC, DEPTH, strength=0.5), proxy, 0),
    ):
        assert not any(np.allclose(first[name], other[name], atol=1e-3) for name in first)


def test_a_device_with_fewer_modalities_looks_at_the_same_view_of_them() -> None:
    plan, proxy = plan_of(ACC, GYRO, DEPTH), arrays_of((ACC, GYRO, DEPTH))
    whole = view(plan, proxy, 1)
    for names in (["acc"], ["gyro"], ["gyro", "depth"]):
        own = view(plan, {name: proxy[name] for name in names}, 1)
        assert same(own, {name: whole[name] for name in own}) and set(own) == set(names)


def test_without_augmentation_every_view_is_the_proxy_set_itself() -> None:
    plan, proxy = plan_of(ACC, DEPTH, strength=0.0), arrays_of((ACC, DEPTH))
    for number in range(3):
        assert same(view(plan, proxy, number), proxy)


def test_a_view_is_the_plans_augmentation_and_leaves_the_proxy_set_alone() -> None:
    plan, proxy = plan_of(ACC, strength=2.0), arrays_of((ACC,))
    before = proxy["acc"].copy()
    proxy["acc"].flags.writeable = False
    view(plan, proxy, 0)
    np.testing.assert_array_equal(proxy["acc"], before)
    assert augmentation_of(plan) == Augmentation(modalities=(ACC,), scaling=plan.scaling, strength=2.0)


@pytest.mark.parametrize(("rows", "views"), [(1, 1), (8, 1), (10, 2), (18, 3)])
def test_a_round_has_as_many_views_as_come_nearest_to_the_rows_wanted(rows: int, views: int) -> None:
    plan, proxy = plan_of(ACC, DEPTH, strength=0.1), arrays_of((ACC, DEPTH))
    plan = replace(plan, method=replace(plan.method, knowledge_rows=rows))
    seen = view(plan, proxy, 0)
    assert plan.views == views and plan.knowledge_rows == views * COUNT
    assert {name: each.shape for name, each in seen.items()} == {
        name: (views * COUNT, *each.shape[1:]) for name, each in proxy.items()
    }
    parts = [seen["acc"][first : first + COUNT] for first in range(0, views * COUNT, COUNT)]
    # Each is of the same windows in the same order, changed in another way.
    assert all(not np.allclose(parts[0], part, atol=1e-3) for part in parts[1:])
    nearest = [
        [np.abs(part[i] - proxy["acc"]).mean(axis=(1, 2)).argmin() for i in range(COUNT)] == list(range(COUNT))
        for part in parts
    ]
    assert all(nearest)
