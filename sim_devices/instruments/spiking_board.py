"""A microcontroller board with a chip of spiking neurons, on a serial line: bytes in, bytes out.

The format of the line is in hil/frame_protocol.py, the neurons are in sim_devices/lif_array.py. Each row of
a batch has membranes of its own, which the board keeps between STEPs until RESET. A board that is not armed, or whose watchdog
has tripped, drives no current: its membranes are at rest and STEP is refused. It powers up disarmed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil import frame_protocol as wire
from hil.errors import ContractError, Refused
from hil.frame_protocol import Code, Kind
from hil.neuron import Reset
from sim_devices.instruments.framed_board import MAKER, Complaint, FramedBoard, fields
from sim_devices.lif_array import LifArray
from sim_devices.spiking_array import TwinChip, run_keyed
from sim_devices.switch_log import SwitchLog
from sim_devices.twin import State

MODEL, FIRMWARE = "SPIKING-BOARD", "1.0"
FIXED_POINT, FLOAT = 0, 1
RESETS: tuple[Reset, ...] = ("soft", "hard")
FULL_CODE = 32767
LARGEST = (1 << 18) + 64  # bytes: two steps of 128 x 256 float32, and their block
STATE_VALUES = 1 << 24  # rows x neurons that an array can hold
MEMBRANES = 1 << 26  # values of the last pass that an array remembers


@dataclass(slots=True)
class _Array:
    """An array of the chip.

    Args:
        base: steps of earlier passes.
        span: steps of the pass that runs.
    """

    twin: LifArray
    numbers: int
    full_scale: float
    state: State
    thresholds: Tensor | None = None
    membranes: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    base: int = 0
    span: int = 0

    @property
    def remembered(self) -> int:
        return sum(part.numel() for part in self.membranes.values())

    def at_rest(self) -> None:
        self.state = self.twin.rest(0, torch.Generator())


@dataclass(frozen=True, slots=True)
class _Block:
    first_step: int
    steps: int
    first_row: int
    rows: int


class SpikingBoard(FramedBoard):
    """A simulated board with a chip of neurons, behind the frames of hil/frame_protocol.py.

    Args:
        chip: its neurons; the mismatch, the noise and the limit of the current are the chip's, the rest is set by the host.
        serial: serial number.
        largest: bytes in a payload.
        neurons: how many can be allocated.
        gap_s: see Reassembly.
        clock: monotonic, s.
        log: of the currents, channel 1, that may flow (armed) or not. Callable from any thread.
    """

    def __init__(
        self,
        chip: TwinChip | None = None,
        *,
        serial: str = "SB0001",
        largest: int = LARGEST,
        neurons: int = 1 << 20,
        gap_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        log: SwitchLog | None = None,
    ) -> None:
        self._chip = chip or TwinChip()
        self._neurons = neurons
        self._arrays: list[_Array] = []
        self._free_chip = self._chip
        super().__init__(
            (MAKER, MODEL, serial, FIRMWARE), self._chip.neuron.limit, largest, gap_s, clock, log,
            {
                Kind.ALLOCATE: self._allocate, Kind.PROGRAM: self._program, Kind.RESET: self._reset, Kind.STEP: self._step,
                Kind.MONITOR: self._monitor,
            },
            frozenset({Kind.STEP}),
        )  # fmt: skip
        self.reboot()

    def snapshot(self) -> dict[str, object]:
        """Raises: ContractError: always; membranes are read with MONITOR, nothing can be put back."""
        raise ContractError(
            "a board keeps its state to itself", where=self.name, todo="read its membranes, or begin the pass again"
        )

    def restore(self, state: Mapping[str, object]) -> None:
        """Raises: ContractError: always."""
        self.snapshot()

    def _room(self) -> int:
        return self._neurons - sum(array.twin.size for array in self._arrays)

    def _allocated(self) -> int:
        return len(self._arrays)

    def _at_rest(self) -> None:
        for array in self._arrays:
            array.at_rest()
            array.membranes.clear()

    def _free(self) -> None:
        """Forget all arrays. The neurons stay where they are: who asks for the same arrays again gets the same ones."""
        self._arrays = []
        self._free_chip = TwinChip(self._chip.neuron, self._chip.seed)

    # -- Requests -----------------------------------------------------------------------------------------------------

    def _allocate(self, payload: memoryview) -> bytes:
        size, couples, reset, numbers, _, refractory, leak, v_th, v_rest, full_scale = fields(wire.ALLOCATE, payload)
        free = self._room()
        if not 1 <= size <= free or 4 * size + wire.BLOCK.size > self._largest:
            raise Complaint(Code.NO_ROOM, f"{size} neurons; {free} are free, a payload holds {self._largest} bytes")
        if reset not in (0, 1) or numbers not in (FIXED_POINT, FLOAT) or not 0 < full_scale <= self._chip.neuron.limit:
            raise Complaint(Code.OUT_OF_RANGE, f"reset {reset}, numbers {numbers}, full scale {full_scale}")
        try:
            neuron = replace(self._chip.neuron, leak=leak, v_th=v_th, v_rest=v_rest, reset=RESETS[reset], refractory=refractory)
            twin = self._free_chip.cut(size, neuron, bool(couples)).twin
        except Refused as error:
            raise Complaint(Code.OUT_OF_RANGE, str(error)) from error
        self._arrays.append(_Array(twin, numbers, full_scale, twin.rest(0, torch.Generator())))
        thresholds = twin.spec.params
        assert thresholds is not None  # a spiking array always has thresholds
        return wire.ALLOCATED.pack(len(self._arrays) - 1, thresholds.shared_low, thresholds.shared_high)

    def _program(self, payload: memoryview) -> bytes:
        array = self._array(*fields(wire.ARRAY, payload[: wire.ARRAY.size]))
        values = payload[wire.ARRAY.size :]
        if len(values) != 4 * array.twin.size:
            raise Complaint(Code.BAD_PAYLOAD, f"{len(values)} bytes for {array.twin.size} thresholds")
        port = array.twin.spec.params
        assert port is not None
        try:
            array.thresholds = port.check(torch.from_numpy(np.frombuffer(values, "<f4").astype(np.float32)))
        except Refused as error:
            raise Complaint(Code.OUT_OF_RANGE, str(error)) from error
        return b""

    def _reset(self, payload: memoryview) -> bytes:
        self._array(*fields(wire.ARRAY, payload)).at_rest()
        return wire.STARTED.pack(self._armed, self._tripped)

    def _step(self, payload: memoryview) -> bytes:
        array, block = self._block(payload)
        currents = self._currents(array, block, payload[wire.BLOCK.size :])
        if (block.first_step or block.first_row) and array.remembered + currents.numel() > MEMBRANES:
            raise Complaint(Code.NO_ROOM, f"the pass has more than {MEMBRANES} membranes; begin a new one")
        if not block.first_step and not block.first_row:
            array.base, array.span = array.base + array.span, 0
            array.membranes.clear()
        array.span = max(array.span, block.first_step + block.steps)
        rows = slice(block.first_row, block.first_row + block.rows)
        whole = _grown(array.state, array.twin.rest(max(0, rows.stop - len(array.state[0])), torch.Generator()))
        stream = "noise" if not block.first_row else f"noise from row {block.first_row}"
        spikes, membranes, after = run_keyed(
            array.twin, tuple(part[rows] for part in whole), array.thresholds, currents, array.twin.seed,
            array.base + block.first_step, stream,
        )  # fmt: skip
        for part, new in zip(whole, after, strict=True):
            part[rows] = new
        array.state = whole
        array.membranes[block.first_step, block.first_row] = membranes
        return _bits(spikes, array.twin.couples)

    def _monitor(self, payload: memoryview) -> bytes:
        array, block = self._block(payload)
        membranes = array.membranes.get((block.first_step, block.first_row))
        if membranes is None or membranes.shape[:2] != (block.steps, block.rows):
            raise Complaint(Code.NO_DATA, "no such block in the last pass")
        values: NDArray[np.generic] = membranes.numpy()
        return values.astype("<f4" if array.numbers == FLOAT else "<f2").tobytes()

    # -- Parts of requests --------------------------------------------------------------------------------------------

    def _array(self, number: int) -> _Array:
        if number >= len(self._arrays):
            raise Complaint(Code.NO_ARRAY, f"array {number} of {len(self._arrays)}")
        return self._arrays[number]

    def _block(self, payload: memoryview) -> tuple[_Array, _Block]:
        number, _, first_step, steps, first_row, rows = fields(wire.BLOCK, payload[: wire.BLOCK.size])
        array = self._array(number)
        if not steps or not rows:
            raise Complaint(Code.BAD_PAYLOAD, f"a block of {steps} steps and {rows} rows")
        if (first_row + rows) * array.twin.size > STATE_VALUES:
            raise Complaint(Code.NO_ROOM, f"rows up to {first_row + rows}")
        return array, _Block(first_step, steps, first_row, rows)

    def _currents(self, array: _Array, block: _Block, data: memoryview) -> Tensor:
        shape = (block.steps, block.rows, array.twin.size)
        dtype = np.dtype("<f4" if array.numbers == FLOAT else "<i2")
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise Complaint(Code.BAD_PAYLOAD, f"{len(data)} bytes for currents {shape}")
        values = np.frombuffer(data, dtype).reshape(shape)
        if array.numbers == FIXED_POINT:
            return torch.from_numpy(values.astype(np.float32) * np.float32(array.full_scale / FULL_CODE))
        if values.size and not np.abs(values).max() <= array.full_scale:  # also catches NaN
            raise Complaint(Code.OUT_OF_RANGE, f"currents beyond {array.full_scale:g}")
        return torch.from_numpy(values.astype(np.float32, copy=False))


def _grown(state: State, more: State) -> State:
    return tuple(torch.cat([part, new]) if len(new) else part for part, new in zip(state, more, strict=True))


def _bits(spikes: Tensor, couples: bool) -> bytes:
    values = spikes.numpy()
    planes = (values > 0, values < 0) if couples else (values > 0,)
    return b"".join(np.packbits(plane).tobytes() for plane in planes)
