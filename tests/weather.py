"""Bad weather between a client and its broker: a TCP proxy for the tests that delays, throttles, cuts and swallows.

What it does to a connection is what networks do: it comes late, a little at a time, it ends without a word, it stays
open while nothing gets through, nobody answers, or it is there twice. What it never does is damage or reorder bytes:
TCP does not let that happen. When connections are cut is drawn from the seed; all else is done when a test says so.
"""

import asyncio
import collections
import contextlib
import math
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
# On a slow link bytes leave in pieces of this size, and so much of them waits on it before its sender has to.
PIECE_BYTES = 512
BACKLOG_BYTES = 8 * 1024
START_S = 10.0


class Weather:
    """A way to the broker on `broker_port`: clients connect to `port` instead.

    `delay_s` is each way; `bytes_per_s` each way and shared by all connections; `cut_every_s` is the mean time from one
    cut of a connection to the next. All three may be set at any time. It works on a thread of its own.
    """

    def __init__(
        self,
        broker_port: int,
        *,
        seed: int = 0,
        delay_s: float = 0.0,
        bytes_per_s: float = math.inf,
        cut_every_s: float = math.inf,
    ) -> None:
        self.delay_s, self.bytes_per_s, self.cut_every_s = delay_s, bytes_per_s, cut_every_s
        self.port = 0
        # What has happened so far. Bytes count when they are handed on.
        self.up_bytes = self.down_bytes = 0
        self.connections = self.refused = self.cuts = self.swallowed_bytes = 0
        self._broker_port = broker_port
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._listener: asyncio.Server | None = None
        self._pairs: list[_Pair] = []
        self._partitioned = self._dark = False
        # When each way has sent all that it was given.
        self._free_at_s = {"up": 0.0, "down": 0.0}
        self._thread = threading.Thread(target=self._run, name="weather", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)
        self._loop.close()

    def cut(self) -> None:
        """End every connection now."""
        self._do(self._cut_all())

    def partition(self) -> None:
        """End every connection and take no new ones until `clear`."""
        self._partitioned = True
        self.cut()

    def stall(self, *, new_ones_too: bool = False) -> None:
        """From now on, what the connections that are there carry vanishes, and they stay open.

        With `new_ones_too` that goes for new ones as well, until `clear`: they open, and nobody answers.
        """
        self._dark = new_ones_too
        self._do(self._stall_all())

    def clear(self) -> None:
        """Let new connections through again. What a stalled one has swallowed is gone; it stays stalled."""
        self._partitioned = self._dark = False

    def double(self) -> int:
        """Log in once more as every client that is connected, with its own words; how many these are."""
        return self._do(self._double_all())

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(START_S)

    def _run(self) -> None:
        self._loop.run_forever()

    async def _open(self) -> None:
        door = socket.socket()
        # Else the kernel would take what a slow link does not carry yet, and acknowledge it.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BACKLOG_BYTES // 2)
        door.bind((HOST, 0))
        self.port = door.getsockname()[1]
        self._listener = await self._loop.create_server(lambda: _Pair(self).client, sock=door)
        self._cutter = self._loop.create_task(self._cut_now_and_then())

    async def _close(self) -> None:
        assert self._listener is not None, "it has not been opened"
        self._cutter.cancel()
        self._listener.close()
        await self._cut_all()
        # Transports close in the next turns of the loop.
        for _ in range(5):
            await asyncio.sleep(0)

    async def _cut_all(self) -> None:
        for pair in list(self._pairs):
            pair.cut()

    async def _stall_all(self) -> None:
        for pair in self._pairs:
            pair.stalled = True

    async def _double_all(self) -> int:
        doubled = [pair for pair in self._pairs if pair.login]
        for pair in doubled:
            ghost = _Pair(self)
            await ghost.reach_broker(pair.login)
        return len(doubled)

    async def _cut_now_and_then(self) -> None:
        while True:
            mean_s = self.cut_every_s
            if math.isinf(mean_s):
                await asyncio.sleep(0.1)
                continue
            await asyncio.sleep(self._rng.expovariate(1 / mean_s))
            if self._pairs:
                self._rng.choice(self._pairs).cut()

    def due(self, way: str, size_bytes: int) -> float:
        """When the other end gets so many bytes that are handed in now."""
        now_s = self._loop.time()
        self._free_at_s[way] = max(self._free_at_s[way], now_s) + size_bytes / self.bytes_per_s
        return self._free_at_s[way] + self.delay_s

    async def to_broker(self, end: "_End") -> None:
        """Connect `end` to the broker.

        Raises:
            OSError: when it is not there.
        """
        await self._loop.create_connection(lambda: end, HOST, self._broker_port)

    def began(self, pair: "_Pair") -> bool:
        """Whether a new connection may be."""
        if self._partitioned:
            self.refused += 1
            return False
        self.connections += 1
        self._pairs.append(pair)
        pair.stalled = self._dark
        return True

    def ended(self, pair: "_Pair") -> None:
        """Forget a connection whose both ends are closed."""
        with contextlib.suppress(ValueError):
            self._pairs.remove(pair)

    def later(self, at_s: float, call: Callable[[], None]) -> None:
        """Call at this time of the loop."""
        self._loop.call_at(at_s, call)

    def soon(self, what: Awaitable[None]) -> None:
        """Begin to do this."""
        task = asyncio.ensure_future(what, loop=self._loop)
        task.add_done_callback(lambda _: None)


