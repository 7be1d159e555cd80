"""Devices of one network that wait for each other: while one is in a call, the others are told that the program goes on.

Whoever guards a device makes it safe when nothing is heard of it for a while. A call of another device may take longer than
that: a shot, or a recovery that starts a process anew. So a thread beats for all of them meanwhile, and only then: a program
that hangs elsewhere is still noticed. Each such call has deadlines of its own, and is beaten for no longer than MOST_S.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from torch import Tensor

from hil.device import Device
from hil.errors import HilError
from hil.wrapper import Wrapper

EVERY_S = 0.25
MOST_S = 600.0  # the longest start of a host, with the patience of a recovery
Beat = Callable[[], None]


class Together:
    """Beats for devices while one of them is waited for. Use it with `with`.

    Args:
        most_s: how long one wait is beaten for.
    """

    def __init__(self, most_s: float = MOST_S) -> None:
        self._most_s = most_s
        self._beats: list[Beat] = []
        self._waits = threading.Event()
        self._until_s = 0.0
        self._ended = False
        self._thread = threading.Thread(target=self._beating, name="beating for the others", daemon=True)

    def add(self, beat: Beat) -> None:
        """Take another device's sign of life."""
        self._beats.append(beat)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Beat for all devices as long as the block lasts, which waits for one of them."""
        self._until_s = time.monotonic() + self._most_s
        self._waits.set()
        try:
            yield
        finally:
            self._waits.clear()

    def __enter__(self) -> Together:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._waits.set()
        self._thread.join()

    def _beating(self) -> None:
        while self._waits.wait() and not self._ended:
            time.sleep(EVERY_S)
            if self._waits.is_set() and time.monotonic() < self._until_s:
                for beat in self._beats:
                    with suppress(HilError):  # whoever uses the device is told
                        beat()


class Attended(Wrapper):
    """A Device during whose calls the others are beaten for.

    Args:
        inner: the device, with its recovery.
        together: all of them.
    """

    def __init__(self, inner: Device, together: Together) -> None:
        super().__init__(inner)
        self._together = together

    def program(self, params: Tensor) -> None:
        """Program the inner device."""
        with self._together.waiting():
            super().program(params)

    def held(self) -> Tensor:
        """Read back the inner device."""
        with self._together.waiting():
            return super().held()

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        """Write channels of the inner device once more."""
        with self._together.waiting():
            super().rewrite(params, which)

    def reset(self) -> None:
        """Reset the inner device."""
        with self._together.waiting():
            super().reset()

    def forward(self, x: Tensor) -> Tensor:
        """Ask the inner device."""
        with self._together.waiting():
            return super().forward(x)
