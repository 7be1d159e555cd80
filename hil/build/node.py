"""An opened node, as a training and a script use it, and how it climbs the recovery ladder by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from calibration.certificate import Instrument
from calibration.drift.steering import Follow, unfollowed
from hil.device import Chip, Device, Provenance, Recoverable, Streaming
from hil.devices.recovery import EventListener, Ladder, Patience
from hil.devices.resilient import resilient, resilient_chip
from hil.devices.together import Attended, Together
from sim_devices.twin import Twin


def unattended() -> None:
    """Do nothing: the device's instruments, if it has any, say nothing of what they hold."""


@dataclass(frozen=True)
class Node:
    """An opened node: a Device that all neurons share in time, or a Chip that arrays are cut from.

    Args:
        twin: the differentiable model of a device, for references and reports.
        facts: for results.
        resources: instrument -> who answered; empty if nothing left this process.
        patience: with its faults.
        beat: a sign of life, for long pauses.
        settings: of the bench, whole, as text.
        beware: what must be told about its calibration.
        provenance: who answers, by who opened it.
        follow: moves the levels that the device adds.
        attend: see hil.device.Attentive.
        rest: outputs off at once, because of an error or None, before anything is written down; the device is closed with
            it.
        instruments: who answered, as values, by name in the bench file.
        parts: of a network with a device a layer, their nodes in the order of the layers; then source and chip are None.
        together: beats for the nodes of a network while one of them is waited for.
        outputs_after: what is known of the outputs of a bench once it is closed; "" of what is none.
    """

    source: Device | None
    chip: Chip | None
    twin: Twin | None
    facts: dict[str, Any]
    resources: dict[str, str]
    patience: Patience = field(default_factory=Patience)
    beat: Callable[[], None] = lambda: None
    settings: str = ""
    beware: tuple[str, ...] = ()
    provenance: Provenance = "unknown"
    follow: Follow = unfollowed
    attend: Callable[[], None] = unattended
    rest: Callable[[BaseException | None], None] = lambda error: None
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    parts: tuple[Node, ...] = ()
    together: Together | None = None
    outputs_after: str = ""


def outputs_after(nodes: Iterable[Node]) -> str:
    """Say what is known of the outputs of all `nodes` once they are closed; "" if none has any."""
    return "; ".join(dict.fromkeys(node.outputs_after for node in nodes if node.outputs_after))


def resilient_node(node: Node, told: EventListener) -> Node:
    """`node`, climbing the recovery ladder by itself."""

    def ladder(device: Recoverable) -> Ladder:
        return Ladder(device, node.patience, told, node.beat)

    if node.parts:
        parts = [resilient_node(part, told) for part in node.parts]
        together = node.together
        if together is not None:
            parts = [replace(p, source=None if p.source is None else Attended(p.source, together)) for p in parts]
        return replace(node, parts=tuple(parts))
    source = None if node.source is None else resilient(node.source, ladder)
    if source is not None and node.together is not None and not isinstance(source, Streaming):  # whose calls do not wait
        source = Attended(source, node.together)
    return replace(node, source=source, chip=None if node.chip is None else resilient_chip(node.chip, ladder))
