"""What pytest in the guest tells the rig, as the checks go: one line of JSON each, over the second serial port."""

import json
import os
from typing import Any

import pytest

_port = os.open(os.environ["MEKT_PORT"], os.O_WRONLY | os.O_NOCTTY)


def say(**line: Any) -> None:
    """One line for the rig."""
    data = json.dumps(line, default=str).encode() + b"\n"
    while data:
        data = data[os.write(_port, data) :]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before any of them runs, so that the rig knows of those that never ended."""
    say(what="collected", checks=[item.nodeid for item in session.items])


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported."""
    if report.failed:
        say(what="check", name=report.nodeid, outcome="failed", seconds=0.0, text=report.longreprtext, figures={})


def pytest_runtest_logstart(nodeid: str) -> None:
    """It begins."""
    say(what="begun", name=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """It ended; what set it up and what cleaned up behind it counts when that failed or was skipped."""
    if report.when == "call" or not report.passed:
        say(
            what="check",
            name=report.nodeid,
            outcome=report.outcome,
            seconds=round(report.duration, 3),
            # With what was logged, which tells what a source suffered from.
            text=f"{report.longreprtext}\n{report.caplog}".strip(),
            figures=dict(report.user_properties),
        )
