"""What secure aggregation takes, measured: sums are exact, bytes are those of the words and little more."""

import io
import json

import pytest

from bench import secure
from mekt.fixedpoint import COARSE, FixedPoint

pytest.importorskip("cryptography")


@pytest.mark.parametrize("fixed", [FixedPoint(), COARSE])
@pytest.mark.parametrize("silent", [0, 1])
def test_a_measured_round_is_exact_and_within_the_promised_precision(fixed: FixedPoint, silent: int) -> None:
    cost = secure.measure(4, silent, 1, fixed)
    assert cost.is_exact and 0 < cost.error <= fixed.precision + 1e-6
    assert cost.words_bytes == (1024 * 32 + 1) * fixed.bits // 8
    assert cost.other_up_bytes < 1000 and cost.other_down_bytes < 1000


def test_it_is_shown_as_a_table_and_as_json() -> None:
    text, data = io.StringIO(), io.StringIO()
    assert secure.show_secure(as_json=False, quick=True, out=text) == 0
    assert secure.show_secure(as_json=True, quick=True, out=data) == 0
    rounds = json.loads(data.getvalue())["rounds"]
    assert [(each["bits"], each["devices"], each["silent"]) for each in rounds] == [
        *((32, 3, 0), (32, 8, 0), (32, 8, 2)),
        *((16, 3, 0), (16, 8, 0), (16, 8, 2)),
    ]
    assert text.getvalue().count("\n| ") == 1 + len(rounds)
