"""What the log says, and the proof that it says all: any damage to any file is named; the command shows both."""

import gzip
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.account import Account, show_audit, walk
from edge.audit import ANCHOR, FOLDER, segments
from edge.chain import Head, write_line
from mekt import catalogue
from mekt.cli import main
from mekt.errors import SettingsError, StateError
from tests.edge.conftest import DEVICE, FEDERATION
from tests.edge.test_audit import MESSAGES, SMALL, hashes, opened

Files = dict[str, bytes]


def write_log(folder: Path, count: int = len(MESSAGES)) -> None:
    with opened(folder, segment_bytes=SMALL) as audit:
        for each in MESSAGES[:count]:
            audit.saw(each)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A log of some files, by name."""
    folder = tmp_path_factory.mktemp("whole")
    write_log(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where damaged logs are laid out, one after the other."""
    return tmp_path_factory.mktemp("damaged")


def account_of(folder: Path, files: Files) -> tuple[Account, list[str]]:
    """What the log in these files says, and the hashes of its entries."""
    (folder / FOLDER).mkdir(exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    account = Account(folder)
    return account, [each.hash for each in walk(account)]


def lines_of(files: Files) -> dict[str, list[bytes]]:
    """The lines of each segment, unpacked."""
    names = sorted(name for name in files if name != ANCHOR)
    return {
        name: (gzip.decompress(files[name]) if name.endswith(".gz") else files[name]).splitlines(keepends=True)
        for name in names
    }


def with_lines(files: Files, lines: dict[str, list[bytes]]) -> Files:
    packed = {
        name: gzip.compress(b"".join(each), mtime=0) if name.endswith(".gz") else b"".join(each)
        for name, each in lines.items()
    }
    return files | packed


def test_an_undamaged_log_has_no_gap_and_says_how_much_left(place: Path, files: Files) -> None:
    account, found = account_of(place, files)
    assert account.broken is None and account.unanchored == 0 and account.rest_bytes == 0
    assert account.head == Head(count=len(found), hash=found[-1])
    assert account.messages == {"presence": 4, "offer": 4, "chunk": 4}
    assert account.bytes.total() == sum(len(each.payload) for each in MESSAGES)


@given(st.data())
def test_a_byte_flipped_anywhere_is_named_or_changes_nothing(place: Path, files: Files, data: st.DataObject) -> None:
    """In a compressed file a few bytes say nothing: the time of compression, the operating system."""
    name = data.draw(st.sampled_from(sorted(files)))
    changed = bytearray(files[name])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    account, found = account_of(place, files | {name: bytes(changed)})
    if account.broken is None:
        assert name.endswith(".gz") and found == account_of(place, files)[1]


@given(st.data())
def test_an_entry_removed_repeated_moved_or_put_in_is_named_by_its_number(
    place: Path, files: Files, data: st.DataObject
) -> None:
    lines = lines_of(files)
    spots = [(name, at) for name, each in lines.items() for at in range(len(each))]
    number = data.draw(st.integers(1, len(spots)))
    broken: int | None
    name, at = spots[number - 1]
    last = len(spots)
    match data.draw(st.sampled_from(["remove", "repeat", "move", "insert", "cut"])):
        case "remove":
            del lines[name][at]
            broken = number
        case "repeat":
            lines[name].insert(at, lines[name][at])
            broken = number + 1
        case "move":
            moved = lines[name].pop(at)
            lines[spots[-1][0]].append(moved)
            broken = number if number < last else None
        case "insert":
            lines[name].insert(at, write_line(Head(count=number - 1), {"kind": "offer"})[0])
            # As the first of all it could be the right one, and the one behind it is wrong.
            broken = max(number, 2)
        case _:
            # Everything from here on, of this and all later files.
            lines[name] = lines[name][:at]
            for later in [each for each in lines if each > name]:
                del lines[later]
            files = {each: raw for each, raw in files.items() if each in lines or each == ANCHOR}
            broken = number
    account, _ = account_of(place, with_lines(files, lines))
    assert (None if account.broken is None else account.broken.number) == broken


@given(st.data())
def test_a_file_that_is_removed_is_named_by_its_first_entry(place: Path, files: Files, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(files)))
    account, _ = account_of(place, {each: raw for each, raw in files.items() if each != name})
    first = len(MESSAGES) + len(files) if name == ANCHOR else int(Path(name).name.split(".")[0])
    assert account.broken is not None and account.broken.number == first


def test_a_log_made_anew_from_the_start_does_not_fit_the_anchor(place: Path, files: Files) -> None:
    head, made = Head(), b""
    for number in range(len(MESSAGES) + len(files)):
        line, head = write_line(head, {"kind": "presence", "bytes": number})
        made += line
    account, _ = account_of(place, {f"{FOLDER}/000000000001.jsonl": made, ANCHOR: files[ANCHOR]})
    assert account.broken is not None and "was durable under this number" in account.broken.text


def test_a_log_is_proved_while_it_is_written(tmp_path: Path) -> None:
    stop, counts = threading.Event(), list[int]()
    with opened(tmp_path, segment_bytes=SMALL) as audit:

        def write() -> None:
            while not stop.is_set():
                audit.saw(MESSAGES[0])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while len(counts) < 30:
                account = Account(tmp_path)
                for _ in walk(account):
                    pass
                assert account.broken is None, account.broken
                counts.append(account.messages.total())
        finally:
            stop.set()
            writer.join()
    assert counts == sorted(counts)


