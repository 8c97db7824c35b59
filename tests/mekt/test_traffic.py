"""What the kernel says that crossed a connection."""

import socket
from collections.abc import Iterator

import pytest

from mekt.traffic import Traffic, WireBytes

Pair = tuple[socket.socket, socket.socket]


def connected() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other


def exchange(pair: Pair, up: int, down: int) -> None:
    one, other = pair
    one.sendall(b"u" * up)
    received = 0
    while received < up:
        received += len(other.recv(65536))
    other.sendall(b"d" * down)
    received = 0
    while received < down:
        received += len(one.recv(65536))


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [connected() for _ in range(2)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


def test_bytes_of_one_connection_after_the_other_add_up(pairs: list[Pair]) -> None:
    traffic = Traffic()
    assert traffic.total() == WireBytes()
    for pair, (up, down) in zip(pairs, [(1000, 70_000), (300_000, 5)], strict=True):
        traffic.opened(pair[0])
        exchange(pair, up, down)
        traffic.closing(pair[0])
    assert traffic.total() == WireBytes(up=301_000, down=70_005)


def test_a_connection_that_is_not_the_open_one_is_no_news(pairs: list[Pair]) -> None:
    traffic = Traffic()
    traffic.opened(pairs[1][0])
    exchange(pairs[0], 10, 10)
    exchange(pairs[1], 20, 30)
    traffic.closing(pairs[0][0])
    assert traffic.total() == WireBytes(up=20, down=30)


def test_a_connection_that_is_closed_already_counts_nothing(pairs: list[Pair]) -> None:
    traffic = Traffic()
    traffic.opened(pairs[0][0])
    pairs[0][0].close()
    assert traffic.total() == WireBytes()
