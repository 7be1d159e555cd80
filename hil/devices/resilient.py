"""Devices that climb the ladder by themselves: around a static node, a streaming one, and the arrays of a spiking chip.

    static      the shot is repeated
    streaming   answers keep the order of their submission; shots that failed because an earlier one did are repeated in turn
    temporal    every array of the chip is reset and driven again with all that it got since its last reset; if it then answers
                otherwise than before (membrane noise), what was already handed out belongs to a state that is gone, and the
                batch as a whole must be repeated: Unrepeatable
    memory      an analog node is reset; a shot that broke off is no measurement of its sequence, so it is Unrepeatable at once;
                one whose every shot begins at rest is repeated like a static one

Where there is nothing to recover (a twin in this process), there is no wrapper: `resilient` gives the device back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from hil.device import (
    ArraySpec,
    Chip,
    Device,
    Recoverable,
    Resting,
    Retransmitting,
    Streaming,
    Timed,
    program,
    reads_back,
    reset,
)
from hil.devices.recovery import Ladder
from hil.errors import HilError, LinkError, Unrepeatable
from hil.wrapper import Wrapper

A = TypeVar("A")
BATCH_TRIES = 5


class Resilient(Wrapper):
    """A Device around a recoverable one: `forward` answers, or the ladder has ended."""

    def __init__(self, inner: Device, ladder: Ladder) -> None:
        super().__init__(inner)
        self._ladder = ladder

    @property
    def recovered(self) -> int:
        """Faults recovered from so far."""
        return self._ladder.recovered

    def program(self, params: Tensor) -> None:
        """Program the inner device, again after a recovery."""
        self._whole(lambda: program(self._inner, params))

    def held(self) -> Tensor:
        """Read back the inner device, again after a recovery."""
        try:
            return super().held()
        except HilError as fault:
            return self._ladder.climb(fault, super().held)

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        """Write channels of the inner device once more, again after a recovery."""
        self._whole(lambda: reads_back(self._inner).rewrite(params, which))

    def reset(self) -> None:
        """Reset the inner device, again after a recovery."""
        self._whole(lambda: reset(self._inner))

    def forward(self, x: Tensor) -> Tensor:
        """Ask the inner device; after a fault, climb the ladder and repeat the shot."""
        try:
            self._ladder.awake()
            return self._inner.forward(x)
        except HilError as fault:
            return self._ladder.climb(fault, lambda: self._inner.forward(x))

    def _whole(self, act: Callable[[], None]) -> None:
        try:
            act()
        except HilError as fault:
            self._ladder.climb(fault, act)


class ResilientMemory(Resilient):
    """The same around an analog node with a memory: what a fault leaves behind in it must not be part of an answer."""

    def forward(self, x: Tensor) -> Tensor:
        """Ask the inner device. Raises: Unrepeatable: after a fault that it recovered from."""
        try:
            self._ladder.awake()
            return self._inner.forward(x)
        except HilError as fault:
            self._ladder.climb(fault, lambda: self._inner.forward(x))  # until it answers, though with a past that nobody knows
            reset(self._inner)
            raise Unrepeatable(
                "a node with memory lost its state in the middle of a sequence", where=self.spec.inputs.name, got=fault.what,
                allowed="whole sequences", outputs="inside their limits", todo="repeat the batch from its beginning",
            ) from fault  # fmt: skip


class ResilientStream(Resilient):
    """The same around a Streaming device. One thread settles the answers in order, so one fault is worked on at a time."""

    def __init__(self, inner: Streaming, ladder: Ladder) -> None:
        super().__init__(inner, ladder)
        self._stream = inner
        self._settler = ThreadPoolExecutor(1, thread_name_prefix="recovering")

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Raises what `x` itself is refused for; whatever happens to the shot is the Future's."""
        try:
            self._ladder.awake()
            return self._settler.submit(self._settled, x, self._stream.submit(x))
        except LinkError as slept:
            return self._settler.submit(self._ladder.climb, slept, lambda: self._inner.forward(x))

    def _settled(self, x: Tensor, answer: Future[Tensor]) -> Tensor:
        try:
            return answer.result()
        except HilError as fault:
            return self._ladder.climb(fault, lambda: self._inner.forward(x))

    def close(self) -> None:
        """End the thread that settles answers, and close the inner device."""
        self._settler.shutdown(wait=False, cancel_futures=True)
        super().close()


@runtime_checkable
class TimedStream(Streaming, Timed, Protocol):
    """A device behind a generator and a digitizer."""


class ResilientTimed(ResilientStream):
    """The same around one that shows when its answers come."""

    def __init__(self, inner: TimedStream, ladder: Ladder) -> None:
        super().__init__(inner, ladder)
        self._timed = inner

    def edge(self, shift_s: float = 0.0) -> tuple[Tensor, Tensor]:
        """Play the edge; after a fault, climb the ladder and repeat it."""
        try:
            self._ladder.awake()
            return self._timed.edge(shift_s)
        except HilError as fault:
            return self._ladder.climb(fault, lambda: self._timed.edge(shift_s))


class RecoverableChip(Chip, Recoverable, Protocol):
    """A chip behind a wire."""


