"""A microcontroller board with a chip of spiking neurons, on a serial line: bytes in, bytes out.

The format of the line is in hil/frame_protocol.py, the neurons are in sim_devices/lif_array.py. Each row of
a batch has membranes of its own, which the board keeps between STEPs until RESET. A board that is not armed, or whose watchdog
has tripped, drives no current: its membranes are at rest and STEP is refused. It powers up disarmed.
"""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil import frame_protocol as wire
from hil.errors import ContractError, Refused
from hil.frame_protocol import Code, Kind
from hil.neuron import Reset
from sim_devices.instruments.frame_protocol import Reassembly, Request, reply
from sim_devices.lif_array import LifArray
from sim_devices.spiking_array import TwinChip, run_keyed
from sim_devices.switch_log import Switched, SwitchLog
from sim_devices.twin import State

MAKER, MODEL, FIRMWARE = "HIL", "SPIKING-BOARD", "1.0"
FIXED_POINT, FLOAT = 0, 1
RESETS: tuple[Reset, ...] = ("soft", "hard")
FULL_CODE = 32767
LARGEST = (1 << 18) + 64  # bytes: two steps of 128 x 256 float32, and their block
STATE_VALUES = 1 << 24  # rows x neurons that an array can hold
MEMBRANES = 1 << 26  # values of the last pass that an array remembers
NOTHING = struct.Struct("")
CHANNEL = 1  # of the only output, the currents


