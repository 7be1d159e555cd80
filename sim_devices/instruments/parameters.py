"""Parameters that may stand after a header, and the form of an answer.

    number    NRf with an SI multiplier and a unit ("10 MHz", "50mV"); MINimum, MAXimum, DEFault; INFinity where it makes sense
    flag      ON, OFF, or a number: rounded, not zero is ON
    choice    a mnemonic in its long or its short form, "NORMal" or "NORM"; answered in its short form
    name      a word or a string

Source: SCPI-1999 volume 1, chapter 7; IEEE 488.2-1992, sections 7.7 and 8.7. MHZ and MOHM mean mega, M elsewhere is milli.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sim_devices.instruments.program_message import Block, Quoted, ScpiError, Token

Value = float | str | bool
INFINITY = 9.9e37
MULTIPLIERS = {
    "EX": 1e18, "PE": 1e15, "T": 1e12, "G": 1e9, "MA": 1e6, "K": 1e3, "M": 1e-3, "U": 1e-6, "N": 1e-9, "P": 1e-12, "F": 1e-15,
    "A": 1e-18, "": 1.0,
}  # fmt: skip
NUMBER = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:\s*[Ee]\s*[+-]?\d+)?)\s*([A-Za-z/]*)")
MEGA = ("HZ", "OHM")


class Parameter(Protocol):
    """A parameter of a setting."""

    @property
    def default(self) -> Value:
        """Value after ``*RST``."""

    def read(self, token: Token) -> Value:
        """The value of a token, or ScpiError."""

    def show(self, value: Value) -> str:
        """The answer to the query."""

    def limit(self, word: str) -> Value:
        """The value of MIN, MAX or DEF, or ScpiError."""

    def holds(self, value: object) -> bool:
        """True if a snapshot can hold this. Ranges follow other settings, so they are not looked at."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number in `unit`, inside [low, high]. `infinite` also takes INFinity, kept as 9.9E37."""

    low: float
    high: float
    default: float
    unit: str = ""
    integer: bool = False
    infinite: bool = False
    style: str = "+.14E"

    def read(self, token: Token) -> float:
        """Read a number with its unit, INFinity, or MINimum, MAXimum, DEFault.

        Raises:
            ScpiError: not a number (-104), or outside the limits (-222).
        """
        word = _word(token)
        if self.infinite and short_or_long("INFinity", word):
            return INFINITY
        if word[:3] in ("MIN", "MAX", "DEF") and word.isalpha():
            return self.limit(word)
        value = number(token, self.unit)
        value = float(round(value)) if self.integer else value
        if not (self.low <= value <= self.high or (self.infinite and value >= 0.99 * INFINITY)):
            raise ScpiError(-222, f"{word}; {self.low:g} to {self.high:g} {self.unit}".rstrip())
        return value

    def show(self, value: Value) -> str:
        """Write the value as the box answers a query."""
        return f"{int(value):+d}" if self.integer and abs(float(value)) < 1e18 else format(float(value), self.style)

    def limit(self, word: str) -> float:
        """Return the value of MINimum, MAXimum or DEFault."""
        for pattern, value in (("MINimum", self.low), ("MAXimum", self.high), ("DEFault", self.default)):
            if short_or_long(pattern, word):
                return value
        raise ScpiError(-224, word)

    def holds(self, value: object) -> bool:
        """True if `value` can be a setting of this kind, for snapshots."""
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= INFINITY


