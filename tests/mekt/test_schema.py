"""Plain data into bounded dataclasses: every type, every bound, every problem at once."""

import math
import tomllib
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.schema import (
    MOST_PROBLEMS,
    UNKNOWN_KEYS_NAMED,
    Bounds,
    Count,
    Later,
    Name,
    Positive,
    SchemaError,
    build,
    build_one_of,
    plain,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    kind: Literal["imu", "camera"]
    rate_hz: Positive
    gain: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    name: Name
    sensors: Annotated[tuple[Sensor, ...], Bounds(longest=4)] = ()
    windows: Count = 1
    mode: Literal[1, 2] = 1
    quick: bool = False
    key: Annotated[bytes, Bounds(shortest=2, longest=4)] = b"\0\0"
    labels: dict[str, float] = field(default_factory=dict)
    grid: tuple[tuple[int, ...], ...] = ()
    spare: Sensor | None = None
    note: Annotated[str, Bounds(longest=8)] | None = None

    def __post_init__(self) -> None:
        if self.quick and self.windows > 100:
            raise ValueError("windows: a quick device has at most 100")


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low lies above high")


def problems_of(data: object, cls: type[Any] = Device, where: str = "") -> list[str]:
    with pytest.raises(SchemaError) as caught:
        build(cls, data, where)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


def test_a_full_table_becomes_the_instance_it_describes() -> None:
    data = {
        "name": "pi-3",
        "sensors": [{"kind": "imu", "rate_hz": 50}, {"kind": "camera", "rate_hz": 10.5, "gain": -2}],
        "windows": 3,
        "mode": 2,
        "quick": True,
        "key": b"abc",
        "labels": {"walk": 1, "sit": 0.5},
        "grid": [[1, 2], []],
        "spare": {"kind": "imu", "rate_hz": 1},
        "note": "at home",
    }
    assert build(Device, data) == Device(
        name="pi-3",
        sensors=(Sensor(kind="imu", rate_hz=50.0), Sensor(kind="camera", rate_hz=10.5, gain=-2.0)),
        windows=3,
        mode=2,
        quick=True,
        key=b"abc",
        labels={"walk": 1.0, "sit": 0.5},
        grid=((1, 2), ()),
        spare=Sensor(kind="imu", rate_hz=1.0),
        note="at home",
    )


def test_what_is_left_out_takes_its_default() -> None:
    assert build(Device, {"name": "a"}) == Device(name="a")


def test_whole_numbers_become_floats_where_a_number_is_wanted() -> None:
    assert type(build(Sensor, {"kind": "imu", "rate_hz": 50}).rate_hz) is float


def test_none_stands_for_an_optional_field_that_is_left_out() -> None:
    assert build(Device, {"name": "a", "spare": None, "note": None}) == Device(name="a")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("name", 7, "expected text, got 7"),
        ("name", None, "expected text, got None"),
        ("name", b"pi", "expected text, got b'pi'"),
        ("sensors", {}, "expected a list, each entry a table, got a table"),
        ("sensors", "imu", "expected a list, each entry a table, got 'imu'"),
        ("windows", "3", "expected a whole number, got '3' (remove the quotes)"),
        ("windows", "three", "expected a whole number, got 'three'"),
        ("windows", 3.0, "expected a whole number, got 3.0"),
        ("windows", True, "expected a whole number, got True"),
        ("mode", 3, "expected one of 1, 2, got 3"),
        ("mode", True, "expected one of 1, 2, got True"),
        ("mode", 1.0, "expected one of 1, 2, got 1.0"),
        ("quick", 1, "expected true or false, got 1"),
        ("quick", "true", "expected true or false, got 'true'"),
        ("key", "ab", "expected bytes, got 'ab'"),
        ("labels", [], "expected a table, got a list"),
        ("grid", 5, "expected a list, each entry a list, each entry a whole number, got 5"),
        ("spare", 1, "expected a table, got 1"),
        ("note", 1, "expected text, got 1"),
    ],
)
def test_a_value_of_another_type_is_named(key: str, value: object, problem: str) -> None:
    assert problems_of({"name": "a", key: value}) == [f"{key}: {problem}"]


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, 2**63, -(2**63), 2**63 - 1, 1 - 2**63, 10**400, 1e300, True, "1.5", None, [], b"1"],
)
def test_a_number_is_finite_and_fits_a_float(value: object) -> None:
    [problem] = problems_of({"kind": "imu", "rate_hz": 1, "gain": value}, Sensor)
    assert problem.startswith("gain: expected a number, got ")


