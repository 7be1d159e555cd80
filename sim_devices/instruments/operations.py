"""Pending operations: what ``*OPC?`` waits for.

An operation ends when it is told to (a trigger came) or at an instant of the injected clock (a record has been played). A
device clear ends every *wait*, not the operations.

Source: IEEE 488.2-1992, section 12.5 (overlapped commands, the no-operation-pending flag).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


class Cleared(Exception):
    """A device clear came while a command was waiting: the rest of its message is void."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`until_s`: the instant it ends by itself, or None. `at_end` runs then, and only then."""

    until_s: float | None = None
    at_end: Callable[[], None] | None = None


class Operations:
    """The operations that *OPC and *OPC? wait for.

    Args:
        lock: of the bench; it is released while waiting.
        clock: seconds, monotonic.
    """

    def __init__(self, lock: threading.Condition, clock: Callable[[], float]) -> None:
        self._lock, self._clock = lock, clock
        self._running: dict[str, Operation] = {}
        self._clears = 0

    def begin(self, key: str, *, after_s: float | None = None, at_end: Callable[[], None] | None = None) -> None:
        """Start, or start again, the operation `key`; with `after_s` it ends by itself."""
        self._running[key] = Operation(None if after_s is None else self._clock() + after_s, at_end)
        self._lock.notify_all()

    def end(self, key: str) -> None:
        """End the operation `key`, if it is running, and wake whoever waits."""
        self._running.pop(key, None)
        self._lock.notify_all()

    def end_all(self) -> None:
        """End all operations and wake whoever waits."""
        self._running.clear()
        self._lock.notify_all()

    def pending(self, key: str | None = None) -> bool:
        """True if the operation `key`, or any, is still running."""
        self._expire()
        return bool(self._running) if key is None else key in self._running

    def wait(self, key: str | None = None) -> None:
        """Wait until `key`, or everything, has ended.

        Raises:
            Cleared: a device clear came first.
        """
        clears = self._clears
        while self.pending(key):
            ends = [o.until_s for o in self._running.values() if o.until_s is not None]
            self._lock.wait(max(0.0, min(ends) - self._clock()) if ends else None)
            if self._clears != clears:
                raise Cleared

    def pause(self, seconds: float) -> None:
        """Let `seconds` pass, the lock released; other boxes go on meanwhile.

        Raises:
            Cleared: a device clear came first.
        """
        clears, until_s = self._clears, self._clock() + seconds
        while (left := until_s - self._clock()) > 0:
            self._lock.wait(left)
            if self._clears != clears:
                raise Cleared

    def clear(self) -> None:
        """End every wait."""
        self._clears += 1
        self._lock.notify_all()

    def _expire(self) -> None:
        now = self._clock()
        for key, operation in list(self._running.items()):
            if operation.until_s is not None and operation.until_s <= now:
                del self._running[key]
                if operation.at_end is not None:
                    operation.at_end()
