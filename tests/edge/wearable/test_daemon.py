"""The daemon of a wearable: decisions out of what is sensed, as long as something is."""

import io
import json
import logging
import queue
import re
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from edge.runtime import Decisions
from edge.wearable.daemon import OneRelease, Wearable, run_wearable
from edge.wearable.decisions import DecideSettings
from edge.wearable.readers import Readers, Sensed, SourceEnded
from edge.wearable.settings import HomeAssistantSettings, ReleaseSettings, WearableSettings, read_wearable
from edge.wearable.telling import Told
from export.release import Release, read_release
from mekt.errors import MektError, ReleaseError, SensorError, SettingsError
from mekt.modality import Modality
from mekt.process import Stop
from sensors.recording import write_recording
from sensors.simulator import simulate
from sensors.source import Block, Floats, Item
from tests.export.small import ACC, GYRO, LABELS, parts_of

SECONDS = 20
WINDOWS = 39


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wearable") / "ward-3.zip"
    parts_of(ACC, GYRO).write(path)
    write_recording(path.with_name("body.npz"), simulate(1, duration_s=SECONDS))
    return path


TABLE = """
repeat_s = 0
[[sensors]]
kind = "replay"
recordings = ["body.npz"]
modalities = ["acc", "gyro"]
speed = 1e6
[release]
file = "ward-3.zip"
"""


def settled(folder: Path, *more: str, table: str = TABLE) -> Path:
    path = folder / "wearable.toml"
    path.write_text("\n".join([table, *more]))
    return path


def said(config: Path, **more: Any) -> list[dict[str, Any]]:
    """What a run to the end of its recording prints."""
    out = io.StringIO()
    assert run_wearable(config, stop=Stop(), out=out, **more) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_window_is_decided_on_and_told_as_json(release: Path) -> None:
    lines = said(settled(release.parent, "[decide]", "least_s = 1"))
    assert len(lines) == WINDOWS
    assert all(each["modalities"] == ["acc", "gyro"] and each["latency_ms"] > 0 for each in lines)
    assert lines[0]["activity"] is None, "nothing is sure before the minimum duration"
    assert {each["activity"] for each in lines} <= {None, *LABELS}
    assert any(each["activity"] for each in lines)


def test_only_news_is_told_unless_it_is_asked_for_more(release: Path) -> None:
    every = [each["activity"] for each in said(settled(release.parent))]
    changes = [each for row, each in enumerate(every) if row == 0 or each != every[row - 1]]
    assert [each["activity"] for each in said(settled(release.parent, table=TABLE.replace("= 0", "= 60")))] == changes


def test_a_callback_is_told_the_same(release: Path) -> None:
    heard: list[Told] = []
    lines = said(settled(release.parent), callback=heard.append)
    assert [json.loads(each.json_line()) for each in heard] == lines
    quiet = settled(release.parent, table="stdout = false" + TABLE)
    assert said(quiet, callback=heard.append) == []
    assert len(heard) == 2 * WINDOWS


def test_a_class_that_the_release_does_not_have_is_refused_with_those_it_has(release: Path) -> None:
    config = settled(release.parent, "[decide.alarms]", "drown = { threshold = 0.5 }")
    with pytest.raises(SettingsError, match="no class drown; it has sit, stand, walk"):
        said(config)


def test_settings_without_a_sensor_that_the_release_knows_are_refused(release: Path) -> None:
    config = settled(release.parent, table=TABLE.replace('["acc", "gyro"]', '["depth"]'))
    with pytest.raises(SensorError, match="no sensor for any of the release's modalities acc, gyro"):
        said(config)


def test_a_keeper_that_has_nothing_yet_has_to_be_waited_for(release: Path) -> None:
    keeper = OneRelease(read_release(release))
    assert keeper.look(0.0) is not None
    with pytest.raises(ReleaseError, match="no release has come over the air yet"):
        said(settled(release.parent), keeper=keeper)


def test_a_broker_that_nothing_is_sent_to_is_refused(release: Path) -> None:
    with pytest.raises(SettingsError, match="nothing is sent there"):
        read_wearable(settled(release.parent, "[broker]", 'host = "10.0.0.1"'))


def test_a_certificate_is_used_once_at_one_broker(tmp_path: Path) -> None:
    """It is the name by which the broker knows a connection."""
    login = 'broker = { port = 1, tls = { ca = "ca.pem", certificate = "one.pem", key = "key.pem" } }'
    publish, updates = 'publish = { topic = "anna" }', '[updates]\nfederation = "ward"\ndevice = "wrist-7"'
    sensor = TABLE.partition("[release]")[0]
    with pytest.raises(SettingsError, match="each of the two connections would end the other"):
        read_wearable(settled(tmp_path, publish, sensor, updates, login, table=login))
    other = login.replace("one.pem", "other.pem")
    assert read_wearable(settled(tmp_path, publish, sensor, updates, login, table=other)).publish is not None


