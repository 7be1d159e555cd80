"""From an experiment file to objects that can train: the composition root below the command line.

Everything that can be refused without hardware is checked first: data, classes, settings. Then the device is opened, its
transfer curve measured, the network built around it. Whatever was opened is closed, outputs safe, when the context ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hil.chance import generator, key
from hil.config import Experiment, arguments, default_threads, find, read_bench, resolve
from hil.data import Dataset, load, subset
from hil.device import Device, Port
from hil.encoding import Decode, Encode
from hil.errors import ConfigError
from hil.learner import Learner
from hil.network import Layer, Network
from hil.run import diagnostics
from hil.run.loop import Plan, Training
from hil.run.meter import Metered, metered
from hil.run.session import Labels
from hil.run.transfer import Transfer, measure
from hil.units import quantity
from sim_devices.simulated import Simulated
from sim_devices.twin import Twin

LEARNERS = {
    "adfa": "hil.learners.adfa:ADFA",
    "dfa": "hil.learners.dfa:DFA",
    "backprop": "hil.learners.backprop:Backprop",
}
FUSED = ("Adam", "AdamW", "SGD")  # torch's optimisers with a fused step on CPU
TWINS = {"mach_zehnder": "sim_devices.mach_zehnder:MachZehnder"}


@dataclass(frozen=True)
class Node:
    """An opened device and what is known of it. twin: the differentiable belief about it, for references and reports."""

    device: Device
    twin: Twin | None
    facts: dict[str, Any]
    resources: dict[str, str]


@dataclass(frozen=True)
class Built:
    """A training ready to run, and what the report wants to know. `transfer` is None when a saved decoding was used."""

    training: Training
    node: Node
    labels: Labels
    experiment: Experiment
    transfer: Transfer | None

    @property
    def model(self) -> Callable[[Tensor], Tensor] | None:
        """The twin's noiseless response, drive -> reading."""
        return None if self.node.twin is None else self.node.twin.ideal

    def transfer_table(self) -> dict[str, Any]:
        """The measured transfer curve beside the twin's, for diagnostics.json."""
        assert self.transfer is not None  # only called when it was measured
        spec = self.node.device.spec
        return diagnostics.transfer_table(self.transfer, self.model, spec.inputs.unit, spec.outputs.unit)

    def introduction(self) -> Iterator[str]:
        """What is about to happen, a line each."""
        for name, line in self.node.resources.items():
            yield f"{name:<7} {line}"
        facts = ", ".join(f"{k} {v}" for k, v in self.node.facts.items())
        yield f"node    {facts}   ({self.labels.provenance})"
        data, net = self.training.data, self.experiment.network
        yield (
            f"data    {data.name}: {len(data.train):,} train · {len(data.validation):,} validation · {len(data.test):,} test"
            f"   network {'-'.join(map(str, net.widths))}, {self.experiment.learner.use}"
        )


def dataset(experiment: Experiment, where: str) -> Dataset:
    """The data, checked against the network's width.

    Raises:
        DataError, ConfigError.
    """
    table = experiment.data
    data = load(table.use, Path(table.dir) if table.dir else None)
    if table.train_examples is not None:
        data = subset(data, table.train_examples)
    features, widths = data.train.x.shape[1], experiment.network.widths
    if widths[0] != features or widths[-1] != len(data.classes):
        raise ConfigError(
            f"the network does not fit {table.use}",
            where=f"{where}: [network] widths",
            got=f"{widths[0]} inputs, {widths[-1]} outputs",
            allowed=f"{features} inputs, {len(data.classes)} outputs",
            outputs="untouched; nothing was opened",
            todo=f"write widths = [{features}, ..., {len(data.classes)}]",
        )
    return data


@contextmanager
def built(experiment: Experiment, where: Path, bench_copy: Path | None = None) -> Iterator[Built]:
    """Build `experiment`, read from the file `where`; closes all it opened.

    Args:
        bench_copy: bench file to use instead of the one named, when a run folder holds a copy.
    Raises:
        Refused: before anything is opened. LinkError, InstrumentError, MeasurementError: from the bench.
    """
    data = dataset(experiment, str(where))
    learner_class, settings = _learner(experiment, str(where))
    _optimizer([nn.Parameter(torch.zeros(1))], experiment, str(where))
    served = experiment.device.bench is not None
    threads = experiment.train.threads or default_threads(served, experiment.network.widths, experiment.train.batch)
    torch.set_num_threads(threads)
    with ExitStack() as stack:
        node = _open(experiment, where, bench_copy, stack)
        device = metered(node.device)
        stack.callback(device.close)
        encode = _encode(experiment, device.spec.inputs, str(where))
        decode, transfer = _decode(experiment, device, str(where))
        net = network(experiment, device, encode, decode)
        model = None if node.twin is None else node.twin.ideal
        learner: Learner = learner_class.build(
            net, settings, len(data.classes), generator(experiment.seed, 0, "learner"), model
        )
        optimizer = _optimizer(list(net.parameters()), experiment, str(where))
        plan = Plan(experiment.seed, experiment.train.epochs, experiment.train.batch, experiment.train.schedule)
        training = Training(net, learner, optimizer, data, plan, (device,))
        labels = Labels(experiment.name or where.stem, device.spec.provenance, node.facts, node.resources)
        yield Built(training, node, labels, _resolved(experiment, decode), transfer)


