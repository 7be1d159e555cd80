"""The heaters of a mesh one by one: which way each phase goes, by how much, which of them do nothing.

From a setting at which every phase shows well in the powers, all heaters are stepped at once by +-0.5 %, in the order of a
Hadamard matrix and its negative, H, so that products of two steps do not look like a third; all phases are read from the powers
of every setting (calibration/mesh/phase_reading.py). For heater k

    slope_k    = (1 / R a) sum_r H_rk phase_k(r)
    response_k = rms over probes and photodiodes of (1 / R a) sum_r H_rk power(r)       one that does nothing has none: "stuck"

The setting is that where all interferometers cross (calibration/mesh/crossing.py), with every theta 0.5 rad aside: there the
phi show too. At a setting drawn at random the phases of 16 modes are not told by powers at all.

A decomposition cannot tell theta from -theta; a heater can only add phase, so a falling theta is the other branch. Couplers are
taken as even here, which bends slopes by up to some five per cent: the fit of the step "crosstalk" starts there, and they are
no result.

Source: Plackett & Burman, Biometrika 33, 305 (1946) (designs).
"""

from __future__ import annotations

import math

import scipy.linalg
import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout, decomposed, mirrored, wrapped
from calibration.mesh.crossing import crossed
from calibration.mesh.light import Lit, listed
from calibration.mesh.phase_reading import read, rows
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from hil.seeding import generator

HEATERS = "heaters"
ASIDE_RAD = 0.5  # of every theta from where its interferometer crosses
STEP = 0.005
LEAST_RESPONSE = 0.1  # of the median; below it a heater does nothing
SPREAD = 0.25  # by how much slopes are believed to differ from their median
MOST_CHI2 = 3.0


def heaters(subject: Subject, found: Found) -> Step:
    """Estimate "V_pi", of a typical heater.

    Raw: settings as shares of the largest squared voltage, powers of the probes in units of a full input, and their
    standard deviations; base and phase, read there, and slope, rad at full voltage.
    """
    lit = Lit.of(subject.device, found)
    layout = lit.layout
    base = _base(lit, generator(subject.seed, 0, "heaters"))
    powers, sigma = lit.powers(base[None])
    even = torch.zeros(layout.heaters // 2, 2, dtype=torch.float64)
    there = read(layout, powers, sigma, decomposed(layout, rows(powers)), even)
    chi2 = float(there.chi2)
    if not chi2 < MOST_CHI2:  # also if it is no number
        return _no_interference(layout, base, chi2)
    design = hadamard(layout.heaters)
    design = torch.cat([design, -design])
    share = base + STEP * design
    powers, sigma = lit.powers(share)
    phases = read(layout, powers, sigma, there.values.expand(len(share), -1), even, rounds=4)
    falling = (design * phases.values).sum(0)[::2] < 0
    turned = mirrored(layout, phases.values, torch.where(falling, -1.0, 1.0).double())
    turned = turned[:1] + wrapped(turned - turned[:1])
    slope = (design * turned).sum(0) / (STEP * len(design))
    typical = float(slope.median())
    spread = 1.48 * float((slope - typical).abs().median())
    slope = slope.clamp((1 - SPREAD) * typical, (1 + SPREAD) * typical)
    problems, good = _judged(layout, _responses(design, powers, sigma))
    chi2 = float(phases.chi2.median())
    if chi2 > MOST_CHI2:
        problems.append(_not_a_mesh(chi2))
        good = torch.zeros_like(good)
    if not typical > 0:
        return _no_interference(layout, base, chi2)
    v_pi = lit.full_v * math.sqrt(math.pi / typical)
    estimates = {"V_pi": Estimate(v_pi, 0.5 * v_pi * spread / typical / math.sqrt(layout.heaters), "V")}
    said = f"{int(good.sum())} of {layout.heaters} heaters turn their phase, V_pi {v_pi:.2f} V" + listed(problems)
    phase = torch.linalg.lstsq(torch.cat([torch.ones(len(design), 1).double(), design], 1), turned).solution[0]
    return Step(
        HEATERS, said, estimates, tuple(bool(one) for one in good), tuple(problems),
        residual_rms=float((turned - phase - STEP * design * slope).std()), residual_unit="rad", figures={"chi2": chi2},
        raw={"base": base, "phase": phase, "slope": slope, "share": share, "powers": powers, "sigma": sigma},
    )  # fmt: skip


def hadamard(channels: int) -> Tensor:
    """(R, channels) of +-1, columns orthogonal to each other and to 1; R the least power of 2 above `channels`."""
    return torch.tensor(scipy.linalg.hadamard(1 << channels.bit_length())[:, 1 : channels + 1], dtype=torch.float64)


def _base(lit: Lit, rng: torch.Generator) -> Tensor:
    """A setting (K,) at which all phases show well."""
    share, slope = crossed(lit, rng)
    thetas = share[::2]
    thetas += torch.where(thetas < 0.5, 1.0, -1.0) * ASIDE_RAD / slope
    return share


def _responses(design: Tensor, powers: Tensor, sigma: Tensor) -> Tensor:
    """Return the response to every heater (K,), what noise alone would give taken off."""
    scale = STEP * len(design)
    slopes = (design.T @ powers.flatten(1)) / scale
    noise = sigma.square().sum(0).mean() / scale**2
    return (slopes.square().mean(1) - noise).clamp(min=0).sqrt()


def _judged(layout: MeshLayout, response: Tensor) -> tuple[list[Problem], Tensor]:
    share = response / response.median()
    stuck = share < LEAST_RESPONSE
    problems = [
        Problem(
            "stuck", f"{layout.name(k)} does not turn", f"{float(share[k]):.1%} of the others' effect on the powers, at least "
            f"{LEAST_RESPONSE:.0%} needed", "look at its bond and driver; the mesh cannot be programmed without it",
        )
        for k in torch.nonzero(stuck).flatten().tolist()
    ]  # fmt: skip
    return problems, ~stuck


def _no_interference(layout: MeshLayout, base: Tensor, chi2: float) -> Step:
    problem = _not_a_mesh(chi2)
    return Step(
        HEATERS, problem.what, success=(False,) * layout.heaters, problems=(problem,), raw={"base": base},
        figures={"chi2": chi2} if math.isfinite(chi2) else {},
    )  # fmt: skip


def _not_a_mesh(chi2: float) -> Problem:
    return Problem(
        "kind", "the powers are not those of a lossless mesh", f"reduced chi2 {chi2:.2g}, allowed {MOST_CHI2:g}",
        "see whether inputs interfere (one laser, paths of equal length) and whether the order of channels is right",
    )  # fmt: skip
