"""From an experiment file to objects that can train: the composition root below the command line.

Everything that can be refused without hardware is checked first: data, network, classes, settings. Then the device is opened,
its transfer curve measured, the network built around it. Whatever was opened is closed, outputs safe, when the context ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from calibration.steering import Steered
from hil import accelerator, watching
from hil.architecture import closing, largest, on_chip, on_node, synapses
from hil.chance import generator
from hil.config import Experiment, default_threads
from hil.data import Dataset, load, subset, usable
from hil.device import Device, Port, answered
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError, ForeignError
from hil.foreign import foreign
from hil.learner import Learner
from hil.naming import UNTOUCHED, arguments, construct, keeps, resolve
from hil.network import Network
from hil.nodes import Node, opened_node, resilient_node
from hil.run import diagnostics
from hil.run.loop import Plan, Training
from hil.run.meter import Allow, Metered, MeteredChip, freely, metered
from hil.run.recovery import Told, untold
from hil.run.summary import Labels
from hil.run.transfer import Transfer, foretold, measure, probed
from hil.shift import shifted
from hil.synapses import channels_of, flat_widths, reads
from hil.units import quantity
from sim_devices.twin import follow

if TYPE_CHECKING:
    from calibration.sentinel import DriftSentinel
    from hil.run.tape import Tape

LEARNERS = {
    "adfa": "hil.learners.adfa:ADFA",
    "dfa": "hil.learners.dfa:DFA",
    "backprop": "hil.learners.backprop:Backprop",
    "pat": "hil.learners.pat:PAT",
    "spsa": "hil.learners.spsa:SPSA",
    "last_layer": "hil.learners.last_layer:LastLayer",
    "adfa_snn": "hil.learners.adfa_snn:ADFASNN",
    "saf_e": "hil.learners.saf:SAFE",
    "saf_f": "hil.learners.saf:SAFF",
    "ottt_a": "hil.learners.ottt:OTTTA",
    "ottt_o": "hil.learners.ottt:OTTTO",
    "spike_representation": "hil.learners.spike_representation:SpikeRepresentation",
    "bptt": "hil.learners.bptt:BPTT",
    "ff": "hil.learners.forward_forward:ForwardForward",
    "ffgaf": "hil.learners.ffgaf:FFGAF",
    "phyll": "hil.learners.phyll:PhyLL",
    "spide": "hil.learners.spide:SPIDE",
}
FUSED = ("Adam", "AdamW", "SGD")  # torch's optimisers with a fused step on CPU


@dataclass(frozen=True)
class Wired:
    """A network around a node. devices: all of them, counted; a learner may cut more from a chip while it is built.
    honesty: of the twin, see hil/run/transfer.py."""

    net: Network
    devices: Callable[[], tuple[Metered, ...]]
    decode: Decode | None = None
    transfer: Transfer | None = None
    sentinel: DriftSentinel | None = None
    honesty: dict[str, Any] | None = None


@dataclass(frozen=True)
class Built:
    """A training ready to run, and what the report wants to know. `transfer` is None where none was measured.

    tape: how much will be recorded, or "". honesty: how the twin foretold the node, see hil/run/transfer.py; None if there is
    no twin, or nothing was measured.
    """

    training: Training
    node: Node
    labels: Labels
    experiment: Experiment
    transfer: Transfer | None
    tape: str = ""
    honesty: dict[str, Any] | None = None

    @property
    def model(self) -> Callable[[Tensor], Tensor] | None:
        """The twin's noiseless response, drive -> reading; None also for a node of many channels: that is no curve."""
        twin = self.node.twin
        return None if twin is None or twin.spec.inputs.size is not None else twin.ideal

    def first_diagnostics(self) -> dict[str, Any]:
        """What diagnostics.json begins with: the measured transfer curve beside the twin's, and how honest the twin is."""
        if self.transfer is None:
            return {}
        spec = self.training.devices[0].spec
        table = diagnostics.transfer_table(self.transfer, self.model, spec.inputs.unit, spec.outputs.unit)
        return {"transfer": table, **({} if self.honesty is None else {"honesty": self.honesty})}

    def introduction(self) -> Iterator[str]:
        """What is about to happen, a line each."""
        for name, line in self.node.resources.items():
            yield f"{name:<7} {line}"
        facts = ", ".join(f"{k} {v}" for k, v in self.node.facts.items())
        yield f"node    {facts}   ({self.labels.provenance})"
        data, net = self.training.data, self.training.net
        if net.place.type != "cpu":
            yield f"on      {accelerator.title(net.place)}"
        shape = "-".join(str(channels_of(layer.synapse)) for layer in net.stack)
        yield (
            f"data    {data.name}: {len(data.train):,} train · {len(data.validation):,} validation · {len(data.test):,} test"
            f"   network {data.train.x.shape[1]}-{shape}, {self.experiment.learner.use}"
        )
        if self.honesty is not None:
            yield f"twin    {foretold(self.honesty)}"
        if self.tape:
            yield f"tape    {self.tape}"


