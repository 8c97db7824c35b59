"""The doctor before a real broker, real processes and real files: every finding provoked, and no harm done."""

import contextlib
import fcntl
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mekt.attempt import Attempt, Died, Done, Hung, Outcome, Refused
from mekt.broker import Broker, free_port
from mekt.check import REACH, VISIT, Check, Role, exit_code, failed, ok, skipped, warning
from mekt.cli import main
from mekt.errors import LinkError, MissingPackageError, SensorError, SettingsError, StateError
from mekt.link import Disconnected, Link, Received
from mekt.login import BrokerSettings, TlsSettings
from mekt.machine import available_bytes, check_clock, check_memory, check_state, synchronised
from mekt.packages import (
    PACKAGES,
    _package,
    check_compute,
    check_packages,
    check_python,
    check_torch_build,
    gpu_is_there,
)
from mekt.permits import LEAST_PACKET_BYTES, check_permits
from mekt.post import Post
from mekt.reach import Validity, check_reach, check_validity, validity_of
from mekt.topics import for_coordinator, for_device
from mekt.visit import PROBE_EXPIRES_S, Guest

ROOT = Path(__file__).parents[2]
WAIT_S = 15.0 * float(os.environ.get("MEKT_TEST_TIME_UNIT", "1"))
# Of what comes to an end by itself, on however busy a machine.
LIMIT_S = 120.0
SECRET = "correct-horse-battery"
DEVICE = """
federation = "ward"
device = "pi-1"
[[sensors]]
kind = "simulator"
modalities = ["acc"]
subject = 1
speed = 100.0
duration_s = 10.0
[broker]
port = {port}
"""
FEDERATION = """
federation = "ward"
rounds = 1
proxy = ["proxy.npz"]
test = ["held-out.npz"]
labelled = ["labelled.npz"]
compute = "{compute}"
[window]
window_s = 2.56
stride_s = 1.28
[[modalities]]
name = "acc"
shape = [3]
rate_hz = 50
unit = "g"
[broker]
port = {port}
"""
# As much of torch as the doctor tries, of a build for CUDA.
CUDA_TORCH = """
class Tensor:
    def transpose(self, *_): return self
    def sum(self): return self
    def __add__(self, other): return self
    def backward(self): pass
def ones(*_): return Tensor()
class nn:
    LSTM = lambda *_, **__: lambda x: (x, None)
    Conv1d = lambda *_: lambda x: x
class version: cuda = "13.0"
class cuda: is_available = lambda: False
"""

pytestmark = pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None,
    reason="mosquitto is not installed",
)


def named(checks: Iterable[Check], name: str) -> Check:
    """The only check of this name, which says something in one line."""
    [check] = [each for each in checks if each.name == name]
    assert check.seen and "\n" not in check.line()
    return check


def fake_package(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text, encoding="utf-8")


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """One run in this process: its exit code, and by name what it says about each thing that it looked at."""
    code = main(["doctor", *map(str, arguments), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["exit_code"] == code
    checks: dict[str, list[dict[str, Any]]] = {}
    for check in said["checks"]:
        checks.setdefault(check["name"], []).append(check)
    return code, checks


@pytest.fixture
def light(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that is imported at once, where a test is about something else."""
    folder = tmp_path_factory.mktemp("light")
    fake_package(folder, "torch", CUDA_TORCH)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes is waited for shortly, what comes for as long as a busy machine may need."""
    monkeypatch.setattr("mekt.permits.RETAINED_S", 0.05 * WAIT_S)
    monkeypatch.setattr("mekt.visit.LOGIN_S", WAIT_S)
    monkeypatch.setattr("mekt.visit.ACK_S", WAIT_S)
    monkeypatch.setattr("mekt.doctor.SAMPLES_S", 1.0)
    for limit in ("IMPORT_S", "SETTINGS_S", "SENSOR_S"):
        monkeypatch.setattr(f"mekt.doctor.{limit}", LIMIT_S)
    monkeypatch.setattr("mekt.doctor.WHOLE_S", 4 * LIMIT_S)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker"), kind="mosquitto") as running:
        yield running


# What a check is


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


# Attempts and packages


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", Died(how="SIGILL")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Died(how="SIGSEGV")),
        ("import os; os._exit(3)", Died(how="exit code 3 without a word")),
        ("import time; time.sleep(600)", Hung(after_s=1.5)),
        (
            "raise OSError('libcudart.so.13: no such file')",
            Refused(problem="libcudart.so.13: no such file", error="OSError"),
        ),
        ("print('Welcome!', flush=True); __version__ = '1.2'", Done(facts={"version": "1.2"})),
    ],
)
def test_whatever_a_package_does_when_it_is_imported_is_found_out(
    text: str, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "fickle", text)
    monkeypatch.syspath_prepend(tmp_path)
    assert Attempt("import", "fickle").outcome(1.5 if isinstance(outcome, Hung) else LIMIT_S) == outcome


def test_a_package_with_instructions_that_the_processor_lacks_is_named_and_the_others_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "onnxruntime", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.syspath_prepend(tmp_path)
    checks = [check for check, _ in check_packages("wearable", LIMIT_S)]
    assert [check.mark for check in checks] == ["ok", "ok", "ok", "FAILED"]
    assert "this processor does not know" in checks[-1].seen and "pip install --force-reinstall" in checks[-1].remedy
    assert exit_code(checks) == 8


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
        (Died(how="SIGSEGV"), "FAILED", "SIGSEGV"),
        (Died(how="SIGKILL"), "FAILED", "add swap"),
        (Hung(after_s=15), "warning", "15 s"),
    ],
)
def test_what_a_package_did_has_a_remedy(outcome: Outcome, mark: str, words: str) -> None:
    torch = PACKAGES["edge"][-1]
    check = _package(torch, outcome, "edge")
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


