"""The twin's own parameters from sequences: least squares over what its `unknowns` say, tested on sequences it has not seen.

    minimise   sum ( (y - f(x; p)) / s )^2 + sum_i ( (p_i - sheet_i) / spread_i )^2         y from rest, drives around it
    covariance ( J'J )^-1 max( 1, chi^2 )

Parameters are counted in spreads; a periodic one starts all around its period.

    twin      the sequences that it has not seen are not what it predicts
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from calibration.loop.records import Records
from calibration.sequence import Found, Procedure, Subject
from calibration.step import Estimate, Problem, Step
from hil.twin import Fittable

NAME = "twin"
SHARE, SEQUENCES, STEPS = 0.6, 4, 12  # of the port's range; half of the sequences are not shown to the fit
TURNS = 6
GLANCE, MOST = 5, 40  # evaluations: of each start, and of the best one
STEP = 1e-2  # spreads, of a central difference: the model computes in float32
GRAIN = 2.0**-12  # of the range: what the steps of a generator may do to a drive
ALLOWED = 3.0  # times the noise that is expected
Array = NDArray[np.float64]


def twin(subject: Subject, found: Found) -> Step:
    """Fit the nominal twin; of a bench without one nothing is fitted, and that is said."""
    if subject.nominal is None:
        return Step(NAME, "no [twin] that could be fitted")
    records, nominal = Records(subject, NAME), subject.nominal
    drive = records.around_rest(SHARE, SEQUENCES, STEPS * records.nodes)
    reading = records(drive)
    noise = found["noise"]
    sigma = math.hypot(noise.estimates["noise"].value, noise.figures["step"] / math.sqrt(12), GRAIN * noise.figures["swing"])
    half = SEQUENCES // 2
    names = tuple(name for name, unknown in nominal.unknowns().items() if unknown.seen)
    fit = _Fit(nominal, names, records, drive[:half], reading[:half], sigma)
    best = fit.solved(min((fit.solved(start, GLANCE) for start in fit.starts()), key=fit.cost))
    values = fit.values(best)
    chi2 = float(np.square(fit.residual(best)[: reading[:half].numel()]).mean())
    slope = fit.jacobian(best)
    spread = np.sqrt(np.diag(np.linalg.inv(slope.T @ slope)) * max(1.0, chi2))
    unknowns = nominal.unknowns()
    estimates = {
        name: Estimate(values[name], float(s) * unknowns[name].spread, unknowns[name].unit)
        for name, s in zip(names, spread, strict=True)
    }
    predicted = _predicted(nominal.remade(values), records, drive[half:])
    off = reading[half:] - predicted
    rms = float(off.square().mean().sqrt())
    bad = rms > ALLOWED * sigma
    unit = records.out.unit
    problem = Problem(
        "kind", f"the node is not all that {type(nominal).__name__} describes",
        f"rms error {rms:.3g} {unit} on sequences that it had not seen, noise {sigma:.3g} {unit}",
        "see the step loop; believe another nonlinearity, delay or low-pass in [twin]",
    )  # fmt: skip
    said = ", ".join(f"{name} {estimate}" for name, estimate in estimates.items()) + f"; rms error {rms:.3g} {unit}"
    figures = {"chi2_fit": chi2, "chi2": float((off / sigma).square().mean()), "rms": rms}
    return Step(
        NAME, said, estimates, (not bad,), (problem,) if bad else (), rms, unit, figures,
        {"reading_v": reading[half], "fitted_v": predicted[0], "residual_v": off[0]},
    )  # fmt: skip


def _predicted(model: Fittable, records: Records, drive: Tensor) -> Tensor:
    with torch.no_grad():
        return model.ideal(records.steps(drive)).transpose(0, 1).reshape(len(drive), -1).double()


@dataclass(frozen=True)
class _Fit:
    """The parameters that are free, as numbers u: p = sheet + spread u."""

    nominal: Fittable
    names: tuple[str, ...]
    records: Records
    drive: Tensor
    reading: Tensor
    sigma: float

    def starts(self) -> list[Array]:
        """The data sheet, and all around the period of a parameter that has one."""
        starts = [np.zeros(len(self.names))]
        for k, name in enumerate(self.names):
            unknown = self.nominal.unknowns()[name]
            for turn in range(1, TURNS) if unknown.period is not None else ():
                start = np.zeros(len(self.names))
                start[k] = turn * (unknown.period or 0.0) / TURNS / unknown.spread
                starts.append(start)
        return starts

    def values(self, u: Array) -> dict[str, float]:
        found = {}
        for name, v in zip(self.names, u, strict=True):
            unknown = self.nominal.unknowns()[name]
            value = self.nominal.settings()[name] + unknown.spread * float(v)
            if unknown.period is not None:  # the turn that is nearest to the data sheet, inside the limits
                value -= unknown.period * round((value - self.nominal.settings()[name]) / unknown.period)
                value += unknown.period * ((value < unknown.low) - (value > unknown.high))
            found[name] = min(max(value, unknown.low), unknown.high)
        return found

    def residual(self, u: Array) -> Array:
        off = (self.reading - _predicted(self.nominal.remade(self.values(u)), self.records, self.drive)) / self.sigma
        prior = u.copy()
        for k, name in enumerate(self.names):
            unknown = self.nominal.unknowns()[name]
            if unknown.period is not None:  # to the nearest turn
                turn = unknown.period / unknown.spread
                prior[k] -= turn * round(u[k] / turn)
        return np.concatenate([off.flatten().numpy(), prior])

    def jacobian(self, u: Array) -> Array:
        """Compute the Jacobian by central differences."""
        steps = np.eye(len(u)) * STEP
        return np.stack([(self.residual(u + step) - self.residual(u - step)) / (2 * STEP) for step in steps], axis=1)

    def solved(self, start: Array, most: int = MOST) -> Array:
        found: Array = least_squares(self.residual, start, jac=self.jacobian, x_scale="jac", max_nfev=most).x
        return found

    def cost(self, u: Array) -> float:
        return float(np.square(self.residual(u)).sum())


TWIN = Procedure(NAME, twin, needs=("noise", "delay", "loop", "memory"))
