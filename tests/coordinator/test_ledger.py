import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from coordinator.ledger import Delivery, Ledger
from coordinator.quarantine import Standing
from mekt.blobs import blob_ref
from mekt.errors import StateError
from mekt.messages import REPORTS_KEPT, Finding, RoundReport
from mekt.plan import BlobRef
from mekt.schema import plain

STEPS = 6


def delivery(device: str, windows: int = 10) -> Delivery:
    ref = BlobRef(sha256=device.encode().ljust(32, b"."), size_bytes=windows)
    return Delivery(device=device, windows=windows, knowledge={"acc": ref, "gyro": ref})


def report(number: int, **metrics: float) -> RoundReport:
    return RoundReport(
        round=number, devices=("a", "b"), metrics=metrics, seconds={"collect": 1.5}, release=f"r-{number}"
    )


def step(ledger: Ledger, number: int) -> None:
    """One of the things that happen to a ledger in its first two rounds."""
    match number:
        case 0:
            ledger.report(report(0, loss=0.5))
        case 1:
            ledger.open_round(0, ("a", "b", "c"))
        case 2:
            ledger.deliver(0, delivery("b"))
        case 3:
            ledger.deliver(0, delivery("a"))
        case 4:
            ledger.collected(0, ("a", "b"))
        case _:
            ledger.report(report(1))


def check(ledger: Ledger, steps: int) -> None:
    """What is in the ledger after so many of them."""
    assert ledger.rounds_done == (1 if steps > 5 else 0)
    before = None if steps < 2 or steps > 5 else ("a", "b", "c") if steps < 5 else ("a", "b")
    assert ledger.participants(0) == before
    delivered = {3: ("b",), 4: ("a", "b"), 5: ("a", "b")}.get(steps, ())
    assert ledger.deliveries(0) == tuple(delivery(name) for name in delivered)
    assert ledger.reports() == (report(0, loss=0.5), report(1))[: 0 if steps == 0 else 1 if steps <= 5 else 2]


def test_every_step_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    runs = set()
    for done in range(STEPS + 1):
        ledger = Ledger(tmp_path / "ledger")
        ledger.adopt("plan")
        runs.add(ledger.run)
        check(ledger, done)
        if done < STEPS:
            step(ledger, done)
            check(ledger, done + 1)
        ledger.close()
    assert len(runs) == 1 and len(runs.pop()) == 16


def test_findings_are_kept_and_reports_from_before_there_were_any_are_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    odd = Finding(name="odd-device", modality="acc", device="pi-3", evidence="alone", remedy="mend it")
    ledger.report(replace(report(1), findings=(odd,)))
    old = plain(report(0))
    del old["findings"]
    ledger._db.execute("INSERT INTO reports VALUES (0, ?)", json.dumps(old))
    assert ledger.reports() == (report(0), replace(report(1), findings=(odd,)))
    ledger.close()


def test_standings_change_with_the_report_of_their_round_and_no_sooner(tmp_path: Path) -> None:
    odd = Standing(odd=1, since=0, modality="acc", reason="alone")
    out = Standing(odd=2, agreed=0, since=3, modality="gyro", reason="far")
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.standings() == {}
    ledger.report(report(0), {"b": out, "a": odd})
    assert ledger.standings() == {"a": odd, "b": out} and list(ledger.standings()) == ["a", "b"]
    ledger.report(report(1))
    assert ledger.standings() == {"a": odd, "b": out}, "a report that says nothing of them leaves them"
    broken = MappingProxyType({"c": odd, "d": object()})
    with pytest.raises(TypeError):
        ledger.report(report(2), broken)  # type: ignore[arg-type]
    assert ledger.standings() == {"a": odd, "b": out} and len(ledger.reports()) == 2, "all of it or nothing"
    ledger.report(report(2), {"b": out})
    ledger.close()
    again = Ledger(tmp_path / "ledger")
    assert again.standings() == {"b": out}
    again._db.execute("UPDATE standings SET standing = '{}'")
    with pytest.raises(StateError, match="a damaged entry"):
        again.standings()
    again.close()


def test_each_ledger_is_a_run_of_its_own(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path / "one"), Ledger(tmp_path / "other")
    assert one.run != other.run
    one.close()
    other.close()


# The child does nothing that other threads could have locked.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_kill_between_any_two_steps_the_ledger_is_whole(tmp_path: Path) -> None:
    for steps in range(STEPS + 1):
        path = tmp_path / f"ledger-{steps}"
        child = os.fork()
        if child == 0:
            try:
                killed = Ledger(path)
                killed.adopt("plan")
                for number in range(steps):
                    step(killed, number)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        ledger = Ledger(path)
        ledger.adopt("plan")
        check(ledger, steps)
        ledger.close()


