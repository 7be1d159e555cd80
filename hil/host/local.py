"""A host of this computer, as the process that started it sees it: started, asked to end, killed.

Its stdout is shared by its worker, which outlives it for as long as the device is not safe. So its end of file says that nobody
has the device any more, and a line before that how a worker without a host left the outputs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hil import child, system
from hil.config.modules import folders
from hil.errors import Desync, OpenFailed
from hil.files import loads
from hil.host.charge import Charge, Limits, Recipe
from hil.host.faults import error_of
from hil.host.process import DONE, SAFE, UNKNOWN

MARGIN_S = 30.0  # of the start, over what the device itself may take: two processes, one of which imports torch
END_S = 5.0


class LocalHost:
    """A host process.

    Args:
        recipe, limits, unguarded: see hil.host.charge.Charge.
        log: file for what it did.
        keep: locks that it holds as long as it has the device: open files that it inherits, or paths that it locks.
    """

    def __init__(
        self, recipe: Recipe, limits: Limits, log: Path | None, unguarded: bool, keep: Sequence[int | Path] = ()
    ) -> None:
        self.use = recipe.use
        self._limits, self._keep = limits, tuple(file for file in keep if isinstance(file, int))
        self._charge = Charge(
            recipe, limits, [*child.search_path(), *folders(recipe.place)], None if log is None else str(log.resolve()),
            trainer=os.getpid(), unguarded=unguarded, locks=[str(path) for path in keep if isinstance(path, Path)],
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._words: system.Inlet | None = None
        self._said = b""
        self.port, self.token, self.lane = 0, "", 0

    @property
    def running(self) -> bool:
        """True if the process has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id; -1 without one."""
        return -1 if self._process is None else self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None: it runs, or never did."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it, and wait until the device is open.

        Raises:
            HilError: what the host says. OpenFailed: it says nothing, or an earlier one still has the device.
        """
        self._release()
        self._process = subprocess.Popen(
            child.command("hil.host"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(sys.executable).anchor,
            env=child.environment(), **system.apart(self._keep),  # Ctrl-C and the end of the terminal are for the trainer
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._words = system.Inlet(self._process.stdout.fileno())
        try:
            with suppress(BrokenPipeError):  # it ended; its status says so
                self._process.stdin.write(self._charge.to_json().encode() + b"\n")
                self._process.stdin.flush()
            answer = self._answer(time.monotonic() + self._limits.start_s + MARGIN_S)
            if "error" in answer:
                raise error_of(answer["error"])
            self.port, self.token, self.lane = int(answer["port"]), str(answer["token"]), int(answer["lane"])
        except BaseException:
            self.kill()
            raise

    def ended(self, within_s: float) -> bool:
        """True if it ends within that time."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return not self.running

    def end(self, within_s: float) -> int:
        """Let the host make the device safe, close it and end; return its exit status.

        One that was killed, or ended by an exception, leaves it to its worker: 0 if that said that they are safe, else 4.

        Args:
            within_s: how long that may take.
        """
        if self._process is None:
            return 0
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(DONE + b"\n")
            self._process.stdin.flush()
        if not self.ended(within_s):
            self.kill()
        status = self._process.poll()
        if status not in (0, SAFE, UNKNOWN):
            status = 0 if status is not None and self._left() == "safe" else UNKNOWN
        self._process = None
        return status

    def kill(self) -> None:
        """End it at once; its worker makes the outputs safe, and ends."""
        if self._process is not None:
            self._process.kill()
            self.ended(END_S)

    def _release(self) -> None:
        """Wait until nobody of an earlier host has the device.

        Raises:
            OpenFailed: its worker still has it. UnsafeOutputs: its worker could not make it safe.
        """
        if self._process is None:
            return
        left = self._left()
        if left == "held":
            raise OpenFailed(
                "the process of the device outlives its host, and still has the device", where=f"host of {self.use}",
                outputs="not known; it makes them safe when the device answers", todo="end that process",
            )  # fmt: skip
        self._process = None

    def _left(self) -> str:
        """Wait for the worker of a host that has ended: "safe", "unknown", "" (it said nothing), "held" (it runs)."""
        assert self._process is not None
        end_s = time.monotonic() + self._limits.deadline_s + 2 * self._limits.patience_s + END_S
        while self._more(end_s):
            pass
        if self._process.stdout is not None and not self._process.stdout.closed:
            return "held"
        told = [line for line in self._said.splitlines() if b'"outputs"' in line]
        self._said = b""
        found = loads(told[-1], "host", Desync) if told else {}
        return str(found.get("outputs", ""))

    def _more(self, end_s: float) -> bool:
        """Read on from its stdout; False: nothing more comes, and it is closed if that is so for good."""
        assert self._process is not None
        assert self._words is not None
        stdout, left_s = self._process.stdout, max(0.0, end_s - time.monotonic())
        if stdout is None or stdout.closed or not system.ready(self._words, None, None, left_s)[0]:
            return False
        try:
            piece = self._words.take()
        except BlockingIOError:  # it was taken before
            return True
        self._said += piece
        if not piece:
            stdout.close()
        return bool(piece)

    def _answer(self, end_s: float) -> dict[str, Any]:
        while b"\n" not in self._said:
            if not self._more(end_s):
                ended = self.ended(END_S) if time.monotonic() < end_s else False
                raise OpenFailed(
                    "the host does not begin", where=f"host of {self.use}",
                    got=f"status {self.status}" if ended else "no answer in time", todo="see what it said on stderr",
                )  # fmt: skip
        line, _, self._said = self._said.partition(b"\n")
        answer = loads(line, "host", Desync)
        if not isinstance(answer, dict):
            raise Desync("not an answer", where=f"host of {self.use}", got=repr(line[:80]))
        return answer
