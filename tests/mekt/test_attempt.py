"""Attempts: whatever is tried in a process of its own, its end is found out."""

import sys
from pathlib import Path

import pytest

from mekt.attempt import Attempt, Died, Done, Hung, Outcome, Refused
from tests.mekt.conftest import LIMIT_S, fake_package
from tests.processes import until


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", Died(how="SIGILL")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Died(how="SIGSEGV")),
        ("import os; os._exit(3)", Died(how="exit code 3 without a word")),
        (
            "raise OSError('libcudart.so.13: no such file')",
            Refused(problem="libcudart.so.13: no such file", error="OSError"),
        ),
        (
            "try:\n    raise ImportError('libm.so.9: cannot open')\n"
            "except ImportError as error:\n    raise ImportError('PLEASE READ THIS') from error",
            Refused(problem="libm.so.9: cannot open", error="ImportError"),
        ),
        ("print('Welcome!', flush=True); __version__ = '1.2'", Done(facts={"version": "1.2"})),
    ],
)
def test_whatever_a_package_does_when_it_is_imported_is_found_out(
    text: str, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "fickle", text)
    monkeypatch.syspath_prepend(tmp_path)
    assert Attempt("import", "fickle").outcome(LIMIT_S) == outcome


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("import time; time.sleep(600)", True),
        ("import threading; threading.Event().wait()", True),
        ("while True: pass", False),
        ("import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])", False),
    ],
)
def test_one_that_hangs_is_told_from_one_that_is_slow(
    text: str, idle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "fickle", f"import pathlib; pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n{text}")
    monkeypatch.syspath_prepend(tmp_path)
    attempt = Attempt("import", "fickle")
    until((tmp_path / "begun").exists)
    # Only Linux tells what a process does; elsewhere it may be slow.
    assert attempt.outcome(1.5) == Hung(after_s=1.5, idle=idle and sys.platform == "linux")
