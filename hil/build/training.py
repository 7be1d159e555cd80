"""From an experiment file to objects that can train: the composition root below the command line.

Everything that can be refused without hardware is checked first: data, network, classes, settings. Then the device is opened,
its transfer curve measured, the network built around it. Whatever was opened is closed, outputs safe, when the context ends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from calibration.drift.steering import Steered
from hil import torch_device
from hil.build import drift_sentinel
from hil.build.network import Behind, closing, largest, on_chip, on_nodes, synapses
from hil.build.node import Node, resilient_node
from hil.build.open_node import opened_node
from hil.build.optimizing import class_weights, fits_moves, optimiser, plan_of, schedule_of, weigh
from hil.build.task import as_examples, task_for, task_table
from hil.build.warm_start import Start, start_of
from hil.config.device import DecodeTable, EncodeTable
from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED, construct
from hil.data.dataset import Dataset, moved, subset, usable
from hil.device import Device, Port, answered
from hil.devices.meter import Allow, Metered, MeteredChip, metered, no_budget
from hil.devices.recovery import EventListener, ignore_event
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError, DataError, ForeignError, Refused
from hil.foreign import foreign
from hil.hints import counted
from hil.learner import Learner
from hil.network import Network
from hil.run.summary import Labels
from hil.seeding import generator
from hil.synapses import channels_of, flat_widths, reads
from hil.task import Task, asked_for
from hil.torch_device import default_threads
from hil.training import diagnostics
from hil.training.schedule import Constant
from hil.training.state import Training
from hil.training.transfer_curve import Transfer, measure, probed, twin_line
from sim_devices.twin import follow

if TYPE_CHECKING:
    from calibration.drift.sentinel import DriftSentinel
    from hil.tape.writer import Tape


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


@dataclass(frozen=True)
class Built:
    """A training ready to run, and what the report wants to know. `transfer` is None where none was measured.

    Args:
        tape: how much will be recorded, or "".
        twin_check: how well the twin predicts the node, see hil/training/transfer_curve.py; None if there is no twin, or
            nothing was measured.
        first: whose weights the run begins with; None: those that were drawn.
    """

    training: Training
    node: Node
    labels: Labels
    experiment: Experiment
    transfer: Transfer | None
    tape: str = ""
    twin_check: dict[str, Any] | None = None
    first: Start | None = None

    @property
    def model(self) -> Callable[[Tensor], Tensor] | None:
        """The twin's noiseless response, drive -> reading; None also for a node of many channels: that is no curve."""
        twin = self.node.twin
        return None if twin is None or twin.spec.inputs.size is not None else twin.ideal

    def first_diagnostics(self) -> dict[str, Any]:
        """Return the beginning of diagnostics.json: the measured transfer curve beside the twin's, and the twin check."""
        if self.transfer is None:
            return {}
        spec = self.training.devices[0].spec
        table = diagnostics.transfer_table(self.transfer, self.model, spec.inputs.unit, spec.outputs.unit)
        return {"transfer": table, **({} if self.twin_check is None else {"honesty": self.twin_check})}

    def introduction(self) -> Iterator[str]:
        """Say what is about to happen, a line each."""
        for name, line in self.node.resources.items():
            yield f"{name:<7} {line}"
        facts = ", ".join(f"{k} {v}" for k, v in self.node.facts.items())
        yield f"node    {facts}   ({self.labels.provenance})"
        data, net = self.training.data, self.training.net
        if net.place.type != "cpu":
            yield f"on      {torch_device.title(net.place)}"
        shape = "-".join(str(channels_of(layer.synapse)) for layer in net.stack)
        yield (
            f"data    {data.name}: {len(data.train):,} train · {len(data.validation):,} validation · {len(data.test):,} test"
            f"   network {data.train.x.shape[1]}-{shape}, {self.experiment.learner.use}"
        )
        if self.first is not None:
            yield f"start   {self.first.told}"
        if self.twin_check is not None:
            yield f"twin    {twin_line(self.twin_check)}"
        if self.tape:
            yield f"tape    {self.tape}"