@dataclass
class Body:
    """A sensor of two modalities that does as it is told: each step gives samples, fails or waits."""

    steps: Sequence[Mapping[str, Any]]
    names: tuple[str, ...] = ("acc", "gyro")
    opened: int = 0
    step: int = 0
    now_s: float = 100.0
    kinds: tuple[Modality, ...] = field(default=(ACC, GYRO))

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return tuple(each for each in self.kinds if each.name in self.names)

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        """Nothing to do."""

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        if self.step >= len(self.steps):
            return None
        step = self.steps[self.step]
        self.step += 1
        if "error" in step:
            raise step["error"]
        if "wait" in step:
            step["wait"].wait(timeout_s)
            return []
        items: list[Item] = []
        for name in step.get("of", self.names):
            rate_hz = next(each.rate_hz for each in self.kinds if each.name == name)
            t_s = self.now_s + np.arange(int(step["s"] * rate_hz)) / rate_hz
            values = np.full((len(t_s), step.get("channels", 3)), step.get("value", 0.1), dtype=np.float32)
            items.append(Block(modality=name, t_s=t_s, values=values))
        self.now_s += step["s"]
        return items


@dataclass(frozen=True)
class BodySettings:
    body: Body

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.body.names

    def source(self, base: Path) -> Body:
        return self.body


def settings_of(*bodies: Body, **more: Any) -> WearableSettings:
    sensors = cast(Any, tuple(BodySettings(each) for each in bodies))
    return WearableSettings(sensors=sensors, release=ReleaseSettings(file="none"), repeat_s=0, **more)


class Keeper(OneRelease):
    """Gives the releases that it is told to, and remembers what it is told."""

    def __init__(self, first: Release, *later: Release) -> None:
        super().__init__(first)
        self.later = list(later)
        self.shapes: list[dict[str, tuple[int, ...]]] = []
        self.failures: list[str] = []
        self.times_sensed = 0
        self.windows_before = 4

    def look(self, now_s: float) -> Release | None:
        due = self.later and len(self.shapes) >= self.windows_before
        return self.later.pop(0) if due else super().look(now_s)

    def sensed(self) -> None:
        self.times_sensed += 1

    def saw(self, arrays: Mapping[str, Floats], decisions: Decisions, latency_ms: float) -> None:
        assert decisions.probabilities.shape == (1, len(LABELS))
        self.shapes.append({name: each.shape for name, each in arrays.items()})

    def failed(self, error: Exception) -> None:
        self.failures.append(str(error))


def run(settings: WearableSettings, keeper: OneRelease, stop: Stop | None = None) -> list[Told]:
    heard: list[Told] = []
    Wearable(settings, Path(), keeper, stop or Stop(), [heard.append], retry_s=0).run()
    return heard


