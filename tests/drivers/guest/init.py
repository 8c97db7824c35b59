"""The guest's first and only program: mounts, loads modules, runs the checks, says how they ended, and powers off.

Everything it says goes to the second serial port, a line of JSON each; the first is the kernel's.
"""

import ctypes
import json
import os
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, NoReturn

MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"))
PORT = "/dev/ttyS1"
SYS_FINIT_MODULE = 313
RB_POWER_OFF = 0x4321FEDC

libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Never returns: the machine goes off."""
    try:
        for kind, target in MOUNTS:
            checked(libc.mount(kind.encode(), target.encode(), kind.encode(), 0, None), f"mount {target}")
        port = raw_port()
        plan = json.loads(Path("/plan.json").read_bytes())
        say(port, what="booted", kernel=os.uname().release, uptime_s=time.monotonic())
        for path, parameters in plan["modules"]:
            fd = os.open(path, os.O_RDONLY)
            checked(libc.syscall(SYS_FINIT_MODULE, fd, parameters.encode(), 0), f"load {path}")
            os.close(fd)
        say(port, what="loaded", modules=len(plan["modules"]), uptime_s=time.monotonic())
        command = [sys.executable, "-m", "pytest", *plan["arguments"]]
        environment = plan["environment"] | {"MEKT_PORT": PORT}
        try:
            code: int | str = subprocess.run(
                command, env=environment, cwd="/mekt", timeout=plan["patience_s"], check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"the checks had not ended after {plan['patience_s']} s"
        say(port, what="end", code=code, uptime_s=time.monotonic())
        termios.tcdrain(port)
    except BaseException as error:
        # Without a first program the kernel panics, and its console says why; the rig shows that.
        print(f"init: {type(error).__name__}: {error}", flush=True)
    finally:
        os.sync()
        libc.reboot(RB_POWER_OFF)
    raise SystemExit(1)


def raw_port() -> int:
    """The second serial port, which changes no byte on its way."""
    fd = os.open(PORT, os.O_RDWR | os.O_NOCTTY)
    mode = termios.tcgetattr(fd)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    return fd


def say(port: int, **line: Any) -> None:
    """One line for the rig."""
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(port, data) :]


def checked(result: int, what: str) -> None:
    """Raise OSError as errno has it when a call has failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
