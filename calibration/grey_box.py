"""A twin's own physical parameters from sweeps: least squares over what its `unknowns` say.

    minimise     sum_k rho( r_k^2 ) + sum_i ( (p_i - sheet_i) / spread_i )^2,    r = ( y - f(x; p) ) / s
                 rho: soft l1 beyond PATIENT sigmas
    s^2          = noise at that reading + (f' s_x)^2, by what the generator's steps make of the drive, found in the residuals:
                 s_x^2 = sum w f'^2 (r^2 - 1) s^2 / sum w f'^4, w = 1 / s^4; drives are no two alike, so it is noise
    covariance   C = ( J'J )^-1 max( 1, chi^2 ) + S S',    S = ( J'J )^-1 J' f' o / s
                 S: what a drive that is off by o as a whole does to p; o is half a code of 16 bits, as it is not known
                 whether a generator rounds up or to the nearest

The priors are the data sheet: where the data say nothing, its spread is what is known, and it is in sigma. Parameters are
counted in spreads. A periodic parameter starts all around its period; one in the unit of the drive at half and twice its value
as well, which is what a wrong load does. The periodic one turns with time where the nominal twin has a drift: phase(t) = phase
+ drift t, t = 0 at the end.

Sources: robust loss, scipy.optimize.least_squares; covariance, Press et al., Numerical Recipes, ch. 15.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from calibration.step import Estimate, Problem
from hil.device import Port
from hil.errors import ContractError
from hil.twin import Fittable, Unknown

PATIENT = 4.0  # sigmas beyond which a residual counts less than its square
TURNS, SCALES = 6, (1.0, 0.5, 2.0)
GLANCE = 256  # values on which all starts are tried
CODES = 2.0**17  # half a code of 16 bits
DRIFT = "drift_rad_per_s"
EDGE = 1e-3  # of a limit's distance: as close is at it
FAR = 6.0  # spreads and sigmas
CHI2_HIGH = 1.25
FACTOR = 0.1  # how close to half or twice is taken for it
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sweeps:
    """drive, reading, sigma (shots, n); time_s (shots,), negative: before the end."""

    drive: Tensor
    reading: Tensor
    sigma: Tensor
    time_s: Tensor

    def shots(self, which: slice) -> Sweeps:
        """Return the sweeps that `which` selects."""
        return Sweeps(self.drive[which], self.reading[which], self.sigma[which], self.time_s[which])


@dataclass(frozen=True)
class Fit:
    """The result of a fit of a twin's parameters.

    Args:
        estimates: of the parameters that were free.
        twin: with them.
        chi2: reduced.
        at_limit: names.
        drive_sigma: s_x.
    """

    estimates: Mapping[str, Estimate]
    twin: Fittable
    chi2: float
    at_limit: tuple[str, ...]
    drive_sigma: float = 0.0

    def predicted(self, sweeps: Sweeps) -> Tensor:
        """(shots, n), drift included."""
        return _predicted(self.twin, {}, sweeps, turning(self.twin))

    def with_drive(self, sweeps: Sweeps) -> Sweeps:
        """The sweeps, s_x in their sigma."""
        steep = self.drive_sigma * _slope(self.twin, sweeps.drive)
        return replace(sweeps, sigma=torch.hypot(sweeps.sigma, steep))


def turning(nominal: Fittable) -> str | None:
    """The periodic parameter, if there is one."""
    return next((name for name, unknown in nominal.unknowns().items() if unknown.period is not None), None)


def fitted(nominal: Fittable, sweeps: Sweeps, port: Port, drift: Estimate | None = None) -> Fit:
    """Fit the seen parameters of a nominal twin to sweeps, and its drift if it has one.

    Args:
        nominal: the twin to be fitted.
        sweeps: what was measured.
        port: of the drive.
        drift: as it was measured, instead of the data sheet's.

    Raises:
        ContractError: the nominal twin says of no parameter that it is seen.
    """
    free = _Free.of(nominal, drift)
    best = min((free.tried(start, free.glance(sweeps)) for start in free.starts(port)), key=lambda tried: tried[0])
    result = free.solved(best[1], sweeps)
    slope = _slope(nominal.remade(free.settings(result.x)), sweeps.drive)
    drive_sigma = _drive_sigma(result.fun[: sweeps.reading.numel()], sweeps.sigma, slope)
    if drive_sigma:
        sweeps = replace(sweeps, sigma=torch.hypot(sweeps.sigma, drive_sigma * slope))
        result = free.solved(result.x, sweeps)
    residual = result.fun[: sweeps.reading.numel()]
    chi2 = float(np.square(residual).sum()) / max(1, residual.size - len(free.names))
    sigma = np.sqrt(np.diag(free.covariance(result.x, result.jac, sweeps, chi2, port)))
    values = free.settings(result.x)
    estimates = {
        name: Estimate(values[name], float(s) * free.unknowns[name].spread, free.unknowns[name].unit)
        for name, s in zip(free.names, sigma, strict=True)
    }
    return Fit(estimates, nominal.remade(values), chi2, free.at_limit(result.x), drive_sigma)


def _slope(twin: Fittable, drive: Tensor) -> Tensor:
    x = drive.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(twin.ideal(x).sum(), x)
    return slope


def _drive_sigma(residual: Array, sigma: Tensor, slope: Tensor) -> float:
    """s_x of residuals in sigmas; 0 where they have no more than their noise, or so much that the curve is another."""
    own, steep = sigma.flatten().square().numpy(), slope.flatten().square().numpy()
    if np.square(residual).mean() > CHI2_HIGH:
        return 0.0
    share = steep / own
    square = float((share * (np.square(residual) - 1)).sum() / np.square(share).sum())
    return math.sqrt(max(0.0, square))


@dataclass(frozen=True)
class _Free:
    """The parameters that are free, as numbers u: p = sheet + spread u.

    Args:
        width: of each prior, in spreads.
    """

    nominal: Fittable
    names: tuple[str, ...]
    unknowns: Mapping[str, Unknown]
    sheet: Mapping[str, float]
    middle: Array
    width: Array
    turns: str | None

    @classmethod
    def of(cls, nominal: Fittable, drift: Estimate | None) -> _Free:
        known, turns = nominal.unknowns(), turning(nominal)
        names = tuple(name for name, unknown in known.items() if unknown.seen or (name == DRIFT and turns is not None))
        if not any(known[name].seen for name in names):
            raise ContractError(
                "this twin has no parameter to fit", where=type(nominal).__name__, got="unknowns() without any seen"
            )
        sheet = {name: nominal.settings()[name] for name in names}
        middle, width = np.zeros(len(names)), np.ones(len(names))
        if drift is not None and DRIFT in names:
            k, spread = names.index(DRIFT), known[DRIFT].spread
            middle[k], width[k] = (drift.value - sheet[DRIFT]) / spread, max(drift.sigma / spread, 1e-9)
        return cls(nominal, names, known, sheet, middle, width, turns)

    def settings(self, u: Array) -> dict[str, float]:
        return {name: self._wrapped(name, self.sheet[name] + self.unknowns[name].spread * float(v))
                for name, v in zip(self.names, u, strict=True)}  # fmt: skip

    def _wrapped(self, name: str, value: float) -> float:
        unknown = self.unknowns[name]
        return value if unknown.period is None else unknown.low + (value - unknown.low) % unknown.period

    def limits(self) -> tuple[Array, Array]:
        low, high = np.full(len(self.names), -np.inf), np.full(len(self.names), np.inf)
        for k, name in enumerate(self.names):
            unknown = self.unknowns[name]
            if unknown.period is None:
                low[k], high[k] = ((limit - self.sheet[name]) / unknown.spread for limit in (unknown.low, unknown.high))
        return low, high

    def starts(self, port: Port) -> list[Array]:
        """All around the periods, and at other scales of the drive."""
        around = []
        for name in self.names:
            unknown, sheet = self.unknowns[name], self.sheet[name]
            if unknown.period is not None:
                around.append([k * unknown.period / TURNS / unknown.spread for k in range(TURNS)])
            elif unknown.seen and unknown.unit == port.unit:
                scaled = [sheet * scale for scale in SCALES if unknown.low < sheet * scale < unknown.high]
                around.append([(value - sheet) / unknown.spread for value in scaled])
            else:
                around.append([0.0])
        low, high = self.limits()
        inside = (low + 1e-6 * np.minimum(1, high - low), high - 1e-6 * np.minimum(1, high - low))
        return [np.clip(np.array(start), *inside) for start in itertools.product(*around)]

    def glance(self, sweeps: Sweeps) -> Sweeps:
        """A few values of every shot, as if all were taken at once."""
        shots, count = sweeps.drive.shape
        every = max(1, shots * count // GLANCE)
        few = slice(None, None, every)
        return Sweeps(sweeps.drive[:, few], sweeps.reading[:, few], sweeps.sigma[:, few], torch.zeros_like(sweeps.time_s))

    def residual(self, u: Array, sweeps: Sweeps) -> Array:
        off = (sweeps.reading - _predicted(self.nominal, self.settings(u), sweeps, self.turns)) / sweeps.sigma
        from_prior = (u - self.middle) / self.width
        for k, name in enumerate(self.names):
            period = self.unknowns[name].period
            if period is not None:  # to the nearest turn
                turn = period / self.unknowns[name].spread / self.width[k]
                from_prior[k] -= turn * round(from_prior[k] / turn)
        return np.concatenate([off.flatten().numpy(), from_prior])

    def tried(self, start: Array, sweeps: Sweeps) -> tuple[float, Array]:
        found = least_squares(self.residual, start, bounds=self.limits(), args=(sweeps,), max_nfev=20, x_scale="jac")
        return float(found.cost), found.x

    def solved(self, start: Array, sweeps: Sweeps) -> _Solved:
        found = least_squares(
            self.residual, start, bounds=self.limits(), args=(sweeps,), loss="soft_l1", f_scale=PATIENT, x_scale="jac",
            xtol=1e-10, ftol=1e-10,
        )  # fmt: skip
        return _Solved(found.x, self.residual(found.x, sweeps), self._jacobian(found.x, sweeps))

    def _jacobian(self, u: Array, sweeps: Sweeps) -> Array:
        """Compute the Jacobian by central differences, without the loss, whose weights are 1 but for outliers."""
        columns = []
        for k in range(len(u)):
            step = np.zeros(len(u))
            step[k] = 1e-4
            columns.append((self.residual(u + step, sweeps) - self.residual(u - step, sweeps)) / 2e-4)
        return np.stack(columns, axis=1)

    def covariance(self, u: Array, jac: Array, sweeps: Sweeps, chi2: float, port: Port) -> Array:
        own = np.linalg.inv(jac.T @ jac)
        slope = _slope(self.nominal.remade(self.settings(u)), sweeps.drive)
        pushed = (slope / sweeps.sigma).flatten().numpy() * (port.shared_high - port.shared_low) / CODES
        moved = own @ jac[: pushed.size].T @ pushed
        total: Array = own * max(1.0, chi2) + np.outer(moved, moved)
        return total

    def at_limit(self, u: Array) -> tuple[str, ...]:
        """Seen parameters that ended at a limit without the data sheet leading them there."""
        low, high = self.limits()
        near = (np.minimum(u - low, high - u) < EDGE * np.maximum(1.0, high - low)) & np.isfinite(high - low)
        return tuple(name for name, at in zip(self.names, near, strict=True) if at and self.unknowns[name].seen)


@dataclass(frozen=True)
class _Solved:
    x: Array
    fun: Array
    jac: Array


def _predicted(nominal: Fittable, settings: Mapping[str, float], sweeps: Sweeps, turns: str | None) -> Tensor:
    made = nominal.remade(settings)
    known = made.settings()
    rate = known.get(DRIFT, 0.0) if turns is not None else 0.0
    with torch.no_grad():
        if turns is None or rate == 0.0 or not bool(sweeps.time_s.any()):
            return made.ideal(sweeps.drive)
        rows = [
            made.remade({turns: known[turns] + rate * float(t)}).ideal(x)
            for x, t in zip(sweeps.drive, sweeps.time_s, strict=True)
        ]
    return torch.stack(rows)


def problems(fit: Fit, nominal: Fittable, port: Port) -> tuple[Problem, ...]:
    """Return what is wrong with a fit: "kind", "bound", "load", "sheet"; the likeliest cause first."""
    found = []
    if fit.chi2 > CHI2_HIGH:
        found.append(Problem(
            "kind", f"the node is none that {type(nominal).__name__} describes", f"chi² {fit.chi2:.3g}, at most {CHI2_HIGH:g}",
            "believe another twin in [twin]; a measured curve, sim_devices.tabulated:Tabulated, describes any",
        ))  # fmt: skip
    found += [
        Problem(
            "bound", f"{name} ended at its limit", str(fit.estimates[name]), "see what the other problems say; else the twin"
        )
        for name in fit.at_limit
    ]
    return tuple(found) or tuple(_strange(fit, nominal, port))


def _strange(fit: Fit, nominal: Fittable, port: Port) -> list[Problem]:
    found = []
    for name, unknown in nominal.unknowns().items():
        estimate, sheet = fit.estimates.get(name), nominal.settings()[name]
        if estimate is None or not unknown.seen or unknown.period is not None:
            continue
        if abs(estimate.value - sheet) <= FAR * math.hypot(unknown.spread, estimate.sigma):
            continue
        ratio = estimate.value / sheet if sheet else math.inf
        if unknown.unit == port.unit and min(abs(ratio - 0.5), abs(ratio - 2) / 4) < 0.5 * FACTOR:
            does = "twice" if ratio < 1 else "half"
            found.append(Problem(
                "load", f"the node gets {does} the volts that the generator says: it is set for another load than it sees",
                f"{name} {estimate}, {sheet:g} ± {unknown.spread:g} {unknown.unit} expected",
                'set load in [awg] to what is connected: "inf" for a modulator without a terminator, or terminate it',
            ))  # fmt: skip
        else:
            found.append(Problem(
                "sheet", f"{name} is not what the data sheet allows",
                f"{estimate}, {sheet:g} ± {unknown.spread:g} {unknown.unit} expected",
                "see that it is the node that [twin] describes, and its light and supply",
            ))  # fmt: skip
    return found