def network(experiment: Experiment, device: Metered, encode: Encode, decode: Decode) -> Network:
    """Linear synapses around one node shared in time; the last layer is the digital readout."""
    widths = experiment.network.widths
    size = device.spec.inputs.size
    if size is not None and any(width != size for width in widths[1:-1]):
        raise ConfigError(
            "hidden layers must be as wide as the device", where="[network] widths", got=str(widths), allowed=f"{size} each"
        )
    with torch.random.fork_rng(devices=[]):  # torch initialises modules from its global generator: keyed, then given back
        torch.manual_seed(key(experiment.seed, 0, "weights"))
        synapses = [nn.Linear(a, b, bias=experiment.network.bias) for a, b in pairwise(widths)]
    hidden = [Layer(synapse, device, encode, decode) for synapse in synapses[:-1]]
    return Network([*hidden, Layer(synapses[-1])], pieces=experiment.network.pieces)


def _learner(experiment: Experiment, where: str) -> tuple[Any, Any]:
    place = f"{where}: [learner]"
    learner_class = resolve(experiment.learner.use, place, LEARNERS)
    return learner_class, learner_class.Settings(**arguments(learner_class.Settings, experiment.learner.settings(), place))


def _optimizer(parameters: list[nn.Parameter], experiment: Experiment, where: str) -> torch.optim.Optimizer:
    table = experiment.optimizer
    place = f"{where}: [optimizer]"
    known = {name: f"torch.optim:{name}" for name in torch.optim.__all__ if name[0].isupper() and name != "Optimizer"}
    chosen = resolve(table.use, place, known)
    settings = arguments(chosen, table.settings(), place, skip=("params", "lr"))
    if table.use in FUSED:
        settings.setdefault("fused", True)  # one pass over the parameters instead of one per operation
    try:
        optimizer: torch.optim.Optimizer = chosen(parameters, lr=table.lr, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError("the optimiser refuses its settings", where=place, got=str(error)) from error
    return optimizer


def twin_of(use: str, settings: dict[str, Any], where: str) -> Twin:
    """Build a twin from a table of a file."""
    made = resolve(use, where, TWINS)
    twin: Twin = made(**arguments(made, settings, where))
    return twin


def _open(experiment: Experiment, where: Path, bench_copy: Path | None, stack: ExitStack) -> Node:
    table = experiment.device
    if (table.bench is None) == (table.use is None):
        raise ConfigError(
            "a device is needed", where=f"{where}: [device]", got="neither or both", outputs="untouched; nothing was opened",
            allowed='bench = "benches/….toml", or use = "module:Class"',
        )  # fmt: skip
    if table.bench is None and table.use is not None:
        twin = twin_of(table.use, table.settings(), f"{where}: [device]")
        device = Simulated(twin, experiment.seed)
        return Node(device, twin, {"use": table.use, **table.settings()}, {})
    from hil.bench import open_bench  # the drivers and VISA are slow to import, and a twin needs neither

    path = bench_copy or find(str(table.bench), where)
    bench = read_bench(path)
    opened = stack.enter_context(open_bench(bench, str(path)))
    belief = twin_of(bench.twin.use, bench.twin.settings(), f"{path}: [twin]") if bench.twin else None
    return Node(opened.device, belief, opened.facts, opened.resources)


def _encode(experiment: Experiment, port: Port, where: str) -> Encode:
    table, place = experiment.encode, f"{where}: [encode]"
    period = None if table.period is None else quantity(table.period, _unit(port), f"{place} period")
    gain, offset = (quantity(v, _unit(port), f"{place} {n}") for n, v in (("gain", table.gain), ("offset", table.offset)))
    return Encode.onto(port, gain, offset, table.overflow, period)


def _unit(port: Port) -> str:
    return "dimensionless" if port.unit == "1" else port.unit


def _decode(experiment: Experiment, device: Device, where: str) -> tuple[Decode, Transfer | None]:
    table, unit = experiment.decode, _unit(device.spec.outputs)
    if table is None:
        transfer = measure(device)
        return transfer.decode(), transfer
    zero, scale = (quantity(v, unit, f"{where}: [decode]") for v in (table.zero, table.scale))
    return Decode(zero, scale), None


def _resolved(experiment: Experiment, decode: Decode) -> Experiment:
    """The experiment as it runs: what was measured is written down, so that a resume does not measure it again."""
    update = {"decode": {"zero": decode.zero, "scale": decode.scale}}
    return Experiment.model_validate({**experiment.model_dump(exclude_none=True), **update})
