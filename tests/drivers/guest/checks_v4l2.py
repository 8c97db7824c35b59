"""Cameras over Video for Linux, against the kernel's vivid."""

import os

import numpy as np
import pytest

from mekt.errors import SensorError
from sensors.cameras import found
from sensors.v4l2 import V4L2Source
from tests.drivers.guest.camera import BLACK, bind, node, set_control, stand, unbind
from tests.drivers.guest.reading import Record, failure, gathered, near, opened, reopened, source_of

GREY = """
[[sensors]]
kind = "v4l2"
device = "vivid"
content = "grey"
modality = "room"
shape = [9, 16]
width = 320
height = 180
fps = 10
"""
DEPTH = GREY.replace('"grey"', '"depth"')


@pytest.fixture(autouse=True)
def wall() -> None:
    """Every check begins with a white wall."""
    stand()


def test_a_white_wall_is_one_and_a_black_one_nought_in_grey(record_property: Record) -> None:
    with opened(GREY) as source:
        assert isinstance(source, V4L2Source)
        white = gathered(source, 30)
        set_control("Test Pattern", BLACK)
        gathered(source, 10)
        black = gathered(source, 10)
        record_property("room", white.figures("room"))
        record_property("lost, damaged", (source.lost, source.damaged))
        record_property("white, black", (float(white.values["room"].mean()), float(black.values["room"].mean())))
        assert source.damaged == 0
    assert white.values["room"].shape[1:] == (9, 16)
    assert 8.0 < white.rate_hz("room") < 12.0
    assert near(white.values["room"], 1.0, 0.1) and near(black.values["room"], 0.0, 0.1)


def test_distances_of_a_depth_camera_are_millimetres_as_metres_and_none_where_nothing_was_seen(
    record_property: Record,
) -> None:
    with opened(DEPTH) as source:
        far = gathered(source, 5)
        set_control("Test Pattern", BLACK)
        gathered(source, 10)
        nothing = gathered(source, 5)
    record_property("farthest", float(far.values["room"].max()))
    # vivid has 254 of 255 as white, in the upper byte of two.
    assert near(far.values["room"], 65.024, 0.001)
    assert near(nothing.values["room"], 0.0, 0.0)


def test_the_right_half_of_a_picture_can_be_kept_alone(record_property: Record) -> None:
    set_control("Test Pattern", 0)
    with opened(GREY) as source:
        whole = gathered(source, 3).values["room"][-1]
    with opened(GREY + "crop = [0.5, 0.0, 1.0, 1.0]\n") as source:
        right = gathered(source, 3).values["room"][-1]
    # Colour bars: upright, each darker than the one to its left.
    assert near(whole.std(axis=0), 0.0, 0.01) and np.all(np.diff(whole[4, ::2]) < 0.01)
    record_property("bars", [round(float(each), 2) for each in whole[4]])
    assert near(right[:, ::2], whole[:, 8:], 0.1)


def test_a_camera_that_is_switched_off_while_it_streams_is_told_and_comes_back(record_property: Record) -> None:
    with opened(GREY) as source:
        gathered(source, 5)
        set_control("Disconnect", 1)
        error, after_s = failure(source)
        record_property("told", f"{error} after {after_s:.1f} s")
        record_property("back after, s", round(reopened(source), 2))
        gathered(source, 5)


def test_a_camera_that_is_pulled_out_is_found_again_under_another_number(record_property: Record) -> None:
    before = node()
    with opened(GREY) as source:
        gathered(source, 5)
        # Who still has the old one open keeps its number taken.
        holder = os.open(before, os.O_RDWR)
        try:
            unbind()
            error, after_s = failure(source)
            record_property("told", f"{error} after {after_s:.1f} s")
            with pytest.raises(SensorError):
                source.open()
            bind()
        finally:
            os.close(holder)
        stand()
        after = node()
        record_property("node before, after", (before, after))
        reopened(source)
        gathered(source, 5)
    assert after != before


def test_a_stream_that_breaks_is_told_and_runs_again_when_it_is_opened_again(record_property: Record) -> None:
    with opened(GREY) as source:
        gathered(source, 5)
        set_control("Inject Fatal Streaming Error", 1)
        error, after_s = failure(source)
        record_property("told", f"{error} after {after_s:.1f} s")
        reopened(source)
        gathered(source, 5)


def test_frames_that_the_driver_drops_are_counted(record_property: Record) -> None:
    with opened(GREY) as source:
        assert isinstance(source, V4L2Source)
        set_control("Percentage of Dropped Buffers", 40)
        try:
            read = gathered(source, 20)
        finally:
            set_control("Percentage of Dropped Buffers", 0)
        record_property("room", read.figures("room"))
        record_property("lost", source.lost)
        assert source.lost > 0


def test_a_camera_that_another_uses_is_refused_with_what_to_do_and_then_opened() -> None:
    source = source_of(GREY)
    with opened(GREY) as other:
        gathered(other, 3)
        with pytest.raises(SensorError, match="vivid"):
            source.open()
        gathered(other, 3)
    source.open()
    gathered(source, 3)
    source.close()


def test_it_is_found_with_a_table_that_opens_it(record_property: Record) -> None:
    [camera] = found()
    record_property("found", camera.text)
    with opened(camera.toml) as source:
        gathered(source, 3)
