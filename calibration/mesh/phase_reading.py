"""Reading of all phases of a mesh at once from powers: light in one and in two inputs, interference on all outputs.

    probes       e_j,   e_j + e_k,   e_j + i e_k     (j < k)      N^2 of them: all that powers can tell of a unitary
    power        y_bn = | sum_j U_nj x_bj |^2                     in units of one full input, photodiodes' gains divided out
    tomography   conj(U_nj) U_nk from these, its largest eigenvector is row n of U; rows made orthogonal (polar decomposition)
    phases       min sum (y - model(phases, couplers))^2 / sigma^2    Gauss-Newton from the decomposition of that U

Power detection does not see the phase of a row, that is, of an output: N phases behind the mesh stay unknown, and two unitaries
that differ in them alone are the same here:

    F = ( sum_n | <u_n, v_n> | )^2 / N^2  =  max_D | tr( (D U)^H V ) |^2 / N^2,    D diagonal, of unit modulus

One setting does not tell coupler errors from phases, as a mesh with even couplers can have almost any unitary: `read` takes the
couplers as given. They show in how phases follow the heaters over many settings: calibration/mesh/fit.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout, derivatives, unitary

TRUST_RAD = 0.7  # longest step of a phase in one iteration
CHUNK = 1 << 22  # elements of a Jacobian held at a time
TOGETHER = 1 << 22  # elements of the equations of settings that are read at a time


@dataclass(frozen=True, slots=True)
class Phases:
    """Read from powers at R settings.

    Args:
        values, sigma: (R, K), rad.
        chi2: (R,), reduced.
    """

    values: Tensor
    sigma: Tensor
    chi2: Tensor


def probes(modes: int) -> Tensor:
    """(N^2, N), complex, every entry 0, 1 or i."""
    one = torch.eye(modes, dtype=torch.complex128)
    pairs = [(j, k) for j in range(modes) for k in range(j + 1, modes)]
    return torch.stack([*one, *(one[j] + one[k] for j, k in pairs), *(one[j] + 1j * one[k] for j, k in pairs)])


def powers(u: Tensor, light: Tensor) -> Tensor:
    """(..., N, N) and probes (B, N) -> (..., B, N)."""
    out = light @ u.mT
    return out.real.square() + out.imag.square()


def rows(measured: Tensor) -> Tensor:
    """Powers (..., N^2, N) of the probes -> the nearest unitary (..., N, N), its rows each up to a phase."""
    n = measured.shape[-1]
    j, k = torch.triu_indices(n, n, 1)
    alone = measured[..., :n, :]
    both = alone[..., j, :] + alone[..., k, :]
    real, imaginary = (measured[..., n + part * len(j) : n + (part + 1) * len(j), :] - both for part in (0, 1))
    product = torch.zeros(*measured.shape[:-2], n, n, n, dtype=torch.complex128)  # of output n: conj(u_j) u_k
    product[..., range(n), range(n)] = alone.mT + 0j
    product[..., j, k] = torch.complex(real, -imaginary).mT / 2
    product[..., k, j] = product[..., j, k].conj()
    found = torch.linalg.eigh(product).eigenvectors[..., -1].conj()
    left, _, right = torch.linalg.svd(found)
    answer: Tensor = left @ right
    return answer


def fidelity(u: Tensor, v: Tensor) -> Tensor:
    """F of the module's text, (...), 0 to 1."""
    return ((u.conj() * v).sum(-1).abs().sum(-1) / u.shape[-1]).square()


