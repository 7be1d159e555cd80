"""Comparison of what an instrument holds with what it said when it was set: a change by another hand is seen and told.

    question   :OUTP1?;:SOUR1:VOLT?;...;*ESR?            all that counts in one message; one answer, its parts joined by ";"
    before     the box's own answers after the driver had set it, so they are rounded as the box rounds
    finding    a value that is not the one of before; the output on or off otherwise than the driver left it; a bit of *ESR?

A `Panel` is that for one instrument: its driver says which settings count (header, kind, unit, tolerance) and calls `renewed()`
when it has set them, `left()` when it has switched the output. A `PanelWatch` looks at the panels of a device every few seconds
of use, and decides what a finding is: SwitchedOff, Changed, or ChangeForbidden.

Source: IEEE 488.2-1992, 11.5.1 (ESR: 7 power on, 5 command error, 4 execution error, 3 device error, 2 query error); SCPI-1999
volume 1, 6.2.5 (several questions in one message).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from drivers.scpi import POWER_ON, Scpi
from hil.errors import (
    Changed,
    ChangeForbidden,
    ConfigError,
    Desync,
    HilError,
    InstrumentError,
    LinkError,
    LinkTimeout,
    SwitchedOff,
)
from hil.units import finite

Value = float | str | bool
Kind = Literal["number", "word", "flag"]
Policy = Literal["restore", "stop"]
ERRORS = 0b00111100  # of *ESR?: command, execution, device and query error
SAME = 1e-6  # of the value: two answers that differ by less are the same setting
LONGEST_S = 60.0  # between two looks
SHARE = 0.01  # of the time, at most, for looks that are asked for besides the schedule
PLACES = 64  # sets of own settings whose answers are remembered
OUTPUT = "output"
NO_ANSWER = "no answer"  # to a question that the instrument refuses as it is set now, or does not know
FLAGS = {"1": True, "+1": True, "ON": True, "0": False, "+0": False, "OFF": False}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that counts.

    Args:
        name: for people.
        question: its SCPI header, ":SOUR1:VOLT?".
        kind: of the answer.
        unit: of a number.
        tolerance: two numbers that differ by less are the same, in that unit; see SAME besides.
    """

    name: str
    question: str
    kind: Kind = "number"
    unit: str = ""
    tolerance: float = 0.0

    @property
    def output(self) -> bool:
        """True if this is an output; several are "output", "output 2", … ."""
        return self.name.partition(" ")[0] == OUTPUT

    def read(self, text: str) -> Value:
        """Raises: ValueError: not an answer of this kind."""
        if text == NO_ANSWER:
            return text
        if self.kind == "number":
            return finite(text)
        if self.kind == "flag":  # "1,1,0", of several channels: on while all are
            parts = text.upper().replace(" ", "").split(",")
            if not all(part in FLAGS for part in parts):
                raise ValueError(text)
            return all(FLAGS[part] for part in parts)
        return text.upper()

    def same(self, a: Value, b: Value) -> bool:
        """True if `a` and `b` are the same setting: floats within the tolerance, else equal."""
        if isinstance(a, float) and isinstance(b, float):
            return math.isclose(a, b, rel_tol=SAME, abs_tol=self.tolerance)
        return a == b

    def said(self, value: Value) -> str:
        """Write a value for people: "on", "off", or a number with its unit."""
        if isinstance(value, bool):
            return "on" if value else "off"
        return f"{value:.6g} {self.unit}".rstrip() if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class ForeignChange:
    """A difference from how the instrument was left.

    Args:
        kind: "setting", "off" (the output; somebody did it), "power" (the box was switched off and on), "errors" (it
            refused something that the driver did not send, or did not look after).
        said: a sentence with the old and the new value.
        beyond: why the drive may be outside of its limits, or "".
    """

    kind: Literal["setting", "off", "power", "errors"]
    said: str
    beyond: str = ""


@runtime_checkable
class Looked(Protocol):
    """An instrument, as a PanelWatch sees it. `Panel` is one; drivers/spiking/device.py has another."""

    @property
    def name(self) -> str:
        """Name of the instrument, for people."""

    def settle(self) -> None:
        """Ask for what was set since the last time, and keep the answers as what must be found from now on."""

    def findings(self) -> list[ForeignChange]:
        """Ask for everything, and compare."""


@runtime_checkable
class Panelled(Protocol):
    """A driver whose instrument says what it holds, and that can bring it to a known state."""

    @property
    def panel(self) -> Panel:
        """The settings that are read back."""

    def held(self) -> Mapping[str, Value]:
        """Ask the box, in one message, for its settings."""

    def reset(self) -> None:
        """Switch the output off, as the safe state says; then go to the known state of the maker.

        Settings must be sent again after it.

        Raises:
            SwitchedOff: somebody else switched the output off.
        """