def test_it_starts_where_numpy_ends_the_process_and_says_so(tmp_path: Path) -> None:
    fake_package(tmp_path, "numpy", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    command = [sys.executable, "-m", "mekt", "doctor", "--role", "wearable", "--port", str(free_port())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=LIMIT_S)
    assert done.returncode == 8, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("FAILED   numpy") and "SIGILL" in line for line in lines)
    assert lines[-1].startswith("wearable: ") and "Traceback" not in done.stderr


# The machine


def test_memory_is_what_the_kernel_and_the_container_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 900000 kB\nMemAvailable:  400000 kB\n")
    assert available_bytes(meminfo, tmp_path) == 409_600_000
    (tmp_path / "memory.max").write_text("200000000\n")
    (tmp_path / "memory.current").write_text("50000000\n")
    assert available_bytes(meminfo, tmp_path) == 150_000_000
    assert available_bytes(tmp_path / "none", tmp_path / "none") > 0
    assert check_memory("wearable").mark == "ok"
    monkeypatch.setattr("mekt.machine.MEMORY_BYTES", {"edge": 2**60})
    assert check_memory("edge").mark == "warning"


def test_a_state_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "progress").write_bytes(b"kept")
    for folder in (tmp_path / "state", tmp_path / "not" / "yet"):
        assert {check.mark for check in check_state(folder)} == {"ok"}
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["state", "state/progress"]


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    impossible = [tmp_path / "file", tmp_path / "file" / "below"]
    if sys.platform.startswith("linux"):
        impossible.append(Path("/proc/mekt"))  # not even root makes one there
    for folder in impossible:
        check = named(check_state(folder), "state folder")
        assert check.mark == "FAILED" and check.family is StateError and str(folder) in check.seen


