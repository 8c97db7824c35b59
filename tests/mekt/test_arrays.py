"""Arrays as bytes: each encoding within its error, hostile data refused, sizes known beforehand."""

import contextlib
from typing import Any, get_args

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mekt.arrays import (
    Floats,
    largest_knowledge_bytes,
    pack_array,
    pack_knowledge,
    pack_windows,
    unpack_array,
    unpack_knowledge,
    unpack_windows,
)
from mekt.errors import WireError
from mekt.plan import Encoding

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
LARGEST = float(np.finfo(np.float32).max)


def floats(largest: float) -> st.SearchStrategy[Floats]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)
    bound = float(np.float32(largest))
    return hnp.arrays(np.float32, shapes, elements=st.floats(-bound, bound, width=32))


def round_trip(x: Floats, encoding: Encoding) -> Floats:
    y = unpack_array(msgpack.unpackb(msgpack.packb(pack_array(x, encoding))), x.shape)
    assert y.dtype == np.float32 and y.shape == x.shape
    return y


@given(floats(LARGEST))
def test_float32_loses_nothing(x: Floats) -> None:
    assert np.array_equal(round_trip(x, "float32"), x)


@given(floats(65504))
def test_float16_is_within_half_a_step(x: Floats) -> None:
    error = np.abs(round_trip(x, "float16").astype(float) - x.astype(float))
    assert (error <= np.maximum(np.abs(x.astype(float)) * 2.0**-11, 2.0**-25)).all()


@pytest.mark.parametrize(("encoding", "steps"), [("int8", 127), ("int4", 7)])
@given(x=floats(LARGEST))
def test_integers_are_within_half_a_step_of_their_dimension(encoding: Encoding, steps: int, x: Floats) -> None:
    error = np.abs(round_trip(x, encoding).astype(float) - x.astype(float))
    largest = np.abs(x.astype(float)).max(axis=tuple(range(x.ndim - 1)), initial=0)
    # A scale so small that float32 has no digits left for it is worth no more than those.
    assert (error <= largest / steps / 2 * (1 + 1e-4) + steps * 2.0**-149).all()


def test_int8_numbers_worked_by_hand() -> None:
    x = np.array([[1.27, 0, -5], [-0.64, 0, 10]], np.float32)
    data = pack_array(x, "int8")
    assert np.allclose(np.frombuffer(data["scale"], "<f4"), [0.01, 0, 10 / 127])
    assert np.frombuffer(data["data"], "i1").tolist() == [127, 0, -64, -64, 0, 127]


def test_int4_numbers_worked_by_hand() -> None:
    x = np.array([[7, 0, -14], [-3.4, 0, 2]], np.float32)
    data = pack_array(x, "int4")
    assert np.allclose(np.frombuffer(data["scale"], "<f4"), [1, 0, 2])
    # 7, 0, -7, -3, 0, 1, each plus 8; the first of two in the lower half.
    assert data["data"].hex() == "8f5198"
    assert pack_array(x[:1], "int4")["data"].hex() == "8f81"


def test_the_bytes_are_little_endian_and_in_row_order() -> None:
    x = np.array([[1, -2], [0.5, 0]], np.float32)
    assert pack_array(x, "float16")["data"].hex() == "003c00c000380000"
    assert pack_array(x, "float32")["data"].hex() == "0000803f000000c00000003f00000000"
    assert pack_array(x.T, "float16")["data"].hex() == "003c003800c00000"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_sent(encoding: Encoding, value: float) -> None:
    with pytest.raises(ValueError, match="the model has diverged"):
        pack_array(np.array([0, value], np.float32), encoding)


def test_what_float16_cannot_hold_is_not_sent_as_infinity() -> None:
    with pytest.raises(ValueError, match="choose float32"):
        pack_array(np.array([65520], np.float32), "float16")
    with pytest.raises(ValueError, match="choose float32"):
        pack_windows(np.array([[-1e30]], np.float32))


HALF = np.array([1, 2, 3, 4, 5, 6], np.float16).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        *(None, 7, b"", [], {}, {"encoding": "float16"}, {"data": HALF}, {"encoding": "float64", "data": HALF}),
        *({"encoding": [], "data": HALF}, {"encoding": {}, "data": HALF}, {"encoding": None, "data": HALF}),
        *({"encoding": "float16", "data": "text"}, {"encoding": "float16", "data": [1, 2]}),
        *({"encoding": "float16", "data": HALF[:-1]}, {"encoding": "float16", "data": HALF + b"\0"}),
        *({"encoding": "float16", "data": b""}, {"encoding": "float32", "data": HALF}),
        {"encoding": "float16", "data": HALF, "shape": [2, 3]},
        {"encoding": "float16", "data": HALF, "scale": b""},
        {"encoding": "float16", "data": HALF[:-2] + b"\0\x7c"},
        {"encoding": "float16", "data": b"\xff\xff" + HALF[2:]},
        {"encoding": "float32", "data": b"\0\0\xc0\x7f" * 6},
        *({"encoding": "int8", "data": bytes(6)}, {"encoding": "int8", "data": bytes(6), "scale": bytes(8)}),
        *(
            {"encoding": "int8", "data": bytes(6), "scale": 12},
            {"encoding": "int8", "data": bytes(6), "scale": bytes(16)},
        ),
        {"encoding": "int8", "data": bytes(6), "scale": b"\0\0\xc0\x7f" * 3},
        {"encoding": "int8", "data": b"\x7f" * 6, "scale": b"\xff\xff\x7f\x7f" * 3},
        *({"encoding": "int4", "data": bytes(3)}, {"encoding": "int4", "data": bytes(6), "scale": bytes(12)}),
        {"encoding": "int4", "data": b"\xff" * 3, "scale": b"\xff\xff\x7f\x7f" * 3},
    ],
)
def test_hostile_data_is_a_wire_error(data: Any) -> None:
    with pytest.raises(WireError):
        unpack_array(data, (2, 3))


