"""A training from a network, a learner and data of a script, as `hil.build.training` makes one from an experiment file.

The network is trained in place: a second one shares its synapses, with the same devices counted, checked and recovering.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field, PrivateAttr
from torch import Tensor, nn

from hil import torch_device
from hil.build import measured
from hil.build.dense import Dense
from hil.build.learner import class_weights, fits_learner, fits_node, kind_of, learner_of, model_of, widened
from hil.build.network import Chain, largest
from hil.build.node import Node
from hil.build.open_bench import Bench, outputs_after, rested, unwrapped
from hil.build.optimizing import optimiser, plan_of, schedule_of
from hil.build.prepared import building
from hil.build.task import as_examples, task_for, task_table
from hil.build.trained_params import check_rule
from hil.build.training import Built
from hil.build.warm_start import start_of
from hil.build.wired import checked_twin
from hil.config.data import Data
from hil.config.device import DeviceTable
from hil.config.experiment import Experiment, LearnerTable, NetworkTable
from hil.config.read import Table, checked
from hil.config.resolve import LEARNERS, Choice, choice, keeps
from hil.data.dataset import Dataset, moved, usable
from hil.device import Device, Provenance, Recoverable, answered
from hil.devices.meter import Metered, MeteredChip, metered
from hil.devices.recovery import EventListener, Ladder, Patience, ignore_event
from hil.devices.resilient import resilient, resilient_chip
from hil.devices.stepped import bare, kept_steps
from hil.errors import UNTOUCHED, ConfigError, UnsafeOutputs
from hil.feedback.feedback import Feedback
from hil.foreign import said
from hil.hints import counted, quoted
from hil.learner import Learner
from hil.network import Layer, Network
from hil.run.summary import Labels
from hil.task import Task
from hil.torch_device import default_threads, sent, set_up_torch
from hil.training import pieces
from hil.training.state import Training, TrainingPlan
from hil.twin import Twin
from sim_devices.simulated import Simulated
from sim_devices.twin import follow

PLACE = "hil.train"
LEARNS = ("step", "predict", "state_dict", "load_state_dict")


# ---- what is written down of it -------------------------------------------------------------------------------------------


class GivenData(Data):
    """The name of a data set, and what tells it from another one."""

    model_config = ConfigDict(extra="allow", frozen=True)
    classes: Any = None  # how many

    def settle(self, place: str) -> None:
        """Check the table alone: the data were given."""
        Table.settle(self, place)


class GivenNetwork(NetworkTable):
    """The layers, in words and numbers."""

    def chosen(self) -> Choice:
        """Return a choice without settings: the network was given."""
        return Choice(self.use, None, {}, self.place)


class GivenDevice(DeviceTable):
    """The facts about the devices that a script gave."""

    def settle(self, place: str) -> None:
        """Check the table alone: there is no class to find."""
        Table.settle(self, place)


class GivenLearner(LearnerTable):
    """A learner that was given: a class with Settings, or an object that is made already."""

    _kind: Any = PrivateAttr(default=None)
    _ready: bool = PrivateAttr(default=False)

    def chosen(self) -> Choice:
        """Return the class that was given, its settings checked; an object has none."""
        if self._ready:
            return Choice(self.use, self._kind, {"settings": None}, self.place)
        found = choice(self.use, self.own_settings(), self.place, made=self._kind.Settings)
        return Choice(self.use, self._kind, {"settings": found.build()}, self.place)


class GivenExperiment(Experiment):
    """An Experiment that a script made.

    Args:
        python: how it is run again.
        because: why no file could make it.
    """

    python: str
    because: str = ""
    data: GivenData = Field(default_factory=GivenData)
    network: GivenNetwork
    device: GivenDevice


@dataclass(frozen=True)
class Given:
    """The network, data and learner of a script, checked.

    Args:
        task: what is learned.
        plan: how long is trained, and what a step is made of.
        weights: of the classes in the loss, (classes,); None: all alike.
        learner: an object; None: to be built as the experiment says.
        experiment: a GivenExperiment, or one that a file could have made.
        twin: of the node, or None.
    """

    net: Network
    data: Dataset
    task: Task
    plan: TrainingPlan
    weights: Tensor | None
    experiment: Experiment
    learner: Learner | None
    twin: Twin | None


@torch_device.float32_by_default()
def given(
    net: Any, learner: Any, data: Dataset, *, seed: int, name: str, optimizer: Mapping[str, Any], train: Mapping[str, Any],
    settings: Mapping[str, Any], schedule: Mapping[str, Any], augment: Mapping[str, Any], twin: Twin | None = None,
    log: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
) -> Given:  # fmt: skip
    """Check all that can be checked without a device.

    Args:
        net: as of hil.train.
        learner: as of hil.train.
        data: as of hil.train.
        seed: of everything.
        name: of the run.
        optimizer: table as of an experiment file.
        train: table as of an experiment file.
        settings: of the learner.
        schedule: table as of an experiment file.
        augment: table as of an experiment file.
        twin: as of hil.train.
        log: table as of an experiment file.
        task: table as of an experiment file, or None.

    Raises:
        ConfigError, DataError.
    """
    if not isinstance(net, Network):
        raise _wrong("network", said(net, 60), "a hil.Network, as hil.dense makes one", "give the network first")
    if not net.devices and net.chip is None:
        raise _wrong(
            "network", "layers without any device", "a device behind each hidden layer",
            "make it with hil.dense(widths, device), or give hil.Layer(synapse, device, encode) a device",
        )  # fmt: skip
    rule = _learner_table(learner, settings)
    data = as_examples(usable(data), rule)
    table = {
        "seed": seed,
        "name": name,
        "python": script(),
        "data": _data_table(data),
        "network": _network_table(net),
        "device": _device_table(net),
        "learner": rule,
        "optimizer": dict(optimizer),
        "schedule": dict(schedule),
        "augment": dict(augment),
        "train": {**train, "on": str(net.place)},
        "log": dict(log or {}),
        **({} if task is None else {"task": dict(task)}),
    }
    experiment = checked(GivenExperiment, table, PLACE)
    experiment._near = Path(PLACE)
    with building(PLACE):
        for device in net.devices:
            fits_node(experiment.learner, kind_of(device.spec))
        if net.programmed:
            check_rule(experiment.learner.rule, experiment.learner.use, experiment.learner.place)
        asked = task_for(experiment.task, experiment.learner, data)
        fits_learner(experiment, _tried(net, data), data, asked)
        plan, weights = plan_of(experiment, data.shape), class_weights(experiment, data, asked)
        moves = optimiser(experiment.optimizer, _parameters(net))
        schedule_of(experiment.schedule, moves, plan, len(data.train), asked.metric)
    experiment = experiment.model_copy(update={"task": task_table(experiment.task, asked, PLACE)})
    return Given(net, data, asked, plan, weights, experiment, None if isinstance(learner, str | type) else learner, twin)


def _tried(net: Network, data: Dataset) -> Chain:
    """Copies of the synapses, on the CPU, where they can be tried without moving the network.

    Raises:
        ConfigError: the first synapse does not take an example, or the last gives fewer outputs than are needed.
    """
    features, first = data.train.x.shape[-1], net.stack[0].synapse
    wide = first.in_features if isinstance(first, nn.Linear) else features
    chain = Chain.of([deepcopy(layer.synapse).cpu() for layer in net.stack], wide)
    if wide != features or chain.widths[-1] < data.outputs:
        kind = "classes" if data.classes else "numbers"
        raise _wrong(
            "network", f"{counted(wide, 'input')}, {counted(chain.widths[-1], 'output')}",
            f"{counted(features, 'input')}, {counted(data.outputs, 'output')}, as {data.name} has features and {kind}",
            f"make it of widths [{features}, ..., {data.outputs}]",
        )  # fmt: skip
    return chain


def script() -> str:
    """Return how the program that runs is run again, in words."""
    name = sys.argv[0] if sys.argv else ""
    return f"python {quoted(name)}" if name.endswith(".py") else "the script or notebook that called hil.train"


def _wrong(section: str, got: str, allowed: str, todo: str) -> ConfigError:
    return ConfigError(
        f"this {section} cannot be trained", where=f"{PLACE}: [{section}]", got=got, allowed=allowed, outputs=UNTOUCHED,
        todo=todo,
    )  # fmt: skip


def _data_table(data: Dataset) -> dict[str, Any]:
    counts = {split: len(getattr(data, split)) for split in ("train", "validation", "test")}
    shape = {"features": data.train.x.shape[-1], "classes" if data.classes else "numbers": data.outputs}
    return {"use": data.name, "checksum": data.checksum, **counts, **shape}


def _network_table(net: Network) -> dict[str, Any]:
    layers = {}
    for number, layer in enumerate(net.stack, 1):
        encode = {} if layer.encode is None else asdict(layer.encode)
        layers[f"layer_{number}"] = {"synapse": " ".join(str(layer.synapse).split()), **encode}
    closing = {} if net.feedback is None else {"closing": " ".join(str(net.feedback).split())}
    return {"use": "Python", **layers, **measured.table(net), **closing}


def _device_table(net: Network) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, (device, _) in enumerate(_seen(net), 1):
        spec = device.spec
        inner = bare(device)
        kind: type = type(inner.twin) if isinstance(inner, Simulated) else type(inner)
        ports = {"inputs": spec.inputs.table(), "outputs": spec.outputs.table(), "temporal": spec.temporal}
        found[f"device_{number}"] = {"class": f"{kind.__module__}:{kind.__qualname__}", **ports}
    return {"use": ", ".join(dict.fromkeys(table["class"] for table in found.values())), **found}


def _learner_table(learner: Any, settings: Mapping[str, Any]) -> LearnerTable:
    place, plain = f"{PLACE}: [learner]", {key: _plain(value, key) for key, value in settings.items()}
    if isinstance(learner, str):
        return checked(LearnerTable, {"use": learner, **plain}, place)
    kind = learner if isinstance(learner, type) else type(learner)
    table = GivenLearner(use=f"{kind.__module__}:{kind.__qualname__}", **plain)
    table._kind, table._ready = kind, not isinstance(learner, type)
    if isinstance(learner, type):
        keeps(learner, ("Settings", "build", "step", "predict"), "a Learner that hil.train can make", learner.__name__, place)
    table.settle(place)
    if isinstance(learner, type):
        return table
    missing = [name for name in LEARNS if not callable(getattr(learner, name, None))]
    if missing:
        raise _wrong(
            "learner", f"{said(learner, 60)} without {', '.join(missing)}",
            f"one of {', '.join(LEARNERS)}, or an object with {', '.join(LEARNS)}", "see examples/04_your_own_learner.py",
        )  # fmt: skip
    if settings:
        raise _wrong(
            "learner", ", ".join(f"{key} = {said(value, 40)}" for key, value in settings.items()),
            "no settings beside a learner that is made already", "give them to its class, and remove them here",
        )  # fmt: skip
    return table


def _plain(value: Any, key: str) -> Any:
    """Return a setting as TOML holds it."""
    if isinstance(value, Feedback):
        return value.to_table()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(part, key) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, key) for part in value]
    if isinstance(value, str | int | float | bool):
        return value
    raise _wrong(
        "learner", f"{key} = {said(value, 60)} ({type(value).__name__})",
        "numbers, text, lists and mappings of them, a hil.Feedback",
        "a learner that needs another thing can be given as an object",
    )  # fmt: skip


# ---- what runs ------------------------------------------------------------------------------------------------------------


def _seen(net: Network) -> list[tuple[Device, list[Layer]]]:
    """The distinct devices, each with the layers before it."""
    return [(device, [layer for layer in net.stack if layer.device is device]) for device in net.devices]


def _parameters(net: Network) -> list[nn.Parameter]:
    """Return the parameters of the synapses, and those that are programmed, alone: a device may be a module too."""
    parts = [layer.synapse for layer in net.stack]
    found = nn.ModuleList(parts if net.feedback is None else [*parts, net.feedback]).parameters()
    return [*found, *(layer.params for layer in net.stack if layer.params is not None)]


class _Ends:
    """Makes the devices of a script safe; what cannot be, is said at the end, after all else."""

    def __init__(self, devices: list[Any]) -> None:
        self._devices = devices
        self._unsafe: UnsafeOutputs | None = None

    def rest(self, error: BaseException | None) -> None:
        for device in self._devices:
            try:
                rested(device, error)
            except UnsafeOutputs as unsafe:
                self._unsafe = unsafe

    def __call__(self) -> None:
        self.rest(None)
        if self._unsafe is not None:
            raise self._unsafe


@contextmanager
def built_of(found: Given, told: EventListener = ignore_event, *, fresh: bool = False) -> Iterator[Built]:
    """Build the training; its devices are safe when the context ends.

    Args:
        found: what was given, checked.
        told: hears of every fault and recovery.
        fresh: a run begins here.

    Raises:
        Refused: nothing was driven. UnsafeOutputs: also on leaving.
    """
    net = found.net
    torch_device.settled(net.place)
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        stack.enter_context(torch_device.float32_by_default())
        owned = [device for device, _ in _seen(net)] if net.chip is None else [net.chip]
        ends = _Ends(owned)
        stack.callback(ends)
        benches = [device for device in owned if isinstance(device, Bench)]
        for bench in benches:
            bench.heard.append(told)
            stack.callback(bench.heard.pop)
        with building(PLACE):
            made = _built(found, told, owned, benches, ends.rest, fresh)
        yield made


def _built(
    found: Given,
    told: EventListener,
    owned: list[Any],
    benches: list[Bench],
    rest: Callable[[BaseException | None], None],
    fresh: bool,
) -> Built:
    experiment, net, on = found.experiment, found.net, found.net.place
    if found.learner is None:
        found_synapses = widened(experiment, [layer.synapse for layer in net.stack], found.task.outputs)
        for layer, synapse in zip(net.stack, found_synapses, strict=True):
            layer.synapse = synapse.to(on)
    table, synapses = experiment.train, [layer.synapse for layer in net.stack]
    set_up_torch(table.threads or default_threads(bool(benches), largest(synapses), table.batch))

    def ladder(device: Recoverable) -> Ladder:
        return Ladder(device, Patience(), told, lambda: None)

    counted = {id(device): metered(resilient(kept_steps(unwrapped(device)), ladder)) for device, _ in _seen(net)}
    for device, before in _seen(net):
        rates = {layer.levels.slew_per_s for layer in before if layer.levels is not None}
        if len(rates) > 1:
            raise _wrong(
                "network", "layers that program one device at several rates", "one slew_per_s for them", "correct Levels"
            )
        counted[id(device)].slow(next(iter(rates), None))
    devices: Callable[[], tuple[Metered, ...]] = lambda: tuple(counted.values())  # noqa: E731
    chip: MeteredChip | None = None
    if net.chip is not None:
        chip = MeteredChip(resilient_chip(net.chip, ladder))
        chip.devices.extend(counted.values())
        devices = lambda: tuple(chip.devices)  # noqa: E731
    layers = [
        Layer(
            layer.synapse,
            None if layer.device is None else counted[id(layer.device)],
            layer.encode,
            layer.decode,
            layer.params,
            layer.levels,
        )
        for layer in net.stack
    ]
    twin_net = Network(layers, net.feedback, net.pieces, chip)
    node = _node(found, owned, benches, rest)
    follow(node.twin, None, None, on)
    learner = learner_of(experiment, twin_net, found.task, model_of(node.twin, twin_net), found.weights, found.learner)
    first = start_of(experiment, synapses, net.feedback, [layer.params for layer in net.stack[:-1]]) if fresh else None
    if first is not None:
        first.into(twin_net)
    optimizer = optimiser(experiment.optimizer, _parameters(net))
    schedule = schedule_of(experiment.schedule, optimizer, found.plan, len(found.data.train), found.task.metric)
    data = moved(found.data, on)
    if fresh and net.pieces is None:
        net.pieces = twin_net.pieces = pieces.chosen(twin_net, sent(next(iter(data.train.parts(found.plan.batch)))[0], on))
        experiment = measured.with_measured(experiment, (), net.pieces)
    training = Training(
        twin_net, learner, optimizer, data, found.plan, devices(), schedule=schedule, task=found.task,
        refit=experiment.learner.refit,
    )  # fmt: skip
    provenance = reduce(answered, [answered(node.provenance, device.spec.provenance) for device in training.devices])
    after = "; ".join(dict.fromkeys(filter(None, (outputs_after(device) for device in owned))))
    labels = Labels(experiment.name or PLACE, provenance, node.facts, node.resources, after=after)
    transfer = net.transfer if isinstance(net, Dense) and fresh else None
    twin_check = checked_twin(node, training.devices[0], transfer, on) if len(counted) == 1 and chip is None else None
    return Built(training, node, labels, experiment, transfer, twin_check=twin_check, first=first)


def _node(found: Given, owned: list[Any], benches: list[Bench], rest: Callable[[BaseException | None], None]) -> Node:
    """Describe all devices together, as results and messages know them."""
    twins = [
        found.twin,
        *(device.twin for device in map(bare, owned) if isinstance(device, Simulated)),
        *(b.node.twin for b in benches),
    ]
    named = {} if found.experiment.device.use is None else {"use": found.experiment.device.use}
    facts: dict[str, Any] = {**named, **{k: v for b in benches for k, v in b.node.facts.items()}}
    resources = {name: line for bench in benches for name, line in bench.instruments.items()}
    told: list[Provenance] = [bench.node.provenance for bench in benches] or ["real"]  # who made it says so, with its spec
    return Node(
        owned[0] if found.net.chip is None else None, found.net.chip, next((t for t in twins if t is not None), None), facts,
        resources, provenance=reduce(answered, told), rest=rest, beware=tuple(line for b in benches for line in b.node.beware),
    )  # fmt: skip
