"""Response of the cells of a crossbar to writes: how much of the way a write makes, up and down, and how much it scatters.

One cell of each pair is written again and again, at random levels a_t of its range, while the other one rests; then the other.
Rows are read alone, at both ends of their range, so a pair is read without its offset:

    m_t = ( i(row k high) - i(row k low) ) / ( V_high - V_low )                            in S, of every output
    m_t - m_(t-1) = s ( g a_t + o - m_(t-1) ) + e       least squares over writes up, and over writes down: s g, s o, s
    up, down = median s over the cells       noise = rms e / |g R|, less the noise of the readings, R the range of a level

Writes that were not fitted are then held against what the fit foretells of each from the reading before it.

A read-back is off by read_noise; verifying closer than that writes for nothing, so "tolerance" is three times that, or half of
what a write scatters by, whichever is larger: then some two tries of five hit.

Channels: K rows, L outputs, 2 K L levels, row by row, the two cells of a pair side by side. Nothing leaves the
ranges of the ports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from calibration.sequence import Found, Procedure, Subject
from calibration.step import Estimate, Problem, Step
from hil.device import Device, program
from hil.seeding import generator

WRITES, TWIN, CHECK = "writes", "twin", "honesty"  # "honesty": as certificates call the step
LEVELS, HELD_OUT, SHOTS = 40, 10, 4  # writes of every cell, those that are not fitted; readings that are averaged
LEAST = 10.0  # standard deviations of a reading that a cell must move an output by
ERASES, ALMOST = 10, 0.01  # writes after which a cell rests; share of its range, so that the next write is one
ROUNDS = 3  # of a fit
INSIDE = 0.15  # of the range is left out at either end
MOST_NOISE, LEAST_SHARE, MOST_ERROR = 0.25, 0.1, 2.0


def crossbar() -> tuple[Procedure, ...]:
    """The sequence for a crossbar: writes, what they say of its twin, and writes that were not fitted."""
    return Procedure(WRITES, writes), Procedure(TWIN, twin, (WRITES,)), Procedure(CHECK, check, (WRITES, TWIN))


@dataclass(frozen=True)
class Cells:
    """A crossbar whose cells are read through it.

    Args:
        rows, outputs: K and L.
    """

    device: Device
    rows: int
    outputs: int

    @classmethod
    def of(cls, device: Device) -> Cells | None:
        """The cells of a device with as many levels as a crossbar has; None: it has others."""
        spec = device.spec
        rows, outputs = spec.inputs.size or 0, spec.outputs.size or 0
        if spec.params is None or spec.temporal or spec.params.size != 2 * rows * outputs:
            return None
        return cls(device, rows, outputs)

    def read(self) -> tuple[Tensor, Tensor]:
        """Pairs (K, L) in S, and the standard deviation of each."""
        port, still = self.device.spec.inputs, self.device.spec.inputs.resting()
        low, high = (limit.expand_as(still) for limit in port.bounds(still))
        drive = still.expand(2, self.rows, self.rows).clone()
        for k in range(self.rows):
            drive[0, k, k], drive[1, k, k] = high[k], low[k]
        rows = drive.view(-1, self.rows).repeat(SHOTS, 1)
        found = self.device.forward(rows).double().view(SHOTS, 2, self.rows, self.outputs)
        pairs = (found[:, 0] - found[:, 1]) / (high - low).double().unsqueeze(1)
        return pairs.mean(0), pairs.std(0) / math.sqrt(SHOTS)

    def written(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Write levels (2, writes, K, L), one cell of a pair after the other; pairs of that shape, their deviation (K, L)."""
        pairs, sigmas = torch.zeros_like(levels), []
        still = torch.zeros(self.rows, self.outputs, 2, dtype=torch.float64)
        for half in (0, 1):
            for number, level in enumerate(levels[half]):
                asked = still.clone()
                asked[..., half] = level
                self.write(asked)
                pairs[half, number], sigma = self.read()
                sigmas.append(sigma)
            for number in range(ERASES):  # a write goes a part of the way: again and again to where the cell rests
                still[..., half] = 0.0 if number % 2 else ALMOST
                self.write(still)
                self.device.forward(self.device.spec.inputs.resting().unsqueeze(0))
        return pairs, torch.stack(sigmas).square().mean(0).sqrt()

    def write(self, share: Tensor) -> None:
        """Program shares of the range, (K, L, 2)."""
        port = self.device.spec.params
        assert port is not None  # `of` saw to it
        program(self.device, port.within(share.flatten().float()))


