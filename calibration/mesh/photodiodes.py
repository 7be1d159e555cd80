"""The photodiodes of a mesh: dark level, gain and noise of each, with light through settings drawn at random.

    dark_n   mean reading without light                              noise: its standard deviation
    gain_n = sum_j y_nj       inputs j lit one by one: a row of a unitary has length 1, whatever the heaters do
    input_j = sum_n y_nj / gain_n = 1                                what does not leave is lost or not launched

A photodiode without gain is "stuck"; inputs that differ, or sums that change with the setting, are "uneven".
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.mesh.light import PHOTODIODES, layout_of, listed, no_mesh
from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from hil.device import program
from hil.seeding import generator

SHOTS, SETTINGS, REPEATS = 2048, 64, 8  # readings of one drive; settings of the heaters, readings of each
LEAST_GAIN = 0.1  # of the median
UNEVEN = 0.02


def photodiodes(subject: Subject, found: Found) -> Step:
    """Estimates "dark 0", "gain 0", ... in W; figures "relative_noise", "shots" (of the dark level)."""
    del found
    device, layout = subject.device, layout_of(subject.device.spec)
    if layout is None or device.spec.params is None:
        return no_mesh(PHOTODIODES, device.spec)
    n, unit = layout.modes, device.spec.outputs.unit
    dark = device.forward(torch.zeros(SHOTS, 2 * n)).double()
    alone = torch.eye(n, 2 * n)
    rng = generator(subject.seed, 0, "photodiodes")
    volts = torch.rand(SETTINGS, layout.heaters, generator=rng) * device.spec.params.shared_high
    lit = torch.stack([_lit(subject, one, alone) for one in volts]) - dark.mean(0)  # (settings, inputs, photodiodes)
    sums = lit.sum(1)
    gain, gain_sigma = sums.mean(0), sums.std(0) / SETTINGS**0.5
    steady = device.forward(alone[:1].expand(SHOTS, -1).contiguous()).double()
    level, extra = steady.mean(0) - dark.mean(0), (steady.var(0) - dark.var(0)).clamp(min=0)
    relative = float((extra.sum() / level.square().sum()).sqrt())
    dead = gain < LEAST_GAIN * gain.median()
    problems = [_dead(number, gain, unit) for number in torch.nonzero(dead).flatten().tolist()]
    uneven = 0.0
    if not problems:
        inputs = (lit / gain).sum(2)
        uneven = float((inputs - 1).abs().max())
        allowed = max(UNEVEN, 6 * float((sums / gain).std(0).max()))
        if uneven > allowed:
            problems.append(_uneven(inputs, allowed))
    spread = float(gain[~dead].std() / gain[~dead].mean()) if int((~dead).sum()) > 1 else 0.0
    noise = float(dark.std(0).mean())
    said = f"{n} photodiodes, gains within {spread:.1%}, noise {noise:.2g} {unit} in the dark" + listed(problems)
    estimates = {
        **{f"dark {i}": Estimate(float(dark[:, i].mean()), float(dark[:, i].std()) / SHOTS**0.5, unit) for i in range(n)},
        **{f"gain {i}": Estimate(float(gain[i]), float(gain_sigma[i]), unit) for i in range(n)},
    }
    whole = not any(problem.kind == "uneven" for problem in problems)
    return Step(
        PHOTODIODES, said, estimates, tuple(whole and not bool(d) for d in dead), tuple(problems),
        figures={"relative_noise": relative, "shots": float(SHOTS), "uneven": uneven},
        raw={"dark": dark, "volts": volts, "alone": lit, "steady": steady},
    )  # fmt: skip


def _lit(subject: Subject, volts: Tensor, light: Tensor) -> Tensor:
    program(subject.device, volts)
    return subject.device.forward(light.repeat(REPEATS, 1)).double().view(REPEATS, len(light), -1).mean(0)


def _dead(number: int, gain: Tensor, unit: str) -> Problem:
    return Problem(
        "stuck", f"photodiode {number} sees no light", f"{float(gain[number]):.2g} {unit} of {float(gain.median()):.2g} {unit}",
        "look at its fibre, bond and amplifier; without it a row of the unitary is missing",
    )  # fmt: skip


def _uneven(inputs: Tensor, allowed: float) -> Problem:
    worst = int((inputs.mean(0) - 1).abs().argmax())
    return Problem(
        "uneven", "light is launched unevenly, or lost in the mesh",
        f"input {worst} gives {float(inputs.mean(0)[worst]):.3f} of a full one, between settings "
        f"{float(inputs.min()):.3f} to {float(inputs.max()):.3f}; allowed 1 ± {allowed:.3f}",
        "level the modulators in front of the mesh; look for a heater that also absorbs",
    )  # fmt: skip
