"""Simulated Keysight E36312A power supply: three outputs, voltage and current limit, channel lists.

    VOLTage 1.5,(@1)     VOLTage? (@1,2)  ->  +1.50000000E+00,+0.00000000E+00      OUTPut 1,(@1:3)     MEASure:VOLTage? (@1)

What is measured is what is set while the output is on, times (1 + error of the channel): a load that draws nothing.

Source: Keysight E36300 Series Programming Guide, E36311-90008. Not simulated: INSTrument:SELect, tracking, series and parallel,
protection, lists, data logging.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from sim_devices.instruments.parameters import Flag, Number, Parameter
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.source_box import OUTPUT, SourceBox, channels_of, listed

HIGHEST = {1: (6.18, 5.15), 2: (25.75, 1.03), 3: (25.75, 1.03)}  # V, A
STYLE = "+.8E"


class KeysightE36312A(SourceBox):
    """A simulated supply.

    Args:
        serial: serial number.
        short: number of an output whose load draws all the current that it gives, so that its voltage is a tenth of what is
            set; 0: none.
        lock: of the bench, which gives it.
    """

    def __init__(self, serial: str = "SIM-E36312A-0001", *, short: int = 0, lock: threading.Condition | None = None) -> None:
        self._short = short
        outputs: dict[int, dict[str, Parameter]] = {
            n: {
                "volts": Number(0, volts, 0, "V", style=STYLE),
                "amps": Number(0, amps, 0.1 * amps, "A", style=STYLE),
                OUTPUT: Flag(),
            }
            for n, (volts, amps) in HIGHEST.items()
        }
        super().__init__(("Keysight Technologies", "E36312A", serial, "2.1.2-1.0.4-1.12"), outputs, "volts", lock)

    def _table(self) -> Iterator[Command]:
        yield listed("[SOURce]:VOLTage[:LEVel][:IMMediate][:AMPLitude]", "volts", self._channels)
        yield listed("[SOURce]:CURRent[:LEVel][:IMMediate][:AMPLitude]", "amps", self._channels)
        yield listed("OUTPut[:STATe]", OUTPUT, self._channels)
        yield Command("MEASure[:SCALar]:VOLTage[:DC]", get=lambda call: self._measured(call, volts=True))
        yield Command("MEASure[:SCALar]:CURRent[:DC]", get=lambda call: self._measured(call, volts=False))

    def _measured(self, call: Call, volts: bool) -> str:
        numbers = channels_of(call.only(), self._channels) if call.tokens else [1]
        return ",".join(format(self._at(n, volts), STYLE) for n in numbers)

    def _at(self, n: int, volts: bool) -> float:
        if n != self._short:
            return self.stands(n) if volts else 0.0
        return 0.1 * self.stands(n) if volts else self._channels[n].number("amps") * self._channels[n].flag(OUTPUT)
