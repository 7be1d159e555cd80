"""The main figures of a node of levels: noise at rest, settling, what each input does, and whether rows repeat."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from hil.report.calibration.drawing import Scale, column, dots, level, line, rms, upper_and_lower
from hil.report.calibration.record import Measured, Record, StepRecord
from hil.report.figure import Figure, Sheet

MOST_DOTS = 1500
MOST_CURVES = 8


def vector(record: Record) -> Iterator[Figure]:
    """Yield the figures that this calibration has the data for."""
    unit = next((one.unit for one in record.step("rest").estimates.values()), "1")
    found = (
        rest(record.step("rest"), unit), settling(record.step("settling")), inputs(record.step("inputs"), unit),
        repeats(record.step("repeats"), unit),
    )  # fmt: skip
    yield from (figure for figure in found if figure is not None)


def rest(step: StepRecord, unit: str) -> Figure | None:
    """Noise of every output at rest."""
    readings = step.block("readings", 2)
    if readings is None or len(readings) < 4:
        return None
    noise = readings.std(0, ddof=1)
    error, n = noise / math.sqrt(2 * len(readings)), np.arange(1, readings.shape[1] + 1, dtype=np.float64)
    scale, worst = Scale.of("noise of a reading, rms", unit, noise), int(noise.argmax())

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        dots(sheet, axes, n, scale(noise), 0, "", scale(error), size=4.0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("output")
        axes.set_ylabel(scale.label)

    largest = Measured(float(noise[worst]), float(error[worst]), unit)
    told = (
        f"Noise of one reading of every output with all inputs at rest (bars: 1 σ): at most {largest}, of output {worst + 1}."
    )
    columns = {"output": column(n), scale.label: column(scale(noise)), f"1 σ ({scale.unit})": column(scale(error))}
    return Figure("noise-at-rest", "Noise at rest", told, draw, columns, 2.8, f"at most {largest}")


def settling(step: StepRecord) -> Figure | None:
    """What is left of a jump of all inputs, reading by reading."""
    readings, left = step.block("readings", 3), step.estimates.get("left")
    if readings is None or readings.shape[0] != 2 or readings.shape[1] < 4 or left is None:
        return None
    end = readings[:, readings.shape[1] // 2 :].mean(1)
    jump = np.abs(end[0] - end[1])
    moves = jump > 0.1 * float(jump.max())
    if not moves.any():
        return None
    share = 100 * (readings - end[:, None])[..., moves] / jump[moves]
    n, worst = np.arange(1, readings.shape[1] + 1, dtype=np.float64), int(np.abs(share[:, 0]).max(0).argmax())

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        level(sheet, axes, 0.0)
        for way, name in enumerate(("jump to the ends", "jump back to rest")):
            dots(sheet, axes, n, share[way, :, worst], way, name, size=4.0)
        axes.set_xlabel("reading after the jump")
        axes.set_ylabel("left of the jump (%)")
        sheet.legend(axes)

    said = f"{100 * left.value:.2f} ± {100 * left.sigma:.2f} %"
    told = f"What is left of a jump of all inputs, of the output that settles last: {said} in the first reading."
    columns = {"reading after the jump": column(n)} | {
        f"left after {name} (%)": column(share[way, :, worst]) for way, name in enumerate(("jump to the ends", "jump to rest"))
    }
    return Figure("settling", "Settling", told, draw, columns, 2.8, f"{said} left")


def inputs(step: StepRecord, unit: str) -> Figure | None:
    """Response to each input alone, up and down, at the output that it moves most."""
    levels, readings = step.block("levels", 2), step.block("readings", 4)
    if levels is None or readings is None or readings.shape[:3] != (len(levels), 2, levels.shape[1]):
        return None
    swings = np.ptp(readings.mean(1), axis=1)
    best, shown = swings.argmax(1), np.argsort(-swings.max(1))[:MOST_CURVES]
    curves = {int(k): readings[k, :, :, best[k]] for k in sorted(shown)}
    curves = {k: np.stack([up, down[::-1]]) for k, (up, down) in curves.items()}
    scale = Scale.of("reading", unit, *curves.values())

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        for number, (k, (up, down)) in enumerate(curves.items()):
            line(sheet, axes, levels[k], scale(down), number, "", width=1.2)
            dots(sheet, axes, levels[k], scale(up), number, f"input {k + 1}", size=3.6)
        axes.set_xlabel("level of the input")
        axes.set_ylabel(scale.label)
        sheet.legend(axes)

    moved = np.abs(swings[range(len(best)), best])
    told = (
        f"Reading while one input alone goes up (dots) and down (line), at the output that it moves most"
        f"{'' if len(levels) <= MOST_CURVES else f', for the {MOST_CURVES} largest of {len(levels)} inputs'}: swings of "
        f"{Measured(float(f'{moved.min():.3g}'), 0.0, unit)} to {Measured(float(f'{moved.max():.3g}'), 0.0, unit)}."
    )
    columns: dict[str, Sequence[float]] = {}
    for k, (up, down) in curves.items():
        columns |= {f"input {k + 1}": column(levels[k]), f"up, input {k + 1} ({scale.unit})": column(scale(up)),
                    f"down, input {k + 1} ({scale.unit})": column(scale(down))}  # fmt: skip
    return Figure("inputs", "Response to each input", told, draw, columns, 3.3)


def repeats(step: StepRecord, unit: str) -> Figure | None:
    """Second against first reading of the same rows, the differences beneath."""
    readings = step.block("readings", 3)
    if readings is None or readings.shape[0] != 2:
        return None
    first, second = (one.ravel()[:: max(1, one.size // MOST_DOTS)] for one in readings)
    apart = second - first
    scale, small = Scale.of("first reading", unit, first), Scale.of("second − first", unit, apart)

    def draw(sheet: Sheet) -> None:
        upper, lower = upper_and_lower(sheet)
        dots(sheet, upper, scale(first), scale(second), 0, "", size=2.8)
        upper.set_ylabel(f"second ({scale.unit})" if scale.unit != "1" else "second")
        level(sheet, lower, 0.0)
        dots(sheet, lower, scale(first), small(apart), 2, "", size=2.4)
        lower.set_ylabel(small.label)
        lower.set_xlabel(scale.label)
        sheet.figure.align_ylabels([upper, lower])

    off = rms(apart) / math.sqrt(2)
    said = Measured(off, off / math.sqrt(2 * len(apart)), unit)
    told = (
        f"The same rows of levels measured twice in random order, the differences beneath: readings repeat within {said} rms."
    )
    return Figure(
        "repeats",
        "Repeatability",
        told,
        draw,
        {scale.label: column(scale(first)), small.label: column(small(apart))},
        3.6,
        f"{said} rms",
    )
