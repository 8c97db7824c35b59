"""Batches of windows: normalised to the same bits as all at once, and in passing where their values lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.stock import InMemory, Normalised
from mekt.modality import Scaling

SCALING = {"acc": Scaling(mean=(0.1, 0.7), std=(1.3, 0.3)), "depth": Scaling(mean=(1.7,), std=(0.9,))}


def windows(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    shapes = {"acc": (5, 2), "depth": (3, 2, 4)}
    return {name: rng.normal(1, 2, (count, *shape)).astype(np.float32) for name, shape in shapes.items()}


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 1000))
def test_batches_are_the_bits_of_all_at_once_and_every_window_counts_once(count: int, size: int, seed: int) -> None:
    arrays = windows(count)
    whole = {name: SCALING[name].normalise(array) for name, array in arrays.items()}
    stock, rng = Normalised(InMemory(arrays), SCALING), np.random.default_rng(seed)
    assert len(stock) == count and stock.names == ("acc", "depth")
    for _ in range(3):
        order = rng.permutation(count)
        for first in range(0, count, size):
            places = order[first : first + size]
            for name, array in stock.take(places).items():
                assert array.tobytes() == whole[name][places].tobytes()
    for name, array in whole.items():
        scale = stock.scales[name]
        assert scale.mean == pytest.approx(array.mean(dtype=np.float64), abs=1e-9)
        assert scale.deviation == pytest.approx(array.std(dtype=np.float64), rel=1e-9)


def test_what_is_taken_is_a_copy() -> None:
    arrays = windows(4)
    stock = InMemory(arrays)
    stock.take(np.array([1, 2]))["acc"][:] = 9
    assert arrays["acc"].max() < 9 and len(stock) == 4


def test_a_value_that_is_no_number_is_borne() -> None:
    arrays = windows(4)
    arrays["acc"][2, 1, 0] = np.inf
    stock = Normalised(InMemory(arrays), SCALING)
    stock.take(np.arange(2))
    stock.take(np.arange(2, 4))
    assert not np.isfinite(stock.scales["acc"].deviation) and np.isfinite(stock.scales["depth"].deviation)
