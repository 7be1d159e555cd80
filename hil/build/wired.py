"""A network around an opened node: its shots counted, drives encoded, readings decoded as the file says or as measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from hil.build import drift_sentinel
from hil.build.learner import fits_node, kind_of
from hil.build.network import Behind, Chain, on_chip, on_nodes
from hil.build.node import Node
from hil.build.trained_params import levels_of
from hil.config.device import DecodeTable, EncodeTable
from hil.config.experiment import Experiment
from hil.device import Device, Port
from hil.devices.meter import Allow, Metered, MeteredChip, metered, no_budget
from hil.devices.recovery import EventListener, ignore_event
from hil.encoding import Decode, Encode
from hil.errors import ConfigError
from hil.network import Network
from hil.training.transfer_curve import Transfer, measure, probed

if TYPE_CHECKING:
    from calibration.drift.sentinel import DriftSentinel


@dataclass(frozen=True)
class Wired:
    """A network around a node.

    Args:
        devices: all of them, counted; a learner may cut more from a chip while it is built.
        decodes: one a device, as [decode] and [device.decode] say or as it was measured; none for a chip.
        twin_check: how the twin predicted the node, see hil/training/transfer_curve.py.
    """

    net: Network
    devices: Callable[[], tuple[Metered, ...]]
    decodes: tuple[Decode, ...] = ()
    transfer: Transfer | None = None
    sentinel: DriftSentinel | None = None
    twin_check: dict[str, Any] | None = None


def wired(
    experiment: Experiment, node: Node, chain: Chain, on: torch.device, fresh: bool = False, allow: Allow = no_budget,
    told: EventListener = ignore_event,
) -> Wired:  # fmt: skip
    """Make the network: the synapses with the node, or an array of the chip, or a node each, behind all but the last.

    Args:
        experiment: as it was read.
        node: opened.
        chain: the synapses.
        on: where the host computes.
        fresh: as of hil.build.training.built.
        allow: asked before every shot, see Metered.
        told: hears of every look of the sentinel.

    Raises:
        ConfigError: the node does not fit the network or the learner. LinkError, InstrumentError, MeasurementError: from it.
    """
    if node.chip is not None:
        drift_sentinel.static(experiment.sentinel)
        chip = MeteredChip(node.chip, allow)
        return Wired(on_chip(chain, chip, partial(_encode, experiment.encode)), lambda: tuple(chip.devices))
    if chain.feedback is not None:
        raise ConfigError(
            "feedback closes a loop in time, and this node has no time", where=f"{experiment.network.place} feedback",
            got="a node", allowed='chip = "…" in [device], or a bench with a spiking board', todo="remove feedback",
        )  # fmt: skip
    if node.parts:
        return _a_layer_each(experiment, node, chain, on, allow)
    return _shared(experiment, node, chain, on, fresh, allow, told)


def _shared(
    experiment: Experiment, node: Node, chain: Chain, on: torch.device, fresh: bool, allow: Allow, told: EventListener
) -> Wired:  # fmt: skip
    """A network whose layers share one node in time, watched by the sentinel if there is one."""
    source, watch, learner = node.source, experiment.sentinel, experiment.learner
    assert source is not None  # neither a chip nor parts
    fits_node(learner, kind_of(source.spec), "safe; whatever was opened is closed again")
    steered = None
    if watch is not None:
        steered = drift_sentinel.steered_node(watch, experiment.encode, source, node.twin, node.follow)
    device = metered(source if steered is None else steered, allow)
    encode = _encode(experiment.encode, device.spec.inputs)
    first = next(iter(chain.programmed), None)
    levels = levels_of(experiment.params, device, None if first is None else first.numel())
    if levels is not None and first is not None:
        device.program(levels(first.detach()))  # what is measured is the node that training begins with
    decode, transfer = _decode(experiment.decode, device, on, fresh and node.twin is not None)
    sentinel = None
    if watch is not None and steered is not None:
        sentinel = drift_sentinel.sentinel(watch, device, steered, told, on, node.attend)
    net = on_nodes(chain, [Behind(device, encode, decode, levels)], experiment.network.pieces)
    return Wired(net, lambda: (device,), (decode,), transfer, sentinel, checked_twin(node, device, transfer, on))


def _a_layer_each(experiment: Experiment, node: Node, chain: Chain, on: torch.device, allow: Allow) -> Wired:
    """A network with a device a layer, each with its own encoding, and its own transfer curve unless the file has it."""
    behind: list[Behind] = []
    devices: list[Metered] = []
    for table, part, params in zip(experiment.device.layers, node.parts, chain.programmed, strict=True):
        assert part.source is not None  # a part is a single node
        device = metered(part.source, allow)
        if device.spec.temporal:
            raise ConfigError(
                "a device a layer is for nodes without state in time", where=table.place, got="a temporal device",
                allowed="static ones", outputs="safe; whatever was opened is closed again", todo="name another device",
            )  # fmt: skip
        encode = _encode(table.encode or experiment.encode, device.spec.inputs)
        levels = levels_of(table.params, device, None if params is None else params.numel())
        if levels is not None and params is not None:
            device.program(levels(params.detach()))
        decode, _ = _decode(table.decode or experiment.decode, device, on, False)
        behind.append(Behind(device, encode, decode, levels))
        devices.append(device)
    net = on_nodes(chain, behind, experiment.network.pieces)
    return Wired(net, lambda: tuple(devices), tuple(one.decode for one in behind))


@torch.no_grad()
def checked_twin(node: Node, device: Device, transfer: Transfer | None, on: torch.device) -> dict[str, Any] | None:
    """Compare a twin with the measured transfer curve; of a node of many channels, with probes of its own: one more shot.

    A node that is programmed is another one by each program, so no twin of it is judged here.
    """
    twin, spec = node.twin, device.spec
    if twin is None or transfer is None or spec.params is not None:
        return None
    if spec.inputs.size is None:
        return transfer.compare_twin(twin.ideal(transfer.drive), spec.outputs.unit)
    return probed(device, twin.ideal, place=on)


def _encode(table: EncodeTable, port: Port) -> Encode:
    period = None if table.period is None else table.quantities("period", port.unit)
    gain, offset = (table.quantities(key, port.unit) for key in ("gain", "offset"))
    return Encode.onto(port, gain, offset, table.overflow, period)


def _decode(table: DecodeTable | None, device: Device, on: torch.device, sweep: bool) -> tuple[Decode, Transfer | None]:
    unit = device.spec.outputs.unit
    if table is None and device.spec.memory:
        return Decode.of(device.spec.outputs), None
    if table is None:
        transfer = measure(device, place=on)
        return transfer.decode(), transfer
    sweep = sweep and not device.spec.memory  # what it answers depends on the past: there is no curve
    return Decode(table.quantity("zero", unit), table.quantity("scale", unit)), measure(device, place=on) if sweep else None