class Panel:
    """The settings of one instrument that count.

    Args:
        scpi: the conversation.
        name: of the instrument, for people.
        settings: what is asked for, in this order; flags called "output", "output 2", … are compared with what the driver said
            by `left`, not with an earlier answer.
        beyond: why the drive may be outside of its limits with such settings, or "".
        lock: a question that locks the front panel and answers 1, for example ":SYST:LOCK 1;:SYST:LOCK?".
        unlock: a command.
    """

    def __init__(
        self,
        scpi: Scpi,
        name: str,
        settings: Sequence[Setting],
        beyond: Callable[[Mapping[str, Value]], str] = lambda held: "",
        lock: str = "",
        unlock: str = "",
    ) -> None:
        self._scpi, self._name, self._beyond = scpi, name, beyond
        self._settings = {setting.name: setting for setting in settings}
        self._question = ";".join([*(setting.question for setting in settings), "*ESR?"])
        self._lock, self._unlock, self._locked = lock, unlock, False
        self._before: dict[str, Value] = {}
        self._own: dict[Hashable, dict[str, Value]] = {}
        self._place: Hashable = None
        self._names: frozenset[str] = frozenset()
        self._on: bool | None = None  # as the driver left the output; None: not known
        self._off_by_hand = False

    @property
    def name(self) -> str:
        """Name of the instrument, for people."""
        return self._name

    def held(self) -> dict[str, Value]:
        """Ask the instrument for its settings, by name."""
        return self._ask()[0]

    def _ask(self) -> tuple[dict[str, Value], int]:
        """The settings, and the bits of the standard event register, which this clears.

        Raises:
            Desync: not as many answers as questions, or an answer of another kind.
        """
        reply = self._scpi.ask(self._question)
        parts = [part.strip() for part in reply.split(";")]
        if len(parts) <= len(self._settings):
            parts = self._one_by_one()
        try:
            if len(parts) != len(self._settings) + 1:
                raise ValueError(f"{len(parts)} answers")
            held = {setting.name: setting.read(part) for setting, part in zip(self._settings.values(), parts, strict=False)}
            return held, int(finite(parts[-1]))
        except (ValueError, OverflowError) as error:
            raise self._nonsense(reply, f"{len(self._settings) + 1} answers to {self._question}") from error

    def _one_by_one(self) -> list[str]:
        """An answer is missing: which? *OPC? is always answered, whatever follows it in the message."""
        replies = [self._scpi.ask(f"*OPC?;{question}").partition(";") for question in self._question.split(";")]
        self._scpi.errors()
        return [answer.strip() if given else NO_ANSWER for _, given, answer in replies]

    def _nonsense(self, reply: str, allowed: str) -> Desync:
        what = "the instrument does not say what it holds"
        self._scpi.link.distrust(what)
        return Desync(
            what, where=self._scpi.link.name, got=repr(reply[:200]), allowed=allowed, outputs="as they were",
            todo="recover() the session: it may be the answer to an older question",
        )  # fmt: skip

    # What the driver says.

    def renewed(self, place: Hashable = None, names: Iterable[str] = ()) -> None:
        """Note that the driver has set the instrument, so that the next `settle` learns the new values.

        Args:
            place: what the settings belong to; answers that were heard once for it need not be asked for again.
            names: of the settings that changed; empty: all of them.
        """
        self._place, self._names = place, frozenset(names)
        if not self._names:
            self._before, self._own, self._scpi.power_lost = {}, {}, False

    def left(self, on: bool | None) -> None:
        """The driver has switched the output on or off; None: nobody knows, or the power was lost."""
        self._on = on

    def check_output(self) -> None:
        """Check, before the driver switches the output, that it is as the driver left it.

        Raises:
            SwitchedOff: it was left on, and somebody else has switched it off, now or at an earlier look.
        """
        outputs = [setting for setting in self._settings.values() if setting.output]
        if self._on and not self._off_by_hand and outputs:
            question = ";".join([*(output.question for output in outputs), "*ESR?"])
            reply = self._scpi.ask(question)
            try:
                *answers, events = reply.split(";")
                on = all(output.read(answer.strip()) for output, answer in zip(outputs, answers, strict=True))
                self._scpi.power_lost = self._scpi.power_lost or bool(int(finite(events)) & POWER_ON)
            except (ValueError, OverflowError) as error:
                raise self._nonsense(reply, f"{len(outputs) + 1} answers to {question}") from error
            self._off_by_hand = not self._scpi.power_lost and not on
        if self._off_by_hand:
            raise switched_off(self._name)

    def lock_out(self) -> str:
        """Lock the front panel; "" when it is, else why not. Nothing depends on it."""
        if not self._lock:
            return "it has no lock"
        self.let_in()
        try:
            reply = self._scpi.ask(f"*OPC?;{self._lock}")  # a box that does not know the question still answers the first one
            self._locked = reply.split(";")[-1].lstrip("+") == "1" and ";" in reply
            return "" if self._locked else f"{reply!r} to {self._lock}; {'; '.join(self._scpi.errors())}".rstrip("; ")
        except LinkTimeout as silence:
            self._scpi.recover()
            return silence.got or silence.what

    def let_in(self) -> None:
        """Unlock the front panel, if this program has locked it."""
        if self._locked:
            self._locked = False
            self._scpi.send(self._unlock)

    # What a PanelWatch asks.

    def settle(self) -> None:
        """Ask the instrument for what the driver has just set, and keep the answers as what is due from now on.

        Raises:
            SwitchedOff: somebody else switched the output off.
            Changed: another setting is not what it was, though the driver did not touch it.
        """
        if self._before and (not self._names or self._place in self._own):
            return
        held, events = self._ask()
        own = {name: held[name] for name in self._names}
        if self._before:
            found = [f for f in self._findings(held, events) if f.kind != "errors"]
            if found:
                raise switched_off(self._name) if self._off_by_hand else _changed(self._name, found)
        else:
            self._before = held
        if len(self._own) >= PLACES:
            self._own.clear()
        self._own[self._place] = own

    def findings(self) -> list[ForeignChange]:
        """Ask the instrument for all of its settings and return what is not as it was left."""
        held, events = self._ask()
        return self._findings(held, events)

    def _findings(self, held: Mapping[str, Value], events: int) -> list[ForeignChange]:
        self._scpi.power_lost = self._scpi.power_lost or bool(events & POWER_ON)
        if self._scpi.power_lost:
            self._on = None
            return [ForeignChange("power", "it was switched off and on")]
        due = self._before | self._own.get(self._place, {})
        heard = self._place in self._own
        beyond, found = self._beyond(held), []
        for name, setting in self._settings.items():
            if setting.output:
                found += self._of_output(setting, held[name])
            elif name in due and (heard or name not in self._names) and not setting.same(due[name], held[name]):
                old, new = setting.said(due[name]), setting.said(held[name])
                found.append(ForeignChange("setting", f"{name} {old} -> {new}", beyond))
        if events & ERRORS:
            found.append(ForeignChange("errors", f"it refused something (*ESR? {events})"))
        return found

    def _of_output(self, setting: Setting, on: Value) -> list[ForeignChange]:
        if self._on is None or on is self._on:
            return []
        self._off_by_hand = self._off_by_hand or on is False
        change = f"{setting.name} {setting.said(self._on)} -> {setting.said(on)}"
        return [ForeignChange("off" if on is False else "setting", change)]


