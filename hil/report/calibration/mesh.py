"""The main figures of a mesh of interferometers: fidelity, prediction, crosstalk, heaters, photodiodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hil.report.calibration.drawing import Scale, column, dots, level, line, logarithmic, rms, upper_and_lower
from hil.report.calibration.record import Floats, Measured, Record, StepRecord
from hil.report.figure import Columns, Figure, Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DOTS = 1500
NAMED = 12  # heaters whose names are written at the axis
ALLOWED = 0.01  # of 1 - fidelity
CELLS_WITH_NUMBERS = 6
LEAST = 1e-7  # of 1 - fidelity, that is drawn


def mesh(record: Record) -> Iterator[Figure]:
    """Yield the figures that this calibration has the data for."""
    programmed, cross = record.step("mesh"), record.step("crosstalk")
    found = (
        fidelity(programmed),
        prediction(programmed),
        crosstalk(cross),
        heaters(cross),
        photodiodes(record.step("photodiodes")),
    )
    yield from (figure for figure in found if figure is not None)


def fidelity(step: StepRecord) -> Figure | None:
    """Infidelity of every programmed unitary, with crosstalk compensated and without."""
    curves = step.curves("fidelity", "fidelity_uncompensated")
    if curves is None:
        return None
    with_, without = (np.maximum(1 - one, LEAST) for one in curves)
    n = np.arange(1, len(with_) + 1, dtype=np.float64)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        axes.vlines(n, with_, without, color=sheet.look.grid, lw=sheet.pt(2.0))
        dots(sheet, axes, n, without, 1, "each heater as if alone", size=6.0, shape="s")
        dots(sheet, axes, n, with_, 0, "crosstalk compensated", size=6.0)
        level(sheet, axes, ALLOWED, "allowed", "--")
        logarithmic(axes, y=True)
        axes.set_xticks(n)
        axes.set_xlabel("random unitary")
        axes.set_ylabel("1 − fidelity")
        sheet.legend(axes)

    lack = Measured(float((1 - curves[0]).mean()), float((1 - curves[0]).std(ddof=1)) / math.sqrt(len(n)))
    told = (
        f"What {len(n)} random unitaries lack in fidelity after they were programmed, crosstalk compensated (dots) and not "
        f"(squares): {lack} on average, {Measured(float(f'{(1 - curves[0]).max():.2g}'))} at most; without compensation "
        f"{(1 - curves[1]).mean():.2g} on average."
    )
    columns = {"unitary": column(n), "fidelity, compensated": column(curves[0]), "fidelity, not compensated": column(curves[1])}
    return Figure("fidelity", "Programmed matrices", told, draw, columns, 3.0, f"1 − F = {lack}")


def prediction(step: StepRecord) -> Figure | None:
    """Measured against predicted powers at settings that were not fitted, residuals beneath."""
    parts = [step.block(name, 3) for name in ("powers", "predicted_powers", "powers_sigma")]
    if any(part is None for part in parts) or len({part.shape for part in parts if part is not None}) != 1:
        return None
    seen, expected, sigma = (part.ravel()[:: max(1, part.size // MOST_DOTS)] for part in parts if part is not None)
    off, small = seen - expected, 1e3

    def draw(sheet: Sheet) -> None:
        upper, lower = upper_and_lower(sheet)
        ends = np.array([min(0.0, float(expected.min())), float(expected.max())])
        line(sheet, upper, ends, ends, 1, "measured = predicted", width=1.4)
        dots(sheet, upper, expected, seen, 0, "measured", size=3.0)
        upper.set_ylabel("measured power")
        sheet.legend(upper)
        level(sheet, lower, 0.0)
        dots(sheet, lower, expected, small * off, 2, "", small * sigma, size=2.6)
        lower.set_ylabel("residual (10⁻³)")
        lower.set_xlabel("predicted power (share of one full input)")
        sheet.figure.align_ylabels([upper, lower])

    chi2, left = step.figures.get("chi2_unseen"), Measured(rms(off), rms(off) / math.sqrt(2 * len(off)))
    told = "Powers at heater settings that were not fitted, measured against predicted, and the residuals beneath (bars: 1 σ)"
    told += f": off by {left} of a full input rms" + ("" if chi2 is None else f", reduced chi² {chi2:.2f}")
    columns = {
        "predicted power (share of a full input)": column(expected), "measured power (share of a full input)": column(seen),
        "1 σ (share of a full input)": column(sigma),
    }  # fmt: skip
    return Figure("prediction", "Prediction of unseen settings", f"{told}.", draw, columns, 3.9)


def crosstalk(step: StepRecord) -> Figure | None:
    """What each heater does to the phases of the others, in per cent of what it does to its own."""
    matrix = step.block("matrix", 2)
    if matrix is None or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2 or not np.diagonal(matrix).all():
        return None
    share, names = 100 * matrix / np.diagonal(matrix), _names(step, len(matrix))
    np.fill_diagonal(share, 0.0)
    count, largest = len(share), float(np.abs(share).max()) or 1.0

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        _shades(sheet, axes, share, largest)
        if count <= CELLS_WITH_NUMBERS:
            for (row, place), value in np.ndenumerate(share):
                text = "own" if row == place else f"{value:+.1f} %"
                axes.text(
                    place, row, text, ha="center", va="center", color=sheet.look.ink if row != place else sheet.look.muted
                )
        if count <= NAMED:
            axes.set_xticks(range(count), names, rotation=0 if count <= 4 else 60)
            axes.set_yticks(range(count), names)
        axes.set_xlabel("heater")
        axes.set_ylabel("phase")

    worst = step.estimates.get("worst crosstalk")
    said = f"{100 * worst.value:+.2f} ± {100 * worst.sigma:.2f} %" if worst is not None else f"{largest:.2g} %"
    told = f"Crosstalk of each heater on the phases of the others, in per cent of its own effect; the largest is {said}."
    columns: Columns = {
        "phase": [names[row] for row in range(count) for _ in range(count)], "heater": names * count,
        "share of own effect (%)": share.ravel().tolist(),
    }  # fmt: skip
    return Figure("crosstalk", "Thermal crosstalk", told, draw, columns, 3.3 if count <= NAMED else 4.2, f"largest {said}")


def heaters(step: StepRecord) -> Figure | None:
    """Voltage for half a turn of every heater, from its own effect."""
    own = {name.removesuffix(" own"): one for name, one in step.estimates.items() if name.endswith(" own") and one.value > 0}
    if len(own) < 2:
        return None
    v_pi = np.array([math.sqrt(math.pi / one.value) for one in own.values()])
    sigma = np.array([0.5 * v * one.sigma / one.value for v, one in zip(v_pi, own.values(), strict=True)])
    n, names = np.arange(len(v_pi), dtype=np.float64), list(own)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        level(sheet, axes, float(v_pi.mean()), "mean", "--")
        dots(sheet, axes, n, v_pi, 0, "heater (bars: 1 σ)", sigma, size=5.0)
        if len(n) <= NAMED:
            axes.set_xticks(n, names, rotation=0 if len(n) <= 6 else 60)
            axes.set_xlim(-0.6, len(n) - 0.4)
        axes.set_xlabel("heater")
        axes.set_ylabel("V for half a turn (V)")
        sheet.legend(axes)

    spread = float(v_pi.std(ddof=1))
    mean = Measured(float(v_pi.mean()), spread / math.sqrt(len(v_pi)), "V")
    told = (
        f"Voltage at which each heater turns its own phase by half a turn: {mean} on average, with a spread of "
        f"{Measured(float(f'{spread:.2g}'), 0.0, 'V')} between heaters."
    )
    columns: Columns = {"heater": names, "V for half a turn (V)": column(v_pi), "1 σ (V)": column(sigma)}
    return Figure("heaters", "Heaters", told, draw, columns, 2.8, f"mean {mean}")


def photodiodes(step: StepRecord) -> Figure | None:
    """Gain of every photodiode, its dark level beneath."""
    found = {kind: [one for name, one in step.estimates.items() if name.startswith(f"{kind} ")] for kind in ("gain", "dark")}
    if len(found["gain"]) < 2 or len(found["gain"]) != len(found["dark"]):
        return None
    unit = found["gain"][0].unit
    values = {kind: np.array([one.value for one in listed]) for kind, listed in found.items()}
    sigmas = {kind: np.array([one.sigma for one in listed]) for kind, listed in found.items()}
    scales = {kind: Scale.of(f"{kind}{' level' if kind == 'dark' else ''}", unit, values[kind]) for kind in found}
    n = np.arange(len(values["gain"]), dtype=np.float64)

    def draw(sheet: Sheet) -> None:
        upper, lower = sheet.figure.subplots(2, 1, sharex=True)
        for number, (axes, kind) in enumerate(((upper, "gain"), (lower, "dark"))):
            dots(sheet, axes, n, scales[kind](values[kind]), 2 * number, "", scales[kind](sigmas[kind]), size=5.0)
            axes.set_ylabel(scales[kind].label)
            axes.margins(y=0.3)
        if len(n) <= NAMED:
            lower.set_xticks(n)
            lower.set_xlim(-0.6, len(n) - 0.4)
        lower.set_xlabel("photodiode")
        sheet.figure.align_ylabels([upper, lower])

    spread = float(values["gain"].std(ddof=1) / values["gain"].mean())
    told = (
        "Reading of each photodiode for one full input (gain) and without light (dark level), bars: 1 σ; the gains differ by "
        f"{100 * spread:.1f} %."
    )
    columns = {"photodiode": column(n)}
    for kind, scale in scales.items():
        columns |= {scale.label: column(scale(values[kind])), f"{kind}, 1 σ ({scale.unit})": column(scale(sigmas[kind]))}
    return Figure("photodiodes", "Photodiodes", told, draw, columns, 3.4)


def _names(step: StepRecord, count: int) -> list[str]:
    found = [name.removesuffix(" own") for name in step.estimates if name.endswith(" own")]
    return found if len(found) == count else [str(n) for n in range(count)]


def _shades(sheet: Sheet, axes: Axes, values: Floats, largest: float) -> None:
    """A matrix as shades, one colour above zero and one below."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    cells = [
        [(c - 0.5, r - 0.5), (c + 0.5, r - 0.5), (c + 0.5, r + 0.5), (c - 0.5, r + 0.5)] for r, c in np.ndindex(*values.shape)
    ]
    shades = [to_rgba(sheet.series(0 if v >= 0 else 1), 0.5 * abs(v) / largest) for v in values.ravel()]
    axes.add_collection(PolyCollection(cells, facecolors=shades, linewidths=0))
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    axes.grid(False)
