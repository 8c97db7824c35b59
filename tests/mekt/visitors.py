"""Who visits a broker in the tests: the doctor as somebody, and links that see what a visit does."""

import contextlib
import queue
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mekt.check import Check, Role
from mekt.link import Link
from mekt.login import BrokerSettings
from mekt.permits import check_permits
from mekt.visit import Guest
from tests.mekt.conftest import LIMIT_S

SECRET = "correct-horse-battery"


def guest(port: int, role: Role = "edge", **settings: Any) -> Guest:
    device = "" if role == "coordinator" else "pi-1"
    return Guest(role=role, settings=BrokerSettings(port=port, **settings), federation="ward", device=device)


def permits(port: int, role: Role = "edge", **settings: Any) -> list[Check]:
    return list(check_permits(guest(port, role, **settings), LIMIT_S))


@contextlib.contextmanager
def linked(port: int, name: str, *subscriptions: str, **settings: Any) -> Iterator[tuple[Link, "queue.Queue[Any]"]]:
    inbox: queue.Queue[Any] = queue.Queue()
    link = Link(
        settings=BrokerSettings(port=port, **settings), client_id=name, inbox=inbox, subscriptions=subscriptions
    )
    link.start()
    try:
        yield link, inbox
    finally:
        link.stop()


def password(folder: Path, *users: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Lines for a broker that lets these in with the secret, and the setting that goes with it."""
    file = folder / "users"
    file.touch(mode=0o600)
    for user in users:
        subprocess.run(["mosquitto_passwd", "-b", file, user, SECRET], check=True)
    (folder / "password").touch(mode=0o600)
    (folder / "password").write_text(SECRET + "\n")
    return ("allow_anonymous false", f"password_file {file}"), {"password_file": str(folder / "password")}
