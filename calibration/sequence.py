"""The gated sequence: a step runs when all that it needs was found good; the first that is not ends what depends on it.

    for step in calibrated(procedures, subject): ...

A generator, as every loop here: the caller prints, plots, stops. Procedures are values, so which of them a node needs is data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from calibration.step import Problem, Step
from hil.device import Device
from hil.twin import Fittable


@dataclass(frozen=True)
class Subject:
    """The node that is calibrated, and how.

    Args:
        device: driven and read as in training.
        nominal: the nominal twin to be fitted, or None.
        seed: of the order of drives and of randomised designs.
        network: where the nominal twin's physics is not enough, a network of the drive may stand on top of it.
        clock: seconds, for how long steps took.
    """

    device: Device
    nominal: Fittable | None = None
    seed: int = 0
    network: bool = False
    clock: Callable[[], float] = time.perf_counter


Found = Mapping[str, Step]


@dataclass(frozen=True, slots=True)
class Procedure:
    """A step of a calibration that is to be done.

    Args:
        name: of its step.
        run: measures and judges; gets the steps that came before.
        needs: names that must be good.
    """

    name: str
    run: Callable[[Subject, Found], Step]
    needs: tuple[str, ...] = ()


def calibrated(procedures: Sequence[Procedure], subject: Subject) -> Iterator[Step]:
    """Run every procedure in order and return one Step each; one whose needs were not met measures nothing and says so.

    Raises:
        LinkError, InstrumentError, MeasurementError: of the device. OutOfRange: a procedure drove it outside its limits.
    """
    found: dict[str, Step] = {}
    for procedure in procedures:
        missing = [name for name in procedure.needs if name not in found or not found[name].good]
        if missing:
            step = _skipped(procedure.name, missing)
        else:
            begin = subject.clock()
            step = replace(procedure.run(subject, dict(found)), took_s=subject.clock() - begin)
        found[procedure.name] = step
        yield step


def _skipped(name: str, missing: Sequence[str]) -> Step:
    because = ", ".join(missing)
    problem = Problem("skipped", f"not done, as it needs {because}", f"{because} not good", f"put {because} right first")
    return Step(name, f"not done: needs {because}", success=(False,), problems=(problem,))
