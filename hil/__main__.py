"""`python -m hil`, and the command `hil`: Ctrl-C is heard before the command line is imported, which takes a moment."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType


def main() -> None:
    """Run the command and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    from hil.cli import main as command

    command()


def leave(number: int, frame: FrameType | None) -> None:
    """Nothing is open yet, or no longer: end here, whatever is being imported."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:  # a stopped terminal must not hold what wants to end
            os.write(2, b"hil: stopped\n")
    os._exit(130)


if __name__ == "__main__":
    main()