def test_folders_and_files_without_permission_are_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch(mode=0o400)
    if os.access(tmp_path / "ledger.sqlite", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "ledger.sqlite" in named(check_state(tmp_path), "state folder").seen
    tmp_path.chmod(0o500)
    assert named(check_state(tmp_path), "state folder").mark == "FAILED"
    tmp_path.chmod(0o700)


def test_a_disk_without_room_fails_and_one_with_little_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.machine.ROOM_BYTES", 2**62)
    assert named(check_state(tmp_path / "state"), "disk").mark == "warning"
    monkeypatch.setattr("mekt.machine.LEAST_ROOM_BYTES", 2**62)
    assert named(check_state(tmp_path / "state"), "disk").family is StateError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """As another process has it."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 4711\n")
        lock.flush()
        yield


def test_a_state_folder_in_use_names_its_owner_and_is_free_again_afterwards(tmp_path: Path) -> None:
    with locked(tmp_path / "state"):
        check = named(check_state(tmp_path / "state"), "lock")
        assert check.family is StateError and "process 4711" in check.seen
    assert named(check_state(tmp_path / "state"), "lock").mark == "ok"
    with locked(tmp_path / "state"):
        pass
    (tmp_path / "state" / "lock").unlink()
    (tmp_path / "state" / "lock").mkdir()
    assert named(check_state(tmp_path / "state"), "lock").family is StateError


def test_a_clock_behind_the_files_of_the_state_is_seen(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ab").touch()
    now_s = time.time()
    assert named(check_clock(tmp_path), "clock").mark == "ok"
    os.utime(tmp_path / "blobs" / "ab", (now_s + 3600, now_s + 3600))
    check = named(check_clock(tmp_path), "clock")
    assert check.mark == "warning" and "the state folder" in check.seen and "battery" in check.remedy
    # A board without a clock battery starts in the past.
    assert "Mekt's own files" in named(check_clock(None, 946_684_800.0), "clock").seen


def test_the_kernels_word_on_its_clock() -> None:
    assert synchronised(0x2001, 1500).mark == "ok"
    assert synchronised(0x40, 16_000_000).mark == "warning"
    assert named(check_clock(None), "clock sync").mark in ("ok", "warning", "skipped")


# The way to the broker


def reach(**settings: Any) -> list[Check]:
    return list(check_reach(BrokerSettings(**settings)))


def test_a_broker_in_plain_text_is_reached_and_no_clock_compared(broker: Broker) -> None:
    checks = reach(port=broker.port)
    assert [check.name for check in checks] == list(REACH)
    assert [check.mark for check in checks] == ["ok", "ok", "skipped", "skipped"]
    assert "MQTT tells no time" in checks[-1].seen


def test_nobody_listens() -> None:
    checks = reach(port=free_port())
    assert [check.mark for check in checks] == ["ok", "FAILED", "skipped", "skipped"]
    assert "start the broker" in checks[1].remedy and exit_code(checks) == 4


def test_a_name_that_nobody_has() -> None:
    checks = reach(host="broker.invalid", plain_text_allowed=True)
    assert named(checks, "plain text").mark == "warning"
    assert named(checks, "name").family is LinkError and named(checks, "port").mark == "skipped"


def test_plain_text_to_another_machine_has_to_be_allowed() -> None:
    assert exit_code(reach(host="broker.invalid")) == 2


@dataclass(frozen=True)
class Papers:
    """Paths by name in a folder with an authority, another one, and certificates of the first one."""

    folder: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    def tls(self, *, ca: str = "ca.pem", own: str | None = "device") -> TlsSettings:
        return TlsSettings(
            ca=self[ca],
            certificate=None if own is None else self[f"{own}.pem"],
            key=None if own is None else self[f"{own}.key"],
        )


AUTHORITY = """
[ca]
default_ca = a
[a]
database = index
serial = serial
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = p
unique_subject = no
[p]
commonName = supplied
"""
# From when to when, and for which name; the last two years of the first century and of certificates' two-digit years.
CERTIFICATES = {
    "server": ("20000101000000Z", "20490101000000Z", "IP:127.0.0.1"),
    "device": ("20000101000000Z", "20490101000000Z", "DNS:device"),
    "late": ("20480101000000Z", "20990101000000Z", "IP:127.0.0.1"),
    "past": ("20000101000000Z", "20010101000000Z", "IP:127.0.0.1"),
    "other-name": ("20000101000000Z", "20490101000000Z", "DNS:elsewhere.example"),
}


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")

    def openssl(*words: str) -> None:
        subprocess.run(
            ["openssl", *words], check=True, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        subject = ("-subj", f"/CN={name}", "-days", "20000")
        openssl("req", "-x509", *key, *subject, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    (folder / "authority").write_text(AUTHORITY)
    (folder / "serial").write_text("01\n")
    (folder / "index").touch()
    for name, (begin, end, who) in CERTIFICATES.items():
        (folder / "extra").write_text(f"subjectAltName={who}")
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        dates = ("-startdate", begin, "-enddate", end)
        openssl(
            *("ca", "-batch", "-config", "authority", "-notext", *dates),
            *("-extfile", "extra", "-in", f"{name}.csr", "-out", f"{name}.pem"),
        )
    return Papers(folder)


@contextlib.contextmanager
def tls_broker(folder: Path, papers: Papers, server: str = "server") -> Iterator[Broker]:
    lines = (
        *(f"cafile {papers['ca.pem']}", f"certfile {papers[server + '.pem']}", f"keyfile {papers[server + '.key']}"),
        *("require_certificate true", "use_identity_as_username true"),
    )
    with Broker(folder, kind="mosquitto", more=lines) as running:
        yield running


def test_over_tls_all_is_well_or_says_whose_fault_it_is(tmp_path: Path, papers: Papers) -> None:
    with tls_broker(tmp_path, papers) as broker:
        checks = reach(port=broker.port, tls=papers.tls())
        assert [check.mark for check in checks] == ["ok"] * 4, [check.line() for check in checks]
        assert "2000-01-01 00:00:00 UTC to 2049-01-01" in named(checks, "certificates").seen

        checks = reach(port=broker.port, tls=papers.tls(ca="other.pem"))
        assert "name the authority" in named(checks, "tls").remedy and exit_code(checks) == 4
        checks = reach(port=broker.port, tls=papers.tls(own=None))
        assert "with no certificate" in named(checks, "tls").seen and exit_code(checks) == 4
        checks = reach(port=broker.port, tls=papers.tls(own="past"))
        assert named(checks, "tls").mark == named(checks, "certificates").mark == "FAILED"
        assert "this side's is valid" in named(checks, "certificates").seen

        settings = BrokerSettings(port=broker.port, tls=papers.tls())
        visited = list(check_permits(Guest(role="edge", settings=settings, federation="ward", device="d"), LIMIT_S))
        assert "as this certificate" in named(visited, "login").seen and named(visited, "client id").mark == "ok"


@pytest.mark.parametrize(
    ("server", "seen", "remedy"),
    [
        ("late", "is not yet valid", "set this machine's clock"),
        ("past", "has expired", "renew the broker's certificate"),
        ("other-name", "mismatch", "set [broker] host"),
    ],
)
def test_a_brokers_certificate_of_another_time_or_name(
    server: str, seen: str, remedy: str, tmp_path: Path, papers: Papers
) -> None:
    with tls_broker(tmp_path, papers, server) as broker:
        checks = reach(port=broker.port, tls=papers.tls())
    assert seen in named(checks, "tls").seen and remedy in named(checks, "tls").remedy
    wrong_time = server != "other-name"
    assert (named(checks, "certificates").mark == "FAILED") == wrong_time
    assert not wrong_time or "the broker's is valid from" in named(checks, "certificates").seen


def test_a_port_without_tls_and_files_that_are_none(broker: Broker, papers: Papers) -> None:
    checks = reach(port=broker.port, tls=papers.tls())
    assert named(checks, "tls").family is LinkError and "port" in named(checks, "tls").remedy
    assert exit_code(reach(port=broker.port, tls=TlsSettings(ca="/nowhere.pem"))) == 2


def test_certificates_are_read_to_the_second_or_refused(papers: Papers) -> None:
    import ssl

    for name, (begin, end, _) in CERTIFICATES.items():
        der = ssl.PEM_cert_to_DER_cert(Path(papers[f"{name}.pem"]).read_text())
        found = validity_of(der)
        assert time.strftime("%Y%m%d%H%M%SZ", time.gmtime(found.begins_s)) == begin
        assert time.strftime("%Y%m%d%H%M%SZ", time.gmtime(found.ends_s)) == end
        for cut in range(0, len(der) - 1, 7):
            with pytest.raises(ValueError):
                validity_of(der[:cut])


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    known = {"the broker's": Validity(begins_s=0, ends_s=30 * 86400), "this side's": Validity(begins_s=0, ends_s=9e9)}
    assert check_validity(known, 5 * 86400).mark == "ok"
    soon = check_validity(known, 20 * 86400)
    assert soon.mark == "warning" and "the broker's ends in 10 days" in soon.seen
    assert check_validity(known, -5).family is check_validity(known, 31 * 86400).family is LinkError


# What the broker permits


def guest(port: int, role: Role = "edge", **settings: Any) -> Guest:
    device = "pi-1" if role == "edge" else ""
    return Guest(role=role, settings=BrokerSettings(port=port, **settings), federation="ward", device=device)


def permits(port: int, role: Role = "edge", **settings: Any) -> list[Check]:
    return list(check_permits(guest(port, role, **settings), LIMIT_S))


@contextlib.contextmanager
def linked(port: int, name: str, *subscriptions: str, **settings: Any) -> Iterator[tuple[Link, "queue.Queue[Any]"]]:
    inbox: queue.Queue[Any] = queue.Queue()
    link = Link(
        settings=BrokerSettings(port=port, **settings), client_id=name, inbox=inbox, subscriptions=subscriptions
    )
    link.start()
    try:
        yield link, inbox
    finally:
        link.stop()


def arrived(inbox: "queue.Queue[Any]") -> list[Any]:
    """All events so far."""
    events = []
    with contextlib.suppress(queue.Empty):
        while True:
            events.append(inbox.get_nowait())
    return events


def password(folder: Path, *users: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Lines for a broker that lets these in with the secret, and the setting that goes with it."""
    file = folder / "users"
    file.touch(mode=0o600)
    for user in users:
        subprocess.run(["mosquitto_passwd", "-b", file, user, SECRET], check=True)
    (folder / "password").write_text(SECRET + "\n")
    return ("allow_anonymous false", f"password_file {file}"), {"password_file": str(folder / "password")}


def test_an_open_broker_permits_all(broker: Broker) -> None:
    for role in ("edge", "coordinator"):
        checks = permits(broker.port, role)
        assert exit_code(checks) == 0
        assert all(
            check.mark == "ok" for check in checks if check.name in ("login", "protocol", "packet limit", "delivery")
        )
        assert {check.name for check in checks} == set(VISIT)
        assert named(checks, "publish").mark == "ok"
    assert {check.mark for check in permits(broker.port, "wearable")[4:]} == {"skipped"}


def test_a_visit_does_no_harm_to_who_is_there_and_to_what_is_retained(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {"mekt/1/ward/round": b"the round", "mekt/1/ward/status": b"status", "mekt/1/ward/up/pi-1/presence": b"here"}
    device, coordinator = for_device("ward", "pi-1"), for_coordinator("ward")
    with (
        linked(broker.port, "mekt:ward:pi-1", *device) as (daemon, heard),
        linked(broker.port, "mekt:ward", *coordinator) as (_, heard_above),
    ):
        for topic, payload in kept.items():
            daemon.publish(topic, payload, retain=True)
        # A visit sees what is retained only when it is there.
        checks = permits(broker.port, "edge") + permits(broker.port, "coordinator")
        assert [check.line() for check in checks if check.mark not in ("ok", "skipped")] == []
        daemon.publish("mekt/1/ward/up/pi-1/want", b"the last")
        events: list[Any] = []
        deadline_s = time.monotonic() + WAIT_S
        while not any(isinstance(each, Received) and each.payload == b"the last" for each in events):
            assert time.monotonic() < deadline_s
            events += arrived(heard_above)
            time.sleep(0.02)
        events += arrived(heard)
        assert not any(isinstance(each, Disconnected) for each in events)
        probes = [each for each in events if isinstance(each, Received) and b"mekt doctor" in each.payload]
        # Both visits wrote to the coordinator, the coordinator's own to all devices; nobody takes it for a message.
        assert {each.topic for each in probes} > {"mekt/1/ward/round", "mekt/1/ward/up/pi-1/presence"}
        post = Post("ward")
        assert not any(each.retained or post.open(each) for each in probes)
        assert "dropped (malformed): pi-1, presence: mekt doctor tries what it may publish: unknown key" in caplog.text
        with linked(broker.port, "late", *kept) as (link, inbox):
            retained = {each.topic: each.payload for each in arrived(inbox) if isinstance(each, Received)}
            while len(retained) < len(kept):
                each = inbox.get(timeout=WAIT_S)
                retained |= {each.topic: each.payload} if isinstance(each, Received) else {}
            assert retained == kept
            for topic in kept:
                link.publish(topic, b"", retain=True)


def test_who_is_absent_gets_nothing_of_a_visit_later(broker: Broker) -> None:
    with linked(broker.port, "mekt:ward", *for_coordinator("ward")):
        pass
    assert named(permits(broker.port), "publish").mark == "ok"
    time.sleep(PROBE_EXPIRES_S + 1.1)  # brokers count whole seconds
    with linked(broker.port, "mekt:ward", *for_coordinator("ward")) as (link, inbox):
        link.publish("mekt/1/ward/up/pi-1/want", b"first")
        received = [inbox.get(timeout=WAIT_S) for _ in range(2)]
        assert received[-1].payload == b"first"


def test_a_login_that_is_refused_has_a_remedy_and_no_secret_is_shown(tmp_path: Path) -> None:
    lines, right = password(tmp_path, "pi-1")
    (tmp_path / "wrong").write_text("guess-of-mine")
    (tmp_path / "binary").write_bytes(b"\xff\xfe" + SECRET.encode())
    with Broker(tmp_path / "broker", kind="mosquitto", more=lines) as broker:
        wrong = permits(broker.port, username="pi-1", password_file=str(tmp_path / "wrong"))
        nameless, without = permits(broker.port), permits(broker.port, username="pi-1")
        unreadable = permits(broker.port, username="pi-1", password_file=str(tmp_path / "binary"))
        good = permits(broker.port, username="pi-1", **right)
    for checks, remedy in (
        (wrong, "content of password_file"),
        (nameless, "set [broker] username"),
        (without, "has no"),
    ):
        assert remedy in named(checks, "login").remedy and exit_code(checks) == 4
        assert {check.mark for check in checks[1:]} == {"skipped"}
    assert exit_code(unreadable) == 2 and "not UTF-8" in named(unreadable, "login").seen
    assert exit_code(good) == 0 and "as pi-1" in named(good, "login").seen
    assert named(good, "client id").mark == "ok"
    said = "\n".join(check.line() for checks in (wrong, nameless, without, unreadable, good) for check in checks)
    assert SECRET not in said and "guess-of-mine" not in said and "0xff" not in said


ACCESS = """
user pi-1
topic read mekt/1/ward/round
topic read mekt/1/ward/down/pi-1/+
topic write mekt/1/ward/up/pi-1/+
user coordinator
topic write mekt/1/ward/round
topic write mekt/1/ward/status
topic write mekt/1/ward/down/#
topic read mekt/1/ward/up/#
user mute
topic readwrite mekt/1/ward/down/pi-1/+
topic write mekt/1/ward/up/pi-1/presence
user deaf
topic write mekt/1/ward/#
"""


def test_an_access_list_is_found_out_topic_by_topic(tmp_path: Path) -> None:
    lines, right = password(tmp_path, "pi-1", "coordinator", "mute", "deaf")
    (tmp_path / "access").write_text(ACCESS)
    with Broker(tmp_path / "broker", kind="mosquitto", more=(*lines, f"acl_file {tmp_path / 'access'}")) as broker:

        def as_user(name: str, role: Role = "edge") -> tuple[list[Check], Check]:
            checks = permits(broker.port, role, username=name, **right)
            return [each for each in checks if each.name == "subscribe"], named(checks, "publish")

        # As it should be: nothing fails, and what cannot be known is said.
        (word, own), said = as_user("pi-1")
        assert word.mark == "warning" and "no coordinator was here yet" in word.seen
        assert own.mark == "ok" and "cannot be tried" in own.seen and said.mark == "ok"
        [heard], said = as_user("coordinator", "coordinator")
        assert heard.mark == said.mark == "ok"
        with linked(broker.port, "c", username="coordinator", **right) as (link, _):
            link.publish("mekt/1/ward/round", b"the round", retain=True)
        [word, _], _ = as_user("pi-1")
        assert word.mark == "ok" and "arrives" in word.seen

        [_, own], said = as_user("mute")
        assert own.mark == "ok" and "messages arrive" in own.seen
        assert said.family is LinkError and "up/pi-1/offer (Not authorized)" in said.seen
        assert "presence" not in said.seen and "let mute write" in said.remedy
        # The broker grants this subscription.
        [_, own], said = as_user("deaf")
        assert own.family is LinkError and "withheld" in own.seen and said.mark == "ok"
        [heard], _ = as_user("deaf", "coordinator")
        assert heard.family is LinkError and "let deaf read mekt/1/ward/up/+/+" in heard.remedy


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        ("max_packet_size 60000", "packet limit", "60000"),
        ("retain_available false", "delivery", "retain_available"),
        ("max_qos 0", "delivery", "max_qos"),
    ],
)
def test_what_the_broker_does_without_is_named(line: str, name: str, words: str, tmp_path: Path) -> None:
    with Broker(tmp_path, kind="mosquitto", more=(line,)) as broker:
        checks = permits(broker.port)
    assert named(checks, name).family is LinkError and words in named(checks, name).line()
    assert str(LEAST_PACKET_BYTES) == "131072"


