"""Devices: what can be driven and read, forwards only. Everything goes through this seam.

A Device never tells whether hardware, a twin or a recording answers, except by `spec.provenance`. Tensors at this seam are
float32, carry the unit of their Port (hil/port.py), and never require grad.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from hil.errors import ContractError
from hil.neuron import NeuronModel
from hil.port import Limit as Limit
from hil.port import Port as Port

Provenance = Literal["real", "twin", "replay", "unknown"]


def answered(told: Provenance, said: Provenance) -> Provenance:
    """Decide who answers, from who opened it (told) and from the device itself (said).

    A twin or a recording is one whoever says so; hardware it is if both do; whatever else is not known.
    """
    for kind in ("replay", "twin"):
        if kind in (told, said):
            return kind
    return "real" if told == said == "real" else "unknown"


@dataclass(frozen=True, slots=True)
class Spec:
    """The description of a Device, as data.

    Args:
        inputs, outputs: the ports.
        params: what can be programmed on the device; None for a fixed node.
        temporal: x is (time, batch, n), and state lives in the device until `reset()`.
        provenance: who answers. Every result carries it; "unknown" until whoever opened the device says so.
        neurons: of an array of spiking neurons, how they are set up; None: no such array, or, of one from a chip, nobody knows.
    """

    inputs: Port
    outputs: Port
    params: Port | None = None
    temporal: bool = False
    provenance: Provenance = "unknown"
    neurons: NeuronModel | None = None

    @property
    def memory(self) -> bool:
        """True of an analog node with a memory: its state lasts, and no spiking neurons are known behind it."""
        return self.temporal and self.neurons is None

    def table(self) -> dict[str, Any]:
        """Return the description as a file holds it: JSON values."""
        ports = {name: getattr(self, name) for name in ("inputs", "outputs", "params")}
        found = {name: None if port is None else port.table() for name, port in ports.items()}
        neurons = {} if self.neurons is None else {"neurons": self.neurons.table()}
        return {**found, "temporal": self.temporal, "provenance": self.provenance, **neurons}


class Device(Protocol):
    """A node that can be driven and read, forwards only: all that a plain one must have."""

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in) -> (batch, n_out); temporal: (time, batch, n_in) -> (time, batch, n_out).

        Raises:
            OutOfRange: before anything is sent.
            LinkError, InstrumentError, MeasurementError: no data came back; there is never half a batch.
        """

    def close(self) -> None:
        """Leave the outputs safe. May be called twice."""


@runtime_checkable
class Programmable(Protocol):
    """A device whose spec has params."""

    def program(self, params: Tensor) -> None:
        """Set `spec.params` (size,). Raises: OutOfRange: before anything is sent."""


@runtime_checkable
class Readable(Protocol):
    """A device whose parameters can be read back, and written again channel by channel."""

    @property
    def reads_back(self) -> bool:
        """True if it can; a wrapper can if the device inside can."""

    def held(self) -> Tensor:
        """Return what the channels of `spec.params` hold, (P,), as measured: it may lie beyond their limits by its noise."""

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        """Write some channels once more.

        Args:
            params: (P,), as of `program`.
            which: (P,) bool, those that are written; the others are left alone.

        Raises:
            OutOfRange: before anything is sent.
        """


@runtime_checkable
class Resettable(Protocol):
    """A device with state in time; its spec says temporal."""

    def reset(self) -> None:
        """Forget that state."""


def program(device: Device, params: Tensor) -> None:
    """Program `device`. Raises: ContractError: nothing can be programmed on it."""
    if device.spec.params is None or not isinstance(device, Programmable):
        where = device.spec.inputs.name
        raise ContractError("this node is fixed", where=where, got="program()", allowed="drive it only")
    device.program(params)


def readable(device: Device) -> Readable | None:
    """Return `device` if its parameters can be read back, else None."""
    return device if isinstance(device, Readable) and device.reads_back else None


def reads_back(device: Device) -> Readable:
    """Return `device`. Raises: ContractError: its parameters cannot be read back."""
    found = readable(device)
    if found is None:
        raise ContractError(
            "what is programmed on this device cannot be read back", where=device.spec.inputs.name, got=type(device).__name__,
            allowed="a device with reads_back, held() and rewrite(), see hil/device.py",
        )  # fmt: skip
    return found


def reset(device: Device) -> None:
    """Let `device` forget its state in time; one without such a state has nothing to forget.

    Raises:
        ContractError: it has such a state, and no reset().
    """
    if isinstance(device, Resettable):
        device.reset()
    elif device.spec.temporal:
        raise ContractError(
            "this device has a state in time that it cannot forget", where=device.spec.inputs.name, got="no reset()",
            allowed="a method reset(); for a real node an empty one", todo='add it; with an empty one write between = "rest"',
        )  # fmt: skip


