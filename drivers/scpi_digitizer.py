"""Common parts of drivers of oscilloscopes: channels and their screens, what is configured, records and their checks.

    configure   everything that stays (once), then the time axis         nothing is sent if it is set already
    arm, wait   one trigger, recorded; an average takes several, and says when it is ready for the next (`again`)
    read        preamble (now and then: somebody may turn a knob), words, words at a rail

What an instrument says in its own words is in its own file: the settings that count (`_held_of`, `_held_besides`), how it is
set (`_set_up`, `_set_time`), how it waits (`arm`, `_runs`), its preamble (`_described`) and its words (`_words`).
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from drivers.links.link import Link
from drivers.poll import Poll
from drivers.read_back import Panel, Setting
from drivers.scope_models import Averaging, Model, Rails
from drivers.scope_records import Asked, Channel, Described, channels_of, checked, same_scale, screen_of, told_scale
from drivers.scpi import Identity, Scpi, spoken
from drivers.scpi_driver import ScpiDriver
from drivers.time_bases import Rates, TimeBase, TimeBases
from drivers.waveform.record import Memory, Record, Words
from drivers.waveform.roles import no_average
from hil.device import Port
from hil.errors import (
    Changed,
    CommandRefused,
    ConfigError,
    ContractError,
    HilError,
    InstrumentError,
    MissedTrigger,
    NotAReading,
    Saturated,
)

RANGE, POSITION = "time range", "time position"
VERIFY_EVERY = 256  # records between two looks at the preamble: somebody may turn a knob
ARMED_S = 1.0  # longest wait until a scope is ready for a trigger


class ScpiDigitizer(ScpiDriver):
    """A scope, with one channel in use, or several that one trigger records. The constructor resets it.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.
        channel: 1 to 4.
        channels: several, in the order in which they are counted. Empty: `channel` alone.
        range_v: full scale, all divisions; a list: of each channel.
        offset_v: voltage at the middle of the screen; a list: of each channel.
        input_ohm: what the inputs are terminated with.
        trigger_v: level of the trigger.
        memory_samples: another memory than the model's; none: the model's.
        clock: seconds from any origin; deadlines are measured by it.

    Raises:
        WrongInstrument: not one of MODELS. ConfigError: an input that the scope does not have.
    """

    inputs: ClassVar[Mapping[float, str]] = {1e6: ""}  # ohm -> how it is told
    rails: ClassVar[Rails]
    timed: ClassVar[tuple[str, ...]] = (RANGE, POSITION)  # settings that each shape has of its own
    beginning: ClassVar[tuple[str, ...]] = ("*RST", "*CLS")  # that bring it to a known state
    stop: ClassVar[str] = ":STOP"
    speaks: ClassVar[type[Scpi]] = Scpi  # the form of conversation that the instrument understands
    lock: ClassVar[tuple[str, str]] = ("", "")  # question that locks the front panel, command that unlocks it
    hide: ClassVar[str] = ""  # hides channel 1, which *RST shows: one that is on may take rate and memory from another
    form: tuple[str, str] = ("", "")  # question for the form of the words, and its answer
    source: ClassVar[str] = ":WAV:SOUR CHAN{}"  # chooses the channel whose words are asked for
    plain: ClassVar[str] = ":ACQ:TYPE NORM"  # chooses records that are no averages
    averaging: ClassVar[Averaging | str] = "its driver reads one record for each trigger"  # or why it does not average

    _bases: TimeBases | Rates | None = None  # None: every whole divider of its clock

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channel: int = 1,
        channels: tuple[int, ...] = (),
        range_v: float | tuple[float, ...] = 1.0,
        offset_v: float | tuple[float, ...] = 0.0,
        input_ohm: float = 1e6,
        trigger_v: float = 0.5,
        memory_samples: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scpi = spoken(scpi, self.speaks)
        numbers = tuple(channels) or (channel,)
        self._name = f"scope channel{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        self._trigger_v, self._clock = trigger_v, clock
        self._arming, self._taking, self._between = Poll(), Poll(), Poll()
        self._average: Averaging | None = None  # None: every record is one of its own
        self._averages = 1
        self._shape: Asked | None = None  # what the instrument is configured for, if that is known
        self._closed = False
        try:
            self._channels = channels_of(numbers, range_v, offset_v, self._name)
            self._port = screen_of(self._name, self._channels)
            self._input = self._told_input(input_ohm)
            self.identity = self._scpi.identify()
            model = self._limits(self.identity)
            self._scpi.send(*self.beginning)
        except BaseException:
            self._scpi.close()
            raise
        self._panel = self._watched()
        self.memory = model.memory if memory_samples is None else Memory(model.memory.least, memory_samples)
        self.highest_rate_hz, self._most = model.rate_hz, model.memory.most

    def _watched(self, *more: Setting) -> Panel:
        held = (*(setting for one in self._channels for setting in self._held_of(one)), *self._held_besides(), *more)
        return Panel(self._scpi, self._name, held, lock=self.lock[0], unlock=self.lock[1])

    # What an instrument says in its own words.

    @abstractmethod
    def _limits(self, identity: Identity) -> Model:
        """Limits with the channels that are used. Raises: WrongInstrument, ConfigError."""

    @abstractmethod
    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        """All settings of a channel that volts and times of a record rest on."""

    @abstractmethod
    def _held_besides(self) -> tuple[Setting, ...]:
        """Settings of the instrument as a whole; those of `timed` among them."""

    @abstractmethod
    def _set_up(self) -> None:
        """Set everything that stays the same between records, and see that the form of the words was taken."""

    @abstractmethod
    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        """Set the time axis of the record."""

    @abstractmethod
    def arm(self) -> None:
        """Wait for one trigger. Returns when the scope is ready for it, so that no trigger can come too early.

        Raises:
            InstrumentError: it does not get ready within a second.
        """

    @abstractmethod
    def _runs(self) -> bool:
        """True while the record is not complete."""

    @abstractmethod
    def _preamble(self, one: Channel) -> str:
        """Ask for the preamble of a channel."""

    @abstractmethod
    def _described(self, text: str, asked: Asked, one: Channel) -> Described:
        """Read a preamble. Raises: NotAReading, InstrumentError: the record does not hold what was asked for."""

    @abstractmethod
    def _words(self, one: Channel) -> Words:
        """Ask for the words of a channel."""

    # What all scopes do.

    @property
    def reading(self) -> Port:
        """The screen: what can be read without clipping, V, of each channel where there are several."""
        return self._port

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the channels that are used."""
        return tuple(channel.number for channel in self._channels)

    def reset(self) -> None:
        """Send ``*RST``, whatever the instrument held. A scope drives nothing."""
        self.forget()
        self._panel.let_in()
        self._scpi.send(*self.beginning)

    def finer(self, rate_hz: float, most: int) -> int:
        """The largest multiple of `rate_hz`, up to `most`, that a time base or the sampling clock gives; 1 if there is none."""
        if self._bases is not None:
            return self._bases.finer(rate_hz, most)
        ratios = ((multiple, self.highest_rate_hz / (rate_hz * multiple)) for multiple in range(most, 0, -1))
        return next((multiple for multiple, ratio in ratios if ratio >= 1 and math.isclose(ratio, round(ratio))), 1)

    def average(self, records: int) -> None:
        """Average so many records in the instrument from now on, each at an edge of its own; `memory` may get smaller.

        Args:
            records: 2 or more.

        Raises:
            ConfigError: the scope does not average, or not so many records.
        """
        how = self.averaging
        if isinstance(how, str):
            raise no_average(f"{self._name} of {self.identity.model}", how)
        if not 2 <= records <= how.most:
            raise ConfigError(
                "the scope does not average so many records", where=f"{self._name}, averages", got=f"{records}",
                allowed=f"2 to {how.most} ({self.identity.model})", outputs="off; nothing was set",
                todo="write another number of averages in the bench file",
            )  # fmt: skip
        self.forget()
        self._average, self._averages = how, records
        self._panel = self._watched(*(Setting(name, question) for name, question in how.asked.items()))
        if how.samples is not None:
            self.memory = replace(self.memory, most=min(self.memory.most, how.samples))

    @property
    def _acquisition(self) -> tuple[str, ...]:
        """The commands that choose plain records, or averages."""
        how = self._average
        return (self.plain,) if how is None else tuple(command.format(self._averages) for command in how.commands)

    def _time_base(self, samples: int, rate_hz: float) -> TimeBase:
        """Find the time base of a record, of a scope that has them. Raises: ConfigError: there is none."""
        assert isinstance(self._bases, TimeBases)
        return self._bases.of(samples, rate_hz, self._name)

    def forget(self) -> None:
        """Send all settings again next time: the instrument may have lost them (power, fault)."""
        self._shape = None
        self._unread()

    def _unread(self) -> None:
        """Forget the state of the records: nothing is known of them."""
        for channel in self._channels:
            channel.preamble = None

    def configure(self, samples: int, rate_hz: float, start_s: float) -> None:
        """Record `samples` at `rate_hz`, the first `start_s` after the trigger; sends nothing if it is set already.

        A scope that has not this rate takes a higher one: the record's own axis says which.

        Raises:
            ConfigError: more samples, or faster ones, than the model has. CommandRefused: the instrument complains.
        """
        if self._shape == (samples, rate_hz, start_s):
            return
        if samples > self.memory.most or not 0 < rate_hz <= self.highest_rate_hz:
            raise ConfigError(
                "the scope cannot record this",
                where=self._name,
                got=f"{samples} samples at {rate_hz:g} Sa/s",
                allowed=f"up to {self.memory.most} at up to {self.highest_rate_hz:g} Sa/s ({self.identity.model})",
                todo="lower the symbol rate or the samples per symbol",
            )
        known, self._shape = self._shape is not None, None
        self._unread()
        if not known:
            for channel in self._channels:
                channel.upright = None
            self._set_up()
            for question in () if self._average is None else self._average.asked.values():
                self._took(question, self._averages, "records")
            self._panel.renewed()
        self._set_time(samples, rate_hz, start_s)
        self._scpi.check(f"setting up {self._name}")
        self._shape = (samples, rate_hz, start_s)
        self._panel.renewed(self._shape, self.timed)

    def _armed(self, ready: bool, again: Callable[[], bool], got: str) -> None:
        """Ask until the scope is ready for a trigger. Raises: InstrumentError: it is not after ARMED_S."""
        deadline = self._clock() + ARMED_S
        if not ready and not self._arming.until(again, lambda: self._clock() > deadline):
            raise InstrumentError(f"the scope did not arm within {ARMED_S:g} s", where=self._name, got=got)

    def again(self, taken: int, timeout_s: float) -> None:
        """Wait until the scope, which has had the edges of `taken` records of an average, is ready for the next one.

        Raises:
            MissedTrigger: it is not after `timeout_s`: it has missed one; the scope was stopped.
        """
        how = self._average
        if how is None:
            raise ContractError("no average was begun", where=self._name, got="again() of a scope that does not average")
        self._until(self._between, lambda: how.waits(self._scpi, taken), timeout_s, f" for record {taken} of {self._averages}")

    def wait(self, timeout_s: float) -> None:
        """Wait until the record, or the average of all its records, is complete.

        Raises:
            MissedTrigger: it is not after `timeout_s`; the scope was stopped.
            InstrumentError: it is the average of another number of records.
        """
        self._until(self._taking, lambda: not self._runs(), timeout_s)
        if self._average is not None and not self._average.complete(self._scpi, self._averages):
            self.forget()
            raise InstrumentError(
                "the scope did not average all records", where=self._name, got="a record of fewer",
                allowed=f"{self._averages}", outputs="inside their limits",
                todo='repeat the shot; if it comes again, average on the computer: averaged_by = "host" in [waveform]',
            )  # fmt: skip

    def _until(self, poll: Poll, done: Callable[[], bool], timeout_s: float, which: str = "") -> None:
        deadline = self._clock() + timeout_s
        if not poll.until(done, lambda: self._clock() > deadline):
            self._scpi.send(self.stop)
            raise MissedTrigger(
                "no trigger arrived",
                where=self._name,
                got=f"still waiting{which} after {timeout_s:g} s",
                allowed=f"a rising edge at {self._edge_at}",
                outputs="inside their limits",
                todo=f"connect the generator's SYNC output to {self._edge_at}, or look at the trigger level",
            )

    _edge_at: str = "the scope's EXT TRIG"

    def read(self, channel: int = 0) -> Record:
        """The record that a channel has acquired, checked.

        Args:
            channel: which, counted from 0.

        Raises:
            NotAReading: holes, or 9.9E37 in the preamble. Saturated: words at a rail.
            InstrumentError: the record has another shape than configured, or a setting was changed by somebody.
        """
        if self._shape is None:
            raise InstrumentError("read before configure", where=self._name)
        one = self._channels[channel]
        if one.preamble is None or one.until_verified == 0:
            self._read_preamble(self._shape, one)
        one.until_verified -= 1
        words = self._words(one)
        self._check(words, one)
        return Record(words, one.scale, one.axis)

    def _read_preamble(self, asked: Asked, one: Channel) -> None:
        text = self._preamble(one)
        if one.preamble is not None and text != one.preamble:
            before = one.preamble
            self.forget()
            raise _turned(one.name, text, before)
        found = self._described(text, asked, one)
        one.points, one.scale, one.axis, one.first = found.points, found.scale, found.axis, found.first
        if one.upright is not None and not same_scale(one.upright, one.scale):
            old, one.upright = one.upright, None
            self.forget()
            raise _turned(one.name, told_scale(one.scale), told_scale(old))
        one.upright = one.scale
        one.preamble, one.until_verified = text, VERIFY_EVERY

    def _check(self, words: Words, one: Channel) -> None:
        low, high, rails = int(words.min()), int(words.max()), self.rails
        if rails.hole is not None and low == rails.hole:
            raise NotAReading(
                "the record has holes",
                where=one.name,
                got=f"{int((words == rails.hole).sum())} of {len(words)} samples not acquired",
                allowed="none",
                outputs="inside their limits",
                todo="repeat the shot",
            )
        if low <= rails.low or high >= rails.high:
            clipped = int((words <= rails.low).sum() + (words >= rails.high).sum())
            raise Saturated(
                "the input was beyond the screen",
                where=one.name,
                got=f"{clipped} of {len(words)} samples clipped",
                allowed=f"{one.port.shared_low:g} to {one.port.shared_high:g} V",
                outputs="inside their limits",
                todo="increase range_v, or move offset_v",
            )

    def check(self, doing: str) -> None:
        """Raise CommandRefused if the error queue holds errors."""
        self._scpi.check(doing)

    def close(self) -> None:
        """Stop, and close the link; the second call does nothing. A scope drives nothing, so a dead link is no danger."""
        if self._closed:
            return
        self._closed = True
        try:
            self._scpi.send(self.stop)
            self._panel.let_in()
        except HilError:
            self._shape = None
        finally:
            self._scpi.close()

    def _told_input(self, ohm: float) -> str:
        if ohm in self.inputs:
            return self.inputs[ohm]
        allowed = " or ".join("1 Mohm" if each == 1e6 else f"{each:g} ohm" for each in self.inputs)
        raise ConfigError("the scope has no such input", where=self._name, got=f"{ohm:g} ohm", allowed=allowed,
                          outputs="unchanged; nothing was sent", todo="correct input in the bench file")  # fmt: skip

    def _send_screens(
        self,
        screen: Callable[[Channel], Iterable[str]],
        rest: Iterable[str],
        held: Callable[[Channel], Iterable[tuple[str, float]]],
    ) -> None:
        """Send what stays the same between records, and see that form and screens were taken.

        Args:
            screen: commands for the screen of a channel.
            rest: commands for trigger, acquisition and the form of the words.
            held: questions for volts of a channel, and what they should answer.
        """
        hidden = () if 1 in self.channels else (self.hide,)
        self._scpi.send(self.stop, *hidden, *(command for one in self._channels for command in screen(one)), *rest)
        self._check_form()
        for one in self._channels:
            for question, volts in held(one):
                self._took(question, volts, "V")

    def _check_form(self) -> None:
        question, allowed = self.form
        got = self._scpi.ask(question).upper().lstrip("+")
        if got != allowed:
            raise self._refuse_form(got, allowed)

    def _source(self, one: Channel) -> str:
        """Return what chooses a channel, to stand before a question for its words; "" for the only one, which is chosen."""
        return "" if len(self._channels) == 1 else f"{self.source.format(one.number)};"

    def _windows(self, one: Channel, most: int) -> Iterator[tuple[int, int]]:
        """Cut a record into parts of `most` words at most: the first place of each, and the one behind its last."""
        end = one.first + one.points
        return ((begin, min(begin + most, end)) for begin in range(one.first, end, most))

    def _refuse_form(self, got: str, allowed: str) -> CommandRefused:
        """The error of a scope that sends words of another form than it was told to."""
        return CommandRefused(
            "the scope did not take the order or sign of its words", where=self._name, got=got, allowed=allowed,
            outputs="inside their limits",
            todo="every sample would be another one: update the firmware, or use another scope",
        )  # fmt: skip

    def _took(self, question: str, wanted: float, unit: str) -> None:
        """Raises: CommandRefused: the scope holds another number than it was told."""
        found = self._scpi.ask_float(question)
        if not math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-9):
            raise CommandRefused(
                f"the scope did not take a setting ({question})", where=self._name, got=f"{found:g} {unit}",
                allowed=f"{wanted:g} {unit}", outputs="inside their limits",
                todo="switch channels off that are not used, which share the memory, or choose a range that the scope has",
            )  # fmt: skip

    def _checked(self, found: Described, asked: Asked, one: Channel, told: str, form: str) -> Described:
        """Return what a preamble says, if the record holds what was asked for; as drivers.scope_records.checked."""
        return checked(found, asked, one, told, form, max(self.memory.most, self._most))


def _turned(where: str, got: str, allowed: str) -> Changed:
    return Changed(
        "the settings of the scope changed during the measurement", where=where, got=got, allowed=allowed,
        outputs="inside their limits", todo="leave the front panel alone, then repeat; the settings will be sent again",
    )  # fmt: skip
