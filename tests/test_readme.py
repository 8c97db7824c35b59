"""What the README shows is what Mekt reads."""

import re
import tomllib
from pathlib import Path

from coordinator.rollout import RolloutRules
from coordinator.settings import read_federation
from edge.settings import read_device
from edge.updates.settings import Limits, TrialSettings, UpdateSettings
from mekt.schema import build, plain

ROOT = Path(__file__).parents[1]


def settings_of_the_readme() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)


def test_the_settings_of_the_readme_are_accepted(tmp_path: Path) -> None:
    federation, device = settings_of_the_readme()
    (tmp_path / "federation.toml").write_text(federation, encoding="utf-8")
    (tmp_path / "device.toml").write_text(device, encoding="utf-8")
    assert read_federation(tmp_path / "federation.toml").federation == read_device(tmp_path / "device.toml").federation
    tls = read_device(tmp_path / "device.toml").broker.tls
    assert tls is not None and tls.ca == str(tmp_path / "identity" / "ca.pem")


def test_the_settings_of_rollouts_are_shown_as_they_are_by_default() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "releases.md").read_text(encoding="utf-8"), re.S)
    assert tomllib.loads(text) == {"rollout": plain(RolloutRules())}


def test_the_limits_of_updates_are_shown_as_they_are_by_default() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "updates.md").read_text(encoding="utf-8"), re.S)
    table = tomllib.loads(text)["updates"]
    assert table["self_test"] == plain(Limits()) and table["trial"] == plain(TrialSettings())
    default, shown = UpdateSettings(federation="ward-3", device="wrist-7"), build(UpdateSettings, table)
    assert (shown.state, shown.most_mb) == (default.state, default.most_mb)
