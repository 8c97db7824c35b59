"""How Linux IIO lays out one sample of several channels in its buffer, and the numbers in it.

After the kernel's Documentation/iio/iio_devbuf.rst ("Scan elements"), Documentation/ABI/testing/sysfs-bus-iio (`_type`)
and `iio_compute_scan_bytes` in drivers/iio/industrialio-buffer.c: elements stand in the order of their indices, each
aligned to its own length, the time stamp behind all others, and a sample is a multiple of its longest element.
Kernels before 5.5, and stable ones before 2020, left out that last padding (commit "iio: buffer: align the size of scan
bytes to size of the largest element"); with a time stamp, or elements of one length, there is none.

Shapes: n samples of s bytes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STAMP = "timestamp"
STORED_BITS = (8, 16, 32, 64)
FLOAT_BITS = (16, 32, 64)
MOST_REPEATS = 64
TYPE = re.compile(r"(be|le):([fsu])([0-9]{1,3})/([0-9]{1,3})(?:X([0-9]{1,3}))?(?:>>([0-9]{1,3}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanType:
    """A number in memory: `bits` of the `stored` bits, `shift` from the right; the others may hold anything.

    `sign` is "s" for two's complement, "u" for unsigned, "f" for IEEE 754. `repeat` such numbers are one element.

    Raises:
        ValueError: when no machine could store it so.
    """

    big: bool
    sign: str
    bits: int
    stored: int
    repeat: int = 1
    shift: int = 0

    def __post_init__(self) -> None:
        if self.stored not in STORED_BITS:
            raise ValueError(f"is stored in {self.stored} bits; expected one of {', '.join(map(str, STORED_BITS))}")
        if not 1 <= self.bits <= self.stored - self.shift:
            raise ValueError(f"has {self.bits} bits above {self.shift} others in a store of {self.stored}")
        if not 1 <= self.repeat <= MOST_REPEATS:
            raise ValueError(f"is repeated {self.repeat} times; expected 1 to {MOST_REPEATS}")
        if self.sign == "f" and (self.bits not in FLOAT_BITS or self.bits != self.stored):
            raise ValueError(f"is a floating-point number of {self.bits} bits in {self.stored}")

    @property
    def size_bytes(self) -> int:
        """What the element takes, and what it is aligned to."""
        return self.stored // 8 * self.repeat

    def numbers(self, span: NDArray[np.uint8]) -> NDArray[Any]:
        """The element's values (n, repeat) out of its bytes (n, size_bytes): int64, uint64 or float64."""
        order, width = ">" if self.big else "<", self.stored // 8
        whole = np.ascontiguousarray(span)
        if self.sign == "f":
            # A signalling not-a-number may complain when it becomes wider; what it is, it stays.
            with np.errstate(invalid="ignore"):
                return whole.view(f"{order}f{width}").astype(np.float64)
        words = whole.view(f"{order}u{width}").astype(np.uint64)
        values = (words >> np.uint64(self.shift)) & np.uint64((1 << self.bits) - 1)
        if self.sign == "u":
            return values
        # The upper half of the range stands for numbers below 0; differences wrap around as they must.
        top = np.uint64(1 << (self.bits - 1))
        return ((values ^ top) - top).view(np.int64)


def scan_type(text: str) -> ScanType:
    """What a `_type` file says, such as `le:s12/16>>4` or `be:u16/32X4>>0`.

    Raises:
        ValueError: when it says something else.
    """
    said = TYPE.fullmatch(text.strip())
    if said is None:
        raise ValueError(f"has type {text.strip()[:40]!r}; expected text like le:s12/16>>4")
    order, sign, bits, stored, repeat, shift = said.groups()
    return ScanType(
        big=order == "be",
        sign=sign,
        bits=int(bits),
        stored=int(stored),
        repeat=max(1, int(repeat or 1)),
        shift=int(shift or 0),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """One enabled channel: its name without `in_`, such as `accel_x`, and where it stands among the others."""

    name: str
    index: int
    type: ScanType


class Layout:
    """Where each of the enabled channels is in a sample of `size_bytes`."""

    def __init__(self, elements: Iterable[Element]) -> None:
        """The layout that the kernel computes.

        Raises:
            ValueError: when there is nothing in it, two stand at one place, or one has a length to which nothing is
                aligned.
        """
        ordered = sorted(elements, key=lambda each: (each.name == STAMP, each.index))
        if not ordered:
            raise ValueError("no channel is enabled")
        self._at: dict[str, tuple[int, ScanType]] = {}
        end, longest = 0, 1
        for before, each in zip([None, *ordered], ordered, strict=False):
            size = each.type.size_bytes
            if size & (size - 1):
                raise ValueError(f"{each.name} takes {size} bytes, to which nothing can be aligned")
            if each.name in self._at or (before is not None and before.index == each.index):
                raise ValueError(f"{each.name} stands at {each.index}, as another channel does")
            start = _aligned(end, size)
            self._at[each.name] = start, each.type
            end, longest = start + size, max(longest, size)
        self.size_bytes = _aligned(end, longest)

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def offset(self, name: str) -> int:
        """The byte of a sample at which this channel begins."""
        return self._at[name][0]

    def bits(self, name: str) -> int:
        """How many bits one of this channel's numbers has."""
        return self._at[name][1].bits

    def rows(self, data: bytes) -> NDArray[np.uint8]:
        """The whole samples (n, s) in `data`; a part of one at its end is left out."""
        count = len(data) // self.size_bytes
        return np.frombuffer(data, np.uint8, count * self.size_bytes).reshape(count, self.size_bytes)

    def column(self, rows: NDArray[np.uint8], name: str) -> NDArray[Any]:
        """One channel of the samples (n,); where it is repeated, the first of its numbers."""
        start, kind = self._at[name]
        return kind.numbers(rows[:, start : start + kind.size_bytes])[:, 0]


def _aligned(at: int, size: int) -> int:
    return -(-at // size) * size
