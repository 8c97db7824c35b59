"""Blocks: as many times as samples."""

import numpy as np
import pytest

from mekt.errors import SensorError
from sensors.source import Block


def test_a_block_has_one_time_for_each_sample() -> None:
    block = Block(modality="acc", t_s=np.arange(4.0), values=np.zeros((4, 3), np.float32))
    assert len(block.t_s) == len(block.values)


@pytest.mark.parametrize(("times", "values"), [((3,), (4, 3)), ((4, 1), (4, 3)), ((4,), (4,)), ((), (4, 3))])
def test_a_driver_that_gives_other_shapes_is_told(times: tuple[int, ...], values: tuple[int, ...]) -> None:
    with pytest.raises(SensorError, match=r"^acc: a block with times .* a driver must give one time for each sample$"):
        Block(modality="acc", t_s=np.zeros(times), values=np.zeros(values, np.float32))
