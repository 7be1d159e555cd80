"""An experiment small enough for a test, and a `hil` command that runs beside the test."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping

MODULATOR = 'use = "mach_zehnder"\nv_pi = "3.5 V"'
FOLD = 'overflow = "fold"\nperiod = "7 V"'


def toml(
    examples: int | None = 96, widths: str = "64, 8, 10", device: str = MODULATOR, encode: str = FOLD, learner: str = "adfa",
    train: str = "epochs = 2\nbatch = 32\nthreads = 1",
) -> str:  # fmt: skip
    """The text of an experiment on digits; [train] is its last table, so that a test can add to it. examples: None is all."""
    data = "" if examples is None else f"[data]\ntrain_examples = {examples}\n"
    return (
        f'seed = 1\n{data}[network]\nwidths = [{widths}]\npieces = 1\n[device]\n{device}\n[encode]\n{encode}\n'
        f'[learner]\nuse = "{learner}"\n[train]\n{train}\n'
    )  # fmt: skip


class Command:
    """`hil` with these arguments in a fork of this process, which has imported everything, so that it begins at once.

    Args: environment: more of it, for the command and its children. first: called in the command before all else.
    """

    def __init__(
        self, *arguments: object, environment: Mapping[str, str] = {}, first: Callable[[], object] = lambda: None
    ) -> None:
        import hil.cli

        self._said = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as this
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            gc.freeze()  # or the first collection would copy all that this process shares with its parent
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                for number in (1, 2):
                    os.dup2(self._said.fileno(), number)
                sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115, for as long as it lives
                sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8") for number in (1, 2))  # noqa: SIM115
                os.environ.update(environment)
                first()
                code = hil.cli.run([str(argument) for argument in arguments])
            except BaseException:  # noqa: BLE001 (whatever it is: it is this process's end)
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        """As in subprocess.Popen."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send(self, number: signal.Signals) -> None:
        assert self.poll() is None
        os.kill(self.pid, number)

    def ended(self, within_s: float = 100.0) -> int:
        """Wait for its end: its exit code."""
        assert until(lambda: self.poll() is not None, within_s, every_s=0.02), self.said()
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self.send(signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def said(self) -> str:
        """What it wrote so far, to stdout and stderr."""
        file = self._said.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode()  # where the command writes is left as it is


def until(true: Callable[[], bool], within_s: float = 100.0, every_s: float = 0.005) -> bool:
    """Wait for it: whether it came true."""
    end = time.monotonic() + within_s
    while not (found := true()) and time.monotonic() < end:
        time.sleep(every_s)
    return found
