"""Payloads as samples: at the places that the settings name, and nothing else whatever the bytes are."""

import json
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.dropped import MisfitError
from sensors.intake import MOST_SAMPLES, Samples
from sensors.payloads import LARGEST_PAYLOAD_BYTES, Form, samples_of, unpacked
from sensors.signals import Signal, TimeField

ACC = Signal(name="acc", fields=("imu.acc.x", "imu.acc.y"), rate_hz=50)
LIST = Signal(name="acc", fields=("acc.0", "acc.1", "acc.2"), rate_hz=50)
WHOLE = Signal(name="co2", fields=(".",), rate_hz=1)
T = TimeField(field="t", unit="ms")


def told(samples: Samples | None) -> tuple[list[list[float]], list[float] | None]:
    assert samples is not None
    return samples.values.tolist(), None if samples.times is None else samples.times.tolist()


def test_a_message_holds_one_sample_at_its_paths() -> None:
    data = {"imu": {"acc": {"x": 1, "y": -2.5, "z": "?"}}, "t": 1234}
    assert told(samples_of(data, ACC, T, None)) == ([[1, -2.5]], [1234])
    assert told(samples_of({"acc": [1, 2, 3]}, LIST, None, None)) == ([[1, 2, 3]], None)
    assert told(samples_of(417, WHOLE, None, None)) == ([[417]], None)


def test_numbers_in_quotes_are_numbers() -> None:
    assert told(samples_of({"acc": ["1", "-2e-3", " 3 "]}, LIST, None, None)) == ([[1, -0.002, 3]], None)


def test_short_msgpack_may_have_numbers_for_keys() -> None:
    data = unpacked(msgpack.packb({3: {0: 1.5, 1: 2}}), "msgpack")
    assert told(samples_of(data, Signal(name="acc", fields=("3.0", "3.1"), rate_hz=1), None, None)) == (
        [[1.5, 2]],
        None,
    )


def test_fields_that_are_lists_hold_a_sample_in_each_place() -> None:
    data = {"imu": {"acc": {"x": [1, 2, 3], "y": [4, 5, 6]}}, "t": [0, 20, 41]}
    assert told(samples_of(data, ACC, T, None)) == ([[1, 4], [2, 5], [3, 6]], [0, 20, 41])


def test_one_time_for_a_batch_is_spread_at_the_nominal_rate() -> None:
    data = {"imu": {"acc": {"x": [1, 2, 3], "y": [4, 5, 6]}}, "t": 100}
    assert told(samples_of(data, ACC, T, None))[1] == [60, 80, 100]


def test_records_are_messages_of_which_some_may_not_have_the_signal() -> None:
    data = {"log": [{"t": 1, "acc": [1, 2, 3]}, {"t": 2, "gyro": 0}, {"t": 3, "acc": [4, 5, 6]}]}
    assert told(samples_of(data, LIST, T, "log")) == ([[1, 2, 3], [4, 5, 6]], [1, 3])
    assert samples_of({"log": [{"gyro": 1}]}, LIST, T, "log") is None
    assert told(samples_of([{"acc": [1, 2, 3]}], LIST, None, ".")) == ([[1, 2, 3]], None)


def test_a_message_without_any_of_the_fields_is_none_of_the_signals() -> None:
    assert samples_of({"battery": 80}, ACC, T, None) is None
    assert samples_of([], LIST, T, None) is None
    assert samples_of(None, ACC, T, None) is None


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ({"acc": [1, 2]}, "acc: a field is missing"),
        ({"acc": [1, 2, None], "t": 1}, "acc: a field that is no number"),
        ({"acc": [1, 2, True], "t": 1}, "acc: a field that is no number"),
        ({"acc": [1, 2, "x"], "t": 1}, "acc: a field that is no number"),
        ({"acc": [1, 2, {}], "t": 1}, "acc: a field that is no number"),
        ({"acc": [1, 2, float("nan")], "t": 1}, "acc: a field that is no number"),
        ({"acc": [1, 2, 10**400], "t": 1}, "acc: a field that is no number"),
        ({"acc": [[1], 2, 3], "t": 1}, "acc: a list beside a number"),
        ({"acc": [[1], [2], [3, 4]], "t": 1}, "acc: lists of different lengths"),
        ({"acc": [[1], [2], [[3]]], "t": 1}, "acc: a field that is no number"),
        ({"acc": [1, 2, 3]}, "acc: the time is missing"),
        ({"acc": [1, 2, 3], "t": "noon"}, "acc: a field that is no number"),
        ({"acc": [[1, 2]] * 3, "t": [1]}, "acc: not one time for each sample"),
        ({"acc": [[0] * (MOST_SAMPLES + 1)] * 3, "t": 1}, "acc: too many samples"),
    ],
)
def test_what_does_not_fit_has_a_cause_of_few_words(data: Any, cause: str) -> None:
    with pytest.raises(MisfitError) as caught:
        samples_of(data, LIST, T, None)
    assert caught.value.cause == cause


