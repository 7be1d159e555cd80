"""A training from an experiment file: the composition root below the command line.

Everything that can be refused without hardware is checked first: data, network, classes, settings. Then the device is opened,
its transfer curve measured, the network built around it. Whatever was opened is closed, outputs safe, when the context ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hil import torch_device
from hil.build.learner import learner_of, model_of
from hil.build.measured import with_measured
from hil.build.network import Chain
from hil.build.node import Node, resilient_node
from hil.build.open_node import opened_node
from hil.build.prepared import Prepared, building, prepared
from hil.build.projection import Projector, beside
from hil.build.recording import needs, recorded_node, tape_of
from hil.build.stand_in import stand_in
from hil.build.task import task_table
from hil.build.warm_start import Start
from hil.build.wired import wired
from hil.config.experiment import Experiment
from hil.data.dataset import Dataset, moved
from hil.device import answered
from hil.devices.meter import Allow, no_budget
from hil.devices.recovery import EventListener, ignore_event
from hil.encoding import Decode
from hil.network import Network
from hil.run.folder import PROJECTION
from hil.run.summary import Labels
from hil.synapses import channels_of
from hil.task import Task
from hil.torch_device import default_threads, set_up_torch
from hil.training import diagnostics, pieces
from hil.training.outcome import misbelieved
from hil.training.state import Training
from hil.training.transfer_curve import Transfer, twin_line
from hil.twin import Parametric
from sim_devices.twin import follow

if TYPE_CHECKING:
    from hil.tape.writer import Tape


@dataclass(frozen=True)
class Built:
    """A training ready to run, and what the report wants to know. `transfer` is None where none was measured.

    Args:
        tape: how much will be recorded, or "".
        twin_check: how well the twin predicts the node, see hil/training/transfer_curve.py; None if there is no twin, or
            nothing was measured.
        first: whose weights the run begins with; None: those that were drawn.
        projector: projects the error; None: matrices on the host do.
    """

    training: Training
    node: Node
    labels: Labels
    experiment: Experiment
    transfer: Transfer | None
    tape: str = ""
    twin_check: dict[str, Any] | None = None
    first: Start | None = None
    projector: Projector | None = None

    @property
    def model(self) -> Callable[[Tensor], Tensor] | None:
        """The twin's noiseless response, drive -> reading; None also for a node of many channels: that is no curve."""
        twin = self.node.twin
        return None if twin is None or twin.spec.inputs.size is not None else twin.ideal

    @property
    def settled(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The twin's noiseless response, (drive, what is programmed) -> reading; None: it has none, or there is no twin."""
        return self.node.twin.settled if isinstance(self.node.twin, Parametric) else None

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
        facts = ", ".join(f"{k} {v}" for k, v in self.node.facts.items() if k != PROJECTION)
        yield f"node    {facts}   ({self.labels.provenance})"
        if self.projector is not None:
            yield f"error   {self.projector.said}"
        data, net = self.training.data, self.training.net
        if net.place.type != "cpu":
            yield f"on      {torch_device.title(net.place)}"
        shape = "-".join(str(channels_of(layer.synapse)) for layer in net.stack)
        yield (
            f"data    {data.name}: {len(data.train):,} train · {len(data.validation):,} validation · {len(data.test):,} test"
            f"   network {data.train.x.shape[-1]}-{shape}, {self.experiment.learner.use}"
        )
        if self.first is not None:
            yield f"start   {self.first.told}"
        if self.twin_check is not None:
            yield f"twin    {twin_line(self.twin_check)}"
        if self.tape:
            yield f"tape    {self.tape}"
        for line in misbelieved(net, self.training.learner):
            yield f"beware  {line}"


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
    with ExitStack() as stack:
        stack.enter_context(torch_device.float32_by_default())
        ready = prepared(experiment, given, fresh or begins)
        torch_device.settled(ready.on)
        with building(experiment.place):
            train = experiment.train
            set_up_torch(train.threads or default_threads(experiment.served, ready.chain.largest, train.batch))
            tape = stack.enter_context(tape_of(run)) if record and run is not None else None  # closed last: with the last shot
            opened = opened_node(experiment, run, stack) if node is None else node
            opened, projector, allow = beside(experiment, opened, run, stack, told, allow)
            experiment, used = stand_in(experiment, resilient_node(opened, told), ready.on)
            made = _built(experiment, ready, used, tape, fresh, allow, told, projector, begins=fresh and node is None)
        yield made


def _built(
    experiment: Experiment, ready: Prepared, node: Node, tape: Tape | None, fresh: bool, allow: Allow, told: EventListener,
    projector: Projector | None, *, begins: bool,
) -> Built:  # fmt: skip
    """Put what is `ready` around the opened node, with what projects, if anything does; `begins`: a run, on a node opened here.

    The other arguments are those of `built`.
    """
    follow(node.twin, None, None, ready.on)
    if tape is not None:
        node = recorded_node(experiment, node, tape, fresh)
    around = wired(experiment, node, ready.chain, ready.on, fresh, allow, told)
    net = around.net.to(ready.on)
    learner = learner_of(experiment, net, ready.task, model_of(node.twin, net), ready.weights, projector=projector)
    if ready.first is not None:
        ready.first.into(net)
    training = Training(
        net, learner, ready.optimizer, moved(ready.data, ready.on), ready.plan, around.devices(), tape, around.sentinel,
        ready.schedule, ready.task, experiment.learner.refit, None if projector is None else projector.device,
    )  # fmt: skip
    provenance = answered(node.provenance, training.devices[0].spec.provenance)
    labels = Labels(experiment.name or experiment.near.stem, provenance, node.facts, node.resources, after=node.outputs_after)
    options, sent = experiment.learner.options, ready.data.train.x
    played = sent.shape[1] if sent.ndim == 3 and any(device.spec.memory for device in net.devices) else 1
    steps = int(getattr(options, "time_steps", played * getattr(options, "hold", 1)))
    room = "" if tape is None else needs(training, ready.chain.hidden, steps, tape)
    if begins and net.pieces is None:
        net.pieces = pieces.chosen(net, training.sent(*next(iter(ready.data.train.parts(ready.plan.batch))))[0])
    resolved = _resolved(experiment, ready.data, ready.task, around.decodes, net.pieces)
    return Built(training, node, labels, resolved, around.transfer, room, around.twin_check, ready.first, projector)


def elsewhere(made: Built, experiment: Experiment, stack: ExitStack) -> Network:
    """The synapses of `made` in front of the device of `experiment`: how a trained network stands another one.

    Raises: as `built`.
    """
    trained = made.training.net
    features, params = made.training.data.train.x.shape[-1], [layer.params for layer in trained.stack[:-1]]
    chain = Chain.of([layer.synapse for layer in trained.stack], features, trained.feedback, params)
    node = resilient_node(opened_node(experiment, None, stack), ignore_event)
    experiment, node = stand_in(experiment, node, trained.place)
    follow(node.twin, None, None, trained.place)
    return wired(experiment, node, chain, trained.place).net


def _resolved(experiment: Experiment, data: Dataset, task: Task, decodes: Sequence[Decode], cut: int | None) -> Experiment:
    """The experiment as it runs: what was measured or inferred is written down, so that a resume does not do it again.

    So is the checksum of data that could change; that of a published set stands in its card.
    """
    changed: dict[str, Any] = {"task": task_table(experiment.task, task, experiment.place)}
    if experiment.data.named.kind != "published":
        changed["data"] = experiment.data.model_copy(update={"checksum": data.checksum})
    return with_measured(experiment.model_copy(update=changed), decodes, cut)
