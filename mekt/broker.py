"""A broker of one's own on loopback, for the demo and the tests: mosquitto where it is, else amqtt. Never ours."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from mekt import catalogue
from mekt.errors import LinkError, MissingPackageError
from mekt.files import make_folder, write_atomically
from mekt.leash import leashed

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
LARGEST_PACKET_BYTES = 256 * 1024
Kind = Literal["mosquitto", "amqtt"]


class Broker:
    """A broker process on 127.0.0.1. `folder` holds its configuration and log and, with `persistent`, its memory.

    `more` are further lines for mosquitto's configuration: passwords, certificates, other limits. On Linux it does not
    outlive this process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        persistent: bool = False,
        kind: Kind | None = None,
        more: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.kind: Kind = kind or available_kind()
        self._persistent = persistent
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        assert self._process is not None, "the broker has not been started"
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            LinkError: when the port is in use or the broker ends at once.
            MissingPackageError: when this machine does not have the broker that was asked for.
        """
        assert self._process is None, "the broker runs already"
        command = self._command()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise LinkError(
                    f"port {self.port} is in use; choose another with --port or end its owner", catalogue.PORT_IN_USE
                ) from error
        log_path = self.folder / "broker.log"
        with log_path.open("ab") as log_file:
            self._process = subprocess.Popen(
                leashed(command), stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True
            )
        try:
            self._wait(self._process, log_path)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the process in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a power cut would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        """Until the process answers. That it lives is looked at last: on its port, another one may answer."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            with socket.socket() as probe:
                probe.settimeout(0.5)
                answers = probe.connect_ex(("127.0.0.1", self.port)) == 0
            if process.poll() is not None:
                raise LinkError(
                    f"{self.kind} ended at once (code {process.returncode}); its reason is in {log_path}",
                    catalogue.BROKER_ENDED,
                )
            if answers:
                return
            time.sleep(0.02)
        raise LinkError(
            f"{self.kind} does not answer on port {self.port}; its log is {log_path}", catalogue.BROKER_ENDED
        )

    def _command(self) -> list[str]:
        make_folder(self.folder)
        if self.kind == "mosquitto":
            program = _mosquitto()
            if program is None:
                raise MissingPackageError(
                    "mosquitto is not here; `apt-get install mosquitto`", catalogue.NO_BROKER_PROGRAM
                )
            config = self.folder / "mosquitto.conf"
            write_atomically(config, self._mosquitto_config().encode())
            return [str(program), "-c", str(config)]
        if importlib.util.find_spec("amqtt") is None:
            raise MissingPackageError(
                'amqtt is not here; `pip install -c constraints.txt -e ".[broker]"`', catalogue.NO_BROKER_PROGRAM
            )
        config = self.folder / "amqtt.yaml"
        text = (
            f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{self.port}\n"
            "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n    allow_anonymous: true\n"
        )
        write_atomically(config, text.encode())
        return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)]

    def _mosquitto_config(self) -> str:
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "set_tcp_nodelay true",
            f"max_packet_size {LARGEST_PACKET_BYTES}",
            "max_inflight_messages 100",
            "max_queued_messages 10000",
            "log_type error",
            "log_type warning",
            "log_type notice",
            f"persistence {'true' if self._persistent else 'false'}",
        ]
        if self._persistent:
            lines += [f"persistence_location {self.folder.resolve()}/", "autosave_interval 1"]
            lines += ["autosave_on_changes true"]
        if os.geteuid() == 0:
            # As another user, which it becomes otherwise, it could neither read nor write this folder.
            lines += ["user root"]
        return "\n".join([*lines, *self._more]) + "\n"


def available_kind() -> Kind:
    """Which broker this machine has.

    Raises:
        MissingPackageError: when it has none.
    """
    if _mosquitto() is not None:
        return "mosquitto"
    if importlib.util.find_spec("amqtt") is not None:
        return "amqtt"
    raise MissingPackageError(
        "no MQTT broker here; `apt-get install mosquitto`, or "
        '`pip install -c constraints.txt -e ".[broker]"` for amqtt',
        catalogue.NO_BROKER_PROGRAM,
    )


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _mosquitto() -> Path | None:
    """Debian keeps the broker in /usr/sbin, which is not on every user's path."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=PLACES)
    return Path(found) if found else None