@pytest.mark.parametrize("data", [{}, {"log": 5}, {"log": {"0": 1}}])
def test_records_that_are_no_list_do_not_fit(data: Any) -> None:
    with pytest.raises(MisfitError, match=r"^no list of records$"):
        samples_of(data, LIST, T, "log")


def test_records_are_bounded_as_samples_are() -> None:
    with pytest.raises(MisfitError, match=r"^too many records$"):
        samples_of([0] * (MOST_SAMPLES + 1), LIST, None, ".")
    half = {"acc": [[0] * (MOST_SAMPLES // 2 + 1)] * 3}
    with pytest.raises(MisfitError, match=r"^acc: too many samples$"):
        samples_of([half, half], LIST, None, ".")


def test_an_empty_batch_is_no_sample() -> None:
    values, times = told(samples_of({"acc": [[], [], []], "t": []}, LIST, T, None))
    assert (values, times) == ([], [])


@pytest.mark.parametrize(
    ("form", "raw"),
    [
        ("json", b""),
        ("json", b"{"),
        ("json", b"\xff"),
        ("json", b"[" * 100_000),
        ("json", b'{"a":' * 30_000),
        ("json", b"1 2"),
        ("msgpack", b""),
        ("msgpack", b"\xc1"),
        ("msgpack", b"\x91" * 100_000),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
        ("msgpack", b"\x81\x90\x01"),
        ("msgpack", msgpack.packb(msgpack.ExtType(5, b"x"))),
        ("msgpack", msgpack.packb(msgpack.Timestamp(1))),
        ("msgpack", b"\x01\x02"),
    ],
)
def test_what_is_not_of_its_form_does_not_fit(form: Form, raw: bytes) -> None:
    with pytest.raises(MisfitError, match=rf"^a payload that is no {form}$"):
        unpacked(raw, form)


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_payload_over_the_limit_is_not_looked_at(form: Form) -> None:
    with pytest.raises(MisfitError, match=r"^a payload over the limit$"):
        unpacked(b" " * (LARGEST_PAYLOAD_BYTES + 1), form)


def test_a_number_of_any_length_costs_nothing_much() -> None:
    assert unpacked(b"9" * 200_000, "json") == float("inf")


SIGNALS = (ACC, LIST, WHOLE)
PATHS = ("imu", "acc", "x", "y", "t", "log", "0", "1")
plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["1", "-2.5"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(PATHS), inner, max_size=4)),
    max_leaves=24,
)


def keeps_the_laws(data: Any) -> None:
    """Samples whose values and times are finite numbers, equally many; or none; or the one error."""
    for signal in SIGNALS:
        for time in (None, T):
            for records in (None, "log", "."):
                try:
                    samples = samples_of(data, signal, time, records)
                except MisfitError as misfit:
                    assert 0 < len(misfit.cause) < 80 and len(misfit.detail) < 200
                    continue
                if samples is not None:
                    assert samples.values.shape == (len(samples.values), len(signal.fields))
                    assert np.isfinite(samples.values).all()
                    assert (samples.times is None) == (time is None)
                    assert samples.times is None or samples.times.shape == (len(samples.values),)


@given(plain)
def test_whatever_a_message_says_it_is_samples_or_the_one_error(data: Any) -> None:
    keeps_the_laws(data)


@given(st.binary(max_size=200), st.sampled_from(["json", "msgpack"]))
def test_whatever_the_bytes_are_they_are_data_or_the_one_error(raw: bytes, form: Form) -> None:
    try:
        data = unpacked(raw, form)
    except MisfitError:
        return
    keeps_the_laws(data)


@given(st.sampled_from(["json", "msgpack"]), st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3))
def test_a_message_with_changed_bytes_is_samples_or_the_one_error(form: Form, at: int, cut: int, more: bytes) -> None:
    data = {
        "imu": {"acc": {"x": [1, 2.5], "y": [3, "4"]}},
        "acc": [1, 2, 3],
        "t": 5,
        "log": [{"acc": [1, 2, 3], "t": 9}],
    }
    raw: bytes = json.dumps(data).encode() if form == "json" else msgpack.packb(data)
    at %= len(raw)
    try:
        changed = unpacked(raw[:at] + more + raw[at + cut :], form)
    except MisfitError:
        return
    keeps_the_laws(changed)


@given(
    st.lists(st.tuples(st.floats(-1e37, 1e37), st.floats(-1e37, 1e37)), min_size=1, max_size=20),
    st.sampled_from(["json", "msgpack"]),
)
def test_what_was_sent_comes_out(rows: list[tuple[float, float]], form: Form) -> None:
    data = {"imu": {"acc": {"x": [row[0] for row in rows], "y": [row[1] for row in rows]}}}
    raw: bytes = json.dumps(data).encode() if form == "json" else msgpack.packb(data)
    assert told(samples_of(unpacked(raw, form), ACC, None, None)) == ([list(row) for row in rows], None)
