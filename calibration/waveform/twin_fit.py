"""The nominal twin is fitted to the node, completed, and judged on shots that it has not seen.

    fit         grey_box.fitted, the drift that was measured as its prior; a residual network on top, kept if it is worth it
    complete    noise factor f from the variances of the step `noise`, on the fitted curve: f^2 = sum w v s^2 / sum w s^4, s the
                twin's own noise at f = 1, w = 1 / var(v); bandwidth from `settling`, drift from `bias`; what no step can see
                keeps the data sheet's value and spread
    judge       held-out values all over the port, r = (y - f(x)) / s:
                chi^2 = mean r^2;  NRMSE = rms(y - f) / swing;  R^2 = 1 - rms(y - f)^2 / var(y);  whiteness along the drive and
                along time, without the pattern of the converter's steps, residuals.py;  the largest mean error of a 64th of
                the port, in steps of the converter;
                cosine of the twin's slope and the device's,  (y(x + d) - y(x - d)) / 2d,  at POINTS drives
    floors      what a perfect twin would get with this noise, beside each

It is called good only if all of this is. A network that is worth keeping says that the physics is not enough: the twin's
settings alone would not stand for the node. That is a problem of kind "kind" too, unless the subject allows the network: then
both together are the twin, and both together are judged.

    kind, load, bound, sheet      grey_box.problems         residuals   structure is left         noise   it is overestimated
    gradient                      the twin's slope is not the device's
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calibration.grey_box import CHI2_HIGH, DRIFT, Fit, Sweeps, fitted, problems
from calibration.residual_net import ResidualNet, gained, trained
from calibration.residuals import lag_one, runs, undigitised
from calibration.sequence import Found, Procedure, Subject
from calibration.shots import Shots
from calibration.step import Estimate, Problem, Step
from calibration.waveform.transfer import BINS, binned, named, scatter, sweeps
from hil.twin import Fittable, Noisy

NAME = "twin"
COUNT, RECORDS, HELD_OUT = 2048, 4, 2
POINTS, REPEATS, STRIDE = 64, 64, 0.01  # of the slope: drives, readings either side, half the distance as a share of the port
WHITE = 4.5  # z
CHI2_LOW = 0.8
COSINE = 0.01  # below its floor
OTHERS = {"bandwidth_hz": "settling", DRIFT: "bias"}
FACTOR = "noise"
NET = "net_"  # begins the names of a network's numbers among the raw ones


@dataclass(frozen=True)
class Slopes:
    """Slopes at POINTS drives: drive, the device's slope, the twin's; sigma of the device's."""

    drive: Tensor
    measured: Tensor
    twin: Tensor
    sigma: float

    @property
    def cosine(self) -> float:
        """Cosine of the angle between measured and twin's slopes, -1 to 1; 0 if either is flat."""
        size = float(self.measured.norm() * self.twin.norm())
        return float(self.measured @ self.twin) / size if size else 0.0

    @property
    def floor(self) -> float:
        """Cosine that a perfect twin would show, with this noise of the device's slopes."""
        power = float(self.twin.square().sum())
        return math.sqrt(power / (power + len(self.twin) * self.sigma**2)) if power else 0.0


def twin(subject: Subject, found: Found) -> Step:
    """Estimate every unknown of the nominal twin, by the names of its settings.

    `nominal.remade` of their values is the twin.
    """
    if subject.nominal is None:
        return Step(NAME, "no twin in the bench file: nothing to fit")
    nominal, shots = subject.nominal, Shots(subject, NAME)
    both = sweeps(shots, found, COUNT, RECORDS + HELD_OUT)
    seen, unseen = both.shots(slice(RECORDS)), both.shots(slice(RECORDS, None))
    drift = found["bias"].estimates.get(DRIFT) if "bias" in found else None
    fit = fitted(nominal, seen, shots.port, drift)
    seen, unseen = fit.with_drive(seen), fit.with_drive(unseen)
    estimates = completed(nominal, fit, found)
    net, of_net = _network(fit, seen, unseen, shots)
    model = FittedTwin(fit, net if subject.network and of_net["net_kept"] else None)
    slopes = _slopes(shots, model)
    figures, raw = assessed(model, unseen, slopes, shots, found["dark"].figures["step"])
    figures, raw = figures | of_net, raw | {"network_v": net(raw["drive_v"])}
    if model.net is not None:
        raw |= {f"{NET}{name}": value for name, value in model.net.numbers().items()}
    bad = _problems(model, nominal, figures, shots)
    rms = figures["rms"]
    said = (
        f"{named(fit)}; on unseen readings: error {100 * figures['nrmse']:.2f} % of peak to peak (a perfect model "
        f"{100 * figures['nrmse_floor']:.2f} %), chi² {figures['chi2']:.2f}, cosine of slopes {figures['cosine']:.5f}; a "
        f"correction by a network {_helps(model, figures)}"
    )
    return Step(
        NAME, said, estimates, (not bad,), bad, residual_rms=rms, residual_unit=shots.out.unit, figures=figures, raw=raw
    )  # fmt: skip