class _Pair:
    """A client's connection to the proxy, and the proxy's to the broker for it."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self.client, self.broker = _End(self, "up"), _End(self, "down")
        self.stalled = False
        # The packet that the client logged in with.
        self.login = b""

    def other(self, end: "_End") -> "_End":
        return self.broker if end is self.client else self.client

    def cut(self) -> None:
        self.weather.cuts += 1
        self.client.abort()
        self.broker.abort()

    async def reach_broker(self, login: bytes = b"") -> None:
        if not self.weather.began(self):
            self.client.abort()
            return
        if login:
            # Nobody is at this connection's near end: what the broker says is lost.
            self.client.closed = True
        try:
            await self.weather.to_broker(self.broker)
        except OSError:
            self.cut()
            return
        if login:
            self.broker.write(login)
        else:
            self.client.resume()


class _End(asyncio.Protocol):
    """One end of a pair. What arrives here leaves at the other end when it is due."""

    def __init__(self, pair: _Pair, way: str) -> None:
        self._pair = pair
        self._way = way
        self._transport: asyncio.Transport | None = None
        self._on_its_way: collections.deque[bytes] = collections.deque()
        self._waiting_bytes = 0
        # What is to be sent before there is a connection: older Pythons read once from a transport that is paused.
        self._early: list[bytes] = []
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        for data in self._early:
            transport.write(data)
        self._early.clear()
        if self._pair.client is self:
            transport.pause_reading()
            self._pair.weather.soon(self._pair.reach_broker())

    def data_received(self, data: bytes) -> None:
        pair = self._pair
        if self is pair.client and not pair.login:
            pair.login = _first_packet(data)
        if pair.stalled:
            pair.weather.swallowed_bytes += len(data)
            return
        size = len(data) if math.isinf(pair.weather.bytes_per_s) else PIECE_BYTES
        for begin in range(0, len(data), size):
            piece = data[begin : begin + size]
            self._on_its_way.append(piece)
            self._waiting_bytes += len(piece)
            pair.weather.later(pair.weather.due(self._way, len(piece)), self._hand_on)
        if self._waiting_bytes > BACKLOG_BYTES and not math.isinf(pair.weather.bytes_per_s):
            assert self._transport is not None
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        pair, other = self._pair, self._pair.other(self)
        if not pair.stalled and not other.closed:
            # What is still on its way arrives before the end does.
            pair.weather.later(pair.weather.due(self._way, 0) + 0.01, other.close)
        if other.closed:
            pair.weather.ended(pair)

    def _hand_on(self) -> None:
        piece = self._on_its_way.popleft()
        self._waiting_bytes -= len(piece)
        pair = self._pair
        if pair.stalled:
            pair.weather.swallowed_bytes += len(piece)
            return
        if self._way == "up":
            pair.weather.up_bytes += len(piece)
        else:
            pair.weather.down_bytes += len(piece)
        pair.other(self).write(piece)
        if self._waiting_bytes <= BACKLOG_BYTES // 2 and self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self.closed:
            self._transport.write(data)

    def resume(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _first_packet(data: bytes) -> bytes:
    """The MQTT packet that `data` begins with; a login fits into the first piece that arrives."""
    length = shift = 0
    for index, byte in enumerate(data[1:5], start=1):
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return data[: index + 1 + length]
    return b""
