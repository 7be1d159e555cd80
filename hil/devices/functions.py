"""A Device of two callables of the user's: one drives, one measures, example after example.

Limits are checked for the whole batch before anything is written. Whatever goes wrong after that, `safe` is called at once,
then the error is raised as one of ours, with the lines of the user's code.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.device import Port, Provenance, Spec
from hil.errors import ContractError, UnsafeOutputs
from hil.foreign import foreign, said
from hil.slew import Held, Slew

Values = NDArray[np.float32]
AGAIN = "correct that code, then run the script again"


def from_functions(
    write: Callable[[Values], object],
    read: Callable[[], Any],
    inputs: Port,
    outputs: Port,
    safe: Callable[[], object] | None = None,
    *,
    settle_s: float = 0.0,
    provenance: Provenance = "unknown",
) -> Functions:
    """A Device made of a function that drives and a function that measures.

    For every example of a batch: `write(values)`, a pause of `settle_s`, `read()`. Nothing outside of the limits of `inputs` is
    ever written: the whole batch is refused before its first value, also for a step that is larger than `inputs` allows, from
    row to row and from what was written last. If `write` or `read` raises, or the answer is no
    measurement, `safe` is called at once, and the error is raised with the line of your code.

    Nobody calls `safe` if this process is killed: a rig that must not stay on then needs a bench file, which has a guardian.

    Args:
        write: drives the device; called with the values of one example, float32 (n_in,), in the unit of `inputs`, times its
            `scale`.
        read: measures; returns the answer to what was written last, (n_out,) or a number if n_out is 1, in the unit of
            `outputs`, times its `scale`.
        inputs: name, limits and unit of what is driven, and its number of channels n_in; without a size any number. A largest
            rate, `slew_per_s`, allows `slew_per_s` x `settle_s` from a write to the next.
        outputs: the same of what is measured, with n_out channels; without a size as many as are driven.
        safe: brings the outputs to a safe state; raises if it cannot. Called after an error, after a training, by `close()` and
            when Python ends. None: the outputs stay at what was written last.
        settle_s: pause between `write` and `read`, in s.
        provenance: "real" if hardware answers; every result says it.

    Returns:
        a Device: `forward` takes (batch, n_in) and gives (batch, n_out), float32.

    Raises:
        ContractError: an argument of the wrong kind.
        OutOfRange: by `forward`, before anything is written.
        ForeignError: by `forward`, for an exception of `write` or `read`; outputs are safe.
        UnsafeOutputs: by `forward` and `close`, if `safe` raises.

    Example:
        >>> import hil, numpy, torch
        >>> held = numpy.zeros(2)
        >>> def write(values): held[:] = values
        >>> def read(): return numpy.tanh(held)
        >>> device = hil.from_functions(write, read, hil.Port("dac", -1, 1, "V", 2), hil.Port("adc", -1, 1, "V", 2))
        >>> device.forward(torch.tensor([[0.0, 0.5]]))
        tensor([[0.0000, 0.4621]])
    """
    for name, value in (("write", write), ("read", read), *((("safe", safe),) if safe is not None else ())):
        if not callable(value):
            raise _wrong(name, value, "a function")
    for name, port in (("inputs", inputs), ("outputs", outputs)):
        if not isinstance(port, Port):
            raise _wrong(name, port, 'a port: hil.Port("dac", low=0, high=5, unit="V", size=16)')
    if isinstance(settle_s, bool) or not isinstance(settle_s, int | float) or not 0 <= settle_s < 3600:
        raise _wrong("settle_s", settle_s, "a number of seconds, 0 or more")
    if provenance not in ("real", "twin", "replay", "unknown"):
        raise _wrong("provenance", provenance, '"real", "twin", "replay" or "unknown"')
    return Functions(write, read, Spec(inputs, outputs, provenance=provenance), safe, settle_s)


def _wrong(name: str, value: object, allowed: str) -> ContractError:
    return ContractError(
        f"{name} makes no sense", where="hil.from_functions", got=said(value, 60), allowed=allowed,
        outputs="unchanged; nothing was written", todo=f"correct {name}",
    )  # fmt: skip


class Functions:
    """The Device that `from_functions` returns: what a function that makes one for a file is annotated with.

    Args:
        write, read, safe: as there.
        spec: the ports.
        settle_s: pause before the answer is read.
    """

    def __init__(
        self, write: Callable[[Values], object], read: Callable[[], Any], spec: Spec, safe: Callable[[], object] | None,
        settle_s: float,
    ) -> None:  # fmt: skip
        self._write, self._read, self._spec, self._safe, self._settle_s = write, read, spec, safe, settle_s
        self._called = f"device {spec.inputs.name} -> {spec.outputs.name}"
        self._closed = False
        self._held = Held(spec.inputs, settle_s)
        self._at_exit = None if safe is None else weakref.finalize(self, _left_safe, safe)

    @property
    def spec(self) -> Spec:
        """Ports and provenance of the node."""
        return self._spec

    @property
    def has_safe(self) -> bool:
        """True if a safe() was given."""
        return self._safe is not None

    @property
    def slew(self) -> Slew:
        """Steps of the drive: what steps too far is refused; rows are at least `settle_s` apart."""
        return Slew("refuses", self._settle_s)

    @property
    def outputs_after(self) -> str:
        """The state of the outputs once `safe` has returned."""
        return "as they were written last; no safe was given" if self._safe is None else "safe, by the safe() that was given"

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in) in the unit of the inputs -> (batch, n_out) in the unit of the outputs, float32."""
        if self._closed:
            raise ContractError("this device is closed", where=self._called, outputs=self.outputs_after, todo="make a new one")
        self._spec.inputs.check(x)
        if x.ndim != 2:
            raise ContractError(
                "a batch of examples is needed", where=self._called, got=f"shape {tuple(x.shape)}", allowed="(batch, n_in)",
                outputs="unchanged; nothing was written",
            )  # fmt: skip
        self._held.check(x)
        values = x.detach().to("cpu", torch.float32)
        rows = self._spec.inputs.own(values).numpy()
        width = self._spec.outputs.size or x.shape[1]
        answers = np.empty((len(rows), width), np.float32)
        try:
            for number, row in enumerate(rows):
                answers[number] = self._measured(row, width)
        except BaseException as error:
            self._held.lost(values)
            self._made_safe(error)
            raise
        self._held.sent(values)
        return self._spec.outputs.of_own(torch.from_numpy(answers))

    def _measured(self, row: Values, width: int) -> Values:
        with foreign(f"{self._called}, write()", outputs=self.outputs_after, todo=AGAIN):
            self._write(row.copy())  # what the user does to it does not change the batch
        if self._settle_s:
            time.sleep(self._settle_s)
        with foreign(f"{self._called}, read()", outputs=self.outputs_after, todo=AGAIN):
            answer = self._read()
            measured = np.asarray(answer.detach().cpu() if isinstance(answer, Tensor) else answer)
            if measured.dtype.kind in "OUSM":
                raise TypeError(f"read() returned {said(answer, 60)}, which is no number")
        if measured.shape == () and width == 1:
            measured = measured.reshape(1)
        if measured.shape != (width,) or measured.dtype.kind not in "fiub":
            raise self._no_measurement(f"{measured.dtype}, shape {measured.shape}", width)
        with np.errstate(over="ignore"):  # more than float32 holds becomes infinite, and is refused
            found = measured.astype(np.float32)
        if not np.isfinite(found).all():
            raise self._no_measurement(f"{int((~np.isfinite(found)).sum())} of {width} values NaN or infinite", width)
        return found

    def _no_measurement(self, got: str, width: int) -> ContractError:
        return ContractError(
            "the answer of read() is no measurement", where=self._called, got=got,
            allowed=f"real numbers, shape ({width},), finite", outputs=self.outputs_after, todo="correct read(), or the ports",
        )  # fmt: skip

    def safe(self) -> None:
        """Bring the outputs to the safe state, by the function that was given for it.

        Raises:
            UnsafeOutputs: it raised.
        """
        if self._safe is None:
            return
        todo = "switch the outputs off at the device, and correct safe()"
        with foreign(f"{self._called}, safe()", UnsafeOutputs, "not known to be safe", todo):
            self._safe()
        self._held.at_rest()

    def _made_safe(self, error: BaseException) -> None:
        """Raises: UnsafeOutputs: from `error`."""
        try:
            self.safe()
        except UnsafeOutputs as unsafe:
            raise unsafe from error

    def close(self) -> None:
        """Leave the outputs safe; nothing can be driven afterwards. May be called twice."""
        if self._closed:
            return
        self.safe()
        self._closed = True
        if self._at_exit is not None:
            self._at_exit.detach()


def _left_safe(safe: Callable[[], object]) -> None:
    """When the device is forgotten, or Python ends, and it was not closed."""
    try:
        safe()
    except BaseException as error:  # noqa: BLE001 (nobody is left to catch it)
        with suppress(Exception):
            print(f"OUTPUTS NOT KNOWN TO BE SAFE: safe() raised {type(error).__name__}: {said(error)}", file=sys.stderr)
