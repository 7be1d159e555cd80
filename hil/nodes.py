"""From the [device] section of an experiment to what it names: a node or a chip, simulated here or on a bench, and its twin."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calibration.steering import Follow, unfollowed
from hil.config import Experiment, dump, find, read_bench
from hil.device import Attentive, Chip, Device, Following, Provenance, Recoverable
from hil.errors import ConfigError, UnsafeOutputs
from hil.foreign import foreign
from hil.naming import UNTOUCHED, arguments, construct, keeps, resolve
from hil.run.recovery import Ladder, Patience, Told
from hil.run.resilient import resilient, resilient_chip
from sim_devices.lif_array import Neuron
from sim_devices.simulated import Simulated
from sim_devices.spiking_array import TwinChip
from sim_devices.twin import Twin

TWINS = {
    "mach_zehnder": "sim_devices.mach_zehnder:MachZehnder",
    "tabulated": "sim_devices.tabulated:Tabulated",
    "mzi_mesh": "sim_devices.mzi_mesh:MZIMesh",
    "scattering": "sim_devices.scattering:Scattering",
}
CHIPS = {"lif": "sim_devices.spiking_array:TwinChip"}


def unattended() -> None:
    """Of a device whose instruments, if it has any, say nothing of what they hold."""


@dataclass(frozen=True)
class Node:
    """What was opened, and what is known of it: a Device that all neurons share in time, or a Chip that arrays are cut from.

    twin: the differentiable belief about a device, for references and reports. facts: for results. resources: instrument -> who
    answered; empty if nothing left this process. patience: with its faults. beat: a sign of life, for long pauses. settings: of
    the bench, whole, as text. beware: what must be told about its calibration.
    provenance: who answers, by who opened it. follow: moves the levels that the device adds. attend: see hil.device.Attentive.
    rest: outputs off at once, because of an error or None, before anything is written down; the device is closed with it.
    """

    source: Device | None
    chip: Chip | None
    twin: Twin | None
    facts: dict[str, Any]
    resources: dict[str, str]
    patience: Patience = field(default_factory=Patience)
    beat: Callable[[], None] = lambda: None
    settings: str = ""
    beware: tuple[str, ...] = ()
    provenance: Provenance = "unknown"
    follow: Follow = unfollowed
    attend: Callable[[], None] = unattended
    rest: Callable[[BaseException | None], None] = lambda error: None


def opened_node(experiment: Experiment, where: Path, bench_copy: Path | None, run: Path | None, stack: ExitStack) -> Node:
    """What [device] of `experiment`, read from the file `where`, names. `stack` closes it, outputs safe.

    Args:
        bench_copy: bench file to use instead of the one named, when a run folder holds a copy. run: that folder.
    Raises:
        Refused: before anything is opened. LinkError, InstrumentError: from the bench.
    """
    table, place = experiment.device, f"{where}: [device]"
    named = {"bench": table.bench, "use": table.use, "chip": table.chip}
    given = [name for name, value in named.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            "one device is needed", where=place, got=" and ".join(given) or "none", outputs=UNTOUCHED,
            allowed='bench = "benches/….toml", use = "module:Class" for a node, or chip = "module:Class" for neurons',
        )  # fmt: skip
    if table.use is not None:
        twin = twin_of(table.use, table.settings(), place)
        return Node(Simulated(twin, experiment.seed), None, twin, {"use": table.use, **table.settings()}, {}, provenance="twin")
    if table.chip is not None:
        chip = _chip(table.chip, table.settings(), experiment.seed, place)
        stack.callback(_close, chip, place)
        return Node(None, chip, None, {"chip": table.chip, **table.settings()}, {})
    path = bench_copy or find(str(table.bench), where)
    return _bench_node(path, bench_copy is not None, run, experiment.train.wire, stack)


def _bench_node(path: Path, kept: bool, run: Path | None, wire: bool, stack: ExitStack) -> Node:
    """kept: the file is a run's copy."""
    from hil.bench import open_bench  # the drivers and VISA are slow to import, and a twin needs neither
    from hil.certified import certified

    bench = read_bench(path)
    pinned = certified(bench, path, kept)
    opened = stack.enter_context(open_bench(bench, str(path), run, wire or bench.log.wire))  # leaving closes it, verified
    beware = opened.beware if pinned is None else (*opened.beware, *pinned.said, *pinned.met(opened.instruments))
    found = opened.twin if pinned is None or pinned.twin is None else pinned.twin
    belief = None if found is None else twin_of(found.use, found.settings(), f"{path}: [twin]")
    facts = opened.facts if pinned is None else {**opened.facts, "calibration": pinned.title}
    patience, beat = opened.patience, opened.guard.beat
    follow = opened.device.follow if isinstance(opened.device, Following) else unfollowed
    attend = opened.device.attend if isinstance(opened.device, Attentive) else unattended
    return Node(
        opened.device, opened.chip, belief, facts, opened.resources, patience, beat, dump(bench), beware,
        provenance=opened.provenance, follow=follow, attend=attend, rest=opened.guard.rest,
    )  # fmt: skip


def _close(chip: Chip, place: str) -> None:
    """Raises: UnsafeOutputs: closing it failed in a way that says nothing about its outputs."""
    todo = "switch the outputs off at the chip, and correct its close()"
    with foreign(f"{place} closing the chip", UnsafeOutputs, "not known to be safe", todo):
        chip.close()


def resilient_node(node: Node, told: Told) -> Node:
    """`node`, climbing the recovery ladder by itself."""

    def ladder(device: Recoverable) -> Ladder:
        return Ladder(device, node.patience, told, node.beat)

    source = None if node.source is None else resilient(node.source, ladder)
    return replace(node, source=source, chip=None if node.chip is None else resilient_chip(node.chip, ladder))


def twin_of(use: str, settings: dict[str, Any], where: str) -> Twin:
    """Build a twin from a table of a file."""
    made = resolve(use, where, TWINS)
    if isinstance(settings.get("of"), str):
        resolve(settings["of"], where)  # a twin on top of another: that may be a class of the user's too
    twin: Twin = construct(made, arguments(made, settings, where), where)
    keeps(twin, ("spec", "rest", "respond", "ideal"), "a Twin", use, where)
    return twin


def _chip(use: str, settings: dict[str, Any], seed: int, where: str) -> Chip:
    made = resolve(use, where, CHIPS)
    if made is TwinChip:
        return TwinChip(construct(Neuron, arguments(Neuron, settings, where), where), seed)
    chip: Chip = construct(made, arguments(made, settings, where), where)
    keeps(chip, ("array", "close"), "a Chip", use, where)
    return chip
