"""A mesh as its heaters see it, fitted to powers at many settings at once.

    phase_k = offset_k + sum_j C_kj p_j         p_j = s_j + q_j s_j^2,   s_j = V_j^2 / V_max^2
    U       = mesh( phases, couplers )          calibration/mesh/clements.py
    min  sum over settings, probes, photodiodes  ( y - |U x|^2 )^2 / sigma^2  +  priors

C in rad for a heater at its full voltage alone, q the curvature of self-heating. Priors, normal: C_kj is 0 +- 0.1 of the
heater's own phase for k != j, q is 0 +- 0.1, a coupler even +- 0.03 rad; they hold what light does not tell, and count in the
stated sigmas.

Levenberg-Marquardt. K (K + 3) unknowns are too many for a matrix of normal equations (16 modes: 27 GB), but what it does to a
step needs only N_r, the K x K equations of each setting: with d_r = (1, p_r),

    H = sum_r N_r kron d_r d_r'        bordered by q and the couplers; solved by conjugate gradients, preconditioned by
    P = ( sum_r N_r ) kron ( sum_r d_r d_r' ) / R        what H would be with N_r the same for all settings

Uncertainties are those of draws x = H^-1 z, with z = J'r of noise: of the powers, and of the photodiodes' gains, which are the
same in every setting. v_kj = <x_kj^2> is taken as a_k b_j, and on the diagonal, where there is no prior, as that times a common
factor, so that few draws tell.

Source of the uncertainties: Papandreou & Yuille, NIPS 23 (2010), samples of a Gaussian by perturbing its data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout, unitary
from calibration.mesh.phase_reading import Equations, misfit, normal_equations, powers, probes

CROSS_SHARE, CURVATURE, COUPLER_RAD = 0.1, 0.1, 0.03
TOLERANCE, MOST_ITERATIONS = 1e-2, 200  # of conjugate gradients
LEAST_DAMPING = 1e-7
DRAWS = 16
WORST_CONDITION = 1e4  # beyond it the inverse of C is damped


@dataclass(frozen=True, slots=True)
class MeshModel:
    """offset (K,), matrix (K, K): rad. curvature (K,). couplers (K / 2, 2), rad.

    Args:
        full_v: V_max.
    """

    layout: MeshLayout
    offset: Tensor
    matrix: Tensor
    curvature: Tensor
    couplers: Tensor
    full_v: float

    def heat(self, share: Tensor) -> Tensor:
        """Squared voltage as a share of the largest (..., K) -> p (..., K)."""
        return share + self.curvature * share**2

    def phases(self, share: Tensor) -> Tensor:
        """(..., K) -> rad (..., K)."""
        return self.offset + self.heat(share) @ self.matrix.T

    def powers(self, share: Tensor) -> Tensor:
        """(R, K) -> (R, N^2, N), of the probes."""
        return powers(unitary(self.layout, self.phases(share), self.couplers), probes(self.layout.modes))

    def shares(self, phases: Tensor, compensated: bool = True) -> Tensor:
        """Squared voltages, as shares of the largest, that give `phases` (K,), whole turns apart: p = C^-1 (phase - offset).

        What a heater cannot give lies outside 0 .. 1 in the answer.

        Args:
            phases: (K,), rad.
            compensated: False: as if a heater acted on its own phase alone, all others at half of their heat.
        """
        own = self.matrix.diagonal()
        matrix, offset = self.matrix, self.offset
        if not compensated:
            middle = torch.full_like(own, 0.5)
            matrix, offset = torch.diag(own), self.phases(middle) - own * self.heat(middle)
        inverse = inverted(matrix)
        share = torch.zeros_like(own)
        want = torch.remainder(phases - offset - 0.1 * own, 2 * math.pi) + 0.1 * own
        for _ in range(50):  # whole turns: of one heater they move the others a little
            share = self._share(inverse @ want)
            turns = (share < 0).to(want) - (share > 1).to(want)
            if not bool(turns.any()):
                break
            want = want + 2 * math.pi * turns
        return share

    def _share(self, heat: Tensor) -> Tensor:
        """The root of s + q s^2 = p near p."""
        return 2 * heat / (1 + (1 + 4 * self.curvature * heat).clamp(min=0.01).sqrt())

    def volts(self, share: Tensor) -> Tensor:
        """Return heater voltages inside their limits, which rounding may not leave."""
        return (share.clamp(0, 1).sqrt() * self.full_v).float().clamp(0, self.full_v)


def inverted(matrix: Tensor) -> Tensor:
    """C^-1, or where C is nearly singular the ridge (C'C + l^2)^-1 C', l the largest singular value over WORST_CONDITION."""
    left, values, right = torch.linalg.svd(matrix)
    ridge = float(values[0]) / WORST_CONDITION
    kept = values / (values**2 + (ridge**2 if values[-1] < ridge else 0.0))
    answer: Tensor = right.mT @ (kept[:, None] * left.mT)
    return answer


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model of the mesh, with its uncertainty.

    Args:
        model: the fitted one.
        sigma: of the matrix (K, K), rad.
        offset_sigma: (K,), rad.
        chi2: reduced.
    """

    model: MeshModel
    sigma: Tensor
    offset_sigma: Tensor
    chi2: float


def fit(model: MeshModel, share: Tensor, measured: Tensor, sigma: Tensor, rounds: int = 12) -> MeshModel:
    """Fit the model of a mesh to powers, by damped Gauss-Newton steps (Levenberg-Marquardt).

    Args:
        model: near enough to begin at.
        share: (R, K), squared voltages as shares of the largest.
        measured: (R, N^2, N), in units of a full input.
        sigma: (R, N^2, N), of `measured`.
        rounds: steps at most.
    """
    damping, cost = 1e-4, _cost(model, share, measured, sigma)
    for _ in range(rounds):
        equations, pull = _linear(model, share, measured, sigma)
        while True:
            tried = _moved(model, equations.solved(pull, damping)[0][:, 0])  # one that is not exact is judged by its cost
            now = _cost(tried, share, measured, sigma)
            if now <= cost or damping > 1e6:
                break
            damping *= 10
        if not now <= cost:
            break
        gained, model, cost, damping = cost - now, tried, now, max(damping / 10, LEAST_DAMPING)
        if gained < 1e-3 * cost:
            break
    return model


def assessed(
    model: MeshModel, share: Tensor, measured: Tensor, sigma: Tensor, gain_error: Tensor, rng: torch.Generator
) -> Fitted:
    """Return the model with the uncertainties of the fit, infinite if the gradients do not converge.

    Args:
        model: the fitted one.
        share: (R, K), squared voltages as shares of the largest.
        measured: (R, N^2, N), in units of a full input.
        sigma: (R, N^2, N), of `measured`, by noise alone.
        gain_error: (N,), standard deviation of the photodiodes' gains, as shares.
        rng: draws the noise and the gains that the uncertainties are found by.
    """
    k = model.layout.heaters
    gains = gain_error[:, None] * torch.randn(len(gain_error), DRAWS, generator=rng, dtype=gain_error.dtype)
    equations, pulls = _linear(model, share, measured, sigma, DRAWS, rng, gains)
    drawn = pulls[:, 1:] + (equations.prior.sqrt()[:, None]) * torch.randn(len(pulls), DRAWS, generator=rng, dtype=pulls.dtype)
    solution, near = equations.solved(drawn, 0.0)
    found = solution[: k * (k + 1)].square().mean(1).view(k, k + 1)
    unknowns = min(k * (k + 3), measured.numel() - 1)
    chi2 = float(misfit(model.layout, probes(model.layout.modes), measured, sigma, model.phases(share), model.couplers).sum())
    spread, offset_spread = _smoothed(found[:, 1:]).sqrt(), found[:, 0].sqrt()
    if not near:
        spread, offset_spread = (torch.full_like(values, math.inf) for values in (spread, offset_spread))
    return Fitted(model, spread, offset_spread, chi2 / (measured.numel() - unknowns))


def _smoothed(found: Tensor) -> Tensor:
    """Variances (K, K) of draws as a_k b_j, and on the diagonal as c a_k b_k."""
    k = len(found)
    off = ~torch.eye(k, dtype=torch.bool)
    rows = (found * off).sum(1) / (k - 1)
    columns = (found * off).sum(0) / (k - 1)
    whole = rows[:, None] * columns / (found * off).sum().mul(1 / (k * (k - 1)))
    return torch.where(off, whole, whole * (found.diagonal().sum() / whole.diagonal().sum()))


def _priors(model: MeshModel) -> tuple[Tensor, Tensor]:
    """Weight and present distance from its prior, of every parameter."""
    k, own = model.layout.heaters, model.matrix.diagonal().abs().median()
    weight = torch.zeros(k, k + 1, dtype=own.dtype)
    weight[:, 1:] = 1 / (CROSS_SHARE * own) ** 2
    weight[range(k), range(1, k + 1)] = 0.0
    away = torch.cat([model.offset[:, None], model.matrix], 1)
    extra = torch.cat([torch.full((k,), CURVATURE**-2), torch.full((k,), COUPLER_RAD**-2)]).to(own)
    values = torch.cat([away.reshape(-1), model.curvature, model.couplers.reshape(-1)])
    return torch.cat([weight.reshape(-1), extra]), values


def _cost(model: MeshModel, share: Tensor, measured: Tensor, sigma: Tensor) -> float:
    weight, values = _priors(model)
    light = probes(model.layout.modes)
    apart = misfit(model.layout, light, measured, sigma, model.phases(share), model.couplers).sum()
    return float(apart + (weight * values**2).sum())


@dataclass(frozen=True, slots=True)
class _Linear:
    """Matrix H of the unknowns (offset and C row by row, q, couplers), known by its product with S vectors (n, S).

    Args:
        found: the equations of every setting.
        drive: d_r, (R, K + 1).
        square: s_r^2, (R, K).
        matrix: C.
        prior: weight of every unknown, (n,).
    """

    found: Equations
    drive: Tensor
    square: Tensor
    matrix: Tensor
    prior: Tensor

    def pulled(self, by_phase: Tensor, by_coupler: Tensor) -> Tensor:
        """Gradients of phases (R, K, S) and couplers (K, S) -> of the unknowns (n, S)."""
        k = len(self.matrix)
        flat = by_phase.transpose(0, 1).reshape(k, len(self.drive), -1)
        main = torch.einsum("krs,rj->kjs", flat, self.drive).reshape(k * (k + 1), -1)
        curved = torch.einsum("rj,rjs->js", self.square, self.matrix.T @ by_phase)
        return torch.cat([main, curved, by_coupler])

    def times(self, v: Tensor) -> Tensor:
        """(n, S) -> H v (n, S)."""
        k, found = len(self.matrix), self.found
        main, curvature, couplers = torch.split(v, [k * (k + 1), k, k])
        phase = torch.einsum("kjs,rj->rks", main.view(k, k + 1, -1), self.drive)
        phase = phase + self.matrix @ (self.square[..., None] * curvature)
        small = phase.to(found.normal)
        turned = found.normal @ small + found.border @ couplers.to(small)
        back = (found.border.mT @ small).sum(0).to(v) + found.edge @ couplers
        return self.pulled(turned.to(v), back) + self.prior[:, None] * v

    def solved(self, b: Tensor, damping: float) -> tuple[Tensor, bool]:
        """Return (H + damping diag H)^-1 b, (n, S), and whether it is there to TOLERANCE of each b."""
        held, near = damping * self._diagonal()[:, None], self._preconditioner(damping)
        x, r = torch.zeros_like(b), b.clone()
        z = near(r)
        p, size, least = z.clone(), (r * z).sum(0), TOLERANCE * b.norm(dim=0)
        for _ in range(MOST_ITERATIONS):
            if bool((r.norm(dim=0) <= least).all()):
                return x, True
            turned = self.times(p) + held * p
            step = size / (p * turned).sum(0).clamp(min=1e-300)
            x, r = x + step * p, r - step * turned
            z = near(r)
            before, size = size, (r * z).sum(0)
            p = z + size / before.clamp(min=1e-300) * p
        return x, bool((r.norm(dim=0) <= least).all())

    def _diagonal(self) -> Tensor:
        own = self.found.normal.diagonal(dim1=1, dim2=2).to(self.drive)
        main = (own.T @ self.drive.square()).reshape(-1)
        curved = (own * (self.square * self.matrix.diagonal()).square()).sum(0)
        return torch.cat([main, curved, self.found.edge.diagonal()]) + self.prior

    def _preconditioner(self, damping: float) -> Callable[[Tensor], Tensor]:
        """P^-1, with q and the couplers: what of s^2 is linear in d, and what couplers do, is taken up by C and offset."""
        k, own = len(self.matrix), self.drive.dtype
        size, middle, prior = k * (k + 1), self.drive.mean(0), self.prior
        drives = self.drive.T @ self.drive / len(self.drive)
        phases, border = self.found.normal.sum(0, dtype=own), self.found.border.sum(0, dtype=own)
        by_phase, by_drive = (
            _factor(phases, damping, prior[:size].max() / drives.diagonal().mean()),
            _factor(drives, damping, 0.0),
        )
        lifted = torch.cholesky_solve(border, by_phase)
        edge = _factor(self.found.edge + torch.diag(prior[-k:]) - border.T @ lifted, damping, 0.0)
        linear = torch.cholesky_solve(self.drive.T @ self.square / len(self.drive), by_drive)  # (K + 1, K)
        bent = (self.square - self.drive @ linear).square().mean(0)
        curved = bent * ((self.matrix.T @ phases) * self.matrix.T).sum(1) * (1 + damping) + prior[size:-k]

        def near(v: Tensor) -> Tensor:
            pull = v[:size].view(k, k + 1, -1)
            curvature = (v[size:-k] - torch.einsum("ki,kjs,ji->is", self.matrix, pull, linear)) / curved[:, None]
            main = torch.cholesky_solve(pull.reshape(k, -1), by_phase).view(k, k + 1, -1).transpose(0, 1)
            main = torch.cholesky_solve(main.reshape(k + 1, -1), by_drive).view(k + 1, k, -1).transpose(0, 1)
            couplers = torch.cholesky_solve(v[-k:] - border.T @ torch.einsum("kjs,j->ks", main, middle), edge)
            main = main - torch.einsum("ki,is,ji->kjs", self.matrix, curvature, linear)
            main[:, 0] -= lifted @ couplers
            return torch.cat([main.reshape(size, -1), curvature, couplers])

        return near


def _factor(matrix: Tensor, damping: float, extra: float | Tensor) -> Tensor:
    """Cholesky factor of a positive matrix, damped, and a little more so that rounding leaves it one."""
    own = matrix.diagonal()
    factor: Tensor = torch.linalg.cholesky(matrix + torch.diag((damping + 1e-6) * own + extra + 1e-9 * own.mean()))
    return factor


def _linear(
    model: MeshModel, share: Tensor, measured: Tensor, sigma: Tensor, draws: int = 0, rng: torch.Generator | None = None,
    gains: Tensor | None = None,
) -> tuple[_Linear, Tensor]:  # fmt: skip
    """Return H and J'r (n, 1 + draws): of the residuals, priors included, and of draws of noise, without priors."""
    light, phases = probes(model.layout.modes), model.phases(share)
    found = normal_equations(
        model.layout, light, measured, sigma, phases, model.couplers, precision=torch.float32, draws=draws, rng=rng, gains=gains
    )
    drive = torch.cat([torch.ones(len(share), 1, dtype=share.dtype), model.heat(share)], 1)
    weight, values = _priors(model)
    linear = _Linear(found, drive, share.square(), model.matrix, weight)
    pull = linear.pulled(found.slope, found.far)
    pull[:, 0] -= weight * values
    return linear, pull


def _moved(model: MeshModel, step: Tensor) -> MeshModel:
    k = model.layout.heaters
    main, curvature, couplers = torch.split(step, [k * (k + 1), k, k])
    rows = main.view(k, k + 1)
    return replace(
        model, offset=model.offset + rows[:, 0], matrix=model.matrix + rows[:, 1:], curvature=model.curvature + curvature,
        couplers=model.couplers + couplers.view_as(model.couplers),
    )  # fmt: skip
