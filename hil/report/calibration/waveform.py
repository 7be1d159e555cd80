"""The six main figures of a node that is shared in time; those that were not measured are left out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hil.report.calibration.drawing import (
    Scale,
    band,
    column,
    dots,
    level,
    line,
    logarithmic,
    rms,
    upper_and_lower,
)
from hil.report.calibration.edge import edge, values_after
from hil.report.calibration.record import Measured, Record, StepRecord
from hil.report.figure import Figure, Sheet
from hil.report.sweep_figures import UNITS

TERMS = ("thermal (constant)", "shot (∝ √level)", "laser intensity (∝ level)")
CONVERTER = math.sqrt(12)  # a step of q adds q / sqrt(12) to the noise


def waveform(record: Record) -> Iterator[Figure]:
    """Yield the figures that this calibration has the data for."""
    dark = record.step("dark")
    drive = dark.unit_of("drive", UNITS, "V")
    reading = dark.unit_of("level", UNITS, "V")
    found = (
        transfer(record, drive), allan(dark, reading), noise(record.step("noise"), reading),
        edge(record, reading) or values_after(record.step("settling"), reading),
        hysteresis(record.step("hysteresis"), drive, reading),
        drift(record.step("bias")),
    )  # fmt: skip
    yield from (figure for figure in found if figure is not None)


def transfer(record: Record, drive_unit: str) -> Figure | None:
    """Measured curve and model, residuals beneath; of the step `twin`, on readings that were not fitted, or of `transfer`."""
    step = next((one for one in map(record.step, ("twin", "transfer")) if one.curves("drive_v", "reading_v", "fitted_v")), None)
    curves = None if step is None else step.curves("drive_v", "reading_v", "fitted_v")
    if step is None or curves is None:
        return None
    order = np.argsort(curves[0], kind="stable")
    x, y, fitted = (one[order] for one in curves)
    unit, seen = step.residual_unit if step.residual_unit != "1" else "V", step.name == "transfer"
    left, sigma, spread = (
        None if (one := step.curves("drive_v", name)) is None else one[1][order]
        for name in ("residual_v", "sigma_v" if seen else "residual_sigma_v", "spread_v")
    )
    residual = y - fitted if left is None else left
    drive, reading = Scale.of("drive", drive_unit, x), Scale.of("reading", unit, y)
    small = Scale.of("residual", unit, residual, np.zeros(0) if sigma is None else 2 * sigma)

    def draw(sheet: Sheet) -> None:
        upper, lower = upper_and_lower(sheet)
        line(sheet, upper, drive(x), reading(fitted), 1, "model")
        bars = None if spread is None else reading(spread)
        dots(sheet, upper, drive(x), reading(y), 0, "measured" if spread is None else "measured ± spread", bars)
        upper.set_ylabel(reading.label)
        sheet.legend(upper)
        if sigma is not None:
            band(sheet, lower, drive(x), small(2 * sigma), 0, "")
        level(sheet, lower, 0.0)
        dots(sheet, lower, drive(x), small(residual), 2, "", None if sigma is None else small(sigma), size=2.8)
        lower.set_ylabel(small.label)
        lower.set_xlabel(drive.label)
        sheet.figure.align_ylabels([upper, lower])

    off = rms(residual)
    said = f"Measured transfer curve (dots{'' if spread is None else ', bars: spread of one reading'}) and fitted model (line)"
    said += "" if seen else ", at readings that the model was not fitted to"
    said += f"; beneath it the residuals, {Measured(off, off / math.sqrt(2 * len(x)), unit)} rms"
    if sigma is not None:
        inside = float(np.mean(np.abs(residual) <= 2 * sigma))
        said += f", {100 * inside:.0f} % of them inside the noise of a mean (band: ±2 σ; 95 % expected)"
    columns = {
        drive.label: drive(x),
        reading.label: reading(y),
        f"model ({reading.unit})": reading(fitted),
        small.label: small(residual),
    }
    if sigma is not None:
        columns[f"noise of a mean, 1 σ ({small.unit})"] = small(sigma)
    if spread is not None:
        columns[f"spread of one reading, 1 σ ({reading.unit})"] = reading(spread)
    v_pi = step.estimates.get("v_pi_v")
    return Figure(
        "transfer", "Transfer curve", f"{said}.", draw, {name: column(one) for name, one in columns.items()}, 3.9,
        "" if v_pi is None else f"half-wave voltage {v_pi}",
    )  # fmt: skip


def allan(step: StepRecord, unit: str) -> Figure | None:
    """Draw the Allan deviation of the reading at rest over the number of readings averaged."""
    name = next((name for name in step.sweeps if name.startswith("allan")), "")
    curves = step.curves("averaged", name)
    if curves is None or not (curves[0] > 0).all() or not (curves[1] > 0).all():
        return None
    m, deviation = curves
    shown = next((one for key, one in step.sweeps.items() if key.startswith("rest") and one.ndim == 1), None)
    total = float(len(shown)) if shown is not None else 8 * m[-1]
    error = deviation * np.sqrt(3 / (4 * np.maximum(total / m - 1, 1)))  # 2 (M - 1) / 3 degrees of freedom of M means
    least = int(deviation.argmin())
    scale = Scale.of("Allan deviation", unit, deviation)
    white = deviation[0] * np.sqrt(m[0] / m)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        line(sheet, axes, m, scale(white), 1, "slope −1/2 (white noise)", "--", 1.4)
        dots(sheet, axes, m, scale(deviation), 0, "measured", scale(error), size=4.0)
        colour = sheet.look.bad
        axes.plot(
            m[least], scale(deviation[least]), "o", mfc="none", mec=colour, mew=sheet.pt(1.4), ms=sheet.pt(10), label="minimum"
        )
        logarithmic(axes, x=True, y=True)
        axes.set_xlabel("readings averaged")
        axes.set_ylabel(scale.label)
        sheet.legend(axes)

    lowest = Measured(float(deviation[least]), float(error[least]), unit)
    still = (
        "the longest average measured, so slow noise was not reached" if least == len(m) - 1
        else "beyond which slow noise dominates and averaging does not help"
    )  # fmt: skip
    told = (
        f"Allan deviation of the reading at rest (dots, bars: 1 σ) against the slope −1/2 of white noise (dashed); its minimum "
        f"is {lowest} at {m[least]:.0f} readings, {still}."
    )
    columns = {
        "readings averaged": column(m), scale.label: column(scale(deviation)), f"1 σ ({scale.unit})": column(scale(error)),
        f"slope −1/2 ({scale.unit})": column(scale(white)),
    }  # fmt: skip
    return Figure("allan", "Allan deviation", told, draw, columns, 3.0, f"minimum {lowest}")


def noise(step: StepRecord, unit: str) -> Figure | None:
    """Noise of a reading over its level, with the terms of the fitted variance."""
    curves, terms = step.curves("reading_v", "variance"), [step.figures.get(f"variance_{k}") for k in range(3)]
    if curves is None or any(term is None for term in terms):
        return None
    order = np.argsort(curves[0], kind="stable")
    y, own = (one[order] for one in curves)
    converter, freedom = step.figures.get("step", 0.0) / CONVERTER, step.figures.get("freedom", 0.0)
    total = np.sqrt(np.maximum(own + converter**2, 0.0))
    error = total / math.sqrt(2 * freedom) if freedom > 0 else None
    fine = np.linspace(float(y.min()), float(y.max()), 101)
    parts = {
        name: np.sqrt(np.maximum((term or 0.0) * fine**k, 0.0))
        for k, (name, term) in enumerate(zip(TERMS, terms, strict=True))
        if term
    }  # fmt: skip
    if converter:
        parts["converter step"] = np.full_like(fine, converter)
    whole = np.sqrt(sum((one**2 for one in parts.values()), np.zeros_like(fine)))
    level_scale, scale = Scale.of("level of the reading", unit, y), Scale.of("noise of a reading, rms", unit, total, whole)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        for number, (name, one) in enumerate(parts.items()):
            line(sheet, axes, level_scale(fine), scale(one), 2 + number, name, ("-.", "--", ":", (0, (1, 1)))[number], 1.3)
        dots(sheet, axes, level_scale(y), scale(total), 0, "measured", None if error is None else scale(error), size=3.0)
        line(sheet, axes, level_scale(fine), scale(whole), 1, "sum of terms")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(level_scale.label)
        axes.set_ylabel(scale.label)
        sheet.legend(axes, 3)

    mean, chi2 = step.estimates.get("noise"), step.figures.get("chi2")
    largest = max(parts, key=lambda name: float(parts[name][-1]), default="")
    told = "Noise of one reading against its level (dots, bars: 1 σ), the fitted terms (broken lines) and their sum (line)"
    told += "" if mean is None else f"; over all levels it is {mean} rms without the converter's step"
    told += "" if not largest else f", and at the highest level the largest term is {largest.split(' (')[0]}"
    told += "" if chi2 is None else f" (reduced chi² {chi2:.2f})"
    columns = {level_scale.label: column(level_scale(y)), f"{scale.name}, measured ({scale.unit})": column(scale(total))}
    columns |= {} if error is None else {f"1 σ ({scale.unit})": column(scale(error))}
    columns |= {
        f"level, of the lines ({level_scale.unit})": column(level_scale(fine)),
        f"sum of terms ({scale.unit})": column(scale(whole)),
    }
    columns |= {f"{name} ({scale.unit})": column(scale(one)) for name, one in parts.items()}
    return Figure("noise", "Noise against level", f"{told}.", draw, columns, 3.3, "" if mean is None else f"{mean} rms")


def hysteresis(step: StepRecord, drive_unit: str, unit: str) -> Figure | None:
    """Sweep up and down, their difference beneath."""
    name = next((name for name in step.sweeps if name.startswith("drive")), "")
    curves = step.curves(name, "rising_v", "falling_v")
    if curves is None:
        return None
    x, up, down = curves
    apart, span = up - down, float(np.ptp(x))
    alone = step.figures.get("loop_of_noise", 0.0)
    sigma = alone / span * math.sqrt(math.pi / 2) if span else 0.0  # mean |d| = sqrt(2 / pi) sigma
    drive, reading = Scale.of("drive", drive_unit, x), Scale.of("reading", unit, up, down)
    small = Scale.of("up − down", unit, apart, np.full(1, 2 * sigma))

    def draw(sheet: Sheet) -> None:
        upper, lower = upper_and_lower(sheet)
        line(sheet, upper, drive(x), reading(down), 1, "down", width=2.6)
        dots(sheet, upper, drive(x), reading(up), 0, "up", size=2.8)
        upper.set_ylabel(reading.label)
        sheet.legend(upper)
        if sigma:
            band(sheet, lower, drive(x), np.full_like(x, float(small(2 * sigma))), 0, "")
        level(sheet, lower, 0.0)
        lower.plot(drive(x), small(apart), "-o", color=sheet.series(2), lw=sheet.pt(0.8), **sheet.dot(2.6, 0.2))
        lower.set_ylabel(small.label)
        lower.set_xlabel(drive.label)
        sheet.figure.align_ylabels([upper, lower])

    width = next((one for key, one in step.estimates.items() if key.startswith("hysteresis")), None)
    told = "Reading while the drive is swept slowly up (dots) and down (line), and their difference beneath"
    told += " (band: ±2 σ of noise)" if sigma else ""
    if width is not None:
        none = "no hysteresis is seen" if step.good else "the node shows hysteresis"
        told += f": the loop is {width} wide, {none}"
    columns = {
        drive.label: column(drive(x)), f"up ({reading.unit})": column(reading(up)),
        f"down ({reading.unit})": column(reading(down)), small.label: column(small(apart)),
    }  # fmt: skip
    return Figure("hysteresis", "Hysteresis", f"{told}.", draw, columns, 3.9, "" if width is None else f"loop {width}")


def drift(step: StepRecord) -> Figure | None:
    """Phase over time, with the fitted rate."""
    curves, rate = step.curves("time_s", "phase_rad"), step.estimates.get("drift_rad_per_s")
    if curves is None or rate is None:
        return None
    t, phase = curves
    with_sigma = step.curves("time_s", "phase_sigma_rad")
    sigma = None if with_sigma is None else with_sigma[1]
    weight = np.ones_like(t) if sigma is None else 1 / np.maximum(sigma, 1e-12) ** 2
    middle, centre = float(np.average(phase, weights=weight)), float(np.average(t, weights=weight))
    fitted, unsure = middle + rate.value * (t - centre), rate.sigma * np.abs(t - centre)
    scale = Scale.of("phase of the bias", "rad", phase, fitted)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        dots(sheet, axes, t, scale(phase), 0, "measured", None if sigma is None else scale(sigma), size=3.0)
        colour = sheet.series(1)
        axes.fill_between(t, scale(fitted - 2 * unsure), scale(fitted + 2 * unsure), color=colour, alpha=0.25, lw=0)
        line(sheet, axes, t, scale(fitted), 1, "fitted rate ± 2 σ")
        axes.set_xlabel("time (s)")
        axes.set_ylabel(scale.label)
        sheet.legend(axes)

    chi2 = step.figures.get("drift_chi2")
    walks = (
        ""
        if chi2 is None
        else f", a steady drift (reduced chi² {chi2:.2f})"
        if chi2 <= 2
        else f", and it walks besides (reduced chi² {chi2:.1f})"
    )
    told = (
        f"Phase of the bias over {t[-1] - t[0]:.3g} s (dots, bars: 1 σ) and the fitted rate (line, band: ±2 σ): {rate}{walks}."
    )
    columns = {"time (s)": column(t), scale.label: column(scale(phase)), f"fitted ({scale.unit})": column(scale(fitted))}
    columns |= {} if sigma is None else {f"1 σ ({scale.unit})": column(scale(sigma))}
    return Figure("drift", "Drift", told, draw, columns, 3.0, str(rate))
