"""A wearable's verdicts: a line for each window of what is sensed."""

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.infer import Verdict, _source, run_infer, verdicts
from edge.runtime import Runtime
from edge.turns import Turns
from edge.wearable.readers import Together
from export.bundle import pack, unpack
from export.release import read_release
from mekt.errors import ReleaseError, SensorError, SettingsError
from mekt.modality import Modality
from sensors.recording import write_recording
from sensors.replay import ReplaySource
from sensors.simulator import simulate
from sensors.source import Block, Gap, Item
from sensors.stream import Recording, Segment, Stream
from sensors.windows import windows_of
from tests.export.small import ACC, DEPTH, GYRO, LABELS, parts_of

SECONDS = 12.0
# Of one second each, one every half second.
WINDOWS = 23
BODY = simulate(1, duration_s=SECONDS)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("infer") / "release"
    parts_of(ACC, GYRO, DEPTH).write(path)
    return path


def recorded(path: Path, recording: Recording = BODY) -> Path:
    write_recording(path / "body.npz", recording)
    return path / "body.npz"


def infer(release: Path, source: Path, **options: Any) -> tuple[list[str], str]:
    """The lines of verdicts, and what is said beside them."""
    out, err = io.StringIO(), io.StringIO()
    assert run_infer(release, source, out=out, err=err, **options) == 0
    return out.getvalue().splitlines(), err.getvalue()


def told(line: str) -> tuple[float, str, float]:
    """A verdict without what differs from run to run."""
    verdict = json.loads(line)
    return verdict["start_s"], verdict["label"], verdict["probability"]


def stretched(modality: Modality, values_per_second: int, seconds: float) -> Stream:
    t_s = np.arange(int(seconds * values_per_second)) / values_per_second
    return Stream(modality=modality, t_s=t_s, values=np.ones((len(t_s), *modality.shape), dtype=np.float32))


def recording_of(*streams: Stream) -> Recording:
    segment = Segment(name="only", streams={each.modality.name: each for each in streams})
    return Recording(name="made", segments=(segment,), label_names={})


def test_every_window_gets_the_class_that_the_runtime_gives_it(release: Path, tmp_path: Path) -> None:
    lines, said = infer(release, recorded(tmp_path), as_json=True)
    read = read_release(release)
    windows = windows_of(BODY, read.manifest.modalities, read.manifest.window)
    expected = Runtime(read).classify(windows.arrays).best
    found = [json.loads(line) for line in lines]
    assert len(found) == len(expected) == WINDOWS
    assert [each["label"] for each in found] == [label for label, _ in expected]
    np.testing.assert_allclose([each["probability"] for each in found], [p for _, p in expected], atol=1e-5)
    assert [each["start_s"] for each in found] == [0.5 * index for index in range(len(found))]
    assert all(each["modalities"] == ["acc", "gyro", "depth"] and each["latency_ms"] > 0 for each in found)
    assert said == ""


def test_a_line_for_people_names_time_class_probability_latency_and_senses(release: Path, tmp_path: Path) -> None:
    lines, _ = infer(release, recorded(tmp_path))
    label = lines[3].split()[2]
    assert label in LABELS
    assert lines[3].startswith("      1.50 s  ")
    assert lines[3].endswith(" ms  acc, gyro, depth")
    verdict = Verdict(start_s=61.5, label="sit", probability=0.987, latency_ms=0.84, modalities=("acc",))
    assert verdict.text_line() == "     61.50 s  sit                       98.7%     0.8 ms  acc"


def test_what_a_source_lacks_is_said_and_does_without(release: Path, tmp_path: Path) -> None:
    lines, said = infer(release, recorded(tmp_path, BODY.only(["gyro"])), as_json=True)
    assert {tuple(json.loads(line)["modalities"]) for line in lines} == {("gyro",)}
    assert said == "without acc, depth: classifying by gyro alone\n"


def test_of_all_that_is_sensed_only_some_may_be_wanted(release: Path, tmp_path: Path) -> None:
    path = recorded(tmp_path)
    lines, said = infer(release, path, modalities=["acc"], as_json=True)
    assert {tuple(json.loads(line)["modalities"]) for line in lines} == {("acc",)}
    assert "classifying by acc alone" in said
    with pytest.raises(SensorError, match="rgb"):
        infer(release, path, modalities=["rgb"])


def test_a_sense_that_the_release_does_not_know_is_passed_over(release: Path, tmp_path: Path) -> None:
    mag = Modality(name="mag", shape=(3,), rate_hz=20.0, unit="uT")
    lines, _ = infer(release, recorded(tmp_path, recording_of(stretched(ACC, 50, 3), stretched(mag, 20, 3))))
    assert len(lines) == 5
    with pytest.raises(SensorError, match="senses none of the release's modalities acc, depth, gyro"):
        infer(release, recorded(tmp_path, recording_of(stretched(mag, 20, 3))))


