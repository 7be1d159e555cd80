"""What a run programmed, in its report: levels over the epochs, writes of each channel, the device beside its twin.

From metrics.jsonl and diagnostics.json, see hil/training/programmed.py; checked before it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hil.report.contents import Numbers, by_epoch, checked_list, number, numbers, optional, senseless
from hil.report.figure import Columns, Figure, Sheet, heading
from hil.report.figures import whole_numbers
from hil.report.headline import quantity
from hil.report.run_files import Facts

METRICS = "metrics.jsonl"
SMALLER = ("", "m", "µ", "n", "p")  # each a thousandth of the one before
NAMED = 8  # more lines than there are colours are told apart by nobody


@dataclass(frozen=True, slots=True)
class DrawnProgrammed:
    """What is programmed on the device of one layer.

    Args:
        layer: its number, from 1.
        unit: of the levels.
        low, high: least and largest limit of a channel.
        channels: those that are shown, from 1.
        epochs: when.
        levels: of each channel that is shown, over these.
        writes: how often each channel was written; empty: not known.
        read, twin: readings of the device, and what its twin says; empty: there is no twin.
        reading_unit: of these.
        off_rms, off_mean, swing: of all readings: minus the twin, root mean square and mean; from the least to the largest.
    """

    layer: int
    unit: str
    low: float
    high: float
    channels: tuple[int, ...]
    epochs: Numbers
    levels: tuple[Numbers, ...]
    writes: Numbers
    read: Numbers
    twin: Numbers
    reading_unit: str
    off_rms: float | None
    off_mean: float | None
    swing: float | None

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Names and values, for the page."""
        found = [("range of the channels", f"{quantity(self.low, self.unit)} to {quantity(self.high, self.unit)}")]
        if self.writes:
            total, count = sum(self.writes), len(self.writes)
            found.append(("writes", f"{total:,.0f} of {count} channels, {total / count:,.0f} each in the mean"))
            found.append(("written most, least", f"{max(self.writes):,.0f}, {min(self.writes):,.0f} times"))
        if self.off_rms is not None and self.off_mean is not None and self.swing:
            unit = self.reading_unit
            found.append(
                ("device minus twin", f"{quantity(self.off_rms, unit)} rms, {self.off_rms / self.swing:.2%} of the swing")
            )
            found.append(("its mean", quantity(self.off_mean, unit)))
        return tuple(found)


def programmed(metrics: Sequence[Facts], diagnostics: Facts) -> tuple[DrawnProgrammed, ...]:
    """What was programmed, a value for each layer that has something; of a run that is not over, nothing.

    Raises:
        DataError: it does not make sense.
    """
    lines = [(epoch, line) for (epoch, split), line in by_epoch(metrics).items() if split == "train"]
    return tuple(_layer(facts, lines) for facts in checked_list(diagnostics, "programmed"))


def budget(summary: Facts) -> str:
    """Say what the run spent on programming, and of how much; "" where nothing was programmed."""
    writes, programs, most = (number(summary, key) for key in ("device_writes", "device_programs", "budget_writes"))
    if writes is None or programs is None:
        return ""
    spent = f"{writes:,.0f} channels were written, in {programs:,.0f} programs"
    return (
        f"{spent}: {writes / most:.0%} of a budget of {most:,.0f} writes." if most else f"{spent}. No budget of writes was set."
    )


def _layer(facts: Any, lines: Sequence[tuple[int, Facts]]) -> DrawnProgrammed:
    low, high, shown = (numbers(facts, f"programmed.{key}") for key in ("low", "high", "shown"))
    writes, read, twin = (optional(facts, f"programmed.{key}") for key in ("writes", "read", "twin"))
    layer = number(facts, "layer")
    if layer is None or not low or len(low) != len(high) or (writes and len(writes) != len(low)) or len(read) != len(twin):
        raise senseless("programmed", "lists of other lengths", "a limit and a count for each channel, pairs of readings")
    name, rows, epochs = f"layers.{layer - 1:.0f}", [], []
    for epoch, line in lines:
        told = line.get("levels")
        if isinstance(told, dict) and name in told:
            rows.append(numbers({"levels": told[name]}, "levels", METRICS))
            epochs.append(float(epoch))
    if any(len(row) != len(shown) for row in rows):
        raise senseless("levels of an epoch", "another number of channels", f"{len(shown)}", METRICS)
    return DrawnProgrammed(
        int(layer), str(facts.get("unit", "1")), min(low), max(high), tuple(int(k) + 1 for k in shown), tuple(epochs),
        tuple(zip(*rows, strict=True)), writes, read, twin, str(facts.get("reading_unit", "1")),
        *(number(facts, key) for key in ("off_rms", "off_mean", "swing")),
    )  # fmt: skip


