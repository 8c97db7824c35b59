"""The `mekt` command as a person or a service manager meets it: processes, exit codes, sentences."""

import contextlib
import importlib
import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from coordinator.authority import Authority
from mekt.broker import free_port
from mekt.cli import PARTS, main
from mekt.token import PREFIX, read_token
from tests.mekt.conftest import locked
from tests.nursery import ran
from tests.recordings import HAPT
from tests.tables import WINDOWS_OF_ACC

ROOT = Path(__file__).parents[2]
FEDERATION = (
    """
federation = "ward"
rounds = 1
proxy = ["proxy.npz"]
"""
    + WINDOWS_OF_ACC
    + """
[broker]
port = {port}
"""
)
DEVICE = """
federation = "ward"
device = "pi-1"
[[sensors]]
kind = "simulator"
modalities = ["acc"]
subject = 1
[broker]
port = {port}
"""


def mekt(*arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """One run of the command in a process of its own."""
    return ran([*map(str, arguments)], cwd=cwd, environment={"COLUMNS": "100"})


def refused(code: int, *arguments: str | Path) -> str:
    """What a run says that must end with this code, in words and without a traceback."""
    done = mekt(*arguments)
    assert done.returncode == code, done.stderr
    said = [line for line in done.stderr.splitlines() if not re.match(r"\d{4}-", line)]
    assert said and said[0].startswith("mekt: ") and "Traceback" not in done.stderr, done.stderr
    return "\n".join(said)


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("coordinator", "run"), ("edge", "run"), ("infer",), ("score",), ("status",), ("doctor",), ("demo",)),
        *(("chaos",), ("explain",)),
        *(("bench",), ("bench", "compare"), ("bench", "speed"), ("bench", "list")),
    ],
)
def test_every_command_explains_itself(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "usage: mekt" in text
    for option in re.findall(r"^  (--[a-z-]+)(?: [A-Z]+)?$", text, re.M):
        pytest.fail(f"{option} of {arguments} has no help")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    listed = re.findall(r"^    ([a-z]+)\b", text, re.M)
    parts, trust = ["coordinator", "edge"], ["ca", "enroll", "device", "broker"]
    questions = ["infer", "score", "release", "sensors", "status", "audit", "doctor", "explain"]
    assert listed == [*parts, *trust, *questions, "demo", "chaos", "bench"]


def test_the_help_of_bench_names_every_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    listed = re.findall(r"^    ([a-z]+)\b", capsys.readouterr().out, re.M)
    assert {"compare", "proxy", "labels", "bytes", "steps", "single", "mixed", "ablate", "speed", "list"} <= set(listed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["bench", "compare", "--help"],
        ["infer", "--release", "nowhere", "--source", "nothing.npz"],
        ["infer", "--config", "nowhere.toml"],
    ],
)
def test_help_and_infer_start_without_what_they_do_not_need(arguments: list[str]) -> None:
    probe = (
        "import sys\nfrom mekt.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('heavy:', sorted({'torch', 'onnx', 'paho', 'ssl', 'mekt.login', 'sensors.replay'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_missing_settings_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    for part in ("coordinator", "edge"):
        text = refused(2, part, "run", "--config", tmp_path / "federation.toml")
        assert "no such file" in text and str(tmp_path) in text


def test_every_mistake_in_a_settings_file_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(FEDERATION.format(port='"1883"').replace("rounds", "round_count"), encoding="utf-8")
    text = refused(2, "coordinator", "run", "--config", path)
    assert "round_count: unknown key" in text and "rounds: missing" in text
    assert f"{path}: broker.port: expected a whole number, got '1883' (remove the quotes)" in text


def test_a_missing_recording_is_named_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text(FEDERATION.format(port=1883), encoding="utf-8")
    text = refused(2, "coordinator", "run", "--config", tmp_path / "federation.toml")
    assert "proxy[0]" in text and str(tmp_path) in text


def test_a_broken_recording_is_a_sensor_error_and_leaves_no_half_written_state(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text(FEDERATION.format(port=1883), encoding="utf-8")
    (tmp_path / "proxy.npz").write_bytes(b"PK\x03\x04 and no more")
    text = refused(5, "coordinator", "run", "--config", tmp_path / "federation.toml")
    assert "proxy.npz" in text
    assert {path.name for path in (tmp_path / "state").iterdir()} <= {"lock"}


def test_a_token_goes_into_a_new_file_that_nobody_else_reads_and_is_not_shown(tmp_path: Path) -> None:
    assert mekt("ca", "init", "--federation", "ward", cwd=tmp_path).returncode == 0
    asks = ("enroll", "token", "pi-3", "--host", "b", "--hours", "2", "--out", "pi-3.token")
    before_s = time.time()
    done = mekt(*asks, cwd=tmp_path)
    made = tmp_path / "pi-3.token"
    text = made.read_text(encoding="ascii")
    token = read_token(text)
    assert done.returncode == 0 and (token.device, token.host) == ("pi-3", "b")
    assert made.stat().st_mode & 0o777 == 0o600
    until = datetime.fromtimestamp(token.expires_s, UTC)
    assert "in pi-3.token" in done.stdout and f"until {until:%Y-%m-%d %H:%M:%S} UTC" in done.stdout
    assert before_s + 7200 <= token.expires_s < time.time() + 7201
    assert PREFIX not in done.stdout + done.stderr
    # Another one is not written over it, and none is made that nobody could find.
    again = mekt(*asks, cwd=tmp_path)
    assert again.returncode == 2 and "pi-3.token: there is a file already" in again.stderr
    assert made.read_text(encoding="ascii") == text
    with contextlib.closing(Authority(tmp_path / "authority")) as authority:
        assert [each.name for each in authority.certified()] == ["enroll:pi-3"]


def test_a_token_that_cannot_be_made_leaves_no_file(tmp_path: Path) -> None:
    asks = ("enroll", "token", "pi-3", "--host", "b", "--authority", tmp_path / "nowhere", "--out", tmp_path / "token")
    assert "mekt ca init" in refused(2, *asks)
    assert list(tmp_path.iterdir()) == []


def test_without_a_broker_a_device_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(DEVICE.format(port=free_port()), encoding="utf-8")
    text = refused(4, "edge", "run", "--config", tmp_path / "device.toml")
    assert "127.0.0.1" in text and "start" in text


def test_another_process_on_the_same_state_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(DEVICE.format(port=1883), encoding="utf-8")
    with locked(tmp_path / "state"):
        assert "process 4711" in refused(7, "edge", "run", "--config", tmp_path / "device.toml")


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=np.zeros(3))
    for command in (("infer", "--source"), ("score", "--recordings")):
        text = refused(6, command[0], "--release", tmp_path, command[1], tmp_path / "some.npz")
        assert "expected the file of a release" in text


def test_status_where_nobody_listens_and_without_a_name(tmp_path: Path) -> None:
    assert "start the broker" in refused(4, "status", "--federation", "ward", "--port", str(free_port()))
    assert "--config" in refused(2, "status")


def test_status_takes_the_broker_from_either_kind_of_settings(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for name, text in (("federation.toml", FEDERATION), ("device.toml", DEVICE)):
            (tmp_path / name).write_text(text.format(port=port), encoding="utf-8")
            assert f"127.0.0.1:{port}" in refused(4, "status", "--config", tmp_path / name)


def test_the_demo_never_writes_into_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    assert "not empty" in refused(2, "demo", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_demo_says_which_folder_lacks_the_recordings(tmp_path: Path) -> None:
    assert str(tmp_path) in refused(2, "demo", "--data", tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_port_that_is_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in refused(4, "demo", "--port", str(port), "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--rounds", "0"),
        ("demo", "--agents", "0"),
        ("demo", "--seed", "-1"),
        ("demo", "--port", "65536"),
        ("demo", "--port", "-5"),
        ("chaos", "--kills", "0"),
        ("status", "--federation", "ward", "--port", "-1"),
        ("status", "--federation", "ward/#"),
        ("bench", "compare", "--seeds", "0"),
        ("bench", "proxy", "--jobs", "-1"),
    ],
)
def test_what_cannot_work_is_a_usage_error(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    text = capsys.readouterr().err
    assert ended.value.code == 2 and f"argument {arguments[-2]}: expected" in text and "Traceback" not in text


def test_a_secure_sum_of_too_few_devices_is_a_usage_error() -> None:
    for command in ("demo", "chaos"):
        assert "--agents: a secure sum takes 5 devices" in refused(2, command, "--secure", "--agents", "4")


def test_each_kind_of_broker_gets_a_kill() -> None:
    assert "--kills" in refused(2, "chaos", "--kills", "1")


def test_a_full_disk_ends_the_demo_in_a_sentence(tmp_path: Path) -> None:
    # No file may have a byte: what a full disk does, without filling one.
    command = [sys.executable, "-m", "mekt", "demo", "--data", str(HAPT.parent), "--out", str(tmp_path / "out")]
    if not HAPT.is_dir():
        pytest.skip(f"no recordings in {HAPT}; name their folder with MEKT_DATA")
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 7 and "Traceback" not in done.stderr, done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]


def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path: Path) -> None:
    probe = (
        "import sys\nsys.modules['torch'] = None\nfrom mekt.cli import main\n"
        "sys.exit(main(['edge', 'run', '--config', sys.argv[1]]))"
    )
    (tmp_path / "device.toml").write_text(DEVICE.format(port=1883), encoding="utf-8")
    command = [sys.executable, "-c", probe, str(tmp_path / "device.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 8 and 'pip install -e ".[edge]"' in done.stderr


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from mekt import __version__

    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"mekt {__version__}\n"


def test_every_command_is_in_the_list_by_which_it_is_found() -> None:
    there = {
        module.stem: tuple(each.name for each in importlib.import_module(f"mekt.commands.{module.stem}").COMMANDS)
        for module in (ROOT / "mekt" / "commands").glob("*.py")
        if module.stem not in ("__init__", "command")
    }
    assert there == PARTS
