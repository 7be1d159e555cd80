"""The main figures of a delay loop: its response to small drives, with the echoes, and how its past fades."""

from __future__ import annotations

from collections.abc import Iterator

from hil.report.calibration.drawing import Scale, column, dots, level, logarithmic
from hil.report.calibration.record import Record, StepRecord
from hil.report.figure import Figure, Sheet


def loop(record: Record) -> Iterator[Figure]:
    """Yield the figures that this calibration has the data for."""
    found = (response(record.step("loop")), fading(record.step("memory")))
    yield from (figure for figure in found if figure is not None)


def response(step: StepRecord) -> Figure | None:
    """The reading for a small drive of one symbol: the direct answer, and an echo each time that it comes round."""
    curves = step.curves("lag", "response", "response_sigma")
    gain, delay = step.estimates.get("loop_gain"), step.estimates.get("loop_delay")
    if curves is None or gain is None or delay is None:
        return None
    lag, h, sigma = curves

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        level(sheet, axes, 0.0)
        dots(sheet, axes, lag, h, 0, "", sigma)
        axes.set_xlabel("symbols after the drive")
        axes.set_ylabel("reading for a drive of 1")

    told = f"Linear response to small drives (bars: 1 σ): the direct answer, and its echo after {delay}, {gain} of it."
    columns = {"symbols after the drive": column(lag), "reading for a drive of 1": column(h), "1 σ": column(sigma)}
    return Figure("loop", "Response of the loop", told, draw, columns, 2.8, f"{delay}")


def fading(step: StepRecord) -> Figure | None:
    """The difference that two pasts make in the answers to the same input."""
    curves, fades = step.curves("step", "difference_v"), step.estimates.get("fades")
    if curves is None or fades is None or not (curves[1] > 0).all():
        return None
    steps, apart = curves
    scale = Scale.of("difference, rms", "V", apart)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        dots(sheet, axes, steps, scale(apart), 0, "")
        logarithmic(axes, y=True)
        axes.set_xlabel("step of the common input")
        axes.set_ylabel(scale.label)

    told = f"Difference of the answers to the same input after two different pasts: a thousandth is left after {fades}."
    columns = {"step of the common input": column(steps), scale.label: column(scale(apart))}
    return Figure("fading", "Fading of the past", told, draw, columns, 2.8, f"{fades}")
