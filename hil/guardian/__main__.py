"""python -m hil.guardian: started by the trainer, see the package."""

from __future__ import annotations

import os
import signal

NAMES = (
    "SIGKILL", "SIGSTOP", "SIGCONT", "SIGCHLD",
    "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS",
)  # fmt: skip
KEPT = {getattr(signal, name) for name in NAMES if hasattr(signal, name)}  # not every system has all of them
"""What cannot be ignored, or tells of a fault of this process itself."""


def deaf() -> None:
    """Ignore every other signal: the trainer's end is what counts here, whatever a terminal, a timer or a batch system says."""
    for number in signal.valid_signals() - KEPT:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    deaf()  # before the slow imports
    from hil.guardian.process import main

    os._exit(main())  # all is on record; a thread that hangs in a link, a disk or a terminal must not keep this process
