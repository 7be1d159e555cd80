"""From [network] to synapses, and from synapses and nodes to a Network.

    [network]  widths = [784, 800, 10]                                          dense layers
    [network]  use = "conv", channels = [16, 32], readout = 10                  shape comes from the data set
    [network]  use = "module:function", and its settings                        -> a list of modules, the last one the readout

    feedback = { use = "dense", norm = 2.0 }        or "conv", kernel = 3: from the last hidden layer back to the first

A node stands behind every synapse but the last. A node shared in time is the same Device in every layer; from a chip each layer
gets an array of its own width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED
from hil.contraction import conv_feedback, dense_feedback
from hil.data.dataset import Dataset
from hil.device import ArraySpec, Chip, Device, Port
from hil.encoding import Decode, Encode
from hil.errors import ConfigError
from hil.hints import counted
from hil.network import Layer, Network
from hil.seeding import key
from hil.synapses import BesideLinear, flat_widths, reads

CHANCY = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.FractionalMaxPool2d)


def synapses(experiment: Experiment, data: Dataset) -> list[nn.Module]:
    """The synapses, initialised from the experiment's seed, checked against the data.

    Raises:
        ConfigError: a network that does not fit the data.
    """
    chosen = experiment.network.choice
    parameters = inspect.signature(chosen.made).parameters
    if "shape" in parameters and "shape" not in chosen.settings:
        chosen = chosen.changed(shape=data.shape)
    missing = [name for name, one in parameters.items() if one.default is one.empty and name not in chosen.settings]
    if missing:
        raise ConfigError(
            f"{missing[0]} is missing", where=chosen.place, outputs=UNTOUCHED, todo=f"add {missing[0]} to the file"
        )
    with torch.random.fork_rng(devices=[]):  # torch initialises modules from its global generator: keyed, then given back
        torch.manual_seed(key(experiment.seed, 0, "weights"))
        found: list[nn.Module] = chosen.build()
    _are_synapses(found, chosen.place)
    _fits(found, chosen.settings, data, chosen.place)
    return found


def _are_synapses(found: object, place: str) -> None:
    if not (isinstance(found, list) and found and all(isinstance(module, nn.Module) for module in found)):
        raise ConfigError(
            "[network] use does not give synapses", where=place, got=type(found).__name__, allowed="a list of torch modules",
            outputs=UNTOUCHED, todo="name a function that returns them, the readout last",
        )  # fmt: skip
    chancy = [type(part).__name__ for module in found for part in module.modules() if isinstance(part, CHANCY)]
    if chancy:  # a gradient runs a synapse once more, and would draw anew
        raise ConfigError(
            "a synapse draws random numbers of its own", where=place, got=", ".join(dict.fromkeys(chancy)),
            allowed="modules that give the same answer to the same input", outputs=UNTOUCHED,
            todo="take it out; for dropout set dropout in [learner], where the learner has it",
        )  # fmt: skip


def _fits(found: Sequence[nn.Module], settings: Mapping[str, Any], data: Dataset, place: str) -> None:
    features, outputs = data.train.x.shape[1], data.outputs
    widths = settings.get("widths")
    wrong = isinstance(widths, list) and widths and widths[0] != features
    if wrong or flat_widths(found, features)[-1] < outputs:
        got = f"widths {widths}" if wrong else counted(flat_widths(found, features)[-1], "output")
        raise ConfigError(
            f"the network does not fit {data.name}",
            where=place,
            got=got,
            allowed=f"{counted(features, 'input')}, {counted(outputs, 'output')}",
            outputs=UNTOUCHED,
            todo=f"write widths = [{features}, ..., {outputs}]",
        )


def largest(found: Sequence[nn.Module]) -> int:
    """Weights of the largest synapse, as a measure of the work."""
    return max((sum(p.numel() for p in module.parameters()) for module in found), default=0)


@dataclass(frozen=True)
class Behind:
    """A device behind a synapse, and what stands between the two."""

    device: Device
    encode: Encode
    decode: Decode


def on_nodes(found: Sequence[nn.Module], nodes: Sequence[Behind], pieces: int, features: int) -> Network:
    """Put a node behind every synapse but the last.

    Args:
        found: the synapses.
        nodes: one a hidden layer; one alone stands behind each of them, shared in time.
        pieces: of a batch, see Network.
        features: inputs of the first synapse.

    Raises:
        ConfigError: another number of nodes than hidden layers, a layer is no multiple of its node's fixed width, or a synapse
            reads other than the node answers.
    """
    widths = flat_widths(found, features)[1:-1]
    every = [nodes[0]] * len(widths) if len(nodes) == 1 else list(nodes)
    if len(every) != len(widths):
        raise ConfigError(
            "a device a layer is one for each hidden layer", where="[[device]]", got=f"{len(every)} devices",
            allowed=f"{len(widths)}, or one alone for all", todo="add or remove a [[device]], or a width in [network]",
        )  # fmt: skip
    sizes = [one.device.spec.inputs.size for one in every]
    if any(size is not None and width % size for size, width in zip(sizes, widths, strict=True)):
        allowed = f"{sizes[0]} each" if len(nodes) == 1 else ", ".join("any" if size is None else str(size) for size in sizes)
        raise ConfigError(
            "hidden layers must be as wide as the device, or a multiple of it", where="[network]", got=str(widths),
            allowed=f"{allowed}, or multiples of it",
        )  # fmt: skip
    hidden = [Layer(synapse, one.device, one.encode, one.decode) for synapse, one in zip(found[:-1], every, strict=True)]
    for number, (synapse, sent, layer) in enumerate(zip(found[1:], widths, hidden, strict=True), 1):
        answered = layer.answers(sent)
        wanted = answered + sent if isinstance(synapse, BesideLinear) else answered
        if (reads(synapse) or sent) != wanted:
            raise ConfigError(
                f"synapse {number} does not read what the device answers", where="[network]",
                got=f"{reads(synapse) or sent} values", allowed=f"{wanted}", todo=f"write answers = {answered}",
            )  # fmt: skip
    return Network([*hidden, Layer(found[-1])], pieces=pieces)


def closing(experiment: Experiment, found: Sequence[nn.Module], features: int) -> nn.Module | None:
    """The synapse of [network] feedback, from the last hidden layer to the first, initialised from the experiment's seed.

    Raises:
        ConfigError: no hidden layer, or "conv" between layers that are no maps or do not fit.
    """
    table = experiment.network.feedback
    if table is None:
        return None
    if len(found) < 2:
        raise ConfigError("feedback needs a hidden layer", where="[network] feedback", outputs=UNTOUCHED)
    widths = flat_widths(found, features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(experiment.seed, 0, "feedback weights"))
        if table.use == "dense":
            return dense_feedback(widths[-2], widths[1], table.norm, table.scale)
        maps = _maps(found[-2], widths[-3]), _maps(found[0], widths[0])
        return conv_feedback(*maps, table.kernel, table.norm, table.scale)


@torch.no_grad()
def _maps(synapse: nn.Module, features: int) -> tuple[int, ...]:
    """(channels, height, width) of what a convolutional synapse gives, before it is made flat."""
    if isinstance(synapse, nn.Sequential) and isinstance(synapse[-1], nn.Flatten):
        shape = tuple(synapse[:-1](torch.zeros(1, features)).shape[1:])
        if len(shape) == 3:
            return shape
    raise ConfigError(
        "feedback between maps needs convolutional layers", where="[network] feedback", got=type(synapse).__name__,
        allowed='use = "conv" in [network]', outputs=UNTOUCHED, todo='use = "dense" in the feedback',
    )  # fmt: skip


def on_chip(
    found: Sequence[nn.Module], chip: Chip, encode: Callable[[Port], Encode], features: int, feedback: nn.Module | None = None
) -> Network:
    """An array of neurons behind each synapse but the last."""
    widths = flat_widths(found, features)[1:-1]
    hidden = []
    for synapse, width in zip(found[:-1], widths, strict=True):
        array = chip.array(ArraySpec(width))
        hidden.append(Layer(synapse, array, encode(array.spec.inputs)))
    return Network([*hidden, Layer(found[-1])], feedback, chip=chip)
