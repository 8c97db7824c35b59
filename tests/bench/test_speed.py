from bench.speed import Spread, measure, spread
from mekt.plan import Method
from tests.bench.small import METHOD, arena


def test_a_spread_by_hand() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(median=3.0, low=1.0, high=10.0)


def test_a_round_is_the_sum_of_its_parts() -> None:
    figures = measure(arena(duration_s=8.0, scored=30), "fedmekt-s", settings=Method(**METHOD), rounds=1)
    parts = ("announce", "local", "wire", "distil", "probe")
    assert set(figures.seconds) == {*parts, "round"} and figures.participants == 3
    assert abs(sum(figures.seconds[part].median for part in parts) - figures.seconds["round"].median) < 1e-9
    assert figures.windows_per_s.low > 0 and figures.cpu_s > 0 and figures.threads >= 1
