"""Keithley 2400: a source-meter that holds a voltage and measures the current, level by level or along a list.

    :SOURce:FUNCtion VOLT   :SOURce:VOLTage:MODE FIXed|LIST   :SOURce:VOLTage[:LEVel] <V>     not valid in the list mode
    :SENSe:FUNCtion "CURR"  :SENSe:CURRent:PROTection <A>     :SENSe:CURRent:RANGe <A>        :SENSe:CURRent:NPLCycles <n>
    :FORMat:ELEMents CURR   :READ?                            one number, or one for each of :TRIGger:COUNt
    :SOURce:LIST:VOLTage <V>,...   :SOURce:DELay <s>          100 levels at most; measured at each of them after the delay

Source: Series 2400 SourceMeter User's Manual, 2400S-900-01 Rev. K, chapters 10 (sweeps), 17 and 18 (commands, limits: -210 to
210 V, -1.05 to 1.05 A, 18-78 and 18-91). PyMeasure's Keithley2400 works the simulated box with the words for source, compliance
and range (tests/interop). From the manual only: the list, and that 9.91E37 is answered where a current is beyond its range.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import SENTINEL, Expect, Scpi
from drivers.scpi_source import Layout, Level, ScpiSource, resting
from hil.device import Port
from hil.errors import ConfigError, ContractError, Desync, NotAReading
from hil.units import finite

HIGHEST_V, HIGHEST_A, LEAST_A = 210.0, 1.05, 1e-9
MOST_LEVELS = 100
LONGEST_DELAY_S = 999.0
LIST_S = 1.0  # a list is waited for as a whole, so it must be over long before the wire is given up
PERIODS, LEAST_MAINS_HZ = 4.0, 50.0  # a reading takes some periods of the mains for each that it integrates
RESOLUTION = 1e-4  # of the range: the source rounds to so much


class Keithley2400(ScpiSource):
    """The source-meter, sourcing V and measuring A. It can hold voltage and compliance.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        low_v, high_v: narrower limits of the level, V.
        range_a: range of the measured current, A, either sign; also the compliance of the source.
        nplc: how long a measurement integrates, in periods of the mains, 0.01 to 10.
        slew_v_per_s: largest rate of the level, V/s, and of its way down before it is switched off; None: any.
        max_step_v: largest step of the level, V; None: any.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument.
    """

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        low_v: float = -20.0,
        high_v: float = 20.0,
        range_a: float = 1e-3,
        nplc: float = 0.1,
        slew_v_per_s: float | None = None,
        max_step_v: float | None = None,
    ) -> None:
        self.channels = (1,)
        super().__init__(scpi, lambda: _layout(low_v, high_v, range_a, nplc, slew_v_per_s, max_step_v))
        self._nplc = nplc
        self._reading = Port("source-meter current", -range_a, range_a, "A", 1)

    @property
    def reading(self) -> Port:
        """Range of the measured current, A."""
        return self._reading

    def read(self) -> list[float]:
        """Measure the current once, A. The output must be on.

        Raises:
            NotAReading: beyond the range. Desync: no number.
        """
        return self._currents(self._scpi.ask(":READ?"), 1)

    def sweep(self, rows: Sequence[Sequence[float]], settle_s: float) -> list[list[float]]:
        """Hold each level in turn, (rows, 1) in V, and measure the current after `settle_s`, (rows, 1) in A.

        They go out in lists of at most MOST_LEVELS levels, and LIST_S as long as one level does not take longer.

        Raises:
            OutOfRange, ContractError: nothing was sent. NotAReading, Desync, CommandRefused.
        """
        flat = [float(value) for (value,) in rows]
        self.drive.check(torch.tensor(flat, dtype=torch.float32).unsqueeze(1))
        if not flat or not 0 <= settle_s <= LONGEST_DELAY_S:
            raise ContractError(
                "no such list", where="source-meter", got=f"{len(flat)} levels, {settle_s:g} s",
                allowed=f"1 level or more, 0 to {LONGEST_DELAY_S:g} s", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        port, each_s = self._layout.levels["voltage"].port, settle_s + PERIODS * self._nplc / LEAST_MAINS_HZ
        sent = [min(max(value, port.shared_low), port.shared_high) for value in flat]
        most = max(1, min(MOST_LEVELS, int(LIST_S / each_s)))
        parts = [self._listed(sent[k : k + most], settle_s) for k in range(0, len(sent), most)]
        return [[value] for part in parts for value in part]

    def _listed(self, sent: Sequence[float], settle_s: float) -> list[float]:
        """Measure at each level of one list, in V; the last is held afterwards."""
        listed = ",".join(f"{value:.9g}" for value in sent)
        with self._scpi.link.transaction():
            self._scpi.send(
                f":SOUR:LIST:VOLT {listed}", f":SOUR:DEL {settle_s:.6g}", f":TRIG:COUN {len(sent)}", ":SOUR:VOLT:MODE LIST"
            )
            self._scpi.check("taking a list of levels", outputs=self._unknown)
            found = self._currents(self._scpi.ask(":READ?"), len(sent))
            self._scpi.send(":SOUR:VOLT:MODE FIX", ":TRIG:COUN 1", ":SOUR:DEL 0")
            self.levels(sent[-1:])
        return found

    def _currents(self, reply: str, count: int) -> list[float]:
        parts = reply.split(",")
        try:
            if len(parts) != count:
                raise ValueError
            found = [finite(part) for part in parts]
        except ValueError as error:
            self._scpi.link.distrust("a measurement with a wrong answer")
            raise Desync(
                "not one current for each level", where="source-meter", got=reply[:80], allowed=f"{count} numbers"
            ) from error
        if any(abs(value) >= SENTINEL for value in found):
            raise NotAReading(
                "the current is beyond its range", where="source-meter", got=reply[:80],
                allowed=f"up to {self._reading.shared_high:g} A", outputs="as they were",
                todo="raise range_a, or look whether the device under test is shorted",
            )  # fmt: skip
        return found


def _layout(
    low_v: float, high_v: float, range_a: float, nplc: float, slew_v_per_s: float | None, max_step_v: float | None
) -> Layout:
    volts = Port("source-meter level", -HIGHEST_V, HIGHEST_V, "V").narrowed(low_v, high_v)
    amps = Port("source-meter compliance", LEAST_A, HIGHEST_A, "A").narrowed(LEAST_A, range_a)
    if not 0.01 <= nplc <= 10:
        raise ConfigError("no such integration time", where="source-meter nplc", got=f"{nplc:g}", allowed="0.01 to 10",
                          outputs="unchanged; nothing was sent")  # fmt: skip
    widest = max(abs(low_v), abs(high_v))
    levels = {
        "voltage": Level(volts, ":SOUR:VOLT {}", ":SOUR:VOLT?", resolution=RESOLUTION * (high_v - low_v)),
        "compliance": Level(amps, ":SENS:CURR:PROT {}", ":SENS:CURR:PROT?", resolution=RESOLUTION * range_a),
    }
    drive = Port("source-meter level", low_v, high_v, "V", 1, slew_per_s=slew_v_per_s, max_step=max_step_v)
    setup = (
        ":OUTP 0", ":SOUR:FUNC VOLT", ":SOUR:VOLT:MODE FIX", f":SOUR:VOLT:RANG {widest:.9g}",
        f":SOUR:VOLT {resting(volts)[0]:.9g}", ':SENS:FUNC "CURR"', f":SENS:CURR:PROT {range_a:.9g}",
        f":SENS:CURR:RANG {range_a:.9g}", f":SENS:CURR:NPLC {nplc:.9g}", ":FORM:ELEM CURR", ":TRIG:COUN 1", ":SOUR:DEL 0",
        ":SOUR:CLE:AUTO 0",
    )  # fmt: skip
    besides = (
        Setting("source", ":SOUR:FUNC?", "word"),
        Setting("source mode", ":SOUR:VOLT:MODE?", "word"),
        Setting("source range", ":SOUR:VOLT:RANG?", unit="V"),
        Setting("range", ":SENS:CURR:RANG?", unit="A"),
        Setting("integration", ":SENS:CURR:NPLC?"),
        Setting("elements", ":FORM:ELEM?", "word"),
        Setting("automatic output", ":SOUR:CLE:AUTO?", "flag"),
    )
    return Layout(
        "source-meter", Expect("Keithley", "MODEL 2400"), levels, ("voltage",), drive, ":OUTP {}", ":OUTP?", 1, setup, besides
    )  # fmt: skip
