"""What a driver's raw numbers mean."""

from pathlib import Path

import numpy as np
import pytest

from sensors.iio.attributes import Folder, Kernel
from sensors.iio.axes import UPRIGHT, matrix, number, read_axes
from tests.sensors.iio.tree import Tree


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
