"""What is told of how samples come."""

import numpy as np
import pytest

from mekt.modality import Modality
from sensors.meter import MOST_SAMPLES, PLOTTED, SPAN_S, Meter
from sensors.source import Block

ACC = Modality(name="acc", shape=(3,), rate_hz=50.0, unit="g")
DEPTH = Modality(name="depth", shape=(4, 6), rate_hz=10.0, unit="m")


def block(t_s: list[float], modality: Modality = ACC, value: float = 1.0) -> Block:
    return Block(
        modality=modality.name, t_s=np.array(t_s), values=np.full((len(t_s), *modality.shape), value, np.float32)
    )


def test_nothing_is_told_of_nothing() -> None:
    meter = Meter(ACC)
    meter.take(block([]), 0.0)
    told = meter.figures()
    assert (told.samples, told.rate_hz, told.jitter_ms, told.low, told.high) == (0, 0.0, 0.0, 0.0, 0.0)
    assert np.isnan(meter.plotted()).all()


def test_an_even_stream_has_its_rate_no_jitter_and_nothing_missing() -> None:
    meter = Meter(ACC)
    for start in range(10):
        meter.take(block([start + each / 50 for each in range(50)]), start + 1.0)
    told = meter.figures()
    assert told.samples == 500 and told.missing == told.backward == 0
    assert told.rate_hz == pytest.approx(50.0) and told.jitter_ms == pytest.approx(0.0, abs=1e-6)
    assert told.gap_ms == pytest.approx(20.0) and told.delay_ms == pytest.approx(20.0)


def test_what_is_missing_goes_backward_or_lies_behind_a_gap_is_told_apart() -> None:
    meter = Meter(ACC)
    meter.take(block([0.0, 0.02, 0.10, 0.12, 0.11, 0.14]), 0.2)
    told = meter.figures()
    assert (told.samples, told.missing, told.backward) == (6, 3, 1)
    assert told.gap_ms == pytest.approx(80.0)
    meter.gap()
    meter.take(block([100.0, 100.02]), 100.1)
    assert (meter.figures().samples, meter.figures().missing, meter.figures().backward) == (8, 3, 1)


def test_the_figures_are_of_the_newest_seconds_and_memory_is_bounded() -> None:
    meter = Meter(ACC)
    meter.take(block([each / 10 for each in range(100)], value=9.0), 10.0)
    meter.take(block([10 + each / 50 for each in range(500)], value=1.0), 20.0)
    told = meter.figures()
    assert told.high == 1.0 and told.rate_hz == pytest.approx(50.0)
    fast = Meter(ACC)
    for _ in range(3):
        fast.take(block([0.0] * MOST_SAMPLES), 0.0)
    assert fast.figures().samples == 3 * MOST_SAMPLES and len(fast._recent) == MOST_SAMPLES


def test_frames_are_told_by_their_mean_and_a_plot_has_a_hole_where_nothing_came() -> None:
    meter = Meter(DEPTH)
    meter.take(block([0.0, 0.1], DEPTH, 2.0), 0.2)
    meter.take(block([SPAN_S - 0.1, SPAN_S], DEPTH, 3.0), SPAN_S)
    plot = meter.plotted()
    assert plot.shape == (PLOTTED, 1)
    assert plot[0, 0] == 2.0 and plot[-1, 0] == 3.0 and np.isnan(plot[10:40]).all()
    assert (meter.figures().low, meter.figures().high) == (2.0, 3.0)
