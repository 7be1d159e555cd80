"""The safe state of an instrument as a value, and the one way to bring it about and to see that it holds.

    ramp     while the output is on:  (amplitude, centre)_k = (a, c) + k/n ((a_end, c_end) - (a, c)),   k = 1 ... n
             a_end   the least amplitude          c_end   the volt nearest to 0 that the channel's limits allow
             n       so that half the change of amplitude plus the change of centre is at most slew * step_s a step
    descents DC levels go to rest together: drivers/descent.py
    steps    command;question -> answer, and the answer is one of those that mean "safe", or the same number

Both ends of the record's range move on straight lines between two ranges inside the limits, so no step breaks them; the
amplitude goes first in each step, so neither does the moment between its two commands. A ramp begins where the instrument is,
so it may be begun again, and it is left out when the output is off: making safe twice sends little and changes nothing.

The value holds text and numbers alone, so that it can be sent to another process as one line of JSON. It names the function
that opens a wire of its own for it, `talk`, which comes with the driver: drivers/scpi_talk.py has it for SCPI,
drivers/spiking/talk.py for frames. The driver's own safe() carries out the same value over the wire that it has.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from drivers.descent import Descent, descend
from drivers.scpi import Expect
from hil.errors import CommandRefused, ConfigError, HilError, LinkError, UnsafeOutputs
from hil.units import finite

TALK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)  # "module:function"
OFF = ("0", "+0", "OFF")
READ_BACK = "off, read back"  # of outputs
PATIENCE = 3.0  # a ramp may take so many times as long as it should, and RAMP_SLACK_S more, before it is given up
RAMP_SLACK_S = 2.0
MOST_STEPS = 100_000
LEVEL_SLACK = 1e-4  # of the range: an instrument answers what it has rounded


@dataclass(frozen=True, slots=True)
class Step:
    """A step to a safe state: a command, and the question that proves it.

    Args:
        command: what makes safe.
        question: what shows it.
        answers: what it answers when it is so; case does not matter.
        within: numbers that differ by so much are the same.
    """

    command: str
    question: str
    answers: tuple[str, ...]
    within: float = 1e-6


@dataclass(frozen=True, slots=True)
class Ramp:
    """The way down of a channel before it is switched off.

    Args:
        output, amplitude, offset: its SCPI headers.
        slew_v_per_s: at most, at any point of the record.
        least_vpp: smallest amplitude.
        low_v, high_v: limits of the drive.
        step_s: time between two steps.
    """

    output: str
    amplitude: str
    offset: str
    slew_v_per_s: float
    least_vpp: float
    low_v: float
    high_v: float
    step_s: float = 0.02

    def __post_init__(self) -> None:
        times = (self.slew_v_per_s, self.least_vpp, self.step_s)
        if not (all(0 < x < math.inf for x in times) and -math.inf < self.low_v < self.high_v < math.inf):
            raise ConfigError(
                "a ramp must be positive and finite", where="safe state", got=repr(self), outputs="unchanged; nothing was sent"
            )
        longest_s = MOST_STEPS * self.step_s
        if self.longest_s > longest_s:  # with more steps than that, the slew could not be kept
            raise ConfigError(
                f"the ramp would take {self.longest_s:.3g} s", where="safe state", got=f"a slew of {self.slew_v_per_s:g} V/s",
                allowed=f"at least {self._longest_way_v / longest_s:.3g} V/s", outputs="unchanged; nothing was sent",
            )  # fmt: skip

    def end(self, amplitude_vpp: float) -> tuple[float, float]:
        """Amplitude (Vpp) and offset (V) at the foot of the ramp: least, and nearest to 0 V inside the limits."""
        least = min(amplitude_vpp, self.least_vpp)
        room_low, room_high = self.low_v + 0.5 * least, self.high_v - 0.5 * least
        return least, 0.5 * (room_low + room_high) if room_low > room_high else min(max(0.0, room_low), room_high)

    def holds(self, amplitude_vpp: float, offset_v: float) -> bool:
        """True if the whole record is inside the limits; only from there does no step lead outside of them."""
        slack = LEVEL_SLACK * (self.high_v - self.low_v)
        lowest, highest = offset_v - 0.5 * amplitude_vpp, offset_v + 0.5 * amplitude_vpp
        return amplitude_vpp >= 0 and self.low_v - slack <= lowest and highest <= self.high_v + slack  # False for NaN

    def levels(self, amplitude_vpp: float, offset_v: float) -> Iterator[tuple[float, float]]:
        """Amplitude and offset of each step, from where the channel is."""
        least, centre = self.end(amplitude_vpp)
        way_v = 0.5 * (amplitude_vpp - least) + abs(centre - offset_v)
        count = min(MOST_STEPS, math.ceil(way_v / (self.slew_v_per_s * self.step_s) - 1e-9))
        for k in range(1, count + 1):
            part = k / count
            yield amplitude_vpp + part * (least - amplitude_vpp), offset_v + part * (centre - offset_v)

    @property
    def longest_s(self) -> float:
        """Return the longest time that a ramp takes from inside the limits, s."""
        return self._longest_way_v / self.slew_v_per_s

    @property
    def _longest_way_v(self) -> float:
        return 0.5 * (self.high_v - self.low_v) + max(abs(self.low_v), abs(self.high_v))


@dataclass(frozen=True, slots=True)
class SafeState:
    """The safe state of one instrument.

    Args:
        name: on its bench.
        resource: where it is.
        talk: "module:function" that opens a wire to it; see Conversation.
        expect: who must answer before anything is set.
        steps: in this order.
        outputs: what they may be until it is verified.
        shared: a second wire to it can be opened beside one in use.
        descents: of DC levels, before the steps.
        how: what `talk` needs to know besides, as text.
        imports: modules besides that of `talk` that it needs; they are imported with it.
        ramps: of further channels, one after another behind `ramp`.
        read_back: the instrument says that it is so; False of one that takes the command and cannot be asked.
    """

    name: str
    resource: str
    talk: str
    expect: Expect
    steps: tuple[Step, ...]
    ramp: Ramp | None = None
    outputs: str = "unknown"
    shared: bool = True
    descents: tuple[Descent, ...] = ()
    how: str = ""
    imports: tuple[str, ...] = ()
    ramps: tuple[Ramp, ...] = ()
    read_back: bool = True

    def to_json(self) -> str:
        """Write it as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SafeState:
        """Raises: ConfigError: not the JSON of a safe state."""
        try:
            return cls.from_table(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError("not a safe state", where="safe state", got=f"{text[:80]!r}: {error}") from error

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> SafeState:
        """Raises: ConfigError: as `from_json`."""
        try:
            values = dict(table)
            expect = Expect(**{key: _frozen(value) for key, value in values.pop("expect").items()})
            steps = tuple(Step(**{**each, "answers": _frozen(each["answers"])}) for each in values.pop("steps"))
            ramp = values.pop("ramp")
            down = tuple(Descent(**each) for each in values.pop("descents", ()))
            values["imports"] = _frozen(values.get("imports", ()))
            more = tuple(Ramp(**each) for each in values.pop("ramps", ()))
            first = None if ramp is None else Ramp(**ramp)
            state = cls(expect=expect, steps=steps, ramp=first, descents=down, ramps=more, **values)
            _check_kinds(state)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError("not a safe state", where="safe state", got=f"{str(table)[:80]!r}: {error}") from error
        return state


def outputs_after(states: Iterable[SafeState]) -> str:
    """Say what is known of the outputs once all of `states` were brought about, for people."""
    taken = [state.name for state in states if not state.read_back]
    return f"off, but {' and '.join(taken)} cannot be asked: what was sent is all that is known" if taken else READ_BACK


@runtime_checkable
class Switchable(Protocol):
    """A driver whose instrument can drive something."""

    def safe_state(self) -> SafeState:
        """Describe the safe state, once the instrument was identified: the one that answered must answer again."""


class Talk(Protocol):
    """An exchange with an identified instrument."""

    def do(self, command: str, question: str) -> str:
        """Send `command` unless it is "", then ask `question`; return the answer."""


Conversation = Callable[[SafeState], AbstractContextManager[Talk]]  # opens a new wire to the expected instrument


def conversation(state: SafeState) -> Conversation:
    """Import the function that `state.talk` names and `state.imports`, and call `prepare` of its module if it has one.

    Raises:
        ConfigError: one of them cannot be imported.
    """
    path, _, name = state.talk.partition(":")
    try:
        module = importlib.import_module(path)
        found: Conversation = getattr(module, name)
        for more in state.imports:
            importlib.import_module(more)
        if hasattr(module, "prepare"):
            module.prepare()
    except Exception as error:  # a module of the user's may fail in any way
        raise ConfigError(
            "the conversation that makes this instrument safe cannot be imported", where=f"{state.name} at {state.resource}",
            got=f"{state.talk}: {type(error).__name__}: {error}".splitlines()[0], allowed="module:function",
            outputs=state.outputs, todo="correct `talk` in safe_state() of its driver",
        ) from error  # fmt: skip
    return found


def carry_out(
    state: SafeState, talk: Talk, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Bring `state` about, verified. Returns a remark: why it was not ramped, or "".

    Takes `longest_s` of each ramp times PATIENCE and RAMP_SLACK_S at most, besides an exchange a step.

    Raises:
        CommandRefused: an answer that does not mean "safe". LinkError: the wire; nothing is known then.
    """
    ramps = state.ramps if state.ramp is None else (state.ramp, *state.ramps)
    remark = "; ".join(filter(None, [_ramp_down(ramp, talk, clock, sleep) for ramp in ramps]))
    remark = descend(state.descents, talk, clock, sleep) if state.descents else remark
    for step in state.steps:
        answer = talk.do(step.command, step.question).strip()
        if not any(_same(answer, right, step.within) for right in step.answers):
            raise CommandRefused(
                "the instrument does not say that it is safe", where=f"{state.name} at {state.resource}",
                got=f"{answer!r} to {step.question}", allowed=" or ".join(step.answers), outputs=state.outputs,
                todo="switch it off by hand",
            )  # fmt: skip
    return remark


def _ramp_down(ramp: Ramp, talk: Talk, clock: Callable[[], float], sleep: Callable[[float], None]) -> str:
    """A ramp that does not go as it should is given up: switched off at once is safer than on for longer."""
    try:
        if talk.do("", f"{ramp.output}?").strip().upper() in OFF:
            return ""
        amplitude, offset = _levels(talk, "", ramp)
        if not ramp.holds(amplitude, offset):
            return f"not ramped: the instrument says {amplitude:g} Vpp, {offset:g} V, which is outside its limits"
        give_up = clock() + PATIENCE * ramp.longest_s + RAMP_SLACK_S
        for vpp, volts in ramp.levels(amplitude, offset):
            begin = clock()
            if begin > give_up:
                return f"not ramped to the end: slower than {PATIENCE:g} times {ramp.longest_s:.3g} s"
            taken = _levels(talk, f"{ramp.amplitude} {vpp:.6g};{ramp.offset} {volts:.6g}", ramp)
            if not all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) for a, b in zip(taken, (vpp, volts), strict=True)):
                return f"not ramped to the end: the instrument is at {taken[0]:g} Vpp, {taken[1]:g} V"
            sleep(max(0.0, ramp.step_s - (clock() - begin)))
    except LinkError:
        raise
    except (HilError, ValueError) as error:
        return f"not ramped to the end: {str(error).splitlines()[0]}"
    return ""


def _same(answer: str, right: str, within: float) -> bool:
    """True if both are the same text or the same number: "+0.00000000E+00" is 0."""
    try:
        return answer.upper() == right.upper() or math.isclose(finite(answer), finite(right), rel_tol=1e-3, abs_tol=within)
    except ValueError:
        return False


def _levels(talk: Talk, command: str, ramp: Ramp) -> tuple[float, float]:
    """Vpp and V after `command`. Raises: ValueError: not two numbers."""
    amplitude, offset = talk.do(command, f"{ramp.amplitude}?;{ramp.offset}?").split(";")
    return finite(amplitude), finite(offset)


def switch_off_surely(
    switch_off: Callable[[], object], open_anew: Callable[[], object], unsafe: Callable[[str], UnsafeOutputs]
) -> None:
    """Switch off; after a fault of the link, or a Ctrl-C, once more over a connection that was opened anew.

    Args:
        switch_off: does it, and verifies it.
        open_anew: replaces the connection, and sees that the same instrument answers.
        unsafe: makes the error of what was got.

    Raises:
        UnsafeOutputs: neither could do it. KeyboardInterrupt: it is off all the same.
    """
    stop: KeyboardInterrupt | None = None
    try:
        try:
            switch_off()
        except (LinkError, KeyboardInterrupt) as fault:
            stop = fault if isinstance(fault, KeyboardInterrupt) else None
            open_anew()
            switch_off()
    except (HilError, KeyboardInterrupt) as reason:
        said = "Ctrl-C, twice" if isinstance(reason, KeyboardInterrupt) else str(reason).splitlines()[0].rstrip(".")
        raise unsafe(said) from reason
    if stop is not None:
        raise stop


def in_order(states: Sequence[SafeState], order: Sequence[str]) -> tuple[SafeState, ...]:
    """Return `states` in the order of their names in `order`; those that it does not name come last, as they came."""
    place = {name: k for k, name in enumerate(order)}
    return tuple(sorted(states, key=lambda state: place.get(state.name, len(place))))


def _check_kinds(state: SafeState) -> None:
    """Raises: ValueError: a field that holds another kind of value."""
    if not isinstance(state.imports, tuple):
        raise ValueError(f"imports {state.imports!r}")
    texts = [state.name, state.resource, state.outputs, state.expect.serial, state.how, *state.imports]
    for some in (state.expect.maker, state.expect.model):
        texts += some if isinstance(some, tuple) else [some]
    for step in state.steps:
        if not isinstance(step.answers, tuple):
            raise ValueError(f"answers {step.answers!r}")
        texts += [step.command, step.question, *step.answers]
        if not isinstance(step.within, int | float) or not 0 <= step.within < math.inf:
            raise ValueError(f"within {step.within!r}")
    for ramp in state.ramps if state.ramp is None else (state.ramp, *state.ramps):
        texts += [ramp.output, ramp.amplitude, ramp.offset]
    texts += [text for down in state.descents for text in (down.output, down.command, down.question)]
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} where text is due")
    if not isinstance(state.talk, str) or not TALK.fullmatch(state.talk):
        raise ValueError(f"talk {state.talk!r}, which is no module:function")
    for name in ("shared", "read_back"):
        if not isinstance(value := getattr(state, name), bool):
            raise ValueError(f"{name} {value!r}")


def _frozen(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value
