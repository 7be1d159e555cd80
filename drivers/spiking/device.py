"""A board of spiking neurons on a serial line, as Devices: an array for every layer.

    currents (time, batch, size) -> spikes (time, batch, size), 0/1, or -1/0/+1 for couples

A pass is sent in blocks that fit the board's memory: as many whole time steps as possible, else rows of one step. Membranes
stay on the board until reset(). Numbers go as float32, exactly, or as int16 of limit/32767 a step, rounded. The frames are in
hil/frame_protocol.py, retries in drivers/spiking/session.py.

    v[t] = leak (v[t-1] - (v_th - v_rest) s[t-1]) + I[t],   s[t] = H(v[t] - v_th)        what the board is set up to do

Source: the board's format, version 1; Zhang et al., arXiv 2409.07776, for the neuron.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivers.auxiliaries import Auxiliaries
from drivers.closing import close_all
from drivers.read_back import Care, ForeignChange, PanelWatch, switched_off
from drivers.safe import SafeState, carry_out, switch_off_surely
from drivers.scpi import Expect, Identity
from drivers.spiking.session import FrameLink, FrameSession, LineTraffic
from drivers.spiking.talk import FrameTalk, board
from hil import frame_protocol as wire
from hil.device import ArraySpec, Port, Provenance, Spec
from hil.errors import ConfigError, ContractError, Desync, InstrumentError, UnsafeOutputs
from hil.frame_protocol import Kind
from hil.neuron import NeuronModel, Reset

Numbers = Literal["float32", "int16"]
RESETS = ("soft", "hard")
NUMBERS = ("int16", "float32")
FULL_CODE = 32767


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """The setup of an array, kept to set it up again after a reboot."""

    size: int
    couples: bool
    leak: float
    v_th: float
    v_rest: float
    reset: Reset
    refractory: int
    numbers: Numbers
    limit: float


@dataclass(frozen=True, slots=True)
class Block:
    """Steps and rows of a pass that go in one frame."""

    first_step: int
    steps: int
    first_row: int
    rows: int

    def head(self, array: int) -> bytes:
        """Pack the header of this block for `array`, as the board expects it."""
        return wire.BLOCK.pack(array, 0, self.first_step, self.steps, self.first_row, self.rows)


class SpikingBoard:
    """The board. The constructor identifies it, frees what an earlier program left, and arms it.

    Args:
        link: a SerialLink. This object owns and closes it, also when it raises; a board that was reached is switched off
            then.
        leak, v_th, v_rest, reset, refractory: of the neurons, unless an array asks for others.
        limit: largest current; None: the board's.
        numbers: on the line.
        retries: of a frame that is lost or damaged.
        watchdog_s: after so much silence the board switches itself off; 0: never. reset() switches it on again.
        session: number of the conversation, to say the same bytes as another one; None: from the clock.
        expect: who should answer.
        provenance: "twin" when the board is simulated.
        care: when the board is asked whether it is still armed and holds its arrays, and what a change leads to.
        auxiliaries: instruments beside it, started already; recovery starts them again.

    Raises:
        WrongInstrument, LinkError: see FrameSession. ConfigError: a limit that the board does not have.
    """

    def __init__(
        self,
        link: FrameLink,
        *,
        leak: float = 0.5,
        v_th: float = 1.0,
        v_rest: float = 0.0,
        reset: Reset = "soft",
        refractory: int = 0,
        limit: float | None = None,
        numbers: Numbers = "float32",
        retries: int = 3,
        watchdog_s: float = 60.0,
        session: int | None = None,
        expect: Expect | None = None,
        provenance: Provenance = "unknown",
        care: Care | None = None,
        auxiliaries: Auxiliaries | None = None,
    ) -> None:
        try:
            _check_names(reset, numbers)
            self._session = FrameSession(link, retries=retries, expect=expect, session=session)
        except BaseException:
            link.close()
            raise
        self._leak, self._v_th, self._v_rest, self._reset, self._refractory = leak, v_th, v_rest, reset, refractory
        self._numbers: Numbers = numbers
        self._watchdog_s, self._provenance = watchdog_s, provenance
        self._arrays: list[BoardArray] = []
        self._whole = True  # the board holds every array, thresholds included
        self._closed = False
        self._armed = False  # this program armed it, and did not disarm it
        self._off_by_hand = False
        self._beside = auxiliaries or Auxiliaries()
        self._watch = PanelWatch([self, *self._beside.looked], care)
        try:
            self._limit = self._checked_limit(limit)
            self.arm()
            self._learn()
        except BaseException:  # the board may be armed though its answer never came
            self.close()
            raise

    @property
    def identity(self) -> Identity:
        """Maker, model, serial number and firmware, as the board says them."""
        return self._session.welcome.identity

    @property
    def traffic(self) -> LineTraffic:
        """Bytes and faults on the line since it was opened."""
        return self._session.traffic

    @property
    def retransmitted(self) -> int:
        """Frames that were lost or damaged, either way, and sent again."""
        return self._session.traffic.repeated

    def array(self, spec: ArraySpec) -> BoardArray:
        """The next free neurons of the board.

        Raises:
            CommandRefused: no room, or settings that the board does not have.
        """
        neuron = {"leak": self._leak, "v_th": self._v_th, "v_rest": self._v_rest, **spec.design}
        layout = ArrayLayout(
            spec.size, spec.couples, **neuron, reset=self._reset, refractory=self._refractory, numbers=self._numbers,
            limit=self._limit,
        )  # fmt: skip
        array = BoardArray(self, self._session, layout, self._provenance)
        self._arrays.append(array)
        return array

    def arm(self) -> None:
        """Let currents flow, and start the watchdog.

        Raises:
            SwitchedOff: somebody else disarmed the board since it was armed.
        """
        if self._off_by_hand:
            raise switched_off(self.name)
        self._session.ask(Kind.ARM, wire.ARM.pack(self._watchdog_s))
        self._armed = True

    # What a PanelWatch asks.

    @property
    def name(self) -> str:
        """Name of the board with its address, for messages."""
        return f"board at {self._session.where}"

    def settle(self) -> None:
        """Do nothing: the board says of its settings only how many arrays it holds."""

    def held(self) -> dict[str, object]:
        """Ask the board for its state: armed or not, tripped by its watchdog or not, how many arrays."""
        armed, tripped, arrays, _ = wire.fields(wire.STATUS, self._session.ask(Kind.STATUS), self._session.where)
        return {"armed": bool(armed), "tripped": bool(tripped), "arrays": int(arrays)}

    def findings(self) -> list[ForeignChange]:
        """Find out whether somebody disarmed it, or arrays are gone; a watchdog that tripped is seen by reset()."""
        held, due = self.held(), len(self._arrays)
        if held["arrays"] != due:
            return [ForeignChange("power", f"arrays {due} -> {held['arrays']}")]
        if self._armed and due and not held["armed"] and not held["tripped"]:
            self._off_by_hand = True
            return [ForeignChange("off", "armed -> disarmed")]
        return []

    def look_if_due(self) -> None:
        """Look at the end of a pass, if it is time. Raises: SwitchedOff, Changed: as of a PanelWatch."""
        self._watch.shot()
        self._watch.due()

    def _learn(self) -> None:
        """Keep what the instruments beside the board say as what is due, after they were started."""
        if self._beside.looked:
            self._watch.begin()

    def rearm(self) -> None:
        """Arm again after the watchdog tripped. The membranes of all arrays went to rest, in the middle of a pass or not."""
        self.lose()
        self.arm()

    def lose(self) -> None:
        """Note that membranes are unknown: every array wants a reset()."""
        for array in self._arrays:
            array.lose()

    # The rungs of hil/devices/recovery.py.

    def clear(self) -> None:
        """Empty the line, and the wires of the instruments beside it."""
        self._session.clear()
        self._beside.clear()

    def reopen(self) -> None:
        """Open the port anew, and the wires of the instruments beside the board."""
        self._session.reopen()
        self._beside.reopen()

    def identify(self) -> str:
        """The same board must answer, and the same instruments beside it.

        Raises:
            WrongInstrument: another one answers. LinkError: nobody does.
        """
        same = self._session.identify()
        self._armed = self._armed and same  # it powers up disarmed
        said = f"{self.identity.model} {self.identity.serial} answers" + ("" if same else ", and was rebooted since")
        return "; ".join([said, *self._beside.identify()])

    def reinstate(self) -> None:
        """Set everything up again after a reboot. Membranes count as lost: call reset() of every array.

        Instruments beside the board are made safe and started again, the board is disarmed meanwhile, in the order of [safe].

        Raises:
            SwitchedOff: somebody else disarmed the board, or switched off an instrument beside it.
        """
        self.lose()
        found = self._watch.before_reset()
        if self._beside:
            self._beside.reset(self._switch_off)
            self._beside.start()
            self._learn()
        if found or not self._whole:
            self._armed = False
            self._whole = False  # until all of them hold what they held: a fault in between must not look like success
            self._session.begin_anew()
            for array in self._arrays:
                array.set_up()
            self._whole = True

    def verify(self) -> str:
        """Verify that it is armed, and knows every array."""
        self.arm()
        armed, _, arrays, _ = wire.fields(wire.STATUS, self._session.ask(Kind.STATUS), self._session.where)
        if not armed or arrays != len(self._arrays):
            raise InstrumentError(
                "the board does not hold what it was told", where=self._session.where,
                got=f"{arrays} arrays, {'armed' if armed else 'not armed'}", allowed=f"{len(self._arrays)} arrays, armed",
                outputs="off until it is armed", todo="switch the board off and on",
            )  # fmt: skip
        return f"{arrays} arrays, armed"

    def recover(self) -> None:
        """Go up all rungs in a row, with the session's own patience. Membranes count as lost: call reset().

        Raises:
            WrongInstrument: another board answers. LinkError: nobody does.
        """
        self._session.recover()
        self.reinstate()
        self.verify()

    def safe_state(self) -> SafeState:
        """Describe the safe state: disarmed, of the board that was identified."""
        who = self.identity
        outputs = f"unknown; the board's watchdog trips after {self._watchdog_s:g} s" if self._watchdog_s else "unknown"
        return board("board", self._session.where, Expect(who.maker, who.model, who.serial), outputs)

    def safe(self) -> None:
        """Switch currents off, and read it back. After a fault of the link, or a Ctrl-C, try once more.

        Raises:
            UnsafeOutputs: they could not be switched off, or not be verified. KeyboardInterrupt: they are off all the same.
        """
        switch_off_surely(self._switch_off, lambda: self._session.recover(attempts=1), self._unsafe)

    def _unsafe(self, got: str) -> UnsafeOutputs:
        return UnsafeOutputs(
            "the board could not be verified to be off", where=f"{self._session.where}, {self.identity}", got=got,
            outputs=self.safe_state().outputs, todo="switch the board off, then look at cable and power",
        )  # fmt: skip

    def close(self) -> None:
        """Switch off, verify it, and close the link; the second call does nothing.

        Raises:
            UnsafeOutputs: the link is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        close_all([self.safe, self._session.close])

    def _switch_off(self) -> None:
        self._armed = False
        carry_out(self.safe_state(), FrameTalk(self._session))

    def _checked_limit(self, limit: float | None) -> float:
        highest = self._session.welcome.limit
        if limit is None or 0 < limit <= highest:
            return highest if limit is None else limit
        raise ConfigError(
            "limits may be narrowed, never widened", where="spiking board", got=f"limit {limit:g}",
            allowed=f"above 0, up to {highest:g}",
        )  # fmt: skip


