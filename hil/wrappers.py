"""Devices around devices: whatever takes a Device takes these too.

`Guarded` narrows limits and bounds slew, `Averaged` repeats and averages. (`Simulated` is in sim_devices, `Calibrated` in
calibration.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from hil.device import Device, Restorable, Spec
from hil.errors import ContractError, OutOfRange


def _snapshot(inner: Device) -> Mapping[str, object]:
    return inner.snapshot() if isinstance(inner, Restorable) else {}


def _restore(inner: Device, state: Mapping[str, object]) -> None:
    if isinstance(inner, Restorable):
        inner.restore(state)


class Guarded:
    """Refuses what the bench must not see: values outside narrowed limits, NaN, and jumps that are too large.

    Args:
        inner: the device to protect.
        low, high: limits inside those of `inner.spec.inputs`, in its unit; None keeps the port's own.
        max_step: largest change between two successive values of a channel, in the port's unit. Successive means along
            the batch (static) or along time (temporal), the last value of the previous call included. None: no limit.

    Raises:
        OutOfRange: from the constructor if limits would widen the port's, from `forward` before anything is sent.
    """

    def __init__(
        self, inner: Device, low: float | None = None, high: float | None = None, max_step: float | None = None
    ) -> None:
        port = inner.spec.inputs
        self._inner = inner
        self._port = port.narrowed(port.low if low is None else low, port.high if high is None else high)
        if max_step is not None and not max_step > 0:
            raise ContractError("max_step must be positive", where=f"port {port.name}", got=str(max_step))
        self._max_step = max_step
        self._last: Tensor | None = None

    @property
    def spec(self) -> Spec:
        return dataclasses.replace(self._inner.spec, inputs=self._port)

    def program(self, params: Tensor) -> None:
        port = self._inner.spec.params
        self._inner.program(params if port is None else port.check(params))

    def reset(self) -> None:
        self._inner.reset()

    def forward(self, x: Tensor) -> Tensor:
        self._port.check(x)
        if self._max_step is not None and x.numel():
            self._check_slew(x, self._max_step)
        answer = self._inner.forward(x)
        if x.numel():
            self._last = x[-1].detach().clone()
        return answer

    def _check_slew(self, x: Tensor, allowed: float) -> None:
        first = x[:1].detach() if self._last is None or self._last.shape != x[0].shape else self._last.to(x).unsqueeze(0)
        steps = torch.diff(torch.cat([first, x.detach()]), dim=0).abs()
        worst = float(steps.max())
        if not worst <= allowed:
            raise OutOfRange(
                "the drive jumps too far between two values",
                where=f"port {self._port.name}",
                got=f"a step of {worst:.6g} {self._port.unit}",
                allowed=f"at most {allowed:g} {self._port.unit}",
                outputs="unchanged; nothing was sent",
                todo="ramp the drive, or raise max_step if the node stands it",
            )

    def close(self) -> None:
        self._inner.close()

    def snapshot(self) -> Mapping[str, object]:
        last = None if self._last is None else self._last.tolist()
        return {"inner": dict(_snapshot(self._inner)), "last": last}

    def restore(self, state: Mapping[str, object]) -> None:
        inner, last = state["inner"], state["last"]
        assert isinstance(inner, Mapping)
        _restore(self._inner, inner)
        self._last = None if last is None else torch.tensor(last)


class Averaged:
    """The mean of `repeats` passes: noise falls with sqrt(repeats), device passes grow with it.

    A temporal device is refused: its state after one pass is not its state before the next.
    """

    def __init__(self, inner: Device, repeats: int) -> None:
        if repeats < 1:
            raise ContractError("repeats must be at least 1", where="Averaged", got=str(repeats))
        if inner.spec.temporal:
            raise ContractError(
                "a temporal device cannot be averaged pass by pass",
                where="Averaged",
                got=f"port {inner.spec.inputs.name} of a temporal device",
                allowed="a static device",
                todo="average inside the device's driver, or over whole sequences after reset()",
            )
        self._inner, self._repeats = inner, repeats

    @property
    def spec(self) -> Spec:
        return self._inner.spec

    def program(self, params: Tensor) -> None:
        self._inner.program(params)

    def reset(self) -> None:
        self._inner.reset()

    def forward(self, x: Tensor) -> Tensor:
        total = self._inner.forward(x)
        for _ in range(self._repeats - 1):
            total = total + self._inner.forward(x)
        return total / self._repeats

    def close(self) -> None:
        self._inner.close()

    def snapshot(self) -> Mapping[str, object]:
        return _snapshot(self._inner)

    def restore(self, state: Mapping[str, object]) -> None:
        _restore(self._inner, state)
