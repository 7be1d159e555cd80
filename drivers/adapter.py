"""An instrument beside a node, driven by the driver that a package has for it: PyMeasure, QCoDeS, or one of your own.

    [instruments.laser]
    use = "drivers.pymeasure:Adapter"
    driver = "pymeasure.instruments.keysight:KeysightN7776C"
    resource = "TCPIP::192.168.1.22::hislip0::INSTR"
    holds.power = { of = "output_power_dBm", low = -20, high = 6, unit = "dBm" }
    holds.output = { of = "output_enabled" }
    set = { power = "3 dBm" }        safe = { output = false }

`holds` gives names to parameters of the driver, as the package calls them, with limits in its unit. "output" is the one that
switches it. Without an "output", and where `safe` leaves it on, `safe` needs a value for every name, as nothing else would say
what safe means.

The guardian makes it safe as this process does: it opens the same driver anew, sets the parameters and reads them back
(drivers/package_talk.py). So the class must open in another process once this one is gone; one that only this process can
reach belongs in a host (drivers/parameters.py).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from drivers.closing import close_all
from drivers.descent import Descent
from drivers.package_talk import PackageTalk, answers, of_package, plain_value, put, same
from drivers.packages import Holding
from drivers.parameter import STEP_S, Parameter
from drivers.read_back import OUTPUT, ForeignChange, switched_off
from drivers.safe import SafeState, Step, carry_out, switch_off_surely
from drivers.scpi import Expect, Identity
from hil.device import Port
from hil.errors import UNTOUCHED, CommandRefused, ConfigError, ContractError, UnsafeOutputs, WrongInstrument
from hil.settings import arguments


class PackageAdapter:
    """The driver; a subclass names its package. The constructor switches "output" off.

    Args:
        address: of the instrument: `resource` in a bench file.
        driver: "module:Class" of the package.
        holds: name -> { of, low, high, unit, slew_per_s, on, off }; see drivers.parameter.Parameter.
        setup: parameter -> value, set in this order while the output is off, and not read back.
        options: what else the class takes, by name.
        address_as: under which name the class takes the address; None: as the package has it; "": it takes none.
        called: its name on the bench.
        expect: who must answer.
        beat: called with every use.

    Raises:
        ConfigError: settings that make no sense. WrongInstrument: another one answers. InstrumentError: the package raised an
        exception. LinkError: nobody answers.
    """

    package: ClassVar[Holding]
    talk: ClassVar[str]
    takes: ClassVar[str]

    def __init__(
        self,
        address: str,
        *,
        driver: str,
        holds: Mapping[str, Any],
        setup: Mapping[str, Any] = {},
        options: Mapping[str, Any] = {},
        address_as: str | None = None,
        called: str = "instrument",
        expect: Expect | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._address, self._called, self._expect, self._beat = address, called, expect or Expect(), beat
        self._setup = dict(setup)
        self._parameters = {name: Parameter(**arguments(Parameter, dict(one), f"holds.{name}")) for name, one in holds.items()}
        self._ports = {name: one.port(name) for name, one in self._parameters.items()}
        _check_names(self._parameters, self._setup, called)
        taken = self.takes if address_as is None else address_as
        self._table = {"of": driver, **({taken: address} if taken else {}), **options}
        self._how = _as_text(self._table)
        self._rest: dict[str, float] = {}
        self._stays = self._closed = self._stale = self._off_by_hand = False
        self._on: bool | None = None  # the output; None: not known
        self._due: dict[str, float] = {}  # levels that are gone to in steps, once the output is on
        self._before: dict[str, float | bool | str] = {}
        self._instrument: Any = None
        try:
            self._open()
            self._prepare()
        except BaseException:
            self._release()
            raise

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self._called} {self.identity.model} {self.identity.serial}".rstrip()

    # ---- what it holds ----------------------------------------------------------------------------------------------------

    def holdable(self) -> Mapping[str, Port]:
        """See drivers.auxiliaries.Holdable."""
        return self._ports

    def hold(self, name: str, value: float) -> None:
        """Set one of them; see drivers.auxiliaries.Holdable.

        A level whose rate is limited stays as it is while the output is off, and goes to its value in steps while it is on.
        """
        self._ports[name].check(torch.tensor([value], dtype=torch.float64))
        if name == OUTPUT:
            self._switch(bool(value))
        elif self._parameters[name].slew_per_s is not None:
            self._due[name] = value
        else:
            self._put(name, value)
        if self._on or OUTPUT not in self._ports:
            for level, wanted in self._due.items():
                self._go(level, wanted)
            self._due = {}
        self._stale = True

    def read_back(self, name: str) -> float:
        """Ask the instrument for one of them; measured where `measure` is given.

        Raises:
            CommandRefused: it answers no number.
        """
        if name == OUTPUT:
            return float(self._is_on(self._get(OUTPUT)))
        measure = self._parameters[name].measure
        return self._number(name, measure if measure and (self._on or OUTPUT not in self._ports) else "")

    def _number(self, name: str, asked: str = "") -> float:
        found = self._get(name, asked)
        if isinstance(found, str) or not math.isfinite(found):
            raise CommandRefused(
                "an answer that is no number", where=f"{self.name} {name}", got=str(found)[:80], outputs=self._unknown
            )
        return float(found)

    def rest_at(self, values: Mapping[str, float]) -> None:
        """Let the safe state hold these values too; "output" 1 leaves the output on. Sends nothing.

        Raises:
            OutOfRange: a value out of its limits. ConfigError: nothing says what safe means.
        """
        for name, value in values.items():
            self._ports[name].check(torch.tensor([value], dtype=torch.float64))
        self._stays = bool(values.get(OUTPUT, 0.0)) or OUTPUT not in self._ports
        self._rest = {name: value for name, value in values.items() if name != OUTPUT}
        missing = [name for name in self._ports if name not in self._rest and name != OUTPUT] if self._stays else []
        if missing:
            raise ConfigError(
                "nothing says what safe means" if OUTPUT not in self._ports else "its output stays on when it is safe",
                where=f"{self.name}, safe", got=f"no value for {', '.join(missing)}", allowed="a value for each name of holds",
                todo='give them in safe = {…}, or name the parameter that switches it: holds.output = { of = "…" }',
            )  # fmt: skip

    # ---- what a PanelWatch asks -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Ask for what was set since the last time, and keep the answers as what must be found from now on."""
        if self._stale:
            self._before, self._stale = self._held(), False

    def findings(self) -> list[ForeignChange]:
        """Ask for everything that is named in `holds`, and compare."""
        found, changes = self._held(), []
        for name, before in self._before.items():
            if not same(before, found[name], self._parameters[name].resolution):
                off = name == OUTPUT and self._is_on(before) and not self._is_on(found[name])
                self._off_by_hand = self._off_by_hand or off
                changes.append(ForeignChange("off" if off else "setting", f"{name} {before} -> {found[name]}"))
        return changes

    def _held(self) -> dict[str, float | bool | str]:
        return {name: self._get(name) for name in self._ports}

    # ---- its safe state ---------------------------------------------------------------------------------------------------

    def safe_state(self) -> SafeState:
        """Describe it: levels to rest, those with a rate in steps, then the output off; of the instrument that answered."""
        who, of = self.identity, self._parameters
        steps = [Step(put(of[n].of, value), of[n].of, answers(value)) for n, value in self._rest.items()]
        if not self._stays:
            off = of[OUTPUT].off
            steps.append(Step(put(of[OUTPUT].of, off), of[OUTPUT].of, answers(off)))
        return SafeState(
            self._called, self._address, self.talk, Expect(who.maker, who.model, who.serial), tuple(steps),
            outputs=self._unknown, shared=self._address.strip().upper().startswith("TCPIP"), descents=self._descents(),
            how=self._how, imports=(str(self._table["of"]).partition(":")[0],),
        )  # fmt: skip

    def _descents(self) -> tuple[Descent, ...]:
        switch = self._parameters.get(OUTPUT)
        on = "" if switch is None else f"{switch.of}=={json.dumps(switch.on)}"
        found = []
        for name, one in self._parameters.items():
            if one.slew_per_s is not None:
                low, high = self._ports[name].shared_low, self._ports[name].shared_high
                rest, most = self._rest.get(name, min(max(0.0, low), high)), one.slew_per_s * STEP_S
                found.append(Descent(on, f"{one.of}={{}}", one.of, rest, most, STEP_S, low, high))
        return tuple(found)

    def safe(self) -> None:
        """Bring the safe state about, read back; after a fault of the wire once more with a driver that was opened anew.

        Raises:
            UnsafeOutputs: it could not be verified. KeyboardInterrupt: it is safe all the same.
        """
        switch_off_surely(self._make_safe, self.reopen, self._unsafe)

    def _make_safe(self) -> None:
        self._on, self._due = None, {}
        carry_out(self.safe_state(), PackageTalk(self.package, self._instrument, self.name))
        self._on = None if self._stays else False

    def _unsafe(self, got: str) -> UnsafeOutputs:
        return UnsafeOutputs(
            "the outputs could not be verified to be safe", where=self.name, got=got, outputs=self._unknown,
            todo="switch the outputs off at the instrument, then look at its power and cable",
        )  # fmt: skip

    @property
    def _unknown(self) -> str:
        levels = [f"{n} {p.low:g} to {p.high:g} {p.unit}" for n, p in self._ports.items() if n != OUTPUT]
        return "unknown; if it still runs, " + ", ".join(levels) if levels else "unknown"

    # ---- the rungs of recovery --------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Do nothing: the wire is the package's, and `reopen` gives another."""

    def reopen(self) -> None:
        """Give the instrument back, open the driver anew, and see that the same instrument answers."""
        self._on, self._due = None, {}
        self._release()
        self._open()

    def identify(self) -> str:
        """The same instrument must answer; return who it is.

        Raises:
            WrongInstrument: another one answers. LinkError, InstrumentError: nobody does.
        """
        before, now = self.identity, self._who()
        if now != before:
            raise WrongInstrument("another instrument answers", where=self.name, got=str(now), allowed=str(before),
                                  outputs=self._unknown, todo="see what is connected")  # fmt: skip
        return str(now)

    def reset(self) -> None:
        """Make safe, then set it up again.

        Raises:
            SwitchedOff: somebody else switched the output off.
        """
        self._check_output()
        self._make_safe()
        self._prepare()

    def close(self) -> None:
        """Make safe, verify it, and give the instrument back; the second call does nothing.

        Raises:
            UnsafeOutputs: it is given back all the same.
        """
        if self._closed:
            return
        self._closed = True
        close_all([self.safe, self._release])

    # ---- parameters -------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._beat()
        with of_package(self._called):
            self._instrument, self.simulated = self.package.begin(self._called, self._table)
        who = self.identity = self._who()
        if not self._expect.admits(who):
            raise WrongInstrument(
                "another instrument answers", where=f"{self._called} at {self._address}", got=str(who),
                allowed=str(self._expect), outputs="unchanged", todo="correct the address, or who is expected there",
            )  # fmt: skip
        self._expect = Expect(who.maker, who.model, who.serial)

    def _who(self) -> Identity:
        self._beat()
        with of_package(self._called):
            return self.package.who(self._instrument)

    def _prepare(self) -> None:
        """Output off, then what `setup` says."""
        if OUTPUT in self._ports and not self._stays:
            self._switch(False)
        for parameter, value in self._setup.items():
            self._beat()
            with of_package(f"{self._called} {parameter}"):
                self.package.put(self._instrument, parameter, value)
        self._before, self._stale = {}, True

    def _switch(self, on: bool) -> None:
        """Switch the output, and read it back."""
        if on and self._closed:
            raise ContractError("it is closed", where=self.name, got="output on", outputs="being switched off")
        if on:
            self._check_output()
        self._on = None
        switch = self._parameters[OUTPUT]
        self._put(OUTPUT, switch.on if on else switch.off)
        found = self._get(OUTPUT)
        if self._is_on(found) is not on or (not on and not same(found, switch.off)):
            raise CommandRefused(
                f"the output did not switch {'on' if on else 'off'}", where=self.name, got=str(found), outputs=self._unknown,
                todo="look at its front panel: a protection or an interlock may have tripped",
            )  # fmt: skip
        self._on = on

    def _is_on(self, found: object) -> bool:
        return not any(same(found, word) for word in (*answers(self._parameters[OUTPUT].off), self._parameters[OUTPUT].off))

    def _check_output(self) -> None:
        """Raises: SwitchedOff: it was left on, and somebody else has switched it off."""
        if self._on and not self._off_by_hand:
            self._off_by_hand = not self._is_on(self._get(OUTPUT))
        if self._off_by_hand:
            raise switched_off(self.name)

    def _go(self, name: str, wanted: float) -> None:
        """Go to a level in steps."""
        one, start = self._parameters[name], self._number(name)
        assert one.slew_per_s is not None  # else nobody goes in steps
        count = max(1, math.ceil(abs(wanted - start) / (one.slew_per_s * STEP_S) - 1e-9))
        for k in range(1, count + 1):
            self._put(name, wanted if k == count else start + k / count * (wanted - start))
            time.sleep(STEP_S)

    def _put(self, name: str, value: float | bool | str) -> None:
        self._beat()
        with of_package(f"{self._called} {name}"):
            self.package.put(self._instrument, self._parameters[name].of, value)

    def _get(self, name: str, asked: str = "") -> float | bool | str:
        self._beat()
        with of_package(f"{self._called} {name}"):
            return plain_value(self.package.get(self._instrument, asked or self._parameters[name].of))

    def _release(self) -> None:
        """Give the instrument back, whatever its package says to that."""
        found, self._instrument = self._instrument, None
        if found is not None:
            with of_package(self._called):
                self.package.release(found)