def test_a_broker_that_takes_the_user_for_the_client_id_is_told(tmp_path: Path) -> None:
    lines, right = password(tmp_path, "pi-1", "other")
    with Broker(tmp_path / "broker", kind="mosquitto", more=(*lines, "use_username_as_clientid true")) as broker:
        login = {"username": "pi-1", **right}
        checks = permits(broker.port, **login)
        assert named(checks, "client id").mark == "warning" and named(checks, "publish").mark == "ok"
        with linked(broker.port, "mekt:ward:pi-1", *for_device("ward", "pi-1"), **login) as (_, inbox):
            # The visit has left no session behind, though it had the name for a while.
            assert not inbox.get(timeout=WAIT_S).session_present
        with linked(broker.port, "x", username="other", **right) as (link, _):
            link.publish("mekt/1/ward/down/pi-1/receipt", b"for later")
        checks = permits(broker.port, **login)
        assert named(checks, "client id").mark == "warning"
        # What waited for the device that is away waits still.
        with linked(broker.port, "mekt:ward:pi-1", **login) as (_, inbox):
            events = [inbox.get(timeout=WAIT_S)]
            assert events[0].session_present
            while not any(isinstance(each, Received) and each.payload == b"for later" for each in events):
                events.append(inbox.get(timeout=WAIT_S))


