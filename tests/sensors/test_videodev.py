"""Video devices as Linux has them: structures and numbers to the byte, every request, whatever drivers answer."""

import ctypes
import errno
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from sensors import videodev
from sensors.videodev import VideoDevice
from tests.sensors import videokernel
from tests.sensors.videokernel import Camera, Shot, VideoKernel

REQUESTS = ("QUERYCAP", "ENUM_FMT", "S_FMT", "S_PARM", "REQBUFS", "QUERYBUF", "QBUF", "DQBUF", "STREAMON", "STREAMOFF")
STRUCTURES = {
    "v4l2_capability": (videodev.CAPABILITY, videokernel.Capability),
    "v4l2_fmtdesc": (videodev.FORMAT_DESCRIPTION, videokernel.FormatDescription),
    "v4l2_format": (videodev.FORMAT, videokernel.Format),
    "v4l2_streamparm": (videodev.STREAM_PARAMETERS, videokernel.StreamParameters),
    "v4l2_requestbuffers": (videodev.REQUEST_BUFFERS, videokernel.RequestBuffers),
    "v4l2_buffer": (videodev.BUFFER, videokernel.Buffer),
}


@pytest.fixture
def kernel(tmp_path: Path) -> VideoKernel:
    return VideoKernel(tmp_path)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_has_the_number_that_a_compiler_makes_of_the_header(name: str) -> None:
    assert getattr(videodev, name) == getattr(videokernel, name)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_is_as_long_as_c_lays_it_out(name: str) -> None:
    ours, theirs = STRUCTURES[name]
    assert ours.size == ctypes.sizeof(theirs)


@pytest.mark.skipif(
    not shutil.which("cc") or not Path("/usr/include/linux/videodev2.h").exists(), reason="no compiler or no header"
)
def test_this_machines_own_header_says_the_same(tmp_path: Path) -> None:
    prints = [f'printf("%lu\\n", (unsigned long)VIDIOC_{name});' for name in REQUESTS]
    prints += [f'printf("%lu\\n", (unsigned long)sizeof(struct {name}));' for name in STRUCTURES]
    fields = ("bytesused", "flags", "timestamp", "sequence", "memory", "m", "length", "reserved2")
    prints += [f'printf("%lu\\n", (unsigned long)offsetof(struct v4l2_buffer, {name}));' for name in fields]
    source = "#include <stdio.h>\n#include <stddef.h>\n#include <linux/videodev2.h>\nint main(void) {" + "".join(prints)
    (tmp_path / "asks.c").write_text(source + "return 0; }\n")
    subprocess.run(["cc", "-o", tmp_path / "asks", tmp_path / "asks.c"], check=True)
    told = subprocess.run([tmp_path / "asks"], check=True, capture_output=True, text=True).stdout.split()
    expected = [getattr(videodev, name) for name in REQUESTS]
    expected += [ours.size for ours, _ in STRUCTURES.values()]
    expected += [getattr(videokernel.Buffer, name).offset for name in fields]
    assert [int(each) for each in told] == expected


def test_a_device_says_who_it_is_and_text_that_could_spoil_a_log_is_replaced(kernel: VideoKernel) -> None:
    path = kernel.plug(Camera(card="Eye\n\x1b[31mred", bus="usb-1"))
    device = VideoDevice(str(path), kernel)
    told = device.capability()
    assert (told.card, told.bus, told.captures) == ("Eye??[31mred", "usb-1", True)
    device.close()


@pytest.mark.parametrize(
    ("camera", "captures"),
    [
        (Camera(), True),
        (Camera(tells_node=False), True),
        (Camera(capabilities=videokernel.META_CAPTURE | videokernel.STREAMING), False),
        (Camera(capabilities=videokernel.CAPTURE), False),
    ],
)
def test_only_what_streams_pictures_from_this_node_captures(
    kernel: VideoKernel, camera: Camera, captures: bool
) -> None:
    device = VideoDevice(str(kernel.plug(camera)), kernel)
    assert device.capability().captures is captures
    device.close()


def test_a_device_is_asked_for_its_formats_until_it_has_no_more(kernel: VideoKernel) -> None:
    device = VideoDevice(str(kernel.plug(Camera(formats=("YUYV", "MJPG")))), kernel)
    assert list(device.formats()) == [0x56595559, 0x47504A4D]
    device.close()


def test_what_a_device_gives_is_what_it_says_and_not_what_was_asked(kernel: VideoKernel) -> None:
    camera = Camera(size=(320, 180), row_padding=64, rate=(1, 15))
    device = VideoDevice(str(kernel.plug(camera)), kernel)
    picture = device.ask_for(640, 480, videodev.code_of("Z16 "))
    assert (picture.width, picture.height, picture.code, picture.stride) == (320, 180, 0x2036315A, 704)
    assert device.ask_for_rate(30) == 15
    assert camera.asked == [(640, 480, "Z16 ")]
    assert camera.asked_rates == [30]
    device.close()


