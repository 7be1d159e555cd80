"""`python -m hil`, and the command `hil`: both find the same modules, and none of the folder that they are started in.

Ctrl-C is heard before the command line is imported, which takes a moment.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:  # before anything else is imported: a json.py there is not Python's
    begin, home = sys.path.pop(0), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.realpath(begin) == os.path.realpath(home) and home not in sys.path:
        sys.path.append(home)  # a checkout that is not installed

import contextlib
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
    """End here, whatever is being imported: nothing is open yet, or no longer."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:  # a stopped terminal must not hold what wants to end
            os.write(2, b"hil: stopped\n")
    os._exit(130)


if __name__ == "__main__":
    main()
