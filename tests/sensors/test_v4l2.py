"""Cameras as sources: frames in, small frames out, whatever the driver does."""

import errno
import gc
import select
import tracemalloc
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.sensing import Sensing
from edge.settings import PrivateWindows
from mekt.errors import MektError, MissingPackageError, SensorError
from mekt.modality import Modality, WindowSpec
from mekt.schema import SchemaError, build, plain
from sensors.reduction import Reduction
from sensors.source import Block
from sensors.v4l2 import MOST_FRAMES, V4L2Settings, V4L2Source
from tests.sensors.videokernel import (
    DQBUF,
    ERROR,
    MONOTONIC,
    QBUF,
    QUERYBUF,
    REQBUFS,
    S_FMT,
    S_PARM,
    STREAMON,
    UNKNOWN,
    Camera,
    Shot,
    VideoKernel,
)
from tests.waiting import WAIT_S, until

TABLE: dict[str, Any] = {"kind": "v4l2", "content": "depth", "modality": "depth", "shape": [24, 32]}
SMALL = TABLE | {"shape": [3, 4], "width": 16, "height": 12}
PERIOD_S = 1 / 30


@pytest.fixture
def kernel(tmp_path: Path) -> VideoKernel:
    return VideoKernel(tmp_path)


def source(kernel: VideoKernel, **changes: Any) -> V4L2Source:
    return V4L2Source(build(V4L2Settings, SMALL | changes), kernel=kernel, dev=kernel.dev, clock=kernel.clock)


def depth(value: int, camera: Camera) -> bytes:
    """A frame in which every pixel is `value` millimetres away."""
    row = np.full(camera.size[0], value, dtype="<u2").tobytes() + bytes(camera.row_padding)
    return row * camera.size[1]


def small_camera(**changes: Any) -> Camera:
    return Camera(**({"size": (16, 12)} | changes))


def film(camera: Camera, values: list[int], first_s: float = 1000.1, **changes: Any) -> None:
    camera.shots.extend(
        Shot(depth(value, camera), first_s + number * PERIOD_S, **changes) for number, value in enumerate(values)
    )


