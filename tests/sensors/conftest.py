"""Where the public sets of recordings are."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def public() -> Callable[[str], Path]:
    """The path of a public recording such as `hapt/user01.npz`; where it is missing, the test is skipped."""
    folder = Path(os.environ.get("MEKT_DATA", ROOT.parent / "shared" / "data"))

    def path_of(name: str) -> Path:
        if not (folder / name).is_file():
            pytest.skip(f"no {name} in {folder}; name the recordings' folder with MEKT_DATA")
        return folder / name

    return path_of
