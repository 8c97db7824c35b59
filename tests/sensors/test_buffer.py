"""The sample buffer against a plain list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensors.buffer import SampleBuffer

STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 40)),
    st.tuples(st.just("forget_before"), st.integers(-3, 60)),
    st.tuples(st.just("keep_newest"), st.integers(0, 60)),
)


def fill(buffer: SampleBuffer, first: int, count: int) -> None:
    t_s = np.arange(first, first + count, dtype=np.float64)
    buffer.append(t_s, np.repeat(t_s[:, None], 2, axis=1).astype(np.float32))


@given(st.lists(STEPS, max_size=30))
def test_a_buffer_holds_what_a_list_would(steps: list[tuple[str, int]]) -> None:
    buffer, model, appended = SampleBuffer((2,)), list[float](), 0
    for step, number in steps:
        if step == "append":
            fill(buffer, appended, number)
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
        assert buffer.values.tolist() == [[each, each] for each in model]
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
