"""A [sentinel] table becomes the device whose drive it may move, and the sentinel that watches over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from calibration.drift.steering import Follow, Steered, steered
from hil.config.device import EncodeTable
from hil.config.resolve import construct
from hil.config.watch import SentinelTable
from hil.device import Device, Limit, Port
from hil.devices.recovery import EventListener
from hil.errors import ConfigError
from hil.port import each
from hil.twin import Periodic
from sim_devices.twin import Twin

if TYPE_CHECKING:
    from calibration.drift.sentinel import DriftSentinel


def static(table: SentinelTable | None) -> None:
    """Raises: ConfigError: a sentinel is asked for, of a node that has a state in time, or of several nodes."""
    if table is not None:
        raise ConfigError(
            "the sentinel watches one node, without a state in time", where=table.place,
            got="a chip of neurons, a node with memory, or a device a layer",
            outputs="untouched, or closed again", todo="remove [sentinel]",
        )  # fmt: skip


def steered_node(table: SentinelTable, encode: EncodeTable, device: Device, twin: Twin | None, follow: Follow) -> Steered:
    """Return `device`, its drive free to follow a bias that walks.

    Args:
        table: [sentinel].
        encode: [encode], whose period is taken if [sentinel] has none.
        device: a static one.
        twin: of the device, or None.
        follow: moves the levels that the device adds.
    """
    port = device.spec.inputs
    if device.spec.temporal:
        static(table)
    found = _period(table, encode, port, twin)
    if found is not None and table.period is None and _too_wide(found, port):
        found = None  # it is known, and no drive can be moved by it
    margin = table.quantity("margin", port.unit)
    given = {"device": device, "period": found, "margin": margin, "follow": follow}
    made: Steered = construct(steered, given, table.place)
    return made


def _too_wide(period: Limit, port: Port) -> bool:
    limits = zip(each(port.low, port.size), each(port.high, port.size), each(period, port.size), strict=False)
    return any(one > high - low for low, high, one in limits)


def _period(table: SentinelTable, encode: EncodeTable, port: Port, twin: Twin | None) -> Limit | None:
    """Find the period of the node in the unit of its drive: of [sentinel], else of [encode], else of the twin."""
    if table.period is not None:
        return table.quantities("period", port.unit)
    if encode.period is not None:
        return encode.quantities("period", port.unit)
    return twin.period if isinstance(twin, Periodic) else None


def sentinel(
    table: SentinelTable, device: Device, inner: Steered, told: EventListener, on: torch.device, attend: Callable[[], None]
) -> DriftSentinel:  # fmt: skip
    """Make the sentinel that watches over `inner`.

    Args:
        table: [sentinel].
        device: the outermost device, through which the node is driven.
        inner: the one whose drive is moved.
        told: hears of every look.
        on: where the host computes.
        attend: see hil.device.Attentive.
    """
    from calibration.drift.sentinel import DriftSentinel  # with what it takes of scipy: a second and a half
    from calibration.drift.settings import SentinelSettings

    policy = tuple(table.policy) if isinstance(table.policy, list) else (table.policy,)
    settings = {"every": table.every, "policy": policy, "warn": table.warn, "act": table.act}
    watch: SentinelSettings = construct(SentinelSettings, settings, table.place)
    return DriftSentinel(device, inner, watch, told, on, attend=attend)
