"""What a check is: a mark, a line, somebody who must act."""

import pytest

from mekt.check import Check, exit_code, failed, ok, skipped, warning
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
