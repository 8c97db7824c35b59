"""What an error's number means, what mostly leads to it, and what to do: `mekt explain`."""

import json
import textwrap
from collections.abc import Sequence
from typing import TextIO

from mekt import catalogue
from mekt.catalogue import ENTRIES, Entry
from mekt.errors import SettingsError

WIDTH = 100


def explain(number: int | None, *, as_json: bool, out: TextIO) -> int:
    """Write what the catalogue has about this number, about all of a family for its exit code, or the list of all.

    Raises:
        SettingsError: when there is no such number.
    """
    entries = [each for each in ENTRIES if number in (None, each.number, each.exit_code)]
    if not entries:
        raise SettingsError(
            f"explain: there is no error {number}; `mekt explain` lists them all", catalogue.CHOICE_UNKNOWN
        )
    if as_json:
        plain = [_plain(each) for each in entries]
        print(json.dumps(plain[0] if _is_one(number, entries) else plain, indent=1), file=out)
    elif _is_one(number, entries):
        print(_page(entries[0]), file=out)
    else:
        print("\n".join(f"{each.number}  {each.sentence}" for each in entries), file=out)
    return 0


def _is_one(number: int | None, entries: Sequence[Entry]) -> bool:
    return number == entries[0].number


def _plain(entry: Entry) -> dict[str, int | str]:
    """For machines."""
    return {
        "number": entry.number,
        "exit_code": entry.exit_code,
        "sentence": entry.sentence,
        "cause": entry.cause,
        "remedy": entry.remedy,
    }


def _page(entry: Entry) -> str:
    """For people."""
    parts = (("cause: ", entry.cause), ("to do: ", entry.remedy))
    head = f"Error {entry.number} (exit code {entry.exit_code}): {entry.sentence}"
    return "\n".join([head, *(_wrapped(title, text) for title, text in parts)])


def _wrapped(title: str, text: str) -> str:
    return textwrap.fill(
        text,
        width=WIDTH,
        initial_indent=f"  {title}",
        subsequent_indent=" " * (2 + len(title)),
        break_long_words=False,
        break_on_hyphens=False,
    )