def dataset(experiment: Experiment) -> Dataset:
    """The data.

    Raises:
        DataError, ConfigError.
    """
    table = experiment.data
    data = load(table.use, Path(table.dir) if table.dir else None)
    shifted(data.train.x[:1], data.shape, table.shift, generator(experiment.seed, 0, "shift"))  # refused here, not at step 1
    return data if table.train_examples is None else subset(data, table.train_examples)


def checked_settings(experiment: Experiment, where: str) -> None:
    """Refuse, without opening anything, what can be refused so: data, network, learner's and optimiser's settings.

    Raises:
        DataError, ConfigError.
    """
    with _building(where):
        data = usable(dataset(experiment))
        chain = synapses(experiment, data, where)
        accelerator.named(experiment.train.on, where)
        _fits_learner(experiment, chain, data, *_learner(experiment, where), where)
        _steps(experiment, where)
        if experiment.device.chip is not None:
            watching.static(experiment, str(where))


@contextmanager
def built(
    experiment: Experiment,
    where: Path,
    bench_copy: Path | None = None,
    run: Path | None = None,
    told: Told = untold,
    *,
    record: bool = False,
    node: Node | None = None,
    given: Dataset | None = None,
    fresh: bool = False,
    allow: Allow = freely,
) -> Iterator[Built]:
    """Build `experiment`, read from the file `where`; closes all it opened.

    Args:
        bench_copy: bench file to use instead of the one named, when a run folder holds a copy. run: that folder.
        told: hears of every fault and recovery. record: onto a tape in `run`. node: used instead of opening the device.
        given: data to use instead of those of [data], for a search that splits them in its own way.
        allow: asked before every shot, see Metered.
        fresh: a run begins here, so the transfer curve is measured even if [decode] needs none: the twin is held against it.
    Raises:
        Refused: before anything is opened. LinkError, InstrumentError, MeasurementError: from the bench.
    """
    place = str(where)
    with ExitStack() as stack:
        stack.enter_context(accelerator.float32_by_default())
        with _building(place):
            made = _built(
                experiment, where, bench_copy, run, told, stack, record and run is not None, node, given, fresh, allow
            )
        yield made


@contextmanager
def _building(place: str) -> Iterator[None]:
    """Nothing is trained yet: what code that is not hil's raises here is a refusal."""
    try:
        with foreign(f"{place}: building the network, its node and its learner"):
            yield
    except ForeignError as error:
        todo = error.todo.partition(", then")[0]
        raise ContractError(
            error.what, where=error.where, got=error.got, at=error.at, outputs="safe; whatever was opened is closed again",
            todo=todo,
        ) from error.__cause__  # fmt: skip


