"""`mekt sensors`: sources watched and recorded, with all that can go wrong with them."""

import io
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mekt.errors import SensorError, SettingsError
from mekt.modality import Modality
from mekt.process import Stop
from sensors import look
from sensors.found import Found
from sensors.look import reading, run_record, run_watch, show_list, sources_of
from sensors.recording import read_recording, write_recording
from sensors.simulator import MODALITIES, simulate
from sensors.source import Block, Gap, Item
from sensors.stream import Recording, Segment, Stream
from tests.sensors.test_shift import ACC as SHIFT_ACC
from tests.sensors.test_shift import DEPTH as SHIFT_DEPTH
from tests.sensors.test_shift import sensed

ACC = MODALITIES["acc"]


def config(folder: Path, *modalities: str, name: str = "a.npz") -> Path:
    write_recording(folder / name, simulate(1, seed=1, duration_s=6.0, modalities=modalities))
    path = folder / "device.toml"
    path.write_text(
        f'federation = "ward"\n[[sensors]]\nkind = "replay"\nspeed = 1e6\nrecordings = ["{name}"]\n'
        f"modalities = {json.dumps(modalities)}\n"
    )
    return path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken:
    """A sensor that is not there at first, gives something, is unplugged, and is back."""

    def __init__(self) -> None:
        self.modalities: tuple[Modality, ...] = (ACC,)
        self.calls: list[str] = []
        self.story: list[Any] = ["absent", 0.0, "unplugged", 1.0, None]

    def open(self) -> None:
        self.calls.append("open")
        if self.story[0] == "absent":
            self.story.pop(0)
            raise SensorError("acc: not there; plug it in")

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        step = self.story.pop(0)
        if step is None:
            return None
        if step == "unplugged":
            raise SensorError("acc: unplugged; plug it in")
        return (Block(modality="acc", t_s=np.array([step]), values=np.zeros((1, 3), np.float32)),)

    def close(self) -> None:
        self.calls.append("close")


def test_a_sensor_that_fails_is_opened_again_behind_a_gap_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(look, "RETRY_S", 0.0)
    source = Broken()
    given = [item for item, _ in reading([source], Stop()) if item is not None]
    assert [type(item).__name__ for item in given] == ["Block", "Gap", "Block"]
    assert source.calls == ["open", "close", "open", "close", "open", "close"]
    assert [each.message.split(";")[0] for each in caplog.records] == ["acc: not there", "acc: unplugged"]


def test_reading_ends_when_asked_to_and_after_its_time() -> None:
    class Silent(Broken):
        def open(self) -> None:
            pass

        def read(self, timeout_s: float) -> Sequence[Item] | None:
            return ()

    times = iter(range(100))
    turns = list(reading([Silent()], Stop(), 20.0, lambda: float(next(times))))
    assert 5 < len(turns) < 20
    stop = Stop()
    stop.request()
    assert list(reading([Silent()], stop)) == []


def test_a_watch_tells_rates_twice_a_second_and_at_the_end(tmp_path: Path) -> None:
    out = io.StringIO()
    assert (
        run_watch(config(tmp_path, "acc", "gyro"), modalities=(), seconds=None, as_json=True, out=out, stop=Stop()) == 0
    )
    last = json.loads(out.getvalue().splitlines()[-1])
    assert set(last) == {"acc", "gyro"}
    assert last["acc"]["samples"] == 300 and abs(last["acc"]["rate_hz"] - 50) < 0.1 and last["acc"]["missing"] == 0


def test_on_a_terminal_the_picture_is_drawn_over_itself_and_in_a_file_it_is_not(tmp_path: Path) -> None:
    path = config(tmp_path, "acc")
    for out, wanted in ((Terminal(), True), (io.StringIO(), False)):
        run_watch(path, modalities=("acc",), seconds=None, as_json=False, out=out, stop=Stop())
        text = out.getvalue()
        assert "50.00 Hz of 50" in text and "0 missing of 300" in text
        assert ("\x1b[4A" in text) == wanted and any(bar in text for bar in "▂▃▄▅▆▇")


