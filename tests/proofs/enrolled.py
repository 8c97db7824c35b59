"""A federation as it is deployed, from nothing, by the commands that people give: authority, broker, certificates."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mekt.broker import free_port
from mekt.clock import DAY_S
from tests.federation import PATIENCE_S, Federation, federation
from tests.fences import FencedBroker

NAME = "ward"
AUTHORITY, BROKER, COORDINATOR, IDENTITY = "authority", "broker", "coordinator", "identity"
LOOK_S = 0.2


@dataclass
class Enrolled:
    """Its folder, in which commands are given; everybody's own is in it by name. The broker runs."""

    folder: Path
    port: int
    made: Federation

    @property
    def config(self) -> Path:
        """The coordinator's settings file."""
        return self.folder / COORDINATOR / "federation.toml"

    def token(self, name: str, host: str = "127.0.0.1") -> Path:
        """A token for this one, which sees the broker under the name `host`."""
        # What nobody else may read is a new file.
        said(self.folder, "enroll", "token", name, "--host", host, *_port(self.port), "--out", f"{name}.token")
        return self.folder / f"{name}.token"

    def enrol(self, name: str, *, wearable: bool = False) -> str:
        """Have this one join; how its settings file begins."""
        self.token(name)
        place = ("--identity", f"{name}/{IDENTITY}", "--token", f"{name}.token")
        begins = said(self.folder, "enroll", "join", *place, *(("--wearable",) if wearable else ()))
        return begins.replace(f"{name}/{IDENTITY}", IDENTITY)

    def until_finished(self) -> None:
        """Wait for the end of all rounds."""
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            ended = [name for name, process in self.made.processes.items() if process.poll() is not None]
            assert not ended, f"{ended} ended\n{self.made.last_lines()}"
            status: dict[str, Any] | None = json.loads(
                said(self.folder, "status", "--config", str(self.config), "--json")
            )["status"]
            if status is not None and status["phase"] == "finished":
                return
            time.sleep(LOOK_S)
        raise AssertionError(f"the rounds do not end\n{self.made.last_lines()}")

    def age(self, names: Sequence[str], days: float) -> None:
        """Let these certificates be older for the authority, as if so much time had passed since they were issued."""
        with closing(sqlite3.connect(self.folder / AUTHORITY / "authority.sqlite")) as db, db:
            for name in names:
                row = (days * DAY_S, days * DAY_S, name)
                db.execute("UPDATE certificate SET issued_s = issued_s - ?, ends_s = ends_s - ? WHERE name = ?", row)

    def certificates(self) -> dict[str, list[str]]:
        """Of everybody the states of all certificates, in the order of their issue."""
        rows: dict[str, list[str]] = {}
        for each in json.loads(said(self.folder, "device", "list", "--json")):
            rows.setdefault(each["name"], []).append(each["state"])
        return rows


def enrolled(
    folder: Path, recordings: Path, *, more: str = "", hosts: Sequence[str] = ("127.0.0.1",), **sizes: Any
) -> Enrolled:
    """A federation of which the coordinator and the broker have certificates; nobody has joined, nothing but the broker
    is started. `more` are lines at the end of the coordinator's settings, `hosts` the broker's names, `sizes`
    arguments of `tests.federation`.
    """
    port = free_port()
    said(folder, "ca", "init", "--federation", NAME)
    said(folder, "ca", "issue", "coordinator", "--out", "issued")
    # Whoever runs this: another user could not read a folder of theirs.
    names = [word for host in hosts for word in ("--host", host)]
    said(folder, "broker", "config", *names, *_port(port), "--user", "root")

    def login(name: str, _: int) -> str:
        identity = folder / ("issued" if name == COORDINATOR else f"{name}/{IDENTITY}")
        return (
            f'host = "127.0.0.1"\nport = {port}\n[broker.tls]\nca = "{identity}/ca.pem"\n'
            f'certificate = "{identity}/certificate.pem"\nkey = "{identity}/key.pem"\n[trust]\n'
            + (
                f'authority = "{folder}/{AUTHORITY}"\nbroker = "{folder}/{BROKER}"\n{more}'
                if name == COORDINATOR
                else f'coordinator = "{identity}/coordinator.pub"'
            )
        )

    broker = FencedBroker(folder / BROKER, port=port)
    return Enrolled(folder, port, federation(folder, recordings, broker_of=login, broker=broker, **sizes))


def said(folder: Path, *arguments: str) -> str:
    """What a command prints that is given in this folder."""
    command = [sys.executable, "-m", "mekt", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"mekt {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _port(port: int) -> tuple[str, str]:
    return "--port", str(port)
