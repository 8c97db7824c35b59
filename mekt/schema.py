"""Typed, bounded dataclasses out of plain data: one reader for settings files, wire messages and manifests.

Fields are typed with what plain data can hold: bool, int, float, str, bytes, `tuple[X, ...]`, `dict[str, X]`,
`Literal[...]`, `X | None`, another dataclass, one of several dataclasses that tell themselves apart by a field `kind`
(a union of them, or `Annotated[X, Kinds(...)]`), and `Annotated[X, Bounds(...)]` for limits. What most do without is
`Annotated[X, Later(...)]`. `build` reports every
problem at once, each with its dotted path, what was seen and what would be right.
"""

import dataclasses
import functools
import importlib
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")
# What is wrong with a field; `rule` is what several fields break together.
Fault = Literal["unknown", "missing", "type", "bounds", "rule"]

# A peer's garbage must stay cheap to report: this much of it is looked at closely.
MOST_PROBLEMS = 100
UNKNOWN_KEYS_NAMED = 10
LONGEST_KEY_SEEN = 64


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Limits of a field: `low` <= number <= `high`; `above` < number; length <= `longest`; text matches `pattern`."""

    low: float | None = None
    above: float | None = None
    high: float | None = None
    shortest: int = 0
    longest: int | None = None
    pattern: str | None = None

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, or None."""
        if isinstance(value, int | float):
            if self.low is not None and value < self.low:
                return f"expected at least {self.low:g}, got {value!r}"
            if self.above is not None and value <= self.above:
                return f"expected more than {self.above:g}, got {value!r}"
            if self.high is not None and value > self.high:
                return f"expected at most {self.high:g}, got {value!r}"
            return None
        parts = "characters" if isinstance(value, str) else "bytes" if isinstance(value, bytes) else "entries"
        if len(value) < self.shortest:
            return f"expected at least {self.shortest} {parts}, got {len(value)}"
        if self.longest is not None and len(value) > self.longest:
            return f"expected at most {self.longest} {parts}, got {len(value)}"
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            return f"expected text like {self.pattern}, got {_seen(value)}"
        return None


# A name that is safe in an MQTT topic, a file name and a certificate.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
Name = Annotated[str, Bounds(pattern=NAME_PATTERN)]
Positive = Annotated[float, Bounds(above=0, high=1e9)]
Count = Annotated[int, Bounds(low=1, high=1_000_000_000)]
FilePath = Annotated[str, Bounds(shortest=1, longest=4096)]


class SchemaError(ValueError):
    """Plain data that does not fit; `problems` holds one line each, in the order of the fields, `faults` their kinds.

    Made by other hands, it is about a rule.
    """

    def __init__(self, problems: list[str], faults: frozenset[Fault] = frozenset({"rule"})) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.faults = faults


def build(cls: type[T], data: object, where: str = "", most: int = MOST_PROBLEMS) -> T:
    """The instance of dataclass `cls` that `data` (a mapping of plain values) describes.

    Raises:
        SchemaError: with every problem found, each starting with its dotted path below `where`. After `most` of them
            nothing more is looked at.
    """
    found = _Found(most)
    value = _dataclass(cls, data, where, found)
    if found.problems:
        raise SchemaError(found.problems, frozenset(found.faults))
    return typing.cast(T, value)


@dataclasses.dataclass(frozen=True, slots=True)
class Kinds:
    """Of a field, in `Annotated`: it is one of several dataclasses, told apart by `kind`.

    `where` says by kind in which module each is, "sensors.csv.CsvSettings"; it is imported when there is one.
    """

    where: Mapping[str, str]

    def imported(self, kind: str) -> type:
        """The dataclass of this kind."""
        return Later(self.where[kind]).imported()


class Later(str):
    """Of a field, in `Annotated`: the module and name of its dataclass, which is imported when there is one."""

    __slots__ = ()

    def imported(self) -> type:
        """That dataclass."""
        module, name = self.rsplit(".", 1)
        return typing.cast(type, getattr(importlib.import_module(module), name))


def build_one_of(kinds: Any, data: object, where: str = "") -> Any:
    """The same of dataclasses that tell themselves apart by `kind`: a union of them, or `Annotated` with `Kinds`.

    Raises:
        SchemaError: with every problem found.
    """
    found = _Found(MOST_PROBLEMS)
    value = _value(kinds, data, where, found)
    if found.problems:
        raise SchemaError(found.problems, frozenset(found.faults))
    return value


def plain(instance: Any) -> Any:
    """The inverse of `build`: dataclasses to dicts in field order, tuples to lists; None fields are left out."""
    if dataclasses.is_dataclass(instance) and not isinstance(instance, type):
        pairs = ((field.name, getattr(instance, field.name)) for field in dataclasses.fields(instance))
        return {name: plain(value) for name, value in pairs if value is not None}
    if isinstance(instance, tuple | list):
        return [plain(item) for item in instance]
    if isinstance(instance, Mapping):
        return {key: plain(instance[key]) for key in sorted(instance)}
    return instance


@dataclasses.dataclass(slots=True)
class _Found:
    """The problems so far; the last one that is asked for ends the search."""

    most: int
    problems: list[str] = dataclasses.field(default_factory=list)
    faults: set[Fault] = dataclasses.field(default_factory=set)

    def add(self, fault: Fault, problem: str) -> None:
        self.problems.append(problem)
        self.faults.add(fault)
        if len(self.problems) >= self.most:
            raise SchemaError(self.problems, frozenset(self.faults))


@functools.cache
def _fields(cls: type) -> tuple[tuple[dataclasses.Field[Any], Any], ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(cls))


_BAD = object()


