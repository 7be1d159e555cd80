"""A Moku:Go as a Device, through the maker's package: its waveform generator drives a node, its oscilloscope reads it.

    output 1   | lead: rest | low | high | rest |  values, one a symbol  | tail: rest |      over and over
    trigger    | high                            | low                                |      inside the Moku alone, channel 2
    input 1    a frame from the trigger's edge on; reading k = mean of the points in the last part of symbol k + delay

Both instruments run at once, in multi-instrument mode: slot 1 generates, slot 2 records, and the trigger goes from one to the
other without a cable. The package scales a table by its largest value, so each has both limits in it. A frame has fewer points
than were asked for, but at least half. Only one program owns a Moku, so the device lives in a host
(docs/how-to/use_lab_packages.md).

Source: the package moku 4.4.0, docstrings of MultiInstrument, ArbitraryWaveformGenerator and Oscilloscope;
https://apis.liquidinstruments.com
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from drivers.closing import close_all
from drivers.packages import needed
from hil.device import Port, Provenance, Spec
from hil.errors import (
    CommandRefused,
    ConfigError,
    ContractError,
    HilError,
    InstrumentError,
    LinkError,
    NotAReading,
    OpenFailed,
    Saturated,
    UnsafeOutputs,
)
from hil.settings import NotNegative, Positive

Volts = NDArray[np.float64]
LEAD, MARK, TAIL = 8, 2, 8  # symbols: before, of each limit, behind; a rest of LEAD behind the limits
POINTS = tuple(1 << power for power in range(7, 15))  # that a frame may be asked for
HIGHEST_V, LEAST_VPP = 5.0, 4e-3  # of an output
RANGES = {"0dB": 5.0, "14dB": 25.0}  # attenuation of an input -> V either side
NEAR_RAIL = 0.999
SIMULATED = "SIM"
BY_HAND = "switch the output off in the Moku app"


class MokuGo:
    """Output 1 drives, input 1 reads.

    Args:
        address: of the Moku, "192.168.1.40", or "[fe80::…%eth0]".
        low_v, high_v: limits of the output, V.
        rest_v: what it is at between values; None: 0, or the limit next to it.
        symbol_rate_hz: values a second.
        values: in a frame, at most.
        settle: part of a symbol that is discarded.
        delay_s: from the output to the input, through the node.
        attenuation: of the input: "0dB" for 5 V either side, "14dB" for 25 V.
        timeout_s: longest wait for a frame.
        force: take the Moku from whoever owns it.

    Raises:
        ConfigError: the package is not installed, or settings make no sense. OpenFailed: nobody answers, or somebody owns it.
    """

    def __init__(
        self,
        address: str,
        low_v: float,
        high_v: float,
        *,
        rest_v: float | None = None,
        symbol_rate_hz: Positive = 100e3,
        values: Annotated[int, Field(ge=1, le=2000)] = 1000,
        settle: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        delay_s: NotNegative = 0.0,
        attenuation: Literal["0dB", "14dB"] = "0dB",
        timeout_s: Positive = 5.0,
        force: bool = False,
    ) -> None:
        self._package: Any = needed("moku.instruments", "moku")
        self._drive = Port("Moku output 1", low_v, high_v, "V", rest=rest_v)
        self._low, self._high = float(low_v), float(high_v)
        if max(abs(low_v), abs(high_v)) > HIGHEST_V or high_v - low_v < LEAST_VPP:
            raise ConfigError(
                "a Moku:Go has no such output", where="low, high", got=f"{low_v:g} to {high_v:g} V",
                allowed=f"within {HIGHEST_V:g} V either side, {LEAST_VPP:g} V apart or more",
            )  # fmt: skip
        self._rate_hz, self._values, self._settle, self._delay_s = symbol_rate_hz, values, settle, delay_s
        self._full_v, self._attenuation, self._timeout_s = RANGES[attenuation], attenuation, timeout_s
        self._rest = self._level(np.array(float(self._drive.resting().reshape(-1)[0])))
        self._first = LEAD + 2 * MARK + LEAD
        self._symbols = self._first + values + TAIL + math.ceil(delay_s * symbol_rate_hz)
        kept = [
            points / 2 * (1 - settle) / self._symbols for points in POINTS
        ]  # of a symbol, in the shortest frame that may come
        if kept[-1] < 1:
            raise ConfigError(
                "a frame has too few points for so many values", where="values", got=f"{values}, settle = {settle:g}",
                allowed=f"one point in each at least: {POINTS[-1] // 2} points a frame", todo="lower values, or settle",
            )  # fmt: skip
        self._points = next((points for points, each in zip(POINTS, kept, strict=True) if each >= 2), POINTS[-1])
        self._where, self._moku, self._ready = f"Moku {address}", None, False
        with self._mapped("opening", OpenFailed):
            self._moku = self._package.MultiInstrument(address, platform_id=2, force_connect=force)
        try:
            with self._mapped("setting up"):
                self._set_up()
                serial = str(self._moku.serial_number())
            provenance: Provenance = "twin" if serial.startswith(SIMULATED) else "real"
            reading = Port("Moku input 1", -self._full_v, self._full_v, "V")
            self._spec = Spec(self._drive, reading, provenance=provenance)
        except BaseException:
            self._release()
            raise

    @property
    def spec(self) -> Spec:
        """Output 1 and input 1, in V; any number of values a row."""
        return self._spec

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n) in V -> (batch, n) in V, value by value.

        Raises:
            OutOfRange: before anything is sent. InstrumentError: the Moku complains, or gives another frame. LinkError.
            NotAReading: a point that is no number. Saturated: a point at the end of the range.
        """
        rows = self._spec.inputs.check(x).detach().to("cpu", torch.float64)
        if self._moku is None:
            raise ContractError("this device is closed", where=self._where, outputs="off", todo="make a new one")
        flat, parts = rows.reshape(-1).numpy().clip(self._low, self._high), []
        for begin in range(0, len(flat), self._values):
            parts.append(self._played(flat[begin : begin + self._values]))
        found = np.concatenate(parts) if parts else np.empty(0)
        return torch.from_numpy(found.astype(np.float32)).reshape(x.shape)

    def safe(self) -> None:
        """Switch both channels of the generator off, as it says. Raises: UnsafeOutputs."""
        self._ready = False
        try:
            with self._mapped("switching off"):
                said = [self._awg.enable_output(channel, enable=False).get("enable") for channel in (1, 2)]
        except HilError as error:
            raise self._unsafe(str(error).splitlines()[0]) from error
        if any(on is not False for on in said):
            raise self._unsafe(f"enable = {said}")

    def close(self) -> None:
        """Switch off, and let others own the Moku. May be called twice. Raises: UnsafeOutputs."""
        if self._moku is not None:
            close_all([self.safe, self._release])

    # ---- the two instruments ----------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        moku: Any = self._moku
        self._awg = moku.set_instrument(1, self._package.ArbitraryWaveformGenerator)
        for channel in (1, 2):
            self._awg.enable_output(channel, enable=False)
        self._scope = moku.set_instrument(2, self._package.Oscilloscope)
        routes = {"Output1": "Slot1OutA", "Slot2InA": "Slot1OutB", "Slot2InB": "Input1"}
        moku.set_connections([{"source": source, "destination": there} for there, source in routes.items()])
        moku.set_frontend(1, "1MOhm", "DC", attenuation=self._attenuation)
        self._scope.set_trigger(type="Edge", source="ChannelA", level=0.0, edge="Rising", mode="Normal")
        self._scope.set_timebase(0.0, self._symbols / self._rate_hz, max_length=self._points)
        edge = np.where(np.arange(self._symbols) < self._symbols // 2, 1.0, -1.0)
        self._generate(2, edge, 2.0, 0.0)

    def _generate(self, channel: int, table: Volts, amplitude: float, offset: float) -> None:
        """Play a table of -1 to 1, one entry a symbol, and see that it was taken."""
        wanted = {"frequency": self._rate_hz / len(table), "amplitude": amplitude, "offset": offset}
        said = self._awg.generate_waveform(channel=channel, sample_rate="Auto", lut_data=table.tolist(), **wanted)
        for name, value in wanted.items():
            if not math.isclose(float(said.get(name, math.nan)), value, rel_tol=1e-6, abs_tol=1e-6):
                raise CommandRefused(
                    f"the generator did not take its {name}", where=self._where, got=f"{said.get(name)}", allowed=f"{value:g}",
                    outputs="inside their limits",
                )  # fmt: skip

    def _played(self, volts: Volts) -> Volts:
        """Play up to `values` values, and read each."""
        table = np.full(self._symbols, self._rest)
        table[LEAD : LEAD + 2 * MARK] = [-1.0] * MARK + [1.0] * MARK
        table[self._first : self._first + len(volts)] = self._level(volts)
        with self._mapped("a frame"):
            self._generate(1, table, self._high - self._low, 0.5 * (self._high + self._low))
            if not self._ready:
                for channel in (2, 1):
                    self._awg.enable_output(channel, enable=True)
                self._ready = True
            self._awg.sync_phase()
            frame = self._scope.get_data(timeout=self._timeout_s, wait_reacquire=True, wait_complete=True)
        return self._read(frame)[: len(volts)]

    def _read(self, frame: Any) -> Volts:
        """Average the points of each value. Raises: NotAReading, Saturated, InstrumentError."""
        seconds, volts = (np.asarray(frame.get(name, ()), float) for name in ("time", "ch2"))
        if seconds.shape != volts.shape or seconds.ndim != 1 or not np.isfinite(seconds).all():
            raise InstrumentError("not a frame", where=self._where, got=f"{seconds.shape} times, {volts.shape} points")
        at = (seconds - self._delay_s) * self._rate_hz - self._first
        number = np.floor(at).astype(np.int64)
        used = (number >= 0) & (number < self._values) & (at - number >= self._settle)
        bad = ~np.isfinite(volts[used])
        if bad.any():
            raise NotAReading("points that are no numbers", where=self._where, got=f"{int(bad.sum())}", allowed="none",
                              outputs="inside their limits", todo="repeat the shot")  # fmt: skip
        if (np.abs(volts[used]) >= NEAR_RAIL * self._full_v).any():
            raise Saturated(
                "the input was at the end of its range", where=self._where, got=f"{np.abs(volts[used]).max():.4g} V",
                allowed=f"below {self._full_v:g} V", outputs="inside their limits", todo='use attenuation = "14dB"',
            )  # fmt: skip
        counts = np.bincount(number[used], minlength=self._values)
        if not counts.all():
            raise InstrumentError(
                "values without a point of the frame", where=self._where, got=f"{int((counts == 0).sum())} of {self._values}",
                allowed="none", outputs="inside their limits", todo="lower values or settle, or correct delay",
            )  # fmt: skip
        means: Volts = np.bincount(number[used], volts[used], self._values) / counts
        return means

    def _level(self, volts: Volts) -> Volts:
        """V as entries of a table, -1 at the lower limit and 1 at the upper one."""
        level: Volts = (2 * (volts - self._low) / (self._high - self._low) - 1).clip(-1, 1)
        return level

    def _release(self) -> None:
        moku, self._moku = self._moku, None
        with suppress(Exception):
            if moku is not None:
                moku.relinquish_ownership()

    def _unsafe(self, got: str) -> UnsafeOutputs:
        return UnsafeOutputs("the output could not be verified to be off", where=self._where, got=got,
                             outputs=f"unknown; if it still runs, {self._low:g} to {self._high:g} V", todo=BY_HAND)  # fmt: skip

    @contextmanager
    def _mapped(self, what: str, kind: type[HilError] | None = None) -> Iterator[None]:
        """Turn what the package raises into errors of ours: of the wire, or of the Moku."""
        try:
            yield
        except HilError:
            raise
        except Exception as error:
            wire = isinstance(error, OSError) or type(error).__name__ in ("MokuNotFound", "NetworkError")
            raise (kind or (LinkError if wire else InstrumentError))(
                f"{what} failed", where=self._where, got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                outputs="off, or inside their limits", todo="look at its power and cable, and who owns it in the Moku app",
            ) from error  # fmt: skip
