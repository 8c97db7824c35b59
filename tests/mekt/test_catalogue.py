"""The catalogue of errors: the same in code and papers, each entry used, and one used wherever it is due."""

import ast
import errno
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mekt import catalogue, errors
from mekt.blobs import ChunkError
from mekt.catalogue import BY_NUMBER, ENTRIES, Entry, marked, of_disk, unmarked
from mekt.cli import main
from mekt.database import DamagedStateError
from mekt.errors import LinkError, MektError, SettingsError, StateError
from mekt.explain import explain
from mekt.parts import ended

ROOT = Path(__file__).parents[2]
PACKAGES = ("mekt", "sensors", "edge", "export", "coordinator", "bench")
CONSTANTS = {name: each for name, each in vars(catalogue).items() if isinstance(each, Entry)}
FAMILIES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MektError)]
GENERAL = {100 * each.exit_code for each in FAMILIES}
# Errors that are made with an entry, by the names of their classes; those below them bring one along by themselves.
MADE_WITH_ENTRY = {each.__name__ for each in FAMILIES} | {"DamagedStateError", "PartError", "ChaosError"}
# Where the entry of the whole family is the right one, as `path: class`; to be kept short.
GENERAL_IS_RIGHT: set[str] = set()


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def named(tree: ast.Module) -> Iterator[str]:
    """The catalogue's constants that a module uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "catalogue":
            yield node.attr


def rows() -> list[str]:
    """The papers' rows about entries, in their order."""
    papers = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    return re.findall(r"^\| \d{3,4} \| .+ \|$", papers, re.M)


def row(entry: Entry) -> str:
    return f"| {entry.number} | {entry.sentence} | {entry.cause} | {entry.remedy} |"


def test_the_papers_and_the_code_have_the_same_entries_to_the_letter() -> None:
    wanted, there = [row(each) for each in ENTRIES], rows()
    missing = [each for each in wanted if each not in there]
    assert missing == [], "add to the tables of docs/errors.md:\n" + "\n".join(missing)
    foreign = [each for each in there if each not in wanted]
    assert foreign == [], "docs/errors.md has what mekt/catalogue.py has not:\n" + "\n".join(foreign)
    assert there == wanted, "in the order of their numbers, and once"


def test_each_entry_stands_in_the_section_of_its_family() -> None:
    papers = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for code, text in re.findall(r"^## (\d): `\w+`$(.*?)(?=^## )", papers, re.M | re.S):
        numbers = {int(number) for number in re.findall(r"^\| (\d{3,4}) \| ", text, re.M)}
        assert numbers == {each.number for each in ENTRIES if each.exit_code == int(code)}


def test_numbers_are_unique_and_rise_from_top_to_bottom() -> None:
    numbers = [each.number for each in CONSTANTS.values()]
    assert numbers == sorted(set(numbers))
    assert numbers == [each.number for each in ENTRIES] == sorted(BY_NUMBER)


def test_every_family_has_an_entry_for_what_has_none_and_every_entry_a_family() -> None:
    assert set(BY_NUMBER) >= GENERAL
    assert {100 * each.exit_code for each in ENTRIES} == GENERAL


def test_entries_are_whole_sentences_that_fit_into_a_table() -> None:
    for each in ENTRIES:
        for text in (each.sentence, each.cause, each.remedy):
            assert re.fullmatch(r"[A-Z`].*\.", text), each
            assert not {"|", "\n", "\t"} & set(text) and "  " not in text, each
            assert text.count("`") % 2 == 0, each
        assert each.sentence.count(". ") == 0 and len(each.sentence) <= 80, f"{each.number}: one short sentence"
    assert len({each.sentence for each in ENTRIES}) == len(ENTRIES)


def test_every_entry_is_used_somewhere() -> None:
    used = {name for path, tree in sources() if path != "mekt/catalogue.py" for name in named(tree)}
    # Of the catalogue itself, only what it answers with counts.
    within = ast.parse((ROOT / "mekt" / "catalogue.py").read_text(encoding="utf-8"))
    for function in (each for each in within.body if isinstance(each, ast.FunctionDef)):
        used |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    idle = [name for name, each in CONSTANTS.items() if name not in used and each.number not in GENERAL]
    assert idle == [], "nothing ends with these; remove them, here and in docs/errors.md"


def test_every_error_is_made_with_an_entry() -> None:
    bare = set()
    for path, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = len(node.args) + len([each for each in node.keywords if each.arg == "entry"])
            if called in MADE_WITH_ENTRY and given < 2:
                bare.add(f"{path}: {called}")
    assert bare == GENERAL_IS_RIGHT, "say which entry of mekt/catalogue.py it is"


def test_no_class_of_errors_is_unknown_to_this_test() -> None:
    known = {*MADE_WITH_ENTRY, ChunkError.__name__}
    for path, tree in sources():
        for node in (each for each in ast.walk(tree) if isinstance(each, ast.ClassDef)):
            if {getattr(base, "id", "") for base in node.bases} & known:
                assert node.name in known, f"{path}: {node.name}"


