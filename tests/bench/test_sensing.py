"""What sensing takes, measured: figures of every kind, and windows that are all made."""

import io
import json
from pathlib import Path

import pytest

from bench import sensing
from bench.sensing import SPEC, measure, pace
from mekt.schema import plain

pytest.importorskip("cryptography")

# In real time, as long as the first window takes, and a little.
SIZES = {"hour_s": 40.0, "live_s": SPEC.window_s + 0.2}


def test_every_window_of_the_time_is_made_and_stored(tmp_path: Path) -> None:
    figures = measure((6, 8), tmp_path, **SIZES)
    assert figures.sensing_share > 0
    for played, seconds in ((figures.fast, SIZES["hour_s"]), (figures.live, SIZES["live_s"])):
        assert played.windows == int((seconds - SPEC.window_s) / SPEC.stride_s) + 1 and played.share > 0
        for each in (played.given, played.stored, played.busy):
            assert 0 < each.median_ms <= each.most_ms <= each.longest_ms
        assert played.stored.median_ms > played.given.median_ms
    assert json.loads(json.dumps(plain(figures)))["live"]["windows"] == 1
    assert all("6 x 8" in line and len(line.split("|")) == 10 for line in sensing._sensing_table([figures], 40.0)[2:4])


@pytest.mark.parametrize("sealed", [False, True])
def test_the_stores_pace_is_that_of_windows_of_a_known_size(sealed: bool, tmp_path: Path) -> None:
    seen = pace(tmp_path, sealed=sealed, frame=(6, 8), count=8, batch=4)
    assert seen.sealed == sealed and seen.mb == pytest.approx(4e-6 * (2560 * 8 + 77 * 48))
    assert min(seen.add_ms, seen.take_ms, seen.check_ms) > 0


@pytest.mark.parametrize("as_json", [False, True])
def test_it_is_shown_as_tables_or_as_json(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensing, "SIDES", () if as_json else ((6, 8),))
    monkeypatch.setattr(sensing, "QUICK", SIZES)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    out = io.StringIO()
    assert sensing.show_sensing(as_json=as_json, quick=True, out=out) == 0
    if as_json:
        assert [each["sealed"] for each in json.loads(out.getvalue())["store"]] == [False, True]
    else:
        assert out.getvalue().count("\n| ") == 7 and "6 x 8" in out.getvalue()
