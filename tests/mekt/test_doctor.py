"""The doctor before a real broker, real processes and real files: every finding provoked, and no harm done."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mekt.broker import Broker, free_port
from mekt.check import REACH, VISIT
from mekt.cli import main
from mekt.errors import SensorError, SettingsError
from tests.export.small import ACC, GYRO, parts_of
from tests.mekt.conftest import LIMIT_S, fake_package, locked, needs_mosquitto
from tests.mekt.visitors import SECRET, password
from tests.tables import WINDOWS_OF_ACC

ROOT = Path(__file__).parents[2]
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
FEDERATION = (
    """
federation = "ward"
rounds = 1
proxy = ["proxy.npz"]
test = ["held-out.npz"]
labelled = ["labelled.npz"]
compute = "{compute}"
"""
    + WINDOWS_OF_ACC
    + """
[broker]
port = {port}
"""
)
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

pytestmark = [needs_mosquitto, pytest.mark.usefixtures("patience")]


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


def test_it_starts_where_numpy_ends_the_process_and_says_so(tmp_path: Path) -> None:
    fake_package(tmp_path, "numpy", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    command = [sys.executable, "-m", "mekt", "doctor", "--role", "wearable", "--port", str(free_port())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=LIMIT_S)
    assert done.returncode == 8, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("FAILED   numpy") and "SIGILL" in line for line in lines)
    assert lines[-1].startswith("wearable: ") and "Traceback" not in done.stderr


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


WEARABLE = """
[[sensors]]
kind = "simulator"
modalities = ["acc", "gyro"]
subject = 1
[release]
file = "ward-3.zip"
"""


def test_a_wearable_is_told_whether_its_release_runs_here_with_its_sensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts_of(ACC, GYRO).write(tmp_path / "ward-3.zip")
    whole = (tmp_path / "ward-3.zip").read_bytes()
    config = tmp_path / "wearable.toml"
    config.write_text(WEARABLE, encoding="utf-8")
    code, said = doctor(capsys, "--config", config)
    assert code == 0 and said["release"][0]["seen"] == "ward-3, round 7: 3 classes by acc, gyro"
    config.write_text(WEARABLE + "[decide.alarms]\nfall = { threshold = 0.5 }\n", encoding="utf-8")
    code, said = doctor(capsys, "--config", config)
    assert code == 2 and said["release"][0]["seen"] == "has no class fall; it has sit, stand, walk"
    config.write_text(WEARABLE, encoding="utf-8")
    (tmp_path / "ward-3.zip").write_bytes(whole[:-1])
    code, said = doctor(capsys, "--config", config)
    assert code == 6 and "damaged" in said["release"][0]["seen"]


def test_a_wearable_that_speaks_to_a_broker_is_told_how_far_it_gets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts_of(ACC, GYRO).write(tmp_path / "ward-3.zip")
    config = tmp_path / "wearable.toml"
    config.write_text(f'{WEARABLE}[broker]\nport = {free_port()}\n[publish]\ntopic = "a"\n', encoding="utf-8")
    code, said = doctor(capsys, "--config", config)
    assert code == 4 and said["port"][0]["mark"] == "FAILED"


def test_a_wearable_that_takes_updates_is_told_of_both_its_brokers_and_of_its_state(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "wearable.toml"
    updates = (
        f'[updates]\nfederation = "ward"\ndevice = "wrist-7"\nstate = "kept"\nbroker = {{ port = {broker.port} }}\n'
    )
    sensor = WEARABLE.partition("[release]")[0]
    config.write_text(f'{sensor}{updates}[broker]\nport = {free_port()}\n[publish]\ntopic = "a"\n', encoding="utf-8")
    code, said = doctor(capsys, "--config", config)
    assert code == 4 and [each["mark"] for each in said["port"]] == ["ok", "FAILED"]
    assert "up/wrist-7/...: " in said["publish"][0]["seen"] and "fitness" in said["publish"][0]["seen"]
    assert [each["seen"].split(":")[0] for each in said["subscribe"][:2]] == [
        "mekt/1/ward/rollout",
        "mekt/1/ward/down/wrist-7/+",
    ]
    assert "no release was shipped yet" in said["subscribe"][0]["seen"]
    assert said["state folder"][0]["mark"] == "ok" and "kept" in said["state folder"][0]["seen"]
    config.write_text(f"{sensor}{updates}", encoding="utf-8")
    code, said = doctor(capsys, "--config", config)
    assert code == 0 and [each["mark"] for each in said["port"]] == ["ok"]
    # As `mekt enroll join --wearable` begins it.
    config.write_text(updates, encoding="utf-8")
    code, said = doctor(capsys, "--config", config)
    assert code == 2 and "torch" not in said
    assert said["settings"][0]["seen"].endswith("sensors: missing")
    assert said["settings"][0]["remedy"] == "expected a list, each entry a table"
