"""A Device that counts: calls, node evaluations, and the time during which the device had work.

It is the seam to a device that may be anybody's: whatever the device raises becomes one of our errors here, and an answer that
is no measurement (not float32, of another shape, not finite, on another accelerator) is refused.

With a streaming device the host works meanwhile, so busy time and host time may add up to more than the wall time.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hil.device import ArraySpec, Chip, Device, Recovering, Spec, Streaming
from hil.devices.programming import Programming, Spent, Verify
from hil.errors import ContractError
from hil.foreign import MADE_SAFE, foreign
from hil.port import Limit
from hil.wrapper import Wrapper


@runtime_checkable
class Wrapping(Protocol):
    """A device that leaves another one as it is, and only looks on."""

    @property
    def inner(self) -> Device:
        """The device inside."""


Allow = Callable[[int], None]


def no_budget(passes: int) -> None:
    """Allow everything: there is no budget."""


VERIFIED = ("reads", "tries", "missed")  # of a Count
WRITES = ("programs", "writes", *VERIFIED)


@dataclass
class Count:
    """The use of a device so far.

    Args:
        calls: shots asked for.
        passes: node evaluations (values sent).
        busy_s: time with at least one call in progress.
        faults: those that the device recovered from.
        programs: times that something else was programmed.
        writes: channels that were written by that.
        reads: channels that were read back to verify them.
        tries: times that channels were written once more.
        missed: channels that were off nevertheless.
    """

    calls: int = 0
    passes: int = 0
    busy_s: float = 0.0
    faults: int = 0
    programs: int = 0
    writes: int = 0
    reads: int = 0
    tries: int = 0
    missed: int = 0

    def add(self, spent: Spent) -> None:
        """Count something that was programmed."""
        self.programs += 1
        self.writes += spent.writes
        self.reads += spent.reads
        self.tries += spent.tries
        self.missed += spent.missed


class Metered(Wrapper):
    """Counts what goes through `inner`. watch: shown every (drive, answer), for a look that is not counted in `count`.

    Args:
        allow: asked before every shot, with its node evaluations; raises BudgetSpent if it may not have them.
    """

    def __init__(self, inner: Device, allow: Allow = no_budget) -> None:
        super().__init__(inner)
        self._recovering = inner if isinstance(inner, Recovering) else None  # once: asking a protocol at every shot is slow
        self._allow, self._recovered = allow, self.recovered
        self._programming = Programming(inner)
        self._restored = False
        self.count = Count()
        self.watch: Callable[[Tensor, Tensor], None] | None = None
        with foreign("node"):
            self._called = f"node {inner.spec.outputs.name}"

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance of the inner device."""
        with foreign(self._called):
            return self._inner.spec

    @property
    def inner(self) -> Device:
        """The device that is counted; of a recorded device, the one that is recorded."""
        return self._inner.inner if isinstance(self._inner, Wrapping) else self._inner

    def program(self, params: Tensor) -> None:
        """Program the inner device, unless that is what it holds; its own exceptions become ForeignError."""
        begin = time.perf_counter()
        try:
            with foreign(self._called):
                spent = self._programming.to(params)
        finally:
            self._count_faults()
        if spent.writes:
            self.count.busy_s += time.perf_counter() - begin
            self.count.add(spent)

    def verify(self, policy: Verify) -> None:
        """Verify what is programmed from now on."""
        self._programming.verify = policy

    def slow(self, rate: Limit | None) -> None:
        """Keep a rate of what is programmed besides what its port limits; see hil/devices/programming.py."""
        self._programming.slow(rate)

    @property
    def written(self) -> list[int] | None:
        """How often each channel of what is programmed was written, (P,); None: nothing was programmed."""
        found = self._programming.written
        return None if found is None else found.tolist()

    def recount(self, count: Mapping[str, Any]) -> None:
        """Go on counting from `count`, as a checkpoint holds it."""
        own = self.count
        own.calls, own.passes = count["calls"], count["passes"]
        own.busy_s, own.faults = count["busy_s"], count.get("faults", 0)
        for name in WRITES:
            setattr(own, name, count.get(name, 0))
        self._programming.written = torch.tensor(count["written"]) if "written" in count else None

    @property
    def programmed(self) -> list[float] | None:
        """What is programmed, (P,) as JSON values; None: nothing, or nobody knows."""
        held = self._programming.held
        return None if held is None else held.tolist()

    def reprogram(self, params: Sequence[float] | None) -> None:
        """Program again what was programmed when the device was left, uncounted: a resume does so. None: nothing was.

        A device whose state was restored holds what it held, and is not verified: a read or a write would be one more.
        """
        if params is not None:
            policy, counted = self._programming.verify, self._programming.written
            self._programming.verify = None if self._restored else policy
            levels = torch.tensor(params)
            try:
                with foreign(self._called):
                    if self._restored:
                        self._programming.holds(levels)
                    self._programming.to(levels)
            finally:
                self._programming.verify, self._programming.written = policy, counted

    def reset(self) -> None:
        """Reset the inner device; its own exceptions become ForeignError."""
        with foreign(self._called):
            super().reset()
        self._count_faults()

    def _count_faults(self) -> None:
        if self._recovering is not None:
            now = self._recovering.recovered
            self.count.faults += now - self._recovered
            self._recovered = now

    def forward(self, x: Tensor) -> Tensor:
        """Ask the inner device, count it, and check the answer.

        Raises:
            BudgetSpent: not allowed; nothing was sent.
            ContractError: the answer is no measurement.
            ForeignError: the device raised an exception of its own.
        """
        self._allow(x.numel())
        begin = time.perf_counter()
        try:
            with foreign(self._called):
                answer = self._inner.forward(x)
        finally:
            self._count_faults()
        check_answer(answer, x, self._inner.spec, self._called)
        self.count.busy_s += time.perf_counter() - begin
        self.count.calls += 1
        self.count.passes += x.numel()
        if self.watch is not None:
            self.watch(x, answer)
        return answer

    def close(self) -> None:
        """Close the inner device; its own exceptions become ForeignError."""
        with foreign(self._called):
            super().close()

    def snapshot(self) -> Mapping[str, object]:
        """Return the inner device's snapshot."""
        with foreign(self._called):
            return super().snapshot()

    def restore(self, state: Mapping[str, object]) -> None:
        """Return the inner device to the state of a snapshot; what it has programmed then is for `reprogram` to say."""
        self._programming.lost()
        self._restored = bool(state)
        super().restore(state)


