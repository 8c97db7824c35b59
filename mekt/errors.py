"""Every error that Mekt raises on purpose, in families by who must act, each with its exit code.

    MektError                 1   (never raised itself)
    |-- SettingsError         2   the operator: a file, a key or an argument is wrong
    |-- WireError             3   a peer: bytes from the network that do not validate
    |-- LinkError             4   the network: no broker, no permission, too large a message
    |-- SensorError           5   the hardware or a recording
    |-- ReleaseError          6   an artefact: a release that is missing, damaged or unfaithful
    |-- StateError            7   the disk: a state directory that is locked, damaged or full
    `-- MissingPackageError   8   the installation: an optional package is not there

A message says where, what was seen, and what to do: one line, or one line per problem of a settings file. An entry of
the catalogue goes with it, for what does not fit into a line. The command line prints the message and the entry's
number, and exits with the family's code. `mekt explain` and docs/errors.md hold the remedies.
"""

from typing import ClassVar

from mekt.catalogue import BY_NUMBER, Entry


class MektError(Exception):
    """The root of the tree; `exit_code` is what the process ends with when nobody handles the error.

    `entry` is what the catalogue says of it: that of the whole family where nothing more is known.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, text: str, entry: Entry | None = None) -> None:
        super().__init__(text)
        self.entry = BY_NUMBER[100 * self.exit_code] if entry is None else entry
        assert self.entry.exit_code == self.exit_code, f"{self.entry.number} is no {type(self).__name__}"

    @property
    def number(self) -> int:
        """The number by which people look this error up."""
        return self.entry.number


class SettingsError(MektError):
    """A setting that cannot work. The text names the file, the dotted key and what would be right."""

    exit_code = 2


class WireError(MektError):
    """Bytes from the network that are not a valid message. Counted and dropped where they arrive, never fatal."""

    exit_code = 3


class LinkError(MektError):
    """The broker cannot be reached, refuses the login, or cannot carry a message of this size."""

    exit_code = 4


class SensorError(MektError):
    """A sensor or a recording that cannot be read."""

    exit_code = 5


class ReleaseError(MektError):
    """A release that is missing, damaged, or does not compute what was trained."""

    exit_code = 6


class StateError(MektError):
    """A state directory that is in use, damaged, of a newer schema, or on a full disk."""

    exit_code = 7


class MissingPackageError(MektError):
    """An optional package is not installed. The text holds the one line that installs it."""

    exit_code = 8
