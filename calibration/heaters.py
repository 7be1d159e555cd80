"""The heaters of a mesh one by one: which way each phase goes, by how much, which of them do nothing.

From a setting at which every phase shows well in the powers, all heaters are stepped at once by +-2 %, in the order of a
Hadamard matrix H; all phases are read from the powers of every setting (calibration/phase_reading.py); the slope of heater k is

    slope_k = (1 / R a) sum_r H_rk phase_k(r)

The setting is searched from noisy points, as equal ones would let crosstalk add up: of 24 drawn at random the one where the
summed variance of the phases is least, then a walk in random directions that keeps what is better.

A decomposition cannot tell theta from -theta; a heater can only add phase, so a falling theta is the other branch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.clements import Layout, decomposed, mirrored, wrapped
from calibration.crosstalk import hadamard
from calibration.mesh_light import Lit, listed
from calibration.phase_reading import Phases, read, rows
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from hil.chance import generator

HEATERS = "heaters"
DRAWN, WALKED, TRIED = 24, 10, 12
LOW, HIGH = 0.15, 0.85  # of the largest squared voltage: where a setting is searched
STEP = 0.02
LEAST_SLOPE = 0.3  # of the median; below it a heater does nothing
MOST_CHI2, SEARCH_CHI2 = 3.0, 100.0  # the search reads phases in haste


def heaters(subject: Subject, found: Found) -> Step:
    """Estimates "theta 0 slope", "phi 0 slope", ... in rad/V^2. Raw: settings as shares of the largest squared voltage, powers
    of the probes in units of a full input, and their standard deviations; base and phase, read there."""
    lit = Lit.of(subject.device, found)
    layout = lit.layout
    base, there, chi2 = _searched(lit, generator(subject.seed, 0, "heaters"))
    if not chi2 < SEARCH_CHI2:  # also if it is no number
        return _no_interference(layout, base, chi2)
    design = hadamard(layout.heaters)
    share = base + STEP * design
    powers, sigma = lit.powers(share)
    even = torch.zeros(layout.heaters // 2, 2, dtype=torch.float64)
    phases = read(layout, powers, sigma, there.expand(len(share), -1), even)
    slope, slope_sigma = _slopes(design, phases.values, phases.sigma)
    signs = torch.where(slope[::2] < 0, -1.0, 1.0).double()
    turned = mirrored(layout, phases.values, signs)
    turned = turned[:1] + wrapped(turned - turned[:1])
    slope, slope_sigma = _slopes(design, turned, phases.sigma)
    problems, good = _judged(layout, slope, slope_sigma)
    chi2 = float(phases.chi2.median())
    if chi2 > MOST_CHI2:
        problems.append(_not_a_mesh(chi2))
        good = torch.zeros_like(good)
    unit = lit.full_v**2
    estimates = {
        f"{layout.name(k)} slope": Estimate(float(slope[k]) / unit, float(slope_sigma[k]) / unit, "rad/V²")
        for k in range(layout.heaters)
    }
    v_pi = lit.full_v * math.sqrt(math.pi / float(slope.median()))
    said = f"{int(good.sum())} of {layout.heaters} heaters do what they should, V_pi {v_pi:.2f} V" + listed(problems)
    phase = torch.linalg.lstsq(torch.cat([torch.ones(len(design), 1).double(), design], 1), turned).solution[0]
    return Step(
        HEATERS, said, estimates, tuple(bool(one) for one in good), tuple(problems),
        residual_rms=float((turned - phase - STEP * design * slope).std()), residual_unit="rad", figures={"chi2": chi2},
        raw={"base": base, "phase": phase, "slope": slope, "share": share, "powers": powers, "sigma": sigma},
    )  # fmt: skip


def _searched(lit: Lit, rng: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """The setting at which all phases show best, (K,), the phases there on the branch of the decomposition, and their chi2."""
    k = lit.layout.heaters
    even = torch.zeros(k // 2, 2, dtype=torch.float64)
    tried = LOW + (HIGH - LOW) * torch.rand(DRAWN, k, generator=rng, dtype=torch.float64)
    best, base, there, chi2 = math.inf, tried[0], tried[0], math.inf
    for _ in range(1 + WALKED):
        powers, sigma = lit.powers(tried)
        phases: Phases = read(lit.layout, powers, sigma, decomposed(lit.layout, rows(powers)), even, rounds=3)
        variance = phases.sigma.square().mean(1).nan_to_num(math.inf)
        least = int(variance.argmin())
        if float(variance[least]) < best:
            best, base, there, chi2 = float(variance[least]), tried[least], phases.values[least], float(phases.chi2[least])
        some = torch.rand(TRIED, k, generator=rng, dtype=torch.float64) < 0.3
        tried = (base + 0.12 * some * torch.randn(TRIED, k, generator=rng, dtype=torch.float64)).clamp(LOW, HIGH)
    return base, there, chi2


def _slopes(design: Tensor, phases: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Of every heater's own phase, rad at full voltage, and the standard deviation of it."""
    scale = STEP * len(design)
    return (design * phases).sum(0) / scale, sigma.square().sum(0).sqrt() / scale


def _judged(layout: Layout, slope: Tensor, sigma: Tensor) -> tuple[list[Problem], Tensor]:
    typical = float(slope.median())
    stuck = slope < LEAST_SLOPE * typical
    short = ~stuck & (slope + 3 * sigma < 2 * math.pi)
    problems = [
        Problem(
            "stuck", f"{layout.name(k)} does not turn", f"{float(slope[k]):.2g} ± {float(sigma[k]):.2g} rad at full voltage, "
            f"others {typical:.2f}", "look at its bond and driver; the mesh cannot be programmed without it",
        )
        for k in torch.nonzero(stuck).flatten().tolist()
    ]  # fmt: skip
    problems += [
        Problem(
            "range", f"{layout.name(k)} does not reach a whole turn", f"{float(slope[k]):.2f} rad at full voltage, "
            f"needed {2 * math.pi:.2f}", "allow it a higher voltage; until then some unitaries cannot be set",
        )
        for k in torch.nonzero(short).flatten().tolist()
    ]  # fmt: skip
    return problems, ~(stuck | short)


def _no_interference(layout: Layout, base: Tensor, chi2: float) -> Step:
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
