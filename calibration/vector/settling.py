"""Settling of all readings: the inputs jump together, and the same row is measured again and again.

    left = | first reading behind the jump - mean of the last ones |        up to all ends of the inputs, and back to rest

What is left beyond 4 standard deviations of a reading, and beyond 0.5 % of the jump, is "settling".
"""

from __future__ import annotations

import torch

from calibration.sequence import Found, Subject
from calibration.step import Estimate, Problem, Step
from calibration.vector.rest import FAR, REST, resting

SETTLING = "settling"
REPEATS, LAST = 12, 6
MOST = 0.005


def settling(subject: Subject, found: Found) -> Step:
    """Estimate "left", a share of the jump, of the slowest output. Raw: readings (2, repeats, outputs)."""
    port, outputs = subject.device.spec.inputs, subject.device.spec.outputs
    still = resting(subject.device)
    low, high = port.bounds(still)
    far = torch.where((high - still).abs() >= (still - low).abs(), high, low)
    rows = torch.cat([far.expand_as(still).repeat(REPEATS, 1), still.repeat(REPEATS, 1)])
    subject.device.forward(still)
    readings = subject.device.forward(rows).double().view(2, REPEATS, -1)
    noise = torch.tensor([found[REST].estimates[f"noise {n + 1}"].value for n in range(readings.shape[2])], dtype=torch.float64)
    there = readings[:, -LAST:].mean(1)
    left = (readings[:, 0] - there).abs().amax(0)
    jump = (there[0] - there[1]).abs()
    late = left > torch.maximum(FAR * noise * (1 + 1 / LAST) ** 0.5, MOST * jump)
    share = torch.where(jump > FAR * noise, left / jump.clamp(min=1e-30), torch.zeros_like(left))
    worst = int(share.argmax())
    problems = tuple(
        Problem(
            "settling", f"output {n + 1} has not settled when it is read", f"{float(left[n]):.2g} {outputs.unit} left of "
            f"{float(jump[n]):.2g} {outputs.unit}, allowed {MOST:.1%}", "raise settle in [vector]",
        )
        for n in torch.nonzero(late).flatten().tolist()
    )  # fmt: skip
    sigma = float(noise[worst] / jump[worst]) if float(jump[worst]) else 0.0
    said = f"{float(share[worst]):.2%} ± {sigma:.2%} of a jump of all inputs is left in the first reading"
    return Step(
        SETTLING, said, {"left": Estimate(float(share[worst]), sigma)}, tuple(not bool(bad) for bad in late), problems,
        raw={"readings": readings},
    )  # fmt: skip
