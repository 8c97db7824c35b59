"""What a part needs installed, each package in every state that it may be in."""

import sys
import tomllib
from pathlib import Path

import pytest

from mekt.attempt import Died, Done, Hung, Outcome, Refused
from mekt.check import Check, exit_code
from mekt.doctor import Question
from mekt.errors import MissingPackageError
from mekt.packages import (
    PACKAGES,
    Extra,
    _package,
    check_compute,
    check_packages,
    check_python,
    check_torch_build,
    gpu_is_there,
    install_line,
)
from tests.mekt.conftest import LIMIT_S, fake_package

ROOT = Path(__file__).parents[2]
SECURE: tuple[Extra, ...] = ("secure",)


def test_a_package_with_instructions_that_the_processor_lacks_is_named_and_the_others_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "onnxruntime", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.syspath_prepend(tmp_path)
    checks = [check for check, _ in check_packages("wearable", LIMIT_S)]
    assert [check.mark for check in checks] == ["ok", "ok", "ok", "FAILED"]
    assert "this processor does not know" in checks[-1].seen and "pip install --force-reinstall" in checks[-1].remedy
    assert exit_code(checks) == 8


@pytest.mark.skipif(sys.platform != "linux", reason="what a process does is known on Linux only")
def test_a_package_whose_import_never_ends_fails_and_one_that_is_still_at_work_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "msgpack", "while True: pass")
    fake_package(tmp_path, "onnxruntime", "import threading; threading.Event().wait()")
    monkeypatch.syspath_prepend(tmp_path)
    _, slow, _, hanging = [check for check, _ in check_packages("wearable", 3.0)]
    assert slow.mark == "warning" and "try again when it has less to do" in slow.remedy
    assert hanging.mark == "FAILED" and exit_code([hanging]) == 8 and "pip install --force-reinstall" in hanging.remedy


def test_what_the_settings_ask_for_is_tried_too_and_one_line_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "cryptography", "raise ModuleNotFoundError(\"No module named 'cryptography'\")")
    monkeypatch.syspath_prepend(tmp_path)
    checks = [check for check, _ in check_packages("wearable", LIMIT_S, SECURE)]
    assert [check.mark for check in checks[-2:]] == ["ok", "FAILED"]
    assert checks[-1].name == "cryptography" and '-e ".[wearable,secure]"' in checks[-1].remedy
    assert install_line("coordinator", ("secure", "authority")).endswith('-e ".[coordinator,authority,secure]"')
    for role, table, extras in (
        ("edge", {"sums_only": True}, ("secure",)),
        ("edge", {"trust": {"coordinator": "a"}}, ()),
        ("coordinator", {"round": {"secure": True}, "trust": {"authority": "a"}}, ("authority", "secure")),
        ("coordinator", {"round": 7}, ()),
    ):
        assert Question(role=role, table=table).extras == extras  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "mark", "words"),
    [
        (Done(facts={"version": "2.13.0+cpu"}), "ok", "2.13.0+cpu"),
        (Done(facts={"version": "of unknown version"}), "ok", "unknown"),
        (Done(facts={"version": "2.3.1"}), "FAILED", "older than 2.4"),
        (
            Refused(problem="No module named 'torch'", error="ModuleNotFoundError"),
            "FAILED",
            "pip install -c constraints.txt",
        ),
        (Refused(problem="libcudart.so.13", error="OSError"), "FAILED", "https://download.pytorch.org/whl/cpu"),
        (
            Refused(problem="libstdc++.so.6: cannot open shared object file: No such file", error="ImportError"),
            "FAILED",
            "; sudo apt-get install libstdc++6",
        ),
        (Died(how="SIGSEGV"), "FAILED", "SIGSEGV"),
        (Died(how="SIGKILL"), "FAILED", "add swap"),
        (Hung(after_s=15), "warning", "slow or busy"),
        (Hung(after_s=15, idle=True), "FAILED", "hangs"),
    ],
)
def test_what_a_package_did_has_a_remedy(outcome: Outcome, mark: str, words: str) -> None:
    torch = PACKAGES["edge"][-1]
    check = _package(torch, outcome, install_line("edge"))
    assert check.name == "torch" and check.mark == mark and words in check.line()
    assert check.family is (MissingPackageError if mark == "FAILED" else None)


def test_the_packages_and_their_versions_are_those_of_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for role, packages in PACKAGES.items():
        wanted = {*project["dependencies"], *project["optional-dependencies"][role]}
        assert {f"{each.name}>={each.least}" for each in packages} == {line.split(",")[0] for line in wanted}


def test_python_must_be_new_enough_and_of_64_bits() -> None:
    assert check_python().mark == "ok"
    assert check_python((3, 10, 12), 64, "aarch64").mark == "FAILED"
    narrow = check_python((3, 13, 1), 32, "aarch64")
    assert narrow.mark == "FAILED" and "no packages for 32-bit" in narrow.remedy and exit_code([narrow]) == 8


def test_a_build_of_torch_for_cuda_is_said_where_no_gpu_is(tmp_path: Path) -> None:
    def build(cuda: str | None, gpu: bool, there: bool) -> Check:
        return check_torch_build({"version": "2.13.0+cu130", "cuda": cuda, "gpu": gpu}, there)

    assert build(None, False, False).mark == build("13.0", True, True).mark == "ok"
    without = build("13.0", False, False)
    assert (
        without.mark == "warning" and "torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu" in without.remedy
    )
    assert "driver" in build("13.0", False, True).remedy
    assert check_torch_build(None, False).mark == "skipped"
    assert not gpu_is_there(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert gpu_is_there(tmp_path)


def test_settings_that_insist_on_a_gpu_fail_without_one() -> None:
    assert exit_code(check_compute("cuda", {"gpu": False})) == 2
    assert list(check_compute("cuda", {"gpu": True})) == list(check_compute("auto", {"gpu": False})) == []
