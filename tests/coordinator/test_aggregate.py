"""The weighted mean of knowledge: by hand, and its laws."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coordinator.aggregate import Contribution, aggregate
from mekt.learning import Knowledge

Floats = NDArray[np.float32]


def array(*rows: Sequence[float]) -> Floats:
    return np.array(rows, dtype=np.float32)


NOTHING: dict[str, Floats] = {}


def contribution(device: str, windows: int, hidden: dict[str, Floats] = NOTHING, **embedding: Floats) -> Contribution:
    return Contribution(
        device=device,
        windows=windows,
        knowledge={name: Knowledge(embedding=each, hidden=hidden.get(name)) for name, each in embedding.items()},
    )


def bits(aggregated: dict[str, Knowledge]) -> dict[str, tuple[bytes, bytes | None]]:
    return {
        name: (each.embedding.tobytes(), None if each.hidden is None else each.hidden.tobytes())
        for name, each in aggregated.items()
    }


@st.composite
def fleets(draw: st.DrawFn) -> list[Contribution]:
    """Devices with all, some or one of three modalities, of any weight; some send hidden layers."""
    seed, hidden = draw(st.integers(0, 2**32 - 1)), draw(st.booleans())
    rng = np.random.default_rng(seed)
    fleet = []
    for number in range(draw(st.integers(1, 7))):
        names = draw(st.sets(st.sampled_from(["acc", "gyro", "depth"]), min_size=1))
        scale = 10.0 ** draw(st.integers(-6, 6))
        fleet.append(
            Contribution(
                device=f"pi-{number}",
                windows=draw(st.integers(1, 10**9)),
                knowledge={
                    name: Knowledge(
                        embedding=(scale * rng.normal(0, 1, (4, 3))).astype(np.float32),
                        hidden=rng.normal(0, 1, (4, 5)).astype(np.float32) if hidden else None,
                    )
                    for name in sorted(names)
                },
            )
        )
    return fleet


def test_unimodal_and_multimodal_devices_worked_by_hand() -> None:
    fleet = [
        contribution("pi-1", 1, acc=array([2, 0]), gyro=array([1, 1])),
        contribution("pi-2", 3, acc=array([6, 4])),
        contribution("pi-3", 2, gyro=array([4, -2])),
    ]
    found = aggregate(fleet)
    assert set(found) == {"acc", "gyro"}
    # acc: (1 * 2 + 3 * 6) / 4 and (0 + 3 * 4) / 4; gyro: (1 * 1 + 2 * 4) / 3 and (1 - 2 * 2) / 3.
    assert found["acc"].embedding.tolist() == [[5, 3]]
    assert found["gyro"].embedding.tolist() == [[3, -1]]


def test_a_lonely_device_is_its_own_aggregate() -> None:
    embedding = array([0.1, 1e-38], [3e38, -0.7])
    assert aggregate([contribution("pi-1", 7, acc=embedding)])["acc"].embedding.tobytes() == embedding.tobytes()


def test_nobody_gives_nothing() -> None:
    assert aggregate([]) == {}


def test_hidden_layers_are_averaged_where_every_device_sent_one() -> None:
    one = contribution("pi-1", 1, hidden={"acc": array([0, 4])}, acc=array([1]))
    other = contribution("pi-2", 3, hidden={"acc": array([4, 0])}, acc=array([1]))
    silent = contribution("pi-3", 1, acc=array([1]))
    hidden = aggregate([one, other])["acc"].hidden
    assert hidden is not None
    assert hidden.tolist() == [[3, 1]]
    assert aggregate([one, other, silent])["acc"].hidden is None


@given(fleets(), st.randoms())
def test_the_order_of_the_devices_never_changes_a_bit(fleet: list[Contribution], random: Random) -> None:
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert bits(aggregate(shuffled)) == bits(aggregate(fleet))


@given(fleets(), st.integers(1, 5))
def test_a_device_of_weight_w_equals_w_devices_of_weight_1(fleet: list[Contribution], weight: int) -> None:
    heavy, *others = fleet
    light = [Contribution(device=f"{heavy.device}-{n}", windows=1, knowledge=heavy.knowledge) for n in range(weight)]
    heavy = Contribution(device=heavy.device, windows=weight, knowledge=heavy.knowledge)
    others = [Contribution(device=each.device, windows=1, knowledge=each.knowledge) for each in others]
    one, other = aggregate([heavy, *others]), aggregate([*light, *others])
    assert one.keys() == other.keys()
    for name in one:
        largest = max(float(np.abs(each.knowledge[name].embedding).max()) for each in fleet if name in each.knowledge)
        np.testing.assert_allclose(one[name].embedding, other[name].embedding, rtol=1e-6, atol=1e-12 * largest)


@given(fleets(), st.integers(2, 1000))
def test_only_the_ratio_of_weights_counts(fleet: list[Contribution], factor: int) -> None:
    scaled = [
        Contribution(device=each.device, windows=factor * each.windows, knowledge=each.knowledge) for each in fleet
    ]
    for name, each in aggregate(scaled).items():
        there = aggregate(fleet)[name].embedding
        np.testing.assert_allclose(each.embedding, there, rtol=1e-6, atol=1e-12 * float(np.abs(there).max()) + 1e-9)


@given(fleets())
def test_the_mean_lies_between_the_devices_and_is_float32(fleet: list[Contribution]) -> None:
    for name, each in aggregate(fleet).items():
        all_of_them = np.stack([one.knowledge[name].embedding for one in fleet if name in one.knowledge])
        assert each.embedding.dtype == np.float32
        assert (each.embedding >= all_of_them.min(axis=0)).all()
        assert (each.embedding <= all_of_them.max(axis=0)).all()


def test_a_million_equal_devices_worth_of_weight_loses_nothing() -> None:
    # In float32 sums, 0.1 * 1e9 windows would be off in the third digit.
    fleet = [contribution(f"pi-{n}", 10**9, acc=array([0.1])) for n in range(50)]
    assert aggregate(fleet)["acc"].embedding.tolist() == array([0.1]).tolist()


@pytest.mark.parametrize("transposed", [True, False])
def test_the_memory_of_the_knowledge_does_not_matter(transposed: bool) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    given_ = np.asfortranarray(x) if transposed else x
    assert aggregate([contribution("a", 1, acc=given_), contribution("b", 1, acc=x)])["acc"].embedding.tolist() == (
        x.tolist()
    )


def test_what_was_learned_longer_ago_weighs_less() -> None:
    weights = [Contribution(device="a", windows=10, knowledge={}, age=age).weight for age in (0, 1, 3)]
    assert weights == pytest.approx([10.0, 10 / 2**0.5, 5.0])
