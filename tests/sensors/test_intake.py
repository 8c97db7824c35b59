"""Foreign samples into blocks: scaled, timed, and nothing but numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.clock import MOST_PIECES
from sensors.dropped import Dropped
from sensors.intake import Intake, Samples, one_time
from sensors.signals import Signal, TimeField
from sensors.source import Block, Gap, Item

ACC = Signal(name="acc", fields=("x", "y"), rate_hz=10, scale=(0.5, -2))
MAG = Signal(name="mag", fields=("m",), rate_hz=1)
MS = TimeField(field="t", unit="ms")


def samples(values: list[list[float]], times: list[float] | None = None) -> Samples:
    return Samples(values=np.array(values), times=None if times is None else np.array(times))


def times(items: list[Item]) -> list[list[float] | None]:
    return [each.t_s.round(6).tolist() if isinstance(each, Block) else None for each in items]


def test_values_are_multiplied_by_each_channels_scale() -> None:
    [block] = Intake([ACC], None, Dropped("s")).take(ACC, samples([[1, 1], [4, -3]]), 9.0)
    assert isinstance(block, Block)
    assert block.modality == "acc" and block.values.dtype == np.float32
    assert block.values.tolist() == [[0.5, -2], [2, 6]]


def test_without_times_samples_are_spread_and_each_signal_has_its_own_time() -> None:
    intake = Intake([ACC, MAG], None, Dropped("s"))
    assert times(intake.take(ACC, samples([[1, 1]] * 3), 9.0)) == [[8.8, 8.9, 9.0]]
    assert times(intake.take(MAG, samples([[1]] * 2), 9.05)) == [[8.05, 9.05]]
    assert times(intake.take(ACC, samples([[1, 1]] * 2), 9.1)) == [[9.05, 9.1]]


def test_times_are_in_their_unit_and_placed_on_our_clock() -> None:
    intake = Intake([ACC], MS, Dropped("s"))
    assert times(intake.take(ACC, samples([[1, 1]] * 2, [5000, 5100]), 80.0)) == [[79.9, 80.0]]
    assert times(intake.take(ACC, samples([[1, 1]], [5200]), 80.1)) == [[80.1]]


def test_times_are_earlier_by_a_signals_known_latency_with_stamps_and_without() -> None:
    slow = replace(ACC, latency_s=0.25)
    stamped, bare = Intake([slow], MS, Dropped("s")), Intake([slow], None, Dropped("s"))
    assert times(stamped.take(slow, samples([[1, 1]] * 2, [5000, 5100]), 80.0)) == [[79.65, 79.75]]
    assert times(bare.take(slow, samples([[1, 1]] * 2), 80.0)) == [[79.65, 79.75]]
    assert times(bare.take(slow, samples([[1, 1]] * 2), 80.2)) == [[79.85, 79.95]], "it does not add up"


def test_before_the_samples_of_a_clock_that_was_set_stands_a_gap() -> None:
    intake = Intake([ACC], MS, Dropped("s"))
    intake.take(ACC, samples([[1, 1]], [5000]), 80.0)
    items = intake.take(ACC, samples([[1, 1], [2, 2]], [5100, 10]), 80.1)
    assert times(items) == [[80.1], None, [80.1]]
    assert items[1] == Gap(modalities=("acc",))


def test_samples_that_are_no_numbers_are_counted_and_the_others_keep_their_times() -> None:
    dropped = Dropped("s")
    intake = Intake([ACC], MS, dropped)
    values: list[list[float]] = [[1, 1], [np.nan, 1], [3, 3], [4, 4], [3e38, 3e38], [6, 6]]
    items = intake.take(ACC, samples(values, [0, 100, 200, np.inf, 400, 500]), 9.0)
    assert times(items) == [[8.5, 8.7, 9.0]]
    [block] = items
    assert isinstance(block, Block) and block.values.tolist() == [[0.5, -2], [1.5, -6], [3, -12]]
    assert dropped.counts.total() == 3
    assert intake.take(ACC, samples([[np.inf, 0]], [600]), 9.1) == []


def test_times_that_jump_to_and_fro_are_no_clocks() -> None:
    dropped = Dropped("s")
    items = Intake([ACC], MS, dropped).take(
        ACC, samples([[1, 1]] * 4096, [200 * each for each in range(4096, 0, -1)]), 9.0
    )
    assert len(items) == 2 * MOST_PIECES - 1
    assert dropped.counts.total() == 4096 - sum(len(item.t_s) for item in items if isinstance(item, Block))


def test_one_time_for_many_samples_is_that_of_the_first_or_the_last() -> None:
    assert one_time(1000, 3, ACC, MS).tolist() == [800, 900, 1000]
    assert one_time(1000, 3, ACC, TimeField(field="t", unit="ms", of="first")).tolist() == [1000, 1100, 1200]
    assert one_time(7, 1, ACC, MS).tolist() == [7]


number = st.floats(width=64)


@given(st.lists(st.tuples(st.lists(st.tuples(number, number, number), max_size=5), st.floats(0, 1e3)), max_size=20))
def test_whatever_comes_every_sample_is_in_a_block_or_counted(
    steps: list[tuple[list[tuple[float, float, float]], float]],
) -> None:
    dropped, now_s, given_count = Dropped("s"), 0.0, 0
    intake = Intake([ACC], TimeField(field="t", bits=16), dropped)
    for rows, later_s in steps:
        now_s += later_s
        values = np.array([row[:2] for row in rows], dtype=np.float64).reshape(-1, 2)
        for item in intake.take(ACC, Samples(values=values, times=np.array([row[2] for row in rows])), now_s):
            if isinstance(item, Block):
                assert np.isfinite(item.values).all() and np.isfinite(item.t_s).all()
                given_count += len(item.t_s)
    assert given_count + dropped.counts.total() == sum(len(rows) for rows, _ in steps)


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [("acc", None, "g"), ("gyro", None, "rad/s"), ("acc", "m/s2", "m/s2"), ("co2", None, "")],
)
def test_a_signal_has_the_usual_unit_of_its_name_unless_it_says_another(
    name: str, unit: str | None, expected: str
) -> None:
    modality = Signal(name=name, fields=("1", "2", "3"), rate_hz=5, unit=unit).modality
    assert (modality.name, modality.shape, modality.rate_hz, modality.unit) == (name, (3,), 5, expected)


def test_a_signal_has_one_scale_or_one_for_each_field() -> None:
    with pytest.raises(ValueError, match=r"^scale: 2 numbers for 3 fields; give one, or one for each$"):
        Signal(name="acc", fields=("1", "2", "3"), rate_hz=5, scale=(1, 2))


def test_a_counters_width_is_a_span_in_its_unit() -> None:
    assert TimeField(field="t", unit="us", bits=32).wraps_s == pytest.approx(4294.967296)
    assert TimeField(field="t", unit="us").wraps_s is None
