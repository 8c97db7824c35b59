"""Weights come back to the bit, or the file is refused and the model stays as it was."""

import hashlib

import msgpack
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mekt.checkpoint import load_weights, pack_weights
from mekt.encoders import Encoder, EncoderSizes
from mekt.errors import StateError
from mekt.plan import Architecture

torch.set_num_threads(1)


def model(seed: int = 0, width: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))


def weights(module: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in module.state_dict().items()}


def assert_refused(raw: bytes, match: str = "state/encoders: ") -> None:
    there = model(seed=5)
    before = weights(there)
    with pytest.raises(StateError, match=match):
        load_weights(there, raw, "state/encoders")
    assert weights(there) == before


def sealed(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest() + packed


PACKED = pack_weights(model())


def test_weights_come_back_to_the_bit() -> None:
    other = model(seed=1)
    load_weights(other, PACKED, "state/encoders")
    assert weights(other) == weights(model())
    assert pack_weights(other) == PACKED


def test_unusual_numbers_come_back_too() -> None:
    odd = torch.tensor([[-0.0, 1e-45], [float("nan"), float("inf")], [3e38, -1.0]])

    class Holder(nn.Module):
        def __init__(self, values: Tensor) -> None:
            super().__init__()
            self.values = nn.Parameter(values)

    there = Holder(torch.zeros(3, 2))
    load_weights(there, pack_weights(Holder(odd)), "here")
    assert there.values.detach().numpy().tobytes() == odd.numpy().tobytes()


@pytest.mark.parametrize("architecture", ["conv", "lstm"])
def test_a_real_encoder_gives_the_same_embeddings_again(architecture: Architecture) -> None:
    sizes = EncoderSizes(architecture=architecture, shape=(3,), hidden=6, embedding=4)
    one, other = Encoder(sizes), Encoder(sizes)
    load_weights(other, pack_weights(one), "here")
    x = torch.randn(5, 40, 3)
    assert torch.equal(one(x)[1], other(x)[1])


def test_equal_models_have_equal_bytes_and_others_do_not() -> None:
    assert pack_weights(model()) == PACKED
    assert pack_weights(model(seed=1)) != PACKED


def test_learning_goes_on_after_loading() -> None:
    there = model(seed=1)
    load_weights(there, PACKED, "here")
    there(torch.ones(1, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in there.parameters())


def test_any_changed_bit_is_found() -> None:
    for bit in range(8 * len(PACKED)):
        changed = bytearray(PACKED)
        changed[bit // 8] ^= 1 << bit % 8
        assert_refused(bytes(changed), "damaged weights")


def test_any_cut_and_any_addition_is_found() -> None:
    for length in range(len(PACKED)):
        assert_refused(PACKED[:length])
    assert_refused(PACKED + b"\x00")


@given(st.binary(max_size=64))
def test_no_bytes_raise_anything_but_a_state_error(packed: bytes) -> None:
    assert_refused(packed)
    assert_refused(sealed(packed))


@pytest.mark.parametrize(
    "table",
    [
        [],
        {},
        None,
        {"0.weight": None},
        {"0.weight": [[3, 2], b"short"]},
        {"0.weight": [[-1, 2], bytes(24)]},
        {"0.weight": [[1 << 62, 1 << 62], b""]},
        {1: [[3, 2], bytes(24)]},
    ],
)
def test_what_is_no_table_of_weights_is_refused(table: object) -> None:
    assert_refused(sealed(msgpack.packb(table)))


def test_weights_of_another_structure_are_told_apart_from_damage() -> None:
    for other in (model(width=4), nn.Linear(2, 3), nn.Sequential(model(), nn.Linear(1, 1))):
        assert_refused(pack_weights(other), "weights of another model")
    table = msgpack.unpackb(PACKED[32:])
    table["0.weight"][0].reverse()
    assert_refused(sealed(msgpack.packb(table)), "weights of another model")