def writes(subject: Subject, found: Found) -> Step:
    """Estimates "up", "down", "noise", "read_noise", "tolerance", shares of the range. Raw: levels, pairs (2, writes, K, L)."""
    cells = Cells.of(subject.device)
    if cells is None:
        return _no_crossbar(subject.device)
    rng = generator(subject.seed, 0, "writes")
    levels = _drawn(LEVELS, cells, rng)
    pairs, read_s = cells.written(levels)
    fits = [_fitted(levels[half][:, k, n], pairs[half][:, k, n], float(read_s[k, n])) for half, k, n in _every(cells)]
    swing = torch.tensor([fit.swing for fit in fits], dtype=torch.float64)
    read_noise = torch.tensor([float(read_s[k, n]) for _, k, n in _every(cells)], dtype=torch.float64) / swing.clamp(min=1e-30)
    moves = swing > LEAST * read_s.max()
    said = {"up": [fit.up for fit in fits], "down": [fit.down for fit in fits], "noise": [fit.noise for fit in fits]}
    middle = {name: _middle(torch.tensor(values, dtype=torch.float64)[moves]) for name, values in said.items()}
    middle["read_noise"] = _middle(read_noise[moves])
    tolerance = max(3 * middle["read_noise"].value, 0.5 * middle["noise"].value)
    estimates = {**middle, "tolerance": Estimate(tolerance, 0.0)}
    problems, well = _problems(fits, moves, cells)
    line = (
        f"a write makes {middle['up'].value:.2f} of its way up and {middle['down'].value:.2f} down, and scatters by "
        f"{100 * middle['noise'].value:.2g} % of the range; verify to {100 * tolerance:.2g} %"
    )
    raw = {"levels": levels, "pairs": pairs, "aims": torch.tensor([[fit.slope, fit.offset] for fit in fits]).double()}
    return Step(WRITES, line, estimates, well, tuple(problems), raw=raw)


def twin(subject: Subject, found: Found) -> Step:
    """Hand on what the step "writes" found as the settings of the twin of writes that are named so."""
    known = {} if subject.nominal is None else subject.nominal.settings()
    seen = {name: found[WRITES].estimates[name] for name in ("up", "down", "noise")}
    missing = [name for name in seen if name not in known]
    if missing:
        problem = Problem(
            "twin", "the twin of this bench has no writes", f"no {', '.join(missing)}", 'write use = "written" in [twin]'
        )
        return Step(TWIN, "no twin of writes", success=(False,), problems=(problem,))
    return Step(TWIN, ", ".join(f"{name} {value}" for name, value in seen.items()), seen)


def check(subject: Subject, found: Found) -> Step:
    """Compare writes that were not fitted with what the twin says of them. Figures in A, a row high; raw: pairs, foretold."""
    cells, seen = Cells.of(subject.device), found[WRITES]
    assert cells is not None  # that step would not be good
    levels = _drawn(HELD_OUT, cells, generator(subject.seed, 1, "writes"))
    pairs, _ = cells.written(levels)
    slope, offset = seen.raw["aims"].T.view(2, 2, 1, cells.rows, cells.outputs)  # of each cell, as `_every` counts them
    way = slope * levels[:, 1:] + offset - pairs[:, :-1]
    up = way * slope > 0
    share = torch.where(up, seen.estimates["up"].value, seen.estimates["down"].value)
    off = pairs[:, :-1] + share * way - pairs[:, 1:]
    volts = float(subject.device.spec.inputs.bounds(torch.zeros(1))[1].max())
    error, swing = volts * float(off.square().mean().sqrt()), volts * float(slope.abs().median())
    noise = swing * seen.estimates["noise"].value
    good = error <= max(MOST_ERROR * noise, 0.02 * swing)
    problem = Problem(
        "twin", "writes come out otherwise than those that were fitted", f"rms error {error:.2g} A, noise {noise:.2g} A",
        "calibrate again; cells that differ much from each other, or drift fast, are no such twin",
    )  # fmt: skip
    return Step(
        CHECK, f"{off.numel()} writes foretold to {error:.2g} A of {swing:.2g} A, rms; noise of a write {noise:.2g} A",
        success=(good,), problems=() if good else (problem,), residual_rms=error, residual_unit="A",
        raw={"pairs": pairs, "foretold": off + pairs[:, 1:]},
        figures={"bias": volts * float(off.mean()), "spread": volts * float(off.std()), "noise": noise, "swing": swing},
    )  # fmt: skip


