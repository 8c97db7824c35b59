"""The scan decoder against the kernel's words, against bytes by hand, and against a reader that takes bit after bit."""

import math
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.iio.scan import Element, Layout, ScanType, scan_type


def element(name: str, index: int, text: str) -> Element:
    return Element(name=name, index=index, type=scan_type(text))


def column(text: str, data: bytes) -> list[int]:
    layout = Layout([element("accel_x", 0, text)])
    return [int(each) for each in layout.column(layout.rows(data), "accel_x")]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("le:s12/16>>4", ScanType(big=False, sign="s", bits=12, stored=16, shift=4)),
        ("be:u16/32X4>>0\n", ScanType(big=True, sign="u", bits=16, stored=32, repeat=4)),
        ("le:s64/64>>0", ScanType(big=False, sign="s", bits=64, stored=64)),
        ("be:s20/32>>12", ScanType(big=True, sign="s", bits=20, stored=32, shift=12)),
        # What the documentation allows and the kernel does not write: no shift, repeated not at all.
        ("le:s16/16", ScanType(big=False, sign="s", bits=16, stored=16)),
        ("le:u8/8X0>>0", ScanType(big=False, sign="u", bits=8, stored=8)),
        ("le:f32/32>>0", ScanType(big=False, sign="f", bits=32, stored=32)),
    ],
)
def test_what_a_type_file_says(text: str, kind: ScanType) -> None:
    assert scan_type(text) == kind


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has type ''; expected text like le:s12/16>>4"),
        ("me:s12/16>>4", "has type 'me:s12/16>>4'; expected"),
        ("le:s12/16>>4 trailing", "expected text like"),
        ("le:s12/16>>-4", "expected text like"),
        ("le:s12/16>>9999", "expected text like"),
        ("le:s\N{FULLWIDTH DIGIT ONE}2/16>>4", "expected text like"),
        ("le:s12/24>>4", "is stored in 24 bits; expected one of 8, 16, 32, 64"),
        ("le:s16/16>>4", "has 16 bits above 4 others in a store of 16"),
        ("le:s0/16>>4", "has 0 bits above 4"),
        ("le:u8/8X65>>0", "is repeated 65 times"),
        ("le:f24/32>>0", "is a floating-point number of 24 bits in 32"),
    ],
)
def test_what_no_type_file_says(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        scan_type(text)
    assert problem in str(caught.value)


def test_the_bits_above_a_number_are_garbage_that_does_not_count() -> None:
    # A HID accelerometer's x came as -57409055 when all 32 bits were taken: 0xfc9401e1.
    assert column("le:s16/32>>0", struct.pack("<i", -57409055)) == [0x01E1]
    assert column("le:s16/32>>0", b"\xff\xff\x00\x00\x00\x80\x7f\x7f") == [-1, -32768]


def test_the_bits_below_a_number_are_shifted_out() -> None:
    # The LIS3DH's 12 bits stand at the top of 16; the ADXL355's 20 at the top of 32, big end first.
    assert column("le:s12/16>>4", b"\x0f\x80\xff\x7f\xf5\xff") == [-2048, 2047, -1]
    assert column("be:s20/32>>12", b"\x80\x00\x0a\xbc\x7f\xff\xff\xff") == [-524288, 524287]
    assert column("be:u12/16>>4", b"\xff\xff") == [4095]


def test_numbers_of_64_bits_keep_all_of_them() -> None:
    assert column("le:s64/64>>0", struct.pack("<2q", -(2**63), 2**63 - 1)) == [-(2**63), 2**63 - 1]
    assert column("be:u64/64>>0", struct.pack(">Q", 2**64 - 1)) == [2**64 - 1]


def test_the_time_stamp_begins_at_a_multiple_of_eight() -> None:
    layout = Layout(
        [element(f"accel_{axis}", n, "le:s16/16>>0") for n, axis in enumerate("xyz")]
        + [element("timestamp", 3, "le:s64/64>>0")]
    )
    assert [layout.offset(each) for each in ("accel_x", "accel_y", "accel_z", "timestamp")] == [0, 2, 4, 8]
    assert layout.size_bytes == 16
    rows = layout.rows(struct.pack("<3h2xq", 1, -2, 3, 4))
    assert layout.column(rows, "timestamp").tolist() == [4]
    assert layout.column(rows, "accel_y").tolist() == [-2]


def test_channels_stand_by_index_not_by_name_nor_as_they_are_listed() -> None:
    layout = Layout(
        [
            element("accel_x", 7, "le:s16/16>>0"),
            element("magn_z", 2, "le:s32/32>>0"),
            element("accel_y", 4, "le:u8/8>>0"),
        ]
    )
    assert [layout.offset(each) for each in ("magn_z", "accel_y", "accel_x")] == [0, 4, 6]
    assert layout.size_bytes == 8


def test_a_sample_is_padded_to_its_longest_element() -> None:
    # The mailing list's example of 2019-11-29: 32, 16 and 16 bits, of which one 16 is off.
    layout = Layout([element("accel_x", 0, "le:s32/32>>0"), element("accel_y", 1, "le:s16/16>>0")])
    assert layout.size_bytes == 8


def test_the_time_stamp_stands_last_whatever_its_index() -> None:
    layout = Layout([element("timestamp", 0, "le:s64/64>>0"), element("accel_x", 5, "le:s16/16>>0")])
    assert (layout.offset("accel_x"), layout.offset("timestamp"), layout.size_bytes) == (0, 8, 16)


def test_a_repeated_element_is_aligned_to_all_of_it_and_gives_its_first_number() -> None:
    layout = Layout([element("accel_x", 0, "le:s16/16>>0"), element("rot_quaternion", 1, "le:s32/32X4>>0")])
    assert (layout.offset("rot_quaternion"), layout.size_bytes) == (16, 32)
    assert layout.column(layout.rows(struct.pack("<h14x4i", 1, 5, 6, 7, 8)), "rot_quaternion").tolist() == [5]


@pytest.mark.parametrize(
    ("elements", "problem"),
    [
        ([], "no channel is enabled"),
        ([("a", 0, "le:s16/16>>0"), ("b", 0, "le:s16/16>>0")], "b stands at 0, as another channel does"),
        ([("a", 0, "le:s16/16>>0"), ("a", 1, "le:s16/16>>0")], "a stands at 1, as another channel does"),
        ([("a", 0, "le:f16/16X3>>0")], "a takes 6 bytes, to which nothing can be aligned"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(elements: list[tuple[str, int, str]], problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        Layout([element(*each) for each in elements])
    assert str(caught.value) == problem


def test_a_part_of_a_sample_is_no_row() -> None:
    layout = Layout([element("accel_x", 0, "le:s32/32>>0")])
    assert [len(layout.rows(bytes(count))) for count in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]
    assert layout.column(layout.rows(b""), "accel_x").tolist() == []


# Against a reader that knows nothing of words


@st.composite
def types(draw: st.DrawFn) -> ScanType:
    stored = draw(st.sampled_from([8, 16, 32, 64]))
    repeat = draw(st.sampled_from([1, 1, 1, 2, 4, 8]))
    big = draw(st.booleans())
    if stored > 8 and draw(st.integers(0, 9)) == 0:
        return ScanType(big=big, sign="f", bits=stored, stored=stored, repeat=repeat)
    shift = draw(st.integers(0, stored - 1))
    bits = draw(st.integers(1, stored - shift))
    return ScanType(big=big, sign=draw(st.sampled_from("su")), bits=bits, stored=stored, repeat=repeat, shift=shift)


def written(kind: ScanType) -> str:
    """As the kernel writes it (iio_show_fixed_type)."""
    times = f"X{kind.repeat}" if kind.repeat > 1 else ""
    return f"{'be' if kind.big else 'le'}:{kind.sign}{kind.bits}/{kind.stored}{times}>>{kind.shift}\n"


def bit_by_bit(kind: ScanType, data: Sequence[int]) -> float:
    """The first number in the element's bytes, put together from single bits."""
    stored = data[: kind.stored // 8]
    ordered = stored if kind.big else stored[::-1]
    bits = [(byte >> (7 - n)) & 1 for byte in ordered for n in range(8)]
    if kind.sign == "f":
        [number] = struct.unpack({16: ">e", 32: ">f", 64: ">d"}[kind.bits], bytes(ordered))
        return float(number)
    end = len(bits) - kind.shift
    wanted = bits[end - kind.bits : end]
    value = 0
    for place, bit in enumerate(reversed(wanted)):
        weight = 1 << place
        value += bit * (-weight if kind.sign == "s" and place == kind.bits - 1 else weight)
    return value


@given(types())
def test_a_type_is_read_as_the_kernel_writes_it(kind: ScanType) -> None:
    assert scan_type(written(kind)) == kind


@given(st.lists(types(), min_size=1, max_size=6), st.booleans(), st.data())
def test_any_bytes_mean_what_single_bits_say(kinds: list[ScanType], stamped: bool, data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, 40), min_size=len(kinds), max_size=len(kinds), unique=True))
    elements = [Element(name=f"c{n}", index=indices[n], type=kind) for n, kind in enumerate(kinds)]
    if stamped:
        elements.append(element("timestamp", 99, "le:s64/64>>0"))
    layout = Layout(data.draw(st.permutations(elements)))
    # Places by the kernel's rule, counted up byte by byte.
    at, places, longest = 0, {}, 1
    for each in sorted(elements, key=lambda one: one.index):
        size = each.type.stored // 8 * each.type.repeat
        while at % size:
            at += 1
        places[each.name] = at
        at, longest = at + size, max(longest, size)
    while at % longest:
        at += 1
    assert layout.size_bytes == at
    count = data.draw(st.integers(0, 3))
    raw = data.draw(st.binary(min_size=count * at, max_size=count * at + at - 1))
    rows = layout.rows(raw)
    assert len(rows) == count
    for each in elements:
        values = layout.column(rows, each.name)
        assert values.dtype in (np.int64, np.uint64, np.float64)
        for n, value in enumerate(values.tolist()):
            start = n * at + places[each.name]
            expected = bit_by_bit(each.type, raw[start : start + each.type.size_bytes])
            assert value == expected or (math.isnan(value) and math.isnan(expected))


@given(st.text(max_size=20) | st.from_regex(r"(le|be):[suf]\d{1,4}/\d{1,4}(X\d{1,4})?(>>\d{1,4})?", fullmatch=True))
def test_any_text_is_a_type_or_one_clear_refusal(text: str) -> None:
    try:
        kind = scan_type(text)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= kind.size_bytes <= 8 * 64
