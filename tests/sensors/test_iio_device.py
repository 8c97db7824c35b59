"""The kernel's files: how they are read, set and put back, and what is said when the system refuses."""

import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mekt.errors import SensorError
from sensors.iio import IioSettings, IioSource
from sensors.iio_axes import UPRIGHT, matrix, number
from sensors.iio_device import Folder, Kernel, devices, failure, find, read_axes
from tests.sensors.iio_tree import AK8963, HID_ACCEL, MPU6050, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    yield made
    made.close()


def test_an_attribute_is_set_in_one_write_that_ends_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "enable"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    Kernel().write(path, "monotonic")
    assert os.read(reader, 100) == b"monotonic\n"
    os.close(reader)


def test_an_attribute_is_read_without_its_end_of_line_however_odd(tmp_path: Path) -> None:
    for data, text in ((b"50\n", "50"), (b"", ""), (b" a b \n", "a b"), (b"\xff\n", "\N{REPLACEMENT CHARACTER}")):
        (tmp_path / "name").write_bytes(data)
        assert Kernel().read(tmp_path / "name") == text
    # A page is all that the kernel gives of one.
    (tmp_path / "name").write_bytes(b"1" * 100_000)
    assert len(Kernel().read(tmp_path / "name")) == 4096


def test_an_open_attribute_is_read_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "in_accel_x_raw").write_text("1\n")
    descriptor = Kernel().open(tmp_path / "in_accel_x_raw")
    assert Kernel().again(descriptor) == "1"
    (tmp_path / "in_accel_x_raw").write_text("-2\n")
    assert Kernel().again(descriptor) == "-2"
    os.close(descriptor)


def test_what_the_system_refuses_names_the_file(tmp_path: Path) -> None:
    # A folder can be opened and not read.
    with pytest.raises(OSError) as caught:
        Kernel().read(tmp_path)
    assert caught.value.filename == str(tmp_path)
    assert caught.value.errno == errno.EISDIR


def test_changes_are_put_back_last_first_and_once(tree: Tree) -> None:
    tree.add(0, MPU6050)
    folder = Folder(tree.root / "iio:device0", tree.kernel)
    folder.change("sampling_frequency", "20")
    assert tree.kernel.log == []
    folder.change("sampling_frequency", "50")
    folder.change("current_timestamp_clock", "monotonic")
    folder.change("sampling_frequency", "100")
    tree.kernel.log.clear()
    folder.put_back()
    folder.put_back()
    assert tree.kernel.log == [
        ("sampling_frequency", "50"),
        ("current_timestamp_clock", "realtime"),
        ("sampling_frequency", "20"),
    ]


