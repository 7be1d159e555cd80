"""Memory: how long the past of a node is seen in its answers.

The same random sequence after two different pasts, drives over the whole port: what is left of the difference,

    d_k = rms over pairs of ( y_k after the one past - y_k after the other ),      noise taken off:  d^2 - 2 s^2
    d_k = d_0 exp( -k / tau ),   fitted where d_k is above the noise
    fades = tau ln( 1 / LEFT )       in which the difference has fallen to a thousandth

And the same from rest twice: the second one must be the first within noise, whatever was played between, or the rest before a
sequence is too short.

    memory    the past does not fade; or the rest of the bench file is too short
"""

from __future__ import annotations

import math

import torch

from calibration.loop.records import Records
from calibration.sequence import Found, Procedure, Subject
from calibration.step import Estimate, Problem, Step

NAME = "memory"
PAIRS, PAST, STEPS = 16, 6, 20  # sequences each, steps of the pasts, steps that are compared
LEFT = 1e-3
SURE = 5.0


def memory(subject: Subject, found: Found) -> Step:
    """Estimate fades: in s, or in symbols where no twin says how long one lasts; check that the rest is long enough."""
    records = Records(subject, NAME)
    past, after = PAST * records.nodes, STEPS * records.nodes
    common = records.around_rest(1.0, PAIRS, after)
    first, second = (torch.cat([records.around_rest(1.0, PAIRS, past), common], 1) for _ in range(2))
    one, other = records(first)[:, past:], records(second)[:, past:]
    noise = found["noise"].estimates["noise"].value ** 2 + found["noise"].figures["step"] ** 2 / 12
    apart = (one - other).square().view(PAIRS, STEPS, records.nodes).mean((0, 2))
    spread = 2 * noise * math.sqrt(2 / (PAIRS * records.nodes))
    left = (apart - 2 * noise).clamp(min=0)
    seen = int((left < SURE * spread).int().argmax()) if bool((left < SURE * spread).any()) else STEPS
    raw = {"step": torch.arange(STEPS, dtype=torch.float64), "difference_v": apart.sqrt()}
    problems, estimates, said = [], {}, "the past does not fade"
    if seen == STEPS and float(left[-1]) > 0.5 * float(left[0]):
        problems.append(Problem(
            "memory", "the past does not fade: the same input does not lead to the same answer",
            f"{math.sqrt(float(left[-1] / left[0])):.0%} of the difference is left after {STEPS} steps",
            "lower the gain of the loop: it oscillates, or is chaotic",
        ))  # fmt: skip
    else:
        rate, error = _rate(left[: max(seen, 2)])
        symbols = records.nodes * math.log(1 / LEFT) / rate
        unit_s = records.symbol_s
        wide = symbols * error / rate
        fades = Estimate(symbols, wide) if unit_s is None else Estimate(symbols * unit_s, wide * unit_s, "s")
        estimates = {"fades": fades}
        said = f"the past has faded to a thousandth after {fades}, {symbols / records.nodes:.1f} steps"
    changed = _changed(records, noise)
    if changed > SURE:
        problems.append(Problem(
            "memory", "a sequence does not begin at rest", f"its beginning depends on the one before: {changed:.1f} sigma, "
            f"{SURE:g} allowed", "write a longer rest in [memory]" + _missing(changed, found),
        ))  # fmt: skip
    return Step(
        NAME,
        said,
        estimates,
        (not problems,),
        tuple(problems),
        figures={"rest_sigma": changed, "steps_seen": float(seen)},
        raw=raw,
    )


def _missing(changed: float, found: Found) -> str:
    """Say by how much, until one standard deviation is left: at rest a loop forgets by its gain each time round."""
    known = found["loop"].estimates if "loop" in found else {}
    if not known or abs(known["loop_gain"].value) >= 1:
        return ""
    gain, delay = known["loop_gain"], known["loop_delay"]
    rounds = -math.log(changed) / math.log(abs(gain.value))
    wide = rounds * delay.value * gain.sigma / abs(gain.value * math.log(abs(gain.value)))
    return f", by at least {Estimate(rounds * delay.value, wide, delay.unit)}"


def _rate(left: torch.Tensor) -> tuple[float, float]:
    """Fall of the amplitude a step, as 1 / steps, and its standard deviation: a straight line through the logarithm."""
    y = 0.5 * left.clamp(min=1e-300).log()
    k = torch.arange(len(y), dtype=torch.float64)
    centred = k - k.mean()
    slope = float((centred * y).sum() / centred.square().sum())
    rest = y - y.mean() - slope * centred
    error = math.sqrt(float(rest.square().sum()) / max(1, len(y) - 2) / float(centred.square().sum()))
    return max(-slope, 1e-6), error


def _changed(records: Records, noise: float) -> float:
    """Return by how many standard deviations the beginning of a sequence depends on which sequence came before it."""
    own = records.around_rest(0.0, 1, records.nodes).expand(PAIRS, -1)
    low, high = (torch.full_like(own, level).repeat(1, PAST) for level in (records.port.shared_low, records.port.shared_high))
    answers = []
    for before in (low, high):  # the two take turns, so that each sequence at rest follows another one
        turns = torch.stack([before, torch.cat([own, torch.full_like(before[:, own.shape[1] :], records.rest)], 1)], 1)
        answers.append(records(turns.flatten(0, 1))[1::2, : records.nodes].mean(0))
    sigma = math.sqrt(2 * noise / PAIRS) or 1e-12
    return float((answers[0] - answers[1]).square().mean().sqrt()) / sigma


MEMORY = Procedure(NAME, memory, needs=("noise", "delay"))
