"""A short calibration that measures: floor, a sweep up and down, a fit; for the tests of what is built around procedures."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import least_squares

from calibration.sequence import Found, Procedure, Subject
from calibration.step import Estimate, Problem, Step
from hil.errors import Saturated
from hil.report.calibration.record import Measured, Record, StepRecord
from hil.twin import Unknown
from sim_devices.mach_zehnder import MachZehnder

NAMES = ("v_pi_v", "phase_rad", "laser_w")


class Modulator(MachZehnder):
    """A Mach-Zehnder of which three parameters are a specimen's own."""

    def unknowns(self) -> Mapping[str, Unknown]:
        return {
            "v_pi_v": Unknown(2.0, 6.0, 0.1, "V"),
            "phase_rad": Unknown(-math.pi, math.pi, 0.3, "rad", 2 * math.pi),
            "laser_w": Unknown(1e-4, 1e-2, 1e-4, "W"),
        }

    def remade(self, settings: Mapping[str, float]) -> Modulator:
        return Modulator(**{**self.settings(), **settings})


def floor(subject: Subject, found: Found) -> Step:
    reading = subject.device.forward(torch.zeros(1, 64))
    noise = float(reading.std())
    estimates = {"noise_v": Estimate(noise, noise / math.sqrt(2 * 63), "V")}
    return Step("floor", f"noise {estimates['noise_v']}", estimates, raw={"reading_v": reading[0]})


def transfer(subject: Subject, found: Found) -> Step:
    """Up and down; not good where both ways differ by more than the noise allows."""
    port = subject.device.spec.inputs
    up = torch.linspace(port.low, port.high, 61).clamp(port.low, port.high)
    drive = torch.cat([up, up.flip(0)])
    reading = subject.device.forward(drive.repeat(4, 1)).mean(0)
    split = float((reading[:61] - reading[61:].flip(0)).abs().mean())
    most = 6 * found["floor"].estimates["noise_v"].value
    wrong = Problem(
        "hysteresis", "both ways of the sweep differ", f"{split:.3g} V against {most:.3g} V", "drive it one way only"
    )
    fine = split <= most
    said = f"{float(reading.min()):.3f} to {float(reading.max()):.3f} V, both ways within {split * 1e3:.1f} mV"
    raw = {"drive_v": drive, "reading_v": reading}
    return Step("transfer", said, {}, (fine,), () if fine else (wrong,), figures={"split_v": split}, raw=raw)


def twin(subject: Subject, found: Found) -> Step:
    assert subject.nominal is not None
    nominal, raw = subject.nominal, found["transfer"].raw
    drive, reading = raw["drive_v"].double(), raw["reading_v"].double().numpy()
    scale = np.array([1.0, 1.0, 1e-3])

    def off(values: np.ndarray) -> np.ndarray:
        made = nominal.remade(dict(zip(NAMES, (values * scale).tolist(), strict=True)))
        return (made.ideal(drive).numpy() - reading) * 1e3

    start = np.array([nominal.settings()[name] for name in NAMES]) / scale
    fit = least_squares(off, start)
    chi2 = float((fit.fun**2).mean())
    sigmas = np.sqrt(np.diag(np.linalg.inv(fit.jac.T @ fit.jac)) * chi2) * scale
    units = ("V", "rad", "W")
    estimates = {n: Estimate(float(v), float(s), u) for n, v, s, u in zip(NAMES, fit.x * scale, sigmas, units, strict=True)}
    fitted = torch.from_numpy(reading + fit.fun / 1e3)
    said = f"V_pi {estimates['v_pi_v']}, phase {estimates['phase_rad']}"
    return Step(
        "twin", said, estimates, residual_rms=math.sqrt(chi2) / 1e3, residual_unit="V",
        raw={"drive_v": drive, "reading_v": torch.from_numpy(reading), "fitted_v": fitted},
    )  # fmt: skip


def saturated(subject: Subject, found: Found) -> Step:
    subject.device.forward(torch.zeros(1, 4))
    raise Saturated("the converter sat at a rail", where="scope", got="4 of 4 samples", todo="choose a larger range")


def steps() -> tuple[Procedure, ...]:
    return (
        Procedure("floor", floor), Procedure("transfer", transfer, ("floor",)), Procedure("twin", twin, ("transfer",)),
    )  # fmt: skip


def broken() -> tuple[Procedure, ...]:
    """Its second step always meets a clipped converter."""
    first, second, third = steps()
    return first, Procedure("transfer", saturated, second.needs), third


def as_record(steps: Mapping[str, Step]) -> Record:
    """Steps as the page of their calibration gets them."""
    return Record({
        name: StepRecord(
            name, step.said, step.success, {k: Measured(e.value, e.sigma, e.unit) for k, e in step.estimates.items()},
            dict(step.figures), (), step.residual_rms, step.residual_unit, step.took_s,
            {k: np.asarray(v.numpy(), dtype=np.float64) for k, v in step.raw.items()},
        )
        for name, step in steps.items()
    })  # fmt: skip


def nothing() -> list[int]:
    return [1]
