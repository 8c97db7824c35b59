"""Distances: between a window and what a decoder rebuilt, and between two models' embeddings of the same windows.

Shapes: B windows, T samples, C channels; N proxy windows, D embedding dimensions. Every loss is a mean, so that its
size depends on none of them.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mekt.plan import Reconstruction, Transfer

# A window is compared by the means of this many stretches, which hold posture and slow movement ...
STRETCHES = 8
# ... and by the amplitudes of this share of its frequencies, the lowest; on 50 Hz that is up to 12.5 Hz.
FREQUENCY_SHARE = 0.25
# Amplitudes below this, in standard deviations of the signal, are noise: the logarithm flattens there.
AMPLITUDE_FLOOR = 0.1
# What moves is a few hundredths of the variance of frames: 0.035 of UTD-MHAD's depth.
MOTION_WEIGHT = 25.0
SMALLEST_VARIANCE = 1e-4


def reconstruction_distance(kind: Reconstruction, rebuilt: Tensor, target: Tensor) -> Tensor:
    """How far rebuilt windows are from their targets, (B, T, C) or (B, T, Y, X): "waveform" is the mean squared error.

    "spectral" compares signals by the means of eight stretches and by log amplitude spectra, so an embedding need not
    spend itself on the phase of a step, which no activity depends on. Of frames it compares the window's mean frame,
    and more by far what differs from it: what moves. A window of a single sample has neither and is compared by its
    value.
    """
    if kind == "waveform" or target.shape[1] == 1:
        return functional.mse_loss(rebuilt, target)
    if target.dim() == 4:
        still, still_target = rebuilt.mean(dim=1, keepdim=True), target.mean(dim=1, keepdim=True)
        moving = functional.mse_loss(rebuilt - still, target - still_target)
        return functional.mse_loss(still, still_target) + MOTION_WEIGHT * moving
    slow = functional.mse_loss(_stretches(rebuilt), _stretches(target))
    return slow + functional.mse_loss(_log_spectrum(rebuilt), _log_spectrum(target))


def _stretches(x_BTC: Tensor) -> Tensor:
    return functional.adaptive_avg_pool1d(x_BTC.transpose(1, 2), STRETCHES)


def _log_spectrum(x_BTC: Tensor) -> Tensor:
    samples = x_BTC.shape[1]
    taper_T = torch.hann_window(samples, device=x_BTC.device)
    centred = (x_BTC - x_BTC.mean(dim=1, keepdim=True)) * taper_T[:, None]
    highest = max(1, int(samples * FREQUENCY_SHARE))
    amplitude = torch.fft.rfft(centred, dim=1)[:, 1 : highest + 1].abs() * (2 / float(taper_T.sum()))
    return torch.log(amplitude + AMPLITUDE_FLOOR)


def transfer_loss(kind: Transfer, student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
    """The distance of `kind` from student to teacher; no gradient reaches the teacher."""
    teacher_ND = teacher_ND.detach()
    match kind:
        case "kl":
            return softened_kl(student_ND, teacher_ND, temperature)
        case "cosine":
            return cosine_distance(student_ND, teacher_ND)
        case "mse":
            return functional.mse_loss(student_ND, teacher_ND)
        case "relational":
            return relational_distance(student_ND, teacher_ND)


def softened_kl(student_ND: Tensor, teacher_ND: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the embeddings' softmax over D at `temperature`, times its square (FedMEKT).

    The square keeps the gradient's size independent of the temperature (Hinton et al., arXiv 1503.02531, section 2).
    """
    student = functional.log_softmax(student_ND / temperature, dim=1)
    teacher = functional.log_softmax(teacher_ND / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def cosine_distance(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Mean of 1 - cos over the windows: 0 when all directions agree, 2 when all are opposite."""
    return (1 - functional.cosine_similarity(student_ND, teacher_ND, dim=1)).mean()


def relational_distance(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Huber distance between the models' matrices of pairwise distances, each divided by its mean.

    Blind to rotation, reflection and scale of either space (Park et al., arXiv 1904.05068, eq. 3-5).
    """
    return functional.smooth_l1_loss(_relative_distances(student_ND), _relative_distances(teacher_ND))


def _relative_distances(x_ND: Tensor) -> Tensor:
    squares = (x_ND * x_ND).sum(dim=1)
    squared_NN = (squares[:, None] + squares[None, :] - 2 * x_ND @ x_ND.T).clamp(min=0)
    # The root's slope is infinite at 0, where the diagonal lies.
    distances_NN = torch.sqrt(squared_NN + 1e-12)
    return distances_NN / distances_NN.mean().clamp(min=1e-6)


def contrast(one_BD: Tensor, other_BD: Tensor, temperature: float) -> Tensor:
    """How badly each row of one finds the same row of the other among all by cosine, and the other way round.

    Cross entropy of the rows' softmax over cosines / temperature (NT-Xent, arXiv 2002.05709, eq. 1, with the negatives
    of the other side alone): log B where nothing is told apart, 0 where everything is.
    """
    cosines_BB = functional.normalize(one_BD, dim=1) @ functional.normalize(other_BD, dim=1).T / temperature
    right_B = torch.arange(len(one_BD), device=one_BD.device)
    return (functional.cross_entropy(cosines_BB, right_B) + functional.cross_entropy(cosines_BB.T, right_B)) / 2


def redundancy(embedding_BD: Tensor) -> Tensor:
    """How far embeddings are from varying by 1 or more in each dimension, and independently of the others.

    The mean over D of max(0, 1 - deviation), plus the sum of squared covariances of two dimensions / D (variance and
    covariance terms of VICReg, arXiv 2105.04906, section 4.1).
    """
    centred_BD = embedding_BD - embedding_BD.mean(dim=0)
    count, dimensions = embedding_BD.shape
    covariance_DD = centred_BD.T @ centred_BD / max(1, count - 1)
    variance_D = covariance_DD.diagonal()
    # The root's slope is infinite at 0, where all rows are equal.
    missing = torch.relu(1 - torch.sqrt(variance_D + SMALLEST_VARIANCE)).mean()
    return missing + (covariance_DD.square().sum() - variance_D.square().sum()) / dimensions
