"""The UCI archive's text files: every column in its place and unit, gaps as holes, and what is said of a bad file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mekt.errors import SensorError
from mekt.modality import Modality, WindowSpec
from sensors.recording import not_there, read_recording, write_recording
from sensors.replay import ReplaySettings
from sensors.stream import Recording, class_names
from sensors.uci import (
    GESTURES,
    LOCOMOTION,
    MHEALTH,
    MHEALTH_LABELS,
    OPPORTUNITY,
    mhealth_file,
    opportunity_file,
    read_mhealth,
    read_opportunity,
)
from sensors.windows import UNLABELLED, windows_of

Table = list[list[str]]
MHEALTH_KINDS = (
    Modality(name="acc", shape=(9,), rate_hz=50, unit="g"),
    Modality(name="gyro", shape=(6,), rate_hz=50, unit="rad/s"),
    Modality(name="mag", shape=(6,), rate_hz=50, unit="local"),
)
OPPORTUNITY_KINDS = (
    Modality(name="acc", shape=(15,), rate_hz=30, unit="g"),
    Modality(name="gyro", shape=(15,), rate_hz=30, unit="rad/s"),
)
REPLACED = "\N{REPLACEMENT CHARACTER}"
AGAIN = "; fetch MHEALTH again from https://archive.ics.uci.edu/dataset/319/mhealth+dataset"


def mhealth(count: int, label: int = 4) -> Table:
    """Lines as the logs have them: five significant digits, the label last."""
    values = np.random.default_rng(3).normal(0, 5, size=(count, 23))
    return [[*(f"{value:.5g}" for value in row), str(label)] for row in values.tolist()]


def opportunity(count: int, locomotion: int = 2, gesture: int = 406516) -> Table:
    """Lines as the runs have them: milliseconds, whole numbers, seven labels; NaN all over the radio's sensors."""
    rng = np.random.default_rng(4)
    values = rng.integers(-3000, 3000, size=(count, 242)).astype(str).tolist()
    tail = [str(label) for label in (locomotion, 101, 0, 0, 401, 516, gesture)]
    for row in values:
        row[4:7] = ["NaN"] * 3
    return [[str(round(index * 1000 / 30)), *row, *tail] for index, row in enumerate(values)]


def saved(folder: Path, name: str, table: Table) -> Path:
    separator = "\t" if name.endswith(".log") else " "
    (folder / name).write_text("".join(separator.join(row) + "\n" for row in table), encoding="utf-8")
    return folder / name


def numbers(table: Table, columns: list[int]) -> Any:
    """These columns, counted from 1, as numbers."""
    return np.array([[float(row[column - 1]) for column in columns] for row in table])


def labels_of(recording: Recording) -> list[int]:
    [segment] = recording.segments
    assert segment.labels is not None
    return [int(value) for value in segment.labels.values]


def problem(path: Path, modalities: list[str] | None = None) -> str:
    """What is said about the file, behind its path."""
    with pytest.raises(SensorError) as caught:
        read_recording(path, modalities)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_mhealth_has_all_positions_of_a_kind_in_one_modality(tmp_path: Path) -> None:
    table = mhealth(5)
    recording = read_recording(saved(tmp_path, "mHealth_subject7.log", table))
    assert recording.name == "mHealth_subject7"
    assert recording.modalities == MHEALTH_KINDS
    assert recording.label_names == MHEALTH_LABELS
    [segment] = recording.segments
    columns = {
        "acc": ([1, 2, 3, 6, 7, 8, 15, 16, 17], 1 / 9.80665),
        "gyro": ([9, 10, 11, 18, 19, 20], np.pi / 180),
        "mag": ([12, 13, 14, 21, 22, 23], 1.0),
    }
    for name, (places, scale) in columns.items():
        stream = segment.streams[name]
        np.testing.assert_allclose(stream.values, numbers(table, places) * scale, rtol=1e-6)
        np.testing.assert_allclose(stream.t_s, [0, 0.02, 0.04, 0.06, 0.08])
    assert labels_of(recording) == [4] * 5


def test_opportunity_has_the_five_units_of_the_jacket(tmp_path: Path) -> None:
    table = opportunity(4)
    recording = read_recording(saved(tmp_path, "S2-ADL3.dat", table))
    assert recording.name == "S2-ADL3"
    assert recording.modalities == OPPORTUNITY_KINDS
    assert recording.label_names == LOCOMOTION
    [segment] = recording.segments
    firsts = [38, 51, 64, 77, 90]
    for name, step in (("acc", 0), ("gyro", 3)):
        columns = [first + step + axis for first in firsts for axis in range(3)]
        np.testing.assert_allclose(segment.streams[name].values, numbers(table, columns) / 1000, rtol=1e-6)
        np.testing.assert_allclose(segment.streams[name].t_s, [0, 0.033, 0.067, 0.1])
    assert labels_of(recording) == [2] * 4


