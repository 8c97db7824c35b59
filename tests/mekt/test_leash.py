"""The leash: nothing that the demo or a test has started outlives it, also when nobody could clean up."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mekt.leash import leashed
from tests.mekt.conftest import fake_package, needs_mosquitto
from tests.processes import PATIENCE_S, processes_in, until

ROOT = Path(__file__).parents[2]
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# Starts a sleeper on a leash and says its process id.
OWNER = """
import subprocess, sys, threading
from mekt.leash import leashed
sleeper = subprocess.Popen(leashed(sys.argv[1:]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(sleeper.pid, flush=True)
sleeper.wait()
"""

PARTS = ("/mosquitto.conf", "/federation.toml", "/device.toml")

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only the kernel of Linux has leashes")


def runs(pid: int) -> bool:
    """Whether it is at work; whoever adopted one that was killed may not have looked after it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_linux
def test_a_process_on_a_leash_is_the_command_itself_and_dies_with_its_owner() -> None:
    command = [sys.executable, "-c", OWNER, *SLEEP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1] == [each.encode() for each in SLEEP])
        owner.kill()
    until(lambda: not runs(pid))


@needs_linux
@needs_mosquitto
def test_when_the_demo_is_killed_its_broker_coordinator_and_devices_go_with_it(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MEKT_DATA"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mekt", "demo", "--agents", "2", "--rounds", "50", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL) as demo:

        def started() -> int:
            return sum(line.rstrip().endswith(PARTS) for line in processes_in(tmp_path))

        until(lambda: demo.poll() is not None or started() == 4)
        assert demo.poll() is None
        demo.kill()
    until(lambda: processes_in(tmp_path) == [])


@needs_linux
def test_when_the_doctor_is_killed_what_it_tries_goes_with_it(tmp_path: Path) -> None:
    """One package hangs at its import, and the other computes for ever."""
    begins = f"import os, pathlib\npathlib.Path({str(tmp_path)!r}, __name__ + '.pid').write_text(str(os.getpid()))\n"
    fake_package(tmp_path, "onnxruntime", begins + "import threading; threading.Event().wait()")
    fake_package(tmp_path, "numpy", begins + "while True: pass")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "mekt", "doctor", "--role", "wearable"]
    pids = [tmp_path / "onnxruntime.pid", tmp_path / "numpy.pid"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL) as doctor:
        until(lambda: doctor.poll() is not None or all(path.exists() and path.read_text() for path in pids))
        assert doctor.poll() is None
        found = [int(path.read_text()) for path in pids]
        assert all(runs(pid) for pid in found) and doctor.pid not in found
        doctor.kill()
    try:
        until(lambda: not any(runs(pid) for pid in found))
    finally:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@needs_linux
def test_who_comes_after_the_end_of_its_owner_does_not_begin(tmp_path: Path) -> None:
    touch = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    command = leashed([sys.executable, "-c", touch, str(tmp_path / "begun")])
    owner = command.index(str(os.getpid()))
    for number, begins in ((os.getpid(), True), (-1, False)):
        command[owner] = str(number)
        (tmp_path / "begun").unlink(missing_ok=True)
        done = subprocess.run(command, check=False, capture_output=True, timeout=PATIENCE_S)
        assert (done.returncode == 0) is begins is (tmp_path / "begun").exists()


@needs_linux
def test_the_command_finds_its_signals_as_they_were() -> None:
    def ignored(command: list[str]) -> str:
        status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return next(line for line in status.splitlines() if line.startswith("SigIgn"))

    command = ["/bin/cat", "/proc/self/status"]
    assert ignored(leashed(command)) == ignored(command)


def test_another_thread_than_the_main_one_leashes_nothing() -> None:
    # A process that it started would die with it.
    made: list[list[str]] = []
    thread = threading.Thread(target=lambda: made.append(leashed(SLEEP)))
    thread.start()
    thread.join(PATIENCE_S)
    assert made == [SLEEP]


def test_elsewhere_the_command_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert leashed(SLEEP) == SLEEP
