"""Synapses from [network], and a Network from synapses and the nodes behind them.

    [network]  widths = [784, 800, 10]                                          dense layers
    [network]  use = "conv", channels = [16, 32], readout = 10                  shape comes from the data set
    [network]  use = "module:function", and its settings                        -> a list of modules, the last one the readout

    feedback = { use = "dense", norm = 2.0 }        or "conv", kernel = 3: from the last hidden layer back to the first

A node stands behind every synapse but the last. A node shared in time is the same Device in every layer; from a chip each layer
gets an array of its own width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import nn

from hil.config.experiment import FeedbackTable, NetworkTable
from hil.config.resolve import UNTOUCHED, Choice
from hil.contraction import conv_feedback, dense_feedback
from hil.data.dataset import Dataset
from hil.device import ArraySpec, Chip, Device, Port
from hil.encoding import Decode, Encode, Levels
from hil.errors import ConfigError
from hil.foreign import foreign
from hil.hints import counted
from hil.network import Layer, Network
from hil.seeding import key
from hil.synapses import BesideLinear, LateLinear, flat_widths, reads

CHANCY = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.FractionalMaxPool2d)


@dataclass(frozen=True)
class Chain:
    """Synapses in a row, before a device stands behind each but the last.

    Args:
        synapses: the last one is the readout.
        widths: values of an example before, between and behind the synapses.
        feedback: closes the loop of a spiking network, or None.
        params: what is programmed on the device of each hidden layer and trained, (P,), or None; empty: nothing is.
    """

    synapses: tuple[nn.Module, ...]
    widths: tuple[int, ...]
    feedback: nn.Module | None = None
    params: tuple[nn.Parameter | None, ...] = ()

    @classmethod
    def of(
        cls, synapses: Sequence[nn.Module], features: int, feedback: nn.Module | None = None,
        params: Sequence[nn.Parameter | None] = (),
    ) -> Chain:  # fmt: skip
        """Measure the widths behind `features` inputs.

        Raises:
            ConfigError: a synapse does not take what the one before gives.
        """
        return cls(tuple(synapses), tuple(flat_widths(synapses, features)), feedback, tuple(params))

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return self.widths[1:-1]

    @property
    def largest(self) -> int:
        """Weights of the largest synapse, as a measure of the work."""
        return largest(self.synapses)

    @property
    def modules(self) -> nn.ModuleList:
        """The synapses, the feedback and what is programmed on devices, as one module of torch."""
        programmed = nn.ParameterList([one for one in self.params if one is not None])
        return nn.ModuleList([*self.synapses, *([] if self.feedback is None else [self.feedback]), programmed])

    @property
    def programmed(self) -> tuple[nn.Parameter | None, ...]:
        """What is programmed and trained of each hidden layer, or None."""
        return self.params or (None,) * len(self.hidden)


def largest(synapses: Sequence[nn.Module]) -> int:
    """Weights of the largest synapse, as a measure of the work."""
    return max((sum(p.numel() for p in module.parameters()) for module in synapses), default=0)


def chain_of(table: NetworkTable, seed: int, data: Dataset) -> Chain:
    """Make the synapses and the feedback of [network].

    Args:
        table: [network].
        seed: of the experiment; the first weights are drawn from it.
        data: what is learned; the network must fit them.

    Raises:
        ConfigError: the network does not fit the data, or has no place for its feedback.
    """
    features, outputs, widths = data.train.x.shape[-1], data.outputs, table.choice.settings.get("widths")
    wrong = isinstance(widths, list) and bool(widths) and widths[0] != features
    chain = None if wrong else Chain.of(_synapses(table.choice, seed, data.shape), features)
    if chain is None or chain.widths[-1] < outputs:
        raise ConfigError(
            f"the network does not fit {data.name}", where=table.place, outputs=UNTOUCHED,
            got=f"widths {widths}" if chain is None else counted(chain.widths[-1], "output"),
            allowed=f"{counted(features, 'input')}, {counted(outputs, 'output')}",
            todo=f"write widths = [{features}, ..., {outputs}]",
        )  # fmt: skip
    return chain if table.feedback is None else replace(chain, feedback=_feedback(table.feedback, chain, seed))


def _synapses(chosen: Choice, seed: int, shape: Sequence[int]) -> list[nn.Module]:
    """Make synapses.

    Args:
        chosen: what makes them, and its settings, as in [network].
        seed: of the experiment; the first weights are drawn from it.
        shape: of an example.

    Raises:
        ConfigError: a setting is missing, or these are no synapses.
    """
    parameters = inspect.signature(chosen.made).parameters
    if "shape" in parameters and "shape" not in chosen.settings:
        chosen = chosen.changed(shape=shape)
    missing = [name for name, one in parameters.items() if one.default is one.empty and name not in chosen.settings]
    if missing:
        raise ConfigError(
            f"{missing[0]} is missing", where=chosen.place, outputs=UNTOUCHED, todo=f"add {missing[0]} to the file"
        )
    with torch.random.fork_rng(devices=[]):  # torch initialises modules from its global generator: keyed, then given back
        torch.manual_seed(key(seed, 0, "weights"))
        found: list[nn.Module] = chosen.build()
    if not (isinstance(found, list) and found and all(isinstance(module, nn.Module) for module in found)):
        raise ConfigError(
            "[network] use does not give synapses", where=chosen.place, got=type(found).__name__,
            allowed="a list of torch modules", outputs=UNTOUCHED, todo="name a function that returns them, the readout last",
        )  # fmt: skip
    chancy = [type(part).__name__ for module in found for part in module.modules() if isinstance(part, CHANCY)]
    if chancy:  # a gradient runs a synapse once more, and would draw anew
        raise ConfigError(
            "a synapse draws random numbers of its own", where=chosen.place, got=", ".join(dict.fromkeys(chancy)),
            allowed="modules that give the same answer to the same input", outputs=UNTOUCHED,
            todo="take it out; for dropout set dropout in [learner], where the learner has it",
        )  # fmt: skip
    return found


@torch.no_grad()
def takes_batches(chain: Chain, batch: int, examples: int, place: str) -> None:
    """Send every size of batch that training will use through copies of the synapses, once.

    Args:
        chain: the synapses.
        batch: examples in a step, as [train] says.
        examples: of the training split.
        place: of [network], for messages.

    Raises:
        ConfigError: a synapse does not take such a batch, or gives other than float32.
    """
    whole = min(batch, examples)
    for count in dict.fromkeys(n for n in (whole, examples % whole) if n):
        for number, (synapse, sent, answered) in enumerate(zip(chain.synapses, chain.widths, chain.widths[1:], strict=False)):
            where = f"{place} synapse {number}, a batch of {count}"
            todo = "change the synapse, or [train] batch"
            if count == 1:
                good = next((n for n in range(max(2, batch), examples) if examples % n != 1), examples)
                todo = f"[train] batch = {good} leaves no batch of one example: {examples:,} examples are {examples // batch:,}"
                todo += f" batches of {batch} and one of {examples % batch}" if examples % batch else f" batches of {batch}"
            with foreign(where, ConfigError, UNTOUCHED, todo):
                answer = deepcopy(synapse)(torch.zeros(count, reads(synapse) or sent))
            if answer.dtype != torch.float32 or len(answer) != count:
                shape = tuple(answer.shape)
                raise ConfigError(
                    "a synapse gives float32, an answer an example", where=where, outputs=UNTOUCHED, todo="change the synapse",
                    got=f"{answer.dtype}, shape {shape}", allowed=f"float32, shape ({count}, {answered})",
                )  # fmt: skip


@dataclass(frozen=True)
class Behind:
    """A device behind a synapse, and what stands between the two."""

    device: Device
    encode: Encode
    decode: Decode
    levels: Levels | None = None


def one_each(devices: int, chain: Chain) -> None:
    """Raises: ConfigError: so many devices are not one for each hidden layer."""
    if devices != len(chain.hidden):
        raise ConfigError(
            "a device a layer is one for each hidden layer", where="[[device]]", got=counted(devices, "device"),
            allowed=f"{len(chain.hidden)}; one [device] is behind all", todo="add or remove one, or a width in [network]",
        )  # fmt: skip


def on_nodes(chain: Chain, nodes: Sequence[Behind], pieces: int | None) -> Network:
    """Put a node behind every synapse but the last.

    Args:
        chain: the synapses.
        nodes: one a hidden layer; one alone stands behind each of them, shared in time.
        pieces: of a batch, see Network.

    Raises:
        ConfigError: another number of nodes than hidden layers, a layer is no multiple of its node's fixed width, or a synapse
            reads other than the node answers.
    """
    found, widths = chain.synapses, chain.hidden
    every = [nodes[0]] * len(widths) if len(nodes) == 1 else list(nodes)
    one_each(len(every), chain)
    sizes = [one.device.spec.inputs.size for one in every]
    memory = any(one.device.spec.memory for one in every)  # its rows are steps of time, so a layer cannot be cut into rows
    if any(size is not None and (width != size if memory else width % size) for size, width in zip(sizes, widths, strict=True)):
        allowed = f"{sizes[0]} each" if len(nodes) == 1 else ", ".join("any" if size is None else str(size) for size in sizes)
        more = ("", "") if memory else (", or a multiple of it", ", or multiples of it")
        raise ConfigError(
            f"hidden layers must be as wide as the device{more[0]}", where="[network]", got=str(list(widths)),
            allowed=f"{allowed}{more[1]}",
        )  # fmt: skip
    hidden = [
        Layer(synapse, one.device, one.encode, one.decode, params, one.levels)
        for synapse, one, params in zip(found[:-1], every, chain.programmed, strict=True)
    ]
    for number, (synapse, sent, layer) in enumerate(zip(found[1:], widths, hidden, strict=True), 1):
        answered = layer.answers(sent)
        wanted = answered + sent if isinstance(synapse, BesideLinear) else answered
        wanted *= len(synapse.lags) if isinstance(synapse, LateLinear) else 1
        if (reads(synapse) or sent) != wanted:
            raise ConfigError(
                f"synapse {number} does not read what the device answers", where="[network]",
                got=f"{reads(synapse) or sent} values", allowed=f"{wanted}", todo=f"write answers = {answered}",
            )  # fmt: skip
    return Network([*hidden, Layer(found[-1])], pieces=pieces)


def _feedback(table: FeedbackTable, chain: Chain, seed: int) -> nn.Module:
    """Make the synapse from the last hidden layer to the first, initialised from the experiment's seed.

    Raises:
        ConfigError: no hidden layer, or "conv" between layers that are no maps or do not fit.
    """
    found, widths = chain.synapses, chain.widths
    if len(found) < 2:
        raise ConfigError("feedback needs a hidden layer", where="[network] feedback", outputs=UNTOUCHED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, 0, "feedback weights"))
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


def on_chip(chain: Chain, chip: Chip, encode: Callable[[Port], Encode]) -> Network:
    """Put an array of neurons behind each synapse but the last."""
    hidden = []
    for synapse, width in zip(chain.synapses[:-1], chain.hidden, strict=True):
        array = chip.array(ArraySpec(width))
        hidden.append(Layer(synapse, array, encode(array.spec.inputs)))
    return Network([*hidden, Layer(chain.synapses[-1])], chain.feedback, chip=chip)
