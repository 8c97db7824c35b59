"""What the tests of this folder share: a broker, patience, and doubles of what the doctor looks at."""

import contextlib
import fcntl
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from mekt.broker import Broker
from mekt.check import Check
from tests.mekt.links import WAIT_S as WAIT_S
from tests.mekt.links import Sides
from tests.mekt.links import needs_mosquitto as needs_mosquitto
from tests.mekt.papers import Papers, papers_in

# Of what comes to an end by itself, on however busy a machine.
LIMIT_S = 120.0


def named(checks: Iterable[Check], name: str) -> Check:
    """The only check of this name, which says something in one line."""
    [check] = [each for each in checks if each.name == name]
    assert check.seen and "\n" not in check.line()
    return check


def fake_package(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """As another process has it."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 4711\n")
        lock.flush()
        yield


@pytest.fixture
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


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers_in(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def sides(broker: Broker) -> Iterator[Sides]:
    """Links to the broker; a module whose tests kill it has one of its own for each."""
    opened = Sides(broker.port)
    yield opened
    opened.stop()
