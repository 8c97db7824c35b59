"""Text files of columns as recordings: named or numbered, timed or not, with rows that are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mekt.errors import SensorError, SettingsError
from mekt.schema import SchemaError, plain
from sensors.csv import CsvSettings, read_columns
from sensors.faults import FaultySource
from sensors.settings import sensor_settings
from sensors.source import Block
from sensors.stream import Stream

ACC = {"name": "acc", "fields": ["x", "y"], "rate_hz": 10, "scale": [0.5, 2]}
TABLE: dict[str, Any] = {"kind": "csv", "files": ["a.csv"], "signals": [ACC]}


def made(more: dict[str, Any] | None = None) -> CsvSettings:
    settings = sensor_settings(TABLE | (more or {}))
    assert isinstance(settings, CsvSettings)
    return settings


def streams(folder: Path, text: str | bytes, more: dict[str, Any] | None = None) -> dict[str, Stream]:
    path = folder / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    [segment] = read_columns(path, made(more)).segments
    assert segment.labels is None
    return segment.streams


def test_columns_are_named_by_the_first_row_and_rows_follow_at_the_nominal_rate(tmp_path: Path) -> None:
    acc = streams(tmp_path, "y, x ,label\n1,2,walk\n3,4,sit\n")["acc"]
    assert acc.values.tolist() == [[1, 2], [2, 6]]
    assert acc.t_s.tolist() == [0, 0.1]
    assert (acc.modality.name, acc.modality.unit, acc.modality.rate_hz) == ("acc", "g", 10)


@pytest.mark.parametrize("text", ["\ufeffx,y\r\n1,2\r\n", 'x,y\n"1","2"\n', "x;y\n1;2"])
def test_as_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    acc = streams(tmp_path, text, {"separator": ";" if ";" in text else ","})["acc"]
    assert acc.values.tolist() == [[0.5, 4]]


def test_columns_have_numbers_from_1_with_or_without_a_first_row_of_names(tmp_path: Path) -> None:
    by_number = {"signals": [ACC | {"fields": ["3", "1"]}]}
    assert streams(tmp_path, "a,b,c\n1,2,3\n", by_number)["acc"].values.tolist() == [[1.5, 2]]
    bare = by_number | {"header": False, "separator": "\t"}
    assert streams(tmp_path, "1\t2\t3\n4\t5\t6\n", bare)["acc"].values.tolist() == [[1.5, 2], [3, 8]]


def test_a_time_column_is_in_its_unit_and_a_counter_goes_on(tmp_path: Path) -> None:
    text = "t,x,y\n65500,1,1\n65520,1,1\n4,1,1\n"
    time = {"field": "t", "unit": "ms"}
    assert streams(tmp_path, text, {"time": time})["acc"].t_s.tolist() == pytest.approx([65.5, 65.52, 0.004])
    unwrapped = streams(tmp_path, text, {"time": time | {"bits": 16}})["acc"].t_s
    assert unwrapped.tolist() == pytest.approx([65.5, 65.52, 65.54])


def test_of_two_signals_in_one_file_one_may_be_late(tmp_path: Path) -> None:
    more = {"signals": [ACC, {"name": "hr", "fields": ["hr"], "rate_hz": 1, "latency_s": 2.5}], "time": {"field": "t"}}
    found = streams(tmp_path, "t,x,y,hr\n3,1,1,60\n4,1,1,61\n", more)
    assert (found["acc"].t_s.tolist(), found["hr"].t_s.tolist()) == ([3, 4], [0.5, 1.5])


def test_signals_of_several_rates_share_a_file_with_empty_columns(tmp_path: Path) -> None:
    more = {"signals": [ACC, {"name": "hr", "fields": ["hr"], "rate_hz": 1}], "time": {"field": "t"}}
    found = streams(tmp_path, "t,x,y,hr\n0,1,1,\n0.1,1,1,60\n0.2,,,\n0.3,,,61\n0.4,1\n", more)
    assert found["acc"].t_s.tolist() == [0, 0.1]
    assert found["hr"].t_s.tolist() == [0.1, 0.3]
    assert (found["hr"].modality.unit, found["hr"].values.tolist()) == ("", [[60], [61]])


def test_rows_that_are_none_are_said_once_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "t,x,y\n0,1,1\n?,1,1\n0.2,nan,1\n0.3,1,oops\n0.4,3e37,1\n0.5,2,2\n"
    acc = streams(tmp_path, text, {"signals": [ACC | {"scale": [100]}], "time": {"field": "t"}})["acc"]
    assert acc.t_s.tolist() == [0, 0.5]
    assert len(caplog.messages) == 3
    assert caplog.messages[1].startswith(f"{tmp_path / 'a.csv'}: dropped: acc: a column that is no number (0.2,nan,1)")


@pytest.mark.parametrize(
    ("text", "more", "problem"),
    [
        ("", {}, "has no column x, y; it has none: name these, or a number from 1"),
        ("a,b\n1,2\n", {}, "has no column x, y; it has a, b: name these, or a number from 1"),
        ("x,y\n1,2\n", {"time": {"field": "t"}}, "has no column t; it has x, y: name these, or a number from 1"),
        ("1,2\n", {"header": False}, "has no column x, y; it has 2 columns without names: name these, or a"),
        ("x,y\n", {}, "no row has numbers for acc in x, y; name other columns"),
        ("x,y\n1,?\n", {}, "no row has numbers for acc in x, y; name other columns"),
        (b"\x00\xff" * 50, {}, "has no column x, y; it has"),
        ('x,y\n"' + "1" * 200_000, {}, "no rows of columns (field larger than field limit (131072))"),
    ],
)
def test_a_file_without_what_is_asked_for_says_what_it_has(
    tmp_path: Path, text: str | bytes, more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SensorError) as caught:
        streams(tmp_path, text, more)
    assert str(caught.value).startswith(f"{tmp_path / 'a.csv'}: {problem}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_whatever_a_file_holds_it_is_a_recording_or_the_one_error(tmp_path: Path, data: bytes, timed: bool) -> None:
    more = {"time": {"field": "y", "unit": "us", "bits": 8}} if timed else {}
    try:
        acc = streams(tmp_path, b"x,y\n" + data, more)["acc"]
    except SensorError:
        return
    assert np.isfinite(acc.values).all() and np.isfinite(acc.t_s).all()


def test_files_are_played_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,1\n2,2\n")
    (tmp_path / "b.csv").write_text("x,y\n3,3\n")
    source = made({"files": ["a.csv", str(tmp_path / "b.csv")], "speed": 1e6}).source(tmp_path)
    source.open()
    rows: list[list[float]] = []
    while (items := source.read(1)) is not None:
        for item in items:
            if isinstance(item, Block):
                rows += item.values.tolist()
    assert rows == [[0.5, 2], [1, 4], [1.5, 6]]


def test_a_file_that_is_not_there_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^sensors\.files: .*a\.csv: no such recording in "):
        made().source(tmp_path)


def test_faults_are_for_these_recordings_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,1\n2,2\n")
    assert isinstance(made({"faults": {"dropped": 1}}).source(tmp_path), FaultySource)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"files": []}, "files: expected at least 1 entries, got 0"),
        ({"separator": '"'}, "separator: expected text like " + r"[^\"\r\n]" + """, got '"'"""),
        ({"signals": [ACC, ACC]}, "signals: a name occurs twice; name each once"),
        ({"live": True, "speed": 4}, "live: what is played 4 times as fast is not live; leave speed out"),
    ],
)
def test_settings_that_cannot_work_are_explained(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        made(more)
    assert caught.value.problems == [problem]


def test_settings_come_back_as_they_were() -> None:
    table = made({"time": {"field": "t", "unit": "ms"}, "header": False, "faults": {"seed": 3}})
    assert sensor_settings(plain(table)) == table
