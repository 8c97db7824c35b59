"""IIO devices as they are found."""

import errno

from sensors.iio.device import devices, find
from tests.sensors.iio.tree import AK8963, HID_ACCEL, MPU6050, Tree


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