class _Complaint(Exception):
    """A request that is refused with a code and a reason."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


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


class SpikingBoard:
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
        self._lock = threading.RLock()
        self._log = log or SwitchLog()
        self._chip = chip or TwinChip()
        self._serial, self._largest, self._neurons, self._clock = serial, largest, neurons, clock
        self._line = Reassembly(largest, gap_s)
        self._boot = self._session = 0
        self._watchdog_s = self._heard_s = 0.0
        self._armed = self._tripped = False
        self._arrays: list[_Array] = []
        self._last: tuple[int, int, int] | None = None
        self._last_reply = b""
        self._free_chip = self._chip
        self._reads: dict[int, Callable[[memoryview], bytes]] = {
            Kind.HELLO: self._hello, Kind.ALLOCATE: self._allocate, Kind.PROGRAM: self._program, Kind.RESET: self._reset,
            Kind.STEP: self._step, Kind.MONITOR: self._monitor, Kind.ARM: self._arm, Kind.SAFE: self._safe,
            Kind.STATUS: self._status,
        }  # fmt: skip
        self.reboot()

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"{MODEL} {self._serial}"

    @property
    def armed(self) -> bool:
        """Currents may flow. Looks at the clock: a watchdog trips without being asked."""
        with self._lock:
            if self._armed and self._watchdog_s and self._clock() - self._heard_s > self._watchdog_s:
                self._disarm()
                self._tripped = True
            return self._armed

    def reboot(self) -> None:
        """Power off and on: disarmed, all arrays gone, a boot number more."""
        with self._lock:
            self._boot += 1
            self._session = 0
            self._line.forget()
            self._free()

    def press(self, command: str) -> str:
        """The only key on the board, "SAFE": currents off.

        Raises:
            ContractError: another key.
        """
        if command.upper() != "SAFE":
            raise ContractError("the board has no such key", where=self.name, got=command[:80], allowed="SAFE")
        with self._lock:
            self._disarm()
        return ""

    def outputs(self) -> dict[str, object]:
        """Return whether currents may flow."""
        with self._lock:
            return {str(CHANNEL): {"on": self.armed, "tripped": self._tripped, "limit": self._chip.neuron.limit}}

    def snapshot(self) -> dict[str, object]:
        """Raises: ContractError: always; membranes are read with MONITOR, nothing can be put back."""
        raise ContractError(
            "a board keeps its state to itself", where=self.name, todo="read its membranes, or begin the pass again"
        )

    def restore(self, state: Mapping[str, object]) -> None:
        """Raises: ContractError: always."""
        self.snapshot()

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take bytes and return the board's answer; b"" while a frame is not whole."""
        with self._lock:
            return b"".join([self._answer(request) for request in self._line.feed(data, self._clock())])

    def _answer(self, request: Request) -> bytes:
        if request.code is not Code.DONE:
            return reply(request.kind, request.seq, code=request.code)
        armed = self.armed  # before the watchdog is fed
        self._heard_s = self._clock()
        same = (request.kind, request.seq, request.crc)
        if same == self._last:
            return self._last_reply
        try:
            if request.kind not in self._reads:
                raise _Complaint(Code.UNKNOWN_KIND, f"kind {request.kind}")
            if request.kind == Kind.STEP and not armed:
                raise self._not_armed()
            answer = reply(request.kind, request.seq, self._reads[request.kind](request.payload))
        except _Complaint as complaint:
            answer = reply(request.kind, request.seq, str(complaint).encode(), complaint.code)
        if request.kind != Kind.HELLO:
            self._last, self._last_reply = same, answer
        return answer

    def _not_armed(self) -> _Complaint:
        if self._tripped:
            return _Complaint(Code.WATCHDOG, f"nothing was heard for {self._watchdog_s:g} s")
        return _Complaint(Code.NOT_ARMED, "ARM first")

    def _switch(self, on: bool) -> None:
        if self._armed != on:
            self._log.add(Switched(time.time(), self.name, CHANNEL, on))
        self._armed = on

    def _disarm(self) -> None:
        self._switch(False)
        for array in self._arrays:
            array.at_rest()
            array.membranes.clear()

    def _free(self) -> None:
        """Forget all arrays. The neurons stay where they are: who asks for the same arrays again gets the same ones."""
        self._arrays = []
        self._free_chip = TwinChip(self._chip.neuron, self._chip.seed)
        self._last, self._last_reply = None, b""
        self._tripped = False
        self._disarm()

    # -- Requests -----------------------------------------------------------------------------------------------------

    def _hello(self, payload: memoryview) -> bytes:
        _, session = _fields(wire.HELLO, payload)
        if session != self._session:
            self._session = session
            self._free()
        free = self._neurons - sum(array.twin.size for array in self._arrays)
        limit = self._chip.neuron.limit
        identity = f"{MAKER},{MODEL},{self._serial},{FIRMWARE}".encode()
        return wire.WELCOME.pack(wire.VERSION, self._boot, session, self._largest, free, limit) + identity

    def _allocate(self, payload: memoryview) -> bytes:
        size, couples, reset, numbers, _, refractory, leak, v_th, v_rest, full_scale = _fields(wire.ALLOCATE, payload)
        free = self._neurons - sum(array.twin.size for array in self._arrays)
        if not 1 <= size <= free or 4 * size + wire.BLOCK.size > self._largest:
            raise _Complaint(Code.NO_ROOM, f"{size} neurons; {free} are free, a payload holds {self._largest} bytes")
        if reset not in (0, 1) or numbers not in (FIXED_POINT, FLOAT) or not 0 < full_scale <= self._chip.neuron.limit:
            raise _Complaint(Code.OUT_OF_RANGE, f"reset {reset}, numbers {numbers}, full scale {full_scale}")
        try:
            neuron = replace(self._chip.neuron, leak=leak, v_th=v_th, v_rest=v_rest, reset=RESETS[reset], refractory=refractory)
            twin = self._free_chip.cut(size, neuron, bool(couples)).twin
        except Refused as error:
            raise _Complaint(Code.OUT_OF_RANGE, str(error)) from error
        self._arrays.append(_Array(twin, numbers, full_scale, twin.rest(0, torch.Generator())))
        thresholds = twin.spec.params
        assert thresholds is not None  # a spiking array always has thresholds
        return wire.ALLOCATED.pack(len(self._arrays) - 1, thresholds.shared_low, thresholds.shared_high)

    def _program(self, payload: memoryview) -> bytes:
        array = self._array(*_fields(wire.ARRAY, payload[: wire.ARRAY.size]))
        values = payload[wire.ARRAY.size :]
        if len(values) != 4 * array.twin.size:
            raise _Complaint(Code.BAD_PAYLOAD, f"{len(values)} bytes for {array.twin.size} thresholds")
        port = array.twin.spec.params
        assert port is not None
        try:
            array.thresholds = port.check(torch.from_numpy(np.frombuffer(values, "<f4").astype(np.float32)))
        except Refused as error:
            raise _Complaint(Code.OUT_OF_RANGE, str(error)) from error
        return b""

    def _reset(self, payload: memoryview) -> bytes:
        self._array(*_fields(wire.ARRAY, payload)).at_rest()
        return wire.STARTED.pack(self._armed, self._tripped)

    def _step(self, payload: memoryview) -> bytes:
        array, block = self._block(payload)
        currents = self._currents(array, block, payload[wire.BLOCK.size :])
        if (block.first_step or block.first_row) and array.remembered + currents.numel() > MEMBRANES:
            raise _Complaint(Code.NO_ROOM, f"the pass has more than {MEMBRANES} membranes; begin a new one")
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
            raise _Complaint(Code.NO_DATA, "no such block in the last pass")
        values: NDArray[np.generic] = membranes.numpy()
        return values.astype("<f4" if array.numbers == FLOAT else "<f2").tobytes()

    def _arm(self, payload: memoryview) -> bytes:
        (watchdog_s,) = _fields(wire.ARM, payload)
        if not 0 <= watchdog_s < 1e6:
            raise _Complaint(Code.OUT_OF_RANGE, f"watchdog {watchdog_s} s")
        self._watchdog_s, self._tripped = watchdog_s, False
        self._switch(True)
        return b""

    def _safe(self, payload: memoryview) -> bytes:
        _fields(NOTHING, payload)
        self._disarm()
        self._tripped = False
        return b""

    def _status(self, payload: memoryview) -> bytes:
        _fields(NOTHING, payload)
        return wire.STATUS.pack(self._armed, self._tripped, len(self._arrays), self._line.bad_frames)

    # -- Parts of requests --------------------------------------------------------------------------------------------

    def _array(self, number: int) -> _Array:
        if number >= len(self._arrays):
            raise _Complaint(Code.NO_ARRAY, f"array {number} of {len(self._arrays)}")
        return self._arrays[number]

    def _block(self, payload: memoryview) -> tuple[_Array, _Block]:
        number, _, first_step, steps, first_row, rows = _fields(wire.BLOCK, payload[: wire.BLOCK.size])
        array = self._array(number)
        if not steps or not rows:
            raise _Complaint(Code.BAD_PAYLOAD, f"a block of {steps} steps and {rows} rows")
        if (first_row + rows) * array.twin.size > STATE_VALUES:
            raise _Complaint(Code.NO_ROOM, f"rows up to {first_row + rows}")
        return array, _Block(first_step, steps, first_row, rows)

    def _currents(self, array: _Array, block: _Block, data: memoryview) -> Tensor:
        shape = (block.steps, block.rows, array.twin.size)
        dtype = np.dtype("<f4" if array.numbers == FLOAT else "<i2")
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise _Complaint(Code.BAD_PAYLOAD, f"{len(data)} bytes for currents {shape}")
        values = np.frombuffer(data, dtype).reshape(shape)
        if array.numbers == FIXED_POINT:
            return torch.from_numpy(values.astype(np.float32) * np.float32(array.full_scale / FULL_CODE))
        if values.size and not np.abs(values).max() <= array.full_scale:  # also catches NaN
            raise _Complaint(Code.OUT_OF_RANGE, f"currents beyond {array.full_scale:g}")
        return torch.from_numpy(values.astype(np.float32, copy=False))


def _fields(layout: struct.Struct, payload: memoryview) -> tuple[Any, ...]:
    if len(payload) != layout.size:
        raise _Complaint(Code.BAD_PAYLOAD, f"{len(payload)} bytes, not {layout.size}")
    return layout.unpack(payload)


def _grown(state: State, more: State) -> State:
    return tuple(torch.cat([part, new]) if len(new) else part for part, new in zip(state, more, strict=True))


def _bits(spikes: Tensor, couples: bool) -> bytes:
    values = spikes.numpy()
    planes = (values > 0, values < 0) if couples else (values > 0,)
    return b"".join(np.packbits(plane).tobytes() for plane in planes)