class ResilientChip:
    """A Chip around a recoverable one; its arrays share its ladder, as they share its wire."""

    def __init__(self, inner: RecoverableChip, ladder: Ladder) -> None:
        self._inner, self._ladder = inner, ladder
        self._arrays: list[ResilientArray] = []
        self._seen = 0

    def array(self, spec: ArraySpec) -> ResilientArray:
        """Cut the next array; it recovers on the chip's ladder."""
        self._arrays.append(ResilientArray(self._inner.array(spec), self))
        return self._arrays[-1]

    def close(self) -> None:
        """Leave every array safe."""
        self._inner.close()

    def awake(self) -> None:
        """Recover first if the computer was suspended meanwhile."""
        self._ladder.awake()

    def retransmitted(self) -> int:
        """Frames that were sent again since the last call."""
        now = self._inner.retransmitted if isinstance(self._inner, Retransmitting) else 0
        new, self._seen = now - self._seen, now
        if new:
            self._ladder.retransmitted(new)
        return new

    def climb(self, fault: HilError, act: Callable[[], Tensor | None]) -> Tensor | None:
        """`act` again, once the chip is back and every array is where it was.

        Raises:
            Unrepeatable: an array answered otherwise than before; all of them want a reset().
        """

        def shot() -> Tensor | None:
            for array in self._arrays:
                array.relive()
            return act()

        try:
            return self._ladder.climb(fault, shot)
        except Unrepeatable:
            for array in self._arrays:
                array.forget()
            raise


class ResilientArray(Wrapper):
    """An array of a ResilientChip. It keeps what it was driven with, and what it answered, since the last reset."""

    def __init__(self, inner: Device, chip: ResilientChip) -> None:
        super().__init__(inner)
        self._chip, self._recovered = chip, 0
        self._lived: list[tuple[Tensor, Tensor]] = []

    @property
    def recovered(self) -> int:
        """Faults in its own calls that the chip recovered from."""
        return self._recovered

    def program(self, params: Tensor) -> None:
        """Program the array, again after a recovery."""
        try:
            program(self._inner, params)
        except HilError as fault:
            self._climb(fault, lambda: program(self._inner, params))

    def reset(self) -> None:
        """Reset the array; what it has lived through since the last reset is forgotten."""
        self._lived.clear()
        try:
            reset(self._inner)
        except HilError as fault:
            self._climb(fault, lambda: reset(self._inner))

    def forward(self, x: Tensor) -> Tensor:
        """Ask the array; after a fault, recover and replay what it had lived through since its reset.

        Raises:
            Unrepeatable: it did not come to the same state.
        """
        try:
            self._chip.awake()
            answer = self._inner.forward(x)
        except HilError as fault:
            again = self._climb(fault, lambda: self._inner.forward(x))
            assert again is not None  # a forward gives a tensor
            answer = again
        self._lived.append((x, answer))
        self._recovered += self._chip.retransmitted()
        return answer

    def _climb(self, fault: HilError, act: Callable[[], Tensor | None]) -> Tensor | None:
        answer = self._chip.climb(fault, act)
        self._recovered += 1
        return answer

    def relive(self) -> None:
        """Reset, and everything since then once more.

        Raises:
            Unrepeatable: another answer than the first time.
        """
        reset(self._inner)
        for number, (x, answer) in enumerate(self._lived):
            again = self._inner.forward(x)
            if not again.equal(answer):
                raise Unrepeatable(
                    "the array answers otherwise than before its fault", where=self._inner.spec.inputs.name,
                    got=f"{int((again != answer).sum())} of {answer.numel()} spikes, in call {number + 1} since the reset",
                    allowed="the same spikes", outputs="inside their limits", todo="repeat the batch from its reset()",
                )  # fmt: skip

    def forget(self) -> None:
        """Forget what the array has lived through: nothing can be replayed."""
        self._lived.clear()


def resilient(device: Device, ladder: Callable[[Recoverable], Ladder]) -> Device:
    """`device`, climbing the ladder by itself if it has rungs; still Streaming if it was."""
    if not isinstance(device, Recoverable):
        return device
    found = ladder(device)
    whole: Device = device  # the protocols are checked one by one
    if device.spec.memory and not (isinstance(whole, Resting) and whole.from_rest):
        return ResilientMemory(device, found)
    if isinstance(whole, TimedStream):
        return ResilientTimed(whole, found)
    return ResilientStream(whole, found) if isinstance(whole, Streaming) else Resilient(whole, found)


def resilient_chip(chip: Chip, ladder: Callable[[Recoverable], Ladder]) -> Chip:
    """The same for a chip."""
    return ResilientChip(chip, ladder(chip)) if isinstance(chip, Recoverable) else chip


def whole_batch(act: Callable[[], A], back: Callable[[], None] = lambda: None) -> A:
    """Run `act`, from its beginning again while a temporal device proves Unrepeatable.

    Args:
        act: all passes of a batch.
        back: undoes what `act` did so far.

    Raises:
        Unrepeatable: the last of five tries too.
    """
    for _ in range(BATCH_TRIES - 1):
        try:
            return act()
        except Unrepeatable:
            back()
    return act()
