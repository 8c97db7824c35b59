"""Rounds whose knowledge is summed in secret, by processes over a real broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.federation import Federation, federation

pytest.importorskip("cryptography")

DEVICES = {"pi-1": ("acc", "gyro"), "pi-2": ("acc", "gyro"), "pi-3": ("acc", "gyro"), "pi-4": ("acc",)}
RULES = "min_devices = 4\ndeadline_s = 100\nsecure = true\nstep_s = 100"


def secure(folder: Path, recordings: Path, rules: str = RULES) -> Federation:
    return federation(folder, recordings, devices=DEVICES, rules=rules, device="sums_only = true", duration_s=60.0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> Iterator[Federation]:
    made = secure(tmp_path_factory.mktemp("secure"), recordings)
    try:
        made.listen()
        made.start("coordinator", *DEVICES)
        made.finish()
        made.stop()
        yield made
    finally:
        made.end()


def test_a_federation_of_secure_sums_comes_to_its_end(undisturbed: Federation) -> None:
    assert undisturbed.release.is_dir()
