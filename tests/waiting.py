"""How tests wait for what another thread or process does: for the thing itself, and far longer than it ever takes."""

import os
import time
from collections.abc import Callable

# A machine that is slow or busy takes longer for everything.
UNIT = float(os.environ.get("MEKT_TEST_TIME_UNIT", "1"))
WAIT_S = 120.0 * UNIT


def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing announces."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "this did not happen in time"
        time.sleep(0.01)