def dataset(experiment: Experiment) -> Dataset:
    """The data.

    Raises:
        DataError, ConfigError.
    """
    table = experiment.data
    data = table.named.dataset(table.reading())
    if table.checksum not in (None, data.checksum):
        raise DataError(
            "these are other data than the run was begun with", where=f"{table.place} {table.use}", outputs=UNTOUCHED,
            got=f"checksum {data.checksum}", allowed=table.checksum or "",
            todo="put the data back; or start a new run, with checksum taken out of [data] if it stands there",
        )  # fmt: skip
    return data if table.train_examples is None else subset(data, table.train_examples)


@dataclass(frozen=True)
class Prepared:
    """All of an experiment that needs no device.

    Args:
        task: what is learned.
        chain: the synapses.
        feedback: closes the loop of a spiking network, or None.
        optimizer: over the parameters of both.
        schedule: of its rates.
        first: the weights of another run to begin with, by name; None: those that were drawn.
        on: where the host computes.
    """

    data: Dataset
    task: Task
    chain: list[nn.Module]
    feedback: nn.Module | None
    optimizer: torch.optim.Optimizer
    schedule: Constant
    first: Start | None
    on: torch.device


def prepared(experiment: Experiment, given: Dataset | None = None, begins: bool = False) -> Prepared:
    """Make what needs no device, and so refuse what can be refused without one.

    Args:
        experiment: as it was read.
        given: instead of the data of [data].
        begins: as of `built`.

    Raises:
        DataError, ConfigError.
    """
    with building(experiment), nothing_open():
        data = as_examples(usable(dataset(experiment) if given is None else given))
        task = task_for(experiment, data)
        chain = synapses(experiment, data)
        feedback = closing(experiment, chain, data.train.x.shape[1])
        on = torch_device.named(experiment.train.on, experiment.place)
        fits_learner(experiment, chain, data, task)
        fits_moves(experiment, data, task)
        if experiment.device.kind in ("chip", "layers"):
            drift_sentinel.static(experiment)
        for module in chain if feedback is None else (*chain, feedback):
            module.to(on)  # where it is when the optimiser makes its slots
        every = nn.ModuleList(chain if feedback is None else [*chain, feedback])
        optimizer, table = optimiser(list(every.parameters()), experiment), experiment.optimizer
        construct(optimizer.step, {}, f"{table.place} {table.use}")  # no gradients yet: it moves nothing without a closure
        batches = math.ceil(len(data.train) / experiment.train.batch)
        first = start_of(experiment, chain, feedback) if begins else None
        return Prepared(
            data, task, chain, feedback, optimizer, schedule_of(optimizer, experiment, batches, task.metric), first, on
        )


@contextmanager
def nothing_open() -> Iterator[None]:
    """What is refused in here, and says nothing of the outputs, left them untouched."""
    try:
        yield
    except Refused as error:
        error.outputs = error.outputs or UNTOUCHED
        raise


@contextmanager
def built(
    experiment: Experiment,
    run: Path | None = None,
    told: EventListener = ignore_event,
    *,
    record: bool = False,
    node: Node | None = None,
    given: Dataset | None = None,
    fresh: bool = False,
    begins: bool = False,
    allow: Allow = no_budget,
) -> Iterator[Built]:
    """Build `experiment`; closes all it opened.

    Args:
        experiment: as it was read.
        run: the run folder, or None.
        told: hears of every fault and recovery.
        record: onto a tape in `run`.
        node: used instead of opening the device.
        given: data to use instead of those of [data], for a search that splits them in its own way.
        fresh: a run begins here, so the transfer curve is measured even if [decode] needs none: the twin is held against
            it.
        begins: training begins at step 0, so with the weights that [train] from names; true of all that is `fresh`.
        allow: asked before every shot, see Metered.

    Raises:
        Refused: before anything is opened. LinkError, InstrumentError, MeasurementError: from the bench.
    """
    torch_device.settled(torch_device.named(experiment.train.on, experiment.place))
    with ExitStack() as stack:
        stack.enter_context(torch_device.float32_by_default())
        with building(experiment):
            ready = prepared(experiment, given, fresh or begins)
            made = _built(experiment, ready, run, told, stack, record and run is not None, node, fresh, allow)
        yield made


