import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.debian import Emulator, MissingError
from tests.drivers import rig
from tests.drivers.packages import Machine, machine


def said(**line: Any) -> bytes:
    return json.dumps(line).encode()


def passing() -> list[bytes]:
    return [
        said(what="booted", kernel="6.1", uptime_s=1.0),
        said(what="collected", checks=["a", "b"]),
        said(what="begun", name="a"),
        said(what="check", name="a", outcome="passed", seconds=1.0, text="", figures={}),
        said(what="check", name="b", outcome="passed", seconds=1.0, text="", figures={}),
        said(what="end", code=0, uptime_s=9.0),
    ]


def problems(lines: list[bytes]) -> list[str]:
    run = rig.Run()
    for line in lines:
        run.take(line)
    return run.problems()


def test_a_run_whose_checks_all_passed_has_no_problem() -> None:
    assert problems(passing()) == []


@pytest.mark.parametrize("left_out", [1, 3, 4, 5])
def test_a_run_in_which_anything_is_missing_proves_nothing(left_out: int) -> None:
    lines = passing()
    del lines[left_out]
    assert problems(lines) != []


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_a_check_that_did_not_pass_is_a_problem_even_if_pytest_says_that_all_is_well(outcome: str) -> None:
    lines = passing()
    lines[4] = said(what="check", name="b", outcome=outcome, seconds=1.0, text="why", figures={})
    assert problems(lines) == [f"b: {outcome}"]


def guest(script: str, tmp_path: Path) -> rig.Run:
    """A run whose emulator is a Python script."""
    emulator = Emulator(command=(sys.executable, "-c", script))
    made = Machine(emulator=emulator, kernel=Path("k"), modules=Path("m"))
    return rig.boot(made, Path("i"), tmp_path, 0)


def test_what_the_guest_says_arrives_whole_however_it_is_cut(tmp_path: Path) -> None:
    text = b"\n".join(passing()) + b"\n"
    script = f"import os\nfor byte in {text!r}: os.write(1, bytes([byte]))"
    run = guest(script, tmp_path)
    assert run.problems() == []
    assert run.foreign == []


def test_a_guest_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig, "ALL_S", 0.5)
    run = guest("import time; time.sleep(3600)", tmp_path)
    assert "the guest did not come to its end" in run.problems()


def test_it_says_what_is_missing_where_there_is_no_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="apt-get is not there"):
        machine(tmp_path / "cache")


def test_it_says_what_is_missing_where_there_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As apt-get ends without one.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "apt-cache", "dpkg-deb", "ldd"):
        (tools / name).write_text("#!/bin/sh\necho 'E: Failed to fetch InRelease  Could not resolve' >&2\nexit 100\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(MissingError, match=r"without a network(.|\n)*Could not resolve"):
        machine(tmp_path / "cache")
    # Nothing half made that a later run would take for whole.
    assert not (tmp_path / "cache" / "root").exists()


def test_it_says_that_it_takes_linux_on_x86(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(MissingError, match="Linux on x86-64"):
        machine(tmp_path / "cache")