def _built(
    experiment: Experiment, where: Path, bench_copy: Path | None, run: Path | None, told: Told, stack: ExitStack, record: bool,
    node: Node | None, given: Dataset | None, fresh: bool, allow: Allow,
) -> Built:  # fmt: skip
    """See `built`; `stack` closes what is opened."""
    place = str(where)
    data = usable(dataset(experiment) if given is None else given)
    chain = synapses(experiment, data, place)
    feedback = closing(experiment, chain, data.train.x.shape[1])
    learner_class, settings = _learner(experiment, place)
    _fits_learner(experiment, chain, data, learner_class, settings, place)
    _steps(experiment, place)
    on = accelerator.named(experiment.train.on, place)
    accelerator.settled(on)
    served = experiment.device.bench is not None
    torch.set_num_threads(experiment.train.threads or default_threads(served, largest(chain), experiment.train.batch))
    tape = stack.enter_context(_tape(run)) if record and run is not None else None  # closed last: it has the device's last shot
    node = resilient_node(node or opened_node(experiment, where, bench_copy, run, stack), told)
    follow(node.twin, None, None, on)
    if tape is not None:
        node = _recorded(experiment, node, tape, fresh)
    wired = _wired(experiment, node, chain, feedback, data.train.x.shape[1], on, place, fresh, allow, told)
    wired.net.to(on)
    model = None if node.twin is None else node.twin.ideal
    rng = generator(experiment.seed, 0, "learner")
    with foreign(f"{place}: [learner] {experiment.learner.use}"):
        learner: Learner = learner_class.build(wired.net, settings, len(data.classes), rng, model)
    if isinstance(learner, nn.Module):  # any other finds its place by itself, where the network already is
        learner.to(on)
    optimizer = _optimizer(list(wired.net.parameters()), experiment, place)
    table = experiment.train
    plan = Plan(experiment.seed, table.epochs, table.batch, table.schedule, table.budget_passes, experiment.data.shift)
    placed = accelerator.moved(data, on)
    training = Training(wired.net, learner, optimizer, placed, plan, wired.devices(), tape, wired.sentinel)
    provenance = answered(node.provenance, training.devices[0].spec.provenance)
    labels = Labels(experiment.name or where.stem, provenance, node.facts, node.resources)
    widths = flat_widths(chain, data.train.x.shape[1])[1:-1]
    needs = "" if tape is None else _needs(training, widths, int(getattr(settings, "time_steps", 1)), tape)
    resolved = _resolved(experiment, wired.decode)
    return Built(training, node, labels, resolved, wired.transfer, needs, wired.honesty)


def elsewhere(made: Built, experiment: Experiment, where: Path, stack: ExitStack) -> Network:
    """The synapses of `made` in front of the device of `experiment`: how a trained network stands another one.

    Raises: as `built`.
    """
    trained, place = made.training.net, str(where)
    chain = [layer.synapse for layer in trained.stack]
    features = made.training.data.train.x.shape[1]
    node = resilient_node(opened_node(experiment, where, None, None, stack), untold)
    follow(node.twin, None, None, trained.place)
    return _wired(experiment, node, chain, trained.feedback, features, trained.place, place).net


def optimiser(groups: list[dict[str, Any]], experiment: Experiment, where: str) -> torch.optim.Optimizer:
    """The optimiser of [optimizer] for groups of parameters, each with an "lr" of its own.

    Raises: ConfigError.
    """
    return _optimizer(groups, experiment, where)


def _tape(run: Path) -> Tape:
    from hil.run.tape import Tape  # zarr is slow to import, and most runs are not recorded

    return Tape(run / "tape")


def _recorded(experiment: Experiment, node: Node, tape: Tape, fresh: bool) -> Node:
    """`node`, recorded outside of the ladder: what the learner really got, once."""
    from hil.run.recorder import NODE, RecorderChip, recorded

    versions = {"hil": version("hil"), "torch": torch.__version__}
    threads = torch.get_num_threads()
    measured = experiment.decode is None
    tape.begin(
        {"facts": node.facts, "measured": measured, "swept": measured or fresh, "threads": threads, "versions": versions}
    )
    settings = json.dumps(node.facts, sort_keys=True, default=str) + node.settings
    source = None if node.source is None else recorded(node.source, tape, NODE, settings, {})
    chip = None if node.chip is None else RecorderChip(node.chip, tape, settings)
    return replace(node, source=source, chip=chip)


