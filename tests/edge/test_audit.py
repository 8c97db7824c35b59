"""The log on the disk: whole after an end at any moment, on a full disk, over many files; nothing leaves beside it."""

import ast
import contextlib
import gzip
import itertools
import logging
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edge.audit
from edge.account import Account, walk
from edge.audit import ANCHOR, FOLDER, OWN_KINDS, Audit
from edge.chain import Entry, read_anchor
from mekt import catalogue
from mekt.blobs import blob_ref
from mekt.broker import Broker
from mekt.errors import StateError, WireError
from mekt.files import write_atomically
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import Body, Chunk, Offer, Presence, decode
from mekt.outgoing import Message
from mekt.post import Post
from tests.edge.conftest import DEVICE, FEDERATION, HandMade, Running
from tests.edge.test_daemon import config_file
from tests.waiting import WAIT_S

ROOT = Path(__file__).parents[2]
KNOWLEDGE = b"knowledge" * 40
# A new file for every third message or so.
SMALL = 900


def message(number: int) -> Message:
    """Presences, offers and chunks in turn; all of a story's messages differ."""
    ref = blob_ref(KNOWLEDGE)
    bodies: tuple[Body, ...] = (
        Presence(state="online", session=number, activity="training", modalities={"acc": "conv"}),
        Offer(knowledge={"acc": ref}, windows=number + 1, metrics={}),
        Chunk(sha256=ref.sha256, index=0, count=1, data=KNOWLEDGE),
    )
    post = Post(FEDERATION)
    post._sequence = number
    topic, raw = post.seal(bodies[number % 3], "up", device=DEVICE, round=number // 3)
    return Message(topic=topic, payload=raw)


MESSAGES = [message(number) for number in range(12)]


@contextlib.contextmanager
def opened(folder: Path, **more: int) -> Iterator[Audit]:
    folder.mkdir(exist_ok=True)
    audit = Audit(folder, DEVICE, **more)
    try:
        yield audit
    finally:
        audit.close()


def entries(folder: Path) -> list[Entry]:
    """All that the log says; it has no gap."""
    account = Account(folder)
    found = list(walk(account))
    assert account.broken is None, account.broken
    return found


def sent(folder: Path) -> list[str]:
    """The hashes of the messages in the log."""
    return [str(each.says["sha256"]) for each in entries(folder) if each.kind not in OWN_KINDS]


def hashes(messages: list[Message]) -> list[str]:
    return [blob_ref(each.payload).sha256.hex() for each in messages]


def newest(folder: Path) -> Path:
    return edge.audit.segments(folder / FOLDER)[-1].path


def anchored(folder: Path) -> int:
    head = read_anchor((folder / ANCHOR).read_bytes())
    assert head is not None
    return head.count


def test_a_log_says_of_each_message_when_what_and_how_much_left(tmp_path: Path) -> None:
    with opened(tmp_path) as audit:
        audit.saw(MESSAGES[0], is_will=True)
        for each in MESSAGES[1:3]:
            audit.saw(each)
    begin, will, offer, chunk = entries(tmp_path)
    assert begin.kind == "begin" and will.kind == "will" and "last will" in will.says["contained"]
    sha256 = blob_ref(KNOWLEDGE).sha256.hex()
    assert offer.kind == "offer" and offer.says["blobs"] == {"acc": sha256} and offer.says["round"] == 0
    assert chunk.says["contained"] == f"knowledge of acc: chunk 1 of 1 of blob {sha256[:12]}"
    assert chunk.says["bytes"] == len(MESSAGES[2].payload) and chunk.says["sha256"] == hashes(MESSAGES)[2]
    assert begin.says["time"] <= will.says["time"] <= offer.says["time"] and chunk.says["time"].endswith("Z")
    assert newest(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_log_goes_on_after_a_restart_and_knows_what_was_offered_before(tmp_path: Path) -> None:
    for each in MESSAGES[1:3]:
        with opened(tmp_path) as audit:
            audit.saw(each)
    assert sent(tmp_path) == hashes(MESSAGES[1:3])
    assert "knowledge of acc" in entries(tmp_path)[-1].says["contained"]


def test_what_carries_knowledge_is_anchored_before_it_leaves_and_a_will_too(tmp_path: Path) -> None:
    with opened(tmp_path) as audit:
        for number, is_will, count in ((0, False, 1), (1, False, 3), (3, False, 3), (2, False, 5), (0, True, 6)):
            audit.saw(MESSAGES[number], is_will=is_will)
            assert anchored(tmp_path) == count
        audit.saw(MESSAGES[0])
        assert anchored(tmp_path) == 6
    assert anchored(tmp_path) == 7, "the end makes all of it durable"


def test_small_messages_are_anchored_together_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as audit:
        for _ in range(3):
            audit.saw(MESSAGES[0])
        assert anchored(tmp_path) == 1
        monkeypatch.setattr(edge.audit, "SYNC_S", 0.0)
        audit.saw(MESSAGES[0])
        assert anchored(tmp_path) == 5


def test_a_message_that_is_none_of_a_devices_kinds_is_refused_and_not_logged(tmp_path: Path) -> None:
    with opened(tmp_path) as audit, pytest.raises(WireError):
        audit.saw(Message(topic=MESSAGES[0].topic, payload=b"window" * 100))
    assert sent(tmp_path) == []


# Files


def test_full_files_are_compressed_and_the_chain_goes_through_all_of_them(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SMALL) as audit:
        for each in MESSAGES:
            audit.saw(each)
        paths = [each.path for each in edge.audit.segments(tmp_path / FOLDER)]
        assert len(paths) > 3 and [path.suffix for path in paths] == [".gz"] * (len(paths) - 1) + [".jsonl"]
    assert sent(tmp_path) == hashes(MESSAGES)
    found = entries(tmp_path)
    assert [each.number for each in found] == list(range(1, len(found) + 1))
    assert [each.previous for each in found[1:]] == [each.hash for each in found[:-1]]
    firsts = [each for each in found if each.kind in ("begin", "continue")]
    assert len(firsts) == len(paths) and all(each.says["previous"] == each.previous for each in firsts)


def test_two_processes_do_not_write_one_log(tmp_path: Path) -> None:
    with opened(tmp_path) as audit:
        audit.saw(MESSAGES[0])
        with pytest.raises(StateError, match="another process writes it") as caught:
            Audit(tmp_path, DEVICE)
        assert caught.value.entry is catalogue.STATE_IN_USE
        audit.saw(MESSAGES[1])
    assert sent(tmp_path) == hashes(MESSAGES[:2])


# An end at any moment


class PowerCut(BaseException):
    """The process is gone."""


def story(folder: Path, done: list[Message]) -> None:
    """All messages from the one on that is not done; each is done when it may leave."""
    with opened(folder, segment_bytes=SMALL) as audit:
        for each in MESSAGES[len(done) :]:
            audit.saw(each)
            done.append(each)


def cut_after(writes: int, patch: pytest.MonkeyPatch, torn: int) -> None:
    """From this write on nothing reaches the disk; of a line that is being written at that moment, `torn` bytes do."""
    left = itertools.count(writes, -1)
    dead: list[bool] = []

    def lives(call: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*arguments: Any, **more: Any) -> Any:
            if dead or next(left) <= 0:
                if call is write and not dead:
                    write(arguments[0], arguments[1][:torn])
                dead.append(True)
                raise PowerCut
            return call(*arguments, **more)

        return maybe

    write = os.write
    patch.setattr("edge.audit.os.write", lives(write))
    patch.setattr("edge.audit.os.fsync", lives(os.fsync))
    patch.setattr("edge.audit.write_atomically", lives(write_atomically))
    patch.setattr(Path, "unlink", lives(Path.unlink))


@pytest.mark.parametrize("torn", [0, 1, 150])
def test_an_end_between_any_two_writes_or_in_one_leaves_a_log_that_goes_on_without_a_gap(
    torn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the order of writes does is looked at, not how long a disk takes.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    repairs = 0
    for writes in itertools.count():
        folder, done = tmp_path / str(writes), list[Message]()
        ended = True
        with monkeypatch.context() as patch, contextlib.suppress(PowerCut):
            cut_after(writes, patch, torn)
            story(folder, done)
            ended = False
        before = len(done)
        if (folder / ANCHOR).exists():
            known = sent(folder)
            assert known[:before] == hashes(done) and len(known) - before in (0, 1), "first the log, then the wire"
        story(folder, done)
        found = sent(folder)
        # The one that was logged and had not left when the end came leaves after it.
        twice = found[before] if len(found) > len(MESSAGES) else None
        assert [*found[:before], *found[before + (twice is not None) :]] == hashes(MESSAGES)
        repairs += sum(each.kind == "repair" for each in entries(folder))
        if not ended:
            break
    assert writes > 30 and (repairs > 0) == (torn > 0)


def test_a_line_that_was_being_written_is_cut_off_at_the_start_and_that_is_an_entry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as audit:
        audit.saw(MESSAGES[1])
    with newest(tmp_path).open("ab") as file:
        file.write(b'{"n":3,"time":"20')
    assert sent(tmp_path) == hashes(MESSAGES[1:2]), "a reader takes it for one that is being written"
    with opened(tmp_path) as audit:
        audit.saw(MESSAGES[2])
    repair = entries(tmp_path)[2]
    assert repair.kind == "repair" and repair.says["contained"].startswith("17 bytes behind entry 2 were no whole")
    assert sent(tmp_path) == hashes(MESSAGES[1:3]) and "17 bytes behind entry 2" in caplog.text


def test_a_process_that_is_killed_has_logged_all_that_it_was_about_to_send(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge.audit import Audit\n"
        "from tests.edge.test_audit import DEVICE, MESSAGES\n"
        "audit = Audit(Path(sys.argv[1]), DEVICE, segment_bytes=20_000)\n"
        "while True:\n"
        "    audit.saw(MESSAGES[0])\n"
        "    print('left', flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        left = sum(1 for _ in itertools.islice(process.stdout, 200))
        process.send_signal(signal.SIGKILL)
        left += sum(1 for _ in process.stdout)
    with opened(tmp_path):
        pass
    assert len(sent(tmp_path)) - left in (0, 1)


# A disk that refuses


def test_on_a_full_disk_nothing_leaves_and_what_was_logged_stays_whole(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from edge.audit import Audit\n"
        "from mekt.errors import StateError\n"
        "from tests.edge.test_audit import DEVICE, MESSAGES\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "audit = Audit(Path(sys.argv[1]), DEVICE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "for each in MESSAGES:\n"
        "    try:\n"
        "        audit.saw(each)\n"
        "    except StateError as error:\n"
        "        print('refused', error.entry.number, error)\n"
        "    else:\n"
        "        print('left')\n"
        "audit.close()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=WAIT_S, check=True)
    lines = ended.stdout.splitlines()
    left = lines.count("left")
    assert 0 < left < len(MESSAGES) and lines[:left] == ["left"] * left
    # Once refused, always: else the log would miss one in the middle.
    assert all(each.startswith("refused 702 ") and "nothing leaves" in each for each in lines[left:])
    assert sent(tmp_path) == hashes(MESSAGES[:left])
    with opened(tmp_path) as audit:
        audit.saw(MESSAGES[left])
    assert [each.kind for each in entries(tmp_path)].count("repair") == 0
    assert sent(tmp_path) == hashes(MESSAGES[: left + 1])


# A log that was meddled with


@pytest.mark.parametrize("what", ["cut", "first file", "folder", "anchor", "changed", "unreadable"])
def test_what_is_missing_at_a_start_is_said_for_good_and_the_device_goes_on(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, segment_bytes=SMALL) as audit:
        for each in MESSAGES:
            audit.saw(each)
    path = newest(tmp_path)
    raw = path.read_bytes()
    match what:
        case "cut":
            path.write_bytes(b"".join(raw.splitlines(keepends=True)[:-1]))
        case "first file":
            edge.audit.segments(tmp_path / FOLDER)[0].path.unlink()
        case "folder":
            for each_path in (tmp_path / FOLDER).iterdir():
                each_path.unlink()
        case "anchor":
            (tmp_path / ANCHOR).unlink()
        case "changed":
            path.write_bytes(raw.replace(b"presence", b"presents", 1).replace(b"continue", b"continua", 1))
        case _:
            path.write_bytes(b"\0" * len(raw))
    before = Account(tmp_path)
    assert list(walk(before)) or what in ("folder", "unreadable")
    assert before.broken is not None
    with caplog.at_level(logging.ERROR), opened(tmp_path) as audit:
        audit.saw(MESSAGES[0])
    assert ("the audit log has a gap" in caplog.text) == (what != "first file")
    with opened(tmp_path):
        pass
    after = Account(tmp_path)
    found = list(walk(after))
    assert after.broken is not None, "a start hides nothing"
    assert found[-1].says["sha256"] == hashes(MESSAGES)[0]
    assert sum(each.kind == "gap" for each in found) == (what != "first file"), "a gap is said once"


def test_a_broken_compressed_file_is_named_and_does_not_stop_the_device(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SMALL) as audit:
        for each in MESSAGES:
            audit.saw(each)
    path = edge.audit.segments(tmp_path / FOLDER)[1].path
    path.write_bytes(gzip.compress(b"else\n"))
    account = Account(tmp_path)
    assert [each for each in walk(account) if each.kind not in OWN_KINDS]
    assert account.broken is not None and path.name in account.broken.text
    with opened(tmp_path) as audit:
        audit.saw(MESSAGES[0])


# Nothing leaves beside it


def test_every_link_of_a_device_has_a_witness_and_nothing_else_speaks_mqtt() -> None:
    links = set()
    for path in sorted((ROOT / "edge").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Link", "Session", "Connection", "Outgoing"):
                has_witness = "witness" in {each.arg for each in node.keywords}
                links.add((str(path.relative_to(ROOT / "edge")), has_witness))
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            for each in modules:
                assert each.split(".")[0] not in ("paho", "socket", "http", "urllib", "asyncio"), f"{path.name}: {each}"
                assert each not in ("mekt.connection", "mekt.session", "mekt.visit"), f"{path.name}: {each}"
    # A wearable's decisions go to a broker of its wearer's choice, because its settings ask for it: no federation's.
    assert links == {
        ("daemon.py", True),
        ("enrolment.py", True),
        ("updates/exchange.py", True),
        ("wearable/broadcast.py", False),
    }


@pytest.fixture
def heard(broker: Broker) -> Iterator[Callable[[Callable[[Received], bool]], list[Received]]]:
    """Whoever subscribes to everything: what it got, once it got what is wanted."""
    inbox: queue.Queue[Any] = queue.Queue()
    ears = Link(settings=BrokerSettings(port=broker.port), client_id="ears", inbox=inbox, subscriptions=("#",))
    ears.start()
    captured: list[Received] = []

    def until(wanted: Callable[[Received], bool]) -> list[Received]:
        while not captured or not wanted(captured[-1]):
            event = inbox.get(timeout=WAIT_S)
            if isinstance(event, Received):
                captured.append(event)
        return [each for each in captured if f"/up/{DEVICE}/" in each.topic]

    yield until
    ears.stop(1.0)


def is_farewell(event: Received) -> bool:
    body = decode(event.payload).body
    return isinstance(body, Presence) and body.state == "offline"


def test_a_daemons_log_is_message_by_message_what_a_subscriber_to_everything_received(
    coordinator: HandMade, start: Callable[..., Running], heard: Any, tmp_path: Path
) -> None:
    with start():
        for number in range(2):
            coordinator.round(number)
            coordinator.until(Presence, activity="idle")
    received = heard(is_farewell)
    will, *logged = [each for each in entries(tmp_path / "state") if each.kind not in OWN_KINDS]
    assert will.kind == "will"
    seen = [(str(each.says["sha256"]), each.says["bytes"], each.kind) for each in logged]
    assert seen == [
        (blob_ref(each.payload).sha256.hex(), len(each.payload), each.topic.rsplit("/", 1)[1]) for each in received
    ]
    assert {each.kind for each in logged} == {"presence", "want", "offer", "chunk"}
    contained = "\n".join(str(each.says["contained"]) for each in logged)
    for words in ("offer of acc (blob ", "knowledge of acc: chunk 1 of 1", "knowledge of gyro: chunk 1 of 1"):
        assert contained.count(words) == 2, words


def test_of_a_killed_daemon_the_log_has_the_will_too(
    broker: Broker, coordinator: HandMade, heard: Any, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mekt", "edge", "run", "--config", str(config_file(tmp_path, broker.port))]
    coordinator.announce(0)
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stderr=log, cwd=ROOT) as process:
        try:
            coordinator.collect(coordinator.until(Offer))
        finally:
            process.send_signal(signal.SIGKILL)
    *received, will = [blob_ref(each.payload).sha256.hex() for each in heard(is_farewell)]
    first, *logged = sent(tmp_path / "state")
    assert first == will
    # What was on its way when the end came may not have got there.
    assert logged[: len(received)] == received


def test_what_cannot_be_logged_does_not_leave_and_ends_the_device(
    coordinator: HandMade, start: Callable[..., Running], heard: Any, tmp_path: Path
) -> None:
    with pytest.raises(StateError, match="nothing leaves"), start() as running:
        coordinator.until(Presence)
        # The kernel refuses to write to it any more.
        read_only = os.open(newest(tmp_path / "state"), os.O_RDONLY)
        os.dup2(read_only, running.device._audit._file)
        os.close(read_only)
        coordinator.announce(0)
        running.wait()
    # It says no farewell, as that could not be logged: the broker speaks the will, which was.
    *received, will = [blob_ref(each.payload).sha256.hex() for each in heard(is_farewell)]
    first, *logged = sent(tmp_path / "state")
    assert will == first and received == logged
