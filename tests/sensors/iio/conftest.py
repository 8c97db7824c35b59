"""A machine with IIO devices."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sensors.iio.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """Its folders, still without a device."""
    made = Tree(tmp_path)
    yield made
    made.close()
