"""Estimates of what has moved since the reference: bias, scale, zero, or the shape of the curve, each with its sigma.

Reference: the same m drives v_i, up and then down, in every shot; U_i is the answer averaged over R shots. A later shot y is

    y_i = g ( U(v_i - w) - c ) + c + b + e_i        w walk of the bias: the curve lies w to the right of where it was
                                                    g = 1 + a scale, b offset, c the middle of the curve
    for small w:  r_i = y_i - U_i = -w U'(v_i) + a (U_i - c) + b + e_i

U between the drives is the cubic spline through the reference, continued with the period of the node if it has one (2 V_pi);
where it has none, drives whose v - w leaves the reference do not count. For given w the rest is linear (variable projection:
Golub & Pereyra, SIAM J. Numer. Anal. 10, 413, 1973), so w is searched over a whole period, not around 0 alone, and then refined
by Gauss-Newton. Covariance of the estimates, from the noise variances s_i of the reference:  (J'J)^-1 J' diag(s) J (J'J)^-1.

Noise is half the mean square of the difference of successive shots, which a slow drift does not enter (von Neumann, Ann. Math.
Stat. 12, 367, 1941). What no w, g, b explains is judged by pairs: every drive is there twice, so

    noise²  = mean d²,  d = (r_up - r_down) / sqrt 2          whatever the curve does, it does to both
    shape²  = mean p² m/(m-3) - noise²/2,  p = (r_up + r_down) / 2 after the fit
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.stats import chi2, f

from calibration.drift.control_charts import ARL
from calibration.step import Estimate
from hil.errors import MeasurementError

Floats = NDArray[np.float64]
GRID = 129  # walks tried, over a period
ROUNDS = 8  # of Gauss-Newton
WEAKEST, STRONGEST = 0.2, 5.0  # the gain between which a curve is taken for the same one
COLLINEAR = 0.01  # share of U' that U and a constant must leave unexplained, so that a walk can be told from them
PERIOD_ERROR = 0.05  # to which the period that is said must be right, so that the node's own is found from it
PERIOD_MISFIT = 0.05  # of the half swing, rms, to which a periodic node must repeat itself


@dataclass(frozen=True)
class Departure:
    """The difference of a shot from the reference.

    Args:
        walk: in the unit of the drive.
        scale: 1 means twice as strong.
        offset: in the unit of the reading.
        shape: rms of what the three do not explain, noise taken off, in the unit of the reading.
        noise: rms noise over the reference's.
    """

    walk: Estimate
    scale: Estimate
    offset: Estimate
    shape: float
    noise: float


@dataclass(frozen=True)
class Reference:
    """The answer of the node when all was well.

    Args:
        drive: (m,) rising, in the unit of the drive.
        answer: (2m,) up, then down: mean over the shots.
        noise: (2m,) standard deviation of a single reading.
        shots: averaged.
        between: (3,) standard deviation of walk, scale, offset from shot to shot, as it was seen.
        period: of the node, in the unit of the drive, or None.
        units: of drive and reading.
        walks: the answers lie over one drive; False: they belong to rows of many, so nothing is said of a walk.
    """

    drive: Floats
    answer: Floats
    noise: Floats
    shots: int
    between: Floats
    period: float | None = None
    units: tuple[str, str] = ("V", "V")
    walks: bool = True

    @classmethod
    def of(
        cls,
        drive: Floats,
        shots: Floats,
        period: float | None = None,
        units: tuple[str, str] = ("V", "V"),
        walks: bool = True,
    ) -> Reference:
        """Make the reference from shots (R, 2m) at `probe(drive)`, R at least 2.

        Raises:
            MeasurementError: the node does not answer to its drive, or does not repeat itself after its period.
        """
        mean, noise = shots.mean(0), scatter(shots)
        first = cls(drive, mean, noise, len(shots), np.zeros(3), period, units, walks)
        if not 2 * first.half > 4 * math.sqrt(float(np.square(noise).mean())):
            raise MeasurementError(
                "the node does not answer to its drive", where="reference shots",
                got=f"a swing of {2 * first.half:.3g} {units[1]} with noise {float(noise.mean()):.2g}",
                allowed="a swing of more than four times the noise", outputs="as after the last shot; the last drive is held",
                todo="check that the output is on, the cable, the laser, the range of whatever reads",
            )  # fmt: skip
        first = replace(first, period=first._own_period())
        first._check_period()
        found = [first.departure(shot) for shot in shots]
        between = scatter(np.array([[d.walk.value, d.scale.value, d.offset.value] for d in found]))
        return replace(first, between=between)

    @cached_property
    def up(self) -> Floats:
        """(m,) the curve: mean of both directions."""
        m = len(self.drive)
        return 0.5 * (self.answer[:m] + self.answer[m:][::-1])

    @cached_property
    def half(self) -> float:
        """Half of its swing, in the unit of the reading."""
        return 0.5 * float(self.up.max() - self.up.min())

    @cached_property
    def middle(self) -> float:
        """Middle of the readings of the upward sweep, in their unit."""
        return 0.5 * float(self.up.max() + self.up.min())

    @cached_property
    def steepness(self) -> float:
        """Rms slope of the curve, unit of the reading per unit of the drive."""
        return float(np.sqrt(np.square(self._spline(self.drive, 1)).mean()))

    @cached_property
    def sees_walk(self) -> bool:
        """A walk can be told from a change of scale and offset; not on a straight line, and not on an exponential."""
        if not self.walks:
            return False
        slope = self._spline(self.drive, 1)
        others = np.stack([self.up - self.middle, np.ones_like(slope)], 1)
        left = slope - others @ np.linalg.lstsq(others, slope, rcond=None)[0]
        return float(left @ left) > COLLINEAR * float(slope @ slope)

    @cached_property
    def _spline(self) -> CubicSpline:
        return CubicSpline(self.drive, self.up)

    @cached_property
    def _probe(self) -> Floats:
        return probe(self.drive)

    def effects(self, found: Departure) -> dict[str, tuple[float, float]]:
        """Return how much each changes readings: (value, sigma), rms over the drives, as a share of the half swing."""
        factors = {
            "walk": self.steepness / self.half,
            "scale": float(np.sqrt(np.square(self.up - self.middle).mean())) / self.half,
            "offset": 1 / self.half,
        }
        estimates = {"walk": found.walk, "scale": found.scale, "offset": found.offset}
        return {name: (estimates[name].value * factor, estimates[name].sigma * factor) for name, factor in factors.items()}

    @cached_property
    def _variance(self) -> float:
        """Return the variance of a reading, mean over the drives; at least that of the last bits of float32."""
        return max(float(np.square(self.noise).mean()), (1e-6 * self.half) ** 2)

    @cached_property
    def _pairs(self) -> float:
        """Return how many pairs of equal noise would scatter like these: noise grows with the light."""
        powers = np.square(self.noise)
        return max(4.0, 0.5 * float(powers.sum()) ** 2 / max(float(np.square(powers).sum()), 1e-300))

    def quietest_shape(self, shots: int = 1) -> float:
        """A misfit, in the unit of the reading, that noise alone does not reach in `ARL` looks at `shots` averaged."""
        free = max(self._pairs - 3, 1.0)
        variance = self._variance * (1 / shots + 1 / self.shots)
        return math.sqrt(0.5 * variance * (float(chi2.isf(1 / ARL, free)) / free - 0.5))

    def loudest_noise(self) -> float:
        """A ratio of noise, as in Departure, that is not reached in `ARL` looks if it has not risen."""
        known = 2 * self._pairs * (self.shots - 1) * 2 / 3  # differences of neighbours tell two thirds of what deviations do
        return math.sqrt(float(f.isf(1 / ARL, self._pairs, known)))

    def departure(self, shot: Floats, shots: int = 1) -> Departure:
        """Return how `shot` (2m,), a mean over so many, differs."""
        m = len(self.drive)
        own = self.answer - np.concatenate([self.up, self.up[::-1]])  # what the direction of the sweep does
        seen = shot - own - self.middle
        walk, gain, offset = self._refined(seen, self._coarse(seen))
        jacobian, inside = self._jacobian(walk, gain)
        residual = np.where(inside, seen - (gain * self._centred(walk)[0] + offset), 0.0)
        sigma = self._sigmas(jacobian, inside, shots)
        up, down, both = residual[:m], residual[m:][::-1], inside[:m] & inside[m:][::-1]
        pairs = max(int(both.sum()), 4)
        noise = float(np.square((up - down)[both]).sum()) / 2 / pairs
        misfit = float(np.square(0.5 * (up + down)[both]).sum()) / (pairs - 3)
        drive, reading = self.units
        return Departure(
            Estimate(walk, sigma[0], drive),
            Estimate(gain - 1, sigma[1]),
            Estimate(offset, sigma[2], reading),
            shape=math.sqrt(max(0.0, misfit - noise / 2)),
            noise=math.sqrt(noise * shots / self._variance),
        )

    def _coarse(self, seen: Floats) -> tuple[float, float, float]:
        """The best of a grid of walks, with the gain and offset that go with it."""
        if not self.sees_walk:
            walks = np.zeros(1)
        else:
            span = self.period or float(self.drive[-1] - self.drive[0])
            walks = np.concatenate([[0.0], np.linspace(-span / 2, span / 2, GRID)])  # 0 first: the likeliest wins a tie
        centred, inside = self._centred(walks[:, None])
        count = inside.sum(1)
        enough = count >= len(self.drive)
        n = np.maximum(count, 1)
        u_mean, y_mean = (centred * inside).sum(1) / n, (seen * inside).sum(1) / n
        du, dy = (centred - u_mean[:, None]) * inside, (seen - y_mean[:, None]) * inside
        var, cov = (du * du).sum(1), (du * dy).sum(1)
        gain = np.clip(cov / np.maximum(var, 1e-300), WEAKEST, STRONGEST)
        cost = np.where(enough, ((dy - gain[:, None] * du) ** 2).sum(1) / n, np.inf)
        best = int(cost.argmin())
        return float(walks[best]), float(gain[best]), float(y_mean[best] - gain[best] * u_mean[best])

    def _refined(self, seen: Floats, start: tuple[float, float, float]) -> tuple[float, float, float]:
        walk, gain, offset = start
        for _ in range(ROUNDS):
            jacobian, inside = self._jacobian(walk, gain)
            residual = np.where(inside, seen - (gain * self._centred(walk)[0] + offset), 0.0)
            step = np.linalg.lstsq(jacobian, residual, rcond=None)[0]
            bound = self._step  # a grid cell: further away lies another minimum
            walk += min(max(float(step[0]), -bound), bound) if self.sees_walk else 0.0
            gain = min(max(gain + float(step[1]), WEAKEST), STRONGEST)
            offset += float(step[2])
            if abs(step[0]) < 1e-9 * bound:
                break
        return self._wrapped(walk), gain, offset

    @cached_property
    def _step(self) -> float:
        return (self.period or float(self.drive[-1] - self.drive[0])) / (GRID - 1)

    def _wrapped(self, walk: float) -> float:
        return walk if self.period is None else walk - self.period * round(walk / self.period)

    def _sigmas(self, jacobian: Floats, inside: NDArray[np.bool_], shots: int) -> tuple[float, float, float]:
        """Return sigmas of walk, scale and offset: of the noise, or of the scatter that was seen, whichever is larger."""
        columns = jacobian if self.sees_walk else jacobian[:, 1:]
        inverse = np.linalg.pinv(columns.T @ columns)
        covariance = inverse @ (columns.T * (np.square(self.noise) * inside)) @ columns @ inverse
        own = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        found = np.maximum(own if self.sees_walk else np.concatenate([[0.0], own]), self.between) / math.sqrt(shots)
        walk, scale, offset = (float(sigma) for sigma in found)
        return walk, scale, offset

    def _jacobian(self, walk: float, gain: float) -> tuple[Floats, NDArray[np.bool_]]:
        """(2m, 3): d y / d (walk, gain, offset); rows of drives that do not count are 0."""
        centred, inside = self._centred(walk)
        slope = self._spline(self._at(walk)[0], 1)
        walked = -gain * slope if self.sees_walk else np.zeros_like(slope)
        return np.stack([walked, centred, np.ones_like(centred)], 1) * inside[:, None], inside

    def _centred(self, walk: float | Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """U(v - walk) - c at every drive of a shot, and where that is known."""
        at, inside = self._at(walk)
        return self._spline(at) - self.middle, inside

    def _at(self, walk: float | Floats) -> tuple[Floats, NDArray[np.bool_]]:
        low, high = float(self.drive[0]), float(self.drive[-1])
        at = self._probe - walk
        if self.period is not None and self.period <= high - low:
            at = at - self.period * np.ceil(np.maximum(at - high, 0) / self.period)
            at = at + self.period * np.ceil(np.maximum(low - at, 0) / self.period)
        inside = (at >= low) & (at <= high)
        return np.clip(at, low, high), inside

    def _own_period(self) -> float | None:
        """The period of this specimen, near the one that was said, where more than a period was measured: U(v + P) = U(v)."""
        if self.period is None:
            return None
        said, found = self.period, self.period
        for _ in range(ROUNDS):
            again = self._again(found)
            if len(again) < 3:
                return said
            slope = self._spline(again + found, 1)
            off = self._spline(again + found) - self._spline(again)
            found -= float(slope @ off) / max(float(slope @ slope), 1e-300)
            found = min(max(found, (1 - PERIOD_ERROR) * said), (1 + PERIOD_ERROR) * said)
        return round(found / said / 2.0**-20) * 2.0**-20 * said  # far below its sigma: the last bits are no measurement

    def _again(self, period: float) -> Floats:
        """The drives that have another one a period further on."""
        return self.drive[self.drive + period <= float(self.drive[-1])]

    def _check_period(self) -> None:
        """Check that the curve comes back to itself where a period and more was measured."""
        low, high = float(self.drive[0]), float(self.drive[-1])
        if self.period is None:
            return
        again = self._again(self.period)
        if len(again) < 3:
            return
        misfit = float(np.sqrt(np.square(self._spline(again + self.period) - self._spline(again)).mean()))
        floor = 3 * math.sqrt(float(np.square(self.noise).mean()) / self.shots)
        if misfit > PERIOD_MISFIT * self.half + floor:
            raise MeasurementError(
                "the node does not repeat itself after its period", where="reference shots",
                got=f"{misfit / self.half:.0%} of the half swing apart, {self.period:g} {self.units[0]} further on",
                allowed=f"{PERIOD_MISFIT:.0%}; measured from {low:g} to {high:g} {self.units[0]}",
                outputs="as after the last shot; the last drive is held",
                todo="correct the period: 2 V_pi of a modulator, as [sentinel] period or [encode] period",
            )  # fmt: skip

    def as_noisy_as(self, shots: Floats) -> Reference:
        """The same curve, with the noise of these shots (R, 2m)."""
        now = Reference.of(self.drive, shots, None, self.units, self.walks)
        return replace(self, noise=now.noise, between=now.between)

    def table(self) -> dict[str, Any]:
        """Return the reference as JSON values."""
        return {
            "drive": self.drive.tolist(), "answer": self.answer.tolist(), "noise": self.noise.tolist(), "shots": self.shots,
            "between": self.between.tolist(), "period": self.period, "units": list(self.units),
            **({} if self.walks else {"walks": False}),
        }  # fmt: skip

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Reference:
        """The inverse of `table`. Raises: KeyError, TypeError, ValueError: it is not one."""
        drive, answer, noise, between = (
            np.array(table[key], dtype=np.float64) for key in ("drive", "answer", "noise", "between")
        )
        period = table["period"]
        drive_unit, reading_unit = table["units"]
        return cls(
            drive, answer, noise, int(table["shots"]), between, None if period is None else float(period),
            (str(drive_unit), str(reading_unit)), bool(table.get("walks", True)),
        )  # fmt: skip


def scatter(shots: Floats) -> Floats:
    """(R, n) -> (n,) standard deviation of one shot, from differences of neighbours: drift is not noise."""
    return np.asarray(np.sqrt(0.5 * np.square(np.diff(shots, axis=0)).mean(0)))


def probe(drive: Floats) -> Floats:
    """(m,) rising -> (2m,): up, then down again."""
    return np.concatenate([drive, drive[::-1]])
