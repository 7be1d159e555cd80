"""Asking an instrument again and again until it is done, without asking all the time.

What is asked for takes about as long each time: for most of the shortest of the last few times nothing is asked, and the wire
and this computer are free. Where the first answer says that it is done, it may have been so for long: next time half is slept.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SHARE = 0.9  # of the shortest of the last times
KEPT = 5
SHORTEST_S, LONGEST_S = 1e-3, 0.2  # a shorter sleep gains nothing; after a longer one the guardian would miss a sign of life


class Poll:
    """Waits for the same thing, time after time.

    Args:
        clock: seconds from any origin; real ones, whatever clock deadlines are measured by.
        sleep: waits, s.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:  # fmt: skip
        self._clock, self._sleep = clock, sleep
        self._times_s: deque[float] = deque(maxlen=KEPT)

    def until(self, done: Callable[[], bool], late: Callable[[], bool]) -> bool:
        """Ask `done` until it is true, or until `late` is.

        Returns:
            True if it is done.
        """
        began = self._clock()
        rest_s = SHARE * min(self._times_s, default=0.0)
        slept_s = 0.0
        while rest_s - slept_s >= SHORTEST_S:
            self._sleep(nap_s := min(rest_s - slept_s, LONGEST_S))
            slept_s += nap_s
            if done():
                self._times_s.append(0.5 * slept_s)
                return True
        if not slept_s and done():
            self._times_s.append(0.0)
            return True
        while not late():
            if done():
                self._times_s.append(self._clock() - began)
                return True
        return False