def test_a_number_that_is_accepted_is_accepted_again_as_what_it_became() -> None:
    for value in (2**63 - 513, 513 - 2**63, 2**53 + 1, -0.0, 5e-324):
        gain = build(Sensor, {"kind": "imu", "rate_hz": 1, "gain": value}).gain
        assert build(Sensor, {"kind": "imu", "rate_hz": 1, "gain": gain}).gain == gain


def test_after_as_many_problems_as_are_asked_for_nothing_more_is_looked_at() -> None:
    data = {"name": "a", "grid": [["x"] * 1000] * 1000}
    assert problems_of(data) == [f"grid[0][{n}]: expected a whole number, got 'x'" for n in range(MOST_PROBLEMS)]
    for most in (1, 3):
        with pytest.raises(SchemaError) as caught:
            build(Device, {"grid": ["x"] * 1000, "unknown": 1}, "d", most)
        assert len(caught.value.problems) == most and caught.value.problems[0].startswith("d.unknown: unknown key")


@pytest.mark.parametrize(
    ("hint", "good", "bad", "problem"),
    [
        (Annotated[int, Bounds(low=2)], 2, 1, "expected at least 2, got 1"),
        (Annotated[float, Bounds(above=0)], 5e-324, 0.0, "expected more than 0, got 0.0"),
        (Annotated[float, Bounds(high=1.5)], 1.5, 1.6, "expected at most 1.5, got 1.6"),
        (Annotated[str, Bounds(shortest=1)], "a", "", "expected at least 1 characters, got 0"),
        (Annotated[bytes, Bounds(longest=2)], b"ab", b"abc", "expected at most 2 bytes, got 3"),
        (Annotated[tuple[int, ...], Bounds(shortest=1, longest=2)], [1, 2], [1, 2, 3], "at most 2 entries, got 3"),
        (Annotated[dict[str, int], Bounds(longest=1)], {"a": 1}, {"a": 1, "b": 2}, "at most 1 entries, got 2"),
        (Annotated[str, Bounds(pattern="[a-z]+")], "abc", "abc\n", "expected text like [a-z]+, got 'abc\\n'"),
        (Annotated[int, Bounds(low=0), Bounds(high=9)], 9, 10, "expected at most 9, got 10"),
    ],
)
def test_each_bound_holds_at_its_edge_and_not_beyond(hint: Any, good: object, bad: object, problem: str) -> None:
    one: Any = dataclass(frozen=True)(type("One", (), {"__annotations__": {"field": hint}, "__module__": __name__}))
    assert plain(build(one, {"field": good})) == {"field": good}
    [found] = problems_of({"field": bad}, one)
    assert found.startswith("field: ")
    assert found.endswith(problem)


@pytest.mark.parametrize("name", ["pi-3", "A", "0", "a.b_c-d", "x" * 64])
def test_a_name_is_safe_in_topics_and_file_names(name: str) -> None:
    assert build(Device, {"name": name}).name == name


@pytest.mark.parametrize("name", ["", "-a", ".", "..", "a/b", "a+", "#", "a b", "a\n", "ä", "x" * 65, "a\0"])
def test_a_name_that_is_not_safe_is_refused(name: str) -> None:
    assert len(problems_of({"name": name})) == 1