@contextmanager
def building(experiment: Experiment) -> Iterator[None]:
    """Nothing is trained yet: what code that is not hil's raises here is a refusal."""
    try:
        with foreign(f"{experiment.place}: building the network, its node and its learner"):
            yield
    except ForeignError as error:
        todo = error.todo.partition(", then")[0]
        raise ContractError(
            error.what, where=error.where, got=error.got, at=error.at, outputs="safe; whatever was opened is closed again",
            todo=todo,
        ) from error.__cause__  # fmt: skip


def _built(
    experiment: Experiment, ready: Prepared, run: Path | None, told: EventListener, stack: ExitStack, record: bool,
    node: Node | None, fresh: bool, allow: Allow,
) -> Built:  # fmt: skip
    """See `built`; `stack` closes what is opened."""
    data, chain, on, table = ready.data, ready.chain, ready.on, experiment.train
    features = data.train.x.shape[1]
    torch.set_num_threads(table.threads or default_threads(experiment.served, largest(chain), table.batch))
    tape = stack.enter_context(_tape(run)) if record and run is not None else None  # closed last: it has the device's last shot
    node = resilient_node(node or opened_node(experiment, run, stack), told)
    follow(node.twin, None, None, on)
    if tape is not None:
        node = _recorded(experiment, node, tape, fresh)
    wired = _wired(experiment, node, chain, ready.feedback, features, on, fresh, allow, told)
    wired.net.to(on)
    model = None if node.twin is None else node.twin.ideal
    rng = generator(experiment.seed, 0, "learner")
    rule, options = experiment.learner.rule, experiment.learner.options
    with foreign(f"{experiment.learner.place} {experiment.learner.use}"):
        learner: Learner = rule.build(wired.net, options, asked_for(rule.build, ready.task), rng, model)
    if isinstance(learner, nn.Module):  # any other finds its place by itself, where the network already is
        learner.to(on)
    weigh(learner, class_weights(experiment, data), experiment)
    if ready.first is not None:
        ready.first.into(wired.net)
    training = Training(
        wired.net, learner, ready.optimizer, moved(data, on), plan_of(experiment), wired.devices(), tape, wired.sentinel,
        ready.schedule, ready.task, experiment.learner.refit,
    )  # fmt: skip
    provenance = answered(node.provenance, training.devices[0].spec.provenance)
    labels = Labels(experiment.name or experiment.near.stem, provenance, node.facts, node.resources)
    widths = flat_widths(chain, features)[1:-1]
    needs = "" if tape is None else _needs(training, widths, int(getattr(options, "time_steps", 1)), tape)
    resolved = _resolved(_seen(experiment, data), wired.decodes, ready.task)
    return Built(training, node, labels, resolved, wired.transfer, needs, wired.twin_check, ready.first)


def elsewhere(made: Built, experiment: Experiment, stack: ExitStack) -> Network:
    """The synapses of `made` in front of the device of `experiment`: how a trained network stands another one.

    Raises: as `built`.
    """
    trained = made.training.net
    chain = [layer.synapse for layer in trained.stack]
    features = made.training.data.train.x.shape[1]
    node = resilient_node(opened_node(experiment, None, stack), ignore_event)
    follow(node.twin, None, None, trained.place)
    return _wired(experiment, node, chain, trained.feedback, features, trained.place).net


def _tape(run: Path) -> Tape:
    from hil.tape.writer import Tape  # most runs are not recorded

    return Tape(run / "tape")