@dataclass(frozen=True)
class FittedTwin:
    """The fitted twin, and the network that stands on top of it, if one does."""

    fit: Fit
    net: ResidualNet | None = None

    def ideal(self, x: Tensor) -> Tensor:
        """Return the reading without noise or memory for a drive `x`, same shape, the network's correction included."""
        return self.fit.twin.ideal(x) if self.net is None else self.fit.twin.ideal(x) + self.net(x)

    def predicted(self, sweeps: Sweeps) -> Tensor:
        """Return what the fitted twin predicts for the sweeps, drift and correction included."""
        return self.fit.predicted(sweeps) if self.net is None else self.fit.predicted(sweeps) + self.net(sweeps.drive)


def network_of(step: Step) -> dict[str, Any] | None:
    """Make the settings of the network on top of a twin from the raw numbers of this step."""
    found = {name.removeprefix(NET): value.tolist() for name, value in step.raw.items() if name.startswith(NET)}
    return found or None


def _helps(model: FittedTwin, figures: Mapping[str, float]) -> str:
    if not figures["net_kept"]:
        return "is not needed"
    return "would help" if model.net is None else "is part of it"


def completed(nominal: Fittable, fit: Fit, found: Found) -> dict[str, Estimate]:
    """The fit's estimates, and those of what noise alone depends on."""
    estimates = dict(fit.estimates)
    for name, unknown in nominal.unknowns().items():
        step = found.get(OTHERS.get(name, ""))
        if name in estimates or name == FACTOR:
            continue
        sheet = Estimate(nominal.settings()[name], unknown.spread, unknown.unit)
        estimates[name] = sheet if step is None else step.estimates.get(name, sheet)
    if FACTOR in nominal.unknowns() and "noise" in found:
        estimates[FACTOR] = _noise_factor(nominal, estimates, found["noise"])
    return {name: estimates[name] for name in nominal.unknowns()}


def _noise_factor(nominal: Fittable, estimates: Mapping[str, Estimate], step: Step) -> Estimate:
    unknown = nominal.unknowns()[FACTOR]
    sheet = Estimate(nominal.settings()[FACTOR], unknown.spread)
    values = {name: estimate.value for name, estimate in estimates.items()}

    def factor(**other: float) -> tuple[float, float]:
        made = nominal.remade({**values, **other, FACTOR: 1.0})
        if not isinstance(made, Noisy):
            return sheet.value, sheet.sigma
        power, own = made.noise_at(step.raw["level_v"]).square(), step.raw["variance"]
        square = float((own * power).sum() / power.square().sum())
        for _ in range(2):
            total = max(square, 0.0) * power + step.figures["step"] ** 2 / 12
            weight = step.figures["freedom"] / (2 * total.clamp(min=1e-30).square())
            square = float((weight * own * power).sum() / (weight * power.square()).sum())
        least = max(square, 1e-12)
        return math.sqrt(least), 0.5 / math.sqrt(least * float((weight * power.square()).sum()))

    value, sigma = factor()
    for name, estimate in estimates.items():  # what the noise per unit of f is made of is not known exactly either
        if estimate.sigma:
            sigma = math.hypot(sigma, factor(**{name: estimate.value + estimate.sigma})[0] - value)
    return Estimate(value, sigma) if math.isfinite(sigma) else sheet


