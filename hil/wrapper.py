"""Base of all devices around a device: it hands on whatever they do not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future

from torch import Tensor

from hil.device import Device, OwnTime, Recovering, Restorable, Spec, program, readable, reads_back, reset
from hil.slew import Slew, slew_of


class Wrapper:
    """A Device around `inner` that changes nothing; a subclass says what it does otherwise.

    A state is saved as far as `inner` can save its own; it is empty for any other, and an empty one restores nothing.
    """

    def __init__(self, inner: Device) -> None:
        self._inner = inner

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance of the inner device."""
        return self._inner.spec

    @property
    def recovered(self) -> int:
        """Faults that `inner` recovered from."""
        return self._inner.recovered if isinstance(self._inner, Recovering) else 0

    @property
    def time_s(self) -> float | None:
        """How long the inner device's node has lived in a time of its own, s; None: its time is that of a clock."""
        return self._inner.time_s if isinstance(self._inner, OwnTime) else None

    @property
    def slew(self) -> Slew:
        """Steps of the drive, as the inner device keeps them."""
        return slew_of(self._inner)

    def program(self, params: Tensor) -> None:
        """Program the inner device."""
        program(self._inner, params)

    @property
    def reads_back(self) -> bool:
        """True if what is programmed on the inner device can be read back."""
        return readable(self._inner) is not None

    def held(self) -> Tensor:
        """Return what the inner device holds. Raises: ContractError: it cannot be read back."""
        return reads_back(self._inner).held()

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        """Write channels of the inner device once more. Raises: ContractError: it cannot be read back."""
        reads_back(self._inner).rewrite(params, which)

    def reset(self) -> None:
        """Reset the inner device."""
        reset(self._inner)

    def forward(self, x: Tensor) -> Tensor:
        """Ask the inner device."""
        return self._inner.forward(x)

    def close(self) -> None:
        """Close the inner device."""
        self._inner.close()

    def snapshot(self) -> Mapping[str, object]:
        """Return the inner device's snapshot; {} if it has none."""
        return self._inner.snapshot() if isinstance(self._inner, Restorable) else {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return the inner device to the state of a snapshot, if it can."""
        if isinstance(self._inner, Restorable) and state:
            self._inner.restore(state)


def then(answer: Future[Tensor], act: Callable[[Tensor], Tensor]) -> Future[Tensor]:
    """The Future of `act(answer)`: nobody sees the answer before. What either raises is handed over whole to who waits."""
    seen = Future[Tensor]()
    seen.set_running_or_notify_cancel()

    def arrived(done: Future[Tensor]) -> None:
        try:
            found = act(done.result())
        except BaseException as error:  # noqa: BLE001 - handed over whole
            seen.set_exception(error)
            return
        seen.set_result(found)

    answer.add_done_callback(arrived)
    return seen