def _recorded(experiment: Experiment, node: Node, tape: Tape, fresh: bool) -> Node:
    """Return `node`, recorded outside of the ladder: what the learner really got, once."""
    from hil.tape.recorder import NODE, RecorderChip, node_name, recorded

    versions = {"hil": version("hil"), "torch": torch.__version__}
    threads = torch.get_num_threads()
    measured = experiment.measures
    layers = [number for number, layer in enumerate(experiment.device.layers) if layer.decode is None and measured]
    facts = {"facts": node.facts, "measured": measured, "swept": measured or fresh, "threads": threads, "versions": versions}
    tape.begin({**facts, "measured_layers": layers} if layers else facts)
    settings = json.dumps(node.facts, sort_keys=True, default=str) + node.settings
    if node.parts:
        reels = [
            recorded(part.source, tape, node_name(number), settings, {})
            for number, part in enumerate(node.parts, 1)
            if part.source is not None
        ]
        return replace(node, parts=tuple(replace(part, source=reel) for part, reel in zip(node.parts, reels, strict=True)))
    source = None if node.source is None else recorded(node.source, tape, NODE, settings, {})
    chip = None if node.chip is None else RecorderChip(node.chip, tape, settings)
    return replace(node, source=source, chip=chip)


def _needs(training: Training, widths: list[int], steps: int, tape: Tape) -> str:
    """Say how much goes onto the tape. Raises: RunError: more than the disk can hold."""
    from hil.tape.writer import Needs

    examples, plan = len(training.data.train.y) + len(training.data.validation.y), training.plan
    return Needs.of(widths, steps, training.net.temporal, plan.batch, examples, plan.epochs).check(tape.path, tape.nbytes)


def _wired(
    experiment: Experiment,
    node: Node,
    chain: list[nn.Module],
    feedback: nn.Module | None,
    features: int,
    on: torch.device,
    fresh: bool = False,
    allow: Allow = no_budget,
    told: EventListener = ignore_event,
) -> Wired:
    def encode(port: Port) -> Encode:
        return _encode(experiment.encode, port)

    if node.chip is not None:
        drift_sentinel.static(experiment)
        chip = MeteredChip(node.chip, allow)
        return Wired(on_chip(chain, chip, encode, features, feedback), lambda: tuple(chip.devices))
    if feedback is not None:
        raise ConfigError(
            "feedback closes a loop in time, and this node has no time", where=f"{experiment.network.place} feedback",
            got="a node", allowed='chip = "…" in [device], or a bench with a spiking board', todo="remove feedback",
        )  # fmt: skip
    if node.parts:
        return _a_layer_each(experiment, node, chain, features, on, allow)
    assert node.source is not None  # a Node has the one or the other
    if node.source.spec.temporal and not hasattr(experiment.learner.options, "time_steps"):
        raise ConfigError(
            "this node has a state in time, and this learner has no time axis", where=experiment.learner.place,
            got=f"{experiment.learner.use}, on a temporal node", allowed="a static node, or a learner with time_steps",
            outputs="safe; whatever was opened is closed again", todo="choose another learner, or another node",
        )  # fmt: skip
    source = (
        node.source
        if experiment.sentinel is None
        else drift_sentinel.steered_node(experiment, node.source, node.twin, node.follow)
    )
    device = metered(source, allow)
    encoding = encode(device.spec.inputs)
    decode, transfer = _decode(experiment.decode, device, on, fresh and node.twin is not None)
    sentinel = (
        drift_sentinel.sentinel(experiment, device, source, told, on, node.attend) if isinstance(source, Steered) else None
    )
    net = on_nodes(chain, [Behind(device, encoding, decode)], experiment.network.pieces, features)
    return Wired(net, lambda: (device,), (decode,), transfer, sentinel, checked_twin(node, device, transfer, on))


def _a_layer_each(
    experiment: Experiment, node: Node, chain: list[nn.Module], features: int, on: torch.device, allow: Allow
) -> Wired:  # fmt: skip
    """A network with a device a layer, each with its own encoding, and its own transfer curve unless the file has it."""
    behind = []
    for table, part in zip(experiment.device.layers, node.parts, strict=True):
        assert part.source is not None  # a part is a single node
        device = metered(part.source, allow)
        if device.spec.temporal:
            raise ConfigError(
                "a device a layer is for nodes without state in time", where=table.place, got="a temporal device",
                allowed="static ones", outputs="safe; whatever was opened is closed again", todo="name another device",
            )  # fmt: skip
        encoding = _encode(table.encode or experiment.encode, device.spec.inputs)
        decode, _ = _decode(table.decode or experiment.decode, device, on, False)
        behind.append(Behind(device, encoding, decode))
    net = on_nodes(chain, behind, experiment.network.pieces, features)
    devices = tuple(one.device for one in behind if isinstance(one.device, Metered))
    return Wired(net, lambda: devices, tuple(one.decode for one in behind))


