"""The node or chip that [device] of an experiment names, opened: simulated here or on a bench, with its twin."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import reduce
from pathlib import Path

from calibration.drift.steering import unfollowed
from hil.build.node import Node, outputs_after, unattended
from hil.build.own_device import UNGUARDED, own_node
from hil.config.bench import BenchFile
from hil.config.device import DeviceTable
from hil.config.experiment import Experiment
from hil.config.read import dump
from hil.device import Attentive, Chip, Following, answered
from hil.devices.stepped import stepped
from hil.devices.together import Together
from hil.errors import UnsafeOutputs
from hil.foreign import foreign
from hil.seeding import key
from sim_devices.simulated import Simulated
from sim_devices.twin import Twin


def opened_node(experiment: Experiment, run: Path | None, stack: ExitStack) -> Node:
    """Open what [device] of `experiment` names.

    Args:
        experiment: as it was read.
        run: the run folder, or None.
        stack: closes the node, outputs safe.

    Raises:
        Refused: before anything is opened. LinkError, InstrumentError: from the bench.
    """
    if experiment.bench is not None:
        return bench_node(experiment.bench, experiment.kept, run, experiment.train.wire, stack)
    table = experiment.device
    if table.layers:
        together = stack.enter_context(Together())
        nodes = []
        for number, layer in enumerate(table.layers, 1):
            with together.waiting():
                nodes.append(_single(layer, experiment.seed, run, stack, number))
            together.add(nodes[-1].beat)
        return _together(nodes, together)
    return _single(table, experiment.seed, run, stack)


def _single(table: DeviceTable, seed: int, run: Path | None, stack: ExitStack, number: int = 0) -> Node:
    """Open a node that no bench file describes.

    Args:
        table: of the node.
        seed: of the experiment.
        run: the run folder, or None.
        stack: closes the node.
        number: of its layer, from 1; 0 of a node for all layers.
    """
    if table.kind in ("device", "host"):
        return own_node(table, run, stack, number)
    assert table.choice is not None  # neither bench nor host
    if table.kind == "twin":
        twin: Twin = table.choice.build()
        device = Simulated(twin, key(seed, number, "device") if number else seed)
        return Node(stepped(device), None, twin, {"use": table.use, **table.settings()}, {}, provenance="twin")
    seeded = {"seed": seed} if hasattr(table.choice.made, "Settings") else {}
    chip: Chip = table.choice.build(**seeded)
    stack.callback(_close, chip, table.place)
    facts = {"chip": table.chip, **table.settings(), **({"unguarded": True} if table.unguarded else {})}
    return Node(None, chip, None, facts, {}, beware=(UNGUARDED,) if table.unguarded else ())


def _together(nodes: Sequence[Node], together: Together) -> Node:
    """The nodes of a network with a device a layer, as results and messages know them."""

    def rest(error: BaseException | None) -> None:
        with ExitStack() as every:  # one that fails must not keep the next from being made safe
            for node in nodes:
                every.callback(node.rest, error)

    def beat() -> None:
        for node in nodes:
            node.beat()

    facts = {f"layer {number}": node.facts for number, node in enumerate(nodes, 1)}
    resources = {name: line for node in nodes for name, line in node.resources.items()}
    beware = tuple(line for node in nodes for line in node.beware)
    provenance = reduce(answered, [node.provenance for node in nodes])
    return Node(
        None, None, None, facts, resources, nodes[0].patience, beat, beware=beware, provenance=provenance, rest=rest,
        parts=tuple(nodes), together=together, outputs_after=outputs_after(nodes),
    )  # fmt: skip


def bench_node(bench: BenchFile, kept: bool, run: Path | None, wire: bool, stack: ExitStack) -> Node:
    """Open the bench of a node.

    Args:
        bench: its file, read.
        kept: the file is a run's copy.
        run: the run folder, or None.
        wire: keep transcripts of what is said to every instrument there.
        stack: closes the node, outputs safe.
    """
    from hil.build.bench import open_bench  # the drivers and VISA are slow to import, and a twin needs neither
    from hil.build.calibration import certified

    pinned = certified(bench, kept)
    opened = stack.enter_context(open_bench(bench, run, wire or bench.log.wire))  # leaving closes it, verified
    after = opened.guard.outputs_after
    beware = opened.beware if pinned is None else (*opened.beware, *pinned.said, *pinned.met(opened.instruments, after))
    found = opened.twin.choice if opened.twin is not None else None
    if pinned is not None and pinned.twin is not None:
        found = pinned.twin
    nominal: Twin | None = None if found is None else found.build()
    facts = opened.facts if pinned is None else {**opened.facts, "calibration": pinned.title}
    patience, beat = opened.patience, opened.guard.beat
    follow = opened.device.follow if isinstance(opened.device, Following) else unfollowed
    attend = opened.device.attend if isinstance(opened.device, Attentive) else unattended
    source = None if opened.device is None else stepped(opened.device)
    return Node(
        source, opened.chip, nominal, facts, opened.resources, patience, beat, dump(bench), beware,
        provenance=opened.provenance, follow=follow, attend=attend, rest=opened.guard.rest,
        instruments=opened.instruments, outputs_after=after,
    )  # fmt: skip


def _close(chip: Chip, place: str) -> None:
    """Raises: UnsafeOutputs: closing it failed in a way that says nothing about its outputs."""
    todo = "switch the outputs off at the chip, and correct its close()"
    with foreign(f"{place} closing the chip", UnsafeOutputs, "not known to be safe", todo):
        chip.close()
