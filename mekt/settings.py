"""Settings files: TOML into a frozen dataclass, with every problem named at once by file and dotted key."""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from mekt import catalogue
from mekt.errors import SettingsError
from mekt.schema import Fault, SchemaError, build

T = TypeVar("T")

# Settings are written by hand; anything this large is another file, named by mistake.
LARGEST_SETTINGS_BYTES = 1 << 20
FAULTS: dict[Fault, catalogue.Entry] = {
    "unknown": catalogue.SETTING_UNKNOWN_KEY,
    "missing": catalogue.SETTING_MISSING,
    "type": catalogue.SETTING_WRONG_TYPE,
    "bounds": catalogue.SETTING_OUT_OF_BOUNDS,
    "rule": catalogue.SETTINGS_CONTRADICT,
}


def read_toml(path: Path, cls: type[T]) -> T:
    """The instance of dataclass `cls` that the TOML file at `path` describes.

    Raises:
        SettingsError: one line per problem, such as
            `device.toml: sensors[0].rate_hz: expected a number, got '50' (remove the quotes)`.
    """
    try:
        return build(cls, read_table(path))
    except SchemaError as error:
        raise refusal(path, error) from error


def refusal(path: Path, error: SchemaError) -> SettingsError:
    """What is wrong with the settings in the file at `path`, a line for each problem."""
    return SettingsError("\n".join(f"{path}: {problem}" for problem in error.problems), entry_of(error))


def entry_of(error: SchemaError) -> catalogue.Entry:
    """What settings that do not fit have in common."""
    faults = set(error.faults)
    return FAULTS[faults.pop()] if len(faults) == 1 else catalogue.SETTINGS_SEVERAL


def read_table(path: Path) -> dict[str, Any]:
    """The TOML file at `path` as it is, of whatever kind.

    Raises:
        SettingsError: when it is missing or not TOML.
    """
    text = _text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {_syntax_problem(str(error), text)}", catalogue.SETTINGS_NOT_TOML) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path}: no settings are written like this ({error}); mend the file", catalogue.SETTINGS_NOT_TOML
        ) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_SETTINGS_BYTES + 1)
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path}: no such file (looked in {_folder(path)}); name one with --config", catalogue.SETTINGS_FILE_MISSING
        ) from error
    except IsADirectoryError as error:
        raise SettingsError(
            f"{path}: expected a TOML file, got a folder; name a file in it", catalogue.SETTINGS_FILE_UNREADABLE
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); mend the path or its permissions",
            catalogue.SETTINGS_FILE_UNREADABLE,
        ) from error
    except ValueError as error:
        raise SettingsError(f"{str(path)!r}: not a path ({error})", catalogue.SETTINGS_FILE_MISSING) from error
    if len(raw) > LARGEST_SETTINGS_BYTES:
        raise SettingsError(
            f"{path}: more than {LARGEST_SETTINGS_BYTES} bytes; this cannot be a settings file",
            catalogue.SETTINGS_FILE_UNREADABLE,
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SettingsError(
            f"{path}: line {line}: not UTF-8 text; save the file in the encoding UTF-8", catalogue.SETTINGS_NOT_TOML
        ) from error


def _folder(path: Path) -> Path:
    return path.absolute().parent


def _syntax_problem(message: str, text: str) -> str:
    """The message of tomllib with the place in front, and the remedy of the two slips that are most common."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None:
        return message
    problem, line, column = found.groups()
    if line is None:
        return f"end of file: {problem}"
    advice = ""
    if problem == "Invalid value":
        rest = text.splitlines()[int(line) - 1][int(column) - 1 :]
        if re.match(r"(True|False)\b", rest):
            advice = " (write true or false in small letters)"
        elif re.match(r"[A-Za-z_./~]", rest):
            advice = " (text needs quotes)"
    return f"line {line}, column {column}: {problem}{advice}"