def test_a_sensor_of_another_rate_is_resampled(release: Path, tmp_path: Path) -> None:
    fast = replace(ACC, rate_hz=80.0)
    lines, _ = infer(release, recorded(tmp_path, recording_of(stretched(fast, 80, 3))))
    assert len(lines) == 5


def test_a_settings_file_describes_a_source(release: Path, tmp_path: Path) -> None:
    recorded(tmp_path)
    (tmp_path / "replay.toml").write_text(
        '[[sensors]]\nkind = "replay"\nrecordings = ["body.npz"]\nmodalities = ["acc", "gyro"]\nspeed = 1e6\n'
    )
    by_file, said = infer(release, tmp_path / "replay.toml", as_json=True)
    assert said == "without depth, gyro: classifying by acc alone\n"
    only_gyro, _ = infer(release, tmp_path / "replay.toml", modalities=["gyro"], as_json=True)
    assert len(by_file) == len(only_gyro) == WINDOWS
    (tmp_path / "simulator.toml").write_text(
        '[[sensors]]\nkind = "simulator"\nsubject = 1\nmodalities = ["acc", "gyro", "depth"]\n'
        f"duration_s = {SECONDS}\nspeed = 1e6\n"
    )
    simulated, said = infer(release, tmp_path / "simulator.toml", as_json=True)
    assert [json.loads(each)["label"] for each in simulated] == [
        json.loads(each)["label"] for each in infer(release, tmp_path / "body.npz", as_json=True)[0]
    ]
    assert said == ""
    with pytest.raises(SensorError, match="the source has no rgb; it has acc, gyro, depth: name these"):
        infer(release, tmp_path / "simulator.toml", modalities=["acc", "rgb"])


def sensors_table(path: Path, recording: Recording, *modalities: str) -> str:
    name = f"{modalities[0]}.npz"
    write_recording(path / name, recording.only(modalities))
    return f'[[sensors]]\nkind = "replay"\nrecordings = ["{name}"]\nmodalities = {list(modalities)}\nspeed = 1e6\n'


def test_sensors_with_a_table_each_are_sensed_together(release: Path, tmp_path: Path) -> None:
    together, said = infer(release, recorded(tmp_path), as_json=True)
    tables = [sensors_table(tmp_path, BODY, *names) for names in (("gyro", "acc"), ("depth",))]
    (tmp_path / "body.toml").write_text("".join(tables))
    apart, said = infer(release, tmp_path / "body.toml", as_json=True)
    assert said == ""
    assert [told(line) for line in apart] == [told(line) for line in together]


def test_a_sensor_that_is_not_asked_is_not_even_opened(release: Path, tmp_path: Path) -> None:
    table = sensors_table(tmp_path, BODY, "acc")
    away = '[[sensors]]\nkind = "replay"\nrecordings = ["away.npz"]\nmodalities = ["{}"]\n'
    (tmp_path / "body.toml").write_text(table + away.format("rgb"))
    assert len(infer(release, tmp_path / "body.toml")[0]) == WINDOWS
    (tmp_path / "body.toml").write_text(table + away.format("gyro"))
    assert len(infer(release, tmp_path / "body.toml", modalities=["acc"])[0]) == WINDOWS
    with pytest.raises(SettingsError, match=r"away\.npz"):
        infer(release, tmp_path / "body.toml")
    with pytest.raises(SensorError, match=r"body\.toml: senses none of the release's modalities acc, depth, gyro"):
        infer(release, tmp_path / "body.toml", modalities=["rgb"])


TWICE = 2 * '[[sensors]]\nkind = "simulator"\nsubject = 1\nmodalities = ["acc"]\n'


@pytest.mark.parametrize("text", ["", TWICE, "sensors = 3\n", '[[sensors]]\nkind = "magic"\n'])
def test_a_settings_file_without_sensors_that_can_work_is_refused(release: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "source.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"source\.toml: sensors"):
        infer(release, tmp_path / "source.toml")


def test_a_playback_faster_than_real_time_gives_the_same_verdicts(release: Path, tmp_path: Path) -> None:
    path = recorded(tmp_path)
    played, _ = infer(release, path, speed=200.0, as_json=True)
    assert [told(line) for line in played] == [told(line) for line in infer(release, path, as_json=True)[0]]


@pytest.mark.parametrize(
    ("kind", "seen"),
    [(replace(ACC, unit="m/s^2"), r"\(3,\) in 'm/s\^2'"), (replace(ACC, shape=(2,)), r"\(2,\) in 'g'")],
)
def test_a_sensor_of_another_unit_or_shape_is_refused(release: Path, tmp_path: Path, kind: Modality, seen: str) -> None:
    with pytest.raises(SensorError, match=rf"acc: the source gives {seen}, the release was trained on \(3,\) in 'g'"):
        infer(release, recorded(tmp_path, recording_of(stretched(kind, 50, 3))))


def test_a_sensor_that_does_not_fit_may_be_left_out(release: Path, tmp_path: Path) -> None:
    other = replace(ACC, unit="m/s^2")
    path = recorded(tmp_path, recording_of(stretched(other, 50, 3), stretched(GYRO, 50, 3)))
    assert len(infer(release, path, modalities=["gyro"])[0]) == 5


def test_a_recording_too_short_for_a_window_is_an_error(release: Path, tmp_path: Path) -> None:
    with pytest.raises(SensorError, match=r"body\.npz: gave no window; it must sense 1 s or more without a hole"):
        infer(release, recorded(tmp_path, recording_of(stretched(ACC, 50, 0.9))))


def test_no_window_reaches_across_a_gap(release: Path, tmp_path: Path) -> None:
    halves = [Segment(name=name, streams={"acc": stretched(ACC, 50, 0.9)}) for name in ("one", "two")]
    with pytest.raises(SensorError, match="gave no window"):
        infer(release, recorded(tmp_path, Recording(name="halves", segments=tuple(halves), label_names={})))


class Played:
    """A source that gives these items, one a call."""

    modalities: tuple[Modality, ...] = (ACC, GYRO, DEPTH)

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)

    def open(self) -> None:
        pass

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        item = next(self._items, None)
        return None if item is None else (item,)

    def close(self) -> None:
        pass