def test_opportunity_s_gestures_are_read_when_asked_for_and_kept_in_a_file_of_ours(tmp_path: Path) -> None:
    recording = read_opportunity(saved(tmp_path, "S1-Drill.dat", opportunity(2)), labels="gestures")
    assert labels_of(recording) == [406516] * 2
    assert recording.label_names == GESTURES
    write_recording(tmp_path / "gestures.npz", recording)
    again = read_recording(tmp_path / "gestures.npz", ["gyro"])
    assert (labels_of(again), again.label_names, again.modalities) == ([406516] * 2, GESTURES, OPPORTUNITY_KINDS[1:])


@pytest.mark.parametrize("missing", ["NaN", "nan", "Inf", "-inf", "1e300"])
def test_what_is_missing_is_left_out_of_its_modality_alone(tmp_path: Path, missing: str) -> None:
    table = opportunity(4)
    table[1][41 - 1] = missing  # the first channel of gyro
    table[2][92 - 1] = missing  # the last of acc
    table[2][244 - 1] = "NaN"
    [segment] = (recording := read_recording(saved(tmp_path, "S1-ADL1.dat", table))).segments
    np.testing.assert_allclose(segment.streams["gyro"].t_s, [0, 0.067, 0.1])
    np.testing.assert_allclose(segment.streams["acc"].t_s, [0, 0.033, 0.1])
    assert len(labels_of(recording)) == 3
    table[3][0] = "NaN"
    [segment] = read_recording(saved(tmp_path, "S1-ADL1.dat", table)).segments
    np.testing.assert_allclose(segment.streams["gyro"].t_s, [0, 0.067])


def test_no_window_reaches_over_a_gap(tmp_path: Path) -> None:
    table = opportunity(300)
    for row in table[100:200]:
        row[64 - 1] = "NaN"
    recording = read_recording(saved(tmp_path, "S1-ADL1.dat", table))
    spec = WindowSpec(window_s=1.0, stride_s=1.0)
    found = windows_of(recording, ["acc", "gyro"], spec, class_names([recording]))
    assert len(found) == 6
    assert found.arrays["acc"].shape == (6, 30, 15)
    assert found.labels.tolist() == [1] * 6
    assert len(windows_of(recording, ["gyro"], spec)) == 10


def test_a_modality_that_is_never_complete_is_named_with_its_columns(tmp_path: Path) -> None:
    table = opportunity(3)
    for row in table:
        row[93 - 1] = row[95 - 1] = "NaN"
    path = saved(tmp_path, "S4-ADL5.dat", table)
    assert problem(path) == (
        "gyro lacks a value in every line (column 93, 95 has none); name other modalities, or leave the file out"
    )
    assert read_recording(path, ["acc"]).modalities == OPPORTUNITY_KINDS[:1]
    for index, row in enumerate(table):
        row[92:95] = ["1", "2", "3"]
        row[93 + index % 2 - 1] = "NaN"
    assert problem(saved(tmp_path, "S4-ADL5.dat", table)).startswith("gyro lacks a value in every line; name other")


def test_no_activity_is_unlabelled(tmp_path: Path) -> None:
    recording = read_recording(saved(tmp_path, "mHealth_subject1.log", [*mhealth(100), *mhealth(100, label=0)]))
    found = windows_of(recording, ["mag"], WindowSpec(window_s=1.0, stride_s=1.0), class_names([recording]))
    assert found.labels.tolist() == [3, 3, UNLABELLED, UNLABELLED]
    assert class_names([recording])[3] == "Walking"


def test_modalities_are_read_alone_and_in_the_order_named(tmp_path: Path) -> None:
    path = saved(tmp_path, "mHealth_subject1.log", mhealth(2))
    assert [each.name for each in read_recording(path, ["mag", "acc"]).modalities] == ["mag", "acc"]
    assert read_mhealth(path, frozenset(["gyro"])).modalities == MHEALTH_KINDS[1:2]
    assert problem(path, ["eeg", "acc"]) == "has no modality eeg; it has acc, gyro, mag: name these"
    assert read_recording(path, []).modalities == ()