class BoardArray:
    """Neurons of a board as a Device. Made by `SpikingBoard.array`."""

    def __init__(self, board: SpikingBoard, session: FrameSession, layout: ArrayLayout, provenance: Provenance) -> None:
        self._board, self._session, self._layout = board, session, layout
        self._thresholds: NDArray[np.float32] | None = None
        self._batch: int | None = None  # since the last reset
        self._lost = False
        self._pass: tuple[int, int] | None = None  # steps and rows of the last pass
        low, high = self.set_up()
        size, limit = layout.size, layout.limit
        self._thresholds_port = Port("thresholds", low, high, "1", size)
        self._spec = Spec(
            inputs=Port("membrane current", -limit, limit, "1", size),
            outputs=Port("spikes", -1.0 if layout.couples else 0.0, 1.0, "1", size),
            params=self._thresholds_port,
            temporal=True,
            provenance=provenance,
            neurons=NeuronModel(layout.leak, layout.v_th, layout.v_rest, layout.reset, layout.refractory),
        )

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance of this array."""
        return self._spec

    def set_up(self) -> tuple[float, float]:
        """Allocate the neurons on the board, thresholds included; lowest and highest threshold that it takes."""
        a = self._layout
        request = wire.ALLOCATE.pack(
            a.size,
            a.couples,
            RESETS.index(a.reset),
            NUMBERS.index(a.numbers),
            0,
            a.refractory,
            a.leak,
            a.v_th,
            a.v_rest,
            a.limit,
        )
        self._number, low, high = wire.fields(wire.ALLOCATED, self._session.ask(Kind.ALLOCATE, request), self._session.where)
        if self._thresholds is not None:
            self._send_thresholds(self._thresholds)
        return low, high

    def program(self, params: Tensor) -> None:
        """Program thresholds (size,)."""
        self._thresholds_port.check(params)
        values = params.detach().cpu().numpy().astype(np.float32)
        if values.ndim != 1:
            raise ContractError("thresholds are a vector", where=self._where, got=f"shape {values.shape}")
        self._send_thresholds(values)
        self._thresholds = values

    def reset(self) -> None:
        """Bring membranes to rest. Arm the board again if its watchdog has tripped."""
        _, tripped = wire.fields(
            wire.STARTED, self._session.ask(Kind.RESET, wire.ARRAY.pack(self._number)), self._session.where
        )
        if tripped:
            self._board.rearm()
        self._batch, self._lost = None, False

    def lose(self) -> None:
        """Note that membranes are unknown, unless they are at rest."""
        self._lost = self._batch is not None

    def forward(self, x: Tensor) -> Tensor:
        """Answer currents (time, batch, size) with spikes of the same shape.

        Raises:
            OutOfRange, ContractError: before anything is sent.
            CommandRefused: switched off, or not this board's. LinkError: after all retries. The membranes are then
                unknown, and nothing more is sent until reset().
        """
        self._spec.inputs.check(x)
        self._check(x)
        steps, rows = x.shape[:2]
        self._batch, self._lost = rows, True
        currents = self._encoded(x)
        spikes = np.empty(x.shape, np.float32)
        for block in self._blocks(steps, rows):
            at = np.s_[block.first_step : block.first_step + block.steps, block.first_row : block.first_row + block.rows]
            reply = self._session.ask(Kind.STEP, block.head(self._number), _bytes(currents[at]))
            spikes[at] = self._decoded(reply, (block.steps, block.rows, self._layout.size))
        self._board.look_if_due()
        self._pass, self._lost = (steps, rows), False
        return torch.from_numpy(spikes).to(x.device)

    def monitor(self) -> Tensor:
        """Read membranes (time, batch, size) of the last `forward`, before the reset. float16 beside int16.

        Raises:
            ContractError: nothing was run yet. CommandRefused: the board has forgotten them.
        """
        if self._pass is None:
            raise ContractError("no membranes yet", where=self._where, got="monitor()", allowed="after forward()")
        steps, rows = self._pass
        membranes = np.empty((steps, rows, self._layout.size), np.float32)
        dtype = np.dtype("<f4" if self._layout.numbers == "float32" else "<f2")
        for block in self._blocks(steps, rows):
            reply = self._session.ask(Kind.MONITOR, block.head(self._number))
            shape = (block.steps, block.rows, self._layout.size)
            self._check_length(reply, int(np.prod(shape)) * dtype.itemsize)
            at = np.s_[block.first_step : block.first_step + block.steps, block.first_row : block.first_row + block.rows]
            membranes[at] = np.frombuffer(reply, dtype).reshape(shape)
        return torch.from_numpy(membranes)

    def close(self) -> None:
        """Close the whole board, all its arrays, safe. May be called twice."""
        self._board.close()

    @property
    def _where(self) -> str:
        return f"array {self._number} of the board at {self._session.where}"

    def _check(self, x: Tensor) -> None:
        if x.ndim != 3:
            raise ContractError(
                "a spiking array needs a time axis", where=self._where, got=f"shape {tuple(x.shape)}",
                allowed="(time, batch, size)", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        if self._lost or self._batch not in (None, x.shape[1]):
            raise ContractError(
                "the membranes on the board do not belong to this batch", where=self._where,
                got="a pass that failed, or a watchdog that tripped" if self._lost else f"a batch of {x.shape[1]}",
                allowed="a reset() first" if self._lost else f"{self._batch} rows until reset()",
                outputs="unchanged; nothing was sent", todo="call reset() and repeat the whole sequence",
            )  # fmt: skip

    def _blocks(self, steps: int, rows: int) -> Iterator[Block]:
        """A pass in pieces: whole steps, else rows of one step."""
        item = 4 if self._layout.numbers == "float32" else 2
        room = (self._session.welcome.largest_bytes - wire.BLOCK.size) // (item * self._layout.size)
        at_once = max(1, room // max(1, rows))
        for step in range(0, steps, at_once):
            for row in range(0, rows, min(room, rows)):
                yield Block(step, min(at_once, steps - step), row, min(room, rows - row))

    def _encoded(self, x: Tensor) -> NDArray[np.generic]:
        values: NDArray[np.float32] = x.detach().cpu().numpy()
        if self._layout.numbers == "float32":
            return values.astype("<f4", copy=False)
        codes: NDArray[np.int16] = np.rint(values * np.float32(FULL_CODE / self._layout.limit)).astype("<i2")
        return codes

    def _decoded(self, reply: memoryview, shape: tuple[int, int, int]) -> NDArray[np.generic]:
        count = int(np.prod(shape))
        plane = -(-count // 8)
        self._check_length(reply, plane * (2 if self._layout.couples else 1))
        data = np.frombuffer(reply, np.uint8)
        spikes: NDArray[np.generic] = np.unpackbits(data[:plane], count=count).reshape(shape)
        if self._layout.couples:
            spikes = spikes.astype(np.float32) - np.unpackbits(data[plane:], count=count).reshape(shape)
        return spikes

    def _check_length(self, reply: memoryview, due: int) -> None:
        if len(reply) != due:
            raise Desync(
                "a reply of the wrong length", where=self._where, got=f"{len(reply)} bytes", allowed=f"{due}",
                todo="the board's firmware does not keep format version 1",
            )  # fmt: skip

    def _send_thresholds(self, values: NDArray[np.float32]) -> None:
        self._session.ask(Kind.PROGRAM, wire.ARRAY.pack(self._number), _bytes(values.astype("<f4")))


def _check_names(reset: str, numbers: str) -> None:
    if reset not in RESETS or numbers not in NUMBERS:
        raise ConfigError(
            "no such setting", where="spiking board", got=f"reset {reset}, numbers {numbers}",
            allowed=f"reset {' or '.join(RESETS)}; numbers {' or '.join(NUMBERS)}",
        )  # fmt: skip


def _bytes(values: NDArray[np.generic]) -> memoryview:
    """View an array as bytes, as it lies in memory."""
    flat: NDArray[np.uint8] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return flat.data
