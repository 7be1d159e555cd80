"""Crosstalk: how K actuators move K phases, their own and all others', and how that is undone.

    phase = offset + C p,   p_j the heat of heater j;   C_kk own, C_kj crosstalk
    compensation   p = C^-1 ( phase - offset ), or (C'C + l^2)^-1 C' where C is nearly singular

All actuators are moved at once, at random: every setting tells of all K + 1 unknowns of each phase. On a mesh there are two
blocks of settings, R = 2 (K + 1) or more each, fitted with coupler errors and self-heating (calibration/mesh/fit.py), the first
alone, then both:

    near   where the phases show best, around the setting at which all interferometers cross: thetas 0.15 to 0.8 rad to either
           side, as none shows the phi before it while it crosses; phis a little to either side; and a few of the thetas
           anywhere, which tells coupler errors
    wide   all heaters anywhere, as they will be used; of little use alone, as phases of many modes then hardly show

With R = K + 1 crosstalk of `near` is not told from coupler errors, and its fit goes astray.

Sources: Jacques et al., Opt. Express 27, 10456 (2019); Teofilovic et al., arXiv:2404.10589 (linear regression does best).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout, wrapped
from calibration.mesh.fit import WORST_CONDITION, Fitted, MeshModel, assessed, fit
from calibration.mesh.light import Lit, listed
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from hil.seeding import generator

CROSSTALK = "crosstalk"
MARGIN = 0.01  # of the largest squared voltage, at both ends
SETTINGS, LEAST_SETTINGS = 2, 40  # of a block: for each unknown of a phase, and at least
ASIDE_RAD = (0.15, 0.8)  # of a theta from where its interferometer crosses
PHI = 0.15  # step of a phi at most, as a share of the largest squared voltage
ANYWHERE = 3.0  # thetas in each setting
MOST_CHI2 = 1.5
MOST_SIGMA = 0.02  # of a heater's own slope


def crosstalk(subject: Subject, found: Found) -> Step:
    """Estimates "theta 0 own", ... in rad/V^2, and "worst crosstalk".

    Raw: settings and powers as of the step "heaters", and what was fitted to all of them: offset, matrix, matrix_sigma,
    curvature, couplers, as in MeshModel.
    """
    lit, before = Lit.of(subject.device, found), found["heaters"].raw
    layout, base, slope = lit.layout, before["base"], before["slope"]
    rng = generator(subject.seed, 0, "crosstalk")
    zeros = torch.zeros(layout.heaters, dtype=torch.float64)
    model = MeshModel(layout, before["phase"] - slope * base, torch.diag(slope), zeros, zeros.view(-1, 2), lit.full_v)
    near, wide = _near(base, before["phase"], slope, rng), _wide(layout.heaters, rng)
    first, second = lit.powers(near), lit.powers(wide)
    model = fit(model, near, *first)
    share = torch.cat([near, wide])
    powers, sigma = (torch.cat(both) for both in zip(first, second, strict=True))
    model = fit(model, share, powers, sigma)
    fitted = assessed(model, share, powers, sigma, lit.gain_error, rng)
    return _told(lit, fitted, {"share": share, "powers": powers, "sigma": sigma})


def _near(base: Tensor, phase: Tensor, slope: Tensor, rng: torch.Generator) -> Tensor:
    """Settings around that at which all cross, from the phases at `base` and their slopes, (K,) each."""
    wide = _wide(len(base), rng)
    thetas, (least, most) = wide[:, ::2], ASIDE_RAD
    side, aside = torch.rand(2, *thetas.shape, generator=rng, dtype=base.dtype)
    turned = torch.where(side < 0.5, -1.0, 1.0) * (least + (most - least) * aside)
    share = base + PHI * (2 * wide - 1)
    share[:, ::2] = base[::2] + (turned - wrapped(phase[::2])) / slope[::2]
    stay = torch.rand(thetas.shape, generator=rng, dtype=base.dtype) * thetas.shape[1] > ANYWHERE
    share[:, ::2] = torch.where(stay, share[:, ::2], thetas)
    return share.clamp(MARGIN, 1 - MARGIN)


def _wide(heaters: int, rng: torch.Generator) -> Tensor:
    count = max(SETTINGS * (heaters + 1), LEAST_SETTINGS)
    return MARGIN + (1 - 2 * MARGIN) * torch.rand(count, heaters, generator=rng, dtype=torch.float64)


def model_of(found: Found, full_v: float) -> MeshModel:
    """The mesh as the step "crosstalk" found it."""
    raw = found[CROSSTALK].raw
    modes = round(0.5 + math.sqrt(0.25 + len(raw["offset"])))  # K = N (N - 1)
    return MeshModel(MeshLayout.rectangle(modes), raw["offset"], raw["matrix"], raw["curvature"], raw["couplers"], full_v)


def _told(lit: Lit, fitted: Fitted, raw: dict[str, Tensor]) -> Step:
    layout, model, unit = lit.layout, fitted.model, lit.full_v**2
    own, own_sigma = model.matrix.diagonal(), fitted.sigma.diagonal()
    share = (model.matrix / own).fill_diagonal_(0.0)
    whole = float(share.abs().sum(1).max())
    k, j = divmod(int(share.abs().argmax()), layout.heaters)
    worst = Estimate(float(share[k, j]), float(fitted.sigma[k, j] / own[j].abs()))
    condition = float(torch.linalg.cond(model.matrix))
    vague = own_sigma > MOST_SIGMA * own.abs()
    problems = [
        Problem(
            "noise", f"{layout.name(n)} is not known well enough", f"± {float(own_sigma[n] / own[n].abs()):.1%} of its slope, "
            f"allowed {MOST_SIGMA:.0%}", "more light, or more shots",
        )
        for n in torch.nonzero(vague).flatten().tolist()
    ]  # fmt: skip
    short = ~vague & (own + 3 * own_sigma < 2 * math.pi)
    problems += [
        Problem(
            "range", f"{layout.name(n)} does not reach a whole turn", f"{float(own[n]):.2f} rad at full voltage, needed "
            f"{2 * math.pi:.2f}", "allow it a higher voltage; until then some unitaries cannot be set",
        )
        for n in torch.nonzero(short).flatten().tolist()
    ]  # fmt: skip
    if fitted.chi2 > MOST_CHI2:
        problems.append(Problem(
            "kind", "phases do not follow the heaters as heat does", f"reduced chi2 {fitted.chi2:.3g}, allowed {MOST_CHI2:g}",
            "let the chip settle longer between settings; see whether supply lines are shared",
        ))  # fmt: skip
    if condition > WORST_CONDITION:
        problems.append(Problem(
            "condition", "the crosstalk matrix is nearly singular", f"condition {condition:.2g}, allowed {WORST_CONDITION:g}",
            "two heaters act alike; compensation is damped",
        ))  # fmt: skip
    said = (
        f"{layout.heaters} x {layout.heaters} crosstalk matrix from {len(raw['share'])} settings: worst {worst.value:+.1%} "
        f"({layout.name(j)} on {layout.name(k)}), up to {whole:.0%} in all on one phase; chi2 {fitted.chi2:.2f}"
        + listed(problems)
    )
    estimates = {
        f"{layout.name(n)} own": Estimate(float(own[n]) / unit, float(own_sigma[n]) / unit, "rad/V²")
        for n in range(layout.heaters)
    }
    well = fitted.chi2 <= MOST_CHI2 and condition <= WORST_CONDITION
    success = tuple(well and not bool(bad) for bad in vague | short)
    return Step(
        CROSSTALK, said, {**estimates, "worst crosstalk": worst}, success, tuple(problems),
        figures={"chi2": fitted.chi2, "condition": condition, "self_heating": float(model.curvature.median())},
        raw={
            **raw, "offset": model.offset, "offset_sigma": fitted.offset_sigma, "matrix": model.matrix,
            "matrix_sigma": fitted.sigma, "curvature": model.curvature, "couplers": model.couplers,
        },
    )  # fmt: skip
