"""diagnostics.json: what the report draws besides curves; measured at the end of a run, on validation examples.

transfer   the node's curve as measured at the start, its spread, and the twin's
pre        per hidden layer, a histogram of the drive that the network really uses, over the node's port
feedback   per hidden layer, g and f' over what was visited, and their correlation. Static nodes: over the pre-activation, f' is
           the twin's slope. Spiking nodes: over the membrane above threshold, f' is the slope of a relaxed spike, sigma(4 u);
           `feedback_over` and `feedback_slope` say which
time       where the time went, in seconds
layers     per layer: the angle between the learner's direction and the gradient (`angle_to`) in degrees, the firing rate of its
           neurons, and the share of the node's range between the 1st and the 99th hundredth of its drives
traffic    of one training step, and of one prediction: node evaluations and bits per example, calls in all
programmed what is trained on devices, see hil/training/programmed.py
operations of one training step of a spiking network, forward and backward (hil/learners/parts/operations.py), per example, and
           the spikes per neuron and step of the network's arrays (forward) and of those of the learner (backward)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from hil.devices.traffic import Traffic
from hil.feedback.feedback import correlation
from hil.learner import Tracing
from hil.learners.adfa import ADFA, slope
from hil.learners.adfa_snn import ADFASNN
from hil.learners.deep_reservoir import DeepReservoir
from hil.learners.parts.neuron_model import bump
from hil.learners.parts.operations import Counted
from hil.network import Layer
from hil.port import each, limit_tensor
from hil.run.folder import RunFolder
from hil.training import programmed
from hil.training.gradient_check import FEW_EXAMPLES, GradientLook, look
from hil.training.state import Training
from hil.training.transfer_curve import Transfer

EXAMPLES = 256
BINS = 80
GRID = 200

Model = Callable[[Tensor], Tensor]


def transfer_table(transfer: Transfer, model: Model | None, drive_unit: str, reading_unit: str) -> dict[str, Any]:
    """The measured curve beside the twin's, as lists."""
    return {
        "drive": transfer.drive.tolist(),
        "measured": transfer.mean.tolist(),
        "spread": transfer.spread.tolist(),
        "twin": None if model is None else model(transfer.drive).detach().tolist(),
        "drive_unit": drive_unit,
        "reading_unit": reading_unit,
    }


