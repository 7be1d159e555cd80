"""Response to every input alone, over its whole range, the others at rest.

    swing_k = max over outputs of ( largest - smallest reading ) / noise        over 9 levels, up and down again
    loop_k  = rms over levels of ( reading on the way up - down ) / swing

An input that moves no output by 6 standard deviations is "stuck"; one whose loop is beyond 2 % of its swing, and beyond noise,
is "hysteresis"; an output at a limit of its range is "clipped".
"""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from calibration.vector.rest import REST, clips, resting

INPUTS = "inputs"
LEVELS, REPEATS = 9, 4
LEAST_SWING = 6.0  # standard deviations of a reading
MOST_LOOP = 0.02


def inputs(subject: Subject, found: Found) -> Step:
    """Estimates "swing 1", ... of every input, in the unit of the outputs; a verdict per input. Raw: levels, readings."""
    device, port = subject.device, subject.device.spec.outputs
    still = resting(device)
    low, high = (limit.expand_as(still)[0] for limit in device.spec.inputs.bounds(still))
    noise = torch.tensor([found[REST].estimates[f"noise {n + 1}"].value for n in range(port.size or 1)], dtype=torch.float64)
    share = torch.linspace(0, 1, LEVELS)
    way = torch.cat([share, share.flip(0)])
    levels, measured, clipped = [], [], torch.zeros(len(noise), dtype=torch.bool)
    for k in range(still.shape[1]):
        rows = still.repeat(len(way), 1)
        rows[:, k] = (low[k] + way * (high[k] - low[k])).clamp(low[k], high[k])
        readings = torch.stack([device.forward(rows).double() for _ in range(REPEATS)]).mean(0)  # (2 levels, outputs)
        clipped |= clips(device, readings)
        levels.append(rows[:LEVELS, k])
        measured.append(readings)
    readings = torch.stack(measured).view(len(measured), 2, LEVELS, -1)
    up, down = readings[:, 0], readings[:, 1].flip(1)
    swings = ((up + down) / 2).amax(1) - ((up + down) / 2).amin(1)  # (inputs, outputs)
    best = (swings / noise.clamp(min=1e-30)).argmax(1)
    swing = swings.gather(1, best[:, None])[:, 0]
    least = LEAST_SWING * noise[best] / REPEATS**0.5
    loop = (up - down).square().mean(1).sqrt().gather(1, best[:, None])[:, 0]
    stuck = swing <= torch.maximum(least, torch.full_like(least, 1e-30))
    loops = ~stuck & (loop > torch.maximum(MOST_LOOP * swing, 3 * noise[best] * (2 / REPEATS) ** 0.5))
    problems = _problems(port.unit, stuck, loops, clipped, swing, loop, noise[best])
    sigma = noise[best] * (2 / REPEATS) ** 0.5
    said = f"{int((~stuck).sum())} of {len(swing)} inputs move an output, by {_range(swing[~stuck], port.unit)}"
    estimates = {f"swing {k + 1}": Estimate(float(s), float(d), port.unit) for k, (s, d) in enumerate(zip(swing, sigma))}
    good = ~(stuck | loops) & ~clipped.any()
    return Step(
        INPUTS, said, estimates, tuple(bool(one) for one in good), tuple(problems),
        raw={"levels": torch.stack(levels).double(), "readings": readings},
    )  # fmt: skip


def _problems(
    unit: str, stuck: Tensor, loops: Tensor, clipped: Tensor, swing: Tensor, loop: Tensor, noise: Tensor
) -> list[Problem]:  # fmt: skip
    return [
        *(
            Problem(
                "stuck", f"input {k + 1} moves no output", f"{float(swing[k]):.2g} {unit} over its range, noise "
                f"{float(noise[k]):.2g} {unit}", "look at its cable and its contact; or give it a wider range",
            )
            for k in torch.nonzero(stuck).flatten().tolist()
        ),
        *(
            Problem(
                "hysteresis", f"input {k + 1} reads otherwise on the way up than down", f"{float(loop[k] / swing[k]):.1%} of "
                f"its swing, allowed {MOST_LOOP:.0%}", "raise settle in [vector]; else this node remembers",
            )
            for k in torch.nonzero(loops).flatten().tolist()
        ),
        *(
            Problem("clipped", f"output {n + 1} reaches a limit of its range", "a reading within 0.1 % of it",
                    "give its meter a wider range, or narrow the inputs")
            for n in torch.nonzero(clipped).flatten().tolist()
        ),
    ]  # fmt: skip


def _range(swing: Tensor, unit: str) -> str:
    if not len(swing):
        return "nothing"
    return f"{float(swing.min()):.3g} to {float(swing.max()):.3g} {unit}"