def read(opened: V4L2Source, calls: int = 1) -> tuple[list[float], list[float]]:
    """Times and the values of each frame's first box."""
    blocks = [each for _ in range(calls) for each in opened.read(0.5) or () if isinstance(each, Block)]
    return (
        [float(t) for block in blocks for t in block.t_s],
        [round(float(image[0, 0]), 6) for block in blocks for image in block.values],
    )


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (TABLE | {"device": "/dev/video0"}, "device: /dev/video0 may be another camera after a restart"),
        (TABLE | {"device": "video3"}, "device: video3 may be another camera after a restart"),
        (TABLE | {"format": "yuyv"}, "format: yuyv holds no depth; expected one of z16, y16"),
        (TABLE | {"content": "grey", "format": "z16"}, "format: z16 holds no grey; expected one of grey, yuyv, uyvy"),
        (TABLE | {"format": "h264"}, "format: expected one of 'auto', 'z16'"),
        (TABLE | {"shape": [24]}, "shape: expected at least 2 entries, got 1"),
        (TABLE | {"shape": [481, 32]}, "shape: 640 x 480 pixels are too few for 32 x 481 values; ask for larger"),
        (TABLE | {"crop": [0.5, 0, 0.52, 1]}, "shape: 13 x 480 pixels are too few for 32 x 24 values"),
        (TABLE | {"crop": [0.5, 0, 0.4, 1]}, "crop: expected left, top, right and bottom edge as shares"),
        (TABLE | {"crop": [0.5, 0.5]}, "crop: expected left, top, right and bottom edge as shares"),
        (TABLE | {"crop": [0, 0, 1, 1.5]}, "crop[3]: expected at most 1, got 1.5"),
        (TABLE | {"fps": 0}, "fps: expected at least 0.1, got 0.0"),
        (TABLE | {"width": 100_000}, "width: expected at most 4096, got 100000"),
        (TABLE | {"scale": 0}, "scale: expected more than 0, got 0.0"),
        (TABLE | {"bits": 10}, "bits: are those of grey pixels of format y16"),
        (TABLE | {"content": "grey", "format": "grey", "bits": 10}, "bits: are those of grey pixels of format y16"),
    ],
)
def test_a_table_that_cannot_work_is_explained(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        build(V4L2Settings, table)
    assert [each[: len(problem)] for each in caught.value.problems] == [problem]


def test_a_table_becomes_settings_and_back_and_says_what_the_modality_is(kernel: VideoKernel) -> None:
    table = TABLE | {"device": "Eye", "crop": [0.1, 0, 0.9, 1], "fps": 15, "unit": "mm", "scale": 1, "format": "z16"}
    told = build(V4L2Settings, table)
    assert build(V4L2Settings, plain(told)) == told
    assert told.modalities == ("depth",)
    assert source(kernel).modalities == (Modality(name="depth", shape=(3, 4), rate_hz=30.0, unit="m"),)
    assert source(kernel, content="grey", modality="eye").modalities[0].unit == "1"
    assert source(kernel, unit="mm", fps=15).modalities[0].unit == "mm"


def test_depth_comes_in_metres_at_the_instants_of_the_driver(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1500, 0, 2500], stamp_s=None)
    for shot in camera.shots:
        shot.stamp_s = shot.arrives_s - 0.02
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    times, values = read(opened, 3)
    assert values == [1.5, 0.0, 2.5]
    assert times == pytest.approx([1000.08, 1000.08 + PERIOD_S, 1000.08 + 2 * PERIOD_S], abs=2e-6)
    assert (opened.lost, opened.damaged) == (0, 0)
    opened.close()
    assert kernel.leaks() == []


def test_a_step_of_depth_is_what_the_settings_say(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1600])
    kernel.plug(camera)
    opened = source(kernel, scale=0.125, unit="mm")
    opened.open()
    assert read(opened)[1] == [200.0]


@pytest.mark.parametrize("crop", [(), (0.25, 0.25, 1.0, 0.75)])
def test_a_frame_is_reduced_with_its_padding_left_out_and_cropped(kernel: VideoKernel, crop: tuple[float, ...]) -> None:
    camera = small_camera(row_padding=6, size=(18, 13))
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 4000, (13, 18 + 3), dtype=np.uint16)
    camera.shots.append(Shot(rows.astype("<u2").tobytes(), 1000.1))
    kernel.plug(camera)
    opened = source(kernel, crop=list(crop))
    opened.open()
    [block] = opened.read(1) or ()
    assert isinstance(block, Block)
    assert block.values.shape == (1, 3, 4)
    np.testing.assert_array_equal(block.values[0], Reduction((13, 18), (3, 4), crop).depth(rows[:, :18], 0.001))


@pytest.mark.parametrize("letters", ["GREY", "YUYV", "UYVY", "NV12", "YU12", "RGB3", "BGR3", "Y16 "])
@pytest.mark.parametrize("tells_stride", [True, False])
def test_every_format_gives_the_brightness_of_what_was_seen(
    kernel: VideoKernel, letters: str, tells_stride: bool
) -> None:
    camera = small_camera(formats=(letters,), tells_stride=tells_stride)
    bright = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    chroma = np.full_like(bright, 77)
    frames: dict[str, np.ndarray[Any, Any]] = {
        "GREY": bright,
        "YUYV": np.stack([bright, chroma], axis=2),
        "UYVY": np.stack([chroma, bright], axis=2),
        "NV12": np.concatenate([bright, chroma[:6]]),
        "YU12": np.concatenate([bright, chroma[:6]]),
        "RGB3": np.stack([bright] * 3, axis=2),
        "BGR3": np.stack([bright] * 3, axis=2),
        "Y16 ": bright.astype("<u2") * 257,
    }
    camera.shots.append(Shot(frames[letters].tobytes(), 1000.1))
    kernel.plug(camera)
    opened = source(kernel, content="grey", modality="eye")
    opened.open()
    [block] = opened.read(1) or ()
    assert isinstance(block, Block)
    expected = bright.reshape(3, 4, 4, 4).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(block.values[0], expected, atol=1e-6)


