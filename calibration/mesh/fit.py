"""A mesh as its heaters see it, fitted to powers at many settings at once.

    phase_k = offset_k + sum_j C_kj p_j         p_j = s_j + q_j s_j^2,   s_j = V_j^2 / V_max^2
    U       = mesh( phases, couplers )          calibration/mesh/clements.py
    min  sum over settings, probes, photodiodes  ( y - |U x|^2 )^2 / sigma^2  +  priors

C in rad for a heater at its full voltage alone, q the curvature of self-heating. Levenberg-Marquardt: with J_r, the slopes of
a setting's powers in its phases, the normal equations of (offset, C) are sum_r (J_r'J_r) kron (1, p_r)(1, p_r)', bordered by
those of q and of the couplers. Priors, normal: C_kj is 0 +- 0.1 of the heater's own phase for k != j, q is 0 +- 0.1, a coupler
even +- 0.03 rad; they hold what light does not tell, and count in the stated sigmas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout, unitary
from calibration.mesh.phase_reading import misfit, normal_equations, powers, probes

CROSS_SHARE, CURVATURE, COUPLER_RAD = 0.1, 0.1, 0.03
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
    damping, cost = 1e-3, _cost(model, share, measured, sigma)
    for _ in range(rounds):
        normal, slope = _equations(model, share, measured, sigma)
        while True:
            factor, failed = torch.linalg.cholesky_ex(normal + torch.diag(damping * normal.diagonal()))
            tried = model if int(failed) else _moved(model, torch.cholesky_solve(slope[:, None], factor)[:, 0])
            now = math.inf if int(failed) else _cost(tried, share, measured, sigma)
            if now <= cost or damping > 1e6:
                break
            damping *= 10
        if not now <= cost:
            break
        gained, model, cost, damping = cost - now, tried, now, damping / 10
        if gained < 1e-3 * cost:
            break
    return model


def assessed(model: MeshModel, share: Tensor, measured: Tensor, sigma: Tensor) -> Fitted:
    """Return the model with the uncertainties of the fit."""
    normal, _ = _equations(model, share, measured, sigma)
    k = model.layout.heaters
    factor, _ = torch.linalg.cholesky_ex(normal + 1e-12 * torch.diag(normal.diagonal()))
    spread = torch.cholesky_inverse(factor).diagonal()[: k * (k + 1)].clamp(min=0).sqrt().view(k, k + 1)
    unknowns = min(k * (k + 3), measured.numel() - 1)
    chi2 = float(misfit(model.layout, probes(model.layout.modes), measured, sigma, model.phases(share), model.couplers).sum())
    return Fitted(model, spread[:, 1:], spread[:, 0], chi2 / (measured.numel() - unknowns))


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


def _equations(model: MeshModel, share: Tensor, measured: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """J'J and J'r of (offset and C row by row, q, couplers), priors included."""
    k, light = model.layout.heaters, probes(model.layout.modes)
    phases = model.phases(share)
    normal, slope, border, edge, far = normal_equations(model.layout, light, measured, sigma, phases, model.couplers)
    drive = torch.cat([torch.ones(len(share), 1, dtype=share.dtype), model.heat(share)], 1)
    inner = (normal.flatten(1).T @ (drive[:, :, None] * drive[:, None, :]).flatten(1)).view(k, k, k + 1, k + 1)
    inner = inner.permute(0, 2, 1, 3).reshape(k * (k + 1), -1)
    curl = model.matrix * share[:, None, :] ** 2  # (R, K, K): dphase / dq
    outer = torch.cat([normal @ curl, border], 2)  # (R, K, 2 K)
    side = (outer.permute(1, 2, 0).reshape(-1, len(share)) @ drive).view(k, 2 * k, k + 1).mT.reshape(k * (k + 1), 2 * k)
    corner = torch.cat([
        torch.cat([(curl.mT @ normal @ curl).sum(0), (curl.mT @ border).sum(0)], 1),
        torch.cat([(border.mT @ curl).sum(0), edge.sum(0)], 1),
    ])  # fmt: skip
    whole = torch.cat([torch.cat([inner, side], 1), torch.cat([side.T, corner], 1)])
    pull = torch.cat([(slope.T @ drive).reshape(-1), (curl.mT @ slope[..., None]).sum(0)[:, 0], far.sum(0)])
    weight, values = _priors(model)
    return whole + torch.diag(weight + 1e-9), pull - weight * values


def _moved(model: MeshModel, step: Tensor) -> MeshModel:
    k = model.layout.heaters
    main, curvature, couplers = torch.split(step, [k * (k + 1), k, k])
    rows = main.view(k, k + 1)
    return replace(
        model, offset=model.offset + rows[:, 0], matrix=model.matrix + rows[:, 1:], curvature=model.curvature + curvature,
        couplers=model.couplers + couplers.view_as(model.couplers),
    )  # fmt: skip