def test_every_problem_is_reported_at_once_in_order_with_its_dotted_path() -> None:
    data = {
        "nam": "pi",
        "sensors": [{"kind": "imu", "rate_hz": "50"}, {"kind": "gps", "rate_hz": 0}, 5],
        "labels": {"walk": "x"},
        "grid": [[1], [1, "2"]],
        "spare": {"rate": 5},
    }
    assert problems_of(data, where="") == [
        'nam: unknown key (did you mean "name"?)',
        "name: missing; expected text",
        "sensors[0].rate_hz: expected a number, got '50' (remove the quotes)",
        "sensors[1].kind: expected one of 'imu', 'camera', got 'gps'",
        "sensors[1].rate_hz: expected more than 0, got 0.0",
        "sensors[2]: expected a table, got 5",
        "labels.walk: expected a number, got 'x'",
        "grid[1][1]: expected a whole number, got '2' (remove the quotes)",
        'spare.rate: unknown key (did you mean "rate_hz"?)',
        "spare.kind: missing; expected one of 'imu', 'camera'",
        "spare.rate_hz: missing; expected a number",
    ]


def test_paths_start_where_the_caller_says() -> None:
    assert problems_of({}, Sensor, "plan.x") == [
        "plan.x.kind: missing; expected one of 'imu', 'camera'",
        "plan.x.rate_hz: missing; expected a number",
    ]
    assert problems_of(3, Sensor, "plan") == ["plan: expected a table, got 3"]
    assert problems_of([], Sensor) == ["top level: expected a table, got a list"]


def test_an_unknown_key_that_resembles_none_gets_the_whole_list() -> None:
    data = {"kind": "imu", "rate_hz": 1, "zzz": 0}
    assert problems_of(data, Sensor) == ["zzz: unknown key (known here: gain, kind, rate_hz)"]


def test_keys_that_are_not_text_are_unknown_keys() -> None:
    data = {"kind": "imu", "rate_hz": 1, 5: 0, None: 0}
    assert [problem.split(" (")[0] for problem in problems_of(data, Sensor)] == ["5: unknown key", "None: unknown key"]


def test_keys_of_a_dictionary_are_checked_like_values() -> None:
    assert problems_of({"name": "a", "labels": {5: 1.0}}) == ["labels, key: expected text, got 5"]


def test_many_unknown_keys_are_counted_rather_than_listed() -> None:
    data = {"kind": "imu", "rate_hz": 1, **{f"k{index}": 0 for index in range(1000)}}
    problems = problems_of(data, Sensor)
    assert len(problems) == UNKNOWN_KEYS_NAMED + 1
    assert problems[-1] == f"top level: {1000 - UNKNOWN_KEYS_NAMED} more unknown keys"


def test_what_was_seen_is_shown_short() -> None:
    for data in ({"name": "/" * 10**6}, {"name": "a", "x" * 10**6: 1}, {"name": "a", "labels": {"y" * 10**6: "z"}}):
        assert all(len(problem) < 400 for problem in problems_of(data))


def test_a_rule_over_several_fields_is_reported_at_the_field_it_names() -> None:
    data = {"name": "a", "quick": True, "windows": 101}
    assert problems_of(data) == ["windows: a quick device has at most 100"]
    assert problems_of(data, where="devices[0]") == ["devices[0].windows: a quick device has at most 100"]


def test_a_rule_that_names_no_field_is_reported_where_its_table_is() -> None:
    data = {"low": 2, "high": 1}
    assert problems_of(data, Span) == ["top level: low lies above high"]
    assert problems_of(data, Span, "low") == ["low: low lies above high"]


def test_only_field_rules_are_asked_while_fields_are_wrong() -> None:
    assert problems_of({"name": "", "quick": True, "windows": 101}) == [
        "name: expected text like [A-Za-z0-9][A-Za-z0-9_.-]{0,63}, got ''"
    ]


