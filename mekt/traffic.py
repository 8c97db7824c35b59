"""Bytes that crossed TCP connections, as the kernel counted them: MQTT and TLS included, TCP headers not."""

import socket
import struct
import threading
from dataclasses import dataclass

# Fields of Linux' struct tcp_info (linux/tcp.h): bytes acknowledged by the peer, bytes received.
TCP_INFO_BYTES = struct.Struct("=QQ")
TCP_INFO_OFFSET = 120
TCP_INFO_SIZE = 136


@dataclass(frozen=True, kw_only=True, slots=True)
class WireBytes:
    """Bytes in each direction, seen from this side."""

    up: int = 0
    down: int = 0

    def __add__(self, other: "WireBytes") -> "WireBytes":
        return WireBytes(up=self.up + other.up, down=self.down + other.down)


class Traffic:
    """What crossed one connection after the other. Any thread may ask."""

    def __init__(self) -> None:
        self._before = WireBytes()
        self._open: socket.socket | None = None
        self._lock = threading.Lock()

    def opened(self, connection: socket.socket) -> None:
        """Count on this connection from now on."""
        with self._lock:
            self._open = connection

    def closing(self, connection: socket.socket) -> None:
        """Take the last count of a connection that is about to be closed; another one than the open one is no news."""
        with self._lock:
            if connection is self._open:
                self._before += _counted(connection)
                self._open = None

    def total(self) -> WireBytes:
        """All so far."""
        with self._lock:
            return self._before if self._open is None else self._before + _counted(self._open)


def _counted(connection: socket.socket) -> WireBytes:
    """What the kernel counted on this connection; zeros where it does not count (not Linux)."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        up, down = TCP_INFO_BYTES.unpack_from(info, TCP_INFO_OFFSET)
    except (AttributeError, OSError, struct.error, ValueError):
        return WireBytes()
    # The kernel counts the SYN that opened the connection as a byte that was acknowledged.
    return WireBytes(up=max(0, up - 1), down=down)
