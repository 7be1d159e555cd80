"""A calibration in one sentence: is it valid, what does that mean for use; where it is not: why, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from hil.report.calibration.record import Facts, Measured, Record, StepRecord, number
from hil.report.calibration.words import step_name


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a calibration says of itself.

    Args:
        good: it is valid.
        sentence: for the page and the terminal.
        model: how well the model predicts; "" where none was fitted.
        until: when it becomes too old, or "".
    """

    good: bool
    sentence: str
    model: str
    until: str


def verdict(table: Facts, record: Record) -> Verdict:
    """Judge a saved calibration, the table of its file."""
    steps = [*record.steps.values()]
    good = table.get("good") is True and bool(steps) and all(step.good for step in steps)
    model, until = predicts(record), valid_until(table)
    return Verdict(good, _passed(len(steps), model, until) if good else _failed(steps), model, until)


def predicts(record: Record) -> str:
    """Say how well the model predicts a reading, or, of a node of many channels, a matrix."""
    check, fidelity = record.step("honesty"), record.step("mesh").estimates.get("fidelity")
    correlation = record.step("transmission").estimates.get("correlation")
    if check.residual_rms is not None:
        off, noise = error_of_model(check), check.figures.get("noise")
        return f"the model predicts a reading to {off}" + (
            "" if noise is None else f", noise of a reading {three(noise, check)}"
        )
    if fidelity is not None:
        return f"random unitaries are programmed with fidelity {fidelity}"
    return "" if correlation is None else f"unseen patterns are predicted with correlation {correlation}"


def error_of_model(check: StepRecord) -> str:
    """Write the error of the model: "191 µV rms (0.054 % of peak to peak)"."""
    rms, swing = check.residual_rms or 0.0, check.figures.get("swing", 0.0)
    share = f" ({100 * rms / swing:.2g} % of peak to peak)" if swing > 0 else ""
    return f"{three(rms, check)} rms{share}"


def three(value: float, check: StepRecord) -> str:
    """Write a reading with three figures."""
    return str(Measured(float(f"{value:.3g}"), 0.0, check.residual_unit))


def valid_until(table: Facts) -> str:
    """Write when a calibration becomes too old: "2026-12-01 00:20 UTC+01:00"; "" if it does not say."""
    most_s = number(table.get("max_age_s"))
    try:
        end = datetime.fromisoformat(str(table.get("taken_at"))) + timedelta(seconds=most_s if most_s is not None else -1)
    except (ValueError, OverflowError):
        return ""
    return "" if most_s is None else moment(end)


def moment(when: datetime) -> str:
    """Write a time to the minute, with its zone."""
    zone = f"{when:%z}"
    return f"{when:%Y-%m-%d %H:%M}" + (f" UTC{zone[:3]}:{zone[3:5]}".removesuffix("+00:00") if zone else "")


def _passed(count: int, model: str, until: str) -> str:
    age = f"until {until}" if until else "until it is older than max_age in the bench file allows"
    steps = "The calibration step" if count == 1 else f"All {count} calibration steps"
    return f"{steps} passed; {f'{model}; ' if model else ''}valid for this bench and these settings {age}."


def _failed(steps: list[StepRecord]) -> str:
    failed, undone = ([step for step in steps if not step.good and step.skipped is skipped] for skipped in (False, True))
    if not failed:
        return (
            "NOT VALID, no training uses this calibration: it does not say that its steps passed. What to do: calibrate again."
        )
    names = ", ".join(step_name(step.name) for step in failed)
    rest = f", {len(undone)} not done" if undone else ""
    why = next((problem for step in failed for problem in step.problems), None)
    reason = "" if why is None else f": {why.what} ({why.evidence}). What to do: {why.todo}; then calibrate again"
    count = f"{len(failed)} of {len(steps)} calibration steps{rest}"
    return f"NOT VALID, no training uses this calibration: {names} failed ({count}){reason}."
