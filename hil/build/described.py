"""A script's run written as an experiment file, if a file could say it: `hil resume` then goes on with it by itself.

A file can make it again if all of it has a name: the layers of hil.dense around one bench of hil.open, a data set of hil.load,
a learner by its name. What a file would make must be the same to the last bit, the first weights included; else the run says
why it needs its script.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from hil import toml
from hil.build.given import PLACE, Given, GivenExperiment, script
from hil.build.network import chain_of
from hil.build.open_bench import Bench
from hil.config.experiment import Experiment, experiment_of
from hil.config.read import dump
from hil.data.dataset import Dataset, Split, load
from hil.data.sources import describe
from hil.encoding import Encode
from hil.errors import HilError
from hil.network import Layer, Network

GIVEN = ("python", "because", "network", "device", "data")  # sections that only a script's run has in that form


def described(found: Given, asked: str | None = None) -> Given:
    """`found`, its experiment as a file would say it; or as it was, with the reason why no file could.

    Args:
        found: what was given, checked.
        asked: the name of the data set, if that is what the script gave.
    """
    assert isinstance(found.experiment, GivenExperiment)  # as `given` made it
    why, table = _table(found, asked)
    if not why:
        try:
            experiment = experiment_of(table, found.experiment.near)
            why = _otherwise(found, experiment)
        except HilError as error:
            why = error.what
        if not why:
            return replace(found, experiment=experiment)
    return replace(found, experiment=found.experiment.model_copy(update={"because": why}))


def _table(found: Given, asked: str | None) -> tuple[str, dict[str, Any]]:
    """Return why no file says it, or "", and the tables of the file."""
    net, data = found.net, found.data
    benches = [device for device in net.devices if isinstance(device, Bench)]
    if len(benches) != 1 or len(net.devices) != 1 or net.chip is not None:
        return "its device is not one bench of hil.open", {}
    if found.learner is not None or ":" in found.experiment.learner.use:
        return "its learner was given as an object or a class", {}
    if found.twin is not None:
        return "a twin was given for its device", {}
    widths, hidden = _widths(net), net.stack[:-1]
    first = hidden[0] if hidden else None
    if widths is None or net.feedback is not None or first is None or first.encode is None:
        return "its network is not one of hil.dense", {}
    if any((layer.encode, layer.decode) != (first.encode, first.decode) for layer in hidden):
        return "its layers drive the bench in different ways", {}
    port, code = benches[0].spec.inputs, first.encode
    if Encode.onto(port, code.gain, code.offset, code.overflow, code.period) != code:
        return "its encoding has limits of its own", {}
    examples = {} if asked == data.name else _examples(data)
    if examples is None:
        return "its data set is none of those that hil list datasets shows", {}
    encode = {key: value for key, value in asdict(code).items() if key not in ("low", "high") and value is not None}
    kept = {key: value for key, value in toml.loads(dump(found.experiment)).items() if key not in GIVEN}
    return "", {
        **kept,
        "script": script(),
        "data": {"use": data.name, **examples},
        "network": {"widths": widths, "pieces": net.pieces},
        "device": {"bench": str(benches[0].file.file.resolve())},
        "encode": {key: list(value) if isinstance(value, tuple) else value for key, value in encode.items()},
        "decode": asdict(first.decode),
    }


def _widths(net: Network) -> list[int] | None:
    """Widths of plain linear layers, a device behind each but the last; None: it is another network."""
    layers: tuple[Layer, ...] = net.stack
    linear = [layer.synapse for layer in layers if type(layer.synapse) is nn.Linear and layer.params is None]
    devices = [layer.device is not None for layer in layers]
    if len(linear) != len(layers) or devices != [True] * (len(layers) - 1) + [False]:
        return None
    return [linear[0].in_features, *(synapse.out_features for synapse in linear)]


def _examples(data: Dataset) -> dict[str, Any] | None:
    """Return what [data] says besides the name, of a data set that is shipped; None: no file makes it. Downloads nothing."""
    try:
        if describe(data.name).layout != "csv":
            return None
        made = load(data.name)
    except HilError:
        return None
    count = len(data.train)
    parts = [(Split(made.train.x[:count], made.train.y[:count]), data.train)]
    parts += [(made.validation, data.validation), (made.test, data.test)]
    if not all(torch.equal(one.x, other.x) and torch.equal(one.y, other.y) for one, other in parts):
        return None
    return {} if count == len(made.train) else {"train_examples": count}


def _otherwise(found: Given, experiment: Experiment) -> str:
    """Return what a file would make otherwise, or ""."""
    made = chain_of(experiment.network, experiment.seed, found.data)
    for layer, synapse in zip(found.net.stack, made.synapses, strict=True):
        now, then = layer.synapse.state_dict(), synapse.state_dict()
        if now.keys() != then.keys() or any(not torch.equal(now[key].cpu(), then[key]) for key in now):
            return f"its first weights are not those of {PLACE} seed = {experiment.seed}"
    return ""
