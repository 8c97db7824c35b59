"""Arrays as bytes: embeddings in four encodings, and the proxy set's windows. Little endian throughout.

Shapes: N windows, D embedding width, H hidden width. The receiver knows every shape before it looks at the bytes, so
nothing a peer writes can ask for memory.
"""

import math
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import WireError
from mekt.messages import FEW_ENTRIES, unpack
from mekt.plan import Encoding

Floats = NDArray[np.float32]
_BITS = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}
_DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1", "int4": "u1"}
# How many steps a dimension's largest value is away from 0.
_STEPS = {"int8": 127, "int4": 7}
# What all steps together are at most, so that they are still a float32.
_LARGEST = float(np.finfo(np.float32).max) * 0.99999


def pack_array(x: Floats, encoding: Encoding) -> dict[str, Any]:
    """Plain data for `x` (..., D): its values, and with integers one scale for each of the last axis' D dimensions.

    What comes back differs by at most 2^-11 of a value, or 2^-25, with float16; by half of its dimension's largest
    value / 127 with int8, / 7 with int4; by nothing with float32. With int4 a byte holds two values, the lower half
    the first.

    Raises:
        ValueError: when a value is not finite, or too large for float16.
    """
    if not np.isfinite(x).all():
        raise ValueError("an array with values that are not finite cannot be sent; the model has diverged")
    if encoding in _STEPS:
        most = _STEPS[encoding]
        scale = np.abs(x).max(axis=tuple(range(x.ndim - 1)), initial=0) / np.float32(most)
        scale = np.minimum(scale, np.float32(_LARGEST / most)).astype("<f4")
        steps = np.clip(np.rint(x / np.where(scale > 0, scale, 1)), -most, most).astype("i1")
        return {"encoding": encoding, "scale": scale.tobytes(), "data": _packed(steps, encoding)}
    if encoding == "float16" and np.abs(x).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError("an array with values above 65504 cannot be sent as float16; choose float32")
    return {"encoding": encoding, "data": x.astype(_DTYPES[encoding]).tobytes()}


def unpack_array(data: object, shape: tuple[int, ...]) -> Floats:
    """The float32 array of this shape in plain `data`.

    Raises:
        WireError: when it is not one: another size, an unknown encoding, values that are not finite.
    """
    if min(shape, default=1) < 0:
        raise ValueError(f"a shape of {shape} is no shape")
    if not isinstance(data, dict) or not set(data) <= {"encoding", "scale", "data"}:
        raise WireError("an array is a map of encoding, data and scale; this is not", catalogue.KNOWLEDGE_UNFIT)
    encoding, raw = data.get("encoding"), data.get("data")
    if not isinstance(encoding, str) or encoding not in _BITS or not isinstance(raw, bytes):
        raise WireError(
            f"an array has data, as bytes, and an encoding: one of {', '.join(_BITS)}", catalogue.KNOWLEDGE_UNFIT
        )
    expected = _size_bytes(math.prod(shape), encoding)
    if len(raw) != expected:
        raise WireError(
            f"an array of shape {shape} in {encoding} has {expected} bytes, not {len(raw)}", catalogue.KNOWLEDGE_UNFIT
        )
    x = _unpacked(raw, math.prod(shape), encoding).reshape(shape).astype(np.float32)
    if encoding in _STEPS:
        scale = data.get("scale")
        if not isinstance(scale, bytes) or len(scale) != 4 * shape[-1]:
            raise WireError(
                f"an {encoding} array of shape {shape} has {4 * shape[-1]} bytes of scales", catalogue.KNOWLEDGE_UNFIT
            )
        with np.errstate(over="ignore", invalid="ignore"):
            x = x * np.frombuffer(scale, dtype="<f4")
    elif "scale" in data:
        raise WireError(f"an array in {encoding} has no scale", catalogue.KNOWLEDGE_UNFIT)
    if not np.isfinite(x).all():
        raise WireError("an array has values that are not finite", catalogue.KNOWLEDGE_UNFIT)
    return x


def pack_knowledge(embedding_ND: Floats, hidden_NH: Floats | None, encoding: Encoding) -> bytes:
    """A knowledge blob: one modality's embeddings of the proxy set and, when it is shared, the hidden layer's.

    Raises:
        ValueError: when a value cannot be sent.
    """
    table = {"embedding": pack_array(embedding_ND, encoding)}
    if hidden_NH is not None:
        table["hidden"] = pack_array(hidden_NH, encoding)
    raw: bytes = msgpack.packb(table)
    return raw


def unpack_knowledge(raw: bytes, *, windows: int, embedding: int, hidden: int | None) -> tuple[Floats, Floats | None]:
    """Embeddings (N, D) and hidden layer (N, H), the latter exactly when `hidden` is given.

    Raises:
        WireError: when the bytes are not exactly that.
    """
    data = unpack(raw, FEW_ENTRIES)
    keys = {"embedding"} if hidden is None else {"embedding", "hidden"}
    if not isinstance(data, dict) or set(data) != keys:
        raise WireError(
            f"a knowledge blob is a map of {' and '.join(sorted(keys))}; this is not", catalogue.KNOWLEDGE_UNFIT
        )
    embedding_ND = unpack_array(data["embedding"], (windows, embedding))
    return embedding_ND, None if hidden is None else unpack_array(data["hidden"], (windows, hidden))


def largest_knowledge_bytes(windows: int, embedding: int, hidden: int | None, encoding: Encoding) -> int:
    """The size that no knowledge blob of this plan exceeds: its numbers, its scales, and 128 bytes of names."""
    return sum(_size_bytes(windows * width, encoding) + 4 * width for width in (embedding, hidden or 0)) + 128


def _size_bytes(count: int, encoding: str) -> int:
    """What so many numbers take: whole bytes."""
    return -(-count * _BITS[encoding] // 8)


def _packed(steps: NDArray[np.int8], encoding: str) -> bytes:
    """Whole numbers as bytes; with int4 two in one, each plus 8 so that none is negative."""
    if encoding != "int4":
        return steps.tobytes()
    halves = (steps.ravel() + 8).astype(np.uint8)
    if len(halves) % 2:
        halves = np.append(halves, np.uint8(8))
    return (halves[::2] | halves[1::2] << 4).tobytes()


def _unpacked(raw: bytes, count: int, encoding: str) -> NDArray[Any]:
    """The numbers (count,) in these bytes, of integers the steps."""
    values = np.frombuffer(raw, dtype=_DTYPES[encoding])
    if encoding != "int4":
        return values
    halves = np.stack([values & 15, values >> 4], axis=1).ravel()[:count]
    return halves.astype(np.int8) - 8


def pack_windows(x: Floats) -> bytes:
    """A proxy blob: the windows (N, T, ...) of one modality in their own unit, as float16.

    Raises:
        ValueError: when a value cannot be sent.
    """
    raw: bytes = msgpack.packb(pack_array(x, "float16"))
    return raw


def unpack_windows(raw: bytes, shape: tuple[int, ...]) -> Floats:
    """The windows of `shape` (N, T, ...) in a proxy blob, as float32.

    Raises:
        WireError: when the bytes are not exactly that.
    """
    return unpack_array(unpack(raw, FEW_ENTRIES), shape)
