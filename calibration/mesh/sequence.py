"""A mesh is programmed: from a unitary to heater voltages, with crosstalk undone, and the fidelity that comes of it measured.

    phases   those at which the mesh, its couplers as found, comes nearest to the target: read from the powers that the target
             would give, from its Clements decomposition on
    volts    p = C^-1 ( phases - offset + whole turns )
    F        ( sum_n | <u_n, v_n> | )^2 / N^2       u_n row n as measured, v_n of the target

What is measured: powers on N photodiodes, for every input alone and for every two inputs in and out of phase. From these every
row of U is known up to its phase, so F leaves out the N phases behind the mesh, which no power shows; but for them it is
|tr(U^H V)|^2 / N^2. "Without compensation": every heater as if it acted on its own phase alone, all others half hot.

    mesh()   photodiodes -> heaters -> crosstalk -> mesh
"""

from __future__ import annotations

import statistics

import torch
from torch import Tensor

from calibration.mesh.clements import decomposed, haar
from calibration.mesh.crosstalk import CROSSTALK, crosstalk, model_of
from calibration.mesh.fit import MeshModel
from calibration.mesh.heaters import HEATERS, heaters
from calibration.mesh.light import PHOTODIODES, Lit
from calibration.mesh.phase_reading import fidelity, powers, probes, read, rows
from calibration.mesh.photodiodes import photodiodes
from calibration.sequence import Found, Procedure, Subject
from calibration.step import Estimate, Problem, Step
from hil.device import program
from hil.seeding import generator

MESH = "mesh"
TARGETS, HELD_OUT = 5, 8
LEAST_FIDELITY = 0.99
MOST_CHI2 = 1.5


def mesh() -> tuple[Procedure, ...]:
    """The sequence for a mesh of interferometers."""
    return (
        Procedure(PHOTODIODES, photodiodes),
        Procedure(HEATERS, heaters, (PHOTODIODES,)),
        Procedure(CROSSTALK, crosstalk, (PHOTODIODES, HEATERS)),
        Procedure(MESH, programming, (PHOTODIODES, HEATERS, CROSSTALK)),
    )


def phases_of(model: MeshModel, targets: Tensor) -> Tensor:
    """Unitaries (T, N, N) -> phases (T, K) of the mesh, with its couplers as they are, that come nearest to them."""
    wanted = powers(targets, probes(model.layout.modes))
    start = decomposed(model.layout, targets)
    return read(model.layout, wanted, torch.full_like(wanted, 1e-3), start, model.couplers, rounds=20).values


def voltages(model: MeshModel, target: Tensor) -> Tensor:
    """Heater voltages (K,) for a unitary (N, N), to be given to `Device.program`; phases of the outputs are left open."""
    return model.volts(model.shares(phases_of(model, target[None])[0]))


def programming(subject: Subject, found: Found) -> Step:
    """Estimates "theta 0 offset", "theta 0 own", ... and "fidelity"; figures with and without compensation."""
    lit = Lit.of(subject.device, found)
    model, rng = model_of(found, lit.full_v), generator(subject.seed, 0, "mesh")
    layout = lit.layout
    unseen = torch.rand(HELD_OUT, layout.heaters, generator=rng, dtype=torch.float64)
    measured, sigma = lit.powers(unseen)
    chi2 = float(((measured - model.powers(unseen)) / sigma).square().mean())
    targets = torch.stack([haar(layout.modes, rng) for _ in range(TARGETS)])
    phases = phases_of(model, targets)
    wanted = {undone: torch.stack([model.shares(one, undone) for one in phases]) for undone in (True, False)}
    reached = {undone: [_fidelity(lit, model, *pair) for pair in zip(some, targets)] for undone, some in wanted.items()}
    beyond = ((wanted[True] < 0) | (wanted[True] > 1)).any(0)
    problems, well = _problems(lit, chi2, min(reached[True]), beyond)
    figures = {
        "fidelity_median": statistics.median(reached[True]), "fidelity_worst": min(reached[True]), "chi2_unseen": chi2,
        "uncompensated_median": statistics.median(reached[False]), "uncompensated_worst": min(reached[False]),
    }  # fmt: skip
    said = (
        f"{TARGETS} random unitaries: fidelity {figures['fidelity_median']:.5f}, worst {figures['fidelity_worst']:.5f}; "
        f"without compensation {figures['uncompensated_median']:.3f}, worst {figures['uncompensated_worst']:.3f}"
    )
    program(subject.device, torch.zeros(layout.heaters))  # cold
    raw = {
        "share": unseen, "powers": measured, "predicted_powers": model.powers(unseen), "powers_sigma": sigma,
        "targets": torch.view_as_real(targets), "settings": wanted[True],
        "fidelity": torch.tensor(reached[True], dtype=torch.float64),
        "fidelity_uncompensated": torch.tensor(reached[False], dtype=torch.float64),
    }  # fmt: skip
    return Step(
        MESH, said, _estimates(found, model, reached[True]), tuple(well and not bool(b) for b in beyond), tuple(problems),
        residual_rms=float((measured - model.powers(unseen)).square().mean().sqrt()), figures=figures, raw=raw,
    )  # fmt: skip


def _fidelity(lit: Lit, model: MeshModel, share: Tensor, target: Tensor) -> float:
    return float(fidelity(rows(lit.at_volts(model.volts(share))), target))


def _estimates(found: Found, model: MeshModel, reached: list[float]) -> dict[str, Estimate]:
    raw, names = found[CROSSTALK].raw, [model.layout.name(k) for k in range(model.layout.heaters)]
    offsets = {
        f"{name} offset": Estimate(float(value), float(sigma), "rad")
        for name, value, sigma in zip(names, torch.remainder(model.offset, 2 * torch.pi), raw["offset_sigma"], strict=True)
    }
    own = {f"{name} own": found[CROSSTALK].estimates[f"{name} own"] for name in names}
    return {**offsets, **own, "fidelity": Estimate(statistics.mean(reached), statistics.stdev(reached) / len(reached) ** 0.5)}


def _problems(lit: Lit, chi2: float, worst: float, beyond: Tensor) -> tuple[list[Problem], bool]:
    """Return what is wrong, and whether the mesh as a whole is well."""
    problems = []
    if chi2 > MOST_CHI2:
        problems.append(Problem(
            "drift", "settings that were not fitted are predicted badly", f"reduced chi2 {chi2:.3g}, allowed {MOST_CHI2:g}",
            "see whether the chip's temperature is held; calibrate again",
        ))  # fmt: skip
    if worst < LEAST_FIDELITY:
        problems.append(Problem(
            "fidelity", "the mesh does not become what it is told", f"worst fidelity {worst:.4f}, needed {LEAST_FIDELITY}",
            "see the other problems of this calibration; else calibrate again with more light",
        ))  # fmt: skip
    well = not problems
    problems += [
        Problem(
            "range", f"{lit.layout.name(k)} cannot reach a phase that was needed", "a squared voltage outside of 0 to 1 times "
            "the largest", "allow it a higher voltage",
        )
        for k in torch.nonzero(beyond).flatten().tolist()
    ]  # fmt: skip
    return problems, well