def _check_names(holds: Mapping[str, Parameter], setup: Mapping[str, Any], called: str) -> None:
    """Refuse tables that contradict each other. Raises: ConfigError: nothing was opened."""
    if not holds:
        raise ConfigError(
            "this instrument holds nothing", where=f"{called}, holds", got="no names", allowed="one name or more",
            outputs=UNTOUCHED, todo='name what it is to hold: holds.output = { of = "…" }',
        )  # fmt: skip
    names: dict[str, str] = {}
    for name, one in holds.items():
        if one.of in names:
            raise ConfigError(
                f"two names of holds are the parameter {one.of}", where=f"{called}, holds", got=f"{names[one.of]}, {name}",
                allowed="one name a parameter", outputs=UNTOUCHED, todo="remove one of them",
            )  # fmt: skip
        names[one.of] = name
    both = [parameter for parameter in setup if parameter in names]
    if both:
        raise ConfigError(
            f"setup sets {both[0]}, which holds names too", where=f"{called}, setup", got=f"{both[0]} = {setup[both[0]]!r}",
            allowed="parameters that holds does not name", outputs=UNTOUCHED,
            todo=f"remove it from setup, and give it in set = {{ {names[both[0]]} = … }}",
        )  # fmt: skip


def _as_text(table: Mapping[str, Any]) -> str:
    """Raises: ConfigError: the guardian could not be told."""
    try:
        return json.dumps(dict(table))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "options must be numbers, texts, lists and tables", where="options", got=str(error)[:80], outputs="untouched"
        ) from error
