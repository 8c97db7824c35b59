"""A model's weights on disk, without pickle: a msgpack map of little-endian float32 tensors behind its SHA-256.

The bytes depend on the weights alone, so equal models have equal files.
"""

import hashlib

import msgpack
import numpy as np
import torch
from torch import nn

from mekt import catalogue
from mekt.errors import StateError

DIGEST_BYTES = 32
REMEDY = "restore the file from a copy, or delete it to start afresh"


def pack_weights(model: nn.Module) -> bytes:
    """The bytes of every parameter and buffer of `model`, in order of name."""
    tensors = sorted(model.state_dict().items())
    table = {
        name: [list(tensor.shape), tensor.detach().cpu().numpy().astype("<f4").tobytes()] for name, tensor in tensors
    }
    packed: bytes = msgpack.packb(table)
    return hashlib.sha256(packed).digest() + packed


def load_weights(model: nn.Module, raw: bytes, origin: str) -> None:
    """Fill `model` with packed weights.

    Raises:
        StateError: when the bytes are damaged or of another structure; `model` is then unchanged.
    """
    expected = model.state_dict()
    digest, packed = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
    if hashlib.sha256(packed).digest() != digest:
        raise StateError(f"{origin}: damaged weights, their SHA-256 differs; {REMEDY}", catalogue.STATE_DAMAGED)
    try:
        table = msgpack.unpackb(packed)
        loaded = {
            name: torch.from_numpy(np.frombuffer(data, dtype="<f4").reshape(shape).copy())
            for name, (shape, data) in table.items()
        }
    except Exception as error:
        raise StateError(
            f"{origin}: not weights of this version ({error}); {REMEDY}", catalogue.STATE_DAMAGED
        ) from error
    if {name: tuple(t.shape) for name, t in loaded.items()} != {name: tuple(t.shape) for name, t in expected.items()}:
        raise StateError(
            f"{origin}: weights of another model (other modalities, widths or architecture); {REMEDY}",
            catalogue.STATE_OF_ANOTHER_PLAN,
        )
    model.load_state_dict(loaded)
