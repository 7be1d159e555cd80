"""A wire or a dead node in the place of a static node: what the physics is worth is the difference.

[device]   instead = "wire"     linear: the range of the drive onto the range of the reading, without noise
           instead = "dead"     one reading, whatever the drive

The node is opened all the same, because its ports and its transfer curve say the ranges; it is driven for that curve alone. The
range of the reading is zero - scale to zero + scale of [decode], measured or written. Drives out of range are clipped: a wire
that is folded would be a sawtooth, which is no wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from hil.build.node import Node
from hil.config.device import DecodeTable, DeviceTable, EncodeTable
from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED
from hil.encoding import Decode
from hil.errors import ConfigError
from hil.training.transfer_curve import measure
from sim_devices.simulated import Simulated
from sim_devices.wire import Wire


def asked(experiment: Experiment) -> bool:
    """True if something takes the place of a node."""
    return any(table.instead for table in _tables(experiment))


def check(experiment: Experiment) -> None:
    """Refuse, before anything is opened, what makes no sense with something in the place of the node. Raises: ConfigError."""
    if not asked(experiment):
        return
    place = experiment.device.place
    if experiment.device.kind == "chip" or hasattr(experiment.learner.options, "time_steps"):
        raise no_stand_in(place, "spiking neurons")
    if experiment.sentinel is not None:
        raise ConfigError(
            "a wire and a dead node do not drift, so there is nothing to look at", where=experiment.sentinel.place,
            got="[sentinel] and instead in [device]", allowed="one of them", outputs=UNTOUCHED, todo="remove [sentinel]",
        )  # fmt: skip
    if experiment.train.record:
        raise ConfigError(
            "a wire and a dead node are computed, so there is nothing to record", where=place, outputs=UNTOUCHED,
            got="record = true and instead in [device]", allowed="one of them", todo="remove record, or --record",
        )  # fmt: skip


def no_stand_in(place: str, got: str) -> ConfigError:
    """The error of a node that nothing can take the place of."""
    return ConfigError(
        "a wire or a dead node can take the place of a static node only", where=place, got=got, outputs=UNTOUCHED,
        allowed="a node whose reading depends on the drive of the moment alone",
        todo="remove instead from [device], or ablation from the comparison",
    )  # fmt: skip


def stand_in(experiment: Experiment, node: Node, on: torch.device) -> tuple[Experiment, Node]:
    """Put a wire or a dead node where [device] asks for one; the experiment that comes back clips, and has [decode].

    Args:
        experiment: as it was read.
        node: opened.
        on: where the host computes.

    Raises:
        ConfigError: the node has a state in time. MeasurementError: it does not answer to its drive. Others: as the device.
    """
    if not asked(experiment):
        return experiment, node
    device = experiment.device
    if not device.layers:
        made, decode = _placed(device, node, experiment.decode, on)
        return experiment.model_copy(update={"encode": _clipping(experiment.encode), "decode": decode}), made
    layers, parts = [], []
    for table, part in zip(device.layers, node.parts, strict=True):
        if table.instead is None:
            layers.append(table)
            parts.append(part)
            continue
        made, decode = _placed(table, part, table.decode or experiment.decode, on)
        encode = _clipping(table.encode or experiment.encode)
        layers.append(table.model_copy(update={"encode": encode, "decode": decode}))
        parts.append(made)
    changed = device.model_copy(update={"layers": layers})
    facts: Mapping[str, Any] = {f"layer {number}": part.facts for number, part in enumerate(parts, 1)}
    return experiment.model_copy(update={"device": changed}), replace(node, facts=dict(facts), parts=tuple(parts))


def _placed(table: DeviceTable, node: Node, known: DecodeTable | None, on: torch.device) -> tuple[Node, DecodeTable]:
    """What `table` asks for in the place of a single node, and the decoding behind it, which is the node's."""
    if node.source is None or node.source.spec.temporal:
        raise no_stand_in(table.place, "neurons" if node.source is None else "a node with a state in time")
    unit = node.source.spec.outputs.unit
    if known is None:
        decode = measure(node.source, place=on).decode()
        known = DecodeTable(zero=decode.zero, scale=decode.scale)
        known.settle(f"{table.place}: [decode]")
    else:
        decode = Decode(known.quantity("zero", unit), known.quantity("scale", unit))
    wire = Wire(node.source.spec, decode.zero, 0.0 if table.instead == "dead" else decode.scale)
    made = Node(
        Simulated(wire), None, wire, {**node.facts, "instead": table.instead}, {}, node.patience, node.beat,
        provenance="twin", rest=node.rest,
    )  # fmt: skip
    return made, known


def _clipping(table: EncodeTable) -> EncodeTable:
    return table.model_copy(update={"overflow": "clip"})


def _tables(experiment: Experiment) -> list[DeviceTable]:
    return experiment.device.layers or [experiment.device]