def _needs(training: Training, widths: list[int], steps: int, tape: Tape) -> str:
    """How much goes onto the tape. Raises: RunError: more than the disk can hold."""
    from hil.run.tape import Needs

    examples, plan = len(training.data.train.y) + len(training.data.validation.y), training.plan
    return Needs.of(widths, steps, training.net.temporal, plan.batch, examples, plan.epochs).check(tape.path, tape.nbytes)


def _wired(
    experiment: Experiment,
    node: Node,
    chain: list[nn.Module],
    feedback: nn.Module | None,
    features: int,
    on: torch.device,
    where: str,
    fresh: bool = False,
    allow: Allow = freely,
    told: Told = untold,
) -> Wired:
    def encode(port: Port) -> Encode:
        return _encode(experiment, port, where)

    if node.chip is not None:
        watching.static(experiment, where)
        chip = MeteredChip(node.chip, allow)
        return Wired(on_chip(chain, chip, encode, features, feedback), lambda: tuple(chip.devices))
    if feedback is not None:
        raise ConfigError(
            "feedback closes a loop in time, and this node has no time", where=f"{where}: [network] feedback", got="a node",
            allowed='chip = "…" in [device], or a bench with a spiking board', todo="remove feedback",
        )  # fmt: skip
    assert node.source is not None  # a Node has the one or the other
    source = (
        node.source
        if experiment.sentinel is None
        else watching.steered_node(experiment, node.source, node.twin, node.follow, where)
    )
    device = metered(source, allow)
    encoding = encode(device.spec.inputs)
    decode, transfer = _decode(experiment, device, on, where, fresh and node.twin is not None)
    sentinel = (
        watching.sentinel(experiment, device, source, told, on, where, node.attend) if isinstance(source, Steered) else None
    )
    net = on_node(chain, device, encoding, decode, experiment.network.pieces, features)
    return Wired(net, lambda: (device,), decode, transfer, sentinel, _honesty(node, device, transfer, on))


@torch.no_grad()
def _honesty(node: Node, device: Device, transfer: Transfer | None, on: torch.device) -> dict[str, Any] | None:
    """Of a twin that is held against the transfer curve; of a node of many channels, against probes of its own: one more shot.
    A node that is programmed is another one by each program, so no twin of it is judged here."""
    twin, spec = node.twin, device.spec
    if twin is None or transfer is None or spec.params is not None:
        return None
    if spec.inputs.size is None:
        return transfer.honesty(twin.ideal(transfer.drive), spec.outputs.unit)
    return probed(device, twin.ideal, place=on)


def _learner(experiment: Experiment, where: str) -> tuple[Any, Any]:
    place = f"{where}: [learner]"
    learner_class = resolve(experiment.learner.use, place, LEARNERS)
    keeps(learner_class, ("Settings", "build", "step", "predict"), "a Learner", experiment.learner.use, place)
    return learner_class, construct(
        learner_class.Settings, arguments(learner_class.Settings, experiment.learner.settings(), place), place
    )


def _fits_learner(
    experiment: Experiment, chain: list[nn.Module], data: Dataset, learner_class: Any, settings: Any, where: str
) -> None:
    """Refuse, before anything is opened, more outputs than classes, and batches that the synapses do not take.

    Raises:
        ConfigError.
    """
    features, classes = data.train.x.shape[1], len(data.classes)
    outputs = flat_widths(chain, features)[-1]
    if outputs != classes and not getattr(learner_class, "any_outputs", False):
        raise ConfigError(
            f"the network does not fit {data.name}", where=f"{where}: [network]", got=f"{outputs} outputs",
            allowed=f"{classes} outputs, one a class, for the learner {experiment.learner.use}", outputs=UNTOUCHED,
            todo=f"make the last synapse {classes} wide",
        )  # fmt: skip
    if not hasattr(settings, "time_steps"):  # with a time axis an example is many
        _takes_batches(experiment, chain, data, where)


