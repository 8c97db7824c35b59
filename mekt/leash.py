"""A process that ends with whoever started it, however that one ends: on Linux, where the kernel sees to it.

    python mekt/leash.py PARENT COMMAND...   becomes COMMAND, and is killed as soon as the process PARENT is gone

The process asks for that itself before it becomes the command, which keeps its id: nothing of Python's runs between
`fork` and `exec` of a process that has threads. For nobody else's use: it imports nothing of Mekt.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

# From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str]) -> list[str]:
    """The command to start instead of this one, so that it does not outlive this process.

    The kernel takes the end of the thread that starts it for that of the process. So only the main thread leashes;
    elsewhere, and where there is no such kernel, the command stays what it is.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return [*command]
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(parent: str, *command: str) -> NoReturn:
    """Become the command, which dies with the parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        sys.exit(f"leash: {os.strerror(ctypes.get_errno())}")
    # It may have gone before it was asked for.
    if os.getppid() != int(parent):
        sys.exit("leash: whoever started this is gone")
    # Python ignores these, which the command would inherit.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
