"""Knowledge transfer: distances between two models' embeddings of the same windows.

Shapes: N windows, D embedding dimensions. Every loss is a mean, so that its size depends on neither N nor D.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mekt.plan import Transfer


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
