"""The private store: the newest windows, in order, copied."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import SensorError
from sensors.store import WindowStore
from sensors.windows import Window

SHAPES = {"acc": (4, 2), "depth": (2, 3, 3)}


def window(number: float) -> Window:
    arrays = {name: np.full(shape, number, np.float32) for name, shape in SHAPES.items()}
    return Window(start_s=number, arrays=arrays)


@given(st.integers(1, 7), st.integers(0, 20))
def test_the_newest_windows_come_back_in_the_order_in_which_they_came(capacity: int, count: int) -> None:
    store = WindowStore(SHAPES, capacity)
    for number in range(count):
        store.add(window(number))
    kept = list(range(count))[-capacity:]
    assert (len(store), store.total) == (len(kept), count)
    arrays = store.arrays()
    assert {name: array.shape[1:] for name, array in arrays.items()} == SHAPES
    assert arrays["acc"][:, 3, 1].tolist() == arrays["depth"][:, 1, 2, 2].tolist() == kept


def test_what_is_kept_and_given_are_copies() -> None:
    store, added = WindowStore(SHAPES, 2), window(1)
    store.add(added)
    added.arrays["acc"][:] = 9
    store.arrays()["acc"][:] = 9
    assert store.arrays()["acc"].max() == 1


def test_modalities_that_the_store_does_not_have_are_passed_over() -> None:
    store = WindowStore({"acc": SHAPES["acc"]}, 2)
    store.add(window(1))
    assert list(store.arrays()) == ["acc"]


def test_a_window_that_does_not_fit_leaves_the_store_as_it_was() -> None:
    store = WindowStore(SHAPES, 2)
    store.add(window(1))
    with pytest.raises(SensorError, match=r"^a window's depth is missing, the store keeps \(2, 3, 3\); use one plan"):
        store.add(Window(start_s=2, arrays={"acc": np.zeros((4, 2), np.float32)}))
    wide = {**window(2).arrays, "depth": np.zeros((2, 3, 4), np.float32)}
    with pytest.raises(SensorError, match=r"^a window's depth has shape \(2, 3, 4\), the store keeps \(2, 3, 3\)"):
        store.add(Window(start_s=2, arrays=wide))
    assert store.total == 1
    assert store.arrays()["acc"].ravel().tolist() == [1] * 8


def test_a_store_of_nothing_is_refused() -> None:
    for shapes, capacity in ((SHAPES, 0), (SHAPES, -1), ({}, 5)):
        with pytest.raises(SensorError, match=r"holds nothing; name at least one of each$"):
            WindowStore(shapes, capacity)


def test_a_store_larger_than_any_memory_is_refused() -> None:
    with pytest.raises(SensorError, match=r"does not fit into the memory; keep fewer windows$"):
        WindowStore(SHAPES, 2**55)
