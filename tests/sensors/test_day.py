"""Half an hour of a bad sensor: each sample that was delivered is accounted for. `make day` does so for a day."""

from pathlib import Path
from typing import Any

import pytest

from sensors.buffer import SampleBuffer
from sensors.source import Floats, Seconds
from tests.proofs.day import account
from tests.waiting import WAIT_S

HALF_AN_HOUR_S = 1800.0


@pytest.mark.parametrize("seed", [1, 2])
def test_not_one_sample_that_was_delivered_is_lost(seed: int, tmp_path: Path) -> None:
    done = account(HALF_AN_HOUR_S, seed, tmp_path, WAIT_S)
    assert done.wrong == []
    assert done.delivered == done.kept + done.unsound + done.early > 100_000
    assert done.windows > 1000 and done.unsound > 0 and done.early > 0 and len(done.faults) >= 6


def test_the_account_sees_one_sample_that_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = SampleBuffer.append
    appended = 0

    def careless(self: SampleBuffer, t_s: Seconds, values: Floats) -> None:
        nonlocal appended
        first, appended = appended, appended + len(t_s)
        if first < 5000 <= appended:
            t_s, values = t_s[1:], values[1:]
        real(self, t_s, values)

    monkeypatch.setattr(SampleBuffer, "append", careless)
    done = account(HALF_AN_HOUR_S / 6, 1, tmp_path, WAIT_S)
    assert len(done.wrong) >= 1 and "is not what was delivered" in done.wrong[0]