def assessed(
    model: FittedTwin, held: Sweeps, slopes: Slopes, shots: Shots, grain: float
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Figures with their floors, and the curves behind them."""
    fit, off = model.fit, held.reading - model.predicted(held)
    r = off / held.sigma
    white = undigitised(off.flatten(), held.sigma.expand_as(off).flatten(), grain)
    along = white[held.drive.flatten().argsort()]
    level, mean, _ = binned(held, held.reading, shots.port)
    _, bend, sigma = binned(held, off, shots.port)
    swing, variance, noise = float(mean.max() - mean.min()), float(held.reading.var()), float(held.sigma.square().mean().sqrt())
    rms = float(off.square().mean().sqrt())
    steps = grain or noise
    figures = {
        "chi2": float(r.square().mean()), "chi2_fit": fit.chi2, "rms": rms, "drive_step": math.sqrt(12) * fit.drive_sigma,
        "nrmse": rms / swing if swing else math.inf, "nrmse_floor": noise / swing if swing else math.inf,
        "r2": 1 - rms**2 / variance if variance else 0.0, "r2_floor": 1 - noise**2 / variance if variance else 0.0,
        "lag_along_drive": lag_one(along), "runs_along_drive": runs(along),
        "lag_along_time": lag_one(white), "runs_along_time": runs(white),
        "max_lsb": float(bend.abs().max()) / steps,
        "max_lsb_floor": float(sigma.mean()) / steps * math.sqrt(2 * math.log(BINS)),
        "cosine": slopes.cosine, "cosine_floor": slopes.floor,
    }  # fmt: skip
    with torch.no_grad():
        curve = model.ideal(level)
    raw = {
        "drive_v": level, "reading_v": mean, "fitted_v": curve, "residual_v": bend, "residual_sigma_v": sigma,
        "spread_v": scatter(held, off, shots.port), "slope_drive_v": slopes.drive, "slope_measured": slopes.measured,
        "slope_twin": slopes.twin,
    }  # fmt: skip
    return figures, raw


def _slopes(shots: Shots, made: FittedTwin) -> Slopes:
    port = shots.port
    d = STRIDE * (port.shared_high - port.shared_low)
    middle = shots.scattered(POINTS).clamp(port.shared_low + d, port.shared_high - d).sort().values
    pair = torch.stack([middle - d, middle + d], dim=1).clamp(port.shared_low, port.shared_high).float().double()
    order = shots.shuffled(torch.arange(2 * POINTS).repeat(REPEATS))
    read = shots(pair.flatten()[order])
    mean = torch.bincount(order, read, minlength=2 * POINTS).view(POINTS, 2) / REPEATS
    spread = float((read - mean.flatten()[order]).square().mean().sqrt())
    span = pair[:, 1] - pair[:, 0]
    x = middle.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(made.ideal(x).sum(), x)
    sigma = spread * math.sqrt(2 / REPEATS) / float(span.mean())
    return Slopes(middle, (mean[:, 1] - mean[:, 0]) / span, slope, sigma)


def _network(fit: Fit, seen: Sweeps, held: Sweeps, shots: Shots) -> tuple[ResidualNet, dict[str, float]]:
    """A residual network, and whether it is worth keeping."""
    off = (seen.reading - fit.predicted(seen)).flatten()
    net = trained(seen.drive.flatten(), off, seen.sigma.flatten(), shots.port, shots.rng)
    without = held.reading - fit.predicted(held)
    r, corrected = ((part / held.sigma).flatten() for part in (without, without - net(held.drive)))
    z, keep = gained(r, corrected)
    return net, {"net_kept": float(keep), "net_z": z, "net_chi2": float(corrected.square().mean())}


def _problems(model: FittedTwin, nominal: Fittable, figures: Mapping[str, float], shots: Shots) -> tuple[Problem, ...]:
    alone = model.net is None
    found = [each for each in problems(model.fit, nominal, shots.port) if alone or each.kind != "kind"]
    chi2, floor = figures["chi2"], figures["cosine_floor"]
    if not found and (chi2 > CHI2_HIGH or (alone and figures["net_kept"])):
        evidence = f"chi² {chi2:.3g} on values it had not seen, {figures['net_chi2']:.3g} with a network on top"
        found.append(Problem(
            "kind", f"the node is not all that {type(nominal).__name__} describes", evidence,
            "believe another twin in [twin], or let a network stand on top of this one: [calibration] network = true",
        ))  # fmt: skip
    if chi2 < CHI2_LOW and figures["nrmse_floor"] > 1e-5:
        found.append(Problem(
            "noise", "residuals are smaller than the noise that was measured", f"chi² {chi2:.3g}, at least {CHI2_LOW:g}",
            "something disturbed the step noise: calibrate again",
        ))  # fmt: skip
    z = max((figures[k] for k in figures if k.startswith(("lag_", "runs_"))), key=abs)
    if abs(z) > WHITE and not found:
        found.append(Problem(
            "residuals", "residuals are not white: there is structure left", f"z {z:.1f}, up to {WHITE:g} allowed",
            "look at the residuals in the report: a bend wants another twin, waves in time something that moves",
        ))  # fmt: skip
    if figures["cosine"] < floor - COSINE:
        found.append(Problem(
            "gradient", "the twin's slope is not the device's", f"cosine {figures['cosine']:.4f}, a perfect twin {floor:.4f}",
            "learners that differentiate the twin would be misled: take another twin, or one of those that need none",
        ))  # fmt: skip
    return tuple(found)


TWIN = Procedure(NAME, twin, needs=("transfer", "bias"))