@runtime_checkable
class Streaming(Device, Protocol):
    """A device that can overlap sending, running and reading. Answers come in the order of submission."""

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Begin a shot and return its answer as a future; answers come in the order of the calls."""


@runtime_checkable
class Timed(Protocol):
    """A device that shows when its answer comes: one edge of the drive, sampled as finely as its instruments can."""

    def edge(self, shift_s: float = 0.0) -> tuple[Tensor, Tensor]:
        """Play the edge once, and return time and reading, both (n,), from before the answer until it has settled.

        Args:
            shift_s: the first sample comes so much later than at 0; fractions of a sample show what lies between samples.

        Returns:
            time since the edge left, in s, float64; reading in the unit of the output port.

        Raises:
            LinkError, InstrumentError, MeasurementError: as `forward`.
        """


@runtime_checkable
class Following(Protocol):
    """A device that adds levels of its own to the drive (rest, markers), which must move with a bias that is followed."""

    def follow(self, offset: Limit, period: Limit | None = None) -> None:
        """Move the drive by `offset` from the next shot on: v + offset then does what v did. Sends nothing.

        Args:
            offset: from the levels as they were set, in the unit of the input port; not from those of the last call. A device
                of several channels may get one for each, as of the period.
            period: of the node: a level beyond a limit comes back by it. None: it stops at the limit.
        """


@runtime_checkable
class Attentive(Protocol):
    """A device whose instruments say what they hold, so that a change by another hand is seen."""

    def attend(self) -> None:
        """Ask them with the next shot, whenever they were asked last. Sends nothing."""


@runtime_checkable
class Resting(Protocol):
    """A device with memory that by itself rests before each sequence: a shot does not depend on those before it."""

    @property
    def from_rest(self) -> bool:
        """True if each shot begins at rest, so that it may be repeated alone."""


@runtime_checkable
class Restorable(Protocol):
    """A plant whose hidden state (drift clock, noise counter, membrane) can be saved, so that a resume is exact.

    The mapping holds JSON values (numbers, strings, lists, mappings), and tensors where there are many numbers; a snapshot is a
    copy. Real hardware is not Restorable.
    """

    def snapshot(self) -> Mapping[str, object]:
        """Return the whole state: JSON values and tensors."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot."""


@runtime_checkable
class Recoverable(Protocol):
    """A device, or a chip, that can be brought back after a fault, rung by rung; hil/devices/recovery.py says which when.

    Every method raises HilError if its rung does not hold. None lets a value out of limits out, and outputs are off from
    `reinstate` until `verify` has seen that the settings are back.
    """

    def clear(self) -> None:
        """Empty the wires: what was in flight is thrown away."""

    def reopen(self) -> None:
        """Close the wires and open them again."""

    def identify(self) -> str:
        """The same instruments as before must answer. What was found, a line for people.

        Raises:
            WrongInstrument: another serial number.
        """

    def reinstate(self) -> None:
        """Outputs off and a reset; then settings and volatile memory again, from what the driver remembers, in safe order.

        Raises:
            SwitchedOff: an output is off that this program had left on; it stays off.
        """

    def verify(self) -> str:
        """A known drive must give its known answer. What was found, a line for people."""


@runtime_checkable
class Retransmitting(Protocol):
    """A chip whose frames are numbered and sent again when they are lost. retransmitted: how many so far."""

    @property
    def retransmitted(self) -> int:
        """Number of messages that were sent again since it was opened, below the recovery ladder."""


@runtime_checkable
class OwnTime(Protocol):
    """A device whose node lives in a time of its own, as one that is simulated behind instruments."""

    @property
    def time_s(self) -> float | None:
        """How long the node has lived, s; None: its time is that of a clock."""


@runtime_checkable
class Recovering(Protocol):
    """A device that puts faults right by itself. recovered: how many so far, since it was opened."""

    @property
    def recovered(self) -> int:
        """Number of faults that the device has recovered from since it was opened."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The neurons that are asked of a chip.

    Args:
        size: how many.
        couples: ternary ones, of two neurons each.
        v_th, v_rest, leak: threshold, rest and leak where they are to differ from the chip's design.
    """

    size: int
    couples: bool = False
    _: KW_ONLY
    v_th: float | None = None
    v_rest: float | None = None
    leak: float | None = None

    @property
    def design(self) -> dict[str, Any]:
        """Return what differs from the chip's design, by name."""
        found = {"v_th": self.v_th, "v_rest": self.v_rest, "leak": self.leak}
        return {name: value for name, value in found.items() if value is not None}


class Chip(Protocol):
    """A source of temporal devices: every layer of a spiking network needs neurons of its own."""

    def array(self, spec: ArraySpec) -> Device:
        """The next array of neurons."""

    def close(self) -> None:
        """Leave every array safe. May be called twice."""


def plain(answer: Tensor, device: str, place: torch.device) -> Tensor:
    """The answer of a device, checked to be a plain measurement, brought to where the host computes.

    It is laid out row by row, as one from a tape is: torch sums in the order of the memory, so that a replay would round
    differently.

    Raises:
        ContractError: the tensor requires grad. Nothing may differentiate a Device.
    """
    if answer.requires_grad:
        raise ContractError(
            "a Device returned a tensor that requires grad",
            where=device,
            got="an autograd graph through a black box",
            allowed="a detached measurement",
            todo="detach the answer; to differentiate a model of the device use the PAT or backprop learner",
        )
    return answer.to(place).contiguous()