def test_a_modality_that_stops_is_done_without_and_taken_up_again(
    release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both, alone = {"s": 1.0}, {"s": 1.0, "of": ("acc",)}
    body = Body(steps=[*[both] * 5, *[alone] * 8, *[both] * 5])
    heard = run(settings_of(body), OneRelease(read_release(release)))
    used = ["+".join(each.modalities) for each in heard]
    assert [each for row, each in enumerate(used) if row == 0 or each != used[row - 1]] == [
        "acc+gyro",
        "acc",
        "acc+gyro",
    ]
    warned = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert warned == ["without gyro: classifying by acc alone", "classifying by acc, gyro again"]


def test_a_source_that_fails_is_opened_again_and_complained_of_once(
    release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {"error": SensorError("acc: the bus is gone")}
    body = Body(steps=[{"s": 3.0}, broken, broken, broken, {"s": 3.0}, broken, {"s": 3.0}])
    heard = run(settings_of(body), OneRelease(read_release(release)))
    assert len(heard) == 15
    assert body.opened == 5
    assert len([each for each in caplog.records if "the bus is gone" in each.getMessage()]) == 2


def test_a_driver_that_raises_anything_ends_nothing(release: Path) -> None:
    body = Body(steps=[{"error": ZeroDivisionError("oh")}, {"s": 2.0}])
    assert len(run(settings_of(body), OneRelease(read_release(release)))) == 3


def test_it_ends_when_it_is_asked_to_though_nothing_is_sensed(release: Path) -> None:
    forever, stop = threading.Event(), Stop()
    body = Body(steps=[{"s": 2.0}, *[{"wait": forever}] * 1000])
    heard: list[Told] = []

    def end() -> None:
        stop.request()
        forever.set()

    def told(each: Told) -> None:
        heard.append(each)
        if len(heard) == 3:
            # As a signal would, later, while the loop waits.
            threading.Timer(0.2, end).start()

    Wearable(settings_of(body), Path(), OneRelease(read_release(release)), stop, [told]).run()
    assert len(heard) == 3


def test_silence_is_told_once_as_not_sure(release: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = Stop()
    decide = DecideSettings(gap_s=0.1, least_s=0, stay_s=0, enter=0.3, leave=0.1)
    body = Body(steps=[{"s": 4.0}, *[{"wait": threading.Event()}] * 1000])
    keeper = OneRelease(read_release(release))
    heard: list[Told] = []

    def told(each: Told) -> None:
        heard.append(each)
        if not each.modalities:
            stop.request()

    loop = Wearable(settings_of(body, decide=decide), Path(), keeper, stop, [told])
    loop._fitted = replace(loop._fitted, silent_s=0.3)
    loop.run()
    assert [each.decision.label is None for each in heard] == [False] * 7 + [True]
    assert [each.getMessage() for each in caplog.records if "no window for" in each.getMessage()] != []


def test_the_keeper_sees_every_window_and_what_was_said_of_it(release: Path) -> None:
    keeper = Keeper(read_release(release))
    heard = run(settings_of(Body(steps=[{"s": 1.0}] * 5)), keeper)
    assert len(keeper.shapes) == len(heard) == 9
    assert keeper.shapes[0] == {"acc": (1, 50, 3), "gyro": (1, 50, 3)}


class Models(dict[str, bytes]):
    """Models of which it can be seen whether anybody has them still."""


def test_nobody_keeps_the_bytes_of_models_that_there_are_sessions_of(release: Path) -> None:
    read = [read_release(release) for _ in range(2)]
    kept = [Models(each.models) for each in read]
    gone = [weakref.ref(each) for each in kept]
    keeper = Keeper(*(replace(each, models=models) for each, models in zip(read, kept, strict=True)))
    settings = settings_of(Body(steps=[{"s": 3.0}, {"s": 3.0}]), every_s=0.2)
    left: list[int] = []

    def told(_: Told) -> None:
        left.append(sum(each() is not None for each in gone))

    kept.clear()
    Wearable(settings, Path(), keeper, Stop(), [told]).run()
    assert left[0] == 1, "the second release is still to come"
    assert left[-1] == 0


def test_another_release_is_run_from_the_next_window_on(release: Path, tmp_path: Path) -> None:
    parts_of(ACC).write(tmp_path / "newer.zip")
    keeper = Keeper(read_release(release), read_release(tmp_path / "newer.zip"))
    heard = run(settings_of(Body(steps=[{"s": 3.0}, {"s": 3.0}])), keeper)
    assert {each.modalities for each in heard[:5]} == {("acc", "gyro")}
    assert {each.modalities for each in heard[5:]} == {("acc",)}
    assert keeper.failures == []


def test_a_release_that_cannot_be_run_is_reported_and_the_former_goes_on(release: Path) -> None:
    good = read_release(release)
    bad = Release(path=Path("bad"), manifest=good.manifest, models=dict.fromkeys(good.models, b"no model"))
    keeper = Keeper(good, bad)
    heard = run(settings_of(Body(steps=[{"s": 3.0}, {"s": 3.0}])), keeper)
    assert len(heard) == 11
    [failure] = keeper.failures
    assert "cannot be loaded" in failure


def test_a_window_that_the_release_fails_at_is_passed_over_and_complained_of_once(
    release: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> Decisions:
        raise ReleaseError("the session is gone")

    keeper = Keeper(read_release(release))
    settings = settings_of(Body(steps=[{"s": 1.0}] * 4))
    loop = Wearable(settings, Path(), keeper, Stop(), [])
    monkeypatch.setattr("edge.runtime.Runtime.classify", breaks)
    loop.run()
    assert len(keeper.failures) > 1
    assert len([each for each in caplog.records if "passed over" in each.getMessage()]) == 1


def test_a_sensor_that_is_broken_is_not_the_releases_fault(release: Path) -> None:
    """Neither is a sensor that fails again and again heard as one that senses, nor samples of another shape as both."""
    broken, odd = {"error": SensorError("acc: the bus is gone")}, {"s": 1.0, "channels": 2}
    noise = {"s": 1.0, "value": 3e38}
    keeper = Keeper(read_release(release))
    heard = run(settings_of(Body(steps=[{"s": 2.0}, *[broken] * 9, odd, noise, {"s": 2.0}])), keeper)
    assert len(heard) == 6
    assert (keeper.times_sensed, keeper.failures) == (4, [])


def test_who_cannot_be_told_is_complained_of_once_and_keeps_nobody_else_from_it(
    release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: Told) -> None:
        raise OSError("no space left on the device")

    heard: list[Told] = []
    keeper = Keeper(read_release(release))
    Wearable(settings_of(Body(steps=[{"s": 1.0}] * 4)), Path(), keeper, Stop(), [full, heard.append]).run()
    assert len(heard) == 7 and keeper.failures == []
    assert len([each for each in caplog.records if "no space left" in each.getMessage()]) == 1


def test_its_keeper_knows_whether_somebody_wanted_its_end(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[bool] = []

    class Asked(OneRelease):
        def close(self, *, is_fault: bool = False) -> None:
            faults.append(is_fault)

    def raising(error: Exception) -> Any:
        def run(_: Wearable) -> None:
            raise error

        return run

    config = settled(release.parent)
    said(config, keeper=Asked(read_release(release)))
    for error in (BrokenPipeError(), ZeroDivisionError()):
        monkeypatch.setattr(Wearable, "run", raising(error))
        with pytest.raises(type(error)):
            said(config, keeper=Asked(read_release(release)))
    assert faults == [False, False, True]


def test_it_ends_when_nobody_reads_what_it_says(release: Path) -> None:
    def closed(_: Told) -> None:
        raise BrokenPipeError

    keeper = Keeper(read_release(release))
    with pytest.raises(BrokenPipeError):
        Wearable(settings_of(Body(steps=[{"s": 1.0}] * 4)), Path(), keeper, Stop(), [closed]).run()
    assert keeper.failures == []


def test_an_alarm_is_in_the_line_with_its_beginning(release: Path) -> None:
    config = settled(
        release.parent, *("[decide.alarms]", *(f"{name} = {{ threshold = 0.34, hold_s = 5 }}" for name in LABELS))
    )
    lines = said(config)
    assert all(each["alarms"] for each in lines), "of three classes one has a third or more"
    first = lines[0]["alarms"][0]
    assert first["since"] <= lines[0]["time"]
    assert first["probability"] >= 0.34


def test_what_the_sources_of_the_release_before_had_still_given_is_passed_over(release: Path) -> None:
    keeper = Keeper(read_release(release))
    loop = Wearable(settings_of(Body(steps=[])), Path(), keeper, Stop(), [])
    others = Readers((), queue.Queue())
    block = Block(modality="acc", t_s=np.array([1.0]), values=np.zeros((1, 3), np.float32))
    for event in (Sensed(items=[block], by=others), SourceEnded(by=others)):
        loop._take(event)
    assert (keeper.times_sensed, loop._reading) == (0, 1)
    for event in (Sensed(items=[block], by=loop._readers), SourceEnded(by=loop._readers)):
        loop._take(event)
    assert (keeper.times_sensed, loop._reading) == (1, 0)


def test_home_assistant_does_not_give_a_wearable_up_between_two_windows(release: Path) -> None:
    home = HomeAssistantSettings(id="anna", name="Anna")
    settings = settings_of(Body(steps=[]), every_s=0.9, home_assistant=home)
    loop = Wearable(settings, Path(), OneRelease(read_release(release)), Stop(), [])
    assert loop._fitted.home is not None and loop._fitted.home.repeat_s == 0.9


def test_errors_of_the_settings_are_no_others(release: Path) -> None:
    with pytest.raises(MektError):
        said(release.parent / "none.toml")


def test_the_settings_of_the_papers_are_some(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "wearable.md").read_text(encoding="utf-8")
    [table] = re.findall(r"```toml\n(.*?)```", text, re.S)
    settings = read_wearable(settled(tmp_path, table=table))
    assert settings.decide.alarms["fall"].threshold == 0.7
    assert settings.release is not None and settings.release.file == str(tmp_path / "ward-3.zip")
    assert settings.broker is not None and settings.broker.tls is not None
    assert settings.broker.tls.ca == str(tmp_path / "ca.pem")


@pytest.mark.parametrize("more", ["", '[release]\nfile = "a.zip"\n[updates]\nfederation = "a"\ndevice = "b"'])
def test_a_release_is_named_or_comes_over_the_air_and_not_both(tmp_path: Path, more: str) -> None:
    sensor = '[[sensors]]\nkind = "simulator"\nsubject = 1\nmodalities = ["acc"]\n'
    with pytest.raises(SettingsError, match="one of both"):
        read_wearable(settled(tmp_path, table=sensor + more))