def test_a_kill_in_the_middle_of_a_write_undoes_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    for number in range(5):
        step(ledger, number)
    ledger.close()
    code = (
        "import sqlite3, sys, os\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN IMMEDIATE')\n"
        "db.execute('DELETE FROM deliveries'); db.execute('DELETE FROM rounds')\n"
        "db.executemany('INSERT INTO reports VALUES (?, ?)', [(n, 'x' * 4000) for n in range(50, 200)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.with_name("ledger-journal").exists(), "the write was not under way"
    ledger = Ledger(path)
    check(ledger, 5)
    ledger.close()


def test_a_ledger_belongs_to_one_plan(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.adopt("one")
    ledger.adopt("one")
    with pytest.raises(StateError, match=r"ledger: belongs to a federation with other .* name another state folder"):
        ledger.adopt("other")


def test_the_schema_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 5")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="schema 5 is of a newer Mekt than this one"):
        Ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be one" * 30, b"SQLite format 3\0" + b"\7" * 4000]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"damaged .*; restore the file or start afresh"):
        Ledger(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"acc": 1}', '{"acc": ["0g", 1]}', '{"acc": ["00", 1]}', "null"]
)
def test_a_damaged_entry_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    step(ledger, 2)
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE deliveries SET knowledge = ?", (content,))
        db.execute("INSERT INTO rounds VALUES (0, '{')")
        db.execute("INSERT INTO reports VALUES (0, ?)", (content,))
    db.close()
    ledger = Ledger(path)
    for read in (lambda: ledger.deliveries(0), lambda: ledger.participants(0), ledger.reports):
        with pytest.raises(StateError, match="a damaged entry"):
            read()
    ledger.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StateError, match="cannot be used"):
        Ledger(tmp_path / "ledger")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be used"):
        Ledger(tmp_path / "missing" / "ledger")


def test_the_first_delivery_of_a_device_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.deliver(0, delivery("a"))
    ledger.deliver(0, delivery("a", windows=99))
    assert ledger.deliveries(0) == (delivery("a"),)
    ledger.withdraw(0, "a")
    ledger.withdraw(0, "nobody")
    assert ledger.deliveries(0) == ()
    ledger.deliver(0, delivery("a", windows=99))
    assert ledger.deliveries(0) == (delivery("a", windows=99),)
    ledger.close()


def test_late_knowledge_counts_until_there_is_newer_of_the_same_device(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ages = []
    for age in (3, 5, 1, 0, 2):
        ledger.deliver(4, replace(delivery("a", windows=10 + age), age=age))
        [kept] = ledger.deliveries(4)
        assert kept == replace(delivery("a", windows=10 + kept.age), age=kept.age)
        ages.append(kept.age)
    assert ages == [3, 3, 1, 0, 0]
    ledger.close()


def test_a_file_of_the_first_schema_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    shutil.copy(Path(__file__).parent / "states" / "ledger-1.sqlite", path)
    ledger = Ledger(path)
    ledger.adopt("the plan")
    assert ledger.run == "fe64c104410804f3" and ledger.rounds_done == 1
    assert ledger.participants(1) == ("pi-1", "pi-2", "pi-3")
    assert ledger.deliveries(1) == (Delivery(device="pi-2", windows=7, knowledge={"acc": blob_ref(b"knowledge")}),)
    assert [each.devices for each in ledger.reports()] == [(), ("pi-1", "pi-2")]
    ledger.deliver(1, replace(delivery("pi-3"), age=2))
    ledger.close()
    ledger = Ledger(path)
    assert [each.age for each in ledger.deliveries(1)] == [0, 2]
    ledger.close()


def test_the_latest_reports_are_kept_and_nothing_of_rounds_that_are_over(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for number in range(REPORTS_KEPT + 3):
        ledger.open_round(number, ("a",))
        ledger.deliver(number, delivery("a"))
        ledger.report(report(number + 1))
    assert [each.round for each in ledger.reports()] == list(range(4, REPORTS_KEPT + 4))
    assert ledger.rounds_done == REPORTS_KEPT + 3
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger") as db:
        counts = [
            db.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in ("reports", "rounds", "deliveries")
        ]
    db.close()
    assert counts == [REPORTS_KEPT, 0, 0]


def test_a_report_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.report(report(1, loss=float("nan")))
    assert ledger.rounds_done == 0 and ledger.reports() == ()
    ledger.close()
