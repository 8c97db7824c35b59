"""A model's weights on disk, without pickle: a msgpack map of little-endian float32 tensors.

The bytes depend on the weights alone, so equal models have equal files.
"""

import msgpack
import numpy as np
import torch
from torch import nn

from mekt.errors import StateError


def pack_weights(model: nn.Module) -> bytes:
    """The bytes of every parameter and buffer of `model`, in order of name."""
    tensors = sorted(model.state_dict().items())
    table = {
        name: [list(tensor.shape), tensor.detach().cpu().numpy().astype("<f4").tobytes()] for name, tensor in tensors
    }
    packed: bytes = msgpack.packb(table)
    return packed


def load_weights(model: nn.Module, raw: bytes, origin: str) -> None:
    """Fill `model` with packed weights.

    Raises:
        StateError: when the bytes are damaged or of another structure; `model` is then unchanged.
    """
    expected = model.state_dict()
    try:
        table = msgpack.unpackb(raw)
        loaded = {
            name: torch.from_numpy(np.frombuffer(data, dtype="<f4").reshape(shape).copy())
            for name, (shape, data) in table.items()
        }
    except Exception as error:
        raise StateError(f"{origin}: damaged weights ({error}); delete the file to start afresh") from error
    if {name: tuple(t.shape) for name, t in loaded.items()} != {name: tuple(t.shape) for name, t in expected.items()}:
        raise StateError(
            f"{origin}: weights of another model (other modalities, widths or architecture); delete the file"
        )
    model.load_state_dict(loaded)