def test_the_preferred_format_is_asked_for_and_the_next_when_the_driver_gives_another(kernel: VideoKernel) -> None:
    camera = Camera(size=(16, 12), formats=("MJPG", "YUYV", "GREY"), gives_format="YUYV")
    kernel.plug(camera)
    opened = source(kernel, content="grey", width=20, height=14)
    opened.open()
    assert camera.asked == [(20, 14, "GREY"), (20, 14, "YUYV")]
    opened.close()
    camera.gives_format = "MJPG"
    opened = source(kernel, content="grey", format="grey")
    with pytest.raises(SensorError, match='camera "Depth Eye" was asked for grey and gives another format; name anot'):
        opened.open()
    assert kernel.leaks() == []


@pytest.mark.parametrize("error", [errno.ENOTTY, errno.EINVAL, errno.EBUSY])
def test_a_camera_that_refuses_a_rate_is_read_at_its_own(kernel: VideoKernel, error: int) -> None:
    camera = small_camera(refuses_rate=error)
    film(camera, [1000])
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    assert read(opened)[1] == [1.0]


def test_a_camera_that_gives_another_size_is_reduced_from_that(kernel: VideoKernel) -> None:
    camera = small_camera(size=(50, 20))
    film(camera, [1000])
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    assert read(opened)[1] == [1.0]
    opened.close()
    camera.size = (3, 3)
    with pytest.raises(SensorError, match="gives z16: 3 x 3 pixels are too few for 4 x 3 values; name another format"):
        opened.open()
    camera.size = (20_000, 20)
    with pytest.raises(SensorError, match="20000 x 20 pixels are more than 16384 on a side"):
        opened.open()
    assert kernel.leaks() == []


def test_of_a_camera_that_is_too_fast_frames_are_passed_over_and_enough_are_left(kernel: VideoKernel) -> None:
    camera = small_camera(rate=(1, 120))
    camera.shots.extend(Shot(depth(1000 + number, camera), 1000.1 + number / 120) for number in range(120))
    kernel.plug(camera)
    opened = source(kernel, fps=20)
    opened.open()
    times, values = read(opened, 130)
    steps = np.diff(times)
    assert 20 <= len(values) <= 41
    assert steps.min() >= 0.025 - 2e-6
    assert steps.max() <= 0.05
    assert (opened.lost, opened.damaged) == (0, 0)


def test_damaged_and_short_frames_are_counted_and_nothing_of_them_is_used(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1000, 2000, 3000, 4000, 5000])
    camera.shots[1].flags |= ERROR
    camera.shots[2].bytes_used = 16 * 12 * 2 - 1
    camera.shots[3].bytes_used = 0
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    assert read(opened, 5)[1] == [1.0, 5.0]
    assert (opened.lost, opened.damaged) == (0, 3)


def test_a_driver_that_claims_more_bytes_than_its_buffer_has_is_read_no_further(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1000], bytes_used=2**32 - 1)
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    assert read(opened)[1] == [1.0]


def test_lost_frames_are_counted_by_their_numbers_across_the_wrap(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1000, 2000, 3000])
    for shot, number in zip(camera.shots, (2**32 - 2, 1, 3), strict=True):
        shot.sequence = number
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    assert read(opened, 3)[1] == [1.0, 2.0, 3.0]
    assert opened.lost == 3


