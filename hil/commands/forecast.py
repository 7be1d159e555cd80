"""hil doctor EXPERIMENT: how long an epoch will take, and what takes it, from some steps of that training.

    epoch  = steps * step + parts of the validation split * part + changes of length * change

    step          a whole batch, the mean of those that nothing else disturbed; the last one of an epoch may be smaller, which
                  makes all but the trigger shorter
    change        of the length of a record: what the first part takes longer than the others

    upload        the record goes to the generator, while nothing else happens
    trigger       from arming until the record begins, and until it can be read
    acquisition   the record is played and taken
    download      the record comes back
    settings      instruments are set for records of another length, and asked what they hold
    host          no instrument works

The steps are real ones, on the device, with the learner and the optimiser of the file; what they learned is thrown away. A
device that says nothing of its instruments has two parts: what it was asked for, and the host.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from drivers.waveform.device import Stats
from hil.build.training import Built, built
from hil.commands.doctor import ending
from hil.commands.loop_check import of_instruments, shares
from hil.config.experiment import read_experiment
from hil.config.read import kind_of, read_toml
from hil.devices.meter import Metered
from hil.errors import UNTOUCHED, ConfigError
from hil.training.loop import EVALUATION_BATCH, TrainingStep, evaluate, train

WARM, STEPS, PARTS = 2, 24, 4
LONGEST_S, LEAST = 10.0, 4  # steps are counted for so long, and at least so many


@dataclass(frozen=True)
class Forecast:
    """An epoch as it will be.

    Args:
        epoch_s: seconds that it takes, validation included.
        step_s, part_s: seconds of a whole batch, and of a part of the validation split.
        steps, parts: of the training split, and of the validation split, in an epoch.
        pieces: into which a batch is cut.
        shares: of the time, by what takes it.
    """

    epoch_s: float
    step_s: float
    part_s: float
    steps: int
    parts: float
    pieces: int
    shares: Mapping[str, float]

    @property
    def bottleneck(self) -> str:
        """What takes most of the time."""
        return max(self.shares, key=lambda name: self.shares[name])

    def told(self) -> Iterator[str]:
        """Say it in two lines."""
        yield (
            f"epoch   {_seconds(self.epoch_s)} predicted: {self.steps} steps of {_seconds(self.step_s)}, "
            f"validation {_seconds(self.parts * self.part_s)}; a batch in {self.pieces} piece{'s' * (self.pieces > 1)}"
        )
        listed = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        yield f"bottleneck: {self.bottleneck} ({listed})"


def of_experiment(what: str, passport: Path | None) -> bool:
    """True if `what` is an experiment file. Raises: ConfigError: a passport is wanted of one."""
    if kind_of(read_toml(Path(what))) != "experiment":
        return False
    if passport is not None:
        raise ConfigError(
            "an experiment has no passport", where="hil doctor", got=str(passport), outputs=UNTOUCHED,
            todo="name the bench file for --json and --against",
        )  # fmt: skip
    return True


def forecast(experiment: Path, overrides: Sequence[str], out: Console) -> Forecast:
    """Open the device of an experiment, train a few steps, close it, its outputs safe, and say how long an epoch takes.

    Args:
        experiment: its file.
        overrides: section.key=value, over what the file says.
        out: where people are told.

    Raises:
        Refused: nothing was opened. Stopped: a fault, and the outputs are safe. UnsafeOutputs.
    """
    asked = read_experiment(experiment, overrides)
    with ending(str(experiment)) as begun, built(asked, fresh=True) as made:
        begun.append(made.node)
        found = measured(made)
    for line in found.told():
        out.print(line, soft_wrap=True)
    return found


def measured(made: Built) -> Forecast:
    """Train a few steps of what was built, and predict an epoch. Raises: as the devices."""
    training, watch = made.training, _Watch(made)
    steps, split, scored = _steps(made, watch), training.data.validation, list[float]()
    one = replace(split, x=split.x[:EVALUATION_BATCH], y=split.y[:EVALUATION_BATCH])
    for _ in range(PARTS):
        watch.begin()
        evaluate(training.net, training.learner, one, None, training.task)
        scored.append(watch.end())
    changed_s, *alike = scored
    step_s, part_s, parts, shared = _undisturbed(steps), statistics.median(alike), len(split) / len(one), watch.shares()
    whole, rest = divmod(len(training.data.train), training.plan.batch)
    fixed = shared.get("trigger", 0.0)
    equal = whole + (fixed + (1 - fixed) * rest / training.plan.batch if rest else 0.0)
    changes = 2 + (rest > 0) + (len(split) > EVALUATION_BATCH and len(split) % EVALUATION_BATCH > 0)
    epoch_s = equal * step_s + parts * part_s + changes * max(0.0, changed_s - part_s)
    return Forecast(epoch_s, step_s, part_s, training.batches_per_epoch, parts, training.net.pieces or 1, shared)


def _undisturbed(seconds: Sequence[float]) -> float:
    """The mean, of what is no longer than twice the median."""
    middle = statistics.median(seconds)
    return statistics.fmean(one for one in seconds if one <= 2 * middle)


def _steps(made: Built, watch: _Watch) -> list[float]:
    """Train some steps; return the seconds of whole batches that follow another one, or of all where there are no such."""
    batch, alike = made.training.plan.batch, list[float]()
    every, whole, began = list[float](), False, time.perf_counter()
    watch.begin()
    for point in train(made.training):
        if isinstance(point, TrainingStep):
            counts, whole = whole and point.examples == batch, point.examples == batch
            every.append(watch.end(counts))
            alike += every[-1:] if counts else []
        else:
            whole = False
        if len(alike) >= STEPS or (time.perf_counter() - began > LONGEST_S and len(every) >= LEAST):
            break
        watch.begin()
    return alike[WARM:] or alike or every


class _Watch:
    """Times what happens, and asks the instruments, or else the device, what they did meanwhile."""

    def __init__(self, made: Built) -> None:
        self._devices = made.training.devices
        self._spent: dict[str, float] = dict.fromkeys(self._now(), 0.0)
        self._whole_s = 0.0
        self.begin()

    def begin(self) -> None:
        """Begin to look at something."""
        self._before, self._began = self._now(), time.perf_counter()

    def end(self, counts: bool = True) -> float:
        """Return the seconds since the beginning. counts: what was done in them is part of the shares."""
        took_s, now = time.perf_counter() - self._began, self._now()
        if counts:
            self._whole_s += took_s
            self._spent = {name: spent + now[name] - self._before[name] for name, spent in self._spent.items()}
        return took_s

    def shares(self) -> dict[str, float]:
        """Return what took the time, in shares."""
        if not any(map(stats_of, self._devices)):
            return shares({"device": self._spent["device"]}, self._whole_s, "host")
        return shares(of_instruments(self._spent), self._whole_s, "host")

    def _now(self) -> dict[str, float]:
        devices = [stats for device in self._devices if (stats := stats_of(device)) is not None]
        found = {name: float(sum(getattr(stats, name) for stats in devices)) for name in Stats.__dataclass_fields__}
        return {**found, "device": sum(device.count.busy_s for device in self._devices)}


def stats_of(device: object) -> Stats | None:
    """What a waveform device, however it is wrapped, has counted; None of any other."""
    inner: Any = device.inner if isinstance(device, Metered) else device
    while inner is not None:
        if isinstance(stats := getattr(inner, "stats", None), Stats):
            return stats
        inner = getattr(inner, "_inner", None)
    return None


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