def test_what_cannot_be_put_back_is_said_and_the_rest_is(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    tree.add(0, MPU6050)
    folder = Folder(tree.root / "iio:device0", tree.kernel)
    folder.change("sampling_frequency", "50")
    folder.change("current_timestamp_clock", "monotonic")
    tree.kernel.refused["current_timestamp_clock"] = errno.EBUSY
    folder.put_back()
    assert "current_timestamp_clock: cannot be put back to realtime: Device or resource busy" in caplog.text
    assert tree.text("sampling_frequency") == "20"


def test_of_a_device_that_is_gone_nothing_is_put_back_and_nothing_said(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    tree.add(0, MPU6050)
    folder = Folder(tree.root / "iio:device0", tree.kernel)
    folder.change("sampling_frequency", "50")
    tree.remove(0)
    with caplog.at_level(logging.INFO):
        folder.put_back()
    assert caplog.text == ""


def test_devices_come_in_the_order_of_their_numbers_and_triggers_are_none(tree: Tree) -> None:
    for each in (10, 2, 1):
        tree.add(each, AK8963, at=f"1-000{each % 10}")
    tree.add_trigger(0, "sysfstrig0")
    assert [each.path.name for each in devices(tree.root, tree.kernel)] == [
        "iio:device1",
        "iio:device2",
        "iio:device10",
    ]


def test_a_device_that_vanishes_while_it_is_looked_at_is_left_out(tree: Tree) -> None:
    tree.add(0, AK8963, at="1-000c")
    tree.add(1, MPU6050)
    tree.kernel.unreadable["iio:device0/name"] = errno.ENODEV
    assert [each.name for each in devices(tree.root, tree.kernel)] == ["mpu6050"]


def test_an_axis_less_is_no_kind(tree: Tree) -> None:
    tree.add(0, {name: text for name, text in HID_ACCEL.items() if "accel_y" not in name})
    assert find(tree.root, tree.kernel, name="accel_3d", label="", at="").kinds == ()


# What numbers mean


def axes_of(tree: Tree, kind: str, attributes: dict[str, str]) -> tuple[list[float], list[float], list[float]]:
    folder = tree.add(0, attributes)
    axes = read_axes(Folder(folder, tree.kernel), kind)
    return axes.scale.tolist(), axes.offset.tolist(), axes.mount.ravel().tolist()


def test_the_most_special_attribute_counts_for_scale_and_offset(tree: Tree) -> None:
    attributes = {
        "in_accel_x_scale": "1",
        "in_accel_scale": "2",
        "in_scale": "3",
        "scale": "4",
        "in_accel_y_offset": "-5",
        "offset": "6.5",
    }
    assert axes_of(tree, "accel", attributes)[:2] == ([1, 2, 2], [6.5, -5, 6.5])


@pytest.mark.parametrize(
    "shared", ["in_magn_x_mount_matrix", "in_magn_mount_matrix", "in_mount_matrix", "mount_matrix"]
)
def test_a_mount_matrix_may_be_said_of_an_axis_a_kind_all_inputs_or_the_device(tree: Tree, shared: str) -> None:
    assert axes_of(tree, "magn", {shared: "0, 1, 0; 1, 0, 0; 0, 0, -1"})[2] == [0, 1, 0, 1, 0, 0, 0, 0, -1]


def test_without_attributes_raw_numbers_are_the_kernels_unit_in_the_chips_axes(tree: Tree) -> None:
    assert axes_of(tree, "anglvel", {"in_accel_scale": "7"}) == ([1, 1, 1], [0, 0, 0], list(UPRIGHT))


def test_offset_comes_before_scale_and_the_matrix_is_multiplied_from_the_left(tree: Tree) -> None:
    folder = tree.add(
        0, {"in_magn_scale": "0.5", "in_magn_offset": "10", "in_mount_matrix": "0, 0, 1; 1, 0, 0; 0, 1, 0"}
    )
    values = read_axes(Folder(folder, tree.kernel), "magn").values(np.array([[0, 2, 4]]))
    # ((raw + 10) / 2 = 5, 6, 7 Gauss; rows pick z, x, y; 100 uT are a Gauss.
    assert values.tolist() == [[700, 500, 600]]


def test_numbers_too_large_become_infinite_without_a_warning() -> None:
    tree_axes = read_axes(Folder(Path("/nowhere"), Kernel()), "magn")
    assert np.isinf(tree_axes.values(np.array([[1e300, -1e300, 1e39]]))).all()
    assert not np.isfinite(tree_axes.values(np.array([[np.nan, np.inf, 0]]))).any()


@pytest.mark.parametrize(
    "text", ["1, 0, 0; 0, 1, 0", "1, 0; 0, 1; 0, 0", "1 0 0; 0 1 0; 0 0 1", "", "a", "nan" + ", 0" * 8]
)
def test_what_is_no_matrix_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        matrix(text)


@pytest.mark.parametrize("text", ["", "1,5", "inf", "nan", "0.5 dB", "1e999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        number(text)


# Without a double


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "groupadd --system iio"),
        (errno.EPERM, "/etc/udev/rules.d/60-iio.rules"),
        (errno.EROFS, "ProtectKernelTunables=no"),
        (errno.EBUSY, "stop that program"),
        (errno.ENODEV, "plug it in again"),
        (errno.EIO, "`dmesg` may say more"),
    ],
)
def test_each_refusal_has_its_remedy_in_one_line(number: int, advice: str) -> None:
    for filename in (None, "/sys/x"):
        said = str(failure(OSError(number, os.strerror(number), filename), "mpu6050 at 1-0068"))
        assert said.startswith("mpu6050 at 1-0068: ")
        assert os.strerror(number) in said and advice in said and "\n" not in said
        assert ("/sys/x" in said) == (filename is not None)


def test_the_real_calls_on_plain_files_sense_by_the_real_clock(tree: Tree) -> None:
    tree.add(0, MPU6050)
    before = tree.snapshot()
    settings = IioSettings(
        modalities=("acc",), name="mpu6050", root=str(tree.root), nodes=str(tree.nodes), rate_hz=200, access="polled"
    )
    source = IioSource(settings)
    source.open()
    times: list[float] = []
    while len(times) < 20:
        items = source.read(0.05)
        assert items is not None
        times += [t for item in items for t in item.t_s]  # type: ignore[union-attr]
    assert (np.diff(times) > 0).all()
    source.close()
    assert tree.snapshot() == before


def test_waiting_for_a_buffer_ends_when_a_sample_comes(tree: Tree) -> None:
    tree.add(0, MPU6050)
    settings = IioSettings(
        modalities=("acc",), name="mpu6050", root=str(tree.root), nodes=str(tree.nodes), access="buffer"
    )
    source = IioSource(settings)
    source.open()
    stamp = round(Kernel().seconds() * 1e9).to_bytes(8, "little")
    sender = threading.Timer(0.05, lambda: tree.send(bytes(8) + stamp))
    sender.start()
    try:
        # Far longer than the test may take: only the sample ends the waiting.
        assert len(source.read(600) or ()) == 1
    finally:
        sender.join()
        source.close()


def test_a_number_that_is_none_names_its_file(tree: Tree) -> None:
    folder = tree.add(0, MPU6050 | {"in_accel_scale": "?"})
    with pytest.raises(SensorError, match=r"in_accel_scale: could not convert .* the driver may be broken"):
        Folder(folder, tree.kernel).parsed("in_accel_scale", number)
