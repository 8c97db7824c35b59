"""What a check is: a mark, a line, somebody who must act."""

import io
import json
from collections.abc import Iterator

import pytest

from mekt.check import Check, exit_code, failed, ok, report, skipped, warning
from mekt.errors import LinkError, StateError


def test_the_exit_code_is_that_of_the_first_failure_and_warnings_do_not_count() -> None:
    assert exit_code([ok("a", "fine"), warning("b", "slow", "hurry"), skipped("c", "no need")]) == 0
    two = [failed("a", "full", "make room", StateError), failed("b", "away", "start it", LinkError)]
    assert exit_code([warning("w", "slow", "hurry"), *two]) == 7
    assert exit_code(reversed(two)) == 4


def test_a_check_is_a_line_that_cannot_speak_to_a_terminal() -> None:
    line = failed("port", "gone\n\x1b[31m" + "x" * 2000, "start it", LinkError).line()
    assert line.startswith("FAILED   port") and "\n" not in line and "\x1b" not in line and len(line) < 700


def test_what_failed_has_a_remedy_and_somebody_who_must_act() -> None:
    for wrong in ({"mark": "FAILED", "remedy": "do"}, {"mark": "warning"}, {"mark": "ok", "family": LinkError}):
        with pytest.raises(AssertionError):
            Check(name="a", seen="b", **wrong)


def test_what_is_skipped_for_one_reason_has_one_line_and_others_come_as_they_are_known() -> None:
    out = io.StringIO()

    def checks() -> Iterator[Check]:
        yield ok("python", "3.11")
        assert out.getvalue() == "ok       python         3.11\n"
        yield from (skipped(name, "there is no broker") for name in ("port", "tls"))
        yield skipped("sensors", "there is no file")
        yield ok("memory", "enough")

    assert report("edge", checks(), as_json=False, out=out) == 0
    assert out.getvalue().splitlines()[1:] == [
        "skipped  port, tls: there is no broker",
        "skipped  sensors        there is no file",
        "ok       memory         enough",
        "edge: nothing failed, 0 warnings, 3 skipped",
    ]
    as_json = io.StringIO()
    report("edge", [skipped("port", "no"), skipped("tls", "no")], as_json=True, out=as_json)
    assert [each["name"] for each in json.loads(as_json.getvalue())["checks"]] == ["port", "tls"]
