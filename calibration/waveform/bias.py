"""Working point on the curve: found, brought about and verified by measurement; how fast it moves, and its lock.

    quadrature   the steepest rising place; peak, null: the highest and the lowest; nearest to the middle of the port
    drift        shots at the steepest rising and falling place, y+ and y-, in which a change of light cancels:
                 phase = ( y+ - y- ) / ( y+' - y-' ), ' by phase; a line through phase(t) gives the rate; its chi^2 is about 1
                 unless the phase walks at random besides
    lock         e(V) = y(V + d) + y(V - d) - 2 y(V) = 0 at quadrature, an odd function of what is missing, whatever the light;
                 V <- V - e / e'(V), then e is measured anew: it must be 0 within its noise
    wrap         V +- 2 V_pi is the same place: the one farthest from both rails is taken

The second difference is what a dither's second harmonic measures, at the least frequency there is; 2 f vanishes at quadrature
(Salvestrini et al., J. Lightwave Technol. 29, 1522, 2011, on bias control by dither).

    bias     there is no place to work at inside the port, or the lock does not hold
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from calibration.grey_box import CODES, DRIFT, turning
from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots
from calibration.step import Estimate, Problem, Step
from hil.twin import Fittable

NAME = "bias"
PLACES = 2001  # on which steepest, highest and lowest are looked for
PROBES, VALUES = 120, 4096  # shots for the drift, and readings in each
LOCKING, ROUNDS, SURE = 2048, 3, 4.0  # readings at each of three places, servo steps, sigmas that may be left
EXACT = 1e-6  # rad: what float32 can tell of a node without noise
DITHER = 2.5e-3  # of the port
SWAY = 16  # steps of the converter
SHARE = 0.5  # of the way from null to peak: d


def bias(subject: Subject, found: Found) -> Step:
    """Estimate quadrature, peak, null in the unit of the drive, drift_rad_per_s, and how well the lock holds, in rad."""
    if subject.nominal is None or (turns := turning(subject.nominal)) is None:
        return Step(NAME, "nothing to lock: the twin has no periodic parameter" if subject.nominal else "no twin, no bias")
    shots, unit = Shots(subject, NAME), subject.device.spec.inputs.unit
    twin = subject.nominal.remade({name: e.value for name, e in found["transfer"].estimates.items()})
    places = _places(twin, shots)
    if places is None:
        return _nowhere(shots)
    rising, falling, peak, null = places
    when, phase, sigma = _phases(shots, twin, turns, rising, falling, found["dark"].figures["step"])
    rate, walk = _line(when, phase, sigma)
    locked, left = _locked(shots, twin, turns, rising, abs(peak - null))
    suffix = unit.lower()
    estimates = {
        f"quadrature_{suffix}": locked, f"peak_{suffix}": Estimate(peak, locked.sigma, unit),
        f"null_{suffix}": Estimate(null, locked.sigma, unit), "lock_rad": left,
        DRIFT: rate,
    }  # fmt: skip
    holds = abs(left.value) <= SURE * left.sigma
    problem = Problem(
        "bias", "the lock does not hold: quadrature is not where the curve says", f"{left} are left after {ROUNDS} steps",
        "see what else moves the bias: temperature, charge, a bias supply",
    )  # fmt: skip
    said = f"quadrature at {locked}, locked to {left}; drift {rate}" + (f", walks (chi² {walk:.1f})" if walk > 2 else "")
    return Step(
        NAME, said, estimates, (holds,), () if holds else (problem,), figures={"drift_chi2": walk},
        raw={"time_s": when, "phase_rad": phase, "phase_sigma_rad": sigma},
    )  # fmt: skip


def wrapped(offset: float, period: float, low: float, high: float) -> float:
    """The same place on a periodic curve that is nearest to the middle of the rails."""
    middle = 0.5 * (low + high)
    return middle + math.remainder(offset - middle, period)


def _nowhere(shots: Shots) -> Step:
    port = shots.port
    problem = Problem(
        "bias", "no quadrature inside the port", f"{port.shared_low:g} to {port.shared_high:g} {port.unit}",
        "widen low and high in [awg], or move the bias",
    )  # fmt: skip
    return Step(NAME, problem.what, success=(False,), problems=(problem,))


def _places(twin: Fittable, shots: Shots) -> tuple[float, float, float, float] | None:
    """(steepest rising, steepest falling, peak, null), each the one nearest to the middle of the port."""
    x = shots.levels(PLACES)
    with torch.no_grad():
        curve = twin.ideal(x)
    slope = torch.gradient(curve, spacing=(x,))[0]
    found = [_nearest(x, value, shots) for value in (slope, -slope, curve, -curve)]
    rising, falling, peak, null = found
    if rising is None or falling is None or peak is None or null is None:
        return None
    return rising, falling, peak, null


def _nearest(x: Tensor, value: Tensor, shots: Shots) -> float | None:
    """Return the place nearest to the middle where `value` is largest inside, to a parabola's vertex."""
    inner = value[1:-1]
    tops = (inner >= value[:-2]) & (inner > value[2:]) & (inner > 0.5 * (value.max() + value.mean()))
    at = (tops.nonzero().flatten() + 1).tolist()
    if not at:
        return None
    middle = 0.5 * (shots.port.shared_low + shots.port.shared_high)
    k = min(at, key=lambda i: abs(float(x[i]) - middle))
    left, top, right = (float(value[k + i]) for i in (-1, 0, 1))
    bend = left - 2 * top + right
    return float(x[k]) + (0.5 * (left - right) / bend if bend else 0.0) * float(x[k + 1] - x[k])