def test_a_reader_that_was_away_gets_what_the_buffers_hold_and_the_rest_is_lost(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, list(range(1000, 1020)))
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    kernel.now_s = 1000.1 + 10.5 * PERIOD_S
    assert read(opened)[1] == [1.0, 1.001, 1.002, 1.003]
    assert opened.lost == 0
    assert read(opened)[1] == [1.011]
    assert opened.lost == 7


def test_buffers_that_come_back_in_another_order_are_read_each_for_itself(kernel: VideoKernel) -> None:
    camera = small_camera(last_first=True)
    film(camera, [1000, 2000, 3000, 4000, 5000, 6000])
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    kernel.now_s = 1000.1 + 3.5 * PERIOD_S
    assert read(opened, 3)[1] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert (opened.lost, opened.damaged) == (0, 0)


def test_frames_that_overtake_each_other_keep_their_own_instants(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1000, 3000, 2000, 4000])
    for shot, number in zip(camera.shots, (0, 2, 1, 3), strict=True):
        shot.sequence, shot.stamp_s = number, 1000.05 + number * PERIOD_S
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    times, values = read(opened, 4)
    assert values == [1.0, 3.0, 2.0, 4.0]
    assert times == pytest.approx([1000.05 + number * PERIOD_S for number in (0, 2, 1, 3)], abs=2e-6)
    assert opened.lost == 0


@pytest.mark.parametrize("flags", [UNKNOWN, 0x4000])
def test_stamps_of_another_clock_are_mapped_onto_the_monotonic_one(kernel: VideoKernel, flags: int) -> None:
    camera = small_camera()
    film(camera, [1000] * 30, flags=flags)
    for number, shot in enumerate(camera.shots):
        # The wall clock, and every third frame is handed over late.
        shot.stamp_s = 1.7e9 + number * PERIOD_S
        shot.arrives_s += 0.02 if number % 3 else 0.0
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    times, _ = read(opened, 40)
    assert times == pytest.approx([1000.1 + number * PERIOD_S for number in range(30)], abs=2e-3)


def test_frames_show_what_was_a_known_latency_before_their_stamps(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1000] * 3)
    kernel.plug(camera)
    opened = source(kernel, latency_s=0.025)
    opened.open()
    assert read(opened, 3)[0] == pytest.approx([1000.075 + number * PERIOD_S for number in range(3)], abs=2e-6)


def test_stamps_that_are_nonsense_give_way_to_the_moments_of_arrival(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1000] * 5)
    for shot, stamp_s in zip(camera.shots, (0.0, 1e12, -5.0, 1000.0001, 1000.0001), strict=True):
        shot.stamp_s = stamp_s
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    expected = [1000.1 + number * PERIOD_S for number in range(5)]
    expected[3] = 1000.0001
    assert read(opened, 5)[0] == pytest.approx(expected, abs=2e-6)


def test_reading_waits_no_longer_than_told_and_gives_nothing_when_nothing_came(kernel: VideoKernel) -> None:
    kernel.plug(small_camera())
    opened = source(kernel)
    opened.open()
    assert opened.read(0.25) == ()
    assert opened.read(0) == ()
    assert list(kernel.waited_s) == [0.25, 0]
    assert kernel.now_s == 1000.25


class Hurry(VideoKernel):
    """Whenever a frame is asked for, the next one is there."""

    def ioctl(self, fd: int, request: int, argument: bytearray) -> None:
        self.now_s += PERIOD_S * (request == DQBUF)
        super().ioctl(fd, request, argument)


def test_one_call_gives_no_more_frames_than_it_may(tmp_path: Path) -> None:
    kernel, camera = Hurry(tmp_path), small_camera()
    film(camera, [1000] * 100, first_s=1000.0)
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    assert len(read(opened)[1]) == MOST_FRAMES
    assert len(read(opened)[1]) == MOST_FRAMES


