"""A board of converters behind a microcontroller: many levels, some readings, a watchdog that brings them to safe codes.

    DESCRIBE              how many channels and readings, bits, ranges, the safe code
    ARM <watchdog>        channels may be set; silence for so long, and the board disarms itself
    LEVELS <codes>        all channels at once, in one frame; answered with the codes that they hold
    ROWS <settle, rows>   row after row: hold, wait, read; a batch in one frame, timed by the board
    SAFE, STATUS          disarmed, all channels at the safe code

Source: hil/frame_protocol.py for the frames. drivers/firmware/board.c is the board: C for a microcontroller with a serial line,
and an AD5380 (40 channels, 14 bits; data sheet rev. C). It has run on a computer (tests/drivers/test_dac_board.py), on no board
yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from drivers.closing import close_all
from drivers.links.serial_link import SerialLink
from drivers.read_back import ForeignChange, Value, switched_off
from drivers.safe import SafeState, carry_out, switch_off_surely
from drivers.scpi import Expect
from drivers.spiking.session import FrameLink, FrameSession
from drivers.spiking.talk import FrameTalk, board
from hil import frame_protocol as wire
from hil.device import Port
from hil.errors import CommandRefused, ConfigError, ContractError, UnsafeOutputs
from hil.frame_protocol import Kind
from hil.port import each

BAUD = 115200
LONGEST_S = 0.5  # a frame of rows takes so long at most, or the line would look dead
MOST_AVERAGES = 1000


class DacBoard:
    """The board: it holds V on its channels and reads V at its inputs.

    Args:
        address: its serial port.
        channels: those that a node drives, from 1; the others hold the safe code, brought inside the limits.
        inputs: those that are read, from 1.
        low_v, high_v: narrower limits of the levels, V.
        averages: readings of an input that are averaged.
        watchdog_s: after so much silence the board switches itself off; 0: never.
        called: how messages name it.
        expect: who should answer.
        beat: called at every use of the line.
        link: instead of `address`: a line that is open already; this object owns it.
        session: number of the conversation, to say the same bytes as another one; None: from the clock.

    Raises:
        OutOfRange, ConfigError: wider limits than the board's, or channels that it does not have. WrongInstrument, LinkError.
    """

    simulated = False  # a bench says so by itself
    baud = BAUD

    def __init__(
        self,
        address: str = "",
        *,
        channels: tuple[int, ...] = (1,),
        inputs: tuple[int, ...] = (1,),
        low_v: float = 0.0,
        high_v: float = 5.0,
        averages: int = 1,
        watchdog_s: float = 60.0,
        called: str = "board",
        expect: Expect | None = None,
        beat: Callable[[], None] | None = None,
        link: FrameLink | None = None,
        session: int | None = None,
    ) -> None:
        self.channels, self.inputs, self._averages, self._watchdog_s = tuple(channels), tuple(inputs), averages, watchdog_s
        self._called, self._closed, self._armed = called, False, False
        self._off_by_hand = False
        if not 1 <= averages <= MOST_AVERAGES or not 0 <= watchdog_s < 1e6:
            raise ConfigError(
                "no such averages or watchdog", where=called, got=f"{averages}, {watchdog_s:g} s",
                allowed=f"1 to {MOST_AVERAGES}, 0 to 1e6 s", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        line = link or SerialLink(address, baud=self.baud, beat=beat)
        try:
            who = expect or Expect()
            known = Expect(who.maker or "HIL", who.model or "DAC-BOARD", who.serial)
            self._session = FrameSession(line, expect=known, session=session)
            self.identity = self._session.welcome.identity
            self._describe(low_v, high_v)
        except BaseException:
            line.close()
            raise

    def _describe(self, low_v: float, high_v: float) -> None:
        (count, inputs, bits, reading_bits, safe, *ranges) = self._ask(Kind.DESCRIBE, wire.DESCRIBED)
        low, high, reading_low, reading_high = ranges
        for asked, there, what in ((self.channels, count, "channels"), (self.inputs, inputs, "inputs")):
            if not asked or len(set(asked)) != len(asked) or not set(asked) <= set(range(1, there + 1)):
                raise ConfigError(
                    f"the board has no such {what}", where=self._called, got=f"{what} = {list(asked)}",
                    allowed=f"1 to {there}, each once", outputs="at the safe code",
                )  # fmt: skip
        self._low, self._step = low, (high - low) / ((1 << bits) - 1)
        self._reading_low, self._reading_step = reading_low, (reading_high - reading_low) / ((1 << reading_bits) - 1)
        Port(f"{self._called} channels", low, high, "V").narrowed(low_v, high_v)
        self.drive = Port(
            f"{self._called} channels", low_v, high_v, "V", len(self.channels), rest=self._volts(safe, low_v, high_v)
        )
        self.reading = Port(f"{self._called} inputs", reading_low, reading_high, "V", len(self.inputs))
        self._codes: NDArray[np.uint16] = np.full(count, safe, np.uint16)
        self._safe_code, self._inputs = safe, inputs
        self._at = np.array([each(limit, self.drive.size) for limit in (self.drive.low, self.drive.high)])

    def _volts(self, code: int, low_v: float, high_v: float) -> float:
        return float(min(max(self._low + code * self._step, low_v), high_v))

    def _ask(self, kind: Kind, layout: object, *payload: bytes) -> tuple:  # type: ignore[type-arg]
        return wire.fields(layout, self._session.ask(kind, *payload), self._session.where)  # type: ignore[arg-type]

    # ---- what it holds and reads ------------------------------------------------------------------------------------------

    def _coded(self, rows: Sequence[Sequence[float]]) -> NDArray[np.uint16]:
        """Codes of all channels (rows, channels of the board). Raises: OutOfRange: nothing was sent."""
        wanted = torch.tensor([list(row) for row in rows], dtype=torch.float32)
        self.drive.check(wanted)
        volts = wanted.double().numpy().clip(*self._at)
        codes = np.tile(self._codes, (len(rows), 1))
        found = np.rint((volts - self._low) / self._step)
        inside = [
            np.ceil((self._at[0] - self._low) / self._step - 1e-6),
            np.floor((self._at[1] - self._low) / self._step + 1e-6),
        ]
        codes[:, [k - 1 for k in self.channels]] = found.clip(*inside)  # the nearest code that is inside the limits
        return codes

    def levels(self, values: Sequence[float]) -> None:
        """Set all channels of `drive`, V, and compare what the board holds.

        Raises:
            OutOfRange: nothing was sent. CommandRefused: it is not armed, or holds others.
        """
        codes = self._coded([values])[0]
        self.prepare()
        found = np.frombuffer(self._session.ask(Kind.LEVELS, codes.astype("<u2").tobytes()), "<u2")
        if not np.array_equal(found, codes):
            raise CommandRefused("the board did not take the levels", where=self._called, got=str(found[:8].tolist()),
                                 allowed=str(codes[:8].tolist()), outputs="unknown")  # fmt: skip
        self._codes = codes

    def read(self) -> list[float]:
        """Read every input of `reading`, V, averaged."""
        return self._through(self._codes[None, :], 0.0)[0]

    def sweep(self, rows: Sequence[Sequence[float]], settle_s: float) -> list[list[float]]:
        """Hold each row, (rows, channels) in V, and read after `settle_s`: (rows, inputs) in V. The last row stays.

        Raises:
            OutOfRange, ContractError: nothing was sent. CommandRefused: it is not armed.
        """
        if not rows or not 0 <= settle_s <= LONGEST_S:
            raise ContractError("no such rows", where=self._called, got=f"{len(rows)} rows, {settle_s:g} s",
                                allowed=f"1 or more, 0 to {LONGEST_S:g} s")  # fmt: skip
        codes = self._coded(rows)
        room = (self._session.welcome.largest_bytes - wire.ROWS.size) // (2 * codes.shape[1])
        most = max(1, min(room, int(LONGEST_S / max(settle_s + 1e-5 * self._averages * self._inputs, 1e-4))))
        return [row for k in range(0, len(codes), most) for row in self._through(codes[k : k + most], settle_s)]

    def _through(self, codes: NDArray[np.uint16], settle_s: float) -> list[list[float]]:
        self.prepare()
        head = wire.ROWS.pack(round(1e6 * settle_s), self._averages, len(codes))
        answer = self._session.ask(Kind.ROWS, head, np.ascontiguousarray(codes, "<u2").tobytes())
        if len(answer) != 4 * len(codes) * self._inputs:
            raise wire.damaged(self._session.where, f"{len(answer)} bytes of readings")
        self._codes = codes[-1].copy()
        means = np.frombuffer(answer, "<u4").reshape(len(codes), self._inputs) / self._averages
        volts = self._reading_low + means * self._reading_step
        found: list[list[float]] = volts[:, [k - 1 for k in self.inputs]].tolist()
        return found

    # ---- arming and its safe state ----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Arm the board, if it is not: its channels then hold what they held, the safe code.

        Raises:
            SwitchedOff: somebody else disarmed it.
        """
        if self._off_by_hand:
            raise switched_off(self.name)
        if not self._armed:
            self._session.ask(Kind.ARM, wire.ARM.pack(self._watchdog_s))
            self._armed = True

    def output(self, on: bool) -> None:
        """Arm it, or bring all channels to the safe code. Raises: CommandRefused, SwitchedOff."""
        if on and self._closed:
            raise ContractError(
                f"the {self._called} is closed", where=self._called, got="output on", outputs="being switched off"
            )
        if on:
            self.prepare()
        else:
            self._switch_off()

    def safe_state(self) -> SafeState:
        """Describe it: disarmed, of the board that answered."""
        who, port = self.identity, self.drive
        outputs = f"unknown; if it still runs, {port.shared_low:g} to {port.shared_high:g} V"
        return board(self._called, self._session.where, Expect(who.maker, who.model, who.serial), outputs)

    def _switch_off(self) -> None:
        self.forget()
        carry_out(self.safe_state(), FrameTalk(self._session))
        self._codes[:] = self._safe_code

    def safe(self) -> None:
        """Disarm it, read back; after a fault of the line once more over a line that was opened anew. Raises: UnsafeOutputs."""
        switch_off_surely(self._switch_off, self._open_anew, self._unsafe)

    def _open_anew(self) -> None:
        self._session.reopen()
        self._session.identify()

    def _unsafe(self, got: str) -> UnsafeOutputs:
        return UnsafeOutputs(
            "the board could not be verified to be disarmed", where=f"{self._called}, {self.identity.serial}", got=got,
            outputs=self.safe_state().outputs, todo="press SAFE on the board, then look at its power and cable",
        )  # fmt: skip

    def close(self) -> None:
        """Disarm it, verify it, and close the line; the second call does nothing. Raises: UnsafeOutputs."""
        if not self._closed:
            self._closed = True
            close_all([self.safe, self._session.close])

    # ---- what a PanelWatch asks, and the rungs of recovery ----------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self._called} {self.identity.serial}"

    @property
    def panel(self) -> DacBoard:
        """The board says what it holds by itself."""
        return self

    def held(self) -> Mapping[str, Value]:
        """Ask whether it is armed, and whether its channels hold what was set."""
        armed, tripped, _, _ = self._ask(Kind.STATUS, wire.STATUS)
        codes = np.frombuffer(self._session.ask(Kind.LEVELS), "<u2")
        return {
            "armed": bool(armed),
            "tripped": bool(tripped),
            "levels": "same" if np.array_equal(codes, self._codes) else "other",
        }

    def settle(self) -> None:
        """Do nothing: what was set was compared at once."""

    def findings(self) -> list[ForeignChange]:
        """Find out whether it was disarmed, lost its power, or holds other levels."""
        if not self._armed:
            return []
        held = self.held()
        if held["tripped"]:
            return [ForeignChange("power", "its watchdog tripped")]
        if not held["armed"]:
            if not self._session.identify():
                return [ForeignChange("power", "it was switched off and on")]
            self._off_by_hand = True
            return [ForeignChange("off", "armed -> disarmed")]
        return [] if held["levels"] == "same" else [ForeignChange("setting", "levels are others")]

    def lock_out(self) -> str:
        """Return why it cannot be locked: it has one key, which makes it safe."""
        return "it has no lock"

    def forget(self) -> None:
        """Arm it again next time."""
        self._armed = False

    def reset(self) -> None:
        """Disarm it, whatever it held. Raises: SwitchedOff: somebody else did."""
        if self._off_by_hand:
            raise switched_off(self.name)
        self._switch_off()

    def clear(self) -> None:
        """Empty the line."""
        self.forget()
        self._session.clear()

    def reopen(self) -> None:
        """Open the line anew."""
        self.forget()
        self._session.reopen()

    def identify(self) -> str:
        """The same board must answer; return who it is. Raises: WrongInstrument, LinkError."""
        same = self._session.identify()
        return f"{self.identity.model} {self.identity.serial} answers" + ("" if same else ", and was switched off and on since")