@dataclass(frozen=True, slots=True)
class Care:
    """Settings that say how often instruments are read back, and what happens when somebody else changed one.

    Args:
        every_s: seconds of use between two looks; 0: after every record.
        policy: "restore" sets the bench up again from reset and repeats the shot; "stop" ends the run.
        lock: ask the instruments to lock their front panels.
    """

    every_s: float = 2.0
    policy: Policy = "restore"
    lock: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.every_s <= LONGEST_S:
            raise ConfigError(
                "the instruments must be asked every few seconds", where="panel", got=f"every {self.every_s} s",
                allowed=f"0 to {LONGEST_S:g} s",
            )  # fmt: skip
        if self.policy not in ("restore", "stop"):
            raise ConfigError("no such policy", where="panel", got=str(self.policy), allowed="restore or stop")


class PanelWatch:
    """Looks at the panels of one device.

    Args:
        panels: of its instruments.
        care: when, and what then.
        clock: seconds from any origin.
    """

    def __init__(self, panels: Sequence[Looked], care: Care | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._panels, self._care, self._clock = tuple(panels), care or Care(), clock
        self._looked_s = clock()
        self._shots = 0
        self._took_s = 0.0  # the last look
        self._wanted = False

    def attend(self) -> None:
        """Look with the next shot, whenever the last look was; a little later where looks would cost more than SHARE."""
        self._wanted = True

    def settle(self) -> None:
        """Keep the instruments' answers as what is due, after the drivers have set something."""
        for panel in self._panels:
            panel.settle()

    def shot(self) -> None:
        """A shot begins."""
        self._shots += 1

    def due(self) -> bool:
        """Look if it is time to; True: it was, and everything is as it was set.

        Raises:
            SwitchedOff, Changed, ChangeForbidden: what was found. LinkError: of the instruments.
        """
        every_s = min(self._care.every_s, self._took_s / SHARE) if self._wanted else self._care.every_s
        begin = self._clock()
        if begin - self._looked_s >= every_s:
            self.look()
            self._took_s = self._clock() - begin
            return True
        return False

    def look(self) -> None:
        """Raises: as `due`."""
        found = self._found(errors=True)
        if found:
            raise self._fault(found)
        self._clean()

    def begin(self) -> None:
        """The instruments are set up, and nothing was measured with them yet."""
        self.settle()
        self._clean()

    def cause(self, fault: HilError) -> HilError:
        """Find out whether somebody else made a shot fail; return that fault, else `fault` itself."""
        told = isinstance(fault, SwitchedOff) or (isinstance(fault, Changed) and fault.suspect_shots is not None)
        if told or isinstance(fault, LinkError) or not self._panels:
            return fault
        try:
            found = self._found(errors=False)
        except HilError:
            return fault
        if found:
            return self._fault(found)
        return self._judged(fault) if isinstance(fault, Changed) else fault

    def before_reset(self) -> str:
        """Say, before everything is set up again, what else was changed; "" if nothing was.

        Raises:
            SwitchedOff: an output was switched off by somebody. ChangeForbidden: by the policy. LinkError: of the instruments.
        """
        found = self._found(errors=False)
        if not found:
            return ""
        fault = self._fault(found)
        if isinstance(fault, SwitchedOff | ChangeForbidden):
            raise fault
        return ", ".join(finding.said for _, finding in found)

    def _found(self, errors: bool) -> list[tuple[str, ForeignChange]]:
        """Ask every panel; name of the instrument and what is not as it was left, of each. Two may have one name."""
        return [(p.name, one) for p in self._panels for one in p.findings() if errors or one.kind != "errors"]

    def _clean(self) -> None:
        self._looked_s, self._shots, self._wanted = self._clock(), 0, False

    def _fault(self, flat: Sequence[tuple[str, ForeignChange]]) -> InstrumentError:
        """Return the fault, and end the stretch of shots that it is about."""
        off = next((name for name, finding in flat if finding.kind == "off"), None)
        suspect, since_s = max(1, self._shots), self._clock() - self._looked_s
        doubt = f"up to {suspect} shot{'s' * (suspect > 1)} of the last {since_s:.1f} s may have been measured so"
        self._clean()
        if off is not None:
            return switched_off(off)
        name = " and ".join(dict.fromkeys(name for name, _ in flat))
        fault = _changed(name, [finding for _, finding in flat], doubt)
        fault.suspect_shots = suspect
        beyond = next((finding.beyond for _, finding in flat if finding.beyond), "")
        handmade = any(finding.kind == "setting" for _, finding in flat)  # a power cut is nobody's policy
        return self._judged(fault, beyond) if handmade else fault

    def _judged(self, fault: Changed, beyond: str = "") -> Changed:
        """Apply the policy; what may be outside of the limits always stops the run."""
        if not beyond and self._care.policy == "restore":
            return fault
        rule = 'as the bench file says policy = "stop"' if not beyond else "where it leads out of the limits of the drive"
        stopped = ChangeForbidden(
            fault.what, where=fault.where, got=f"{fault.got}; {beyond}" if beyond else fault.got,
            allowed=f"nothing that another hand sets, {rule}", outputs=fault.outputs,
            todo="put the instrument right, keep hands off it, then hil resume",
        )  # fmt: skip
        stopped.suspect_shots = fault.suspect_shots
        return stopped


def switched_off(name: str) -> SwitchedOff:
    """The error of an output that somebody else switched off."""
    return SwitchedOff(
        "the output was switched off by a person, another program or its own protection, and stays off", where=name,
        got="output on -> off", allowed="only a person may switch it on again", outputs="off",
        todo="see why it was switched off; when it may go on again, say so by starting hil resume",
    )  # fmt: skip


def _changed(name: str, findings: Iterable[ForeignChange], doubt: str = "") -> Changed:
    said = ", ".join(finding.said for finding in findings)
    return Changed(
        "settings were changed by another hand", where=name, got=f"{said}; {doubt}" if doubt else said,
        allowed="what this program had set", outputs="as somebody else set them",
        todo="leave the front panel alone, and let no other program set the instrument",
    )  # fmt: skip


def close_panel(panel: Panel) -> None:
    """Give the front panel back on closing. A wire that is gone cannot, and the box gives it back by itself then."""
    with suppress(HilError):
        panel.let_in()
