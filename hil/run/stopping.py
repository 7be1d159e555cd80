"""How a run is asked to stop: the first Ctrl-C waits for the shot, the second does not.

first SIGINT, or SIGTERM, SIGHUP     `asked` becomes the signal's name; the loop ends after the step, commits, makes safe
second SIGINT                        KeyboardInterrupt here and now; the caller makes safe at once
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Stopping:
    """A context that catches the signals; only the main thread may enter it."""

    def __init__(self) -> None:
        self.asked = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = self.asked or signal.Signals(number).name