def test_a_huge_shape_is_compared_and_never_allocated() -> None:
    with pytest.raises(WireError, match="bytes, not 12"):
        unpack_array({"encoding": "float16", "data": HALF}, (2**40, 2**40))


@pytest.mark.parametrize("shape", [(-1,), (2, -1), (-2, -3)])
def test_a_negative_shape_is_our_own_bug(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is no shape"):
        unpack_array({"encoding": "float16", "data": HALF}, shape)


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.sampled_from(ENCODINGS),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["encoding", "scale", "data", "x"]), inner),
    max_leaves=6,
)


@given(plain_data)
def test_any_plain_data_is_an_array_or_a_wire_error(data: Any) -> None:
    with contextlib.suppress(WireError):
        assert np.isfinite(unpack_array(data, (1, 2))).all()


@given(
    st.integers(0, 100),
    st.sampled_from([1, 2, 32, 255, 1024]),
    st.sampled_from([None, 1, 64, 1024]),
    st.sampled_from(ENCODINGS),
)
def test_knowledge_comes_back_and_is_never_larger_than_foretold(
    windows: int, embedding: int, hidden: int | None, encoding: Encoding
) -> None:
    embedding_ND = np.full((windows, embedding), 0.5, np.float32)
    hidden_NH = None if hidden is None else np.full((windows, hidden), -0.5, np.float32)
    raw = pack_knowledge(embedding_ND, hidden_NH, encoding)
    slack = largest_knowledge_bytes(windows, embedding, hidden, encoding) - len(raw)
    assert 0 <= slack <= 128 + 4 * (embedding + (hidden or 0))
    read_ND, read_NH = unpack_knowledge(raw, windows=windows, embedding=embedding, hidden=hidden)
    assert np.allclose(read_ND, embedding_ND)
    assert (read_NH is None) == (hidden_NH is None)
    if read_NH is not None and hidden_NH is not None:
        assert np.allclose(read_NH, hidden_NH)


def test_megabytes_of_knowledge_are_within_the_bound_too() -> None:
    for encoding in ENCODINGS:
        raw = pack_knowledge(np.zeros((16_384, 64), np.float32), np.zeros((16_384, 16), np.float32), encoding)
        assert len(raw) <= largest_knowledge_bytes(16_384, 64, 16, encoding)


def test_knowledge_is_exactly_what_the_plan_says() -> None:
    x_ND, x_NH = np.zeros((3, 2), np.float32), np.zeros((3, 5), np.float32)
    bare, full = pack_knowledge(x_ND, None, "float16"), pack_knowledge(x_ND, x_NH, "float16")
    for raw, hidden in ((bare, 5), (full, None), (full, 4), (b"", None), (bare[:-1], None), (bare + b"\0", None)):
        with pytest.raises(WireError):
            unpack_knowledge(raw, windows=3, embedding=2, hidden=hidden)
    for windows, embedding in ((2, 2), (3, 3), (0, 2)):
        with pytest.raises(WireError):
            unpack_knowledge(bare, windows=windows, embedding=embedding, hidden=None)
    with pytest.raises(WireError):
        unpack_knowledge(msgpack.packb([1]), windows=3, embedding=2, hidden=None)


def test_knowledge_cut_or_flipped_anywhere_is_knowledge_or_a_wire_error() -> None:
    raw = pack_knowledge(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32), "int8")
    broken = [raw[:length] for length in range(len(raw))]
    broken += [raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :] for at in range(len(raw)) for bit in range(8)]
    for each in broken:
        try:
            read_ND, read_NH = unpack_knowledge(each, windows=3, embedding=2, hidden=1)
        except WireError:
            continue
        assert read_NH is not None and np.isfinite(read_ND).all() and np.isfinite(read_NH).all()


def test_windows_of_signals_and_frames_come_back() -> None:
    for shape in ((4, 10, 3), (2, 5, 8, 6)):
        x = np.linspace(-2, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        raw = pack_windows(x)
        assert np.abs(unpack_windows(raw, shape) - x).max() <= 2**-10
        assert len(raw) < 2 * x.size + 64
        with pytest.raises(WireError):
            unpack_windows(raw, (shape[0] + 1, *shape[1:]))