def test_a_device_plays_them(tmp_path: Path) -> None:
    saved(tmp_path, "mHealth_subject1.log", mhealth(20))
    settings = ReplaySettings(modalities=("gyro", "acc"), recordings=("mHealth_subject1.log",), speed=1e6)
    assert settings.source(tmp_path).modalities == (MHEALTH_KINDS[1], MHEALTH_KINDS[0])


def changed(table: Table, row: int, change: Callable[[list[str]], object]) -> Table:
    change(table[row])
    return table


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (changed(mhealth(3), 1, lambda row: row.pop()), "line 2: expected the 24 columns of MHEALTH, got 23"),
        (changed(mhealth(3), 2, lambda row: row.append("1")), "line 3: expected the 24 columns of MHEALTH, got 25"),
        (opportunity(1), "line 1: expected the 24 columns of MHEALTH, got 250"),
        (changed(mhealth(3), 1, lambda row: row.insert(5, "?")), "line 2: expected the 24 columns of MHEALTH, got 25"),
        (
            changed(mhealth(3), 1, lambda row: row.__setitem__(16, "1.2.3")),
            "line 2: column 17 is '1.2.3', expected a number",
        ),
        (
            changed(mhealth(3), 0, lambda row: row.__setitem__(0, "\N{DEGREE SIGN}" * 9)),
            f"line 1: column 1 is '{REPLACED * 18}', expected a number",
        ),
        (changed(mhealth(3), 2, lambda row: row.__setitem__(23, "walk")), "line 3: column 24 is 'walk', expected a"),
        (changed(mhealth(3), 2, lambda row: row.__setitem__(23, "4.5")), "line 3: column 24 is 4.5, expected a whole"),
        (
            changed(mhealth(3), 2, lambda row: row.__setitem__(23, "1e20")),
            "line 3: column 24 is 1e+20, expected a whole",
        ),
        ([["Timestamp", "x", "y"], *mhealth(2)], "line 1: expected the 24 columns of MHEALTH, got 3"),
        ([], "holds no line"),
        ([[], []], "holds no line"),
    ],
)
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path: Path, table: Table, said: str) -> None:
    message = problem(saved(tmp_path, "mHealth_subject1.log", table))
    assert message.startswith(said)
    assert message.endswith(AGAIN)


def test_a_file_that_is_cut_off_is_refused_but_for_its_last_number(tmp_path: Path) -> None:
    path = saved(tmp_path, "mHealth_subject1.log", mhealth(3, label=12))
    whole = path.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for size in range(last + 1, len(whole)):
        path.write_bytes(whole[:size])
        columns = len(whole[last:size].split())
        if columns < 24:
            assert problem(path) == f"line 3: expected the 24 columns of MHEALTH, got {columns}{AGAIN}"
        else:
            assert labels_of(read_recording(path))[:2] == [12, 12]
    path.write_bytes(whole.replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert labels_of(read_recording(path)) == [12, 12, 12]


@pytest.mark.parametrize("content", [b"\0" * 40_000, bytes(range(256)) * 200, b"PK\x03\x04" + b"1 " * 100_000])
def test_what_is_no_text_of_the_set_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("mHealth_subject1.log", "S1-ADL1.dat"):
        (tmp_path / name).write_bytes(content)
        assert problem(tmp_path / name).startswith("line ")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match=r"S1-ADL1.dat: cannot be read \(No such file or directory\); mend the path"):
        read_opportunity(tmp_path / "S1-ADL1.dat")


def test_a_missing_file_is_named_with_the_page_to_fetch_it_from(tmp_path: Path) -> None:
    saved(tmp_path, "S1-ADL2.dat", opportunity(1))
    path = tmp_path / "S1-ADL1.dat"
    assert problem(path) == (
        f"no such recording in {tmp_path}, which holds S1-ADL2.dat; mend the path, or fetch OPPORTUNITY from"
        " https://archive.ics.uci.edu/dataset/226/opportunity+activity+recognition"
    )
    assert "which holds no .log file; mend the path, or fetch MHEALTH from" in not_there(tmp_path / "a.log")


