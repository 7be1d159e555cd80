"""A Device that counts: calls, node evaluations, and the time during which the device had work.

With a streaming device the host works meanwhile, so busy time and host time may add up to more than the wall time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from hil.device import ArraySpec, Chip, Device, Streaming
from hil.wrappers import Wrapper


@runtime_checkable
class Wrapping(Protocol):
    """A device that leaves another one as it is, and only looks on."""

    @property
    def inner(self) -> Device: ...


Allow = Callable[[int], None]


def freely(passes: int) -> None:
    """No budget."""


@dataclass
class Count:
    """calls: shots asked for. passes: node evaluations (values sent). busy_s: time with at least one call in progress.
    faults: those that the device recovered from."""

    calls: int = 0
    passes: int = 0
    busy_s: float = 0.0
    faults: int = 0


class Metered(Wrapper):
    """Counts what goes through `inner`. watch: shown every (drive, answer), for a look that is not counted in `count`.

    allow: asked before every shot, with its node evaluations; raises BudgetSpent if it may not have them.
    """

    def __init__(self, inner: Device, allow: Allow = freely) -> None:
        super().__init__(inner)
        self._allow, self._recovered = allow, self.recovered
        self.count = Count()
        self.watch: Callable[[Tensor, Tensor], None] | None = None

    @property
    def inner(self) -> Device:
        """What is counted; of a recorded device, what is recorded."""
        return self._inner.inner if isinstance(self._inner, Wrapping) else self._inner

    def program(self, params: Tensor) -> None:
        self._inner.program(params)
        self._count_faults()

    def reset(self) -> None:
        self._inner.reset()
        self._count_faults()

    def _count_faults(self) -> None:
        now = self.recovered
        self.count.faults += now - self._recovered
        self._recovered = now

    def forward(self, x: Tensor) -> Tensor:
        self._allow(x.numel())
        begin = time.perf_counter()
        try:
            answer = self._inner.forward(x)
        finally:
            self._count_faults()
        self.count.busy_s += time.perf_counter() - begin
        self.count.calls += 1
        self.count.passes += x.numel()
        if self.watch is not None:
            self.watch(x, answer)
        return answer


class MeteredStream(Metered):
    """The same around a Streaming device."""

    def __init__(self, inner: Streaming, allow: Allow = freely) -> None:
        super().__init__(inner, allow)
        self._stream = inner
        self._lock = threading.Lock()
        self._idle_since = 0.0

    def submit(self, x: Tensor) -> Future[Tensor]:
        self._allow(x.numel())
        begin = time.perf_counter()
        answer = self._stream.submit(x)
        answer.add_done_callback(lambda done: self._finished(begin, x, done))
        return answer

    def _finished(self, begin: float, x: Tensor, done: Future[Tensor]) -> None:
        now = time.perf_counter()
        with self._lock:  # answers come in order, so busy time is what lies after the previous answer
            self.count.busy_s += now - max(begin, self._idle_since)
            self._idle_since = now
            self._count_faults()
            self.count.calls += 1
            self.count.passes += x.numel()
            if self.watch is not None and not done.cancelled() and done.exception() is None:
                self.watch(x, done.result())


def metered(device: Device, allow: Allow = freely) -> Metered:
    """`device`, counted; still Streaming if it was."""
    return MeteredStream(device, allow) if isinstance(device, Streaming) else Metered(device, allow)


class MeteredChip:
    """A Chip whose arrays are all counted. devices: those cut so far, in order."""

    def __init__(self, inner: Chip, allow: Allow = freely) -> None:
        self._inner, self._allow = inner, allow
        self.devices: list[Metered] = []

    def array(self, spec: ArraySpec) -> Metered:
        self.devices.append(metered(self._inner.array(spec), self._allow))
        return self.devices[-1]

    def close(self) -> None:
        self._inner.close()
