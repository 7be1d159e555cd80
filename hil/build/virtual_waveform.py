"""The simulated side of a waveform bench: [virtual], [virtual.cable], and the wires that they make.

One node has all drives and readings, if its twin has as many; a twin of one drive and one reading stands in each way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from hil.build.virtual import BenchTable
from hil.config.read import Holds
from hil.config.resolve import TWINS, UNTOUCHED, Choice, choice
from hil.errors import ConfigError
from hil.units import Unbounded
from sim_devices.bench.description import Part, VirtualBench, VirtualInput, VirtualOutput, VirtualWire
from sim_devices.bench.specimen import CABLE, node_specimen, specimen

Named = tuple[str, int]
"""An instrument, and the number of its channel."""


@dataclass(frozen=True, slots=True)
class Cables:
    """[virtual.cable].

    Args:
        delay_s: from the generator's connector to the scope's, node included; a list: of each drive.
        load_ohm: what the generators really see.
        read_delay_s: what a reading comes later than the first; a list: of each reading.
        sync_delay_s: of the cable from SYNC to the channel that reads it, less that of the one to EXT TRIG.
    """

    delay_s: float | tuple[float, ...] = 0.0
    load_ohm: Unbounded = 50.0
    read_delay_s: float | tuple[float, ...] = 0.0
    sync_delay_s: float = 0.0

    def each(self, name: str, count: int, place: str) -> tuple[float, ...]:
        """Return one of the delays for each of `count` channels, s. Raises: ConfigError: of another number of channels."""
        value = getattr(self, name)
        found = tuple(value) if isinstance(value, tuple | list) else (value,) * count
        if len(found) != count:
            raise ConfigError(
                "a delay for each channel, or one for all", where=f"{place} {name}", got=f"{len(found)} delays",
                allowed=f"{count}", outputs=UNTOUCHED, todo="correct the list",
            )  # fmt: skip
        return found


class VirtualTable(BenchTable):
    """The simulated side of a bench: which boxes, which node, how they are served.

    Args:
        specimen: the node and the cable stray from these tables as a specimen does, drawn from this number; left out: they
            are as they stand here.
        cable: the way from the generator through the node to the scope.
    """

    specimen: Annotated[int, Field(ge=0, strict=True)] | None = None
    cable: Annotated[dict[str, Any], Holds(Cables)] = Field(default_factory=dict)
    _line: Choice | None = PrivateAttr(default=None)

    def settle(self, place: str) -> None:
        """Find the classes of the boxes, and check the cable."""
        super().settle(place)
        self._line = choice("cable", self.cable, f"{place[:-1]}.cable]", made=Cables)

    @property
    def line(self) -> Cables:
        """Delays and load of the cables, in SI units."""
        assert self._line is not None  # it was read from a file
        found: Cables = self._line.build()
        return found


def wired(table: VirtualTable, drives: Sequence[Named], reads: Sequence[Named], sync: Named | None = None) -> VirtualBench:
    """Describe the virtual bench.

    Args:
        table: [virtual].
        drives: channels of the inputs of the node.
        reads: channels of its outputs.
        sync: the channel that reads SYNC; None: none does.

    Raises:
        ConfigError: settings that are wrong, a twin of other inputs or outputs, or SYNC at another scope than the readings.
    """
    settings, cable, where = dict(table.node.choice.settings), table.line, f"{table.place[:-1]}.cable]"
    delays = cable.each("delay_s", len(drives), where)
    later = cable.each("read_delay_s", len(reads), where)
    if table.specimen is not None:
        settings |= node_specimen(table.node.choice.build(), table.specimen, table.place)
        first = specimen({"delay_s": delays[0]}, CABLE, table.specimen)["delay_s"]
        delays = tuple(delay + first - delays[0] for delay in delays)
    node, ways = Part(TWINS.get(table.node.use, table.node.use), settings), list(zip(drives, delays, strict=True))
    if _side_by_side(table, drives, reads):
        wires = tuple(
            VirtualWire(awg, scope, node, out, end, delay_s + late, cable.load_ohm)
            for ((awg, out), delay_s), (scope, end), late in zip(ways, reads, later, strict=True)
        )
    else:
        ((awg, out), delay_s), *more = ways
        (scope, end), *rest = reads
        first_s = delay_s + later[0]
        inputs = tuple(VirtualInput(name, k, way_s + later[0], cable.load_ohm) for (name, k), way_s in more)
        outputs = tuple(VirtualOutput(k, late - later[0]) for (_, k), late in zip(rest, later[1:], strict=True))
        wires = (VirtualWire(awg, scope, node, out, end, first_s, cable.load_ohm, inputs=inputs, outputs=outputs),)
    if sync is not None:
        wires = (replace(wires[0], sync=_at(sync, wires[0].scope, table), sync_delay_s=cable.sync_delay_s), *wires[1:])
    return table.bench(wires=wires)


def _at(sync: Named, scope: str, table: VirtualTable) -> int:
    """Return the channel of `scope` that reads SYNC. Raises: ConfigError: it is one of another scope."""
    name, channel = sync
    if name == scope:
        return channel
    raise ConfigError(
        "SYNC of a simulated generator is read by the scope that reads the node", where=table.place, got=f"{name}.{channel}",
        allowed=f"a channel of {scope}", outputs=UNTOUCHED, todo="name another channel in [node] sync",
    )  # fmt: skip


def _side_by_side(table: VirtualTable, drives: Sequence[Named], reads: Sequence[Named]) -> bool:
    """True if each drive has a node of its own, with its reading; False: one node has all of them.

    Raises:
        ConfigError: the twin has another number of inputs or outputs, or its outputs are read by several scopes.
    """
    if len(drives) == len(reads) == 1:
        return False
    spec = table.node.choice.build().spec
    if spec.inputs.size is None and len(drives) == len(reads):
        return True
    if (spec.inputs.size, spec.outputs.size) != (len(drives), len(reads)):
        found = f"{spec.inputs.size or 1} drives, {spec.outputs.size or 1} readings"
        raise ConfigError(
            "the twin has other inputs or outputs than [node] names", where=table.node.place, got=found,
            allowed=f"{len(drives)} drives, {len(reads)} readings", outputs=UNTOUCHED,
            todo="name another twin, or other channels",
        )  # fmt: skip
    if len({name for name, _ in reads}) > 1:
        raise ConfigError(
            "the outputs of one simulated node are read by one scope", where=table.node.place,
            got=", ".join(f"{name}.{k}" for name, k in reads), allowed="channels of one scope", outputs=UNTOUCHED,
            todo="use one scope",
        )  # fmt: skip
    return False
