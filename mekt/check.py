"""One thing that was looked at: a mark, what was seen, and what to do about it; and a report of several."""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from mekt.catalogue import Entry
from mekt.errors import MektError

Mark = Literal["ok", "warning", "FAILED", "skipped"]
Role = Literal["coordinator", "edge", "wearable"]
ROLES: tuple[Role, ...] = ("coordinator", "edge", "wearable")
# What is looked at of the broker, before and after the login, in this order.
REACH = ("name", "port", "tls", "certificates")
VISIT = ("login", "protocol", "packet limit", "delivery", "publish", "subscribe", "client id")
LONGEST_TEXT = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What was looked at, what was seen, and the remedy where it is not well; made by the functions below.

    `family` is the error that a start would end with, and so who must act; `entry` what the catalogue has about it.
    """

    name: str
    mark: Mark
    seen: str
    remedy: str = ""
    family: type[MektError] | None = None
    entry: Entry | None = None

    def __post_init__(self) -> None:
        assert (self.mark == "FAILED") == (self.family is not None), f"{self.name}: who must act?"
        assert self.family is not MektError, f"{self.name}: the root of the errors says nothing about who must act"
        if self.entry is not None:
            assert self.family is not None, f"{self.name}: an entry about what is no failure"
            assert self.entry.exit_code == self.family.exit_code, f"{self.name}: {self.entry.number} is not of it"
        assert (self.mark in ("FAILED", "warning")) == (self.remedy != ""), f"{self.name}: what is to be done?"

    def line(self) -> str:
        """For people."""
        text = f"{self.seen}; {self.remedy}" if self.remedy else self.seen
        return f"{self.mark:<8} {self.name:<14} {one_line(text)}"

    def plain(self) -> dict[str, Any]:
        """For machines."""
        words = {"name": self.name, "mark": self.mark, "seen": one_line(self.seen), "remedy": one_line(self.remedy)}
        code = self.family.exit_code if self.family else 0
        return words | {"exit_code": code, "number": self.entry.number if self.entry else 100 * code}


def ok(name: str, seen: str) -> Check:
    """All is well."""
    return Check(name=name, mark="ok", seen=seen)


def warning(name: str, seen: str, remedy: str) -> Check:
    """It will work, but not as one might wish."""
    return Check(name=name, mark="warning", seen=seen, remedy=remedy)


def failed(name: str, seen: str, remedy: str, family: type[MektError], entry: Entry | None = None) -> Check:
    """It will not work."""
    return Check(name=name, mark="FAILED", seen=seen, remedy=remedy, family=family, entry=entry)


def skipped(name: str, why: str) -> Check:
    """It was not looked at, and why."""
    return Check(name=name, mark="skipped", seen=why)


def refused(
    name: str, text: str, family: type[MektError], remedy: str = "see above", entry: Entry | None = None
) -> Check:
    """It will not work for the reason in `text`; the remedy stands behind the last semicolon, as Mekt words errors."""
    seen, _, advice = text.rpartition("; ")
    return failed(name, seen or text, advice if seen else remedy, family, entry)


def report(
    name: str, checks: Iterable[Check], *, as_json: bool, out: TextIO, about: Mapping[str, str] | None = None
) -> int:
    """Print a line for each check as soon as it is known, then how it went with `name`; the exit code.

    What is skipped for one reason has one line. As JSON it is one object with all of it, and with what `about` has.
    """
    told: list[Check] = []
    for why, run in itertools.groupby(checks, key=lambda check: check.seen if check.mark == "skipped" else None):
        before = len(told)
        for check in run:
            told.append(check)
            if why is None and not as_json:
                print(check.line(), file=out, flush=True)
        if why is not None and not as_json:
            names = [each.name for each in told[before:]]
            line = f"skipped  {', '.join(names)}: {one_line(why)}" if len(names) > 1 else told[-1].line()
            print(line, file=out, flush=True)
    code = exit_code(told)
    if as_json:
        print(json.dumps({**(about or {}), "exit_code": code, "checks": [each.plain() for each in told]}), file=out)
    else:
        print(f"{name}: {summary(told)}", file=out)
    return code


def exit_code(checks: Iterable[Check]) -> int:
    """That of the first check that failed, for it is the likeliest cause of the others; 0 when none did."""
    return next((check.family.exit_code for check in checks if check.family is not None), 0)


def summary(checks: Iterable[Check]) -> str:
    """How many failed, and how many give a warning."""
    marks = [check.mark for check in checks]
    failures, warnings = marks.count("FAILED"), marks.count("warning")
    said = f"{failures} failed" if failures else "nothing failed"
    return f"{said}, {warnings} warning{'s' * (warnings != 1)}, {marks.count('skipped')} skipped"


def one_line(text: str) -> str:
    """`text` in one line that cannot speak to a terminal; a peer may have had a word in it."""
    flat = "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
    return flat if len(flat) <= LONGEST_TEXT else flat[: LONGEST_TEXT - 3] + "..."
