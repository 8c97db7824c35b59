"""Recent windows: few, of every class that there was, and no more memory than is allowed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.updates.recent import Recent
from sensors.source import Floats


def window(value: float, length: int = 4) -> dict[str, Floats]:
    return {"acc": np.full((length, 3), value, dtype=np.float32)}


def values(recent: Recent) -> list[float]:
    return [float(each) for group in recent.groups() for each in group["acc"][:, 0, 0]]


def test_the_newest_are_kept() -> None:
    recent = Recent(3)
    for value in range(7):
        recent.add(window(value), "walk")
    assert values(recent) == [4, 5, 6] and len(recent) == 3


def test_a_long_time_of_one_class_does_not_drive_out_the_others() -> None:
    recent = Recent(6)
    for value, label in enumerate(["walk", "walk", "stand", *["sit"] * 100]):
        recent.add(window(value), label)
    assert values(recent) == [0, 1, 2, 100, 101, 102]
    assert recent.classes == 1
    recent.add(window(200), "walk")
    assert recent.classes == 1, "two of each are too few"


def test_windows_of_the_same_sensors_and_lengths_lie_side_by_side() -> None:
    recent = Recent()
    both = {**window(1), "gyro": np.ones((4, 3), dtype=np.float32)}
    for each in (window(1), both, window(2), window(3, length=5)):
        recent.add(each, "walk")
    assert [{name: array.shape for name, array in group.items()} for group in recent.groups()] == [
        {"acc": (2, 4, 3)},
        {"acc": (1, 4, 3), "gyro": (1, 4, 3)},
        {"acc": (1, 5, 3)},
    ]


def test_what_is_kept_is_a_copy() -> None:
    recent, given = Recent(), window(1)
    recent.add(given, "walk")
    given["acc"][:] = 9
    assert values(recent) == [1]


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from("abc")), max_size=60))
def test_memory_is_bounded_whatever_comes(lengths: list[tuple[int, str]]) -> None:
    recent = Recent(10, 1000)
    for length, label in lengths:
        recent.add(window(0, length), label)
        held = sum(array.nbytes for group in recent.groups() for array in group.values())
        assert held <= 1000 and len(recent) <= 10
    assert len(recent) > 0 or not lengths
