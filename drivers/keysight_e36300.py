"""Keysight E36312A: a power supply of three outputs, each a level in V with a limit in A.

    [SOURce:]VOLTage <V>,(@<list>)       level           [SOURce:]CURRent <A>,(@<list>)      limit
    OUTPut <0|1>,(@<list>)               relays          MEASure:VOLTage? (@<list>)          what is at the terminals

    output    V          A               (programming ranges)
    1         0..6.18    0..5.15
    2, 3      0..25.75   0..1.03

Source: Keysight E36300 Series Programming Guide, E36311-90008, "Channels and Channel Lists", "Programming Ranges and Output
Identifiers", subsystems SOURce, OUTPut, MEASure. The words of levels, outputs and measurements are also those of PyMeasure's
KeysightE36312A, which works the simulated box (tests/interop). From the manual only: that a question for several channels is
answered with commas, and the ranges. Not used: tracking, series and parallel operation, remote sensing, output lists.
"""

from __future__ import annotations

from collections.abc import Sequence

from drivers.links.link import Link
from drivers.scpi import Expect, Scpi
from drivers.scpi_source import Layout, Level, ScpiSource, per_channel, resting
from hil.device import Port
from hil.errors import ConfigError
from hil.port import Limit

HIGHEST_V = {1: 6.18, 2: 25.75, 3: 25.75}
HIGHEST_A = {1: 5.15, 2: 1.03, 3: 1.03}
RESOLUTION_V, RESOLUTION_A = 2e-3, 2e-3  # what is read back may differ by so much


class KeysightE36312A(ScpiSource):
    """The supply; its outputs are switched together. What it can hold: voltage and current, or voltage_1, current_1, ….

    Args:
        scpi: an open conversation with the instrument, or a Link.
        channels: those that are used, 1 to 3; the others stay off.
        low_v, high_v: narrower limits of the levels, V; a list: of each channel.
        limit_a: limit of the current, A; a list: of each channel; None: a tenth of what the output gives.
        slew_v_per_s: largest rate of a level, V/s, and of its way down before it is switched off; None: any.
        max_step_v: largest step of a level, V; None: any.

    Raises:
        OutOfRange, ConfigError: limits wider than the instrument's, or no such channel. WrongInstrument.
    """

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channels: tuple[int, ...] = (1, 2, 3),
        low_v: float | tuple[float, ...] = 0.0,
        high_v: float | tuple[float, ...] | None = None,
        limit_a: float | tuple[float, ...] | None = None,
        slew_v_per_s: float | tuple[float, ...] | None = None,
        max_step_v: float | tuple[float, ...] | None = None,
    ) -> None:
        self.channels = tuple(channels)
        super().__init__(scpi, lambda: _layout(self.channels, low_v, high_v, limit_a, slew_v_per_s, max_step_v))


def _layout(
    channels: tuple[int, ...], low_v: float | Sequence[float], high_v: float | Sequence[float] | None,
    limit_a: float | Sequence[float] | None, slew_v_per_s: Limit | None, max_step_v: Limit | None,
) -> Layout:  # fmt: skip
    if not channels or len(set(channels)) != len(channels) or not set(channels) <= set(HIGHEST_V):
        raise ConfigError(
            "the supply has no such channels", where="supply", got=f"channels = {list(channels)}", allowed="1, 2, 3, each once",
            outputs="unchanged; nothing was sent",
        )  # fmt: skip
    count = len(channels)
    low = per_channel("low_v", low_v, count)
    high = [HIGHEST_V[c] for c in channels] if high_v is None else per_channel("high_v", high_v, count)
    limit = [0.1 * HIGHEST_A[c] for c in channels] if limit_a is None else per_channel("limit_a", limit_a, count)
    levels, driven = {}, []
    setup = [f":OUTP 0,(@{','.join(map(str, channels))})"]
    for c, lowest, highest, amps in zip(channels, low, high, limit, strict=True):
        tail, at = ("" if count == 1 else f"_{c}"), f"(@{c})"
        volts = Port(f"supply output {c}", 0.0, HIGHEST_V[c], "V").narrowed(lowest, highest)
        current = Port(f"supply output {c}", 0.0, HIGHEST_A[c], "A").narrowed(0.0, amps)
        levels[f"voltage{tail}"] = Level(volts, f":SOUR:VOLT {{}},{at}", f":SOUR:VOLT? {at}", f":MEAS:VOLT? {at}", RESOLUTION_V)
        levels[f"current{tail}"] = Level(current, f":SOUR:CURR {{}},{at}", f":SOUR:CURR? {at}", "", RESOLUTION_A)
        driven.append(f"voltage{tail}")
        setup += [f":SOUR:VOLT {resting(volts)[0]:.9g},{at}", f":SOUR:CURR {amps:.9g},{at}"]
    drive = Port("supply", tuple(low), tuple(high), "V", count, slew_per_s=slew_v_per_s, max_step=max_step_v)
    every = f"(@{','.join(map(str, channels))})"
    return Layout(
        "supply", Expect(("Keysight", "Agilent"), "E36312A"), levels, tuple(driven), drive, f":OUTP {{}},{every}",
        f":OUTP? {every}", count, tuple(setup),
    )  # fmt: skip