def read(layout: MeshLayout, measured: Tensor, sigma: Tensor, start: Tensor, couplers: Tensor, rounds: int = 8) -> Phases:
    """Find the phases at which the model gives `measured`.

    Args:
        layout: of the mesh.
        measured: (R, N^2, N), powers in units of a full input.
        sigma: (R, N^2, N), of `measured`.
        start: (R, K), rad, near enough.
        couplers: (K / 2, 2), rad.
        rounds: steps at most.
    """
    count = max(1, TOGETHER // layout.heaters**2)
    if len(start) > count:
        pieces = zip(torch.split(measured, count), torch.split(sigma, count), torch.split(start, count), strict=True)
        parts = [read(layout, powers, spread, at, couplers, rounds) for powers, spread, at in pieces]
        return Phases(*(torch.cat([getattr(part, name) for part in parts]) for name in ("values", "sigma", "chi2")))
    light, phases = probes(layout.modes), start.clone()
    damping = torch.full((len(phases),), 1e-3, dtype=phases.dtype)
    cost = misfit(layout, light, measured, sigma, phases, couplers)
    for _ in range(rounds):
        normal, slope = normal_equations(layout, light, measured, sigma, phases, couplers, phases_alone=True)[:2]
        held = normal + torch.diag_embed(damping[:, None] * normal.diagonal(dim1=1, dim2=2) + 1e-9)
        step = torch.linalg.solve(held, slope[..., 0])
        step = step * (TRUST_RAD / step.abs().amax(1, keepdim=True).clamp(min=TRUST_RAD))
        tried = misfit(layout, light, measured, sigma, phases + step, couplers)
        better = tried <= cost
        phases = torch.where(better[:, None], phases + step, phases)
        cost, damping = torch.where(better, tried, cost), torch.where(better, damping / 10, damping * 10).clamp(1e-9, 1e3)
    normal = normal_equations(layout, light, measured, sigma, phases, couplers, phases_alone=True).normal
    inverse = torch.linalg.inv(normal + 1e-9 * torch.eye(layout.heaters, dtype=normal.dtype))
    freedom = measured[0].numel() - layout.heaters
    tight = inverse.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    return Phases(phases, tight, cost / max(freedom, 1))


def misfit(layout: MeshLayout, light: Tensor, measured: Tensor, sigma: Tensor, phases: Tensor, couplers: Tensor) -> Tensor:
    """Sum of squared residuals over sigma, of every setting (R,)."""
    model = powers(unitary(layout, phases, couplers), light)
    return ((measured - model) / sigma).square().sum((1, 2))


class Equations(NamedTuple):
    """Normal equations of phases and couplers.

    Args:
        normal: J'J of the phases, (R, K, K).
        slope: J'r of them, (R, K, 1 + D): of the residuals, and of D draws of noise alone.
        border: J'J between phases and couplers, (R, K, K).
        edge: of the couplers, summed over the settings, (K, K).
        far: J'r of the couplers, likewise, (K, 1 + D).
    """

    normal: Tensor
    slope: Tensor
    border: Tensor
    edge: Tensor
    far: Tensor


def normal_equations(
    layout: MeshLayout, light: Tensor, measured: Tensor, sigma: Tensor, phases: Tensor, couplers: Tensor,
    *, phases_alone: bool = False, precision: torch.dtype = torch.float64, draws: int = 0, rng: torch.Generator | None = None,
    gains: Tensor | None = None,
) -> Equations:  # fmt: skip
    """Return the normal equations of every setting.

    A power of output n depends on row n of U alone, u_n: J_n = A_n du_n, with A_n (B, 2 N) real. So A_n'A_n (2 N, 2 N) comes
    first, and costs less than the Jacobian of the powers would by N / 2.

    Args:
        layout: of the mesh.
        light: the probes (B, N).
        measured: (R, B, N), powers in units of a full input.
        sigma: (R, B, N), of `measured`.
        phases: (R, K), rad.
        couplers: (K / 2, 2), rad.
        phases_alone: border, edge and far are left empty.
        precision: of J'J; J'r is always float64.
        draws: of noise, one standard deviation a power.
        rng: draws them.
        gains: (N, D), what the outputs' gains are off by in each draw, as shares; the same in every setting. None: nothing.
    """
    k, n, r = layout.heaters, layout.modes, len(phases)
    normal = torch.empty(r, k, k, dtype=precision)
    border = torch.empty(r, k, 0 if phases_alone else k, dtype=precision)
    slopes = torch.empty(r, k, 1 + draws, dtype=torch.float64)
    edge, far = torch.zeros(k, k, dtype=torch.float64), torch.zeros(k, 1 + draws, dtype=torch.float64)
    size = max(1, CHUNK // (4 * k * n * n + 2 * n * n * len(light)))
    for here in torch.split(torch.arange(len(phases)), size):
        u, by_phase, by_coupler = derivatives(layout, phases[here], couplers)
        out = light @ u.mT  # (r, B, N)
        weight = 1 / sigma[here]
        left = ((measured[here] - out.abs().square()) * weight)[..., None]
        if draws:
            noise = torch.randn(*left.shape[:-1], draws, generator=rng, dtype=left.dtype)
            noise += 0.0 if gains is None else (out.abs().square() * weight)[..., None] * gains
            left = torch.cat([left, noise], -1)
        by_row = (2 * weight * out.conj()).mT[..., None] * light  # (r, N, B, N): d |out|^2 = 2 Re( conj(out) du x )
        a = torch.cat([by_row.real, -by_row.imag], -1)
        pull = a.mT @ left.transpose(1, 2)  # (r, N, 2 N, 1 + D)
        inner = a.to(precision)
        inner = inner.mT @ inner
        both = by_phase if phases_alone else torch.cat([by_phase, by_coupler], 1)
        moves = torch.cat([both.real, both.imag], -1)  # (r, K or 2 K, N, 2 N)
        slope = moves.flatten(2) @ pull.flatten(1, 2)
        moves = moves.to(precision)
        felt = (inner @ moves.permute(0, 2, 3, 1)).flatten(1, 2)
        whole = moves.flatten(2) @ felt
        normal[here], border[here], slopes[here] = whole[:, :k, :k], whole[:, :k, k:], slope[:, :k]
        edge += whole[:, k:, k:].sum(0) if not phases_alone else 0.0
        far += slope[:, k:].sum(0) if not phases_alone else 0.0
    return Equations(normal, slopes, border, edge, far)
