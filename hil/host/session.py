"""The session of a host with one trainer at a time: who it is, when it was last heard, and why it is over.

free  --Describe-->  held by a token  --silence, end of Health, end of the trainer-->  over  --outputs made safe-->  free
"""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hil import system
from hil.errors import HilError, RunError
from hil.host.faults import error_of, table_of


class Session:
    """The state of it; its methods are called from any thread.

    Args:
        token: of the one trainer of a local host; "": whoever describes itself first holds the session.
        settle_s: how long a call waits for the outputs of a session that is over.
    """

    def __init__(self, token: str, settle_s: float) -> None:
        self._fixed, self._token, self._settle_s = bool(token), token, settle_s
        self._changed = threading.Condition()
        self._busy = 0
        self._heard_s = time.monotonic()
        self._lines = 0  # Health streams so far
        self._over = False
        self._last: HilError | None = None  # why the last session ended, and whose it was
        self._last_token = ""
        self._settled = True
        self.wake, woken = os.pipe()
        self._woken = system.Outlet(woken)
        self.gone = False  # the Health stream of the one who holds it has ended

    @property
    def held(self) -> bool:
        """True if a trainer has it."""
        return bool(self._token) and not self._over

    @property
    def token(self) -> str:
        """Token of the trainer that has it."""
        return self._token

    def silent_s(self) -> float:
        """Return how long nothing was heard, s; 0 while a call is under way, or nobody has the session."""
        with self._changed:
            return 0.0 if self._busy or not self.held else time.monotonic() - self._heard_s

    def forgive(self, seconds: float) -> None:
        """Leave out a time in which this process itself did not run: it does not count against the trainer."""
        with self._changed:
            self._heard_s += seconds

    @contextmanager
    def call(self, token: str, begins: bool = False) -> Iterator[None]:
        """A call of whoever has `token`.

        Args:
            token: as the call says.
            begins: it may begin a session.

        Raises:
            RunError: somebody else has the session. HilError: why this one is over.
        """
        with self._changed:
            self._enter(token, begins)
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._heard_s = time.monotonic()
                self._changed.notify_all()

    def _enter(self, token: str, begins: bool) -> None:
        self._changed.wait_for(lambda: self._settled, self._settle_s)
        if self._last is not None and same(token, self._last_token):
            raise error_of(table_of(self._last))
        if begins and not self._token and token and self._settled:
            self._token, self.gone = token, False
            self._heard_s = time.monotonic()
        if not self._token or not same(token, self._token):
            raise RunError(
                "another trainer has this device" if self._token else "the session has not begun", where="host",
                allowed="one trainer at a time", outputs="untouched",
                todo="wait for its end" if self._token else "call Describe first",
            )  # fmt: skip

    def beat(self) -> None:
        """The trainer makes progress."""
        with self._changed:
            self._heard_s = time.monotonic()

    def joined(self) -> int:
        """A Health stream begins; return its number."""
        with self._changed:
            self._lines += 1
            return self._lines

    def left(self, number: int) -> None:
        """A Health stream has ended; nothing follows from that if there is a newer one."""
        with self._changed:
            self.gone = number == self._lines and self.held
        with suppress(OSError):
            self._woken.put(b".")

    def end(self, why: HilError) -> None:
        """The session is over: every further call is refused with `why`, once `settle` says what the outputs do."""
        with self._changed:
            self._over, self._last, self._last_token, self._settled = True, why, self._token, False

    def settle(self, outputs: str, renew: Callable[[], None] | None = None) -> None:
        """Say what the outputs do after the end of the session; another trainer may begin one, if this host has many.

        Args:
            outputs: their state.
            renew: called when no call of the old session is left, before another one may begin.
        """
        with self._changed:
            if renew is not None and self._changed.wait_for(lambda: not self._busy, self._settle_s):
                renew()
            if self._last is not None:
                self._last.outputs = outputs
            self._settled, self.gone = True, False
            if not self._fixed:
                self._token, self._over = "", False
            self._changed.notify_all()


def same(one: str, other: str) -> bool:
    """Compare tokens in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())
