"""Many devices' knowledge as one: by hand, and the laws of each way."""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coordinator.aggregate import Contribution, aggregate
from coordinator.round import Aggregator, RoundRules
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


# What holds against devices that err

ROBUST: tuple[Aggregator, ...] = ("trimmed-mean", "median", "geometric-median")
KINDS: tuple[Aggregator, ...] = ("mean", *ROBUST)


def alike(*values: Sequence[float], windows: Sequence[int] | None = None) -> list[Contribution]:
    """A device for each of these knowledges of one proxy window."""
    weights = windows or [1] * len(values)
    return [
        contribution(f"pi-{n}", weight, acc=array(value))
        for n, (value, weight) in enumerate(zip(values, weights, strict=True))
    ]


def found(kind: Aggregator, fleet: list[Contribution]) -> list[float]:
    [row] = aggregate(fleet, kind)["acc"].embedding.tolist()
    return list(row)


def test_every_aggregator_can_be_chosen() -> None:
    assert set(KINDS) == set(get_args(Aggregator)) and RoundRules().aggregator == "mean"


def test_the_median_is_of_each_coordinate_worked_by_hand() -> None:
    assert found("median", alike([1, 9], [2, 7], [6, 8])) == [2, 8]
    # Of four it is midway between the two in the middle.
    assert found("median", alike([1, 0], [2, 0], [4, 0], [9, 4])) == [3, 0]
    # Weights 1, 2, 2, 4 are 1, 2, 2, 2 where nobody counts for more than the median device; half of 7 is in the third.
    assert found("median", alike([1], [2], [3], [4], windows=[1, 2, 2, 4])) == [3]


def test_the_trimmed_mean_is_of_the_middle_third_worked_by_hand() -> None:
    assert found("trimmed-mean", alike([1], [2], [900])) == [2]
    # Of four, each third is a device and a third of the next: two thirds of 2 and two thirds of 4 are left.
    assert found("trimmed-mean", alike([-100], [2], [4], [100])) == pytest.approx([3])
    # Of five, 5/3 are cut at either end: a third of 2, all of 4 and a third of 9 are left.
    assert found("trimmed-mean", alike([-9e9], [2], [4], [9], [9e9])) == pytest.approx([(2 / 3 + 4 + 3) / (5 / 3)])


def test_the_geometric_median_of_four_corners_is_where_their_diagonals_cross() -> None:
    corners = alike([0, 0], [4, 0], [4, 2], [0, 2])
    assert found("geometric-median", corners) == pytest.approx([2, 1], abs=1e-5)
    # The nearest point to three corners of a right triangle with equal legs sees each side under 120 degrees.
    fermat = (3 - 3**0.5) / 6
    assert found("geometric-median", alike([0, 0], [1, 0], [0, 1])) == pytest.approx([fermat, fermat], abs=1e-5)
    # That began at a corner, which is the median. Where one angle is of 120 degrees or more, it is that corner.
    assert found("geometric-median", alike([0, 0], [5, 0.1], [-5, 0.1])) == pytest.approx([0, 0], abs=1e-4)


def test_the_geometric_median_is_of_the_whole_knowledge_and_not_of_each_row() -> None:
    rows = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    fleet = [contribution(f"pi-{n}", 1, acc=array(row, [9, 9])) for n, row in enumerate(rows)]
    alone = [contribution(f"pi-{n}", 1, acc=array(row)) for n, row in enumerate(rows)]
    np.testing.assert_allclose(
        aggregate(fleet, "geometric-median")["acc"].embedding[0],
        aggregate(alone, "geometric-median")["acc"].embedding[0],
        atol=1e-6,
    )
    apart = [contribution(f"pi-{n}", 1, acc=array(row, [9 - 8 * n, 0])) for n, row in enumerate(rows)]
    whole = aggregate(apart, "geometric-median")["acc"].embedding
    assert np.abs(whole[0] - aggregate(alone, "geometric-median")["acc"].embedding[0]).max() > 0.1


@given(fleets())
def test_no_point_that_is_tried_is_nearer_to_all_than_the_geometric_median(fleet: list[Contribution]) -> None:
    """Its sum of distances is the least, but for a thousandth: no device's own knowledge and no mix has less."""
    fleet = [replace(each, windows=1) for each in fleet]
    for name, each in aggregate(fleet, "geometric-median").items():
        sent = [one.knowledge[name].embedding.astype(np.float64) for one in fleet if name in one.knowledge]

        def whole(z: NDArray[Any], sent: list[NDArray[Any]] = sent) -> float:
            return sum(float(np.sqrt(np.square(x - z).sum())) for x in sent)

        others = [*sent, np.mean(sent, axis=0), np.median(sent, axis=0)]
        assert whole(each.embedding) <= (1 + 1e-3) * min(whole(z) for z in others)


@pytest.mark.parametrize("kind", KINDS)
def test_of_one_device_all_give_its_own_and_of_two_their_mean(kind: Aggregator) -> None:
    assert found(kind, alike([0.1, -3e38])) == array([0.1, -3e38])[0].tolist()
    assert found(kind, alike([1, 3], [2, 9])) == pytest.approx([1.5, 6])
    assert aggregate([], kind) == {}


@pytest.mark.parametrize("kind", ROBUST)
def test_of_three_one_may_err(kind: Aggregator) -> None:
    near = found(kind, alike([1, 1], [1.1, 0.9], [-1e30, 1e30]))
    assert near == pytest.approx([1, 1], abs=0.11)


