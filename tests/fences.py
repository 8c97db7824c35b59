"""A broker as `mekt broker config` sets it up, at work for a test."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from coordinator.authority import Authority
from coordinator.fence import CONFIGURATION, PID, Fence
from mekt.broker import PLACES, Broker, free_port
from tests.waiting import until


class FencedBroker(Broker):
    """A mosquitto on the files that `mekt broker config` has written into its folder, which may be killed."""

    def _command(self) -> list[str]:
        program = shutil.which("mosquitto", path=os.pathsep.join([os.environ["PATH"], PLACES]))
        assert program is not None, "mosquitto is not here"
        return [program, "-c", str(self.folder / CONFIGURATION)]


@contextlib.contextmanager
def fenced_broker(folder: Path, authority: Authority, hosts: tuple[str, ...] = ("127.0.0.1",)) -> Iterator[int]:
    """The port of a mosquitto of this authority's, its files in `folder`; its certificate names `hosts`."""
    port = free_port()
    # Whoever runs the tests: another user could not read a folder of theirs.
    Fence(folder=folder, port=port, hosts=hosts, bind="127.0.0.1", user="root").write(authority)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["mosquitto", "-c", str(folder / CONFIGURATION)], stdout=log, stderr=log)
    try:
        until(lambda: (folder / PID).exists())
        yield port
    finally:
        process.terminate()
        assert process.wait() == 0, "the broker crashed"
