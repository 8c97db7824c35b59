"""Streams, labels, segments, recordings: what they must be, and how they are cut into blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import SensorError
from mekt.modality import Modality
from sensors.stream import Labels, Recording, Segment, Stream, as_labels, as_stream, class_names, stretches

ACC = Modality(name="acc", shape=(1,), rate_hz=50, unit="g")
MAG = Modality(name="mag", shape=(1,), rate_hz=10, unit="uT")


def stream(*times: float, modality: Modality = ACC) -> Stream:
    return Stream(modality=modality, t_s=np.array(times), values=np.array(times, np.float32)[:, None])


def segment(name: str, *streams: Stream) -> Segment:
    return Segment(name=name, streams={each.modality.name: each for each in streams})


def recording(label_names: dict[int, str], *segments: Segment) -> Recording:
    return Recording(name="r", segments=segments or (segment("s", stream(0, 1)),), label_names=label_names)


@pytest.mark.parametrize(
    ("times", "values", "message"),
    [
        ([0, 1], [[0.0]], "acc has times (2,) and values (1, 1), expected (n,) and (n, 1)"),
        ([0, 1], [[0.0, 0.0], [0.0, 0.0]], "acc has times (2,) and values (2, 2), expected (n,) and (n, 1)"),
        ([0, np.nan], [[0.0], [0.0]], "acc holds values that are not finite (NaN or infinity)"),
        ([0, 1], [[0.0], [np.inf]], "acc holds values that are not finite (NaN or infinity)"),
    ],
)
def test_a_stream_is_valid_or_not_made(times: list[float], values: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Stream(modality=ACC, t_s=np.array(times), values=np.array(values, np.float32))
    assert str(caught.value) == message


def test_a_stream_has_a_sample() -> None:
    with pytest.raises(ValueError, match=r"^acc has no samples$"):
        Stream(modality=ACC, t_s=np.empty(0), values=np.empty((0, 1), np.float32))


def test_labels_are_one_for_each_finite_instant() -> None:
    with pytest.raises(ValueError, match=r"^labels are \(1,\) at times \(2,\)"):
        Labels(t_s=np.zeros(2), values=np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"^labels have times that are not finite"):
        Labels(t_s=np.array([0, np.nan]), values=np.zeros(2, np.int64))


def test_arrays_of_a_file_that_hold_no_numbers_are_no_stream_and_no_labels() -> None:
    with pytest.raises(ValueError, match=r"^acc holds <U1 and float64 instead of numbers$"):
        as_stream(ACC, np.array(["a"]), np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"^labels are float64 at times float64, expected whole numbers"):
        as_labels(np.zeros(1), np.zeros(1))


def test_a_recording_has_a_segment() -> None:
    with pytest.raises(ValueError, match=r"^holds no segment$"):
        Recording(name="r", segments=(), label_names={})


def test_all_segments_have_the_same_modalities() -> None:
    with pytest.raises(ValueError, match=r"^segment b has other modalities than segment a$"):
        recording({}, segment("a", stream(0)), segment("b", stream(0), stream(0, modality=MAG)))


def test_a_recording_names_what_it_has_when_asked_for_what_it_has_not() -> None:
    both = recording({}, segment("a", stream(0), stream(0, modality=MAG)))
    assert both.modality("mag") == MAG
    with pytest.raises(SensorError, match=r"^r: has no modality gyro; it has acc, mag: name these$"):
        both.modality("gyro")
    with pytest.raises(SensorError, match=r"^r: has no modality gyro"):
        both.only(["acc", "gyro"])


def test_a_part_of_a_recording_has_the_modalities_named_in_their_order() -> None:
    both = recording({1: "walk"}, segment("a", stream(0), stream(0, modality=MAG)))
    assert both.only(["mag", "acc"]).modalities == (MAG, ACC)
    assert both.only(["mag"]).modalities == (MAG,)
    assert both.only(["mag"]).label_names == {1: "walk"}


def test_class_names_are_in_the_order_of_the_values_that_they_were_first_seen_with() -> None:
    first, second = recording({2: "sit", 1: "walk"}), recording({-1: "fall", 0: "sit", 1: "run", 7: "walk"})
    assert class_names([first]) == ("walk", "sit")
    assert class_names([first, second]) == ("fall", "run", "walk", "sit")
    assert class_names([recording({1: "walk", 2: "walk"})]) == ("walk",)
    assert class_names([recording({})]) == class_names([]) == ()


def test_stretches_are_runs_of_equal_values() -> None:
    assert list(stretches(np.array([3, 3, 1, 3], np.uint8))) == [(0, 2), (2, 3), (3, 4)]


TIMES = st.lists(st.floats(-1e6, 1e6).map(lambda each: round(each, 3)), min_size=1, max_size=30)


@given(TIMES, TIMES, st.floats(0.01, 1e4))
def test_blocks_hold_every_sample_once_in_its_order(acc: list[float], mag: list[float], block_s: float) -> None:
    both = segment("a", stream(*acc), stream(*mag, modality=MAG))
    blocks = list(both.blocks(["acc", "mag"], block_s))
    for name, times in (("acc", acc), ("mag", mag)):
        assert np.concatenate([each.t_s for each in blocks if each.modality == name]).tolist() == times
        values = np.concatenate([each.values for each in blocks if each.modality == name])
        np.testing.assert_array_equal(values, both.streams[name].values)


def test_blocks_of_several_modalities_alternate_span_by_span() -> None:
    both = segment("a", stream(*np.arange(0, 3, 0.5).tolist()), stream(0, 1, 2, modality=MAG))
    blocks = [(each.modality, each.t_s.tolist()) for each in both.blocks(["mag", "acc"], 1.0)]
    assert blocks == [
        *(("mag", [0]), ("acc", [0, 0.5])),
        *(("mag", [1]), ("acc", [1, 1.5])),
        *(("mag", [2]), ("acc", [2, 2.5])),
    ]


def test_a_clock_that_leaps_ahead_costs_no_empty_blocks() -> None:
    assert len(list(segment("a", stream(0, 1e11)).blocks(["acc"], 0.001))) == 2