class OldBroker:
    """Before a real broker, somebody who knows MQTT 3.1.1 only: other logins he answers as such brokers do."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._start(self._serve)

    def close(self) -> None:
        for each in (self._server, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _start(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._open.append(client)
                login = client.recv(65536)
                if login[8:9] != b"\x04":
                    client.sendall(b"\x20\x02\x00\x01")
                    client.close()
                    continue
                behind = socket.create_connection(("127.0.0.1", self._behind))
                self._open.append(behind)
                behind.sendall(login)
                self._start(self._pass_on, client, behind)
                self._start(self._pass_on, behind, client)

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


def test_in_mqtt_3_1_1_it_says_what_cannot_be_seen_and_sends_nothing_to_the_coordinator(broker: Broker) -> None:
    old = OldBroker(broker.port)
    try:
        with linked(broker.port, "mekt:ward:c", "mekt/1/ward/up/#") as (link, inbox):
            checks = permits(old.port)
            link.publish("mekt/1/ward/up/pi-1/want", b"the end")
            received = [inbox.get(timeout=WAIT_S) for _ in range(2)]
            assert [each.payload for each in received if isinstance(each, Received)] == [b"the end"]
    finally:
        old.close()
    assert named(checks, "login").mark == "ok"
    assert named(checks, "protocol").mark == "warning" and "3.1.1 only" in named(checks, "protocol").seen
    for name in ("packet limit", "delivery", "publish"):
        assert named(checks, name).mark == "skipped" and "3.1.1" in named(checks, name).seen


def test_who_listens_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.visit.LOGIN_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        checks = permits(mute.getsockname()[1])
    assert named(checks, "login").family is LinkError and "not answered" in named(checks, "login").seen


# All of it


def test_a_device_that_is_well(broker: Broker, tmp_path: Path, light: None, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "device.toml").write_text(DEVICE.format(port=broker.port), encoding="utf-8")
    code, said = doctor(capsys, "--config", tmp_path / "device.toml")
    assert code == 0, said
    assert said["settings"][0]["mark"] == said["sensors[0]"][0]["mark"] == "ok"
    assert "samples of acc" in said["sensors[0]"][0]["seen"]
    assert said["torch build"][0]["mark"] in ("ok", "warning") and "13.0" in said["torch build"][0]["seen"]
    assert [path.name for path in tmp_path.iterdir()] == ["device.toml"]


def test_a_coordinator_with_the_real_packages_as_a_person_meets_it(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FEDERATION.format(port=broker.port, compute="cpu")
    (tmp_path / "federation.toml").write_text(text, encoding="utf-8")
    for name in ("proxy.npz", "labelled.npz"):
        (tmp_path / name).touch()
    assert main(["doctor", "--config", str(tmp_path / "federation.toml")]) == 2
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert any(line.startswith("ok       torch ") for line in lines)
    assert any(line.startswith("ok       onnxruntime ") for line in lines)
    [missing] = [line for line in lines if line.startswith("FAILED")]
    assert "recordings" in missing and "held-out.npz is not there" in missing and "correct it" in missing
    assert "ok       publish        mekt/1/ward/...: round, status" in text
    assert lines[-1].startswith("coordinator: 1 failed, ")


def test_every_problem_of_the_settings_is_a_line_and_the_broker_is_looked_at_all_the_same(
    broker: Broker, tmp_path: Path, light: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DEVICE.format(port=broker.port).replace('device = "pi-1"', 'device = "pi 1"\nthread = 2')
    (tmp_path / "device.toml").write_text(text, encoding="utf-8")
    code, said = doctor(capsys, "--config", tmp_path / "device.toml")
    assert code == 2 and [each["mark"] for each in said["settings"]] == ["FAILED", "FAILED"]
    assert {each["seen"].split(": ")[1] for each in said["settings"]} == {"thread", "device"}
    assert said["port"][0]["mark"] == "ok" and said["sensors"][0]["mark"] == "skipped"


def test_a_file_that_is_no_toml_leaves_what_needs_no_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "device.toml").write_text("device = pi-1", encoding="utf-8")
    for path in (tmp_path / "device.toml", tmp_path / "none.toml"):
        code, said = doctor(capsys, "--config", path)
        assert code == 2 and said["settings"][0]["mark"] == "FAILED" and said["clock"][0]["mark"] == "ok"
        assert {said[name][0]["mark"] for name in (*REACH, *VISIT, "packages", "sensors")} == {"skipped"}


def test_sensors_are_tried_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    sensors = """
    [[sensors]]
    kind = "replay"
    modalities = ["{name}"]
    recordings = ["{name}.npz"]
    """
    slow = '[[sensors]]\nkind = "simulator"\nmodalities = ["gyro"]\nsubject = 1\nspeed = 0.001\n'
    text = slow + sensors.format(name="nothing") + sensors.format(name="damaged")
    (tmp_path / "source.toml").write_text(text, encoding="utf-8")
    code, said = doctor(capsys, "--config", tmp_path / "source.toml")
    # A wearable needs neither a broker nor a state folder.
    assert said["login"][0]["mark"] == "skipped" and "state folder" not in said
    assert said["sensors[0]"][0]["mark"] == "warning" and "gyro gave no sample" in said["sensors[0]"][0]["seen"]
    assert said["sensors[1]"][0]["exit_code"] == SettingsError.exit_code == code
    assert "nothing.npz" in said["sensors[1]"][0]["seen"] and said["sensors[1]"][0]["remedy"]
    assert said["sensors[2]"][0]["exit_code"] == SensorError.exit_code


def test_where_a_daemon_is_logged_in_nobody_else_logs_in_under_its_name_unless_told_so(
    tmp_path: Path, light: None, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, right = password(tmp_path, "pi-1")
    with Broker(tmp_path / "broker", kind="mosquitto", more=lines) as broker, locked(tmp_path / "state"):
        login = f'username = "pi-1"\npassword_file = "{right["password_file"]}"\n'
        (tmp_path / "device.toml").write_text(DEVICE.format(port=broker.port) + login, encoding="utf-8")
        code, said = doctor(capsys, "--config", tmp_path / "device.toml")
        assert code == 7 and "process 4711" in said["lock"][0]["seen"]
        assert said["port"][0]["mark"] == "ok"
        assert {said[name][0]["mark"] for name in VISIT} == {"skipped"} and "--beside-daemon" in said["login"][0][
            "seen"
        ]
        _, said = doctor(capsys, "--config", tmp_path / "device.toml", "--beside-daemon")
        assert said["login"][0]["mark"] == said["client id"][0]["mark"] == "ok"
        assert SECRET not in json.dumps(said)


@pytest.mark.parametrize(
    "arguments", [("--config", "device.toml", "--host", "broker"), ("--config", "device.toml", "--port", "1883")]
)
def test_a_broker_is_named_once(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    assert "leave out --host and --port" in capsys.readouterr().err


def test_without_a_file_or_a_role_there_is_nothing_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 2 and "--config" in capsys.readouterr().err


def test_the_doctor_itself_never_imports_what_may_crash(tmp_path: Path) -> None:
    probe = (
        "import sys\nfrom mekt.cli import main\nmain(['doctor', '--role', 'wearable'])\n"
        "print('heavy:', sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert "named with --host and --port" in done.stdout
