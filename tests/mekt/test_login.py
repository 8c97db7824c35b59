"""Where the broker is and how to log in: what settings say, and what is refused."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from mekt.errors import SettingsError
from mekt.login import BrokerSettings, TlsSettings, check_plain_text, located
from mekt.settings import read_toml


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    broker: BrokerSettings


@pytest.mark.parametrize(
    ("lease_s", "keepalive_s"), [(3, 2), (4, 2), (5, 3), (6, 4), (44, 29), (45, 30), (46, 30), (47, 31), (5400, 3600)]
)
def test_a_keep_alive_is_two_thirds_of_a_lease_rounded_down(lease_s: int, keepalive_s: int) -> None:
    assert BrokerSettings(lease_s=lease_s).keepalive_s == keepalive_s


def test_a_broker_never_waits_longer_than_a_lease_and_at_most_a_second_less() -> None:
    for lease_s in range(3, 5401):
        assert 0 <= lease_s - 1.5 * BrokerSettings(lease_s=lease_s).keepalive_s <= 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("lease_s = 2", "broker.lease_s: expected at least 3, got 2"),
        ("lease_s = 5401", "broker.lease_s: expected at most 5400, got 5401"),
        ("lease_s = 4.5", "broker.lease_s: expected a whole number, got 4.5"),
        ("keepalive_s = 30", "broker.keepalive_s: unknown key (known here: host, lease_s, "),
        ("session_expiry_s = 60", "broker.session_expiry_s: unknown key (known here: host, lease_s, "),
    ],
)
def test_a_lease_is_whole_seconds_within_bounds_and_the_only_such_setting(line: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    path.write_text(f"[broker]\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        read_toml(path, File)
    assert str(caught.value).startswith(f"{path}: {says}")


def test_plain_text_beyond_this_machine_is_refused_unless_allowed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1 is another machine and \[broker\.tls\] is missing"):
        check_plain_text(BrokerSettings(host="192.0.2.1"))
    check_plain_text(BrokerSettings(host="192.0.2.1", tls=TlsSettings(ca="ca.pem")))
    check_plain_text(BrokerSettings(host="localhost"))
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        check_plain_text(BrokerSettings(host="192.0.2.1", plain_text_allowed=True))
    assert "PLAIN TEXT to 192.0.2.1" in caplog.text


def test_paths_start_at_the_folder_of_the_settings_file(tmp_path: Path) -> None:
    settings = BrokerSettings(password_file="pw", tls=TlsSettings(ca="ca.pem", certificate="/abs/c.pem"))
    assert located(settings, tmp_path) == BrokerSettings(
        password_file=f"{tmp_path}/pw", tls=TlsSettings(ca=f"{tmp_path}/ca.pem", certificate="/abs/c.pem")
    )
    assert located(BrokerSettings(), tmp_path) == BrokerSettings()
