"""Crosstalk: how K actuators move K phases, their own and all others', and how that is undone.

    phase = offset + C p,   p_j the heat of heater j;   C_kk own, C_kj crosstalk
    compensation   p = C^-1 ( phase - offset ), or (C'C + l^2)^-1 C' where C is nearly singular

All actuators are stepped at once, up or down by the rows of a Hadamard matrix (R >= K + 1, a power of 2):

    var C_kj = sigma^2 / (R a^2)        one at a time, with as many readings: K times that, sqrt(K) in noise

On a mesh three blocks of such steps, around the setting at which phases show well, are fitted at once with coupler errors and
self-heating (calibration/mesh/fit.py), the small ones first: they hold the large ones on their turn. As phases show best while
interferometers nearly cross, thetas are stepped a little at first, with a few of them anywhere in their range, which tells
coupler errors; in the last block all heaters go as far as they can.

Sources: Jacques et al., Opt. Express 27, 10456 (2019); Teofilovic et al., arXiv:2404.10589 (linear regression does best);
Plackett & Burman, Biometrika 33, 305 (1946) (designs).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import scipy.linalg
import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout
from calibration.mesh.fit import WORST_CONDITION, Fitted, MeshModel, assessed, fit
from calibration.mesh.light import Lit, listed
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from hil.seeding import generator

CROSSTALK = "crosstalk"
MARGIN = 0.01  # of the largest squared voltage, at both ends
MOST_CHI2 = 1.5
MOST_SIGMA = 0.02  # of a heater's own slope


class Block(NamedTuple):
    """Settings of all heaters, and how they are fitted.

    Args:
        theta: step of a theta, as a share of the largest squared voltage, where there is room.
        phi: that of a phi.
        anywhere: share of the thetas that are drawn at random instead.
        rounds: of the fit that begins with these settings.
    """

    theta: float
    phi: float
    anywhere: float
    rounds: int


def blocks(modes: int) -> tuple[Block, ...]:
    """The blocks: the more interferometers light passes, the less may a theta differ from where they cross."""
    return Block(0.64 / modes, 0.15, 0.8 / modes, 4), Block(1 / modes, 0.5, 2.4 / modes, 8), Block(0.5, 0.5, 0.0, 10)


def hadamard(channels: int) -> Tensor:
    """(R, channels) of +-1, columns orthogonal to each other and to 1; R the least power of 2 above `channels`."""
    return torch.tensor(scipy.linalg.hadamard(1 << channels.bit_length())[:, 1 : channels + 1], dtype=torch.float64)


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
    share, powers, sigma = (before[name][:0] for name in ("share", "powers", "sigma"))  # its small steps tell little more
    for block in blocks(layout.modes):
        more = _settings(block, base, rng)
        measured = lit.powers(more)
        share, powers, sigma = torch.cat([share, more]), torch.cat([powers, measured[0]]), torch.cat([sigma, measured[1]])
        model = fit(model, share, powers, sigma, block.rounds)
    fitted = assessed(model, share, powers, sigma, lit.gain_error, rng)
    return _told(lit, fitted, {"share": share, "powers": powers, "sigma": sigma})


def _settings(block: Block, base: Tensor, rng: torch.Generator) -> Tensor:
    design = hadamard(len(base))
    step = torch.tensor([block.theta, block.phi], dtype=base.dtype).repeat(len(base) // 2)
    up, down = torch.minimum(step, 1 - MARGIN - base), torch.minimum(step, base - MARGIN)
    share = torch.where(design > 0, base + up, base - down)
    thetas = share[:, ::2]
    drawn = torch.rand(2, *thetas.shape, generator=rng, dtype=base.dtype)
    share[:, ::2] = torch.where(drawn[0] < block.anywhere, drawn[1], thetas)
    return share


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