def _by_phase(twin: Fittable, turns: str, x: Tensor) -> Tensor:
    """Derivative of the response by the periodic parameter, same shape."""
    settings, h = twin.settings(), 1e-4
    with torch.no_grad():
        up, down = (twin.remade({turns: settings[turns] + s * h}).ideal(x) for s in (1, -1))
    return (up - down) / (2 * h)


def _phases(
    shots: Shots, twin: Fittable, turns: str, rising: float, falling: float, grain: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(time, phase relative to the twin's, its sigma) of PROBES shots.

    The drives of a shot lie evenly around the two places, so that the reading goes over SWAY steps of the converter: where the
    noise is below a step, a drift within one would not be seen.
    """
    port = shots.port
    places = torch.tensor([rising, falling], dtype=torch.float64).requires_grad_(True)
    (slope,) = torch.autograd.grad(twin.ideal(places).sum(), places)
    places = places.detach()
    room = torch.minimum(places - port.shared_low, port.shared_high - places)
    reach = torch.minimum(0.5 * SWAY * grain / slope.abs(), room)
    share = shots.shuffled(torch.linspace(-1, 1, VALUES // 2, dtype=torch.float64)).unsqueeze(1)
    drive = (places + share * reach).float().double()
    lever = _by_phase(twin, turns, drive).mean(0)
    when, apart = [], []
    for _ in range(PROBES):
        when.append(shots.now_s)
        pairs = shots(drive.flatten()).view(-1, 2)
        apart.append(pairs[:, 0] - pairs[:, 1])
    each = torch.stack(apart) / float(lever[0] - lever[1])
    phase, spread = each.mean(1), (each - each.mean(0)).std(1)
    return torch.tensor(when, dtype=torch.float64), phase - phase[0], spread / math.sqrt(each.shape[1])


def _line(when: Tensor, phase: Tensor, sigma: Tensor) -> tuple[Estimate, float]:
    """Slope of the weighted line, its sigma raised by what does not fit; and the reduced chi squared."""
    weight = 1 / sigma.clamp(min=1e-12).square()
    centre = float((weight * when).sum() / weight.sum())
    t = when - centre
    power = float((weight * t.square()).sum())
    rate = float((weight * t * phase).sum()) / power
    level = float((weight * phase).sum() / weight.sum())
    chi2 = float((weight * (phase - level - rate * t).square()).sum()) / (len(when) - 2)
    return Estimate(rate, math.sqrt(max(1.0, chi2) / power), "rad/s"), chi2


def _locked(shots: Shots, twin: Fittable, turns: str, start: float, half_period: float) -> tuple[Estimate, Estimate]:
    """(drive at quadrature, what is left of the phase there in rad).

    Every three drives are moved together by another amount j, evenly around 0: a generator cannot set what lies between two of
    its steps, their mean can. e(V + j) = e(V) + e' j.
    """
    port, place = shots.port, start
    offset, left = Estimate(start, 0.0, port.unit), Estimate(0.0, 0.0, "rad")
    reach = DITHER * (port.shared_high - port.shared_low)
    d = min(SHARE * half_period, port.shared_high - start - reach, start - port.shared_low - reach)
    dither = torch.linspace(-reach, reach, LOCKING, dtype=torch.float64)
    power, unknown = float(dither.square().sum()), (port.shared_high - port.shared_low) / CODES
    for k in range(ROUNDS):
        j = shots.shuffled(dither)
        three = torch.tensor([place - d, place, place + d], dtype=torch.float64)
        read = shots((three + j.unsqueeze(1)).flatten().clamp(port.shared_low, port.shared_high)).view(-1, 3)
        error = read[:, 0] + read[:, 2] - 2 * read[:, 1]
        by_volt, by_phase = _second(twin, three, turns)
        rest = error - error.mean() - j * float((j * error).sum()) / power
        sigma = math.hypot(float(rest.std()) / math.sqrt(len(error)), unknown * abs(by_volt), EXACT * abs(by_phase))
        offset = Estimate(place, sigma / abs(by_volt), port.unit)
        left = Estimate(float(error.mean()) / by_phase, sigma / abs(by_phase), "rad")
        if k < ROUNDS - 1:  # the last one verifies
            place = wrapped(place - float(error.mean()) / by_volt, 2 * half_period, port.shared_low, port.shared_high)
            place = min(max(place, port.shared_low + d + reach), port.shared_high - d - reach)
    return offset, left


def _second(twin: Fittable, x: Tensor, turns: str) -> tuple[float, float]:
    """Derivatives of y(x0) + y(x2) - 2 y(x1) when all x move together, and by phase."""
    weight = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    moved = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad((weight * twin.ideal(moved)).sum(), moved)
    return float(slope.sum()), float((weight * _by_phase(twin, turns, x)).sum())


BIAS = Procedure(NAME, bias, needs=("dark", "transfer"))
