"""Names and units of what a calibration found, and how a parameter stands beside what was expected of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hil.report.calibration.record import Facts, Measured, Record, StepRecord, listing, mapping, number
from hil.report.sweep_figures import label

STEPS = {"honesty": "model check"}  # names of certificates -> of the page
PARAMETERS = {
    "v_pi_v": "half-wave voltage", "phase_rad": "phase at 0 V", "extinction_db": "extinction ratio",
    "insertion_loss_db": "insertion loss", "dark_a": "dark current", "bandwidth_hz": "bandwidth (3 dB)",
    "drift_rad_per_s": "drift of the phase", "laser_w": "laser power", "snr_db": "signal to noise (SNR)",
    "sinad_db": "signal to noise and distortion (SINAD)", "enob": "effective number of bits (ENOB)", "delay_s": "delay",
    "jitter_s": "jitter", "settle_s": "time to settle within 0.1 %", "hysteresis_v": "width of the loop",
    "carry_over": "share of a step that is carried over", "quadrature_v": "drive at quadrature", "peak_v": "drive at the peak",
    "null_v": "drive at the null", "lock_rad": "phase left after the lock", "combiner_rad": "phase of the combiner",
    "phase2_rad": "phase of the second arm", "rest": "reading at rest",
    "scale_v": "half-wave voltage, or drive that counts as 1", "gain": "gain of the loop",
    "loop_gain": "gain of the loop at rest", "loop_delay": "delay of the loop",
    "fades": "time in which a thousandth of the past is left",
}  # fmt: skip
READING, DRIVE, SHARE, COUNT = "reading", "drive", "%", "1"  # units that the bench says; shares are shown in per cent
FIGURES: Mapping[str, tuple[str, str]] = {
    "averages": ("readings averaged at each level", COUNT),
    "step": ("step of the converter", READING),
    "swing": ("peak to peak of the reading", READING),
    "up_down": ("largest difference up − down", READING),
    "at_rails": ("readings at a limit of the range", SHARE),
    "variance_0": ("variance, constant term", "reading²"),
    "variance_1": ("variance per level", READING),
    "variance_2": ("variance per level²", COUNT),
    "freedom": ("degrees of freedom at each level", COUNT),
    "chi2": ("reduced chi²", COUNT),
    "explained": ("variance explained by the own drive", SHARE),
    "explained_by_shot_before": ("variance explained by the shot before", SHARE),
    "shots": ("shots", COUNT),
    "wait_values": ("values until the reading is settled", COUNT),
    "share_left": ("left of a step at the first value", SHARE),
    "loop_fast": ("area of the loop, fast sweep", "reading drive"),
    "loop_slow": ("area of the loop, slow sweep", "reading drive"),
    "loop_of_noise": ("area that noise alone makes", "reading drive"),
    "half_loop_rms": ("half of the loop, rms", READING),
    "drift_chi2": ("reduced chi² of a steady drift", COUNT),
    "chi2_fit": ("reduced chi² of the fit", COUNT),
    "rms": ("residuals, rms", READING),
    "drive_step": ("step of the generator", DRIVE),
    "nrmse": ("residuals, rms, share of peak to peak", SHARE),
    "nrmse_floor": ("the same of a perfect model", SHARE),
    "r2": ("R²", COUNT),
    "r2_floor": ("R² of a perfect model", COUNT),
    "lag_along_drive": ("correlation of neighbours along the drive, z", COUNT),
    "runs_along_drive": ("runs along the drive, z", COUNT),
    "lag_along_time": ("correlation of neighbours in time, z", COUNT),
    "runs_along_time": ("runs in time, z", COUNT),
    "max_lsb": ("largest mean residual, steps of the converter", COUNT),
    "max_lsb_floor": ("the same of a perfect model", COUNT),
    "cosine": ("cosine of measured and model slopes", COUNT),
    "cosine_floor": ("the same of a perfect model", COUNT),
    "loop_symbols": ("delay of the loop, symbols", COUNT),
    "coupled": ("virtual nodes before itself that one hears", COUNT),
    "rest_sigma": ("what the sequence before leaves, standard deviations", COUNT),
    "steps_seen": ("steps in which the past is seen above the noise", COUNT),
    "net_kept": ("correction by a network is worth it (1: yes)", COUNT),
    "net_z": ("gain by a network, z", COUNT),
    "net_chi2": ("reduced chi² with a network", COUNT),
    "bias": ("mean error of the model", READING),
    "spread": ("spread of its error", READING),
    "correlation": ("correlation of model and reading", COUNT),
    "noise": ("noise of a reading", READING),
    "points": ("points", COUNT),
    "relative_noise": ("noise, share of the reading", SHARE),
    "uneven": ("unevenness of the inputs", SHARE),
    "condition": ("condition number of the crosstalk matrix", COUNT),
    "self_heating": ("change of a heater's effect at full voltage", SHARE),
    "fidelity_median": ("median fidelity", COUNT),
    "fidelity_worst": ("worst fidelity", COUNT),
    "uncompensated_median": ("median fidelity without compensation", COUNT),
    "uncompensated_worst": ("worst fidelity without compensation", COUNT),
    "chi2_unseen": ("reduced chi² at unseen settings", COUNT),
    "bend": ("largest deviation from a straight line", SHARE),
    "misfit": ("left over of the interference", SHARE),
    "gamma": ("exponent of the power law", COUNT),
    "correlation_median": ("median correlation", COUNT),
    "correlation_worst": ("worst correlation", COUNT),
    "enhancement_promised": ("focus that the matrix promises, times the mean", COUNT),
    "enhancement_ideal": ("focus in theory, times the mean", COUNT),
    "exposure": ("exposure, share of the longest", SHARE),
    "singular_largest": ("largest singular value", COUNT),
    "singular_smallest": ("smallest singular value", COUNT),
    "random_largest": ("the same of a random matrix", COUNT),
    "random_smallest": ("the same of a random matrix", COUNT),
}
USUAL, FAR = 2.0, 6.0  # spreads between specimens; a calibration step refuses beyond FAR


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """A parameter as the page shows it.

    Args:
        name: in words. key: as files call it.
        found: value and uncertainty.
        expected: value and spread between specimens. source: where it is from.
        beside: how both compare, in words.
    """

    name: str
    key: str
    found: str
    expected: str = ""
    source: str = ""
    beside: str = ""


def step_name(name: str) -> str:
    """Return the name of a step as people read it."""
    return STEPS.get(name, name)


def results(step: StepRecord) -> Iterator[ParameterRow]:
    """Yield what a step found."""
    for key, found in step.estimates.items():
        yield ParameterRow(_named(key, found.unit), key, str(found))


def parameters(step: StepRecord, belief: Facts) -> Iterator[ParameterRow]:
    """Yield the parameters of the fitted model, beside what the bench file and the data sheet say."""
    settings, stated, spreads = mapping(belief, "settings"), listing(belief, "stated"), mapping(belief, "spread")
    model = str(belief.get("use", "")).rpartition(":")[2]
    for key, found in step.estimates.items():
        before, spread = number(settings.get(key)), number(spreads.get(key))
        if before is None:
            yield ParameterRow(_named(key, found.unit), key, str(found))
            continue
        source = (
            "bench file or data sheet" if "stated" not in belief else "bench file" if key in stated else f"data sheet, {model}"
        )
        expected = Measured(float(f"{before:.6g}"), spread or 0.0, found.unit)
        yield ParameterRow(_named(key, found.unit), key, str(found), str(expected), source, _beside(found, before, spread))


def figures(step: StepRecord, reading: str, drive: str) -> Iterator[tuple[str, str]]:
    """Yield (name, value with its unit) of the numbers of a step that are no parameters."""
    units = {READING: reading, DRIVE: drive, "reading²": f"{reading}²", "reading drive": f"{reading}·{drive}"}
    for key, value in step.figures.items():
        name, unit = FIGURES.get(key, label(key))
        rounded = float(f"{value:.4g}")
        yield name, f"{100 * value:.3g} %" if unit == SHARE else str(Measured(rounded, 0.0, units.get(unit, unit) or "1"))


def reading_unit(record: Record) -> str:
    """Return the unit of the readings: that of the residuals, or of the reading at rest."""
    units = [step.residual_unit for name in ("honesty", "twin", "transfer") if (step := record.steps.get(name)) is not None]
    units += [one.unit for name in ("dark", "rest") for one in record.step(name).estimates.values()]
    return next((unit for unit in units if unit != "1"), "1")


def _named(key: str, unit: str) -> str:
    if key == "noise" and unit == "1":
        return "noise, times the data sheet's"
    return PARAMETERS.get(key, label(key)[0])


def _beside(found: Measured, before: float, spread: float | None) -> str:
    """Say how far a value is from the expected one, in its unit or per cent, and whether that is usual."""
    off = found.value - before
    if spread is not None and found.sigma == spread and off == 0:
        return "not measured by any step: the expected value is kept"
    relative = before != 0 and found.unit not in ("dB", "rad")
    difference = f"{100 * off / abs(before):+.2g} %" if relative else str(Measured(off, found.sigma, found.unit))
    if spread is None:
        return difference
    far = abs(off) / math.hypot(spread, found.sigma)
    word = "as expected" if far <= USUAL else "unusual" if far <= FAR else "far off"
    return f"{difference}, {word}"
