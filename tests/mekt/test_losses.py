"""Distances against numbers worked by hand, and the laws that they promise."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from mekt.losses import (
    AMPLITUDE_FLOOR,
    MOTION_WEIGHT,
    contrast,
    cosine_distance,
    reconstruction_distance,
    redundancy,
    relational_distance,
    softened_kl,
    transfer_loss,
)
from mekt.plan import Reconstruction, Transfer

torch.set_num_threads(1)

KINDS: tuple[Transfer, ...] = get_args(Transfer)
RECONSTRUCTIONS: tuple[Reconstruction, ...] = get_args(Reconstruction)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(width: int) -> Tensor:
    orthogonal: Tensor = torch.linalg.qr(random(width, width, seed=9))[0]
    return orthogonal


def test_kl_of_two_windows_worked_by_hand() -> None:
    # At temperature 2 the teacher's embeddings (2 ln 3, 0) soften to (3/4, 1/4), the student's (0, 0) to (1/2, 1/2):
    # 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812. The second window agrees, so the mean is half of it; times 2 squared.
    student = torch.tensor([[0.0, 0.0], [1.0, 5.0]])
    teacher = torch.tensor([[2 * math.log(3), 0.0], [1.0, 5.0]])
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2 * 4
    assert softened_kl(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(0.261624, abs=1e-6)


def test_kl_is_not_the_same_in_both_directions() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]])
    assert softened_kl(student, teacher, 1.0).item() == pytest.approx(0.130812, abs=1e-6)
    assert softened_kl(teacher, student, 1.0).item() == pytest.approx(0.143841, abs=1e-6)


def test_kl_does_not_see_a_constant_added_to_a_window() -> None:
    student, teacher = random(6, 4), random(6, 4, seed=1)
    shifted = student + random(6, 1, seed=2)
    torch.testing.assert_close(softened_kl(shifted, teacher, 3.0), softened_kl(student, teacher, 3.0))


def test_kl_gradient_keeps_its_size_when_the_temperature_rises() -> None:
    sizes = []
    for temperature in (10.0, 100.0):
        student = random(8, 4).requires_grad_()
        softened_kl(student, random(8, 4, seed=1), temperature).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)


def test_cosine_of_right_opposite_and_equal_directions_worked_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    teacher = torch.tensor([[0.0, 5.0], [-2.0, 0.0], [6.0, 8.0]])
    assert cosine_distance(student, teacher).item() == pytest.approx((1 + 2 + 0) / 3)


def test_mse_worked_by_hand() -> None:
    student = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    teacher = torch.tensor([[1.0, 0.0], [1.0, 4.0]])
    assert transfer_loss("mse", student, teacher, 1.0).item() == pytest.approx((1 + 0 + 0 + 9) / 4)


def test_relational_distance_worked_by_hand() -> None:
    # On a line at 0, 1, 3 the distances are 1, 2, 3, each twice, and three zeros: mean 12 / 9 = 4/3.
    # At 0, 3, 4 they are 3, 1, 4: mean 16 / 9. Divided by the means: 3/4, 3/2, 9/4 against 27/16, 9/16, 9/4.
    # Differences 15/16, 15/16, 0; Huber below 1 is half the square; each twice, over nine entries.
    student = torch.tensor([[0.0], [1.0], [3.0]])
    teacher = torch.tensor([[0.0], [3.0], [4.0]])
    expected = (0.5 * (15 / 16) ** 2) * 4 / 9
    assert relational_distance(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_relational_distance_is_blind_to_rotation_reflection_shift_and_scale() -> None:
    student, teacher = random(10, 6), random(10, 4, seed=1)
    expected = relational_distance(student, teacher)
    for moved in (student @ rotation(6), student * torch.tensor([-1.0, 1, 1, 1, 1, 1]), student + 2, student * 7):
        torch.testing.assert_close(relational_distance(moved, teacher), expected, atol=1e-5, rtol=1e-3)
    assert relational_distance(student, 3 * student @ rotation(6)).item() == pytest.approx(0, abs=1e-6)


def test_relational_distance_bears_windows_that_are_all_alike() -> None:
    student = torch.ones(4, 3, requires_grad=True)
    loss = relational_distance(student, random(4, 3))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_transfer_is_zero_where_student_and_teacher_agree(kind: Transfer) -> None:
    knowledge = random(12, 5)
    assert transfer_loss(kind, knowledge, knowledge, 3.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_transfer_is_positive_where_they_differ(kind: Transfer) -> None:
    assert transfer_loss(kind, random(12, 5), random(12, 5, seed=1), 3.0).item() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_teacher(kind: Transfer) -> None:
    student, teacher = random(12, 5).requires_grad_(), random(12, 5, seed=1).requires_grad_()
    transfer_loss(kind, student, teacher, 3.0).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_at_agreement_is_finite(kind: Transfer) -> None:
    student = random(6, 3).requires_grad_()
    transfer_loss(kind, student, student.detach().clone(), 3.0).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_proxy_windows_does_not_matter(kind: Transfer) -> None:
    student, teacher = random(12, 5), random(12, 5, seed=1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        transfer_loss(kind, student[order], teacher[order], 3.0), transfer_loss(kind, student, teacher, 3.0)
    )


@pytest.mark.parametrize("kind", ["kl", "cosine", "mse"])
def test_the_number_of_proxy_windows_does_not_change_the_size(kind: Transfer) -> None:
    student, teacher = random(12, 5), random(12, 5, seed=1)
    torch.testing.assert_close(
        transfer_loss(kind, student.repeat(3, 1), teacher.repeat(3, 1), 3.0),
        transfer_loss(kind, student, teacher, 3.0),
    )


def test_the_waveform_distance_is_the_mean_square_worked_by_hand() -> None:
    rebuilt, target = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[0.0], [4.0]]])
    assert reconstruction_distance("waveform", rebuilt, target).item() == pytest.approx((1 + 4) / 2)


def test_the_spectral_distance_of_a_shifted_level_is_the_square_of_the_shift() -> None:
    # Stretch means all differ by 0.5; the spectra, taken without the mean, agree.
    target = random(3, 64, 2)
    distance = reconstruction_distance("spectral", target + 0.5, target)
    assert distance.item() == pytest.approx(0.25, rel=1e-3)


def test_the_spectral_distance_of_a_louder_tone_worked_by_hand() -> None:
    # One tone of 16 periods in 128 samples: its stretch means are zero over two whole periods each. Under the Hann
    # window it stands in bins 15, 16, 17 with amplitudes 1/2, 1, 1/2 of the 32 bins that are looked at.
    time = torch.arange(128) / 128
    tone = torch.cos(2 * math.pi * 16 * time)[None, :, None]
    floor = AMPLITUDE_FLOOR
    ratios = [math.log((2 * a + floor) / (a + floor)) for a in (0.5, 1.0, 0.5)]
    expected = sum(ratio**2 for ratio in ratios) / 32
    assert reconstruction_distance("spectral", 2 * tone, tone).item() == pytest.approx(expected, rel=0.05)


def test_the_spectral_distance_does_not_see_the_phase_of_a_tone() -> None:
    time = torch.arange(128) / 128
    tone = torch.cos(2 * math.pi * 16 * time)[None, :, None]
    later = torch.sin(2 * math.pi * 16 * time)[None, :, None]
    assert reconstruction_distance("spectral", later, tone).item() < 0.01
    assert reconstruction_distance("waveform", later, tone).item() > 0.9


@pytest.mark.parametrize("kind", RECONSTRUCTIONS)
def test_frames_are_compared_by_their_pixels(kind: Reconstruction) -> None:
    rebuilt, target = torch.zeros(2, 3, 4, 5), torch.full((2, 3, 4, 5), 2.0)
    assert reconstruction_distance(kind, rebuilt, target).item() == pytest.approx(4.0)


@pytest.mark.parametrize("kind", RECONSTRUCTIONS)
@pytest.mark.parametrize("samples", [1, 2, 3, 9, 128])
def test_windows_of_any_length_have_a_finite_distance_and_gradient(kind: Reconstruction, samples: int) -> None:
    rebuilt, target = torch.zeros(2, samples, 3, requires_grad=True), random(2, samples, 3)
    distance = reconstruction_distance(kind, rebuilt, target)
    distance.backward()  # type: ignore[no-untyped-call]
    assert distance.isfinite()
    assert rebuilt.grad is not None
    assert rebuilt.grad.isfinite().all()


@pytest.mark.parametrize("kind", RECONSTRUCTIONS)
def test_a_window_rebuilt_exactly_has_no_distance(kind: Reconstruction) -> None:
    target = random(4, 50, 3)
    assert reconstruction_distance(kind, target, target).item() == 0


def test_contrast_of_two_windows_worked_by_hand() -> None:
    # Cosines: the first row of one with the two of the other 1 and 0, the second 0.6 and 0.8; halved to temperature 2.
    one = torch.tensor([[5.0, 0.0], [0.3, 0.4]])
    other = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    rows = [math.log(1 + math.exp(-1 / 2)), math.log(1 + math.exp(-0.2 / 2))]
    columns = [math.log(1 + math.exp(-0.4 / 2)), math.log(1 + math.exp(-0.8 / 2))]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert contrast(one, other, 2.0).item() == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(0.557407, abs=1e-6)


def test_contrast_is_log_b_where_nothing_is_told_apart_and_0_where_everything_is() -> None:
    assert contrast(torch.ones(7, 3), torch.ones(7, 3), 0.1).item() == pytest.approx(math.log(7))
    assert contrast(torch.eye(7), torch.eye(7), 0.01).item() == pytest.approx(0, abs=1e-6)
    assert contrast(random(1, 3), random(1, 3, seed=1), 0.1).item() == 0


def test_contrast_is_symmetric_and_sees_directions_alone() -> None:
    one, other = random(8, 5), random(8, 5, seed=1)
    expected = contrast(one, other, 0.5)
    torch.testing.assert_close(contrast(other, one, 0.5), expected)
    sizes = random(8, 1, seed=2).abs() + 0.1
    torch.testing.assert_close(contrast(one * sizes, 7 * other, 0.5), expected)
    torch.testing.assert_close(contrast(one @ rotation(5), other @ rotation(5), 0.5), expected)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(contrast(one[order], other[order], 0.5), expected)
    assert contrast(one, other[order], 0.5).item() != pytest.approx(expected.item(), rel=1e-3)


def test_contrast_teaches_both_sides_and_bears_rows_of_zeros() -> None:
    one, other = random(6, 4).requires_grad_(), random(6, 4, seed=1).requires_grad_()
    contrast(one, other, 0.1).backward()  # type: ignore[no-untyped-call]
    for each in (one, other):
        assert each.grad is not None
        assert each.grad.isfinite().all()
        assert each.grad.abs().sum(dim=1).min() > 0
    nothing = torch.zeros(6, 4, requires_grad=True)
    loss = contrast(nothing, random(6, 4), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(math.log(6))
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


def test_redundancy_of_four_embeddings_worked_by_hand() -> None:
    # Deviations 2 / sqrt(3) > 1, and 1 / sqrt(3). Covariance 2 / 3: twice its square over two dimensions is 4 / 9.
    x = torch.tensor([[1.0, 0.5], [1.0, 0.5], [-1.0, -0.5], [-1.0, -0.5]])
    missing = (0 + 1 - math.sqrt(1 / 3 + 1e-4)) / 2
    assert redundancy(x).item() == pytest.approx(missing + 4 / 9, rel=1e-5)


def test_redundancy_is_0_where_every_dimension_tells_something_of_its_own() -> None:
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert redundancy(x).item() == redundancy(x + 5).item() == 0


def test_redundancy_teaches_embeddings_to_use_all_dimensions_even_from_none() -> None:
    x = (1e-3 * random(64, 4)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        torch.autograd.backward(redundancy(x))
        optimizer.step()
    assert redundancy(x).item() < 1e-2
    assert torch.linalg.eigvalsh(torch.cov(x.detach().T)).min() > 0.8
    constant = torch.ones(6, 4, requires_grad=True)
    torch.autograd.backward(redundancy(constant))
    assert constant.grad is not None and constant.grad.isfinite().all()


@pytest.mark.parametrize("moved", [0.1, 0.3])
def test_of_frames_what_moves_counts_for_more_than_what_stands_still(moved: float) -> None:
    target = torch.zeros(2, 4, 3, 5)
    still, moving = target + moved, target.clone()
    moving[:, ::2] += moved
    moving[:, 1::2] -= moved
    assert reconstruction_distance("spectral", still, target).item() == pytest.approx(moved**2)
    assert reconstruction_distance("spectral", moving, target).item() == pytest.approx(MOTION_WEIGHT * moved**2)
    assert reconstruction_distance("waveform", moving, target).item() == pytest.approx(moved**2)
