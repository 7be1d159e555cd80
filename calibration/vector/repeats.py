"""Repeatability of rows: rows all over the inputs are measured twice, in two random orders.

    apart_l = rms over rows of ( second - first reading ) / sqrt 2          beside noise_l at rest, and the swing of the output

An output whose readings are apart by over 3 times its noise, and by over 1 % of its swing, has a "memory", or
drifts.
"""

from __future__ import annotations

import torch

from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from calibration.vector.rest import REST, resting
from hil.seeding import generator

REPEATS = "repeats"
ROWS = 64
MOST_NOISE, MOST_SHARE = 3.0, 0.01


def repeats(subject: Subject, found: Found) -> Step:
    """Estimate "apart 1", ... of every output, in its unit. Raw: rows, readings (2, rows, outputs)."""
    device, port = subject.device, subject.device.spec.outputs
    rng = generator(subject.seed, 0, "repeats")
    rows = device.spec.inputs.within(torch.rand(ROWS, resting(device).shape[1], generator=rng))
    orders = [torch.randperm(ROWS, generator=rng) for _ in range(2)]
    readings = torch.stack([device.forward(rows[order]).double()[order.argsort()] for order in orders])
    apart = (readings[1] - readings[0]).square().mean(0).div(2).sqrt()
    noise = torch.tensor([found[REST].estimates[f"noise {n + 1}"].value for n in range(len(apart))], dtype=torch.float64)
    swing = readings.mean(0).amax(0) - readings.mean(0).amin(0)
    remembers = apart > torch.maximum(MOST_NOISE * noise, MOST_SHARE * swing)
    problems = tuple(
        Problem(
            "memory", f"output {n + 1} depends on what came before", f"{float(apart[n]):.2g} {port.unit} apart, noise "
            f"{float(noise[n]):.2g} {port.unit}", "raise settle in [vector]; see whether the bench drifts",
        )
        for n in torch.nonzero(remembers).flatten().tolist()
    )  # fmt: skip
    worst = float((apart / swing.clamp(min=1e-30)).max())
    estimates = {
        f"apart {n + 1}": Estimate(float(apart[n]), float(apart[n]) / (2 * ROWS) ** 0.5, port.unit) for n in range(len(apart))
    }
    return Step(
        REPEATS, f"{ROWS} rows, each twice in random order: apart by {worst:.2%} of the swing at most", estimates,
        tuple(not bool(bad) for bad in remembers), problems, residual_rms=float(apart.max()), residual_unit=port.unit,
        raw={"rows": rows.double(), "readings": readings},
    )  # fmt: skip
