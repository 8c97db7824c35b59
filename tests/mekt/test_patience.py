"""How long the link waits: every answer from what has happened and a time that the test says."""

import random

import pytest

from mekt.patience import (
    BEHIND_S,
    FIRST_DELAY_S,
    LATER_LOGIN_S,
    LOGIN_PER_CONNECT,
    LOGIN_S,
    LONGEST_DELAY_S,
    STEADY_S,
    STRAYS,
    SUSPICIOUSLY_MANY,
    BackOff,
    Flood,
    Ping,
    login_patience_s,
)


def middle() -> float:
    """Draws the middle of every range."""
    return 0.5


def test_a_login_is_waited_for_longer_where_connecting_took_long() -> None:
    assert login_patience_s(0.0, is_first=True) == LOGIN_S < LATER_LOGIN_S == login_patience_s(0.0, is_first=False)
    assert login_patience_s(2.0, is_first=True) == LOGIN_S + 2 * LOGIN_PER_CONNECT


def test_attempts_come_twice_as_late_each_time_up_to_the_longest_delay() -> None:
    back_off = BackOff(middle)
    assert [back_off.next_delay_s() for _ in range(5)] == [0.5, 1.0, 2.0, LONGEST_DELAY_S, LONGEST_DELAY_S]


def test_a_delay_is_drawn_between_half_and_one_and_a_half_of_itself() -> None:
    back_off = BackOff(random.Random(0).random)
    for _ in range(3):
        back_off.next_delay_s()
    delays_s = [back_off.next_delay_s() for _ in range(1000)]
    assert 0.5 * LONGEST_DELAY_S <= min(delays_s) < 0.6 * LONGEST_DELAY_S
    assert 1.4 * LONGEST_DELAY_S < max(delays_s) <= 1.5 * LONGEST_DELAY_S


def test_everybody_tries_again_within_five_seconds_however_long_the_broker_is_away() -> None:
    assert 1.5 * LONGEST_DELAY_S < 5


def test_a_connection_that_lasted_is_followed_by_an_early_attempt_and_others_are_not() -> None:
    back_off = BackOff(middle)
    for _ in range(5):
        back_off.next_delay_s()
    back_off.accepted(100.0)
    assert not back_off.ended(100.0 + STEADY_S)
    assert back_off.next_delay_s() == LONGEST_DELAY_S
    back_off.accepted(200.0)
    assert not back_off.ended(200.1 + STEADY_S)
    assert back_off.next_delay_s() == FIRST_DELAY_S


def test_connections_that_end_within_seconds_are_suspicious_once_for_a_row() -> None:
    back_off = BackOff(middle)
    for _ in range(2):
        said = []
        for number in range(SUSPICIOUSLY_MANY + 2):
            assert not back_off.ended(number), "an attempt that no broker accepted is no connection"
            back_off.accepted(number)
            said.append(back_off.ended(number + 1))
        assert said == [False] * (SUSPICIOUSLY_MANY - 1) + [True, False, False]
        back_off.accepted(50.0)
        back_off.ended(50.1 + STEADY_S)


def test_what_ended_on_purpose_is_neither_suspicious_nor_waited_for() -> None:
    back_off = BackOff(middle)
    for number in range(2 * SUSPICIOUSLY_MANY):
        back_off.next_delay_s()
        back_off.accepted(number)
        back_off.begin_anew()
        assert not back_off.ended(number + 1)
    assert back_off.next_delay_s() == FIRST_DELAY_S / 2


def test_a_ping_is_on_its_way_while_bytes_are_acknowledged_within_a_keep_alive() -> None:
    ping = Ping()
    assert ping.is_on_its_way(100, 50.0, 2.0), "bytes that nobody has asked about before are news"
    assert ping.is_on_its_way(100, 51.9, 2.0)
    assert not ping.is_on_its_way(100, 52.0, 2.0)
    assert ping.is_on_its_way(101, 60.0, 2.0)
    assert not ping.is_on_its_way(101, 62.0, 2.0)


def flooded(now_s: float) -> Flood:
    """A flood that has just been asked about."""
    flood = Flood()
    for _ in range(STRAYS):
        assert not flood.asks(now_s)
        flood.came()
    assert flood.asks(now_s)
    return flood


def test_a_question_is_asked_after_so_many_messages_and_not_twice() -> None:
    flood = flooded(0.0)
    for _ in range(3 * STRAYS):
        flood.came()
        assert not flood.asks(1.0)
    assert flood.count == 4 * STRAYS
    flood.answered()
    assert flood.asks(1.0), "as many have come since"


@pytest.mark.parametrize(("waited_s", "ahead"), [(0.0, False), (BEHIND_S, False), (BEHIND_S + 0.1, True)])
def test_a_flood_is_ahead_when_the_answer_does_not_come(waited_s: float, ahead: bool) -> None:
    assert flooded(100.0).is_ahead(100.0 + waited_s) is ahead


def test_an_answer_or_another_connection_ends_the_waiting() -> None:
    assert not Flood().is_ahead(1e9)
    answered, anew = flooded(0.0), flooded(0.0)
    answered.answered()
    anew.begin_anew()
    for flood in (answered, anew):
        assert not flood.is_ahead(1e9) and not flood.asks(1e9)
        for _ in range(STRAYS):
            flood.came()
        assert flood.asks(1e9)
