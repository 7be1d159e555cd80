"""How a run is asked to stop: the first Ctrl-C waits for the shot, the second does not. Others ask by hil/run/control.py.

first SIGINT, or SIGTERM     `asked` becomes the signal's name; the loop ends after the step, commits, makes safe
second SIGINT                KeyboardInterrupt here and now, once; the caller makes safe at once
any more, or while closing   nothing: outputs are being made safe, and nothing may come between
SIGHUP*                      the terminal was closed, or its connection was lost: `hung_up`, and the work goes on; a program
                             that is of no use without its terminal takes it for a SIGTERM

* on Windows SIGBREAK: Ctrl-Break, or the window is closed; the system ends the program a moment later, so it is a SIGTERM there

A signal that was ignored before (nohup, a job in the background of a script) stays ignored. Python lets the main thread alone
install handlers, so nothing is installed in any other, and a run there cannot be asked to stop by a signal.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from hil.system import HANGUP, STOPS, send_to_main

BURST_S = 1.0
LOOK_S = 0.25


class Handling:
    """A context in which `caught` hears the signals `numbers`, where that is allowed; then the earlier handlers are back."""

    def __init__(self, numbers: Sequence[signal.Signals], caught: Callable[[int, FrameType | None], None]) -> None:
        self._numbers, self._caught = numbers, caught
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: of a program that embeds Python
                    self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def raise_in_main(self, number: signal.Signals) -> None:
        """Have the handler called in the main thread, from any thread; nothing happens where it was not installed."""
        if number in self._before:
            send_to_main(number)


class Stopping:
    """A context that catches the signals for a run, and takes what other processes ask.

    asked: by what or by whom it is to end after the step, or "". pausing: who asked to pause then, or "".
    hung_up: the terminal is gone.

    Args:
        attended: of no use without its terminal: SIGHUP asks it to stop.
    """

    def __init__(self, attended: bool = False) -> None:
        self.asked = self.pausing = self.at_once = ""
        self.hung_up = False
        self._attended = attended
        self._changed = threading.Event()
        self._cut = False
        self._handling = Handling(STOPS, self._caught)

    def __enter__(self) -> Stopping:
        self._handling.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._handling.__exit__(kind, error, trace)

    @property
    def due(self) -> bool:
        """The loop is to be left after the step, for good or for a pause."""
        return bool(self.asked or self.pausing)

    def asks(self, what: str, by: str) -> None:
        """Take what another process asks; any thread may call.

        Args:
            what: "stop", "off", "pause", "resume"; any other word asks nothing.
            by: who asks.
        """
        if what in ("pause", "resume"):
            self.pausing = by if what == "pause" else ""
        elif what in ("stop", "off"):
            self.asked = self.asked or by
        if what == "off":
            self.at_once = by
            self._handling.raise_in_main(signal.SIGINT)
        self._changed.set()

    def wait(self) -> None:
        """Wait while a pause is asked for, and no end."""
        while self.pausing and not self.asked:
            self._changed.wait(LOOK_S)  # a signal alone does not set it
            self._changed.clear()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """The innermost context of a run: when it is left, what was opened is closed, and no signal comes between."""
        try:
            yield
        finally:
            self._cut = True

    def again(self) -> None:
        """What was closed for a pause is opened again: from here on a second Ctrl-C is obeyed."""
        self._cut = False

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP and not self._attended:
            self.hung_up = True
            return
        if self.asked and number == signal.SIGINT and not self._cut:
            self._cut = True
            raise KeyboardInterrupt(*([self.at_once] if self.at_once else []))
        self.asked = self.asked or signal.Signals(number).name


class Interrupts:
    """A context for a whole command: outside of a Stopping, SIGINT is a KeyboardInterrupt; a burst of them is one.

    heard: whether there was one. deaf: set when the command is over and only says so; there is none any more.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.heard = self.deaf = False
        self._clock, self._last = clock, -BURST_S
        self._handling = Handling((signal.SIGINT,), self._caught)

    def __enter__(self) -> Interrupts:
        self._handling.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._handling.__exit__(kind, error, trace)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        now = self._clock()
        burst, self._last = now - self._last < BURST_S, now
        if not self.deaf and not burst:
            raise KeyboardInterrupt
