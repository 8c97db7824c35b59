"""The broker of one's own: it answers, it ends, and it says what is missing."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mekt.broker import Broker, available_kind, free_port
from mekt.errors import LinkError, MissingPackageError
from tests.mekt.conftest import needs_mosquitto
from tests.processes import lives

ROOT = Path(__file__).parents[2]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@needs_mosquitto
@pytest.mark.parametrize("persistent", [False, True])
def test_it_answers_until_it_is_stopped(tmp_path: Path, persistent: bool) -> None:
    broker = Broker(tmp_path / "broker", persistent=persistent)
    for end in (broker.stop, broker.kill):
        broker.start()
        pid = broker.pid
        assert answers(broker.port) and lives(pid)
        end()
        assert not answers(broker.port) and not lives(pid)
        end()


@needs_mosquitto
def test_as_a_block_it_ends_with_it_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Broker(tmp_path) as broker:
        pid, port = broker.pid, broker.port
        raise KeyError
    assert not answers(port) and not lives(pid)


@needs_mosquitto
def test_a_port_in_use_is_named_and_the_owner_goes_on(tmp_path: Path) -> None:
    with Broker(tmp_path / "first") as first:
        with pytest.raises(
            LinkError, match=f"port {first.port} is in use; choose another with --port or end its owner"
        ):
            Broker(tmp_path / "second", port=first.port).start()
        assert answers(first.port)
        assert not (tmp_path / "second" / "broker.log").exists()


@needs_mosquitto
def test_a_broker_that_ends_at_once_is_a_link_error_that_names_its_log(tmp_path: Path) -> None:
    broker = Broker(tmp_path, kind="mosquitto", more=("no_such_option true",))
    with pytest.raises(LinkError, match=r"mosquitto ended at once \(code \d+\); its reason is in .*broker\.log"):
        broker.start()
    assert "no_such_option" in (tmp_path / "broker.log").read_text()
    with pytest.raises(AssertionError, match="has not been started"):
        _ = broker.pid


@needs_mosquitto
def test_a_frozen_broker_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mekt.broker.STOP_TIMEOUT_S", 0.3)
    broker = Broker(tmp_path)
    broker.start()
    pid = broker.pid
    os.kill(pid, signal.SIGSTOP)
    broker.stop()
    assert not lives(pid)


@needs_mosquitto
def test_ctrl_c_while_it_starts_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def interrupted(broker: Broker, *_: object) -> None:
        pids.append(broker.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(Broker, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Broker(tmp_path).start()
    assert len(pids) == 1 and not lives(pids[0])


def test_free_ports_can_be_bound() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", free_port()))


def test_a_machine_without_any_broker_hears_what_to_install() -> None:
    program = (
        "import importlib.util, sys\n"
        "import mekt.broker\n"
        "from pathlib import Path\n"
        "mekt.broker.PLACES = ''\n"
        "sys.path = [path for path in sys.path if 'site-packages' not in path]\n"
        "try:\n"
        "    mekt.broker.Broker(Path('/nowhere'))\n"
        "except mekt.broker.MissingPackageError as error:\n"
        "    sys.exit(str(error))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "no MQTT broker here; `apt-get install mosquitto`, or `pip install" in ended.stderr


def test_a_broker_that_was_asked_for_and_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("mekt.broker.PLACES", "")
    with pytest.raises(MissingPackageError, match="apt-get install mosquitto"):
        Broker(tmp_path, kind="mosquitto").start()
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.split(".")[0] == "amqtt"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingPackageError, match="amqtt is not here"):
        Broker(tmp_path, kind="amqtt").start()


@needs_mosquitto
def test_mosquitto_is_found_outside_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert available_kind() == "mosquitto"