@dataclass(frozen=True)
class _Fit:
    """up, down, noise as shares; swing: of a pair over the range of a level, S; slope, offset: where a write aims, S."""

    up: float
    down: float
    noise: float
    swing: float
    slope: float
    offset: float


def _fitted(levels: Tensor, pairs: Tensor, read_s: float) -> _Fit:
    """Fit the writes of one cell: levels and pairs (writes,)."""
    change, before, asked = pairs.diff(), pairs[:-1], levels[1:]
    sign = 1.0 if float(((pairs - pairs.mean()) * (levels - levels.mean())).sum()) >= 0 else -1.0  # the second of a pair falls
    up = asked > levels[:-1]
    slope = offset = 0.0
    for _ in range(ROUNDS):  # which writes aim up follows from where they aim, not from where chance brought them
        shares, aims, squares = [], [], []
        for some in (up, ~up):
            design = torch.stack([asked[some], torch.ones_like(asked[some]), -before[some]], 1)
            solution = torch.linalg.lstsq(design, change[some].unsqueeze(1)).solution.flatten()
            left = change[some] - design @ solution
            shares.append(float(solution[2]))
            aims.append(solution[:2] / solution[2].abs().clamp(min=1e-12))
            squares.append(float(left.square().sum()) / max(len(left) - 3, 1))
        slope, offset = (torch.stack(aims).mean(0)).tolist()
        up = sign * (slope * asked + offset - before) > 0
    scatter = math.sqrt(max(sum(squares) / 2 - 2 * read_s**2, 0.0))  # two readings in every change
    return _Fit(shares[0], shares[1], scatter / max(abs(slope), 1e-30), abs(slope), slope, offset)


def _drawn(count: int, cells: Cells, rng: torch.Generator) -> Tensor:
    """Levels (2, count, K, L) in the middle of the range, where a write that scatters does not end at a limit."""
    share = torch.rand(2, count, cells.rows, cells.outputs, generator=rng, dtype=torch.float64)
    return INSIDE + (1 - 2 * INSIDE) * share


def _every(cells: Cells) -> list[tuple[int, int, int]]:
    return [(half, k, n) for half in (0, 1) for k in range(cells.rows) for n in range(cells.outputs)]


def _middle(values: Tensor) -> Estimate:
    """Median over the cells, and its standard deviation."""
    if not len(values):
        return Estimate(0.0, 0.0)
    spread = float(values.std()) if len(values) > 1 else 0.0
    return Estimate(float(values.median()), 1.25 * spread / math.sqrt(len(values)))


def _problems(fits: list[_Fit], moves: Tensor, cells: Cells) -> tuple[list[Problem], tuple[bool, ...]]:
    problems, good = [], []
    for (half, k, n), fit, moved in zip(_every(cells), fits, moves.tolist(), strict=True):
        name = f"cell {2 * n + half + 1} of row {k + 1}"
        well = fit.noise <= MOST_NOISE and min(fit.up, fit.down) >= LEAST_SHARE
        if not moved:
            problems.append(Problem(
                "stuck", f"{name} moves no output", f"{fit.swing:.2g} S over its range", "leave it out, or form it again"
            ))  # fmt: skip
        elif not well:
            problems.append(Problem(
                "writes", f"{name} does not come where it is told", f"up {fit.up:.2f}, down {fit.down:.2f}, noise "
                f"{100 * fit.noise:.2g} % of its range", "verify what is programmed: tolerance in [params]",
            ))  # fmt: skip
        good.append(moved and well)
    return problems, tuple(good)


def _no_crossbar(device: Device) -> Step:
    spec = device.spec
    params = "nothing" if spec.params is None else f"{spec.params.size} levels"
    found = f"{spec.inputs.size} rows, {spec.outputs.size} outputs, {params}"
    problem = Problem(
        "kind", "this node is not a crossbar of pairs", f"{found}; K rows and L outputs have 2 K L levels",
        "calibrate it as what it is",
    )  # fmt: skip
    return Step(WRITES, f"not a crossbar: {found}", success=(False,), problems=(problem,))
