"""The host's end of its worker: asked with a deadline, killed. hil/host/starter.py starts its process."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from hil.errors import Desync, Disconnected, HilError, LinkTimeout
from hil.host.faults import error_of
from hil.host.frames import Bytes, Wire
from hil.host.starter import END_S, Child
from hil.plain import plain
from hil.telling import Teller

LAST_LINES, MOST_LETTERS = 64, 200
CRASH, INNERMOST = "Fatal Python error", "Current thread"  # words of faulthandler
NOT_KNOWN = "not known; they are made safe now"


class WorkerLost(Exception):
    """A worker is of no use any more. Args: error: what the trainer is told."""

    def __init__(self, error: HilError) -> None:
        super().__init__(error.what)
        self.error = error


class Worker:
    """A process that owns the device.

    Args:
        child: its process.
        voice: where what it prints is shown.
    """

    def __init__(self, child: Child, voice: Teller) -> None:
        self.pid, self._child, self._voice = child.pid, child, voice
        self._wire = Wire(child.end)
        self._number = 0
        self._closing, self._closed = threading.Lock(), False
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._printed = threading.Thread(target=self._hear, name="worker heard", daemon=True)
        self._printed.start()

    def call(self, do: str, within_s: float, body: Bytes = b"", **head: Any) -> tuple[dict[str, Any], memoryview]:
        """Send a request to the worker, and return head and body of the answer.

        Args:
            do: what, see hil/host/worker.py.
            within_s: how long it may take.
            body: bytes of an array.
            **head: JSON values.

        Raises:
            HilError: the device's.
            WorkerLost: with LinkTimeout, it takes longer; with Disconnected, the process ended; with Desync, another answer
                than the one that was due.
        """
        self._number += 1
        end_s = time.monotonic() + within_s
        try:
            self._wire.send({"call": self._number, "do": do, **head}, body, end_s)
            answer, data = self._wire.receive(end_s)
        except TimeoutError as error:
            raise WorkerLost(LinkTimeout(
                f"{do} takes too long", where="device", got=f"no answer within {within_s:g} s", outputs=NOT_KNOWN,
                todo="raise deadline_s if the device needs longer; else see what it waits for",
            )) from error  # fmt: skip
        except Desync as error:
            raise WorkerLost(error) from error
        except (OSError, Disconnected) as error:
            raise WorkerLost(Disconnected(
                f"the process of the device ended during {do}", where="device", got=self._last(), outputs=NOT_KNOWN,
                todo="see its last words: a library that crashes ends its process",
            )) from error  # fmt: skip
        if answer.get("call") != self._number:
            raise WorkerLost(Desync(
                "the answer belongs to another call", where="device", got=str(answer.get("call")), allowed=str(self._number),
                outputs=NOT_KNOWN,
            ))  # fmt: skip
        if "fault" in answer:
            raise error_of(answer["fault"])
        return answer, data

    def stop(self) -> None:
        """Kill the worker, from any thread."""
        with self._closing:
            if not self._closed:
                self._child.kill()

    def kill(self) -> bool:
        """End the process, and return whether it is gone. Nothing can be asked of it afterwards."""
        self.stop()
        gone = self.ended(END_S)
        if gone:
            self._child.status()
        with self._closing:
            self._closed = True
            self._wire.close()
            self._child.close()
        return gone

    def ended(self, within_s: float) -> bool:
        """True if the process ends within that time."""
        return self._child.ended(within_s)

    def _last(self) -> str:
        """Say how it ended, and its last words."""
        if not self.ended(END_S):
            return "it closed its socket, and still runs"
        status = self._child.status()
        self._printed.join(END_S / 4)
        how = "" if status is None else f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        return "; ".join(text for text in (how, " / ".join(last_words(list(self._lines)))) if text)

    def _hear(self) -> None:
        with io.TextIOWrapper(self._child.printed, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                self._lines.append(line.strip()[:MOST_LETTERS])
                self._voice.write(plain(line))


def last_words(lines: Sequence[str]) -> list[str]:
    """Find why a process ended in what it printed last: of a crash the innermost lines of Python, else the last line."""
    crashed = [number for number, line in enumerate(lines) if line.startswith(CRASH)]
    if not crashed:
        return [line for line in lines if line][-1:]
    after = lines[crashed[-1] :]
    inner = next((number for number, line in enumerate(after) if line.startswith(INNERMOST)), len(after))
    return [after[0], *after[inner + 1 : inner + 4]]