def test_plain_leaves_none_out_and_sorts_dictionaries() -> None:
    made = plain(Device(name="a", labels={"b": 1.0, "a": 2.0}))
    assert "spare" not in made
    assert "note" not in made
    assert list(made)[:2] == ["name", "sensors"]
    assert list(made["labels"]) == ["a", "b"]


numbers = st.floats(allow_nan=False, min_value=-(2.0**62), max_value=2.0**62)
sensors = st.builds(
    Sensor,
    kind=st.sampled_from(("imu", "camera")),
    rate_hz=st.floats(min_value=0, max_value=1e9, exclude_min=True),
    gain=numbers,
)
devices = st.builds(
    Device,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True),
    sensors=st.lists(sensors, max_size=4).map(tuple),
    windows=st.integers(1, 100),
    mode=st.sampled_from((1, 2)),
    quick=st.booleans(),
    key=st.binary(min_size=2, max_size=4),
    labels=st.dictionaries(st.text(), numbers, max_size=4),
    grid=st.lists(st.lists(st.integers(-(2**63), 2**64 - 1), max_size=3).map(tuple), max_size=3).map(tuple),
    spare=st.none() | sensors,
    note=st.none() | st.text(max_size=8),
)


@given(devices)
def test_build_undoes_plain(device: Device) -> None:
    assert build(Device, plain(device)) == device


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(Device.__dataclass_fields__, plain_data)))
def test_any_plain_data_is_built_or_is_a_schema_error(data: dict[str, object]) -> None:
    try:
        made = build(Device, data)
    except SchemaError as error:
        assert error.problems
    else:
        assert build(Device, plain(made)) == made


def test_toml_dates_are_shown_as_what_they_are() -> None:
    data = tomllib.loads("name = 2024-05-01\n")
    assert problems_of(data) == ["name: expected text, got datetime.date(2024, 5, 1)"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bus:
    kind: Literal["bus"] = "bus"
    address: Annotated[int, Bounds(low=0, high=127)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    kind: Literal["port", "line"] = "port"
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    sensors: tuple[Bus | Port, ...] = ()
    spare: Bus | Port | None = None


def test_of_several_dataclasses_the_kind_says_which() -> None:
    table = {"sensors": [{"kind": "bus", "address": 104}, {"kind": "line", "path": "a"}], "spare": None}
    board = build(Board, table)
    assert board == Board(sensors=(Bus(address=104), Port(kind="line", path="a")))
    assert build(Board, plain(board)) == board
    assert build_one_of(Bus | Port, {"kind": "bus", "address": 1}) == Bus(address=1)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"kind": "bus", "address": 200}, "spare.address: expected at most 127, got 200"),
        ({"kind": "bus", "address": 1, "path": "a"}, "spare.path: unknown key (known here: address, kind)"),
        ({"kind": "ship"}, "spare.kind: expected one of 'bus', 'port', 'line', got 'ship'"),
        ({"kind": ["bus"]}, "spare.kind: expected one of 'bus', 'port', 'line', got a list"),
        ({"address": 1}, "spare.kind: missing; expected one of 'bus', 'port', 'line'"),
        ([], "spare: expected a table, got a list"),
    ],
)
def test_a_table_of_no_kind_or_with_mistakes_of_its_kind_is_explained(table: Any, problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        build(Board, {"spare": table})
    assert caught.value.problems == [problem]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trip:
    span: Annotated[object, Later("tests.mekt.test_schema.Span")] | None = None


def test_a_dataclass_that_is_imported_when_there_is_one_is_built_as_any_other() -> None:
    assert build(Trip, {}) == Trip()
    assert build(Trip, {"span": {"low": 1, "high": 2}}) == Trip(span=Span(low=1, high=2))
    assert problems_of({"span": {"low": 1}}, Trip) == ["span.high: missing; expected a whole number"]
    assert problems_of({"span": 3}, Trip) == ["span: expected a table, got 3"]
