"""The step response: an edge seen between the samples, or, of a device without timing, the values after a step.

rise     10-90 %:  ln 9 / (2 pi B)     B the bandwidth of the step `settling`
settled  to 0.1 %: ln 1000 / (2 pi B)
"""

from __future__ import annotations

import math

import numpy as np

from hil.report.calibration.drawing import Scale, column, dots, level, line, logarithmic, mark
from hil.report.calibration.record import Floats, Measured, Record, StepRecord
from hil.report.figure import Figure, Sheet

SETTLED = 1e-3
SHOWN = 1.6  # settling times after the edge


def edge(record: Record, unit: str) -> Figure | None:
    """Draw the edge in units with its 10-90 % time, and beneath what is left of the step, logarithmic, with the settle band."""
    step, settling = record.step("delay"), record.step("settling")
    times, readings = step.block("edge_time_s", 2), step.block("edge_reading_v", 2)
    band_hz, settle = settling.estimates.get("bandwidth_hz"), settling.estimates.get("settle_s")
    if times is None or readings is None or times.shape != readings.shape or times.size < 20:
        return None
    if band_hz is None or settle is None or not band_hz.value > 0:
        return None
    order = np.argsort(times.ravel(), kind="stable")
    t, y = times.ravel()[order], readings.ravel()[order]
    before, after = float(np.median(y[: 2 * len(y) // 5])), float(np.median(y[-len(y) // 5 :]))
    share = (y - before) / (after - before) if after != before else np.zeros_like(y)
    rate = 2 * math.pi * band_hz.value
    start = _start(t, share, rate)
    if start is None:
        return None
    rise = Measured(math.log(9) / rate, math.log(9) / rate * band_hz.sigma / band_hz.value, "s")
    ten, ninety = start - math.log(0.9) / rate, start - math.log(0.1) / rate
    near = (t > start - 0.4 * settle.value) & (t < start + SHOWN * settle.value)
    fine = np.linspace(start, start + SHOWN * settle.value, 120)
    model = 1 - np.exp(-rate * (fine - start))
    clock, reading = Scale.of("time after the drive's edge", "s", t[near]), Scale.of("reading", unit, y)
    x, left = t[near], 100 * np.abs(1 - share[near])
    noise = 148.26 * float(np.median(np.abs(share[-len(y) // 5 :] - 1)))

    def draw(sheet: Sheet) -> None:
        upper, lower = sheet.figure.subplots(2, 1, sharex=True, height_ratios=(1, 0.8))
        dots(sheet, upper, clock(x), reading(y[near]), 0, "measured", size=3.0)
        line(sheet, upper, clock(fine), reading(before + (after - before) * model), 1, "fitted pole")
        for part, at in ((0.1, ten), (0.9, ninety)):
            upper.plot(clock(at), reading(before + part * (after - before)), "D", color=sheet.look.bad, zorder=4,
                       label="10 % and 90 %" if part < 0.5 else None, **sheet.dot(5.0))  # fmt: skip
            mark(sheet, upper, float(clock(at)))
        upper.set_ylabel(reading.label)
        sheet.legend(upper)
        dots(sheet, lower, clock(x), np.maximum(left, 1e-3), 0, "", size=3.0)
        line(sheet, lower, clock(fine), 100 * (1 - model), 1, "")
        lower.axhspan(1e-3, 100 * SETTLED, color=sheet.look.good, alpha=0.18, lw=0, label="settled: within 0.1 %")
        mark(sheet, lower, float(clock(start + settle.value)))
        level(sheet, lower, noise, "noise of a sample", ":")
        lower.set_ylim(0.02, 200)
        logarithmic(lower, y=True)
        lower.set_ylabel("left of the step (%)")
        lower.set_xlabel(clock.label)
        sheet.legend(lower)
        sheet.figure.align_ylabels([upper, lower])

    told = (
        f"An edge seen between the samples in {len(times)} shots (dots) and the fitted pole (line), beneath it what is "
        f"left of the step; 10 to 90 % take {rise}, and the reading is within 0.1 % after {settle} (shaded)."
    )
    columns = {clock.label: column(clock(x)), reading.label: column(reading(y[near])), "left of the step (%)": column(left)}
    columns |= {
        f"time, of the pole ({clock.unit})": column(clock(fine)),
        f"fitted pole ({reading.unit})": column(reading(before + (after - before) * model)),
    }
    return Figure("step-response", "Step response", told, draw, columns, 4.2, f"10–90 % {rise}")


def values_after(step: StepRecord, unit: str) -> Figure | None:
    """Draw how far each value after a step is from the last ones."""
    curves = step.curves("value", "deviation_v")
    if curves is None:
        return None
    n, deviation = curves
    scale, wait = Scale.of("deviation from the end", unit, deviation), step.figures.get("wait_values", 0.0)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        level(sheet, axes, 0.0)
        dots(sheet, axes, n, scale(deviation), 0, "measured", size=4.0)
        axes.set_xlabel("values after the step")
        axes.set_ylabel(scale.label)

    told = f"Readings after a step of the drive, less the settled level: {wait:.0f} values pass before the reading is settled."
    return Figure("step-response", "Step response", told, draw, {"value": column(n), scale.label: column(scale(deviation))})


def _start(t: Floats, share: Floats, rate: float) -> float | None:
    """Return when the fitted pole begins to move: the median over the samples on their way, t + ln( left ) / rate."""
    left = 1 - share
    moving = (left > 0.02) & (left < 0.9)
    waiting = np.nonzero(share < 0.1)[0]
    moving[: waiting[-1] if len(waiting) else 0] = False
    return float(np.median(t[moving] + np.log(left[moving]) / rate)) if moving.any() else None