# The command


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A device's settings, with an identity; its log has what the messages say."""
    path = tmp_path / "device.toml"
    path.write_text(
        f'federation = "{FEDERATION}"\ndevice = "{DEVICE}"\n[[sensors]]\nkind = "replay"\nrecordings = ["r.npz"]\n'
        'modalities = ["acc"]\n[broker.tls]\nca = "id/ca.pem"\ncertificate = "id/cert.pem"\nkey = "id/key.pem"\n'
    )
    write_log(tmp_path / "state")
    return path


def said(config: Path, **more: Any) -> str:
    out = io.StringIO()
    assert show_audit(config, **{"verify": False, "since": None, "as_json": False, "out": out, **more}) == 0
    return out.getvalue()


def test_the_list_has_a_line_for_each_message_and_totals_by_kind(config: Path) -> None:
    lines = said(config).splitlines()
    for each in MESSAGES:
        assert any(hashes([each])[0][:12] in line and f" {len(each.payload)} " in line for line in lines)
    chunks = sum(len(each.payload) for each in MESSAGES if each.topic.endswith("chunk"))
    assert f"{'chunk':<12} {4:>9} {chunks:>12}" in lines
    assert lines[-1] == f"{'all':<12} {len(MESSAGES):>9} {sum(len(each.payload) for each in MESSAGES):>12}"


def test_the_list_begins_where_it_is_asked_to(config: Path) -> None:
    found = json.loads(said(config, since=3, as_json=True))["entries"]
    assert [each["sha256"] for each in found if "sha256" in each] == hashes(MESSAGES[6:])


def test_machines_get_every_entry_with_both_hashes_and_the_proof(config: Path) -> None:
    document = json.loads(said(config, as_json=True))
    found = document["entries"]
    assert [each["previous"] for each in found[1:]] == [each["hash"] for each in found[:-1]]
    log = document["logs"][0]
    assert log == json.loads(said(config, as_json=True, verify=True))["logs"][0]
    assert log["broken"] is None and log["entries"] == len(found) and log["hash"] == found[-1]["hash"]
    assert log["kinds"]["offer"]["messages"] == 4 and log["messages"] == len(MESSAGES)


def test_a_proof_is_a_sentence(config: Path, tmp_path: Path) -> None:
    size = sum(len(each.payload) for each in MESSAGES)
    sentence = said(config, verify=True)
    assert f"{tmp_path / 'state' / FOLDER}: {len(MESSAGES)} messages, {size} bytes, from 2" in sentence
    assert ", no gap; entry " in sentence


def test_the_log_of_the_enrolment_is_part_of_it(config: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "id", 2)
    sentences = said(config, verify=True).splitlines()
    assert [each.split(": ")[1].split(" ")[0] for each in sentences] == ["2", str(len(MESSAGES))]
    assert len(json.loads(said(config, as_json=True))["logs"]) == 2


def test_a_broken_log_ends_the_proof_with_its_first_wrong_entry_and_marks_the_list(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = segments(tmp_path / "state" / FOLDER)[-1].path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert main(["audit", "--config", str(config), "--verify"]) == StateError.exit_code
    told = capsys.readouterr()
    assert "missing at the end: cut off" in told.err and "(error 720, see: mekt explain 720)" in told.err
    assert main(["audit", "--config", str(config), "--verify", "--json"]) == StateError.exit_code
    assert json.loads(capsys.readouterr().out)["logs"][0]["broken"]["entry"] > len(MESSAGES)
    assert "BROKEN: entr" in said(config)


def test_what_a_wearable_has_said_is_listed_where_it_takes_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sensor = '[[sensors]]\nkind = "simulator"\nmodalities = ["acc"]\nsubject = 1\n'
    folder = tmp_path / "wrist"
    for place in (folder / "identity", folder / "state"):
        place.mkdir(parents=True)
        write_log(place)
    tls = 'ca = "identity/ca.pem", certificate = "identity/certificate.pem", key = "identity/key.pem"'
    updates = f'[updates]\nfederation = "{FEDERATION}"\ndevice = "{DEVICE}"\nbroker = {{ tls = {{ {tls} }} }}\n'
    (folder / "wearable.toml").write_text(sensor + updates)
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    assert show_audit(Path("wrist/wearable.toml"), verify=True, since=None, as_json=True, out=out) == 0
    logs = json.loads(out.getvalue())["logs"]
    assert [each["folder"] for each in logs] == ["wrist/identity/audit", "wrist/state/audit"]
    assert {each["messages"] for each in logs} == {len(MESSAGES)}
    (folder / "wearable.toml").write_text(f'{sensor}[release]\nfile = "ward-3.zip"\n')
    assert main(["audit", "--config", "wrist/wearable.toml"]) == SettingsError.exit_code
    assert "without [updates] a wearable is part of no federation" in capsys.readouterr().err


def test_a_device_that_has_not_run_has_no_log(config: Path, tmp_path: Path) -> None:
    config.write_text('state = "elsewhere"\n' + config.read_text())
    with pytest.raises(StateError, match="no log is there") as caught:
        said(config, verify=True)
    assert caught.value.entry is catalogue.AUDIT_MISSING and not (tmp_path / "elsewhere").exists()


def test_a_proof_is_of_the_whole_log(config: Path) -> None:
    assert main(["audit", "--config", str(config), "--verify", "--since", "2"]) == SettingsError.exit_code


def test_no_text_in_a_log_speaks_to_the_terminal(config: Path, tmp_path: Path) -> None:
    path = segments(tmp_path / "state" / FOLDER)[-1].path
    line, _ = write_line(Head(), {"kind": "offer\x1b[2J", "round": [], "bytes": {}, "contained": "\x1b[31m"})
    path.write_bytes(path.read_bytes() + line)
    assert "\x1b" not in said(config) and "BROKEN" in said(config)
