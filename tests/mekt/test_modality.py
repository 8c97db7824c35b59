"""Modalities, windows and scaling: shapes, rounding, bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.modality import Modality, Scaling, WindowSpec
from mekt.schema import SchemaError, build, plain

ACC = Modality(name="acc", shape=(3,), rate_hz=50, unit="g")
DEPTH = Modality(name="depth", shape=(48, 64), rate_hz=30, unit="m")


def test_a_signal_is_normalised_per_channel_and_a_frame_as_a_whole() -> None:
    assert (ACC.is_frames, ACC.channels) == (False, 3)
    assert (DEPTH.is_frames, DEPTH.channels) == (True, 1)


def test_a_window_has_its_span_times_the_rate_samples() -> None:
    spec = WindowSpec(window_s=2.56, stride_s=1.28)
    assert (spec.samples(ACC), spec.shape(ACC), spec.values(ACC)) == (128, (128, 3), 384)
    assert (spec.samples(DEPTH), spec.shape(DEPTH), spec.values(DEPTH)) == (77, (77, 48, 64), 77 * 48 * 64)


def test_a_stride_that_repeats_every_sample_hundreds_of_times_is_refused() -> None:
    assert WindowSpec(window_s=2.0, stride_s=0.02).stride_s == 0.02
    with pytest.raises(SchemaError, match=r"stride_s: 0\.001 s makes"):
        build(WindowSpec, {"window_s": 2.0, "stride_s": 0.001})


def test_a_window_is_never_empty() -> None:
    assert WindowSpec(window_s=0.001, stride_s=1).samples(ACC) == 1


@given(st.floats(0.01, 1000), st.floats(0.01, 10_000))
def test_samples_are_within_half_a_sample_of_the_span(window_s: float, rate_hz: float) -> None:
    modality = Modality(name="x", shape=(1,), rate_hz=rate_hz, unit="")
    samples = WindowSpec(window_s=window_s, stride_s=window_s).samples(modality)
    assert samples >= 1
    assert samples == 1 or abs(samples - window_s * rate_hz) <= 0.5


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "Acc"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a" * 17}, "name"),
        ({"shape": []}, "shape"),
        ({"shape": [1, 2, 3]}, "shape"),
        ({"shape": [0]}, "shape[0]"),
        ({"shape": [-1]}, "shape[0]"),
        ({"shape": [48, 1025]}, "shape[1]"),
        ({"rate_hz": 0}, "rate_hz"),
        ({"rate_hz": -50}, "rate_hz"),
        ({"unit": "u" * 17}, "unit"),
    ],
)
def test_a_modality_from_plain_data_is_bounded(change: dict[str, object], path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        build(Modality, plain(ACC) | change)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [path]


@pytest.mark.parametrize("std", [[0.0], [-1.0], []])
def test_a_deviation_is_positive_and_there_is_at_least_one(std: list[float]) -> None:
    with pytest.raises(SchemaError):
        build(Scaling, {"mean": [0.0], "std": std})


@pytest.mark.parametrize("value", [ACC, DEPTH, WindowSpec(window_s=2, stride_s=1), Scaling(mean=(0.5,), std=(2.0,))])
def test_build_undoes_plain(value: object) -> None:
    assert build(type(value), plain(value)) == value
