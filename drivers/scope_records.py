"""Channels of an oscilloscope, and what its preamble says of a record: samples, scale, axis; whether they are as asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.scpi import reading
from drivers.waveform.record import Axis, Scale, Words
from hil.device import Port
from hil.errors import ConfigError, InstrumentError, NotAReading

SENTINEL = 9.8e37  # anything at least this large stands for "no measurement"
HIGHEST_V = 1e6  # beyond what any probe can divide
CENTRE = 32_768  # word of 0, of signed words that are taken as unsigned ones

Asked = tuple[int, float, float]
"""Says what a scope is asked to record: samples, samples/s, first sample after the trigger in s."""


@dataclass(slots=True)
class Channel:
    """A channel that is used, and what is known of its records.

    Args:
        number: 1 to 4.
        port: its screen, V.
        range_v, offset_v: of the screen.
        name: for people.
        tail: of the names of its settings; "" of the first.
        preamble, scale, axis, points: of its records, when they are known.
        first: place of the first sample in the memory of the instrument.
        upright: scale of the first record since everything was set: no setting of a record moves it.
        until_verified: records until the preamble is looked at again.
    """

    number: int
    port: Port
    range_v: float
    offset_v: float
    name: str
    tail: str = ""
    preamble: str | None = None
    upright: Scale | None = None
    points: int = 0
    first: int = 0
    scale: Scale = field(default_factory=lambda: Scale(1.0, 0.0, 0.0))
    axis: Axis = field(default_factory=lambda: Axis(0.0, 1.0))
    until_verified: int = 0

    @property
    def header(self) -> str:
        """Header of its subsystem."""
        return f":CHAN{self.number}"


@dataclass(frozen=True, slots=True)
class Described:
    """Holds what a preamble says of a record: samples, their scale and axis, and the place of the first in the memory."""

    points: int
    scale: Scale
    axis: Axis
    first: int = 0


def channels_of(
    numbers: tuple[int, ...], range_v: float | tuple[float, ...], offset_v: float | tuple[float, ...], called: str
) -> list[Channel]:
    """Make the channels of a scope. Raises: ConfigError: no such channels, or screens of others."""
    if not set(numbers) <= {1, 2, 3, 4} or len(set(numbers)) < len(numbers):
        raise ConfigError("the scope has no such channels", where=called, got=", ".join(map(str, numbers)),
                          allowed="1 to 4, each once", outputs="unchanged; nothing was sent")  # fmt: skip
    screens = []
    for name, given in (("range_v", range_v), ("offset_v", offset_v)):
        values = tuple(given) if isinstance(given, tuple | list) else (given,) * len(numbers)
        if len(values) != len(numbers):
            raise ConfigError("a number for each channel, or one for all", where=called, got=f"{name} of {len(values)} numbers",
                              allowed=f"{len(numbers)}", outputs="unchanged; nothing was sent")  # fmt: skip
        screens.append(values)
    found = []
    for k, (number, full, middle) in enumerate(zip(numbers, *screens, strict=True)):
        name = f"scope channel {number}"
        port = Port(name, middle - 0.5 * full, middle + 0.5 * full, "V")
        found.append(Channel(number, port, full, middle, name, f" of channel {number}" if k else ""))
    return found


def screen_of(called: str, channels: list[Channel]) -> Port:
    """Return the port of all channels."""
    if len(channels) == 1:
        return channels[0].port
    lows, highs = zip(*((channel.port.shared_low, channel.port.shared_high) for channel in channels), strict=True)
    return Port(called, tuple(lows), tuple(highs), "V", len(channels))


def part(asked: Asked, whole: Axis, held: int, scale: Scale) -> Described:
    """Find the part of a memory that holds what was asked for.

    Args:
        asked: samples, samples/s, first sample after the trigger in s.
        whole: axis of the memory.
        held: its samples.
        scale: of its words.
    """
    samples, rate_hz, start_s = asked
    if not whole.step_s > 0:
        return Described(0, scale, whole)
    first = max(0, math.floor((start_s - whole.start_s) / whole.step_s + 1e-3))
    points = min(round(samples / (rate_hz * whole.step_s)), held - first)
    return Described(points, scale, Axis(whole.start_s + first * whole.step_s, whole.step_s), first)


def checked(found: Described, asked: Asked, one: Channel, told: str, form: str, most: int) -> Described:
    """Return what a preamble says, if the record holds what was asked for.

    Args:
        found: points that are read, and their axis.
        asked: samples, samples/s, first sample after the trigger in s.
        one: the channel.
        told: form of the words, as the instrument says it.
        form: as it should be.
        most: points that the memory holds.

    Raises:
        InstrumentError: another record. NotAReading: a scale that cannot be.
    """
    samples, rate_hz, start_s = asked
    axis, scale, points = found.axis, found.scale, found.points
    late_s = axis.start_s - start_s
    short_s = (samples - 1) / rate_hz - late_s - (points - 1) * axis.step_s
    apart = 0 < axis.step_s * rate_hz < 1 + 1e-6
    if told != form or points > most or not apart or late_s > axis.step_s or short_s > axis.step_s:
        raise InstrumentError(
            "the scope recorded something else than it was asked for",
            where=one.name,
            got=f"format {told}, {points:g} samples, {axis.step_s:g} s apart, from {axis.start_s:g} s",
            allowed=f"format {form}, {samples} samples, {1 / rate_hz:g} s apart or closer, from {start_s:g} s",
            todo="choose a symbol rate that divides the sampling clock, or a shorter record",
        )
    zero_v = scale.reference * scale.volts_per_word
    if not 0 < scale.volts_per_word <= HIGHEST_V or max(abs(scale.origin_v), abs(zero_v)) > HIGHEST_V:
        raise NotAReading(
            "the preamble has no scale", where=one.name,
            got=told_scale(scale), allowed=f"above 0, up to {HIGHEST_V:g} V",
        )  # fmt: skip
    return found


def numbers_of(preamble: str, count: int, where: str) -> list[float]:
    """The numbers of a preamble. Raises: InstrumentError: not so many. NotAReading: 9.9E37 or NaN where a number is due."""
    try:
        fields = [reading(field) for field in preamble.split(",")]
    except ValueError:
        fields = []
    if len(fields) != count:
        raise InstrumentError("not a waveform preamble", where=where, got=preamble[:120], allowed=f"{count} numbers")
    if not all(math.isfinite(field) and abs(field) < SENTINEL for field in fields):
        raise NotAReading("the preamble says that there is no measurement", where=where, got=preamble[:120])
    return fields


def unsigned(codes: NDArray[Any]) -> Words:
    """Convert signed words of 16 bits into unsigned ones: 0 becomes CENTRE."""
    words: Words = (codes.view(np.uint16) ^ np.uint16(CENTRE)).astype(np.uint16)
    return words


def told_scale(scale: Scale) -> str:
    """Write a scale for people."""
    return f"{scale.volts_per_word:g} V a word, {scale.zero_v:g} V at word 0"


def same_scale(a: Scale, b: Scale) -> bool:
    """Tell whether two scales give the same volts, within a word."""
    return math.isclose(a.volts_per_word, b.volts_per_word, rel_tol=1e-6) and abs(a.zero_v - b.zero_v) < a.volts_per_word
