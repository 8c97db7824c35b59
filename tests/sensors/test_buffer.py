"""The sample buffer against a plain list."""

import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensors.buffer import SampleBuffer

STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 40)),
    st.tuples(st.just("forget_before"), st.integers(-3, 60)),
    st.tuples(st.just("keep_newest"), st.integers(0, 60)),
)


def fill(buffer: SampleBuffer, first: int, count: int, shape: tuple[int, ...] = (2,)) -> None:
    t_s = np.arange(first, first + count, dtype=np.float64)
    buffer.append(t_s, (t_s.reshape(-1, *[1] * len(shape)) * np.ones(shape)).astype(np.float32))


@given(st.sampled_from([(2,), (1, 2)]), st.lists(STEPS, max_size=30))
def test_a_buffer_holds_what_a_list_would(shape: tuple[int, ...], steps: list[tuple[str, int]]) -> None:
    buffer, model, appended = SampleBuffer(shape), list[float](), 0
    for step, number in steps:
        if step == "append":
            fill(buffer, appended, number, shape)
            model += [float(each) for each in range(appended, appended + number)]
            appended += number
        elif step == "forget_before":
            instant_s = appended - number + 0.5
            buffer.forget_before(instant_s)
            before = [each for each in model if each <= instant_s]
            model = before[-1:] + [each for each in model if each > instant_s]
        else:
            buffer.keep_newest(number)
            model = model[max(0, len(model) - number) :]
        assert buffer.t_s.tolist() == model
        assert [value.ravel().tolist() for value in buffer.values] == [[each, each] for each in model]
        assert len(buffer) == len(model)
        assert buffer.oldest_s == (model[0] if model else np.inf)
        assert buffer.newest_s == (model[-1] if model else -np.inf)


def test_the_one_sample_before_an_instant_is_kept_for_interpolation() -> None:
    buffer = SampleBuffer((2,))
    fill(buffer, 0, 10)
    buffer.forget_before(4.5)
    assert buffer.oldest_s == 4
    buffer.forget_before(5)
    assert buffer.oldest_s == 5


def test_a_frame_that_is_forgotten_is_held_by_nobody() -> None:
    buffer = SampleBuffer((1, 2))
    fill(buffer, 0, 5, (1, 2))
    frames = list(buffer.values)
    fill(buffer, 5, 100, (1, 2))
    buffer.keep_newest(101)
    # The list holds each of them, and so do the loop and the call.
    assert [sys.getrefcount(frame) for frame in frames] == [3] * 4 + [4]


def test_a_buffer_that_is_kept_short_does_not_grow() -> None:
    buffer, sizes = SampleBuffer((2,)), set()
    for first in range(0, 100_000, 100):
        fill(buffer, first, 100)
        buffer.keep_newest(250)
        base = buffer.values.base
        assert base is not None
        sizes.add(len(base))
    assert max(sizes) <= 4 * 350


def test_a_buffer_that_was_once_full_becomes_small_again() -> None:
    buffer = SampleBuffer((2,))
    fill(buffer, 0, 100_000)
    buffer.keep_newest(10)
    for first in range(100_000, 300_000, 100):
        fill(buffer, first, 100)
        buffer.keep_newest(10)
    base = buffer.values.base
    assert base is not None
    assert len(base) < 1000
