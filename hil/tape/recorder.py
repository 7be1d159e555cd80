"""A Device whose every shot goes onto a tape: what the learner really got, once, whatever had to be repeated for it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hil.device import ArraySpec, Chip, Device, Streaming
from hil.errors import ContractError
from hil.slew import Slew, slew_of
from hil.tape.format import DIMENSIONS, PROGRAM, RESET, Floats, settings_digest
from hil.tape.writer import ReelWriter, Shot, Tape, now_ns
from hil.wrapper import Wrapper, then

NODE = "node"


class Recorder(Wrapper):
    """Records every shot of a device.

    Args:
        inner: what is recorded, wrapped by whatever guards and repeats.
        reel: where to.
    """

    def __init__(self, inner: Device, reel: ReelWriter) -> None:
        super().__init__(inner)
        self._reel = reel
        self._settings = settings_digest(reel.head.settings)

    @property
    def inner(self) -> Device:
        """The device inside."""
        return self._inner

    def program(self, params: Tensor) -> None:
        """Program the inner device; the parameters become part of the settings of the shots that follow."""
        super().program(params)
        self._settings = settings_digest(self._reel.head.settings, kept(params).tobytes())
        self._reel.flags |= PROGRAM

    def reset(self) -> None:
        """Reset the inner device; the next shot is marked so."""
        super().reset()
        self._reel.flags |= RESET

    def forward(self, x: Tensor) -> Tensor:
        """Raises: RunError: the tape cannot be written; the shot was made and is not on it."""
        drive = self._reel.copy(x)  # before: it was just made, and is in the processor's cache
        answer = self._inner.forward(x)
        self._record(drive, answer, self._taken())
        return answer

    def _taken(self) -> int:
        flags, self._reel.flags = self._reel.flags, 0
        return flags

    def _record(self, drive: Floats, answer: Tensor, flags: int) -> None:
        copy = self._reel.copy(answer)
        if answer.dtype is not torch.float32 or max(drive.ndim, copy.ndim) > DIMENSIONS:
            raise ContractError(
                "an answer that no tape can hold", where=self._inner.spec.outputs.name,
                got=f"{answer.dtype}, {max(drive.ndim, copy.ndim)} dimensions", allowed=f"float32, at most {DIMENSIONS}",
                todo="let the device answer in float32, as hil/device.py says, or train without record",
            )  # fmt: skip
        self._reel.put(Shot(drive, copy, flags, self._settings, now_ns()))


class RecorderStream(Recorder):
    """The same around a Streaming device. A shot is on its way to the tape before anybody sees its answer."""

    def __init__(self, inner: Streaming, reel: ReelWriter) -> None:
        super().__init__(inner, reel)
        self._stream = inner

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Submit to the inner device; the shot is recorded when the answer is there."""
        drive, flags = self._reel.copy(x), self._taken()

        def arrived(found: Tensor) -> Tensor:
            self._record(drive, found, flags)
            return found

        return then(self._stream.submit(x), arrived)


class RecorderChip:
    """A Chip whose arrays are all recorded, a reel each, in the order in which they are cut."""

    def __init__(self, inner: Chip, tape: Tape, settings: str) -> None:
        self._inner, self._tape, self._settings, self._cut = inner, tape, settings, 0

    def array(self, spec: ArraySpec) -> Recorder:
        """Cut the next array, recorded on a reel of its own."""
        array = self._inner.array(spec)
        self._cut += 1
        return recorded(array, self._tape, array_name(self._cut), self._settings, asdict(spec))

    def close(self) -> None:
        """Leave every array safe."""
        self._inner.close()


def recorded(device: Device, tape: Tape, name: str, settings: str, made: Mapping[str, Any]) -> Recorder:
    """`device`, recorded onto a reel of its own; still Streaming if it was."""
    streaming = isinstance(device, Streaming)
    slew = slew_of(device) if device.spec.inputs.slews else Slew()
    reel = tape.reel(name, device.spec, streaming, made, settings, slew)
    return RecorderStream(device, reel) if isinstance(device, Streaming) else Recorder(device, reel)


def node_name(number: int) -> str:
    """Return the name of the reel of a layer's own device, from 1."""
    return f"{NODE}-{number}"


def array_name(number: int) -> str:
    """Return the name of the reel of a chip's array, from 1."""
    return f"array-{number}"


def kept(x: Tensor) -> Floats:
    """A copy, on the host."""
    return np.array(x.detach().to("cpu", torch.float32).numpy(), dtype=np.float32, order="C", copy=True)