@pytest.mark.parametrize("error", [errno.ENODEV, errno.EIO, errno.EPIPE])
def test_a_camera_that_fails_while_it_is_read_is_a_sensor_error(kernel: VideoKernel, error: int) -> None:
    camera = small_camera()
    film(camera, [1000, 2000])
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    assert read(opened)[1] == [1.0]
    camera.broken[DQBUF] = error
    with pytest.raises(SensorError, match=r'the camera "Depth Eye" at usb-.* \(.*/video0\): .*; plug it in again'):
        opened.read(0.5)
    opened.close()
    assert kernel.leaks() == []


def test_a_camera_that_was_unplugged_is_found_again_at_another_number(kernel: VideoKernel) -> None:
    camera, other = small_camera(), small_camera(card="Other", bus="usb-9")
    film(camera, [1000])
    kernel.plug(camera, "video0", link="usb-Eye_1-video-index0")
    opened = source(kernel, device="usb-Eye_1-video-index0")
    opened.open()
    assert read(opened)[1] == [1.0]
    kernel.unplug("video0")
    with pytest.raises(SensorError, match="No such device"):
        opened.read(0.5)
    opened.close()
    with pytest.raises(SensorError, match='no camera is called "usb-Eye_1-video-index0"; there is none'):
        opened.open()
    # Meanwhile another camera has taken its number.
    kernel.plug(other, "video0")
    again = small_camera()
    film(again, [2000], first_s=kernel.now_s + 0.1)
    kernel.plug(again, "video1", link="usb-Eye_1-video-index0")
    opened.open()
    assert read(opened)[1] == [2.0]
    assert other.owner is None
    opened.close()
    assert kernel.leaks() == []


@pytest.mark.parametrize("events", [select.POLLERR, select.POLLHUP, select.POLLNVAL])
def test_an_error_that_only_poll_tells_of_ends_reading(kernel: VideoKernel, events: int) -> None:
    camera = small_camera()
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    camera.events = events
    with pytest.raises(SensorError, match=f"it reports {events:#x} and has no frame"):
        opened.read(0.5)


def test_a_driver_that_cries_wolf_does_not_keep_a_core_busy(kernel: VideoKernel) -> None:
    camera = small_camera()
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    camera.events = select.POLLIN
    with pytest.raises(SensorError, match="it reports 0x1 and has no frame"):
        for _ in range(1000):
            assert opened.read(0.5) == ()


def test_a_camera_that_falls_silent_is_reported_so_that_it_is_opened_again(kernel: VideoKernel) -> None:
    camera = small_camera()
    film(camera, [1000])
    film(camera, [2000] * 30, first_s=1001.0, flags=MONOTONIC | ERROR)
    kernel.plug(camera)
    opened = source(kernel)
    opened.open()
    with pytest.raises(SensorError, match="gives no sound frame for 10 s, and 30 damaged ones before; check cable"):
        for _ in range(100):
            opened.read(0.5)
    assert 1010.1 <= kernel.now_s <= 1011.0


def test_a_slow_camera_is_given_the_time_that_it_needs(kernel: VideoKernel) -> None:
    kernel.plug(small_camera(rate=(10, 1)))
    opened = source(kernel, fps=0.1)
    opened.open()
    with pytest.raises(SensorError, match="gives no sound frame for 200 s"):
        for _ in range(1000):
            opened.read(0.5)


@pytest.mark.parametrize("request_", [S_FMT, REQBUFS, QUERYBUF, QBUF, STREAMON])
@pytest.mark.parametrize("error", [errno.EBUSY, errno.EIO, errno.ENODEV])
def test_whatever_fails_while_a_camera_is_opened_nothing_stays_open(
    kernel: VideoKernel, request_: int, error: int
) -> None:
    camera = small_camera(broken={request_: error})
    kernel.plug(camera)
    opened = source(kernel)
    with pytest.raises(SensorError, match="end what else uses it"):
        opened.open()
    assert kernel.leaks() == []
    camera.broken.clear()
    film(camera, [1000])
    opened.open()
    assert read(opened)[1] == [1.0]
    opened.close()
    assert kernel.leaks() == []


