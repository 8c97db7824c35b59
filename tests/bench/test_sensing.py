"""What sensing takes, measured: figures of every kind, and windows that are all made."""

import io
import json
from pathlib import Path

import pytest

from bench import sensing
from bench.sensing import SPEC, measure, pace

pytest.importorskip("cryptography")


def test_every_window_of_the_time_is_made_and_stored(tmp_path: Path) -> None:
    figures = measure((6, 8), tmp_path, hour_s=40.0, live_s=3.0)
    assert figures.windows == int((40.0 - SPEC.window_s) / SPEC.stride_s) + 1
    assert figures.busy_ms > 0 and 0 < figures.median_ms <= figures.most_ms <= figures.longest_ms
    assert figures.stored_ms > figures.median_ms and figures.fast_share > 0 and figures.live_share > 0


@pytest.mark.parametrize("sealed", [False, True])
def test_the_stores_pace_is_that_of_windows_of_a_known_size(sealed: bool, tmp_path: Path) -> None:
    seen = pace(tmp_path, sealed=sealed, frame=(6, 8), count=8, batch=4)
    assert seen.sealed == sealed and seen.mb == pytest.approx(4e-6 * (2560 * 8 + 77 * 48))
    assert min(seen.add_ms, seen.take_ms, seen.check_ms) > 0


def test_it_is_shown_as_tables_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensing, "SIDES", ((6, 8),))
    monkeypatch.setattr(sensing, "QUICK", {"hour_s": 20.0, "live_s": 3.0})
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    text, data = io.StringIO(), io.StringIO()
    assert sensing.show_sensing(as_json=False, quick=True, out=text) == 0
    assert sensing.show_sensing(as_json=True, quick=True, out=data) == 0
    told = json.loads(data.getvalue())
    assert len(told["sensing"]) == 1 and [each["sealed"] for each in told["store"]] == [False, True]
    assert text.getvalue().count("\n| ") == 6 and "6 x 8" in text.getvalue()