def test_what_is_recorded_is_what_the_source_gave_and_can_be_replayed(tmp_path: Path) -> None:
    out, path = io.StringIO(), tmp_path / "new.npz"
    run_record(config(tmp_path, "acc", "depth"), path, modalities=(), seconds=None, out=out, stop=Stop())
    assert out.getvalue() == f"{path}: 300 samples of acc, 60 samples of depth in 1 segment\n"
    original, recorded = read_recording(tmp_path / "a.npz"), read_recording(path)
    for name, stream in original.segments[0].streams.items():
        np.testing.assert_array_equal(recorded.segments[0].streams[name].values, stream.values)
        np.testing.assert_array_equal(recorded.segments[0].streams[name].t_s, stream.t_s)
    with pytest.raises(SettingsError, match="is there already"):
        run_record(tmp_path / "device.toml", path, modalities=(), seconds=None, out=out, stop=Stop())


def test_a_recording_is_in_stretches_and_one_that_lacks_a_modality_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Two(Broken):
        def __init__(self) -> None:
            super().__init__()
            self.modalities = (ACC, MODALITIES["gyro"])

    def samples(name: str, first: float, bad: bool = False) -> Block:
        values = np.zeros((2, 3), np.float32)
        values[1, 0] = np.nan if bad else 0
        return Block(modality=name, t_s=np.array([first, first + 0.02]), values=values)

    kept = look._Kept([Two()])
    for item in (
        samples("acc", 0),
        samples("gyro", 0),
        Gap(modalities=("acc", "gyro")),
        Gap(modalities=("acc", "gyro")),
        samples("acc", 5),
        Gap(modalities=("acc", "gyro")),
        samples("acc", 9, True),
    ):
        kept.take(item)
    kept.take(samples("gyro", 9))
    with caplog.at_level(logging.WARNING):
        recording = kept.recording("two")
    assert [len(each.streams["acc"].t_s) for each in recording.segments] == [2, 1]
    assert "1 stretches without all of acc, gyro are left out" in caplog.text
    with pytest.raises(SensorError, match="nothing came of any sensor"):
        look._Kept([Two()]).recording("none")


def test_settings_that_cannot_work_are_named(tmp_path: Path) -> None:
    path = config(tmp_path, "acc")
    with pytest.raises(SettingsError, match=r"no sensor gives gyro; there are acc"):
        sources_of(path, ["gyro"])
    path.write_text('[[sensors]]\nkind = "replay"\nmodalities = ["acc"]\n')
    with pytest.raises(SettingsError, match=r"device.toml: sensors\[0\].recordings: a replay needs a path"):
        sources_of(path)
    path.write_text("")
    with pytest.raises(SettingsError, match=r"sensors: expected at least 1"):
        sources_of(path)


def test_what_was_found_is_shown_as_settings_and_as_json() -> None:
    found = [Found(kind="iio", name="accel_3d", text="an accelerometer", toml='[[sensors]]\nkind = "iio"\n')]
    out = io.StringIO()
    assert show_list(found, as_json=False, out=out) == 0
    assert out.getvalue() == '# an accelerometer\n[[sensors]]\nkind = "iio"\n'
    out = io.StringIO()
    show_list(found, as_json=True, out=out)
    assert json.loads(out.getvalue())[0]["name"] == "accel_3d"
    out = io.StringIO()
    show_list([], as_json=False, out=out)
    assert "No sensor is here" in out.getvalue()


def test_a_camera_that_shows_movements_late_is_told(tmp_path: Path) -> None:
    path, out = tmp_path / "device.toml", io.StringIO()
    tables = []
    for kind in (SHIFT_ACC, SHIFT_DEPTH):
        blocks = [each for each in sensed(3, 120, late_s=0.3) if each.modality == kind.name]
        t_s, values = (np.concatenate([getattr(each, part) for each in blocks]) for part in ("t_s", "values"))
        stream = Stream(modality=kind, t_s=t_s, values=values)
        segment = Segment(name="s", streams={kind.name: stream})
        write_recording(tmp_path / f"{kind.name}.npz", Recording(name="r", segments=(segment,), label_names={}))
        tables.append(
            f'[[sensors]]\nkind = "replay"\nspeed = 1e6\nrecordings = ["{kind.name}.npz"]\n'
            f'modalities = ["{kind.name}"]\n'
        )
    path.write_text("".join(tables))
    run_watch(path, modalities=(), seconds=None, as_json=False, out=out, stop=Stop())
    last = out.getvalue().splitlines()[-1]
    assert re.fullmatch(r"depth shows movements 0\.(28|30|32) s after acc does \(agreement 0\.\d\d over \d+ s\)", last)