def test_a_camera_that_another_program_reads_is_in_use(kernel: VideoKernel) -> None:
    camera = small_camera()
    kernel.plug(camera)
    first, second = source(kernel), source(kernel)
    first.open()
    with pytest.raises(SensorError, match="Device or resource busy; plug it in again, end what else uses it"):
        second.open()
    first.close()
    second.open()
    second.close()
    assert kernel.leaks() == []


def test_reading_a_source_that_is_not_open_is_a_misuse_and_closing_it_twice_is_none(kernel: VideoKernel) -> None:
    kernel.plug(small_camera())
    opened = source(kernel)
    with pytest.raises(SensorError, match="the camera was not opened"):
        opened.read(0)
    opened.open()
    opened.open()
    opened.close()
    opened.close()
    assert kernel.leaks() == []
    assert (opened.lost, opened.damaged) == (0, 0)


def test_jpeg_pictures_are_read_where_a_decoder_is_there_and_damaged_ones_counted(kernel: VideoKernel) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    import io

    file = io.BytesIO()
    image.fromarray(np.full((12, 16), 102, dtype=np.uint8)).save(file, "JPEG", quality=95)
    camera = small_camera(formats=("MJPG",), buffer_bytes=4096)
    for number, data in enumerate((file.getvalue(), file.getvalue()[:-40], b"", file.getvalue())):
        camera.shots.append(Shot(data, 1000.1 + number * PERIOD_S))
    kernel.plug(camera)
    opened = source(kernel, content="grey")
    opened.open()
    assert read(opened, 4)[1] == pytest.approx([0.4, 0.4], abs=0.005)
    assert opened.damaged == 2


