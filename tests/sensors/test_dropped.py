"""What cannot be used is counted, and said once."""

import logging

import pytest

from sensors.dropped import LONGEST_DETAIL, MOST_CAUSES, Dropped


def test_each_cause_is_logged_once_and_counted_always(caplog: pytest.LogCaptureFixture) -> None:
    dropped = Dropped("port")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            dropped.note("no number", "x,y")
        dropped.note("too long", count=5)
        dropped.note("too long", count=2)
    assert dropped.counts == {"no number": 3, "too long": 7}
    assert [record.message for record in caplog.records] == [
        "port: dropped: no number (x,y); more of the kind are counted only",
        "port: dropped: too long; more of the kind are counted only",
    ]


def test_a_foreign_detail_stays_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Dropped("port").note("garbage", "a\nb\x1b[2J" + "c" * 10_000)
    [record] = caplog.records
    assert record.message.isprintable() and "a?b?[2J" in record.message
    assert len(record.message) < LONGEST_DETAIL + 100


def test_causes_without_end_do_not_fill_the_memory() -> None:
    dropped = Dropped("port")
    for number in range(10 * MOST_CAUSES):
        dropped.note(f"cause {number}")
    assert len(dropped.counts) == MOST_CAUSES + 1
    assert dropped.counts.total() == 10 * MOST_CAUSES
    assert dropped.counts["other causes"] == 9 * MOST_CAUSES