@pytest.mark.parametrize("kind", ROBUST)
def test_a_device_that_claims_a_billion_windows_counts_as_the_median_device(kind: Aggregator) -> None:
    liar = alike([1], [1.2], [1.1], [900], windows=[100, 110, 90, 10**9])
    assert 1 <= found(kind, liar)[0] <= float(np.float32(1.2))
    assert found("mean", liar)[0] > 899
    # Even of two.
    assert found(kind, alike([1], [3], windows=[100, 10**9])) == [2]


@pytest.mark.parametrize("kind", KINDS)
@given(fleet=fleets(), random=st.randoms())
def test_in_no_aggregator_does_the_order_of_the_devices_change_a_bit(
    kind: Aggregator, fleet: list[Contribution], random: Random
) -> None:
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert bits(aggregate(shuffled, kind)) == bits(aggregate(fleet, kind))


@given(fleets(), st.sampled_from(ROBUST))
def test_what_holds_lies_between_the_devices_too_and_is_float32(fleet: list[Contribution], kind: Aggregator) -> None:
    for name, each in aggregate(fleet, kind).items():
        all_of_them = np.stack([one.knowledge[name].embedding for one in fleet if name in one.knowledge])
        slack = 1e-6 * np.abs(all_of_them).max()
        assert each.embedding.dtype == np.float32 and each.embedding.shape == (4, 3)
        assert (each.embedding >= all_of_them.min(axis=0) - slack).all()
        assert (each.embedding <= all_of_them.max(axis=0) + slack).all()


@st.composite
def spoiled(draw: st.DrawFn, most: float) -> tuple[list[Contribution], list[Contribution]]:
    """Honest devices, and others, fewer than the share `most` of all, that send anything and claim any weight."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    honest_count = draw(st.integers(2, 7))
    bad_count = draw(st.integers(0, math.ceil(most / (1 - most) * honest_count) - 1))
    middle = 10.0 ** draw(st.integers(-3, 3)) * rng.normal(0, 1, (4, 3))

    def one(name: str, values: NDArray[Any], windows: int) -> Contribution:
        return contribution(name, windows, acc=values.astype(np.float32))

    # Where all have as many windows, the weight of fewer devices is less.
    honest = [one(f"h-{n}", middle + rng.normal(0, 1, (4, 3)), 100) for n in range(honest_count)]
    size = 10.0 ** draw(st.integers(-2, 37))
    bad = [
        one(f"{'az'[n % 2]}-{n}", size * rng.choice([-1, 1, 0.5], (4, 3)), draw(st.sampled_from([100, 10**9])))
        for n in range(bad_count)
    ]
    return honest, bad


@given(spoiled(most=1 / 2))
def test_the_median_stays_among_the_honest_while_less_than_half_err(
    fleet: tuple[list[Contribution], list[Contribution]],
) -> None:
    honest, bad = fleet
    _among(honest, aggregate([*honest, *bad], "median"))


@given(spoiled(most=1 / 3))
def test_the_trimmed_mean_stays_among_the_honest_while_less_than_a_third_err(
    fleet: tuple[list[Contribution], list[Contribution]],
) -> None:
    honest, bad = fleet
    _among(honest, aggregate([*honest, *bad], "trimmed-mean"))


def _among(honest: list[Contribution], aggregated: dict[str, Knowledge]) -> None:
    all_of_them = np.stack([each.knowledge["acc"].embedding for each in honest])
    slack = 1e-6 * np.abs(all_of_them).max()
    assert (aggregated["acc"].embedding >= all_of_them.min(axis=0) - slack).all()
    assert (aggregated["acc"].embedding <= all_of_them.max(axis=0) + slack).all()


@given(spoiled(most=1 / 2))
def test_the_geometric_median_stays_near_the_honest_while_less_than_half_err(
    fleet: tuple[list[Contribution], list[Contribution]],
) -> None:
    """Within 2 (1 - s) / (1 - 2 s) times the farthest honest one of their centre, s the share that errs."""
    honest, bad = fleet
    share = len(bad) / (len(honest) + len(bad))
    exact = np.stack([each.knowledge["acc"].embedding.astype(np.float64) for each in honest])
    centre = exact.mean(axis=0)
    farthest = max(float(np.linalg.norm(each - centre)) for each in exact)
    off = float(np.linalg.norm(aggregate([*honest, *bad], "geometric-median")["acc"].embedding - centre))
    assert off <= (1 + 1e-3) * 2 * (1 - share) / (1 - 2 * share) * farthest + 1e-3


@pytest.mark.parametrize("kind", ROBUST)
def test_hidden_layers_are_combined_as_embeddings_are(kind: Aggregator) -> None:
    fleet = [
        contribution(f"pi-{n}", 1, hidden={"acc": array(value)}, acc=array(value))
        for n, value in enumerate(([1, 1], [2, 2], [9, -50]))
    ]
    combined = aggregate(fleet, kind)["acc"]
    assert combined.hidden is not None and combined.hidden.tolist() == combined.embedding.tolist()


@pytest.mark.parametrize("kind", ROBUST)
def test_how_many_values_are_held_at_once_changes_no_bit(kind: Aggregator, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    fleet = [contribution(f"pi-{n}", 1 + n, acc=rng.normal(0, 1, (50, 3)).astype(np.float32)) for n in range(5)]
    whole = bits(aggregate(fleet, kind))
    monkeypatch.setattr("coordinator.aggregate.VALUES_AT_ONCE", 40)
    assert bits(aggregate(fleet, kind)) == whole


def test_the_search_for_the_geometric_median_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded number of steps; a device on the way does not hold it up."""
    on_the_way = alike([0, 0], [1, 0], [2, 0], [3, 0.5], [-9e30, 9e30])
    full = found("geometric-median", on_the_way)
    monkeypatch.setattr("coordinator.aggregate.MOST_STEPS", 1000)
    assert found("geometric-median", on_the_way) == pytest.approx(full, abs=1e-3)
