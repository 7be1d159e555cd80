"""`python -m hil`, and the command `hil`: both find the same modules, and none of the folder that they are started in.

Ctrl-C is heard before the command line is imported, which takes a moment.
"""

from __future__ import annotations

from hil.own_packages import check, leave_working_directory

if __name__ == "__main__":
    leave_working_directory()  # before anything else is imported

import contextlib
import gc
import os
import select
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    from hil.errors import ConfigError

    try:
        check()
    except ConfigError as error:
        sys.exit(_refused(error))
    from hil.cli import main as command

    try:
        command()
    finally:
        gc.freeze()  # all of it ends with the process, which need not look through torch's objects before: 0.3 s of a processor


def _refused(error: Exception) -> int:
    """Tell why no command can run, and return the exit code."""
    with contextlib.suppress(OSError, ValueError):
        print(error, file=sys.stderr)
    return 2


def leave(number: int, frame: FrameType | None) -> None:
    """End here, whatever is being imported: nothing is open yet, or no longer."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:  # a stopped terminal must not hold what wants to end
            os.write(2, b"hil: stopped\n")
    os._exit(130)


if __name__ == "__main__":
    main()
