"""Cameras on a Raspberry Pi's ribbon cable, against a library that behaves as picamera2 documents and as it fails."""

import sys
import types
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mekt.errors import MissingPackageError, SensorError
from mekt.modality import Modality
from mekt.schema import SchemaError, build, plain
from sensors.picamera import PicameraSettings, PicameraSource, found
from sensors.settings import sensor_settings
from sensors.source import Block

TABLE: dict[str, Any] = {"kind": "picamera", "modality": "eye", "shape": [3, 4], "width": 16, "height": 12}
PLACE = "/base/axi/pcie@120000/rp1/i2c@80000/imx708@1a"
SLEPT_S = 3600.0


class Request:
    """A completed request, which is a buffer that the camera lacks until it is released."""

    def __init__(self, camera: "Library", luma: int, stamp_ns: object) -> None:
        self._camera, self._luma, self._stamp_ns, self._held = camera, luma, stamp_ns, True
        camera.held += 1

    def get_metadata(self) -> dict[str, object]:
        assert self._held
        return {"ExposureTime": 9000} | ({} if self._stamp_ns is None else {"SensorTimestamp": self._stamp_ns})

    def make_buffer(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        assert self._held
        if self._camera.broken_buffers:
            raise RuntimeError("buffer is gone")
        given = self._camera.given[name]
        rows, stride = given["size"][1], given["stride"]
        luma = np.full((rows, stride), 255, dtype=np.uint8)
        luma[:, : given["size"][0]] = self._luma
        whole = np.concatenate([luma.ravel(), np.full(rows * stride // 2, 128, dtype=np.uint8)])
        return whole[: self._camera.cut]

    def release(self) -> None:
        assert self._held, "released twice"
        self._held = False
        self._camera.held -= 1


class World:
    """The board: which cameras there are, what they will see, and the clock, which waiting lets go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.listed: list[dict[str, Any]] = [{"Model": "imx708", "Location": 2, "Id": PLACE, "Num": 0}]
        self.frames: deque[tuple[float, int, object]] = deque()  # When it comes, its luma, its stamp.
        self.cameras: list[Library] = []
        self.busy: Exception | None = None
        self.changes: dict[str, Any] = {}

    def clock(self) -> float:
        return self.now_s

    def library(self) -> Any:
        world = self

        class Bound(Library):
            def __init__(self, number: int) -> None:
                super().__init__(world, number)

            @staticmethod
            def global_camera_info() -> list[dict[str, Any]]:
                if world.busy is not None and not world.listed:
                    raise world.busy
                return world.listed

        return Bound


class Library:
    """The class Picamera2, as far as it is used."""

    def __init__(self, world: World, number: int) -> None:
        if world.busy is not None:
            raise RuntimeError("Camera __init__ sequence did not complete.") from world.busy
        self.world, self.number, self.held = world, number, 0
        self.given: dict[str, dict[str, Any]] = {}
        self.started = self.closed = self.flushed = False
        self.jobs: list[object] = []
        self.cut: int | None = None
        self.broken_buffers = False
        self.plan: dict[str, Any] = {}
        world.cameras.append(self)

    def create_preview_configuration(self, **options: Any) -> dict[str, Any]:
        return options

    def configure(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        width, height = plan["main"]["size"]
        self.given["main"] = {"size": (width, height), "format": plan["main"]["format"], "stride": 64 * -(-width // 64)}
        self.given["main"] |= self.world.changes

    def stream_configuration(self, name: str = "main") -> dict[str, Any]:
        return self.given[name]

    def start(self) -> None:
        assert self.given
        self.started = True

    def capture_request(self, wait: bool | None = None) -> object:
        assert self.started
        assert wait is False
        assert not self.jobs, "a second job waits behind the first"
        self.jobs.append(object())
        return self.jobs[0]

    def wait(self, job: object, timeout: float | None = None) -> Request:
        assert job in self.jobs
        assert timeout is not None
        if not self.world.frames or self.world.frames[0][0] > self.world.now_s + timeout:
            self.world.now_s += timeout
            raise TimeoutError
        at_s, luma, stamp_ns = self.world.frames.popleft()
        self.world.now_s = max(at_s, self.world.now_s)
        self.jobs.clear()
        if luma < 0:
            raise RuntimeError("Camera frontend has timed out!")
        return Request(self, luma, stamp_ns)

    def cancel_all_and_flush(self) -> None:
        self.jobs.clear()
        self.flushed = True

    def close(self) -> None:
        assert not self.jobs, "stopping would wait for ever"
        self.started, self.closed = False, True


def source(world: World, **changes: Any) -> PicameraSource:
    settings = build(PicameraSettings, TABLE | changes)
    return PicameraSource(settings, world.library(), clock=world.clock, slept=lambda: SLEPT_S)


def read(opened: PicameraSource, calls: int = 1) -> list[tuple[float, float]]:
    """Time and value of each frame, which has one value all over."""
    blocks = [each for _ in range(calls) for each in opened.read(0.5) or () if isinstance(each, Block)]
    for block in blocks:
        assert block.values.shape == (1, 3, 4)
        assert np.ptp(block.values) == 0
    return [(float(block.t_s[0]), round(float(block.values[0, 0, 0]), 6)) for block in blocks]


def test_a_table_becomes_settings_and_back_and_says_what_the_modality_is() -> None:
    settings = sensor_settings(TABLE | {"device": "imx708", "crop": [0, 0, 1, 0.5]})
    assert sensor_settings(plain(settings)) == settings
    assert settings.modalities == ("eye",)
    assert source(World()).modalities == (Modality(name="eye", shape=(3, 4), rate_hz=30.0, unit="1"),)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (TABLE | {"width": 17}, "width: 17 x 12 is odd; expected even numbers, as colours need them"),
        (TABLE | {"shape": [13, 4]}, "shape: 16 x 12 pixels are too few for 4 x 13 values; ask for larger frames"),
        (TABLE | {"crop": [1, 0, 0, 1]}, "crop: expected left, top, right and bottom edge as shares"),
    ],
)
def test_a_table_that_cannot_work_is_explained(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        build(PicameraSettings, table)
    assert [each[: len(problem)] for each in caught.value.problems] == [problem]


def test_brightness_comes_from_the_luma_without_its_padding() -> None:
    world = World()
    world.frames.extend([(1000.1, 51, None), (1000.2, 102, None)])
    opened = source(world, fps=20)
    opened.open()
    assert read(opened, 2) == [(1000.1, 0.2), (1000.2, 0.4)]
    [camera] = world.cameras
    assert camera.plan["main"] == {"size": (16, 12), "format": "YUV420"}
    assert camera.plan["raw"] is None
    assert camera.plan["controls"] == {"FrameDurationLimits": (50_000, 50_000)}
    assert camera.held == 0
    opened.close()
    assert camera.closed


@pytest.mark.parametrize("slept_s", [SLEPT_S, 0.0])
def test_a_frame_has_the_instant_of_the_sensor_on_the_monotonic_clock(slept_s: float) -> None:
    # The documented clock goes on while the machine sleeps, the one that drivers give does not.
    world = World()
    world.frames.append((1000.1, 51, round((1000.07 + slept_s) * 1e9)))
    opened = source(world)
    opened.open()
    [(at_s, _)] = read(opened)
    assert at_s == pytest.approx(1000.07)


def test_a_frame_shows_what_was_a_known_latency_before_its_stamp() -> None:
    world = World()
    world.frames.append((1000.1, 51, round((1000.07 + SLEPT_S) * 1e9)))
    opened = source(world, latency_s=0.02)
    opened.open()
    assert read(opened)[0][0] == pytest.approx(1000.05)


@pytest.mark.parametrize("stamp", [None, 0, 10**20, -5, "soon"])
def test_a_stamp_that_cannot_be_gives_way_to_the_moment_of_arrival(stamp: object) -> None:
    world = World()
    world.frames.append((1000.1, 51, stamp))
    opened = source(world)
    opened.open()
    assert read(opened) == [(1000.1, 0.2)]


def test_a_frame_that_is_late_is_waited_for_again_and_not_asked_for_twice() -> None:
    world = World()
    world.frames.append((1001.2, 51, None))
    opened = source(world)
    opened.open()
    assert opened.read(0.5) == ()
    assert opened.read(0) == ()
    assert world.now_s == 1000.5
    assert read(opened, 2) == [(1001.2, 0.2)]


def test_a_short_buffer_is_a_damaged_frame() -> None:
    world = World()
    world.frames.extend([(1000.1, 51, None), (1000.2, 102, None)])
    opened = source(world)
    opened.open()
    world.cameras[0].cut = 700
    assert opened.read(0.5) == ()
    assert opened.damaged == 1
    world.cameras[0].cut = None
    assert read(opened) == [(1000.2, 0.4)]
    assert world.cameras[0].held == 0


def test_a_request_is_released_whatever_becomes_of_it() -> None:
    world = World()
    world.frames.append((1000.1, 51, None))
    opened = source(world)
    opened.open()
    world.cameras[0].broken_buffers = True
    with pytest.raises(SensorError, match='the camera "imx708": buffer is gone; end what else uses it'):
        opened.read(0.5)
    assert world.cameras[0].held == 0


def test_a_camera_that_fails_is_a_sensor_error_and_opens_again() -> None:
    world = World()
    world.frames.extend([(1000.1, -1, None), (1000.2, 51, None)])
    opened = source(world)
    opened.open()
    with pytest.raises(SensorError, match="Camera frontend has timed out!"):
        opened.read(0.5)
    opened.close()
    opened.open()
    assert read(opened) == [(1000.2, 0.2)]
    assert [camera.closed for camera in world.cameras] == [True, False]


def test_a_silent_camera_is_reported_and_does_not_keep_closing_waiting() -> None:
    world = World()
    opened = source(world)
    opened.open()
    with pytest.raises(SensorError, match="gives no sound frame for 10 s"):
        for _ in range(100):
            opened.read(0.5)
    opened.close()
    assert (world.cameras[0].flushed, world.cameras[0].closed) == (True, True)
    opened.close()


def test_a_camera_is_found_by_what_stays_the_same_of_it_and_never_guessed() -> None:
    world = World()
    other = PLACE.replace("imx708", "imx219")
    world.listed = [
        {"Model": "Webcam", "Id": "/base/usb@1-1:1.0-046d:0825", "Num": 0},
        {"Model": "imx219", "Id": other, "Num": 2},
        {"Model": "imx708", "Id": PLACE, "Num": 1},
    ]
    with pytest.raises(SensorError, match=f'2 cameras could be meant; name one by model or place: "imx219" at {other}'):
        source(world).open()
    for device, number in (("imx708", 2), (PLACE, 2), ("imx219", 1)):
        opened = source(world, device=device)
        opened.open()
        assert world.cameras[-1].number == number
        opened.close()
    with pytest.raises(SensorError, match='no camera is called "Webcam"; there is "imx219" at'):
        source(world, device="Webcam").open()
    world.listed = []
    with pytest.raises(SensorError, match="no camera is there; there is none; switch the board off"):
        source(world).open()


def test_a_camera_in_use_or_of_another_format_or_too_small_is_refused_and_let_go() -> None:
    world = World()
    world.busy = RuntimeError("Device or resource busy")
    with pytest.raises(SensorError, match=r"did not complete\. \(Device or resource busy\); end what else uses it"):
        source(world).open()
    world.listed = []
    with pytest.raises(SensorError, match="libcamera does not say which cameras there are: Device or resource busy"):
        source(world).open()
    world = World()
    for changes, problem in (({"format": "MJPEG"}, "it gives MJPEG"), ({"size": (2, 2)}, "2 x 2 pixels are too few")):
        world.changes = changes
        with pytest.raises(SensorError, match=problem):
            source(world).open()
        assert world.cameras[-1].closed


def test_reading_a_source_that_is_not_open_is_a_misuse() -> None:
    with pytest.raises(SensorError, match="the camera was not opened"):
        source(World()).read(0)


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(MissingPackageError, match=r"needs picamera2, which is not installed .*; sudo apt install"):
        sensor_settings(TABLE).source(Path())


class Misbuilt(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        raise ValueError("numpy.dtype size changed")


def test_a_library_that_was_built_for_another_numpy_is_told_from_one_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", Misbuilt("picamera2"))
    with pytest.raises(MissingPackageError, match=r"does not work here \(numpy.dtype size changed\)") as caught:
        sensor_settings(TABLE).source(Path())
    assert caught.value.number == 803


def test_what_is_found_opens_the_camera_that_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib
    from importlib.machinery import ModuleSpec

    monkeypatch.setitem(sys.modules, "picamera2", None)
    assert found() == ()
    world = World()
    twin = PLACE.replace("80000", "88000")
    world.listed += [
        {"Model": "imx708", "Id": twin, "Num": 1},
        {"Model": "ov5647", "Id": "/base/ov5647@36", "Num": 2},
        {"Model": "Webcam", "Id": "/base/usb@1", "Num": 3},
    ]
    module = types.ModuleType("picamera2")
    module.__spec__ = ModuleSpec("picamera2", None)
    module.Picamera2 = world.library()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    there = found()
    assert [(each.kind, each.name) for each in there] == [
        ("picamera", PLACE),
        ("picamera", twin),
        ("picamera", "ov5647"),
    ]
    for each, number in zip(there, range(3), strict=True):
        [table] = tomllib.loads(each.toml)["sensors"]
        opened = sensor_settings(table).source(Path())
        opened.open()
        assert world.cameras[-1].number == number
        opened.close()
    world.listed, world.busy = [], RuntimeError("no camera manager")
    assert found() == ()