def _dataclass(cls: type, data: object, where: str, found: _Found) -> object:
    if not isinstance(data, Mapping):
        found.add("type", f"{where or 'top level'}: expected a table, got {_seen(data)}")
        return _BAD
    before = len(found.problems)
    known = {field.name for field, _ in _fields(cls)}
    unknown = [str(key)[:LONGEST_KEY_SEEN] for key in data if key not in known]
    for key in unknown[:UNKNOWN_KEYS_NAMED]:
        found.add("unknown", f"{_path(where, key)}: unknown key ({_likely(key, known)})")
    if len(unknown) > UNKNOWN_KEYS_NAMED:
        found.add("unknown", f"{where or 'top level'}: {len(unknown) - UNKNOWN_KEYS_NAMED} more unknown keys")
    arguments: dict[str, object] = {}
    for field, hint in _fields(cls):
        if field.name in data:
            arguments[field.name] = _value(hint, data[field.name], _path(where, field.name), found)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            found.add("missing", f"{_path(where, field.name)}: missing; expected {_wanted(hint)}")
    if len(found.problems) > before:
        return _BAD
    try:
        return cls(**arguments)
    except ValueError as error:
        # A rule over several fields names the one to change first, `scaling.acc: ...`, or none.
        named = re.match(r"(\w+)[.\[:]", str(error))
        told = _path(where, str(error)) if named and named[1] in known else f"{where or 'top level'}: {error}"
        found.add("rule", told)
        return _BAD


def _value(hint: Any, data: object, where: str, found: _Found) -> object:
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *limits = get_args(hint)
        if isinstance(limits[0], Kinds):
            return _one_of(limits[0].where, data, where, found, limits[0].imported)
        if isinstance(limits[0], Later):
            return _dataclass(limits[0].imported(), data, where, found)
        value = _value(inner, data, where, found)
        if value is not _BAD:
            for limit in limits:
                if isinstance(limit, Bounds) and (problem := limit.problem(value)) is not None:
                    found.add("bounds", f"{where}: {problem}")
                    return _BAD
        return value
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        if data is None and len(options) < len(get_args(hint)):
            return None
        if len(options) == 1:
            return _value(options[0], data, where, found)
        kinds = {kind: option for option in options for kind in get_args(dict(_hints(option))["kind"])}
        return _one_of(kinds, data, where, found, kinds.__getitem__)
    if origin is Literal:
        if any(data == option and type(data) is type(option) for option in get_args(hint)):
            return data
    elif origin is tuple:
        if isinstance(data, list | tuple):
            item = get_args(hint)[0]
            values = [_value(item, entry, f"{where}[{index}]", found) for index, entry in enumerate(data)]
            return _BAD if _BAD in values else tuple(values)
    elif origin is dict:
        if isinstance(data, Mapping):
            key_hint, item = get_args(hint)
            keys = [_value(key_hint, key, f"{where}, key", found) for key in data]
            table = {str(key): _value(item, data[key], _path(where, str(key)[:64]), found) for key in data}
            return _BAD if _BAD in keys or any(value is _BAD for value in table.values()) else table
    elif dataclasses.is_dataclass(hint):
        return _dataclass(typing.cast(type, hint), data, where, found)
    elif hint is float:
        # Twice: a whole number just below 2**63 is 2**63 as a float. What is not a number is not below it either.
        if isinstance(data, int | float) and not isinstance(data, bool) and abs(data) < 2**63 > abs(float(data)):
            return float(data)
    elif hint is int:
        if isinstance(data, int) and not isinstance(data, bool):
            return data
    elif isinstance(hint, type) and isinstance(data, hint):
        return data
    found.add("type", f"{where}: expected {_wanted(hint)}, got {_seen(data)}{_advice(hint, data)}")
    return _BAD


def _one_of(kinds: Collection[str], data: object, where: str, found: _Found, option: Callable[[str], type]) -> object:
    """Of several dataclasses the one whose `kind` the table names; `option` gives it."""
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if isinstance(kind, str) and kind in kinds:
        return _dataclass(option(kind), data, where, found)
    if not isinstance(data, Mapping):
        found.add("type", f"{where or 'top level'}: expected a table, got {_seen(data)}")
    elif "kind" not in data:
        found.add("missing", f"{_path(where, 'kind')}: missing; expected one of {', '.join(map(repr, kinds))}")
    else:
        found.add("type", f"{_path(where, 'kind')}: expected one of {', '.join(map(repr, kinds))}, got {_seen(kind)}")
    return _BAD


def _hints(cls: type) -> Iterator[tuple[str, Any]]:
    return ((field.name, hint) for field, hint in _fields(cls))


def _wanted(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Annotated:
        inner, limit, *_ = get_args(hint)
        return "a table" if isinstance(limit, Later) else _wanted(inner)
    if origin in (Union, types.UnionType):
        return _wanted(next(option for option in get_args(hint) if option is not type(None)))
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in get_args(hint))
    if origin is tuple:
        return f"a list, each entry {_wanted(get_args(hint)[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a table"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text", bytes: "bytes"}.get(hint, "?")


def _seen(data: object) -> str:
    if isinstance(data, Mapping):
        return "a table"
    if isinstance(data, list | tuple):
        return "a list"
    return repr(data[:40] if isinstance(data, str | bytes) else data)[:80]


def _advice(hint: Any, data: object) -> str:
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if isinstance(data, str) and base in (int, float):
        try:
            float(data)
        except ValueError:
            return ""
        return " (remove the quotes)"
    return ""


def _likely(key: str, known: set[str]) -> str:
    """What a mistyped key was perhaps meant to be, else every key there is."""
    import difflib  # only for mistakes

    near = difflib.get_close_matches(key, sorted(known), n=1)
    return f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(sorted(known))}"


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
