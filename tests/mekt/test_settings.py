"""Settings files: every mistake an operator can make is answered with where, what and the remedy."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import SettingsError
from mekt.schema import Bounds, Name, Positive
from mekt.settings import LARGEST_SETTINGS_BYTES, read_toml


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    kind: str
    rate_hz: Positive = 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    name: Name
    sensors: Annotated[tuple[Sensor, ...], Bounds(longest=4)] = ()


def complaint(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_toml(path, Device)
    assert caught.value.__cause__ is not None or "bytes" in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("device.toml")


def test_a_file_becomes_its_dataclass(path: Path) -> None:
    path.write_text('name = "pi-3"\n[[sensors]]\nkind = "imu"\n[[sensors]]\nkind = "camera"\nrate_hz = 10\n')
    assert read_toml(path, Device) == Device(
        name="pi-3", sensors=(Sensor(kind="imu"), Sensor(kind="camera", rate_hz=10.0))
    )


def test_every_problem_is_a_line_with_the_file_and_the_dotted_key(path: Path) -> None:
    path.write_text('name = "pi 3"\nsensor = 1\n[[sensors]]\nkind = "imu"\nrate_hz = "50"\n[[sensors]]\nrate = 50\n')
    assert complaint(path).splitlines() == [
        'device.toml: sensor: unknown key (did you mean "sensors"?)',
        "device.toml: name: expected text like [A-Za-z0-9][A-Za-z0-9_.-]{0,63}, got 'pi 3'",
        "device.toml: sensors[0].rate_hz: expected a number, got '50' (remove the quotes)",
        'device.toml: sensors[1].rate: unknown key (did you mean "rate_hz"?)',
        "device.toml: sensors[1].kind: missing; expected text",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = pi\n", "line 1, column 8: Invalid value (text needs quotes)"),
        ("\nname = /etc/x\n", "line 2, column 8: Invalid value (text needs quotes)"),
        ("name = True\n", "line 1, column 8: Invalid value (write true or false in small letters)"),
        ("name = \n", "line 1, column 8: Invalid value"),
        ('a = 1\nname: "pi"\n', "line 2, column 5: Expected '=' after a key in a key/value pair"),
        ('name = "pi', "end of file: Unterminated string"),
        ("a = 1\na = 2\n", "line 2, column 6: Cannot overwrite a value"),
    ],
)
def test_a_slip_in_toml_is_named_with_line_and_column(path: Path, text: str, says: str) -> None:
    path.write_text(text)
    assert complaint(path) == f"device.toml: {says}"


def test_a_missing_file_is_named_with_the_folder_that_was_looked_in(path: Path, tmp_path: Path) -> None:
    assert complaint(path) == f"device.toml: no such file (looked in {tmp_path}); name one with --config"


def test_a_folder_is_no_settings_file(path: Path) -> None:
    path.mkdir()
    assert complaint(path) == "device.toml: expected a TOML file, got a folder; name a file in it"


def test_a_file_that_cannot_be_opened_is_named_with_the_reason(path: Path) -> None:
    path.symlink_to(path)
    assert complaint(path).startswith("device.toml: cannot be read (Too many ")
    assert complaint(path).endswith("; mend the path or its permissions")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_named_with_the_reason(path: Path) -> None:
    path.write_text('name = "a"')
    path.chmod(0)
    assert complaint(path) == "device.toml: cannot be read (Permission denied); mend the path or its permissions"


def test_a_path_below_a_file_is_named_with_the_reason(path: Path) -> None:
    path.write_text("")
    assert complaint(path / "x").startswith("device.toml/x: cannot be read (Not a directory)")


def test_a_path_with_a_null_byte_is_no_path(tmp_path: Path) -> None:
    assert "not a path" in complaint(tmp_path / "a\0b")


def test_text_that_is_not_utf_8_is_named_with_its_line(path: Path) -> None:
    path.write_bytes('a = 1\nname = "Küche"\n'.encode("latin-1"))
    assert complaint(path) == "device.toml: line 2: not UTF-8 text; save the file in the encoding UTF-8"


def test_the_mark_that_some_editors_put_in_front_is_no_harm(path: Path) -> None:
    path.write_bytes('name = "pi"\r\n'.encode("utf-8-sig"))
    assert read_toml(path, Device).name == "pi"


def test_a_file_too_large_for_settings_is_not_read_whole(path: Path) -> None:
    path.write_bytes(b"#" * (LARGEST_SETTINGS_BYTES + 1))
    assert "cannot be a settings file" in complaint(path)
    path.write_bytes(b'name = "a"\n'.ljust(LARGEST_SETTINGS_BYTES, b"#"))
    assert read_toml(path, Device).name == "a"


@pytest.mark.parametrize("text", ["name = " + "[" * 100_000, "name = " + "9" * 5000])
def test_what_the_parser_cannot_bear_is_a_settings_error_too(path: Path, text: str) -> None:
    path.write_text(text)
    assert complaint(path).startswith("device.toml: ")


@given(st.binary(max_size=40) | st.text(alphabet='name="[]\n.1ae{}#,', max_size=40).map(str.encode))
def test_any_bytes_are_settings_or_a_settings_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(raw)
    try:
        assert isinstance(read_toml(path, Device), Device)
    except SettingsError as error:
        assert all(line.startswith(str(path)) for line in str(error).splitlines())
