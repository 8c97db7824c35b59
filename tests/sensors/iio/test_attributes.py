"""The kernel's files: how they are read, set and put back, and what is said when the system refuses."""

import errno
import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from mekt.errors import SensorError
from sensors.iio.attributes import Folder, Kernel, failure
from sensors.iio.axes import number
from sensors.iio.source import IioSettings, IioSource
from tests.sensors.iio.tree import MPU6050, Tree


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