def without(name: str, begin_s: float, end_s: float) -> list[Block]:
    """The body in blocks, whose modality `name` is away for a while."""
    blocks = BODY.segments[0].blocks(["acc", "gyro", "depth"], 0.25)
    return [each for each in blocks if each.modality != name or not begin_s <= float(each.t_s[0]) < end_s]


def test_a_modality_that_stops_is_done_without_until_it_is_back_which_is_said_once_each(release: Path) -> None:
    err = io.StringIO()
    told = list(verdicts(read_release(release), Played(without("depth", 4.0, 8.0)), err))
    assert [each.start_s for each in told] == [0.5 * index for index in range(WINDOWS)]
    whole, rest = ("acc", "gyro", "depth"), ("acc",)
    assert [each.modalities for each in told] == [rest if 3 < each.start_s < 8 else whole for each in told]
    alone = verdicts(read_release(release), ReplaySource(BODY, ["acc"], speed=math.inf), io.StringIO())
    by_acc = {each.start_s: (each.label, round(each.probability, 5)) for each in alone}
    assert all(by_acc[each.start_s] == (each.label, round(each.probability, 5)) for each in told[7:16])
    assert err.getvalue() == ("without depth, gyro: classifying by acc alone\nclassifying by acc, gyro, depth again\n")


def test_a_gap_of_one_modality_leaves_the_verdicts_by_the_others(release: Path) -> None:
    blocks = without("depth", 0, 0)
    late = next(place for place, each in enumerate(blocks) if each.modality == "depth" and each.t_s[0] >= 4)
    told = list(
        verdicts(
            read_release(release),
            Played([*blocks[:late], Gap(modalities=("depth",)), *blocks[late:]]),
            io.StringIO(),
        )
    )
    assert [each.start_s for each in told] == [0.5 * index for index in range(WINDOWS)]
    assert {each.start_s for each in told if each.modalities == ("acc",)} == {3.5}


def test_live_sources_do_not_wait_for_each_other_and_played_ones_take_turns(release: Path, tmp_path: Path) -> None:
    recorded(tmp_path)
    table = '[[sensors]]\nkind = "replay"\nrecordings = ["body.npz"]\nmodalities = ["{}"]\nlive = {}\n'
    for lives, kind in ((("true", "true"), Together), (("true", "false"), Together), (("false", "false"), Turns)):
        text = "".join(table.format(name, live) for name, live in zip(("acc", "gyro"), lives, strict=True))
        (tmp_path / "live.toml").write_text(text)
        assert type(_source(tmp_path / "live.toml", read_release(release).manifest, None, 0.0)) is kind


def test_a_damaged_release_says_nothing_at_all(release: Path, tmp_path: Path) -> None:
    copy = tmp_path / "release"
    copy.write_bytes(pack({**unpack(release.read_bytes()), "encoder-gyro.onnx": b"x"}))
    out = io.StringIO()
    with pytest.raises(ReleaseError, match=r"encoder-gyro\.onnx"):
        run_infer(copy, recorded(tmp_path), out=out)
    assert out.getvalue() == ""


def test_a_recording_that_is_not_there_is_named(release: Path, tmp_path: Path) -> None:
    with pytest.raises(SensorError, match=r"nowhere\.npz"):
        infer(release, tmp_path / "nowhere.npz")


def test_the_source_is_closed_when_nobody_listens_any_more(release: Path) -> None:
    source = ReplaySource(BODY, ["acc"], speed=math.inf)
    told = verdicts(read_release(release), source, io.StringIO())
    assert next(told).start_s == 0
    told.close()  # type: ignore[attr-defined]
    assert source.read(0) is None
