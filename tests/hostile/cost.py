"""What bytes cost the one who reads them: memory at its peak, and lines of Python, which no busy machine changes."""

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

from mekt.errors import WireError


def peak_bytes(decode: Callable[[bytes], Any], raw: bytes) -> int:
    """The most memory that reading `raw` takes beside `raw` itself."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        _read(decode, raw)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def lines(decode: Callable[[bytes], Any], raw: bytes) -> int:
    """How many lines of Python reading `raw` runs, those of Python's own library among them."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        _read(decode, raw)
    finally:
        sys.settrace(before)
    return count


def _read(decode: Callable[[bytes], Any], raw: bytes) -> None:
    try:
        decode(raw)
    except WireError:
        return