class MeteredStream(Metered):
    """The same around a Streaming device."""

    def __init__(self, inner: Streaming, allow: Allow = no_budget) -> None:
        super().__init__(inner, allow)
        self._stream = inner
        self._lock = threading.Lock()
        self._idle_since = 0.0

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Submit to the inner device; it is counted, and the answer checked, when it comes."""
        self._allow(x.numel())
        begin = time.perf_counter()
        with foreign(self._called):
            answer = self._stream.submit(x)
        given: Future[Tensor] = Future()
        given.set_running_or_notify_cancel()
        answer.add_done_callback(lambda done: self._finished(begin, x, done, given))
        return given

    def _finished(self, begin: float, x: Tensor, done: Future[Tensor], given: Future[Tensor]) -> None:
        """Count and check an answer, in whatever thread it came."""
        now = time.perf_counter()
        with self._lock:  # answers come in order, so busy time is what lies after the previous answer
            self.count.busy_s += now - max(begin, self._idle_since)
            self._idle_since = now
            self._count_faults()
            self.count.calls += 1
            self.count.passes += x.numel()
        try:
            with foreign(self._called):
                answer = done.result()
            check_answer(answer, x, self.spec, self._called)
            if self.watch is not None:
                self.watch(x, answer)
        except BaseException as error:  # noqa: BLE001 - handed over whole to whoever waits for the answer
            given.set_exception(error)
        else:
            given.set_result(answer)


def check_answer(answer: object, drive: Tensor, spec: Spec, where: str) -> None:
    """Refuse what is no measurement.

    Args:
        answer: what the device returned.
        drive: (…, n_in), what was answered.
        spec: of the device.
        where: the device, for the message.

    Raises:
        ContractError: no tensor, not float32, of another shape, on another accelerator, or not finite.
    """
    size = spec.outputs.size
    shape = (*drive.shape[:-1], drive.shape[-1] if size is None else size)
    allowed = f"float32, shape {tuple(shape)}, finite"
    if not isinstance(answer, Tensor):
        found = f"a {type(answer).__name__}"
    elif answer.dtype != torch.float32:
        found = str(answer.dtype)
    elif answer.device != drive.device and answer.device.type != "cpu":
        found, allowed = f"a tensor on {answer.device}", f"one on {drive.device} or in the host's memory"
    elif answer.shape != shape:
        found = f"shape {tuple(answer.shape)}"
    elif not math.isfinite(answer.detach().sum().item()) and not bool((good := torch.isfinite(answer)).all()):
        found = f"{int((~good).sum())} of {answer.numel()} values NaN or infinite"
    else:
        return
    raise ContractError(
        "the answer of this node is no measurement", where=where, got=found, allowed=allowed,
        outputs=MADE_SAFE,
        todo="correct the class that answers; hil/conformance checks one",
    )  # fmt: skip


def metered(device: Device, allow: Allow = no_budget) -> Metered:
    """`device`, counted; still Streaming if it was."""
    return MeteredStream(device, allow) if isinstance(device, Streaming) else Metered(device, allow)


class MeteredChip:
    """A Chip whose arrays are all counted. devices: those cut so far, in order."""

    def __init__(self, inner: Chip, allow: Allow = no_budget) -> None:
        self._inner, self._allow = inner, allow
        self.devices: list[Metered] = []

    def array(self, spec: ArraySpec) -> Metered:
        """Cut the next array, counted too."""
        with foreign("chip"):
            array = self._inner.array(spec)
        self.devices.append(metered(array, self._allow))
        return self.devices[-1]

    def close(self) -> None:
        """Leave every array safe."""
        self._inner.close()
