"""Common parts of drivers of SCPI boxes that hold levels: a table of words, levels read back, outputs made safe.

    set and read   :SOUR:VOLT 1.5,(@1);:SOUR:VOLT 0.2,(@2);:SOUR:VOLT? (@1);:SOUR:VOLT? (@2)     one exchange, both compared
    outputs        :OUTP 1,(@1,2);:OUTP? (@1,2)      all channels that are used go on and off together
    safe           levels to rest in steps where a slew is limited (drivers/descent.py), levels of [instruments.NAME] safe,
                   then the outputs off; each answer is compared

A driver says its limits and its words in a `Layout`, and adds what else its instrument does. It is Panelled
(drivers/read_back.py), Switchable (drivers/safe.py), Holdable (drivers/auxiliaries.py),and a Source
(drivers/vector/roles.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from drivers.descent import Descent
from drivers.links.link import Link
from drivers.read_back import OUTPUT, Panel, Setting, Value
from drivers.safe import SafeState, Step, carry_out
from drivers.scpi import Expect, Scpi
from drivers.scpi_driver import ScpiOutput, answering
from drivers.scpi_talk import OVER_VISA, ScpiTalk
from hil.device import Port
from hil.errors import CommandRefused, ConfigError, ContractError
from hil.port import each
from hil.units import finite

STEP_S = 0.02  # between two steps of a way down
FLAG = Port(OUTPUT, 0, 1)


@dataclass(frozen=True, slots=True)
class Level:
    """A number that a box holds.

    Args:
        port: its limits and unit, one channel.
        command: sets it; "{}" stands for the number.
        question: asks for what was set.
        measure: asks for what it really is; "": the box does not measure it.
        resolution: what is read back may differ by so much, in the unit of the port.
    """

    port: Port
    command: str
    question: str
    measure: str = ""
    resolution: float = 1e-6


@dataclass(frozen=True, slots=True)
class Layout:
    """A box, in its own words.

    Args:
        name: for people, and of the safe state.
        expect: who must answer.
        levels: by name.
        driven: names of those that a node drives, in the order of the channels of `drive`.
        drive: their limits, unit and slew.
        output: switches all of them; "{}" stands for 0 or 1. "": there is no relay, and off is all levels at rest.
        outputs: asks for all of them, in one question or several joined by ";".
        channels: how many outputs those are.
        setup: commands that bring the box to its known state, outputs off.
        besides: what else is read back.
        talk: opens a wire that makes it safe, see drivers.safe.SafeState.
    """

    name: str
    expect: Expect
    levels: Mapping[str, Level]
    driven: tuple[str, ...]
    drive: Port
    output: str
    outputs: str
    channels: int = 1
    setup: tuple[str, ...] = ()
    besides: tuple[Setting, ...] = ()
    talk: str = OVER_VISA


class ScpiSource(ScpiOutput):
    """A box that holds levels. The constructor resets it, which switches its outputs off.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.
        layout: describes the box; called first, so that limits are refused before anything is sent.

    Raises:
        OutOfRange, ConfigError: limits wider than the instrument's. WrongInstrument: another model answers.
    """

    def __init__(self, scpi: Scpi | Link, layout: Callable[[], Layout]) -> None:
        self._scpi = scpi if isinstance(scpi, Scpi) else Scpi(scpi)
        self._closed = self._ready = self._stays = False
        self._on: bool | None = None  # the outputs; None: not known
        self._rest: dict[str, float] = {}
        self._at: dict[str, float] = {}  # what each driven level was set to last
        self._due: dict[str, float] = {}  # levels that are gone to in steps, once the output is on
        try:
            self._layout = made = layout()
            self._called = made.name
            self.identity = answering(self._scpi, made.expect, made.name, "unchanged")
            self._met()
            self._scpi.send("*RST", "*CLS")
        except BaseException:
            self._scpi.close()
            raise
        outputs = made.outputs.split(";") if made.outputs else []
        switches = [Setting(f"{OUTPUT} {k}" if k > 1 else OUTPUT, one, "flag") for k, one in enumerate(outputs, 1)]
        self._off = (";" if outputs[1:] else ",").join(["0"] * made.channels)
        held = [Setting(n, one.question, unit=one.port.unit, tolerance=one.resolution) for n, one in made.levels.items()]
        self._panel = Panel(
            self._scpi,
            f"{made.name} {self.identity.serial}",
            [*switches, *held, *made.besides],
            beyond=self._beyond,
        )

    def _met(self) -> None:
        """Look at the instrument that answered, before anything is set."""

    # ---- what it holds ----------------------------------------------------------------------------------------------------

    @property
    def drive(self) -> Port:
        """Limits of the levels that a node drives, one channel for each."""
        return self._layout.drive

    def holdable(self) -> Mapping[str, Port]:
        """See drivers.auxiliaries.Holdable."""
        ports = {name: level.port for name, level in self._layout.levels.items()}
        return {**ports, OUTPUT: FLAG} if self._layout.output else ports

    def hold(self, name: str, value: float) -> None:
        """Set one level, or "output"; see drivers.auxiliaries.Holdable.

        A level whose slew is limited stays at rest while the output is off, and goes to its value in steps while it is on.
        """
        if not self._ready:
            self.prepare()
        if name == OUTPUT:
            self.output(bool(value))
        elif name in self._layout.driven and self.drive.slews:
            self._due[name] = self._checked(name, value)
        else:
            self._set({name: self._checked(name, value)})
        if self._on:
            self._go()
        self._panel.renewed()
        self._panel.left(self._on)

    def _go(self) -> None:
        """Go to the levels that are due, no step larger than the slew allows."""
        most = each(self.drive.step_limit(STEP_S) or math.inf, self.drive.size)
        start = {name: self._at[name] for name in self._due}
        steps = [abs(self._due[n] - start[n]) / most[self._layout.driven.index(n)] for n in start]
        count = max([1, *(math.ceil(step - 1e-9) for step in steps)])
        for k in range(1, count + 1 if start else 1):
            self._set({name: at + k / count * (self._due[name] - at) for name, at in start.items()})
            time.sleep(STEP_S)
        self._due = {}

    def read_back(self, name: str) -> float:
        """Measure a level, or ask for what is set where the box does not measure it."""
        if name == OUTPUT:
            return float(self._outputs())
        level = self._layout.levels[name]
        return self._scpi.ask_float(level.measure if level.measure and self._on else level.question)

    @property
    def measures(self) -> bool:
        """True if the box measures every level that a node drives."""
        return all(self._layout.levels[name].measure for name in self._layout.driven)

    def measured(self) -> list[float]:
        """Measure those levels, in the order of `drive`. Raises: LinkError, Desync."""
        return [self.read_back(name) for name in self._layout.driven]

    def rest_at(self, values: Mapping[str, float]) -> None:
        """Let the safe state hold these levels too; "output" 1 leaves the outputs on. Sends nothing.

        Raises:
            OutOfRange: a level out of its limits.
        """
        self._stays = bool(values.get(OUTPUT, 0.0))
        self._rest = {name: self._checked(name, value) for name, value in values.items() if name != OUTPUT}

    def levels(self, values: Sequence[float]) -> None:
        """Set all levels that a node drives, in the order of `drive`, and read them back.

        Raises:
            OutOfRange: one of them; nothing was sent. CommandRefused: the box holds another.
        """
        row = torch.tensor(list(values), dtype=torch.float32)
        self.drive.check(row)  # as float32: 0.1 is in [0, 0.1]
        low, high = (each(limit, len(row)) for limit in (self.drive.low, self.drive.high))
        sent = [min(max(float(v), lo), hi) for v, lo, hi in zip(values, low, high, strict=True)]
        self._set(dict(zip(self._layout.driven, sent, strict=True)))
        self._panel.renewed(tuple(sent), self._layout.driven)

    def _checked(self, name: str, value: float) -> float:
        self._layout.levels[name].port.check(torch.tensor([value], dtype=torch.float64))
        return value

    def _set(self, values: Mapping[str, float]) -> None:
        """Send levels that were checked, and compare what is read back, in one exchange."""
        of = [self._layout.levels[name] for name in values]
        commands = [one.command.format(f"{value:.9g}") for one, value in zip(of, values.values(), strict=True)]
        reply = self._scpi.ask(";".join([*commands, *(one.question for one in of)]))
        parts = reply.split(";")
        try:
            found = [finite(part) for part in parts]
        except ValueError:
            found = []
        near = [math.isclose(a, b, rel_tol=1e-5, abs_tol=one.resolution) for a, b, one in zip(found, values.values(), of)]
        if len(found) != len(of) or not all(near):
            self._ready = False
            raise CommandRefused(
                "the instrument did not take a level", where=f"{self._layout.name}, {', '.join(values)}",
                got="; ".join([reply[:80], *self._scpi.errors()]), allowed=", ".join(f"{value:g}" for value in values.values()),
                outputs=self._unknown, todo="see whether the limits of the bench file are those of the instrument",
            )  # fmt: skip
        self._at.update(values)

    def _beyond(self, held: Mapping[str, Value]) -> str:
        for name, level in self._layout.levels.items():
            value = held[name]
            slack = level.resolution
            if isinstance(value, float) and not level.port.shared_low - slack <= value <= level.port.shared_high + slack:
                return f"{name} is {value:g} {level.port.unit}, outside of its limits"
        return ""

    # ---- outputs ----------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Bring the box to its known state, outputs off; sends nothing if it is in it.

        Raises:
            CommandRefused: the instrument complains. SwitchedOff: somebody else switched an output off.
        """
        if self._ready:
            return
        self._panel.check_output()
        self._switch_off()
        self._scpi.send("*CLS", *self._layout.setup)
        self._scpi.check(f"setting up {self._layout.name}", outputs="off")
        self._ready, self._on, self._due = True, not self._layout.output, {}
        self._at = dict(zip(self._layout.driven, resting(self.drive), strict=True))
        self._panel.renewed()
        self._panel.left(self._on)

    def output(self, on: bool) -> None:
        """Switch the outputs, and read back that they did; sends nothing if they are so already.

        Raises:
            CommandRefused: they did not switch. SwitchedOff: somebody else switched one off.
        """
        if self._on is on:
            return
        with self._scpi.link.transaction():  # whole: nothing may switch on after close() has begun to switch off
            if on and self._closed:
                raise ContractError(
                    f"the {self._layout.name} is closed", where=self._layout.name, got="output on", outputs="being switched off"
                )
            if on:
                self._panel.check_output()
            self._on = None
            self._panel.left(None)
            if not self._layout.output:
                self._without_relay(on)
                return
            reply = self._scpi.ask(f"{self._layout.output.format(int(on))};{self._layout.outputs}")
            if self._is_on(reply) is not on or (not on and not self._all_off(reply)):
                raise CommandRefused(
                    f"the output did not switch {'on' if on else 'off'}", where=self._layout.name, got=reply,
                    outputs=self._unknown, todo="look at its front panel: a protection may have tripped",
                )  # fmt: skip
            self._on = on
            self._panel.left(on)

    def _without_relay(self, on: bool) -> None:
        """Off is all levels at rest; on is what `prepare` leaves them at."""
        if not on:
            self._switch_off()
        elif not self._ready:
            self.prepare()
        self._on = on

    def _outputs(self) -> bool:
        return self._is_on(self._scpi.ask(self._layout.outputs))

    def _is_on(self, reply: str) -> bool:
        """True if all channels are on. Raises: CommandRefused: no such answer."""
        try:
            return bool(Setting(OUTPUT, "", "flag").read(reply.strip().replace(";", ",")))
        except ValueError as error:
            raise CommandRefused(
                "the instrument does not say whether it is on", where=self._layout.name, got=reply[:80], outputs=self._unknown
            ) from error

    def _all_off(self, reply: str) -> bool:
        return all(part.strip().upper() in ("0", "+0", "OFF") for part in reply.replace(";", ",").split(","))

    @property
    def _unknown(self) -> str:
        port = self.drive
        limits = zip(each(port.low, port.size), each(port.high, port.size), strict=True)
        return "unknown; if it still runs, " + ", ".join(f"{low:g} to {high:g} {port.unit}" for low, high in limits)

    def safe_state(self) -> SafeState:
        """Describe the safe state: levels to rest where a slew is limited, then the outputs off, of this instrument."""
        who, made = self.identity, self._layout
        held = self._rest if made.output else dict(zip(made.driven, resting(self.drive), strict=True)) | self._rest
        steps = [
            Step(at.command.format(f"{value:.9g}"), at.question, (f"{value:.9g}",), at.resolution)
            for at, value in ((made.levels[name], value) for name, value in held.items())
        ]
        if made.output and not self._stays:
            answers = tuple(self._off.replace("0", word) for word in ("0", "+0", "OFF"))
            steps.append(Step(made.output.format(0), made.outputs, answers))
        baud = getattr(self._scpi.link, "baud", None)  # of a serial port, which nobody can open a second time
        return SafeState(
            made.name, self._scpi.link.name, made.talk, Expect(who.maker, who.model, who.serial), tuple(steps),
            outputs=self._unknown, shared=baud is None, descents=self._descents(), how="" if baud is None else str(baud),
        )  # fmt: skip

    def _descents(self) -> tuple[Descent, ...]:
        """Return a descent for each level that is driven, if a step or a rate of any is limited."""
        made, port = self._layout, self.drive
        if not port.slews:
            return ()
        most = each(port.step_limit(STEP_S) or 0.0, port.size)
        low, high = each(port.low, port.size), each(port.high, port.size)
        rest = [self._rest.get(name, at) for name, at in zip(made.driven, resting(port), strict=True)]
        return tuple(
            Descent(made.outputs or "*OPC?", made.levels[name].command, made.levels[name].question, at, step, STEP_S, lo, hi)
            for name, at, step, lo, hi in zip(made.driven, rest, most, low, high, strict=True)
        )

    def _switch_off(self) -> None:
        with self._scpi.link.transaction():  # whole: nobody may switch on in between
            self.forget()
            self._panel.left(None)
            carry_out(self.safe_state(), ScpiTalk(self._scpi))
            self._on = None if self._stays else False
            self._panel.left(self._on)

    # ---- the rungs of recovery --------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Set everything up again next time: the instrument may have lost it (power, fault)."""
        self._ready = False
        self._on = None

    def reset(self) -> None:
        """Make safe, then send ``*RST``, whatever the instrument held.

        Raises:
            SwitchedOff: somebody else switched an output off.
        """
        self._panel.check_output()
        self._switch_off()
        self._panel.let_in()
        self._scpi.send("*RST", "*CLS")


def resting(port: Port) -> list[float]:
    """Return the level of each channel of `port` at rest, inside its limits to the last digit."""
    low, high = each(port.low, port.size), each(port.high, port.size)
    return [min(max(at, lo), hi) for at, lo, hi in zip(port.resting().tolist(), low, high, strict=True)]


def per_channel(name: str, value: float | Sequence[float], count: int) -> tuple[float, ...]:
    """A number for each of `count` channels. Raises: ConfigError: a list of another length."""
    found = tuple(value) if isinstance(value, Sequence) else (value,) * count
    if len(found) != count:
        raise ConfigError(
            "a list needs a number for each channel", where=name, got=f"{len(found)} numbers",
            allowed=f"{count}, or one for all", outputs="unchanged; nothing was sent",
        )  # fmt: skip
    return found