def test_without_a_decoder_a_camera_with_jpeg_alone_says_what_to_install(
    kernel: VideoKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL.JpegImagePlugin", None)
    with pytest.raises(MissingPackageError, match="need Pillow"):
        build(V4L2Settings, SMALL | {"content": "grey", "format": "mjpeg"}).source(kernel.dev)
    kernel.plug(small_camera(formats=("MJPG",)))
    with pytest.raises(SensorError, match=r"gives mjpeg: pictures in JPEG need Pillow.*pip install"):
        source(kernel, content="grey").open()
    assert kernel.leaks() == []


# Whatever a driver may answer to a frame.
shots = st.builds(
    Shot,
    data=st.binary(max_size=500),
    arrives_s=st.floats(1000, 1003),
    stamp_s=st.none() | st.floats(-1e9, 1e13),
    sequence=st.none() | st.integers(0, 2**32 - 1),
    flags=st.integers(0, 2**32 - 1),
    bytes_used=st.none() | st.integers(0, 2**32 - 1),
)


@given(
    films=st.lists(shots, max_size=30),
    formats=st.sampled_from([("Z16 ",), ("YUYV",), ("MJPG",), ("NV12", "RGB3")]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    padding=st.integers(0, 9),
    last_first=st.booleans(),
    buffers=st.none() | st.integers(0, 40),
    broken=st.dictionaries(st.sampled_from([S_FMT, S_PARM, REQBUFS, QUERYBUF, QBUF, STREAMON, DQBUF]), st.just(5)),
    unplugged_at=st.none() | st.integers(0, 10),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_driver_makes_reading_raise_anything_but_a_sensor_error_or_leak(
    tmp_path_factory: pytest.TempPathFactory,
    films: list[Shot],
    formats: tuple[str, ...],
    size: tuple[int, int],
    padding: int,
    last_first: bool,
    buffers: int | None,
    broken: dict[int, int],
    unplugged_at: int | None,
) -> None:
    kernel = VideoKernel(tmp_path_factory.mktemp("dev"))
    films.sort(key=lambda shot: shot.arrives_s)
    camera = Camera(
        formats=formats,
        size=size,
        row_padding=padding,
        last_first=last_first,
        buffers=buffers,
        broken=broken if len(broken) < 3 else {},
        shots=deque(films),
    )
    kernel.plug(camera)
    opened = source(kernel, content="depth" if formats == ("Z16 ",) else "grey")
    try:
        opened.open()
        for call in range(40):
            if call == unplugged_at:
                kernel.unplug()
            items = opened.read(0.1)
            assert items is not None
            for block in items:
                assert isinstance(block, Block)
                assert block.values.shape == (len(block.t_s), 3, 4)
                assert np.isfinite(block.values).all()
                assert ((block.t_s >= 999) & (block.t_s <= kernel.now_s + 0.1)).all()
    except MektError as error:
        assert isinstance(error, SensorError)
    opened.close()
    gc.collect()
    assert kernel.leaks() == []


def endless(camera: Camera, frames: int) -> Iterator[Shot]:
    whole = depth(1234, camera)
    for number in range(frames):
        yield Shot(whole, 1000.1 + number * PERIOD_S, flags=MONOTONIC | (ERROR if number % 7 == 3 else 0))


def test_thousands_of_frames_need_no_more_memory_than_a_hundred(kernel: VideoKernel) -> None:
    camera = Camera(size=(160, 120))
    kernel.plug(camera)
    opened = source(kernel, shape=[24, 32], width=160, height=120)
    opened.open()
    film_of = endless(camera, 5000)
    tracemalloc.start()
    try:
        peaks = []
        for part in range(5):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(100 if part == 0 else 1200):
                camera.shots.extend(shot for shot in [next(film_of, None)] if shot is not None)
                opened.read(0.5)
            gc.collect()
            now, peak = tracemalloc.get_traced_memory()
            peaks.append((now - before, peak - before))
    finally:
        tracemalloc.stop()
    # Nothing grows: what is left of a part is less than one small frame has, and never more than one frame at a time.
    assert all(grown < 24 * 32 * 4 for grown, _ in peaks[1:])
    assert all(peak < 2 * 160 * 120 * 2 for _, peak in peaks[1:])
    assert opened.damaged > 600


class Fate(VideoKernel):
    """Pulls the camera out after ten seconds, and plugs it in again where another number is free."""

    def wait(self, fd: int, timeout_s: float) -> int:
        if self.now_s > 1010 and (self.dev / "video0").exists():
            self.unplug("video0")
            again = small_camera()
            again.shots.extend(Shot(depth(2000, again), self.now_s + 5 + number / 10) for number in range(101))
            self.plug(again, "video7")
        return super().wait(fd, timeout_s)


def test_a_device_goes_on_sensing_when_its_camera_was_pulled_out_and_comes_back(tmp_path: Path) -> None:
    kernel, camera = Fate(tmp_path), small_camera()
    camera.shots.extend(Shot(depth(1000, camera), 1000 + number / 10) for number in range(101))
    kernel.plug(camera)
    opened = source(kernel, device="Depth Eye", fps=10)
    spec = WindowSpec(window_s=1.0, stride_s=1.0)
    sensing = Sensing(
        [opened],
        opened.modalities,
        spec,
        PrivateWindows(capacity=100, least=1),
        folder=tmp_path / "windows",
        enough=lambda: None,
        retry_s=0.01,
    )
    sensing.start()
    until(lambda: sensing.count >= 15)
    assert sensing.stop(WAIT_S)
    with sensing.hold().check() as held:
        windows = held.take(range(len(held)))["depth"]
    seen = [set(np.unique(window).round(6).tolist()) for window in windows]
    assert all(each in ({1.0}, {2.0}) for each in seen), "no window reaches from before into after"
    assert seen.count({1.0}) >= 5
    assert seen.count({2.0}) >= 5
    assert kernel.leaks() == []