def write(
    folder: RunFolder, training: Training, model: Model | None, wall_s: float,
    settled: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Add the rest to the run's diagnostics.json, and return it all.

    It costs one more step, and two more passes of EXAMPLES examples; three where aDFA trains spiking neurons.

    Args:
        folder: of the run.
        training: at its end, with the best weights.
        model: of a node of one channel, drive -> reading; None: there is none.
        wall_s: of the run.
        settled: of a node that is programmed, (drive, levels) -> reading; None: likewise.
    """
    some, learner = training.data.validation.x[:EXAMPLES].to(training.net.place), training.learner
    trace = learner.trace(training.net, some) if isinstance(learner, Tracing) else training.net(some)
    hidden = [(layer, pre) for layer, pre in zip(training.net.stack, trace.pre, strict=True) if layer.encode is not None]
    found = folder.read_json("diagnostics.json")
    found["pre"] = [_histogram(layer, pre) for layer, pre in hidden]
    found |= _feedback(training, some, hidden, model)
    found["time"] = times(training, wall_s)
    if told := programmed.table(training, trace, settled):
        found["programmed"] = told
    found |= _looked(training, model, dict(zip((id(layer) for layer, _ in hidden), (pre for _, pre in hidden), strict=True)))
    folder.write_json("diagnostics.json", found)
    return found


def _looked(training: Training, model: Model | None, pre: Mapping[int, Tensor]) -> dict[str, Any]:
    """Return layers and traffic.

    Args:
        training: at its end.
        model: of the node, differentiable, or None.
        pre: pre-activations of a layer, by its id.
    """
    seen, specs = look(training, model, EXAMPLES), [device.spec for device in training.devices]
    rates = {id(d): t.firing_rate(s) for d, t, s in zip(training.devices, seen.prediction, specs, strict=True)}
    layers = [
        {
            "angle_deg": angle,
            "firing_rate": rates.get(id(layer.device)),
            "range_use": _range_use(layer, pre[id(layer)]) if id(layer) in pre else None,
        }
        for layer, angle in zip(training.net.stack, seen.angles, strict=True)
    ]

    def cost(parts: Sequence[Traffic]) -> dict[str, float]:
        bits = sum(part.bits(spec) for part, spec in zip(parts, specs, strict=True))
        passes = sum(part.sent for part in parts)
        calls = sum(part.calls for part in parts)
        return {"passes_per_example": passes / seen.examples, "bits_per_example": bits / seen.examples, "calls": calls}

    traffic = {"examples": seen.examples, "step": cost(seen.step), "prediction": cost(seen.prediction)}
    found = {"layers": layers, "no_angle": seen.why, "angle_to": seen.to, "traffic": traffic}
    if seen.operations is not None:
        found["operations"] = _operations(training, seen, seen.operations)
    return found


def _operations(training: Training, seen: GradientLook, counted: Counted) -> dict[str, dict[str, Any]]:
    """The operations of both directions, with the firing rates of the arrays that work in each."""
    own = [device in [layer.device for layer in training.net.stack] for device in training.devices]
    forward = _rate(compress(seen.step, own)) or _rate(compress(seen.prediction, own))  # a step may ask no device
    backward = _rate(traffic for traffic, mine in zip(seen.step, own, strict=True) if not mine)
    return {
        "forward": {**counted.forward.table(seen.examples), "firing_rate": forward},
        "backward": {**counted.backward.table(seen.examples), "firing_rate": backward},
    }


def _rate(some: Iterable[Traffic]) -> float | None:
    """Spikes per neuron and time step of several devices; None if none was asked."""
    whole = list(some)
    read = sum(traffic.read for traffic in whole)
    return sum(traffic.fired for traffic in whole) / read if read else None


def _range_use(layer: Layer, pre: Tensor) -> float:
    """0 to 1: how much of its node's range the layer uses, outliers left out."""
    encode = layer.encode
    assert encode is not None  # the caller chose layers with a device
    drive = layer.drive(pre).cpu()
    least, most = (limit_tensor(limit, drive) for limit in (encode.low, encode.high))
    share = ((drive - least) / (most - least)).nan_to_num(0.0, 0.0, 0.0).flatten()  # of the range of its own channel
    low, high = (float(share.kthvalue(max(1, round(q * share.numel()))).values) for q in (0.01, 0.99))
    return high - low


def times(training: Training, wall_s: float) -> dict[str, float]:
    """Seconds by activity. What the device does while the host computes is host time: only waiting counts as device."""
    spent = dict(training.seconds)
    device = min(training.device_s, wall_s)
    host = max(spent["learner_s"] + spent["evaluate_s"] - device, 0.0)
    shown = {"device_s": device, "host_s": host, "optimizer_s": spent["optimizer_s"], "data_s": spent["data_s"]}
    return {**shown, "other_s": max(wall_s - sum(shown.values()), 0.0)}


def _histogram(layer: Layer, pre: Tensor) -> dict[str, list[float]]:
    encode = layer.encode
    assert encode is not None  # the caller chose layers with a device
    low, high = min(each(encode.low, None)), max(each(encode.high, None))
    counts = torch.histc(encode(pre).cpu(), BINS, low, high)
    return {"edges": torch.linspace(low, high, BINS + 1).tolist(), "counts": counts.tolist()}


def _feedback(training: Training, some: Tensor, hidden: Sequence[tuple[Layer, Tensor]], model: Model | None) -> dict[str, Any]:
    """Return feedback, and over what and of what its slopes are."""
    learner = training.learner
    if isinstance(learner, ADFASNN):
        visited = learner.visited(training.net, some)
        layers = [_compared(learner.feedback.g, u, bump) for u in visited]
        return {"feedback": layers, "feedback_over": "membrane above threshold", "feedback_slope": "a relaxed spike"}
    g = learner.feedback.g if isinstance(learner, ADFA | DeepReservoir) else None
    layers = [_compared(g, pre, None if model is None else partial(slope, layer, model)) for layer, pre in hidden]
    if isinstance(learner, DeepReservoir) and learner.model is not None:  # its slope depends on the past: it is no curve
        for found, alike in zip(layers, learner.correlations(training.net, some[:FEW_EXAMPLES], learner.model), strict=True):
            found["correlation"] = alike
    return {"feedback": layers, "feedback_over": "pre-activation", "feedback_slope": "the twin"}


def _compared(g: Model | None, visited: Tensor, steep: Model | None) -> dict[str, Any]:
    grid = torch.linspace(float(visited.min()), float(visited.max()), GRID, device=visited.device)
    return {
        "pre": grid.tolist(),
        "g": None if g is None else g(grid).tolist(),
        "slope": None if steep is None else steep(grid).tolist(),
        "correlation": None if g is None or steep is None else correlation(g(visited), steep(visited)),
    }
