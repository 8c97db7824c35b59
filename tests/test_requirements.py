"""What devices install: every package with hashes, in the versions that the tests ran with."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONSTRAINTS = dict(
    line.lower().replace("_", "-").split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(part: str) -> dict[str, tuple[str, list[str]]]:
    """Name to version and hashes, as the file has them."""
    text = (ROOT / "requirements" / f"{part}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [re.fullmatch(r"(\S+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})+)", line) for line in lines]
    assert all(found), lines
    return {each[1]: (each[2], each[3].split()) for each in found if each}


@pytest.mark.parametrize("part", ["edge", "wearable"])
def test_every_package_of_a_device_is_pinned_with_hashes_to_a_version_that_was_tested(part: str) -> None:
    for name, (version, hashes) in pins(part).items():
        assert CONSTRAINTS[name.replace("_", "-")] == version, "run requirements/renew.py"
        assert hashes


@pytest.mark.parametrize("part", ["edge", "wearable"])
def test_nothing_that_a_part_asks_for_is_missing_but_torch(part: str) -> None:
    asked = [*EXTRAS["dependencies"], *EXTRAS["optional-dependencies"][part]]
    names = {re.split(r"[<>=]", each)[0] for each in asked} - {"torch"}
    assert names <= set(pins(part))


def test_a_wearable_installs_eight_packages_at_most() -> None:
    assert len(pins("wearable")) <= 8, "`make profile` says what each is for"
