"""Numbers out of a line of text whose columns are told apart by a separator: by number, or by a label. Pure."""

import re
from collections.abc import Mapping, Sequence

MOST_COLUMNS = 256
LONGEST_NUMBER = 40
# `ax:0.1` or `ax=0.1`, as Arduino's plotter has it.
LABELLED = re.compile(r"([A-Za-z_][\w .-]{0,63}?)\s*[:=]\s*(\S+)")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)


def cells(line: str, separator: str) -> list[str]:
    """The columns of a line without the blanks around them; a blank separates as often as it is repeated."""
    parts = line.split(maxsplit=MOST_COLUMNS) if separator == " " else line.split(separator, MOST_COLUMNS)
    return [part.strip() for part in parts[:MOST_COLUMNS]]


def labelled(parts: Sequence[str]) -> dict[str, str]:
    """The columns by their numbers from 1, and those with a label by that as well; of a label twice, the last."""
    table: dict[str, str] = {}
    for place, part in enumerate(parts, 1):
        told = LABELLED.fullmatch(part)
        if told is not None:
            table[told[1]] = told[2]
        table[str(place)] = part if told is None else told[2]
    return table


def number(text: str) -> float | None:
    """The number that a text is, with a point; None for all else, infinity and what stands for no value included."""
    text = text.strip()
    if len(text) > LONGEST_NUMBER or NUMBER.fullmatch(text) is None:
        return None
    value = float(text)
    return value if abs(value) < 1e38 else None


def numbers(table: Mapping[str, str], fields: Sequence[str]) -> list[float] | None:
    """The numbers in these columns; None when one is missing or is no number."""
    told = [number(table.get(field, "")) for field in fields]
    return None if None in told else [each for each in told if each is not None]
