"""Acme G1, a made-up source that also measures: a driver to copy. Start with the commands of your instrument, and their source.

    :SOURce:VOLTage <V>              level that is held
    :SOURce:SWEep? <V>,<V>,...       holds each level in turn; answers the current in A at each; 100 levels at most
    :OUTPut 0|1                      output relay; *RST opens it

Source: name the manual here, with its edition and the pages that you used. docs/how-to/add_a_driver.md explains each part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from drivers.links.link import Link
from drivers.safe import OFF, SafeState, Step, carry_out
from drivers.scpi import Expect, Scpi
from drivers.scpi_talk import OVER_VISA, ScpiTalk
from hil.device import Port
from hil.errors import CommandRefused, ContractError, Desync, HilError, UnsafeOutputs
from hil.units import finite

MOST_LEVELS = 100  # in one sweep


class AcmeG1:
    """The G1. The constructor resets it, which switches its output off.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.
        low_v, high_v: limits of the drive, V; inside the instrument's own. A bench file may write low = "-3 V".

    Raises:
        OutOfRange: limits wider than the instrument's. WrongInstrument: another model answers.
    """

    def __init__(self, scpi: Scpi | Link, *, low_v: float = -10.0, high_v: float = 10.0) -> None:
        self._scpi = scpi if isinstance(scpi, Scpi) else Scpi(scpi, expect=Expect("Acme", "G1"))
        self._closed = False
        try:
            # Declare limits once, here. A bench file narrows them, and nothing else in this file repeats them.
            self.drive = Port("G1 output", -10.0, 10.0, "V").narrowed(low_v, high_v)
            self.reading = Port("G1 current", -0.1, 0.1, "A")
            self.identity = self._scpi.identify()
            self._scpi.send("*RST", "*CLS")
        except BaseException:
            self._scpi.close()
            raise

    def level(self, volts: float) -> None:
        """Hold a level, V. Raises: OutOfRange: nothing was sent. CommandRefused: the instrument complains."""
        self._checked([volts])
        self._scpi.send(f":SOUR:VOLT {volts:.9g}")
        self._scpi.check("setting the level", outputs="on or off as before, at the level before")

    def sweep(self, levels_v: Sequence[float]) -> list[float]:
        """Hold each level in turn, V, and return the current at each, A. The output must be on.

        Raises:
            OutOfRange: nothing was sent. Desync: not one number for each level. CommandRefused: the instrument complains.
        """
        self._checked(levels_v)
        if not 1 <= len(levels_v) <= MOST_LEVELS:
            raise ContractError("too many levels, or none", where="G1", got=f"{len(levels_v)}", allowed=f"1 to {MOST_LEVELS}")
        question = ":SOUR:SWE? " + ",".join(f"{volts:.9g}" for volts in levels_v)
        reply = self._scpi.ask(question)
        texts = reply.split(",")
        try:
            if len(texts) != len(levels_v):
                raise ValueError
            return [finite(text) for text in texts]
        except ValueError as error:  # never shorten, pad or guess: the next answers may be shifted
            self._scpi.link.distrust("a sweep with a wrong answer")
            raise Desync(
                "not one current for each level", where="G1", got=reply[:80], allowed=f"{len(levels_v)} numbers"
            ) from error

    def output(self, on: bool) -> None:
        """Switch the output, and read it back. Raises: CommandRefused: it did not switch."""
        with self._scpi.link.transaction():  # whole: nothing may switch on after close() has begun to switch off
            if on and self._closed:
                raise ContractError("the G1 is closed", where="G1", got="output on", outputs="being switched off")
            if self._scpi.ask_bool(f":OUTP {int(on)};:OUTP?") is not on:
                raise CommandRefused("the output did not switch", where="G1", outputs="unknown", todo="look at the front panel")

    def safe_state(self) -> SafeState:
        """Say what safe means: a value that the guardian carries out over a wire of its own when this program cannot."""
        who = self.identity
        return SafeState(
            name="g1", resource=self._scpi.link.name, talk=OVER_VISA, expect=Expect(who.maker, who.model, who.serial),
            steps=(Step(":OUTP 0", ":OUTP?", OFF),),
            outputs=f"unknown; if it still runs, between {self.drive.shared_low:g} and {self.drive.shared_high:g} V",
        )  # fmt: skip

    def safe(self) -> None:
        """Bring the safe state about and read it back. Raises: UnsafeOutputs: it could not be verified."""
        try:
            with self._scpi.link.transaction():
                carry_out(self.safe_state(), ScpiTalk(self._scpi))
        except HilError as error:
            raise UnsafeOutputs(
                "the output could not be verified to be off", where=f"G1 {self.identity.serial}", got=error.what,
                outputs=self.safe_state().outputs, todo="switch the output off at the instrument",
            ) from error  # fmt: skip

    def close(self) -> None:
        """Make safe, then close the wire; the second call does nothing. Raises: UnsafeOutputs: it is closed all the same."""
        if self._closed:
            return
        self._closed = True
        try:
            self.safe()
        finally:
            self._scpi.close()

    def _checked(self, levels_v: Sequence[float]) -> None:
        """Refuse levels out of limits, never clip. Raises: OutOfRange: before anything is sent; NaN is out of range."""
        self.drive.check(torch.tensor(list(levels_v), dtype=torch.float64))