@torch.no_grad()
def _takes_batches(experiment: Experiment, chain: list[nn.Module], data: Dataset, where: str) -> None:
    """Every size of batch that training will send through the synapses, once, through copies of them."""
    size, examples = experiment.train.batch, len(data.train)
    whole = min(size, examples)
    widths = flat_widths(chain, data.train.x.shape[1])
    for count in dict.fromkeys(n for n in (whole, examples % whole) if n):
        for number, synapse in enumerate(chain):
            place = f"{where}: [network] synapse {number}, a batch of {count}"
            todo = "change the synapse, or [train] batch"
            if count == 1:
                good = next((n for n in range(max(2, size), examples) if examples % n != 1), examples)
                todo = f"[train] batch = {good} leaves no batch of one example: {examples:,} examples are {examples // size:,}"
                todo += f" batches of {size} and one of {examples % size}" if examples % size else f" batches of {size}"
            with foreign(place, ConfigError, UNTOUCHED, todo):
                answer = deepcopy(synapse)(torch.zeros(count, reads(synapse) or widths[number]))
            if answer.dtype != torch.float32 or len(answer) != count:
                shape = tuple(answer.shape)
                raise ConfigError(
                    "a synapse gives float32, an answer an example", where=place, outputs=UNTOUCHED, todo="change the synapse",
                    got=f"{answer.dtype}, shape {shape}", allowed=f"float32, shape ({count}, {widths[number + 1]})",
                )  # fmt: skip


def _optimizer(
    parameters: list[nn.Parameter] | list[dict[str, Any]], experiment: Experiment, where: str
) -> torch.optim.Optimizer:
    table = experiment.optimizer
    place = f"{where}: [optimizer]"
    known = {name: f"torch.optim:{name}" for name in torch.optim.__all__ if name[0].isupper() and name != "Optimizer"}
    chosen = resolve(table.use, place, known)
    settings = arguments(chosen, table.settings(), place, skip=("params", "lr"))
    if table.use in FUSED and not {"foreach", "capturable", "differentiable"} & set(settings):
        settings.setdefault("fused", True)  # one pass over the parameters instead of one per operation
    optimizer = construct(chosen, {"params": parameters, "lr": table.lr, **settings}, place)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f'"{table.use}" is not an optimiser', where=place, got=type(optimizer).__name__, outputs=UNTOUCHED,
            allowed="a torch.optim.Optimizer", todo="choose Adam, or another of torch.optim",
        )  # fmt: skip
    return optimizer


def _steps(experiment: Experiment, where: str) -> None:
    """Refuse an optimiser that cannot make a plain step from dense gradients, tried on a weight of its own."""
    weight = nn.Parameter(torch.zeros(1, 1))
    weight.grad = torch.zeros_like(weight)
    optimizer = _optimizer([weight], experiment, where)
    construct(optimizer.step, {}, f"{where}: [optimizer] {experiment.optimizer.use}")


def _encode(experiment: Experiment, port: Port, where: str) -> Encode:
    table, place, unit = experiment.encode, f"{where}: [encode]", watching.unit_of(port)
    period = None if table.period is None else quantity(table.period, unit, f"{place} period")
    gain, offset = (quantity(v, unit, f"{place} {n}") for n, v in (("gain", table.gain), ("offset", table.offset)))
    return Encode.onto(port, gain, offset, table.overflow, period)


def _decode(
    experiment: Experiment, device: Device, on: torch.device, where: str, sweep: bool
) -> tuple[Decode, Transfer | None]:
    table, unit = experiment.decode, watching.unit_of(device.spec.outputs)
    if table is None:
        transfer = measure(device, place=on)
        return transfer.decode(), transfer
    zero, scale = (quantity(v, unit, f"{where}: [decode]") for v in (table.zero, table.scale))
    return Decode(zero, scale), measure(device, place=on) if sweep else None


def _resolved(experiment: Experiment, decode: Decode | None) -> Experiment:
    """The experiment as it runs: what was measured is written down, so that a resume does not measure it again."""
    if decode is None:
        return experiment
    update = {"decode": {"zero": decode.zero, "scale": decode.scale}}
    return Experiment.model_validate({**experiment.model_dump(exclude_none=True), **update})
