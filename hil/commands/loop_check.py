"""Measure a loop: how fast, how clean, how linear. Works on every device, and asks nothing of it but shots.

    latency     shots of one row at rest, one by one                    median, worst
    ramp        64 rows over the whole drive, in uneven steps,          every second channel runs downwards, as some nodes
                repeated                                                answer to differences between channels alone
    noise    s  = sqrt( mean over rows and channels of the variance over the repeats )
    NAD         = max( s, q / sqrt 12 )                                 q: the converter's step, where one is seen
    ENOB        = log2( FSR / ( NAD sqrt 12 ) )                         FSR: the range of the reading port
                = ( SINAD - 1.76 dB ) / 6.02 dB  for a sine as large as the range
    linearity   = rms of mean reading less its least-squares straight line, over the swing of the mean reading
    predicted   = n / ( latency + (n - 1) pace )                        n samples in a shot
                                                                        pace: of a sample, by the settings; else the slope
                                                                        from a shot of one row to one a quarter as long

A sample is one value on one channel. The curve of a node is what it is used for, so ENOB counts what a level does not explain,
and no harmonics: it is that of the loop, from noise, not from a sine fit. A spread is the standard deviation over four blocks
of the repetitions; of noise and of what follows from it, s / sqrt( 2 degrees of freedom ).

Source: IEEE Std 1057 and IEEE Std 1241, for noise and distortion (NAD) and the effective number of bits (ENOB).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calibration.shots import quantum
from hil.commands.passport import Figure
from hil.device import Device, reset
from hil.devices.stepped import approached
from hil.port import each
from hil.seeding import generator
from hil.training.transfer_curve import twin_errors

BLOCKS = 4
WARM = 3  # shots before the first one that counts
SHOTS, LEAST_SHOTS, LATENCY_S = 40, 8, 4.0  # single shots, fewer of a slow device
POINTS, REPEATS, LEAST_REPEATS, RAMP_S = 64, 8, 3, 10.0
LARGE, LARGE_S = 4096, 1.0  # rows of the shots that the rate is measured with, fewer where they would take longer
RATES = 8  # such shots
STEPS = 16  # of time, in which a temporal device holds each row
MOVES = 8.0  # times the noise of a mean reading, which a swing must have: that of 64 readings of nothing is about five times
FINEST_PARTS, OFF_GRID = 8, 0.1  # of the smallest gap between readings; in steps
SLOPE = "the slope to shots a quarter as long"
SQRT12 = math.sqrt(12)

Figures = dict[str, Figure]
Counts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Timed:
    """Shots of one size.

    Args:
        seconds: that each took.
        samples: in each.
        spent: what the device counted in each; () for the first shots of all.
    """

    seconds: Sequence[float]
    samples: int
    spent: Sequence[Counts] = ()

    @property
    def median_s(self) -> float:
        """Median time of a shot, s."""
        return statistics.median(self.seconds)


class Probe:
    """A device as it is driven here: (rows, n_in) in, (rows, n_out) out, float64.

    A temporal device is reset, and holds each row for STEPS steps of time; what is read is the mean over them.

    Args:
        device: a static or a temporal one, checked as `metered` does.
        counted: what the device has counted so far, by name.
        clock: seconds from any origin.
    """

    def __init__(
        self, device: Device, counted: Callable[[], Counts] = dict, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.device, self._counted, self._clock = device, counted, clock
        self.port, self.out, self.temporal = device.spec.inputs, device.spec.outputs, device.spec.temporal
        self.seconds: list[float] = []
        self.counts: list[Counts] = []  # after each shot
        self.sent = 0  # samples of the last shot

    @property
    def width(self) -> int:
        """Channels of a row."""
        return self.port.size or 1

    def __call__(self, rows: Tensor) -> Tensor:
        """Play `rows`; `seconds` gets the time that it took. Raises: as the device."""
        if self.temporal:
            reset(self.device)
            path, places = rows.unsqueeze(0).expand(STEPS, *rows.shape).contiguous(), None
        else:
            path, places = approached(self.device, rows)
        began = self._clock()
        answer = self.device.forward(path)
        self.seconds.append(self._clock() - began)
        self.counts.append(self._counted())
        self.sent = path.numel()
        answer = answer.to("cpu", torch.float64)
        return answer.mean(0) if places is None else answer[places]

    def timed(self, rows: Tensor, count: int) -> Timed:
        """Play `rows` so many times, and say how long each took."""
        first = len(self.seconds)
        for _ in range(count):
            self(rows)
        pairs = zip(self.counts[first - 1 : -1], self.counts[first:], strict=True) if first else ()
        spent = tuple({name: count - before[name] for name, count in after.items()} for before, after in pairs)
        return Timed(self.seconds[first:], self.sent, spent)


@dataclass(frozen=True, slots=True)
class Ramp:
    """drive (points, n_in), mean (points, n_out); noise of a reading, its degrees of freedom; lowest and highest reading."""

    drive: Tensor
    mean: Tensor
    noise: float
    freedom: int
    repeats: int
    step: float
    saturated: float
    low: float
    high: float

    @property
    def swing(self) -> float:
        """Mean over the channels of the range of the mean reading."""
        return float((self.mean.amax(0) - self.mean.amin(0)).mean())

    @property
    def mean_sigma(self) -> float:
        """Standard deviation of a mean reading."""
        return self.noise / math.sqrt(self.repeats)


def latencies(probe: Probe) -> Timed:
    """Time single shots at rest."""
    row = probe.port.resting().expand(1, probe.width).contiguous()
    warm = probe.timed(row, WARM)
    return probe.timed(row, _affordable(LATENCY_S, warm.seconds[-1], LEAST_SHOTS, SHOTS))


def ramped(probe: Probe) -> Ramp:
    """Drive a ramp over the whole port, and repeat it."""
    share = _levels().unsqueeze(1).expand(POINTS, probe.width).clone()
    share[:, 1::2] = 1 - share[:, 1::2]
    drive = probe.port.within(share)
    taken = [probe(drive)]
    taken += [probe(drive) for _ in range(_affordable(RAMP_S, probe.seconds[-1], LEAST_REPEATS, REPEATS) - 1)]
    readings = torch.stack(taken)
    noise = float(readings.var(0).mean().sqrt())
    low, high = (torch.tensor(each(limit, None), dtype=torch.float64) for limit in (probe.out.low, probe.out.high))
    step = 0.0 if probe.temporal else _step(readings.flatten())
    near = torch.maximum((high - low) * 1e-6, torch.tensor(step / 2, dtype=torch.float64))
    rails = (readings <= low + near) | (readings >= high - near)
    freedom = readings[0].numel() * (len(taken) - 1)
    return Ramp(
        drive, readings.mean(0), noise, freedom, len(taken), step, float(rails.double().mean()), float(readings.min()),
        float(readings.max()),
    )  # fmt: skip


def _levels() -> Tensor:
    """(POINTS,) shares of a range, rising from 0 to 1, one anywhere in each equal part: an even ramp would look like steps."""
    inner = (torch.arange(POINTS) + torch.rand(POINTS, generator=generator(0, 0, "loop check"))) / POINTS
    inner[0], inner[-1] = 0.0, 1.0
    return inner


def _step(readings: Tensor) -> float:
    """The step of a converter: all readings are whole steps apart. 0 if none is: a node without noise repeats itself too."""
    gap, values = quantum(readings), torch.unique(readings)
    for parts in range(1, FINEST_PARTS + 1) if gap else ():
        places = (values - values[0]) / (gap / parts)
        if float((places - places.round()).abs().max()) < OFF_GRID:
            return gap / parts
    return 0.0


def large_shots(probe: Probe, ramp: Ramp) -> tuple[Timed, Timed]:
    """Time shots as large as a training has them, and some of a quarter of that."""
    times = _affordable(LARGE_S, probe.seconds[-1], 1, LARGE // POINTS if probe.port.size is None else 1)
    rows = ramp.drive.repeat(times, 1)
    probe(rows)  # the first shot of a size makes room for it
    return probe.timed(rows[: max(2, len(rows) // 4)], BLOCKS), probe.timed(rows, RATES)


def _affordable(most_s: float, each_s: float, least: int, most: int) -> int:
    return max(least, min(most, int(most_s / max(each_s, 1e-9))))


# ---- figures --------------------------------------------------------------------------------------------------------------


def speed(single: Timed, quarter: Timed, whole: Timed, pace_s: float | None, records: float) -> Figures:
    """Latency, shots and samples a second, achieved and predicted.

    Args:
        single: shots of one row.
        quarter: large shots, of a quarter of the size.
        whole: large shots.
        pace_s: what the settings say that a sample takes, s; None: they do not.
        records: parts in which the device plays a large shot.
    """
    median, worst = (over_blocks(single.seconds, stat) for stat in (statistics.median, max))
    further, longer = quarter.samples - single.samples, over_blocks(quarter.seconds, statistics.median)
    slope, sloped = max(0.0, longer[0] - median[0]) / max(1, further), math.hypot(longer[1], median[1]) / max(1, further)
    pace, off, how = (slope, sloped, SLOPE) if pace_s is None else (pace_s, 0.0, "the settings")
    more = whole.samples - single.samples
    due_s, due_sigma_s = records * median[0] + more * pace, math.hypot(records * median[1], more * off)
    shots = over_blocks(whole.seconds, lambda some: 1 / statistics.median(some))
    many = f"shots of {whole.samples:,} samples"
    return {
        "latency_median": Figure("s", *median, f"{len(single.seconds)} single shots of {single.samples} samples"),
        "latency_worst": Figure("s", *worst, "the longest of them"),
        "shots_per_s": Figure("Hz", *shots, many),
        "samples_per_s": Figure("Sa/s", shots[0] * whole.samples, shots[1] * whole.samples, f"achieved, {many}"),
        "samples_per_s_predicted": Figure(
            "Sa/s", whole.samples / due_s, whole.samples * due_sigma_s / due_s**2, f"latency, and a pace from {how}"
        ),
    }


def quality(probe: Probe, ramp: Ramp, ideal: Callable[[Tensor], Tensor] | None) -> Figures:
    """Noise, ENOB, linearity, the twin's error, the ranges used.

    Args:
        probe: of the device.
        ramp: as it was measured.
        ideal: the twin's response, or None.
    """
    unit, relative = probe.out.unit, 1 / math.sqrt(2 * max(1, ramp.freedom))
    lows, highs = (each(limit, probe.out.size) for limit in (probe.out.low, probe.out.high))
    span = statistics.fmean(high - low for low, high in zip(lows, highs, strict=True))
    moves = ramp.swing > MOVES * ramp.mean_sigma and ramp.swing > 0
    still = f"the reading does not move: swing {ramp.swing:.3g} {unit}, noise {ramp.noise:.3g} {unit}"
    found = {
        "noise": Figure(unit, ramp.noise, ramp.noise * relative, f"one shot of {POINTS} rows, {ramp.repeats} times"),
        "enob": _enob(probe, ramp, span, "log2( range of the port / ( NAD sqrt 12 ) ), IEEE 1057, 1241"),
        "enob_of_swing": _enob(
            probe, ramp, ramp.swing if moves else 0.0, "the same for the swing of the node" if moves else still
        ),
    }
    share = _levels().double()
    design = torch.stack([torch.ones_like(share), share], 1)
    line = design @ torch.linalg.lstsq(design, ramp.mean).solution
    off = float((ramp.mean - line).square().mean().sqrt())
    percent = 100 / ramp.swing if moves else 0.0
    found["linearity"] = (
        Figure("%", percent * off, percent * ramp.mean_sigma, "rms off a straight line, of the swing")
        if moves
        else Figure("%", note=still)
    )
    found["twin_error"] = _twin(probe, ramp, ideal)
    used = (ramp.high - ramp.low) / (max(highs) - min(lows))
    found |= {
        "drive_low": Figure(probe.port.unit, float(ramp.drive.min()), 0.0, "of the ramp: all that the port allows"),
        "drive_high": Figure(probe.port.unit, float(ramp.drive.max())),
        "reading_low": Figure(unit, ramp.low, ramp.noise),
        "reading_high": Figure(unit, ramp.high, ramp.noise),
        "reading_range": Figure("%", 100 * used, 100 * used * ramp.noise / max(ramp.high - ramp.low, 1e-300), "of the port"),
        "saturated": Figure("%", note="of means over time nobody can tell") if probe.temporal
        else Figure("%", 100 * ramp.saturated, 100 * _of_share(ramp), "readings at a limit of their port"),
    }  # fmt: skip
    return found


def _of_share(ramp: Ramp) -> float:
    """Standard deviation of the share of readings at a limit: that of a binomial, with one reading at least."""
    count = ramp.repeats * ramp.mean.numel()
    share = max(ramp.saturated, 1 / count)
    return math.sqrt(share * (1 - share) / count)


def _enob(probe: Probe, ramp: Ramp, span: float, note: str) -> Figure:
    nad = max(ramp.noise, ramp.step / SQRT12)
    if probe.temporal:
        return Figure("bit", note="readings are means over time")
    if not nad:
        return Figure("bit", note="no noise is seen")
    if not 0 < span < math.inf:
        return Figure("bit", note=note if span == 0 else "the port has no limits")
    relative = 1 / math.sqrt(2 * max(1, ramp.freedom))
    return Figure("bit", math.log2(span / (nad * SQRT12)), relative / math.log(2), note)


def _twin(probe: Probe, ramp: Ramp, ideal: Callable[[Tensor], Tensor] | None) -> Figure:
    if ideal is None or probe.temporal:
        return Figure(probe.out.unit, note="no twin of the reading is named")
    with torch.no_grad():
        said = ideal(ramp.drive)
    seen = twin_errors(ramp.mean, torch.full_like(ramp.mean, ramp.noise), said, probe.out.unit)
    error = math.hypot(seen["bias"], seen["spread"])
    if not math.isfinite(error):
        return Figure(probe.out.unit, note="the twin gives no number")
    return Figure(probe.out.unit, error, ramp.mean_sigma, "rms, mean reading less the twin's")


def over_blocks(values: Sequence[float], stat: Callable[[Sequence[float]], float]) -> tuple[float, float]:
    """`stat` of all values, and its standard deviation over BLOCKS blocks of them."""
    size = len(values) // BLOCKS
    return stat(values), statistics.stdev(stat(values[k * size : (k + 1) * size]) for k in range(BLOCKS))


def of_instruments(spent: Counts) -> dict[str, float]:
    """Seconds that the instruments of a waveform bench took, by what they did; see hil/commands/forecast.py.

    Args:
        spent: what the device counted meanwhile.
    """
    return {
        "upload": spent["upload_s"],
        "trigger": spent["wait_s"] - spent["played_s"],
        "acquisition": spent["played_s"],
        "download": spent["read_s"],
        "settings": spent["settings_s"],
    }


def shares(parts_s: Mapping[str, float], whole_s: float, rest: str) -> dict[str, float]:
    """Times of parts as shares of the whole; what no part took is `rest`."""
    bounded = {name: min(max(0.0, value), whole_s) for name, value in parts_s.items()}
    bounded[rest] = bounded.get(rest, 0.0) + max(0.0, whole_s - sum(bounded.values()))
    total = sum(bounded.values()) or 1.0
    return {name: value / total for name, value in bounded.items()}
