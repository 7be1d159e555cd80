"""The node of [projection], opened beside that of [device]: who projects the error in place of the matrices of the learner.

Each has its own guard. While one is waited for, or climbs its ladder, the other's guard is told that the program goes on.
What this node writes of its opening stands in projection/ of the run folder, its bench file in projection.toml.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hil.build.node import Node, outputs_after, resilient_node
from hil.build.open_node import bench_node
from hil.build.own_device import own_node
from hil.config.device import ProjectionTable
from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED, blaming
from hil.device import answered
from hil.devices.meter import Allow, Metered, metered
from hil.devices.recovery import EventListener
from hil.devices.stepped import stepped
from hil.devices.together import Together
from hil.errors import ConfigError
from hil.learner import Learner
from hil.learners.parts.projection import Projecting
from hil.run.folder import PROJECTION
from hil.seeding import key
from sim_devices.simulated import Simulated
from sim_devices.twin import Twin


@dataclass(frozen=True)
class Projector:
    """An opened node that projects.

    Args:
        table: [projection].
        device: counted.
        node: what was opened.
    """

    table: ProjectionTable
    device: Metered
    node: Node

    @property
    def said(self) -> str:
        """A line about it for people."""
        facts = ", ".join(f"{key} {value}" for key, value in self.node.facts.items())
        return f"projected by {facts}: {2 * self.table.planes} shots an example   ({self.node.provenance})"

    def given_to(self, learner: Learner) -> None:
        """Let the learner project by it. Raises: ConfigError: its sizes do not fit. OutOfRange: a level."""
        table, unit = self.table, self.device.spec.inputs.unit
        assert isinstance(learner, Projecting)  # `check` has seen its class
        with blaming(table.place):
            levels = None if table.levels is None else table.quantities("levels", unit)
            assert levels is None or isinstance(levels, tuple)  # the table has two
            learner.project_by(self.device, None if levels is None else (levels[0], levels[1]), table.planes)


def check(experiment: Experiment) -> None:
    """Refuse, before anything is opened, what makes no sense with a node that projects. Raises: ConfigError."""
    table, learner = experiment.projection, experiment.learner
    if table is None:
        return
    if not issubclass(learner.rule, Projecting):
        raise ConfigError(
            "this learner projects no error", where=learner.place, got=f'use = "{learner.use}", with [projection]',
            allowed='"adfa", "adfa_snn", "dfa", or a class of hil.learners.parts.projection.Projecting', outputs=UNTOUCHED,
            todo="choose another learner, or remove [projection]",
        )  # fmt: skip
    if experiment.train.record:
        raise ConfigError(
            "a tape holds the node of [device] alone, so this run could not be replayed", where=table.place,
            got="record = true and [projection]", allowed="one of them", outputs=UNTOUCHED, todo="remove record, or --record",
        )  # fmt: skip


def beside(
    experiment: Experiment, node: Node, run: Path | None, stack: ExitStack, told: EventListener, allow: Allow
) -> tuple[Node, Projector | None, Allow]:
    """Open the node of [projection] beside `node`, if there is one.

    Args:
        experiment: as it was read.
        node: that of [device], opened.
        run: the run folder, or None.
        stack: closes the node, outputs safe.
        told: hears of its faults and recoveries.
        allow: asked before every shot, see Metered.

    Returns:
        the node of [device], made safe together with the other one and named with it in results; the other one; and whom its
        shots ask before they begin, which also tells the other one's guard that the program goes on.

    Raises:
        Refused: before it is opened. LinkError, InstrumentError: from its bench.
    """
    table = experiment.projection
    if table is None:
        return node, None, allow
    together = stack.enter_context(Together())
    together.add(node.beat)
    with together.waiting():
        other = _opened(experiment, table, run, stack)
    together.add(other.beat)
    if other.source is None:
        raise ConfigError(
            "a device that projects has no neurons", where=table.place, got="a chip", allowed="a bench with a static node",
            outputs="safe; whatever was opened is closed again", todo="name another bench",
        )  # fmt: skip

    def beat() -> None:
        node.beat()
        other.beat()

    def rest(error: BaseException | None) -> None:
        with ExitStack() as both:  # one that fails must not keep the other from being made safe
            both.callback(node.rest, error)
            both.callback(other.rest, error)

    def allowed(passes: int) -> None:
        allow(passes)
        beat()

    joined = replace(
        node, beat=beat, rest=rest, beware=(*node.beware, *other.beware),
        provenance=answered(node.provenance, other.provenance),
        facts={**node.facts, PROJECTION: other.facts},
        resources={**node.resources, **{f"{PROJECTION} {name}": line for name, line in other.resources.items()}},
        together=together, outputs_after=outputs_after([node, other]),
    )  # fmt: skip
    climbing = resilient_node(replace(other, beat=beat, together=together), told).source
    assert climbing is not None  # looked at above
    return joined, Projector(table, metered(climbing, allowed), other), allowed


def _opened(experiment: Experiment, table: ProjectionTable, run: Path | None, stack: ExitStack) -> Node:
    bench, folder = experiment.projection_bench, None if run is None else run / PROJECTION
    if bench is not None or table.kind != "twin":
        if folder is not None:
            folder.mkdir(exist_ok=True)
        if bench is not None:
            return bench_node(bench, experiment.projection_kept, folder, experiment.train.wire, stack)
        return own_node(table, folder, stack)
    assert table.choice is not None  # a twin is a class
    twin: Twin = table.choice.build()
    device = Simulated(twin, key(experiment.seed, 0, PROJECTION))
    return Node(stepped(device), None, twin, {"use": table.use, **table.settings()}, {}, provenance="twin")