def drawn(seen: DrawnProgrammed) -> Iterator[Figure]:
    """Yield the figures of a layer, as far as its values are known."""
    if seen.epochs:
        yield _levels(seen)
    if seen.writes:
        yield _writes(seen)
    if seen.read:
        yield _beside(seen)


def _levels(seen: DrawnProgrammed) -> Figure:
    few = len(seen.channels) <= NAMED

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        for place, (channel, values) in enumerate(zip(seen.channels, seen.levels, strict=True)):
            if few:
                sheet.line(axes, seen.epochs, values, place, f"channel {channel}")
            else:
                axes.plot(seen.epochs, values, color=sheet.series(place), lw=sheet.pt(0.8), alpha=0.6)
        axes.set_ylim(seen.low - 0.03 * (seen.high - seen.low), seen.high + 0.03 * (seen.high - seen.low))
        axes.set_ylabel(heading("level", seen.unit))
        whole_numbers(axes, "epoch")
        sheet.legend(axes)

    columns: Columns = {"epoch": seen.epochs} | {
        heading(f"channel {channel}", seen.unit): values for channel, values in zip(seen.channels, seen.levels, strict=True)
    }
    first = [(values[0], values[-1]) for values in seen.levels]
    moved = math.sqrt(sum((b - a) ** 2 for a, b in first) / len(first))
    told = (
        f"Levels of {len(seen.channels)} channels over the epochs, between their limits; from the first epoch to the last they "
        f"moved by {quantity(moved, seen.unit)} (root mean square)."
    )
    return Figure(f"levels-{seen.layer}", "Levels over the epochs", told, draw, columns, 3.2, f"layer {seen.layer}")


def _writes(seen: DrawnProgrammed) -> Figure:
    places = tuple(float(k) for k in range(1, len(seen.writes) + 1))

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        edges = [0.5, *(place + 0.5 for place in places)]
        axes.stairs(seen.writes, edges, fill=True, color=sheet.series(0), alpha=0.25, lw=0)
        axes.stairs(seen.writes, edges, color=sheet.series(0), lw=sheet.pt(1.1), baseline=None)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.set_ylabel("writes")
        whole_numbers(axes, "channel")

    told = f"How often each of {len(places)} channels was written: {min(seen.writes):,.0f} to {max(seen.writes):,.0f} times."
    columns: Columns = {"channel": places, "writes": seen.writes}
    return Figure(f"writes-{seen.layer}", "Writes of each channel", told, draw, columns, aside=f"layer {seen.layer}")


def _beside(seen: DrawnProgrammed) -> Figure:
    most = max(map(abs, (*seen.twin, *seen.read)))
    one = quantity(most, seen.reading_unit).rpartition(" ")[2] if seen.reading_unit != "1" and most else seen.reading_unit
    factor = 1000.0 ** next((n for n, prefix in enumerate(SMALLER) if one == prefix + seen.reading_unit), 0)
    twin, read = ([factor * value for value in values] for values in (seen.twin, seen.read))
    unit = one if factor > 1 else seen.reading_unit
    ends = (min(*twin, *read), max(*twin, *read))

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        axes.plot(ends, ends, color=sheet.look.ink, lw=sheet.pt(1.1), ls=(0, (4, 3)), label="equal")
        axes.plot(twin, read, "o", color=sheet.series(0), label="readings", **sheet.dot(3, 0.3))
        axes.set_xlabel(heading("twin", unit))
        axes.set_ylabel(heading("device", unit))
        sheet.legend(axes)

    told = f"{len(read)} readings of the device over what its twin says, as it was programmed for the best weights."
    columns: Columns = {heading("twin", unit): twin, heading("device", unit): read}
    return Figure(f"device-twin-{seen.layer}", "Device and twin, trained", told, draw, columns, 3.2, f"layer {seen.layer}")