@pytest.mark.parametrize("inner", ["", "MHEALTHDATASET", "mhealth+dataset/MHEALTHDATASET"])
def test_a_subject_of_mhealth_is_found_where_the_zip_was_unpacked(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir(parents=True, exist_ok=True)
    path = saved(tmp_path / inner, "mHealth_subject10.log", mhealth(1))
    assert mhealth_file(tmp_path, 10) == path


@pytest.mark.parametrize("inner", ["", "dataset", "OpportunityUCIDataset/dataset"])
def test_a_run_of_opportunity_is_found_where_the_zip_was_unpacked(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir(parents=True, exist_ok=True)
    run = saved(tmp_path / inner, "S4-ADL5.dat", opportunity(1))
    drill = saved(tmp_path / inner, "S4-Drill.dat", opportunity(1))
    assert opportunity_file(tmp_path, 4, 5) == run
    assert opportunity_file(tmp_path, 4, "Drill") == drill


def test_a_subject_that_is_not_there_is_named_with_folders_and_page(tmp_path: Path) -> None:
    with pytest.raises(SensorError) as caught:
        mhealth_file(tmp_path, 11)
    assert str(caught.value) == (
        f"{tmp_path}: MHEALTH's mHealth_subject11.log is neither there nor in MHEALTHDATASET,"
        " mhealth+dataset/MHEALTHDATASET inside; fetch the set from"
        " https://archive.ics.uci.edu/dataset/319/mhealth+dataset and unpack it there"
    )
    with pytest.raises(SensorError, match=r"OPPORTUNITY's S1-ADL6.dat is neither there nor in dataset, .*/226/"):
        opportunity_file(tmp_path, 1, 6)


@pytest.mark.parametrize("subject", [1, 2])
def test_lines_of_the_real_mhealth_are_read(public: Callable[[str], Path], subject: int) -> None:
    path = public(f"raw/mhealth_format_excerpt_only/mHealth_subject{subject}.excerpt36rows.log")
    [segment] = (recording := read_recording(path)).segments
    assert recording.modalities == MHEALTH_KINDS
    assert sorted(labels_of(recording)) == sorted(list(range(1, 13)) * 3)
    lines = np.loadtxt(path)
    np.testing.assert_allclose(segment.streams["mag"].values[:, 3:], lines[:, 20:23], rtol=1e-6)
    # Someone who stands or sits feels one g at every position.
    still = segment.streams["acc"].values[lines[:, 23] <= 2]
    np.testing.assert_allclose(np.linalg.norm(still.reshape(-1, 3, 3), axis=2), 1, atol=0.06)


def test_the_columns_are_those_that_the_metadata_name(public: Callable[[str], Path]) -> None:
    text = public("raw/opportunity_metadata_only/column_names.txt").read_text()
    names = {int(number): name for number, name in re.findall(r"Column: (\d+) ([^;\r\n]+)", text)}
    assert (names[1], names[244], names[OPPORTUNITY.columns]) == ("MILLISEC", "Locomotion", "ML_Both_Arms")
    for signal in OPPORTUNITY.signals:
        kind = signal.modality.name
        found = [names[column] for column in signal.columns]
        positions = ("BACK", "RUA", "RLA", "LUA", "LLA")
        assert found == [f"InertialMeasurementUnit {each} {kind}{axis}" for each in positions for axis in "XYZ"]


def test_the_labels_are_those_of_the_legend(public: Callable[[str], Path]) -> None:
    text = public("raw/opportunity_metadata_only/label_legend.txt").read_text()
    rows = re.findall(r"^(\d+)   -   (\w+)   -   (.+?)\s*$", text, re.M)
    for kind, names in (("Locomotion", LOCOMOTION), ("ML_Both_Arms", GESTURES)):
        assert {int(value): name for value, track, name in rows if track == kind} == names


def test_mhealth_s_columns_and_labels_are_those_of_its_readme(public: Callable[[str], Path]) -> None:
    text = public("raw/mhealth_format_excerpt_only/README.txt").read_text(encoding="latin-1")
    labels = re.findall(r"^L(\d+): (.+?) \(\d+(?: min|x)\)\s*$", text, re.M)
    assert {int(value): name for value, name in labels} == MHEALTH_LABELS
    # The README numbers two columns 13; the first of them is 12.
    names = [name for _, name in re.findall(r"^Column (\d+): (.+?)\s*$", text, re.M)]
    assert len(names) == MHEALTH.columns
    kinds = {"acc": "acceleration", "gyro": "gyro", "mag": "magnetometer"}
    for signal in MHEALTH.signals:
        for index, column in enumerate(signal.columns):
            assert names[column - 1].startswith(f"{kinds[signal.modality.name]} from the ")
            assert names[column - 1].endswith(f"({'XYZ'[index % 3]} axis)")
        found = [names[column - 1] for column in signal.columns[::3]]
        places = ["chest", "left-ankle", "right-lower-arm"][-len(found) :]
        assert all(place in name for place, name in zip(places, found, strict=True))