@dataclass(frozen=True, slots=True)
class Flag:
    """A setting that is on or off."""

    default: bool = False

    def read(self, token: Token) -> bool:
        """Read ON, OFF or a number, of which 0 means off.

        Raises:
            ScpiError: -224, anything else.
        """
        word = _word(token)
        if word in ("ON", "OFF"):
            return word == "ON"
        if NUMBER.fullmatch(word):
            return round(number(token, "")) != 0
        raise ScpiError(-224, word)

    def show(self, value: Value) -> str:
        """Write "1" or "0"."""
        return "1" if value else "0"

    def limit(self, word: str) -> Value:
        """Raise ScpiError -224: a flag has no limits."""
        raise ScpiError(-224, word)

    def holds(self, value: object) -> bool:
        """True if `value` is a bool."""
        return isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Choice:
    """A word out of `options`, written as in manuals: capitals are the short form. Kept and answered in its short form."""

    options: tuple[str, ...]
    default: str

    def read(self, token: Token) -> str:
        """Read one of the options, in its short or long form; return the short one.

        Raises:
            ScpiError: -224, none of them.
        """
        word = _word(token)
        for option in self.options:
            if short_or_long(option, word):
                return short_form(option)
        raise ScpiError(-224, word)

    def show(self, value: Value) -> str:
        """Write the short form of the option."""
        return str(value)

    def limit(self, word: str) -> Value:
        """Raise ScpiError -224: a choice has no limits."""
        raise ScpiError(-224, word)

    def holds(self, value: object) -> bool:
        """True if `value` is the short form of an option."""
        return isinstance(value, str) and value in map(short_form, self.options)


@dataclass(frozen=True, slots=True)
class Name:
    """A free word, or a string of at most `length` characters."""

    default: str = ""
    length: int = 64

    def read(self, token: Token) -> str:
        """Read a name, quoted or not.

        Raises:
            ScpiError: -104, a block; -223, too long.
        """
        if isinstance(token, Block):
            raise ScpiError(-104, "a block where a name is due")
        text = token.text if isinstance(token, Quoted) else token
        if len(text) > self.length:
            raise ScpiError(-223, text[:24])
        return text

    def show(self, value: Value) -> str:
        """Write the name in quotation marks."""
        return f'"{value}"'

    def limit(self, word: str) -> Value:
        """Raise ScpiError -224: a name has no limits."""
        raise ScpiError(-224, word)

    def holds(self, value: object) -> bool:
        """True if `value` is a text that is not too long."""
        return isinstance(value, str) and len(value) <= self.length


def number(token: Token, unit: str) -> float:
    """A finite number with an optional multiplier and `unit`, in that unit.

    Raises:
        ScpiError: -104 not a number, -131 an unknown suffix, -222 too large for a double.
    """
    if isinstance(token, str):
        found = NUMBER.fullmatch(token)
        if found:
            value = float(re.sub(r"\s", "", found[1])) * _multiplier(found[2].upper(), unit)
            if not math.isfinite(value):
                raise ScpiError(-222, token[:24])
            return value
    raise ScpiError(-104, _word(token)[:24])


def numbers(tokens: Iterable[Token]) -> np.ndarray:
    """Parse many plain numbers at once, float64 (n,); for waveforms sent as text."""
    texts = [t for t in tokens if isinstance(t, str)]
    if any("_" in text for text in texts):  # Python's separator of digits, which is no SCPI
        raise ScpiError(-104, "not a list of numbers")
    try:
        values = np.array(texts, dtype=np.float64)
    except ValueError as error:
        raise ScpiError(-104, "not a list of numbers") from error
    if not np.isfinite(values).all():
        raise ScpiError(-104, "not a finite number")
    return values


def _multiplier(suffix: str, unit: str) -> float:
    if suffix in ("", unit):
        return 1.0
    prefix = suffix.removesuffix(unit) if unit else ""
    if not (unit and suffix.endswith(unit)) or prefix not in MULTIPLIERS:
        raise ScpiError(-131, suffix)
    return 1e6 if prefix == "M" and unit in MEGA else MULTIPLIERS[prefix]


def short_form(pattern: str) -> str:
    """Return the capitals of a pattern: NORM for NORMal."""
    return "".join(c for c in pattern if not c.islower())


def short_or_long(pattern: str, word: str) -> bool:
    """True if `word` is the short or the long form of `pattern`, in any case."""
    return word.upper() in (short_form(pattern), pattern.upper())


def _word(token: Token) -> str:
    """Character data in capitals; anything else is of the wrong type."""
    if not isinstance(token, str):
        raise ScpiError(-104, "a block" if isinstance(token, Block) else token.text[:24])
    return token.upper()
