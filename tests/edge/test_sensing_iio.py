"""An IIO device under the thread that senses: windows, and windows again after it was pulled out."""

from pathlib import Path

import numpy as np

from edge.sensing import Sensing
from edge.settings import PrivateWindows
from mekt.modality import WindowSpec
from tests.sensors.iio.tree import MPU6050, Tree, mpu6050_sample
from tests.waiting import WAIT_S, until

SPEC = WindowSpec(window_s=0.5, stride_s=0.5)


def feed(tree: Tree, number: int, seconds: float) -> None:
    """So many seconds of samples at 50 Hz, as the kernel has them when they are over."""
    began_s = tree.clock.now_s
    tree.clock.now_s += seconds
    for n in range(int(seconds * 50) + 1):
        tree.send(mpu6050_sample((0, -16400, 0), (0, 0, n), began_s + n / 50), number)


def test_a_device_that_is_pulled_out_and_comes_back_under_another_number_gives_windows_again(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add(0, MPU6050)
    source = tree.source(modalities=("acc", "gyro"), access="buffer")
    sensing = Sensing(
        [source],
        source.modalities,
        SPEC,
        PrivateWindows(capacity=100, least=1),
        folder=tmp_path / "windows",
        enough=lambda: None,
        retry_s=0.01,
    )
    feed(tree, 0, 3)
    sensing.start()
    try:
        until(lambda: sensing.count == 6)
        tree.kernel.gone = True
        tree.remove(0)
        tree.kernel.gone = False
        tree.clock.now_s += 60
        tree.add(5, MPU6050)
        feed(tree, 5, 3)
        until(lambda: sensing.count == 12)
        with sensing.hold().check() as held:
            windows = held.take(range(len(held)))
        assert windows["acc"].shape == windows["gyro"].shape == (12, 25, 3)
        np.testing.assert_allclose(windows["acc"][:, :, 0], -16400 * 0.000598 / 9.80665, rtol=1e-6)
        # No window reaches over the time in which it was away.
        assert (np.diff(windows["gyro"][:, :, 2], axis=1) > 0).all()
    finally:
        assert sensing.stop(WAIT_S)
        tree.close()
