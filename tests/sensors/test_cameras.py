"""Which cameras there are, and which one a name means."""

import errno
import tomllib
from pathlib import Path

import pytest

from mekt.errors import SensorError
from mekt.schema import build
from sensors.cameras import Seen, cameras, chosen, found
from sensors.pixels import PREFERENCE
from sensors.v4l2 import V4L2Settings
from tests.sensors.videokernel import META_CAPTURE, STREAMING, Camera, VideoKernel

DEPTH, GREY = PREFERENCE["depth"], PREFERENCE["grey"]


@pytest.fixture
def kernel(tmp_path: Path) -> VideoKernel:
    return VideoKernel(tmp_path)


def see(kernel: VideoKernel) -> Seen:
    seen = cameras(kernel, kernel.dev)
    assert kernel.leaks() == []
    return seen


def test_cameras_are_seen_in_the_order_of_their_numbers_with_all_that_stays_the_same(kernel: VideoKernel) -> None:
    kernel.plug(Camera(card="Second", bus="usb-2", formats=("MJPG", "YUYV")), "video10")
    kernel.plug(Camera(card="First", bus="usb-1"), "video2", link="usb-Maker_First_123-video-index0")
    (kernel.dev / "video-dec0").touch()
    first, second = see(kernel).cameras
    assert (first.card, first.bus, first.path.name, first.formats) == ("First", "usb-1", "video2", ("z16",))
    assert first.links == ("usb-Maker_First_123-video-index0",)
    assert (second.card, second.links, second.formats) == ("Second", (), ("yuyv", "mjpeg"))


def test_what_captures_no_pictures_or_in_no_known_format_is_no_camera(kernel: VideoKernel) -> None:
    kernel.plug(Camera(capabilities=META_CAPTURE | STREAMING), "video0")
    kernel.plug(Camera(formats=("H264", "BA81")), "video1")
    assert see(kernel) == Seen(cameras=(), problems=())


def test_a_device_that_may_not_be_opened_or_fails_does_not_hide_the_others(kernel: VideoKernel) -> None:
    kernel.refused[str(kernel.plug(Camera(), "video0"))] = errno.EACCES
    kernel.plug(Camera(broken={0xC0405602: errno.EIO}), "video1")
    kernel.plug(Camera(card="Sound"), "video2")
    seen = see(kernel)
    assert [each.card for each in seen.cameras] == ["Sound"]
    assert seen.problems == (
        f"{kernel.dev}/video0: Permission denied",
        f"{kernel.dev}/video1: Input/output error",
    )


@pytest.mark.parametrize(
    "device",
    [
        "",
        "Depth Eye",
        "usb-0000:00:14.0-2",
        "usb-Maker_Eye_7-video-index0",
        "/dev/v4l/by-id/usb-Maker_Eye_7-video-index0",
    ],
)
def test_a_camera_is_known_by_name_bus_and_link(kernel: VideoKernel, device: str) -> None:
    kernel.plug(Camera(), "video3", link="usb-Maker_Eye_7-video-index0")
    camera, formats = chosen(see(kernel), device, DEPTH)
    assert (camera.path.name, formats) == ("video3", ("z16",))


def test_of_a_cameras_nodes_the_one_with_the_preferred_format_is_meant(kernel: VideoKernel) -> None:
    # As depth cameras have them: colours, infrared and depth at one bus and under one name.
    for node, formats in (("video0", ("YUYV",)), ("video2", ("GREY", "UYVY")), ("video4", ("Z16 ",))):
        kernel.plug(Camera(formats=formats), node)
    seen = see(kernel)
    assert chosen(seen, "Depth Eye", DEPTH)[0].path.name == "video4"
    assert chosen(seen, "Depth Eye", GREY)[0].path.name == "video2"
    assert chosen(seen, "Depth Eye", ("yuyv",))[0].path.name == "video0"


def test_two_cameras_of_one_name_are_told_apart_by_bus_or_link_and_never_guessed(kernel: VideoKernel) -> None:
    kernel.plug(Camera(bus="usb-1"), "video0", link="usb-Eye_A-video-index0")
    kernel.plug(Camera(bus="usb-2"), "video1")
    seen = see(kernel)
    for device in ("", "Depth Eye"):
        with pytest.raises(SensorError) as caught:
            chosen(seen, device, DEPTH)
        assert str(caught.value) == (
            'device: 2 cameras could be meant; name one of them: "usb-Eye_A-video-index0", "usb-2"'
        )
    assert chosen(seen, "usb-2", DEPTH)[0].path.name == "video1"
    assert chosen(seen, "usb-Eye_A-video-index0", DEPTH)[0].path.name == "video0"


def test_a_camera_that_is_not_there_is_missed_by_name_and_those_that_are_there_are_told(kernel: VideoKernel) -> None:
    with pytest.raises(SensorError, match=r"^no camera is there; there is none; plug it in or name another"):
        chosen(see(kernel), "", GREY)
    kernel.plug(Camera(), "video0")
    kernel.refused[str(kernel.plug(Camera(), "video1"))] = errno.EACCES
    with pytest.raises(SensorError) as caught:
        chosen(see(kernel), "Other", GREY)
    assert str(caught.value) == (
        f'no camera is called "Other"; there is "Depth Eye" at usb-0000:00:14.0-2; not to be opened are {kernel.dev}'
        "/video1: Permission denied; plug it in or name another, and the user that Mekt runs as belongs to the group"
        " video"
    )


def test_a_camera_without_the_format_says_which_it_has(kernel: VideoKernel) -> None:
    kernel.plug(Camera(formats=("YUYV", "MJPG")))
    with pytest.raises(SensorError, match='the camera "Depth Eye" gives mjpeg, yuyv, and none of z16, y16; name a'):
        chosen(see(kernel), "", DEPTH)


def test_what_is_found_opens_the_camera_that_was_seen(kernel: VideoKernel) -> None:
    kernel.plug(Camera(card='The "Eye"'), "video0")
    kernel.plug(Camera(card="Twin", bus="usb-1", formats=("YUYV",)), "video1")
    kernel.plug(Camera(card="Twin", bus="usb-2", formats=("MJPG",)), "video2", link="usb-Twin_2-video-index0")
    there = found(kernel, kernel.dev)
    assert [each.name for each in there] == ['The "Eye"', "usb-1", "usb-Twin_2-video-index0"]
    assert there[0].text == 'camera The "Eye" at usb-0000:00:14.0-2: z16'
    seen = see(kernel)
    for each, node, content in zip(there, ("video0", "video1", "video2"), ("depth", "grey", "grey"), strict=True):
        [table] = tomllib.loads(each.toml)["sensors"]
        settings = build(V4L2Settings, table)
        assert (each.kind, settings.kind, settings.content) == ("v4l2", "v4l2", content)
        assert chosen(seen, settings.device, PREFERENCE[settings.content])[0].path.name == node
