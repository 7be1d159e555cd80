"""The main figures of a modulator, a medium and a camera: the camera, the gray levels, the image, the transmission matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hil.report.calibration.drawing import (
    cloud,
    column,
    dots,
    histogram,
    level,
    line,
    logarithmic,
    mark,
    upper_and_lower,
)
from hil.report.calibration.record import Floats, Measured, Record, StepRecord
from hil.report.figure import Figure, Sheet

MOST_DOTS = 1500
MOST_BEND = 1.0  # %, of the step `flat field`
LEAST_CORRELATION = 0.95  # of the step `transmission`
TWO_PI = 2 * math.pi


def camera(record: Record) -> Iterator[Figure]:
    """Yield the figures that this calibration has the data for."""
    dark, flat = record.step("dark frame"), record.step("flat field")
    found = (
        linearity(dark, flat), photon_transfer(dark, flat), read_noise(dark), phase_table(record.step("phase table")),
        point_spread(record.step("registration")), prediction(record.step("transmission")),
    )  # fmt: skip
    yield from (figure for figure in found if figure is not None)


def linearity(dark: StepRecord, flat: StepRecord) -> Figure | None:
    """Mean signal over exposure, with the straight line; beneath it what is left, in per cent of the largest signal."""
    found = _signal(dark, flat)
    if found is None:
        return None
    exposure, signal, _, within = found
    mean, spread = signal.mean(1), signal.std(1)
    slope = float((exposure[within] * mean[within]).sum() / np.square(exposure[within]).sum())
    left = 100 * (mean - slope * exposure) / (slope * exposure[within].max())

    def draw(sheet: Sheet) -> None:
        upper, lower = upper_and_lower(sheet)
        line(sheet, upper, exposure, slope * exposure, 1, "straight line")
        dots(sheet, upper, exposure, mean, 0, "mean of the pixels ± spread", spread, size=5.0)
        upper.set_ylabel("signal (counts)")
        sheet.legend(upper)
        level(sheet, lower, 0.0)
        for sign in (-1, 1):
            level(sheet, lower, sign * MOST_BEND, "", "--")
        dots(sheet, lower, exposure, left, 2, "", size=4.0)
        lower.set_ylim(*(sign * max(1.3 * MOST_BEND, 1.1 * float(np.abs(left[within]).max())) for sign in (-1, 1)))
        lower.set_ylabel("left over (%)")
        lower.set_xlabel("exposure (share of the longest)")
        sheet.figure.align_ylabels([upper, lower])

    bend = 100 * flat.figures.get("bend", float(np.abs(left[within]).max()) / 100)
    told = (
        f"Signal of the camera under an even lamp against exposure, and what a straight line through zero leaves over: at most "
        f"{bend:.2g} % of the largest signal ({MOST_BEND:g} % allowed, dashed)."
    )
    columns = {
        "exposure (share of the longest)": column(exposure), "signal, mean of pixels (counts)": column(mean),
        "spread between pixels (counts)": column(spread), "left over (%)": column(left),
    }  # fmt: skip
    return Figure("camera-linearity", "Linearity of the camera", told, draw, columns, 3.9, f"within {bend:.2g} %")


def photon_transfer(dark: StepRecord, flat: StepRecord) -> Figure | None:
    """Variance of a pixel over its signal: the slope is the gain in counts per electron."""
    found, gain = _signal(dark, flat), flat.estimates.get("gain")
    if found is None or gain is None or not gain.value > 0:
        return None
    exposure, signal, variance, within = found
    step = max(1, signal.size // MOST_DOTS)
    x, y = signal[within].ravel()[::step], variance[within].ravel()[::step]
    mean_x, mean_y = signal[within].mean(1), variance[within].mean(1)
    fine = np.linspace(0, float(mean_x.max()), 2)
    read = dark.estimates.get("read noise", Measured(0.0))
    fitted = read.value**2 + gain.value * fine

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        cloud(sheet, axes, x, y, "a pixel at an exposure")
        dots(sheet, axes, mean_x, mean_y, 0, "mean of the pixels", size=5.0)
        line(sheet, axes, fine, fitted, 1, "read noise² + gain × signal")
        axes.set_ylim(0, 1.35 * float(mean_y.max()))
        axes.set_xlabel("signal (counts)")
        axes.set_ylabel("variance (counts²)")
        sheet.legend(axes)

    told = (
        f"Photon transfer: variance of a pixel against its signal (light dots: single pixels), and the line of the "
        f"fitted gain, {Measured(gain.value, gain.sigma)} counts per electron: {1 / gain.value:.3g} electrons per count."
    )
    columns = {
        "exposure (share of the longest)": column(exposure[within]), "signal, mean of pixels (counts)": column(mean_x),
        "variance, mean of pixels (counts²)": column(mean_y),
        "line (counts²)": column(read.value**2 + gain.value * mean_x),
    }  # fmt: skip
    return Figure("photon-transfer", "Photon transfer", told, draw, columns, 3.0, f"gain {gain} counts per electron")


def read_noise(dark: StepRecord) -> Figure | None:
    """How many pixels have which read noise."""
    noise, read = dark.block("noise", 1), dark.estimates.get("read noise")
    if noise is None or noise.size < 5:
        return None
    middle = float(np.median(noise))

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        histogram(sheet, axes, noise, 0, "pixels")
        mark(sheet, axes, middle, "median")
        axes.set_xlabel("read noise of a pixel (counts)")
        axes.set_ylabel("pixels")
        sheet.legend(axes)

    said, hot = str(read or Measured(float(f"{noise.mean():.3g}"), 0.0, "counts")), sum(not good for good in dark.success)
    told = (
        f"Read noise of the {noise.size} pixels without light: mean {said}, median {middle:.2f} counts; "
        f"{hot or 'no'} hot pixel{'' if hot == 1 else 's'}."
    )
    level_ = dark.block("dark", 1)
    columns = {"read noise (counts)": column(noise)}
    columns |= {} if level_ is None or level_.size != noise.size else {"dark level (counts)": column(level_)}
    return Figure("read-noise", "Read noise", told, draw, columns, 2.8, said)


def phase_table(step: StepRecord) -> Figure | None:
    """Phase over the gray level."""
    curves, sigma, stroke = step.curves("gray", "phase"), step.curves("gray", "phase_sigma"), step.estimates.get("stroke")
    if curves is None or stroke is None:
        return None
    gray, phase = curves
    gamma = step.figures.get("gamma")

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        if gamma is not None:
            line(
                sheet, axes, gray, stroke.value * (gray / gray.max()) ** gamma, 1, f"power law, exponent {gamma:.2f}", width=1.4
            )
        dots(sheet, axes, gray, phase, 0, "measured (bars: 1 σ)", None if sigma is None else sigma[1], size=3.0)
        level(sheet, axes, TWO_PI, "a whole turn", "--")
        axes.set_xlabel("gray level")
        axes.set_ylabel("phase (rad)")
        sheet.legend(axes)

    turn = Measured(stroke.value / TWO_PI, stroke.sigma / TWO_PI)
    told = f"Phase that each gray level makes, from two-beam interference: {stroke} at the highest, {turn} turns."
    columns = {"gray level": column(gray), "phase (rad)": column(phase)}
    columns |= {} if sigma is None else {"1 σ (rad)": column(sigma[1])}
    return Figure("phase-table", "Phase table", told, draw, columns, 3.0, f"stroke {turn} turns")


def point_spread(step: StepRecord) -> Figure | None:
    """Light of one macropixel over the distance from where it is seen."""
    spots, places = step.block("spots", 2), step.block("places", 2)
    if spots is None or places is None or places.shape != (len(spots), 2) or spots.shape[1] != math.isqrt(spots.shape[1]) ** 2:
        return None
    side = math.isqrt(spots.shape[1])
    row, place = np.divmod(np.arange(spots.shape[1]), side)
    away = np.hypot(place[None, :] - places[:, :1], row[None, :] - places[:, 1:])
    peak = spots.max(1, keepdims=True)
    if not (peak > 0).all():
        return None
    near = (away < 4) & (spots.shape[1] > 0)
    x, y = away[near], (spots / peak)[near]
    edges = np.arange(0, 4.01, 0.25)
    group = np.digitize(x, edges)
    middle = np.array([[x[group == k].mean(), y[group == k].mean()] for k in range(1, len(edges)) if (group == k).any()])
    top = middle[0, 1]
    beneath = np.nonzero(middle[:, 1] < 0.5 * top)[0]
    if not len(beneath) or beneath[0] == 0:
        return None
    k = int(beneath[0])
    (x0, y0), (x1, y1) = middle[k - 1], middle[k]
    width = 2 * float(x0 + (x1 - x0) * (y0 - 0.5 * top) / (y0 - y1))
    step_ = max(1, len(x) // MOST_DOTS)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        cloud(sheet, axes, x[::step_], y[::step_], "a pixel")
        line(sheet, axes, middle[:, 0], middle[:, 1], 1, "mean")
        level(sheet, axes, 0.5 * top, "half", "--")
        axes.set_xlabel("distance from the centre of the spot (camera pixels)")
        axes.set_ylabel("light, share of the peak")
        sheet.legend(axes)

    off = (
        ""
        if step.residual_rms is None
        else f"; {sum(step.success)} of {len(step.success)} spots within {step.residual_rms:.2g} pixels rms of the fitted map"
    )
    told = (
        "Point spread: light of single macropixels against the distance from the centre of their spots, "
        f"{width:.2f} ± 0.25 pixels wide at half height{off}."
    )
    columns = {"distance (pixels)": column(middle[:, 0]), "light (share of the peak)": column(middle[:, 1])}
    return Figure("point-spread", "Point spread", told, draw, columns, 3.0, f"{width:.1f} pixels wide")


def prediction(step: StepRecord) -> Figure | None:
    """How well unseen patterns are predicted, pixel by pixel."""
    found, mean = step.block("correlations", 1), step.estimates.get("correlation")
    if found is None or found.size < 5 or mean is None:
        return None
    left = np.maximum(1 - found, 1e-6)
    focus, ideal = step.estimates.get("enhancement"), step.figures.get("enhancement_ideal")

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        edges = np.geomspace(0.9 * float(left.min()), 1.1 * max(float(left.max()), 1.2 * (1 - LEAST_CORRELATION)), 25)
        counts, _ = np.histogram(left, bins=edges)
        axes.stairs(counts, edges, fill=True, color=sheet.series(0), alpha=0.25, lw=0)
        axes.stairs(counts, edges, color=sheet.series(0), lw=sheet.pt(1.2), baseline=None, label="pixels")
        mark(sheet, axes, 1 - LEAST_CORRELATION, "allowed")
        logarithmic(axes, x=True)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("1 − correlation of predicted and measured light")
        axes.set_ylabel("pixels")
        sheet.legend(axes)

    told = (
        f"How well the transmission matrix predicts unseen patterns, for each of {found.size} pixels: mean correlation {mean}, "
        f"worst {found.min():.4f}"
    )
    if focus is not None and ideal is not None:
        told += f"; a focus made with it is {focus} times as bright as the mean, {ideal:.1f} in theory"
    return Figure(
        "transmission", "Transmission matrix", f"{told}.", draw,
        {"pixel": list(range(found.size)), "correlation": column(found)},
        3.0, f"correlation {mean}",
    )  # fmt: skip


def _signal(dark: StepRecord, flat: StepRecord) -> tuple[Floats, Floats, Floats, Floats] | None:
    """(exposure (E,), signal and variance (E, pixels), which exposures leave every pixel unsaturated (E,) of bool)."""
    exposure, means, variances = flat.block("exposure", 1), flat.block("means", 2), flat.block("variances", 2)
    level_, rate, unsaturated = dark.block("dark", 1), dark.block("rate", 1), flat.block("unsaturated", 1)
    if exposure is None or means is None or variances is None or level_ is None or rate is None or unsaturated is None:
        return None
    same = means.shape == variances.shape == (len(exposure), len(level_)) and level_.shape == rate.shape
    if not same or len(unsaturated) < 2 or not ((unsaturated >= 0) & (unsaturated < len(exposure))).all():
        return None
    within = np.zeros(len(exposure), dtype=bool)
    within[unsaturated.astype(int)] = True
    return exposure, means - level_ - rate * exposure[:, None], variances, within
