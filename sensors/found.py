"""What a search for sensors gives."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a machine has that could be a source, and the table that opens it."""

    kind: str
    name: str
    text: str
    toml: str
