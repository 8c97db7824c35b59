"""Valid msgpack, spoiled where it hurts: the plain data is changed, then packed, also in ways that no packer would."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

# Of a list's entries, and the bytes that copies come to: mutants of mutants stay small.
MOST_COPIES, LARGEST_COPY = 300, 8192


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that stand where a value should, as they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pairs:
    """A map with its keys in order, any of them as often as one likes."""

    items: tuple[tuple[Any, Any], ...]


SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 127, 128, 2**16, 2**24 + 1, 2**31 - 1, 2**31, 2**53, 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63), -(2**63) + 1, 1 << 30, (1 << 30) + 1),
    *(0.0, -0.0, 0.5, 1e-320, 5e-324, 1e9, 1e18, 9.3e18, 1.7e308, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        "a",
        "x" * 32,
        "x" * 33,
        "x" * 64,
        "x" * 65,
        "x" * 241,
        "../pi",
        "pi\n",
        "é",
        "\0",
        "\u202e",
        "acc",
        "want",
        "offer",
    ),
    *(b"", b"\0", b"k" * 31, bytes(32), b"k" * 33, b"\x00\x00\xc0\x7f" * 5, b"\xff" * 30),
    *([], {}, [[]], [{}], {"": {}}, [None] * 5),
    # Extension types, a timestamp, text that is not UTF-8, bytes that are no type.
    *(Raw(b"\xd4\x05\0"), Raw(b"\xc7\0\x05"), Raw(b"\xd6\xff\0\0\0\0"), Raw(b"\xc9\xff\xff\xff\xff\x05"), Raw(b"\xc1")),
    *(Raw(b"\xa1\xff"), Raw(b"\xa3\xed\xa0\x80"), Raw(b"\xa2\xc0\x80")),
    # Lengths that nothing follows, nests, lists of nothing.
    *(Raw(lead + struct.pack(">I", size)) for lead in (b"\xdd", b"\xdf", b"\xdb", b"\xc6") for size in (4096, 2**31)),
    *(Raw(b"\xdc\x0f\xff"), Raw(b"\xde\x0f\xff"), Raw(b"\x91" * 30 + b"\xc0"), Raw(b"\x91" * 1100 + b"\xc0")),
    *(Raw(b"\x81\xa1a" * 500 + b"\xc0"), Raw(b"\xdc\x01\0" + b"\x90" * 256), Raw(b"\xdc\x01\0" + b"\x80" * 256)),
    # Float32, and whole numbers in more bytes than they need.
    *(Raw(b"\xca\x3f\x80\0\0"), Raw(b"\xca\x7f\x80\0\1"), Raw(b"\xcf" + bytes(7) + b"\1"), Raw(b"\xd3" + b"\xff" * 8)),
)


def pack(data: Any) -> bytes:
    """The bytes of plain data with `Raw` and `Pairs` in it."""
    match data:
        case Raw(raw):
            return raw
        case list():
            head: bytes = msgpack.Packer().pack_array_header(len(data))
            return head + b"".join(pack(each) for each in data)
        case Pairs(items):
            head = msgpack.Packer().pack_map_header(len(items))
            return head + b"".join(pack(key) + pack(each) for key, each in items)
        case dict():
            return pack(Pairs(tuple(data.items())))
        case _:
            packed: bytes = msgpack.packb(data)
            return packed


def loosely(raw: bytes) -> Any:
    """The plain data in msgpack bytes, with whatever keys in whatever number; raises anything."""
    return msgpack.unpackb(
        raw,
        object_pairs_hook=lambda pairs: Pairs(tuple(pairs)),
        ext_hook=lambda code, data: Raw(b"\xd4" + bytes([code & 127]) + b"\0"),
        strict_map_key=False,
    )


def spoiled(raw: bytes, chance: random.Random) -> bytes:
    """Msgpack with one to four changes to what it says; what is none, or too deep for us, comes back as it is."""
    try:
        data = loosely(raw)
        for _ in range(chance.choice([1, 1, 1, 2, 4])):
            data = changed(data, chance)
        return pack(data)
    except (ValueError, RecursionError):
        return raw


def changed(data: Any, chance: random.Random) -> Any:
    """`data` with one change somewhere, at its top or, more often, deep within."""
    entries = [value for _, value in data.items] if isinstance(data, Pairs) else data if isinstance(data, list) else []
    if not entries or chance.random() < 0.1:
        return chance.choice(CHANGES)(data, chance)
    deep = [at for at, entry in enumerate(entries) if isinstance(entry, list | Pairs)]
    at = chance.choice(deep) if deep and chance.random() < 0.75 else chance.randrange(len(entries))
    entries = [*entries[:at], changed(entries[at], chance), *entries[at + 1 :]]
    if isinstance(data, list):
        return entries
    return Pairs(tuple((key, value) for (key, _), value in zip(data.items, entries, strict=True)))


def another(data: Any, chance: random.Random) -> Any:
    return chance.choice(SCALARS)


def in_range(number: Any) -> Any:
    """A number that msgpack has: the nearest."""
    return min(max(number, -(2**63)), 2**64 - 1)


def alike(data: Any, chance: random.Random) -> Any:
    """Something else that might be as valid."""
    match data:
        case bool():
            return data
        case int():
            return in_range(chance.choice([data + 1, data - 1, chance.randrange(100), chance.randrange(2**30)]))
        case float():
            return chance.choice([chance.random(), 10.0 * chance.random(), chance.randrange(10)])
        case str():
            return "".join(chance.choices("abcxyz0189_-.", k=chance.randrange(1, 12)))
        case bytes():
            return chance.randbytes(len(data))
        case list():
            return chance.choice([data[:-1], data + data[:1], data[::-1]])
        case Pairs(items):
            return Pairs(
                chance.choice([items[::-1], items[:-1], (*items, *((f"z{key}", each) for key, each in items))])
            )
        case _:
            return data


def wrapped(data: Any, chance: random.Random) -> Any:
    return [data] if chance.random() < 0.5 else Pairs((("a", data),))


def of_another_type(data: Any, chance: random.Random) -> Any:
    match data:
        case bool():
            return int(data)
        case int():
            return chance.choice([float(data), str(data), bool(data)])
        case float():
            return chance.choice([str(data), 1, Raw(b"\xca" + struct.pack(">f", min(max(data, -1e38), 1e38)))])
        case str():
            return data.encode("utf-8", "replace")
        case bytes():
            return data.decode("utf-8", "replace")
        case list():
            return Pairs(tuple((str(number), each) for number, each in enumerate(data)))
        case Pairs(items):
            return [each for pair in items for each in pair]
        case _:
            return chance.choice(SCALARS)


def nearby(data: Any, chance: random.Random) -> Any:
    match data:
        case bool():
            return not data
        case int() | float():
            return in_range(chance.choice([data + 1, data - 1, -data, data * 2, data * 1024]))
        case str() | bytes():
            at = chance.randrange(len(data) + 1)
            return chance.choice([data[:at], data[at:], data * 2, data * min(50, LARGEST_COPY // (len(data) + 1))])
        case list():
            copies = min(MOST_COPIES, LARGEST_COPY // len(pack(data)))
            return chance.choice([data[:-1], data * 2, data[::-1], data * copies])
        case Pairs(items):
            return Pairs(chance.choice([items[:-1], items[1:], items[::-1], items + items[:1]]))
        case _:
            return chance.choice(SCALARS)


def with_a_pair_more(data: Any, chance: random.Random) -> Any:
    if not isinstance(data, Pairs):
        return another(data, chance)
    key = chance.choice(["", "x" * 64, "kind", "body", "scale", "hidden", 1, b"v", chance.choice(SCALARS)])
    copies = chance.choice([1, 1, 20])
    more = tuple((f"{key}{number}" if number else key, chance.choice(SCALARS)) for number in range(copies))
    return Pairs(data.items + more)


def turned(data: Any, chance: random.Random) -> Any:
    """Values under each other's keys."""
    if not isinstance(data, Pairs) or len(data.items) < 2:
        return nearby(data, chance)
    values = [value for _, value in data.items]
    chance.shuffle(values)
    return Pairs(tuple((key, value) for (key, _), value in zip(data.items, values, strict=True)))


CHANGES: tuple[Callable[[Any, random.Random], Any], ...] = (
    *(alike, alike, alike, another, another, wrapped, of_another_type, nearby, nearby, with_a_pair_more, turned),
)
