"""What inference takes on a wearable, measured: figures of every form; no time is asserted."""

import io
import json
from pathlib import Path

import pytest

from bench import wearable
from sensors.layouts import ACC
from sensors.simulator import DEPTH


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wearable, "SIMULATED_S", 90.0)
    monkeypatch.setattr(wearable, "EPOCHS", 1)
    monkeypatch.setattr(wearable, "QUICK_RUNS", 3)
    monkeypatch.setattr(wearable, "QUICK_TAIL", 5)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)


def test_every_form_of_an_encoder_is_measured(tmp_path: Path) -> None:
    figures = wearable.measure(ACC, "ordered", wearable.signals(tmp_path), runs=3, tail=5)
    assert (figures.encoder, figures.window, figures.new) == ("ordered static", (128, 3), 16 / 128)
    assert min(figures.eager_ms, figures.tail, figures.busy_tail, figures.stream_whole_ms, figures.stream_steps_ms) > 0
    for form in (figures.fp32, figures.int8, figures.step):
        assert 0 < form.low_ms <= form.median_ms <= form.high_ms
    assert figures.int8.size_bytes < 0.5 * figures.fp32.size_bytes
    assert figures.step.operations < 0.3 * figures.fp32.operations
    assert figures.int8.f1_lost is not None and figures.fp32.f1_lost is None


def test_it_is_shown_as_tables_and_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text, data = io.StringIO(), io.StringIO()
    monkeypatch.setattr(wearable, "SIGNALS", ())
    monkeypatch.setattr(wearable, "CAMERAS", (DEPTH,))
    assert wearable.show_wearable(data=tmp_path, as_json=False, quick=True, out=text) == 0
    assert text.getvalue().count("26 x 24 x 32") == 3
    assert "Signals are of the simulator." in text.getvalue()
    monkeypatch.setattr(wearable, "SIGNALS", ("narrow",))
    monkeypatch.setattr(wearable, "CAMERAS", ())
    assert wearable.show_wearable(data=tmp_path, as_json=True, quick=True, out=data) == 0
    told = json.loads(data.getvalue())["wearable"]
    assert [each["window"] for each in told] == [[128, 3], [128, 6]]
    assert [each["encoder"] for each in told] == ["narrow static"] * 2
