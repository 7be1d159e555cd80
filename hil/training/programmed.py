"""What a run tells of what it programmed: the levels after each epoch, and at its end how often each was written.

In metrics.jsonl, in the line of training: `levels`, by layer, of at most MOST_SHOWN channels (`shown`), in the unit of the
port. In diagnostics.json `programmed`, a table for each layer: all channels, and what the device read beside its twin in the
state with the best weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hil.devices.meter import Metered
from hil.network import Layer, Network, Trace
from hil.training.state import Training

MOST_SHOWN, MOST_PAIRS = 64, 500
FIGURES = 6


def shown(size: int) -> list[int]:
    """Return channels, from 0, whose levels are kept after each epoch: all, or MOST_SHOWN of them, evenly apart."""
    return sorted({round(float(at)) for at in torch.linspace(0, size - 1, min(size, MOST_SHOWN))})


def programmed(net: Network) -> dict[str, Layer]:
    """Return the layers whose device has something programmed on it, by name, whether it is trained or stays."""
    return {f"layers.{number}": layer for number, layer in enumerate(net.stack) if layer.levels is not None}


def levels(layer: Layer, params: Tensor | None = None) -> list[float]:
    """Return the levels of a layer, (P,), in the unit of its port.

    Args:
        layer: one of `programmed`.
        params: (P,), -1 to 1; None: as they are now.
    """
    assert layer.levels is not None
    assert layer.params is not None
    found: list[float] = layer.levels((layer.params if params is None else params).detach()).tolist()
    return found


def after_epoch(training: Training) -> dict[str, Any]:
    """What the line of an epoch has more: levels, and the counts so far; nothing where nothing is programmed."""
    layers = programmed(training.net)
    if not layers:
        return {}
    told = {name: [_short(levels(layer)[k]) for k in shown(len(levels(layer)))] for name, layer in layers.items()}
    return {"device_programs": training.device_programs, "device_writes": training.device_writes, "levels": told}


def table(training: Training, trace: Trace, model: Callable[..., Tensor] | None) -> list[dict[str, Any]]:
    """Return `programmed` of diagnostics.json.

    Args:
        training: at its end, with the best weights.
        trace: of a pass of static nodes with these.
        model: (drive, levels) -> reading, of the node; None: there is none.
    """
    found = []
    for number, (layer, pre, answer) in enumerate(zip(training.net.stack, trace.pre, trace.outputs, strict=True)):
        device = layer.device
        if layer.levels is None or not isinstance(device, Metered) or device.spec.params is None:
            continue
        facts: dict[str, Any] = {
            "layer": number + 1, "unit": device.spec.params.unit,
            "low": list(layer.levels.low), "high": list(layer.levels.high),
            "levels": levels(layer), "shown": shown(len(layer.levels.low)), "writes": device.written,
        }  # fmt: skip
        if model is not None:
            facts |= _beside(layer, pre, answer, model, device.spec.outputs.unit)
        found.append(facts)
    return found


@torch.no_grad()
def _beside(layer: Layer, pre: Tensor, answer: Tensor, model: Callable[..., Tensor], unit: str) -> Mapping[str, Any]:
    """What was read, what the twin says, and how far they are apart, over all readings; some of them as pairs."""
    read, said = (layer.decode.inverse(one).flatten().double().cpu() for one in (answer, layer.through(model, pre)))
    some = torch.linspace(0, read.numel() - 1, min(read.numel(), MOST_PAIRS)).long()
    off = read - said
    return {
        "reading_unit": unit, "read": [_short(value) for value in read[some].tolist()],
        "twin": [_short(value) for value in said[some].tolist()], "off_rms": float(off.square().mean().sqrt()),
        "off_mean": float(off.mean()), "swing": float(read.max() - read.min()),
    }  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.{FIGURES}g}")
