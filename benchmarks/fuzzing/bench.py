"""Targets: the real drivers and the waveform device on a table whose answers are damaged, with a watch on what they send.

An input names the answer that is replaced (its number among all answers, with the highest bit: of all later answers to that
question too) and what takes its place. Whatever the driver is told, the commands that it sends are carried out by `Output`, an
instrument that obeys everything: its volts must stay inside the drive's limits as long as its output is on.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
import torch

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.block import read_block
from drivers.links.link import Trust
from drivers.links.stream import LINE_LIMIT_BYTES, out_of_step
from drivers.waveform.device import Waveform, WaveformSettings
from fuzzing.boxes import Clock, Table
from fuzzing.target import OutOfLimits, Target
from fuzzing.wires import Message
from hil.errors import ConfigError, InstrumentError, LinkError, LinkTimeout, MeasurementError, UnsafeOutputs

LOW_V, HIGH_V, TOLERANCE_V = -2.0, 3.0, 1e-4
ANSWERED = (LinkError, InstrumentError, MeasurementError, UnsafeOutputs, ConfigError)
UPLOAD = re.compile(rb":DATA:ARB:DAC HIL,#(\d)")
NUMBER = {"VOLT": re.compile(r"^:?SOUR1:VOLT (\S+)$"), "OFFS": re.compile(r"^:?SOUR1:VOLT:OFFS (\S+)$")}


class Output:
    """What a generator that obeys everything would put on its connector."""

    def __init__(self) -> None:
        self.vpp, self.offset_v, self.on = 0.1, 0.0, False
        self.codes = np.zeros(1, np.int16)

    def obey(self, message: bytes) -> None:
        upload = UPLOAD.search(message)
        if upload:
            digits = int(upload[1])
            first = upload.end() + digits
            size = int(message[upload.end() : first])
            if len(message) != first + size:
                raise OutOfLimits(f"a block of {size} bytes in a message of {len(message)}")
            self.codes = np.frombuffer(message[first:], "<i2")
            if self.codes.size == 0 or self.codes.min() < -32767:
                raise OutOfLimits("codes that do not exist")
            message = message[: upload.start()]
        for command in message.decode("ascii").split(";"):
            self._one(command)
            self._check(command)

    def _one(self, command: str) -> None:
        if command == "*RST":
            self.__init__()  # type: ignore[misc]
        elif command in (":OUTP1 1", ":OUTP1 0"):
            self.on = command.endswith("1")
        for name, pattern in NUMBER.items():
            found = pattern.match(command)
            if found and name == "VOLT":
                self.vpp = float(found[1])
            elif found:
                self.offset_v = float(found[1])

    def _check(self, command: str) -> None:
        half = 0.5 * self.vpp / 32767
        ends = [self.offset_v + half * int(code) for code in (self.codes.min(), self.codes.max())]
        inside = all(LOW_V - TOLERANCE_V <= volts <= HIGH_V + TOLERANCE_V for volts in ends)
        sane = 0 <= self.vpp <= 10.0 and abs(self.offset_v) <= 5.0  # what the instrument itself can do
        if not sane or (self.on and not inside):
            raise OutOfLimits(
                f"{command!r}: {self.vpp} Vpp at {self.offset_v} V, codes {self.codes.min()} to {self.codes.max()}"
            )


class Answers:
    """The answers of a table in the order in which they were asked for, one of them replaced."""

    def __init__(self, data: bytes = b"") -> None:
        self._turn = data[0] & 0x7F if data else -1
        self._always = bool(data) and data[0] >= 0x80
        self._instead = data[1:]
        self._struck: bytes | None = None
        self.given: list[bytes] = []

    def of(self, question: bytes, honest: bytes) -> bytes:
        number = len(self.given)
        self.given.append(honest)
        if number == self._turn:
            self._struck = question[-12:]
        elif not (self._always and question[-12:] == self._struck):
            return honest
        return self._instead


class TableLink:
    """A Link to a box of the table. The bytes that the driver sends go to `output` too."""

    timeout_s = 0.5

    def __init__(self, box: object, answers: Answers, output: Output | None = None) -> None:
        self.name = "fuzz"
        self._box, self._answers, self._output = box, answers, output
        self._trust = Trust("fuzz")
        self._waiting: list[tuple[bytes, bytes]] = []
        self.closed = 0

    @property
    def dirty(self) -> bool:
        return self._trust.dirty

    def write(self, *parts: bytes | memoryview) -> None:
        with self._trust.use():
            message = b"".join(bytes(part) for part in parts)
            if self._output is not None:
                self._output.obey(message)
            reply = self._box.execute(message)  # type: ignore[attr-defined]
            if reply is not None:
                self._waiting.append((message, reply))

    def _reply(self) -> bytes:
        if not self._waiting:
            raise LinkTimeout("no answer", where=self.name)
        reply = self._answers.of(*self._waiting.pop(0))
        if len(reply) > LINE_LIMIT_BYTES:
            raise out_of_step("too long", self.name, reply, "less")
        return reply

    def read_text(self) -> str:
        with self._trust.use():
            reply = self._reply()
            if not reply.isascii():
                raise out_of_step("the reply is not ASCII text", self.name, reply, "ASCII")
            return reply.decode("ascii")

    def read_block(self, item_bytes: int, limit_bytes: int) -> memoryview:
        with self._trust.use():
            return read_block(Message(self._reply()), item_bytes, limit_bytes, self.name)

    def transaction(self) -> AbstractContextManager[None]:
        return self._trust.transaction()

    def distrust(self, reason: str) -> None:
        self._trust.lose(reason)

    def reidentifying(self) -> AbstractContextManager[None]:
        return self._trust.reidentifying()

    def clear(self) -> None:
        self._waiting.clear()
        self._trust.emptied("cleared")

    def reopen(self) -> None:
        self.clear()

    def close(self) -> None:
        self.closed += 1


@contextlib.contextmanager
def closing(device: Keysight33600 | InfiniiVision | Waveform, output: Output) -> Iterator[None]:
    """Closed at the end: the output is off then, or somebody was told that it is not."""
    try:
        yield
    finally:
        device.close()
        if output.on:
            raise OutOfLimits("the output stayed on, and nobody was told")


def awg_on(table: Table, answers: Answers, output: Output, slew: float | None = None) -> Keysight33600:
    table.awg.reboot()
    return Keysight33600(TableLink(table.awg, answers, output), low_v=LOW_V, high_v=HIGH_V, slew_v_per_s=slew)


def scope_on(table: Table, answers: Answers) -> InfiniiVision:
    table.scope.reboot()
    return InfiniiVision(TableLink(table.scope, answers), range_v=0.5, offset_v=0.18, clock=Clock())


def _samples(honest: Answers) -> list[bytes]:
    """Every answer of an undisturbed run in its own place, once and for ever."""
    assert len(honest.given) < 128
    each = [bytes([k]) + reply for k, reply in enumerate(honest.given)]
    return each + [bytes([sample[0] | 0x80]) + sample[1:] for sample in each]


def generator(folder: Path, stack: ExitStack) -> Target:
    table = Table()
    codes = np.linspace(-32767, 32767, 64).astype(np.int16)

    def use(answers: Answers) -> None:
        output = Output()
        awg = awg_on(table, answers, output, slew=5e3)
        with closing(awg, output):
            awg.prepare(1e8)
            for _ in range(2):
                awg.upload(awg.encode(np.linspace(LOW_V, HIGH_V, 64, dtype=np.float32)))
                awg.output(True)
                awg.trigger()
                awg.check("it")
                awg.upload(codes)
            awg.safe()
            awg.clear()
            awg.identify()
            awg.prepare(5e7)
            awg.output(True)

    honest = Answers()
    use(honest)
    return Target("driver_generator", _samples(honest), lambda data: use(Answers(data)), ANSWERED)


def scope(folder: Path, stack: ExitStack) -> Target:
    table = Table()

    def use(answers: Answers) -> None:
        digitizer = scope_on(table, answers)
        try:
            for samples in (200, 300):
                digitizer.configure(samples, 1e8, 1e-7)
                digitizer.arm()
                table.scope.execute(b":TRIG:FORC")
                digitizer.wait(0.1)
                with contextlib.suppress(MeasurementError):
                    record = digitizer.read()
                    if not np.isfinite(record.volts()).all() or len(record.words) > digitizer.memory.most:
                        raise OutOfLimits(f"a record of {len(record.words)} words, {record.scale}")
            digitizer.check("it")
        finally:
            digitizer.close()

    honest = Answers()
    use(honest)
    return Target("driver_scope", _samples(honest), lambda data: use(Answers(data)), ANSWERED)


def waveform(folder: Path, stack: ExitStack) -> Target:
    table = Table()
    settings = WaveformSettings(symbol_rate_hz=100e6, longest_delay_s=2e-7)
    volts = torch.linspace(LOW_V, HIGH_V, 24).reshape(4, 6)

    def use(answers: Answers) -> None:
        output = Output()
        awg = awg_on(table, answers, output)
        try:
            digitizer = scope_on(table, answers)
        except BaseException:
            awg.close()
            raise
        device = Waveform(awg, digitizer, settings, "twin")
        with closing(device, output):
            for _ in range(2):
                answer = device.forward(volts)
                if answer.shape != volts.shape or not torch.isfinite(answer).all():
                    raise OutOfLimits(f"an answer that is none: {answer}")
            device.clear()
            device.identify()
            device.reinstate()
            device.verify()
            device.forward(volts)

    honest = Answers()
    use(honest)
    return Target("driver_waveform", _samples(honest), lambda data: use(Answers(data)), ANSWERED)


TARGETS = (generator, scope, waveform)