@torch.no_grad()
def checked_twin(node: Node, device: Device, transfer: Transfer | None, on: torch.device) -> dict[str, Any] | None:
    """Of a twin that is held against the transfer curve; of a node of many channels, against probes of its own: one more shot.

    A node that is programmed is another one by each program, so no twin of it is judged here.
    """
    twin, spec = node.twin, device.spec
    if twin is None or transfer is None or spec.params is not None:
        return None
    if spec.inputs.size is None:
        return transfer.compare_twin(twin.ideal(transfer.drive), spec.outputs.unit)
    return probed(device, twin.ideal, place=on)


def fits_learner(experiment: Experiment, chain: list[nn.Module], data: Dataset, task: Task) -> None:
    """Refuse, before anything is opened, other outputs than the task has, and batches that the synapses do not take.

    Raises:
        ConfigError.
    """
    outputs, wanted = flat_widths(chain, data.train.x.shape[1])[-1], task.outputs
    if outputs != wanted and not getattr(experiment.learner.rule, "any_outputs", False):
        raise ConfigError(
            f"the network does not fit {data.name}", where=experiment.network.place, got=counted(outputs, "output"),
            allowed=f"{counted(wanted, 'output')}, one a {'class' if task.kind == 'classes' else 'number'}, for the learner "
            f"{experiment.learner.use}", outputs=UNTOUCHED, todo=f"make the last synapse {wanted} wide",
        )  # fmt: skip
    if not hasattr(experiment.learner.options, "time_steps"):  # with a time axis an example is many
        _takes_batches(experiment, chain, data)


@torch.no_grad()
def _takes_batches(experiment: Experiment, chain: list[nn.Module], data: Dataset) -> None:
    """Send every size of batch that training will use through copies of the synapses, once."""
    size, examples = experiment.train.batch, len(data.train)
    whole = min(size, examples)
    widths = flat_widths(chain, data.train.x.shape[1])
    for count in dict.fromkeys(n for n in (whole, examples % whole) if n):
        for number, synapse in enumerate(chain):
            place = f"{experiment.network.place} synapse {number}, a batch of {count}"
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


def _encode(table: EncodeTable, port: Port) -> Encode:
    period = None if table.period is None else table.quantities("period", port.unit)
    gain, offset = (table.quantities(key, port.unit) for key in ("gain", "offset"))
    return Encode.onto(port, gain, offset, table.overflow, period)


def _decode(table: DecodeTable | None, device: Device, on: torch.device, sweep: bool) -> tuple[Decode, Transfer | None]:
    unit = device.spec.outputs.unit
    if table is None:
        transfer = measure(device, place=on)
        return transfer.decode(), transfer
    return Decode(table.quantity("zero", unit), table.quantity("scale", unit)), measure(device, place=on) if sweep else None


def _seen(experiment: Experiment, data: Dataset) -> Experiment:
    """The experiment with the checksum of data that could change; that of a published set stands in its card."""
    if experiment.data.named.kind == "published":
        return experiment
    table = experiment.data.model_copy(update={"checksum": data.checksum})
    return experiment.model_copy(update={"data": table})


def _resolved(experiment: Experiment, decodes: Sequence[Decode], task: Task) -> Experiment:
    """The experiment as it runs: what was measured or inferred is written down, so that a resume does not do it again."""
    experiment = experiment.model_copy(update={"task": task_table(experiment.task, task, experiment.place)})
    if not decodes:
        return experiment
    tables = [DecodeTable(zero=decode.zero, scale=decode.scale) for decode in decodes]
    for table in tables:
        table.settle(f"{experiment.place}: [decode]")
    device = experiment.device
    if not device.layers:
        return experiment.model_copy(update={"decode": tables[0]})
    layers = [layer.model_copy(update={"decode": table}) for layer, table in zip(device.layers, tables, strict=True)]
    return experiment.model_copy(update={"device": device.model_copy(update={"layers": layers})})
