"""Simulated Keysight InfiniiVision 3000T / 4000X oscilloscope: four channels, edge trigger, raw records.

    :DIGitize  :SINGle  :RUN  :STOP    :OPERegister:CONDition? bit 3 running, bit 5 waiting    :AER? armed    :TER? triggered
    :WAVeform:PREamble?   format,type,points,count,xincrement,xorigin,xreference,yincrement,yorigin,yreference
    :WAVeform:DATA?       #8<8 digits><words>         volts = (word - yreference) yincrement + yorigin, see converter.py

:DIGitize ends when the trigger has come: until then ``*OPC?``, ``*WAI`` and the waveform queries wait, and :STOP or a device
clear frees them. (The real box holds back *every* command; a driver written for that works here too.) With :TRIGger:SWEep AUTO,
the default, the box triggers itself after a while, as the real one does. :AER? tells of every edge of an average that is waited
for; that :SINGle takes all of them is assumed.

Source: Keysight InfiniiVision 3000 X-Series Programmer's Guide; points of an average: that of the 2000 X-Series, p. 631. Not
simulated: peak detect, segments, measurements, math.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from sim_devices.instruments import front_panel
from sim_devices.instruments.front_panel import NR3
from sim_devices.instruments.parameters import INFINITY, Flag, Parameter, short_or_long
from sim_devices.instruments.sampling import SCREEN_POINTS, Sampling, sampling
from sim_devices.instruments.scope_box import Model, ScopeBox
from sim_devices.instruments.scope_record import Record, Wire
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings
from sim_devices.instruments.timing import Timing

RUNNING, WAITING = 1 << 3, 1 << 5  # of OPERegister:CONDition
AVERAGED_POINTS = 1000  # that are transferred of an average
FIELDS = ("COUNt", "XINCrement", "XORigin", "XREFerence", "YINCrement", "YORigin", "YREFerence")  # of the preamble, from 3
MODELS = {
    "DSOX3024T": Model("DSO-X 3024T", 5e9, 4_000_000, 8),
    "DSOX4024A": Model("DSO-X 4024A", 5e9, 4_000_000, 8),
}


class InfiniiVision(ScopeBox):
    """A simulated InfiniiVision oscilloscope, as its programmer's guide describes it.

    Arguments as of ScopeBox, and

    Args:
        any_rate: see sampling.py.
    """

    typical = Timing(1e-3, 5e6, 5e6, arm_s=15e-3, acquire_s=1e-3)  # assumed: the guide has no figures

    models = MODELS
    usual = ("DSOX3024T", "SIM-3024-0001")
    maker = "KEYSIGHT TECHNOLOGIES"
    firmware = "07.50.2021102830"

    def __init__(
        self,
        serial: str | None = None,
        *,
        model: str | None = None,
        lock: threading.Condition | None = None,
        adc_bits: int | None = None,
        memory_samples: int | None = None,
        any_rate: bool = False,
        pace: float = 0.0,
        auto_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            serial, model=model, lock=lock, adc_bits=adc_bits, memory_samples=memory_samples, pace=pace, auto_s=auto_s,
            clock=clock,
        )  # fmt: skip
        self._any_rate = any_rate

    def _box_parameters(self) -> Mapping[str, Parameter]:
        return front_panel.BOX

    def _channel_parameters(self, n: int) -> Mapping[str, Parameter]:
        return front_panel.channel(n)

    def _check_channel(self, s: Settings) -> None:
        front_panel.check_channel(s)

    def _sampling(self) -> Sampling:
        """Channels 1 and 2, and 3 and 4, share a converter and its memory: with both of a pair on, each has half of them."""
        wanted = self.wanted()
        shared = len({(n - 1) // 2 for n in wanted}) < len(wanted)
        clock_hz, points = (self.data.clock_hz / 2, self._points // 2) if shared else (self.data.clock_hz, self._points)
        return sampling(self._box.number("range"), clock_hz, points, self._limit(), any_rate=self._any_rate)

    def _limit(self) -> float:
        """Points that may be transferred."""
        most = SCREEN_POINTS if self._box.text("points_mode") == "NORM" else INFINITY
        if self._box.text("type") == "AVER":
            most = AVERAGED_POINTS
        return min(self._box.number("points"), most)

    # -- Waveform -----------------------------------------------------------------------------------------------------

    def _record(self) -> Record:
        """Return the record of :WAVeform:SOURce, as many points of it as were asked for.

        Raises:
            ScpiError: -230, there is none.
        """
        self._operations.wait("acquire")
        return self._acquired(int(self._box.text("source")[-1])).thinned(self._limit())

    def _wire(self) -> Wire:
        return Wire(self._box.text("format"), self._box.text("byte_order") == "LSBF", self._box.flag("unsigned"))

    def _preamble(self, call: Call) -> str:
        call.none()
        return self._record().preamble(self._wire())

    def _data(self, call: Call) -> bytes:
        call.none()
        return self._record().data(self._wire())

    def _points_query(self, call: Call) -> str:
        if call.tokens:
            return self._box.shown("points", call)
        points = len(self._record().words) if self._records else min(self._limit(), self._sampling().points)
        return f"{points:+.0f}"

    # -- Commands -----------------------------------------------------------------------------------------------------

    def _table(self) -> Iterator[Command]:
        yield from front_panel.commands(self._box, self._of)
        yield Command("DIGitize", self._digitize)
        yield Command("SINGle", lambda call: self._start(call, "single"))
        yield Command("RUN", lambda call: self._start(call, "running"))
        yield Command("STOP", self._halt)
        yield Command("TRIGger:FORCe", self._force_trigger)
        yield Command("AER", get=lambda call: self._event("armed"))
        yield Command("TER", get=lambda call: self._event("triggered"))
        yield Command("RSTate", get=lambda call: {"stopped": "STOP", "single": "SING"}.get(self._polled(), "RUN"))
        yield Command("OPERegister:CONDition", get=self._condition)
        yield Command("ACQuire:SRATe[:ANALog]", get=lambda call: f"{self._sampling().rate_hz:{NR3}}")
        yield Command("ACQuire:POINts[:ANALog]", get=lambda call: f"{self._sampling().points:+d}")
        yield Command("WAVeform:PREamble", get=self._preamble)
        yield Command("WAVeform:DATA", get=self._data)
        yield Command("WAVeform:POINts", self._put_points, self._points_query)
        yield Command("SYSTem:LOCK", self._put_lock, lambda call: f"{self._front.locks:d}")
        for at, name in enumerate(FIELDS, start=3):
            yield Command(f"WAVeform:{name}", get=partial(self._field, at))

    def _put_lock(self, call: Call) -> None:
        self._front.locks = int(Flag().read(call.only()))

    def _digitize(self, call: Call) -> None:
        sources = (self._box.read("source", token) for token in call.take(0, 4))
        self._arm("digitizing", frozenset(int(str(source)[-1]) for source in sources))

    def _event(self, name: str) -> str:
        self._polled()
        happened, self._events[name] = self._events[name], False
        return f"{happened:+d}"

    def _condition(self, call: Call) -> str:
        call.none()
        mode = self._polled()
        return f"{RUNNING * (mode != 'stopped') | WAITING * self._awaits():+d}"

    def _put_points(self, call: Call) -> None:
        token = call.only()
        everything = isinstance(token, str) and short_or_long("MAXimum", token)
        self._box.change(points=INFINITY if everything else self._box.read("points", token))

    def _field(self, at: int, call: Call) -> str:
        return self._preamble(call).split(",")[at]