def test_the_general_entry_is_not_asked_for_by_name_where_a_special_one_could_be() -> None:
    general = {name for name, each in CONSTANTS.items() if each.number in GENERAL}
    asked = {f"{path}: {name}" for path, tree in sources() for name in named(tree) if name in general}
    assert asked == {
        "bench/pool.py: OWN_FAULT",  # any other exception, or a process that was killed
        "mekt/database.py: STATE",  # an answer of SQLite's that nobody knows
        "mekt/session.py: LINK",  # the network thread stumbled over its own fault
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_an_error_without_an_entry_has_that_of_its_family(family: type[MektError]) -> None:
    error = family("somewhere: something")
    assert error.number == error.entry.number == 100 * family.exit_code
    assert error.args == ("somewhere: something",) and str(error) == "somewhere: something"


def test_an_error_keeps_its_text_and_has_the_number_of_its_entry() -> None:
    error = LinkError("broker: gone", catalogue.BROKER_UNREACHABLE)
    assert (str(error), error.number) == ("broker: gone", 401)
    with pytest.raises(AssertionError, match="is no SettingsError"):
        SettingsError("broker: gone", catalogue.BROKER_UNREACHABLE)


def test_errors_below_a_family_have_an_entry_of_it() -> None:
    assert ChunkError("unasked-chunk", "a chunk").entry is catalogue.BLOB_DAMAGED
    assert DamagedStateError("a file", catalogue.STATE_DAMAGED).number == 708
    assert DamagedStateError("a file").entry is catalogue.STATE


@pytest.mark.parametrize(
    ("number", "entry"),
    [
        (errno.ENOSPC, catalogue.DISK_FULL),
        (errno.EDQUOT, catalogue.DISK_FULL),
        (errno.EFBIG, catalogue.DISK_FULL),
        (errno.EROFS, catalogue.DISK_READ_ONLY),
        (errno.EACCES, catalogue.DISK_FORBIDDEN),
        (errno.EPERM, catalogue.DISK_FORBIDDEN),
        (errno.ENOTDIR, catalogue.NOT_A_FOLDER),
        (errno.EEXIST, catalogue.NOT_A_FOLDER),
        (errno.EIO, catalogue.DISK_FAULTY),
    ],
)
def test_what_the_system_says_of_a_disk_tells_full_from_read_only_from_forbidden(number: int, entry: Entry) -> None:
    assert of_disk(OSError(number, os.strerror(number))) is entry
    assert StateError("somewhere", of_disk(OSError())).number == catalogue.DISK_FAULTY.number


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda each: str(each.number))
def test_the_mark_behind_a_text_can_be_taken_off_again(entry: Entry) -> None:
    for text in ("a.toml: x", "two\nlines", "", marked("nested", catalogue.DISK_FULL)):
        assert unmarked(marked(text, entry)) == (text, entry)


@pytest.mark.parametrize("text", ["a.toml: x", "", "x (error 999, see: mekt explain 999)", "(error 401)"])
def test_a_text_without_a_mark_stays_as_it_is(text: str) -> None:
    assert unmarked(text) == (text, None)


def test_who_started_a_part_ends_with_its_number() -> None:
    assert ended(4, "device-1", catalogue.LOGIN_REFUSED).number == 405
    assert ended(4, "device-1").number == 400
    # What stands last in a log may be of an earlier error than that which ended the process.
    assert ended(7, "device-1", catalogue.LOGIN_REFUSED).number == 700
    assert ended(-9, "device-1", catalogue.LOGIN_REFUSED).number == catalogue.PART_ENDED.number


# mekt explain


def explained(number: int | None, *, as_json: bool = False) -> str:
    out = io.StringIO()
    assert explain(number, as_json=as_json, out=out) == 0
    return out.getvalue()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda each: str(each.number))
def test_a_number_is_explained_in_full_in_lines_that_fit(entry: Entry) -> None:
    text = explained(entry.number)
    flat = " ".join(text.split())
    assert text.startswith(f"Error {entry.number} (exit code {entry.exit_code}): {entry.sentence}\n")
    assert f"cause: {entry.cause} to do: {entry.remedy}" in flat
    assert all(len(line) <= 110 for line in text.splitlines())


def test_without_a_number_all_are_listed_and_with_an_exit_code_those_of_the_family() -> None:
    assert explained(None).splitlines() == [f"{each.number}  {each.sentence}" for each in ENTRIES]
    assert [int(line.split()[0]) for line in explained(7).splitlines()] == [n for n in BY_NUMBER if n // 100 == 7]


def test_explanations_as_json() -> None:
    assert json.loads(explained(401, as_json=True)) == {
        "number": 401,
        "exit_code": 4,
        "sentence": catalogue.BROKER_UNREACHABLE.sentence,
        "cause": catalogue.BROKER_UNREACHABLE.cause,
        "remedy": catalogue.BROKER_UNREACHABLE.remedy,
    }
    assert [each["number"] for each in json.loads(explained(None, as_json=True))] == list(BY_NUMBER)
    assert {each["exit_code"] for each in json.loads(explained(8, as_json=True))} == {8}


def test_an_unknown_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "999"]) == 2
    assert capsys.readouterr().err == (
        "mekt: explain: there is no error 999; `mekt explain` lists them all (error 211, see: mekt explain 211)\n"
    )
    assert main(["explain", "401"]) == 0


def test_the_command_line_ends_an_error_with_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edge", "run", "--config", str(tmp_path / "device.toml")]) == 2
    assert capsys.readouterr().err.endswith("name one with --config (error 201, see: mekt explain 201)\n")