def test_a_frame_has_the_bytes_the_instant_and_the_number_that_the_driver_gave_it(kernel: VideoKernel) -> None:
    camera = Camera(shots=deque([Shot(b"abcdef", 1001.25, stamp_s=1001.234567, sequence=4_294_967_295)]))
    device = VideoDevice(str(kernel.plug(camera)), kernel)
    device.start(4)
    assert device.take() is None
    assert device.wait(5) == 1
    filled = device.take()
    assert filled is not None
    assert (filled.index, filled.size_bytes, filled.damaged, filled.monotonic) == (0, 6, False, True)
    assert (filled.stamp_s, filled.sequence) == (1001.234567, 4_294_967_295)
    assert bytes(device.bytes_of(filled)) == b"abcdef"
    device.give_back(filled.index)
    device.close()
    # Memory that is still mapped would keep the stream going; only being told ends it for certain.
    assert camera.stopped == 1
    assert kernel.leaks() == []


@pytest.mark.parametrize(
    ("flags", "damaged", "monotonic"),
    [
        (videokernel.MONOTONIC, False, True),
        (videokernel.MONOTONIC | videokernel.ERROR, True, True),
        (videokernel.UNKNOWN | videokernel.START_OF_EXPOSURE, False, False),
        (0x4000, False, False),
        (0x6000, False, False),
    ],
)
def test_flags_tell_damage_and_clock(kernel: VideoKernel, flags: int, damaged: bool, monotonic: bool) -> None:
    camera = Camera(shots=deque([Shot(b"a", 1000, flags=flags)]))
    device = VideoDevice(str(kernel.plug(camera)), kernel)
    device.start(2)
    filled = device.take()
    assert filled is not None
    assert (filled.damaged, filled.monotonic) == (damaged, monotonic)
    device.close()


def test_a_request_that_a_signal_interrupts_is_asked_again(kernel: VideoKernel) -> None:
    device = VideoDevice(str(kernel.plug(Camera(interrupts=3))), kernel)
    assert device.capability().card == "Depth Eye"
    device.close()


@pytest.mark.parametrize("camera", [Camera(buffers=0), Camera(buffers=33), Camera(buffer_bytes=64 * 2**20 + 1)])
def test_buffers_that_would_fill_the_memory_or_are_none_are_refused(kernel: VideoKernel, camera: Camera) -> None:
    device = VideoDevice(str(kernel.plug(camera)), kernel)
    with pytest.raises(OSError, match=r"the driver (gave|has)"):
        device.start(4)
    device.close()
    assert kernel.leaks() == []


def test_a_buffer_that_does_not_exist_is_an_error_and_no_index(kernel: VideoKernel) -> None:
    camera = Camera(shots=deque([Shot(b"a", 1000)]))
    device = VideoDevice(str(kernel.plug(camera)), kernel)
    device.start(2)
    camera.queued[0] = 7
    with pytest.raises(OSError, match="the driver gave buffer 7 of 2"):
        device.take()
    device.close()


def test_closing_an_unplugged_device_gives_everything_back(kernel: VideoKernel) -> None:
    device = VideoDevice(str(kernel.plug(Camera())), kernel)
    device.start(4)
    kernel.unplug()
    with pytest.raises(OSError, match="No such device") as caught:
        device.take()
    assert caught.value.errno == errno.ENODEV
    device.close()
    device.close()
    assert kernel.leaks() == []
    with pytest.raises(OSError, match="closed"):
        device.take()


def test_memory_that_somebody_still_looks_at_does_not_keep_a_device_open(kernel: VideoKernel) -> None:
    camera = Camera(shots=deque([Shot(b"abc", 1000)]))
    device = VideoDevice(str(kernel.plug(camera)), kernel)
    device.start(2)
    filled = device.take()
    assert filled is not None
    looks = device.bytes_of(filled)
    device.close()
    assert kernel.leaks() == ["memory"]
    assert bytes(looks) == b"abc"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_the_real_kernel_refuses_a_file_that_is_no_video_device(tmp_path: Path) -> None:
    (tmp_path / "video0").write_bytes(b"")
    device = VideoDevice(str(tmp_path / "video0"))
    with pytest.raises(OSError) as caught:
        device.capability()
    assert caught.value.errno == errno.ENOTTY
    assert device.wait(0) != 0  # An ordinary file is always ready.
    device.close()
    with pytest.raises(FileNotFoundError):
        VideoDevice(str(tmp_path / "video1"))
