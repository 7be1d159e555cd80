"""A microcontroller board with a 40-channel converter of 14 bits, as an AD5380, and eight inputs of 16 bits: bytes in and out.

The format of the line is in hil/frame_protocol.py; the same board in C is drivers/firmware/board.c. It powers up disarmed, with
all channels at the code `safe`, and goes there when its watchdog trips.

What is connected to an input is channel 1, 2, … of its own, unless a plant says otherwise. Numbers of the converter: AD5380
data sheet, rev. C (14 bits, 0 to twice a reference of 2.5 V).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from hil import frame_protocol as wire
from hil.errors import ContractError
from hil.frame_protocol import Code, Kind
from sim_devices.instruments.framed_board import MAKER, Complaint, FramedBoard, fields
from sim_devices.instruments.probe import Answers, Probe
from sim_devices.switch_log import SwitchLog

MODEL, FIRMWARE = "DAC-BOARD", "1.0"
CHANNELS, READINGS, BITS, READING_BITS = 40, 8, 14, 16
HIGH_V, READING_HIGH_V = 5.0, 5.0
FULL, READING_FULL = (1 << BITS) - 1, (1 << READING_BITS) - 1
LARGEST = 1 << 14
MOST_AVERAGES = 1000
LONGEST_US = 1_000_000  # of all rows of a frame


class DacBoard(Probe, FramedBoard):
    """A simulated board.

    Args:
        serial: serial number.
        clock: monotonic, s.
        gap_s: see Reassembly.
        log: of its outputs.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "DB0001", *, clock: Callable[[], float] = time.monotonic, gap_s: float = 0.25,
        log: SwitchLog | None = None, lock: threading.Condition | None = None,
    ) -> None:  # fmt: skip
        self._codes = np.zeros(CHANNELS, np.uint16)
        inputs: dict[int, Answers] = {n: partial(self._looped, n - 1) for n in range(1, READINGS + 1)}
        Probe.__init__(self, inputs)
        FramedBoard.__init__(
            self, (MAKER, MODEL, serial, FIRMWARE), HIGH_V, LARGEST, gap_s, clock, log,
            {Kind.DESCRIBE: self._describe, Kind.LEVELS: self._levels, Kind.ROWS: self._rows}, frozenset({Kind.ROWS}), lock,
        )  # fmt: skip
        self.reboot()

    @property
    def lock(self) -> threading.Condition:
        """The lock of the bench."""
        return self._lock

    def stands(self, channel: int) -> float:
        """Return the V at a channel, from 1."""
        return float(self._codes[channel - 1]) / FULL * HIGH_V

    def outputs(self) -> dict[str, object]:
        """Return whether it is armed, and what the channels hold at most."""
        with self._lock:
            armed = self.armed
            return {"1": {"on": armed, "tripped": self._tripped, "high_v": float(self._codes.max()) / FULL * HIGH_V}}

    def snapshot(self) -> dict[str, object]:
        """Raises: ContractError: always; a board begins anew with a session."""
        raise ContractError("a board keeps its state to itself", where=self.name, todo="set its channels again")

    def restore(self, state: Mapping[str, object]) -> None:
        """Raises: ContractError: always."""
        self.snapshot()

    def _looped(self, channel: int, volts: float) -> float:
        return self.stands(channel + 1)

    def _free(self) -> None: ...

    def _at_rest(self) -> None:
        self._codes[:] = 0

    def _describe(self, payload: memoryview) -> bytes:
        return wire.DESCRIBED.pack(CHANNELS, READINGS, BITS, READING_BITS, 0, 0.0, HIGH_V, 0.0, READING_HIGH_V)

    def _levels(self, payload: memoryview) -> bytes:
        if len(payload):
            if not self._armed:
                raise self._not_armed()
            self._codes[:] = self._checked(payload, 1)[0]
        return self._codes.astype("<u2").tobytes()

    def _rows(self, payload: memoryview) -> bytes:
        settle_us, averages, rows = fields(wire.ROWS, payload[: wire.ROWS.size])
        if not 1 <= averages <= MOST_AVERAGES or not rows:
            raise Complaint(Code.OUT_OF_RANGE, f"{averages} averages of {rows} rows")
        if settle_us * rows > LONGEST_US:
            raise Complaint(Code.OUT_OF_RANGE, f"rows of {settle_us * rows} us; up to {LONGEST_US}")
        sums = np.empty((rows, READINGS), "<u4")
        for row, codes in zip(sums, self._checked(payload[wire.ROWS.size :], rows), strict=True):
            self._codes[:] = codes
            row[:] = [sum(self._code(n) for _ in range(averages)) for n in self._inputs]
        return sums.tobytes()

    def _checked(self, payload: memoryview, rows: int) -> np.ndarray:
        if len(payload) != 2 * rows * CHANNELS:
            raise Complaint(Code.BAD_PAYLOAD, f"{len(payload)} bytes for {rows} rows of {CHANNELS} codes")
        codes = np.frombuffer(payload, "<u2").reshape(rows, CHANNELS)
        if codes.size and codes.max() > FULL:
            raise Complaint(Code.OUT_OF_RANGE, f"code {codes.max()}; 0 to {FULL}")
        return codes

    def _code(self, n: int) -> int:
        return min(max(round(self._inputs[n](0.0) / READING_HIGH_V * READING_FULL), 0), READING_FULL)
