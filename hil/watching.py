"""A [sentinel] table becomes the device whose drive it may move, and the sentinel that watches over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from calibration.steering import Follow, Steered, steered
from hil.config import Experiment
from hil.device import Device, Port
from hil.errors import ConfigError
from hil.naming import construct
from hil.run.recovery import Told
from hil.units import quantity
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.twin import Twin

if TYPE_CHECKING:
    from calibration.sentinel import DriftSentinel


def static(experiment: Experiment, where: str) -> None:
    """Raises: ConfigError: a sentinel is asked for, of a node that has a state in time."""
    if experiment.sentinel is not None:
        raise ConfigError(
            "the sentinel watches a node that all neurons share in time", where=f"{where}: [sentinel]", got="a chip of neurons",
            outputs="untouched, or closed again", todo="remove [sentinel]",
        )  # fmt: skip


def steered_node(experiment: Experiment, device: Device, twin: Twin | None, follow: Follow, where: str) -> Steered:
    """`device`, its drive free to follow a bias that walks."""
    table, port, place = experiment.sentinel, device.spec.inputs, f"{where}: [sentinel]"
    assert table is not None  # asked for
    if device.spec.temporal:
        static(experiment, where)
    period = experiment.encode.period if table.period is None else table.period
    if period is None and isinstance(twin, MachZehnder):
        period = 2 * twin.v_pi_v
    found = None if period is None else quantity(period, unit_of(port), f"{place} period")
    if found is not None and found > port.high - port.low and table.period is None:
        found = None  # it is known, and no drive can be moved by it
    margin = quantity(table.margin, unit_of(port), f"{place} margin")
    made: Steered = construct(steered, {"device": device, "period": found, "margin": margin, "follow": follow}, place)
    return made


def sentinel(
    experiment: Experiment, device: Device, inner: Steered, told: Told, on: torch.device, where: str,
    attend: Callable[[], None],
) -> DriftSentinel:  # fmt: skip
    """Watches over `inner`, driven through `device`. attend: see hil.device.Attentive."""
    from calibration.sentinel import DriftSentinel  # with what it takes of scipy: a second and a half
    from calibration.watch import Watch

    table = experiment.sentinel
    assert table is not None  # asked for
    policy = tuple(table.policy) if isinstance(table.policy, list) else (table.policy,)
    settings = {"every": table.every, "policy": policy, "warn": table.warn, "act": table.act}
    watch: Watch = construct(Watch, settings, f"{where}: [sentinel]")
    return DriftSentinel(device, inner, watch, told, on, attend=attend)


def unit_of(port: Port) -> str:
    """As `quantity` wants it."""
    return "dimensionless" if port.unit == "1" else port.unit
