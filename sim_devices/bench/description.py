"""A virtual bench as data, and how its parts are put together.

A description holds JSON values only, so that it can be sent to another process:

    {"boxes": [{"name": "awg", "use": "module:Class", "settings": {...}}, ...],
     "wires": [{"awg": "awg", "scope": "scope", "node": {"use": "module:Class", "settings": {...}}, "delay_s": 12.4e-9, ...}],
     "grids": [{"sources": [["bias", 1], ...], "meters": ["meter1", ...], "node": {...}, "per_volt": 1.0, "a_per_unit": 1.0}],
     "scenes": [{"display": "slm", "camera": "camera", "node": {...}}],
     "feeds": [{"box": "laser", "path": "node.laser_w", "scale": 1.0}],
     "transport": "hislip", "seed": 7, "faults": [{"box": "scope", "kind": "truncate", "rate": 0.001}, ...], ...}
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

from hil.errors import ConfigError
from hil.files import loads
from sim_devices.bench.control import Adjustable
from sim_devices.bench.outputs import Feed, Outputs
from sim_devices.instruments.box import Box
from sim_devices.instruments.faults import FaultSchedule, Place
from sim_devices.instruments.keithley_2400 import Keithley2400
from sim_devices.instruments.source_box import SourceBox
from sim_devices.switch_log import SwitchLog

Transport = Literal["hislip", "socket", "vxi11", "both", "all"]
"""both: HiSLIP and raw sockets."""
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Part:
    """A thing to be made: `use` is "module:Class", `settings` its keyword arguments."""

    use: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VirtualBox:
    """A simulated instrument.

    Args:
        name: on this bench, "awg".
        use: "module:Class", a `Box` that takes a keyword `lock`.
        settings: its other keywords.
        hislip_port, socket_port, vxi11_port: 0 takes a free one.
    """

    name: str
    use: str
    settings: Mapping[str, object] = field(default_factory=dict)
    hislip_port: int = 0
    socket_port: int = 0
    vxi11_port: int = 0


@dataclass(frozen=True, slots=True)
class VirtualInput:
    """A further input of a node; its fields are those of `wiring.Input` and its Cable."""

    awg: str
    channel: int = 1
    delay_s: float = 0.0
    load_ohm: float | None = 50.0


@dataclass(frozen=True, slots=True)
class VirtualOutput:
    """A further output of a node; its fields are those of `wiring.Output`."""

    channel: int
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class VirtualWire:
    """A wire from a generator through a node to a scope; its fields are those of `wiring.Wire` and its Cable.

    Args:
        awg, scope: names of boxes.
        node: the twin.
        load_ohm: what the generator really sees, None for open.
        inputs, outputs: further ones of a node that has several.
        sync: the scope channel that reads SYNC.
    """

    awg: str
    scope: str
    node: Part
    awg_channel: int = 1
    scope_channel: int = 1
    delay_s: float = 0.0
    load_ohm: float | None = 50.0
    noise_v: float = 0.0
    inputs: tuple[VirtualInput, ...] = ()
    outputs: tuple[VirtualOutput, ...] = ()
    sync: int | None = None
    sync_delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class VirtualGrid:
    """A node that many outputs drive at once; its fields are those of `grid.Grid`.

    Args:
        sources: name of a box and its channel, for each input of the node.
        meters: names of boxes, for each of its outputs.
        node: the twin.
        programs: name of a box and its channel, for each parameter of the node.
    """

    sources: tuple[tuple[str, int], ...]
    meters: tuple[str, ...]
    node: Part
    per_volt: float = 1.0
    a_per_unit: float = 1.0
    programs: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualScene:
    """A node between a display and a camera.

    Args:
        display, camera: names of boxes.
        node: the twin.
    """

    display: str
    camera: str
    node: Part


@dataclass(frozen=True, slots=True)
class VirtualBench:
    """A whole bench.

    Args:
        boxes: the instruments.
        wires: what lies between them.
        seed: of noise and drift.
        oversample: see `sim_devices.bench.wiring.Plant`.
        linger_s: how long it outlives its parent.
        log_path: a file that gets a line when an output goes on or off, and the state of all of them when the parent is
            gone and at the end.
        faults: scheduled from the start, see `sim_devices.instruments.faults`; the box of a fault is a name of `boxes`, or
            "node", "node2", ... for that of a wire.
        grids: a node of many inputs, instead of wires; one at most.
        scenes: a node between a display and a camera, instead of either; one at most.
        feeds: parameters of the plant that follow an output, see `outputs.Feed`.
        port_mapper: a VXI-11 port mapper for each box, which gets a loopback address of its own: 127.0.0.1, 127.0.0.2, ...
        announce: tell programs of this computer by mDNS what is served, see sim_devices/transports/announce.py.
    """

    boxes: tuple[VirtualBox, ...]
    wires: tuple[VirtualWire, ...] = ()
    transport: Transport = "hislip"
    seed: int = 0
    oversample: int = 1
    control_port: int = 0
    linger_s: float = 0.0
    log_path: str | None = None
    faults: Sequence[Mapping[str, object]] = ()
    grids: tuple[VirtualGrid, ...] = ()
    feeds: tuple[Feed, ...] = ()
    scenes: tuple[VirtualScene, ...] = ()
    port_mapper: bool = False
    announce: bool = False

    def __post_init__(self) -> None:
        if self.transport not in get_args(Transport):
            raise ConfigError(
                "no such transport", where="virtual bench", got=f"{self.transport!r}", allowed=", ".join(get_args(Transport))
            )
        if self.port_mapper and self.transport not in ("vxi11", "all"):
            raise ConfigError(
                "a port mapper is for VXI-11 alone", where="virtual bench", got=f'transport "{self.transport}"',
                allowed='transport = "vxi11"', todo="leave port_mapper out, or serve the bench over VXI-11",
            )  # fmt: skip
        names = [box.name for box in self.boxes]
        if not names or len(set(names)) != len(names):
            raise ConfigError("boxes need distinct names", where="virtual bench", got=f"{names}", allowed="one or more")
        if len(self.grids) + len(self.scenes) + bool(self.wires) > 1:
            raise ConfigError(
                "a bench has wires, one grid or one scene", where="virtual bench", got="several", allowed="one plant"
            )
        lost = [feed.box for feed in self.feeds if feed.box not in names]
        if lost:
            raise ConfigError(
                "no such box feeds the plant", where="virtual bench", got=", ".join(lost), allowed=", ".join(names)
            )

    def to_json(self) -> str:
        """Write it as one line of JSON.

        Raises:
            ConfigError: a setting is not a JSON value.
        """
        try:
            return json.dumps(asdict(self))
        except TypeError as error:
            raise ConfigError(
                "a setting is not a JSON value", where="virtual bench", got=str(error), allowed="numbers, text, lists, mappings"
            ) from error

    @staticmethod
    def from_json(line: str) -> VirtualBench:
        """Raises: ConfigError: not the JSON of a bench."""
        try:
            values: dict[str, Any] = loads(line, "virtual bench", ConfigError)
            boxes = tuple(VirtualBox(**box) for box in values.pop("boxes"))
            wires = tuple(_wire(wire) for wire in values.pop("wires", ()))
            grids = tuple(_grid(grid) for grid in values.pop("grids", ()))
            scenes = tuple(VirtualScene(**{**scene, "node": Part(**scene["node"])}) for scene in values.pop("scenes", ()))
            feeds = tuple(Feed(**feed) for feed in values.pop("feeds", ()))
            faults = tuple(dict(fault) for fault in values.pop("faults", ()))
            return VirtualBench(boxes, wires, faults=faults, grids=grids, feeds=feeds, scenes=scenes, **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                "not the description of a virtual bench", where="virtual bench", got=f"{line[:80]!r}: {error}"
            ) from error


def _wire(values: Mapping[str, Any]) -> VirtualWire:
    inputs = tuple(VirtualInput(**one) for one in values.get("inputs", ()))
    outputs = tuple(VirtualOutput(**one) for one in values.get("outputs", ()))
    return VirtualWire(**{**values, "node": Part(**values["node"]), "inputs": inputs, "outputs": outputs})


def _grid(values: Mapping[str, Any]) -> VirtualGrid:
    outputs = {key: tuple((str(box), int(n)) for box, n in values.get(key, ())) for key in ("sources", "programs")}
    return VirtualGrid(**{**values, **outputs, "meters": tuple(values["meters"]), "node": Part(**values["node"])})


class Unwired:
    """The plant of a bench without wires: it has no state."""

    def paths(self) -> tuple[str, ...]:
        """Return (): there is nothing to adjust."""
        return ()

    def get(self, path: str) -> float:
        """Raise ConfigError: there is no such parameter."""
        raise ConfigError("this bench has no wires", where="plant", got=path, todo="give the bench a wire and a node")

    def set(self, path: str, value: float) -> None:
        """Raise ConfigError: there is no such parameter."""
        self.get(path)

    def snapshot(self) -> Mapping[str, object]:
        """Return {}: there is no state."""
        return {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Do nothing."""

    @property
    def log(self) -> tuple[Any, ...]:
        """The empty log: no output is connected."""
        return ()

    def extremes(self) -> Mapping[str, object]:
        """Return {}: no output is connected."""
        return {}


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts, wired to each other and not yet served."""

    plant: Adjustable
    boxes: dict[str, Box]
    faults: FaultSchedule
    log: SwitchLog


def assemble(bench: VirtualBench) -> Assembly:
    """Make every part and connect it.

    Raises:
        ConfigError: names the part, what it got and what it takes.
    """
    lock = threading.Condition()  # of the whole bench: a trigger runs from box to box through the node
    boxes: dict[str, object] = {
        box.name: made(Part(box.use, box.settings), f"box {box.name}", lock=lock) for box in bench.boxes
    }
    scopes = {wire.scope for wire in bench.wires}
    places: dict[str, Place] = {name: "scope" if name in scopes else "box" for name in boxes}
    places |= {f"node{'' if i == 0 else i + 1}": "node" for i in range(len(bench.wires))}
    faults, log = FaultSchedule(places, bench.seed), SwitchLog(bench.log_path)
    plant: Adjustable = Unwired()
    if bench.wires:
        plant = _wired(bench, boxes, faults, log)
    elif bench.grids or bench.scenes:
        plant = (_gridded if bench.grids else _staged)(bench, boxes, log)
    Outputs(boxes, plant, bench.feeds, log)
    faults.add_all(bench.faults)
    return Assembly(plant, {name: cast(Box, box) for name, box in boxes.items()}, faults, log)


def _wired(bench: VirtualBench, boxes: Mapping[str, object], faults: FaultSchedule, log: SwitchLog) -> Adjustable:
    from sim_devices.bench.wire import Cable, Input, Node, Output, Wire
    from sim_devices.bench.wiring import Plant
    from sim_devices.instruments.generator_box import GeneratorBox  # here, because a bench without wires starts ten times
    from sim_devices.instruments.scope_box import ScopeBox  # faster without torch

    def cable(one: VirtualWire | VirtualInput) -> Cable:
        return Cable(one.delay_s, math.inf if one.load_ohm is None else one.load_ohm)

    def wire(w: VirtualWire) -> Wire:
        return Wire(
            awg=_box(boxes, w.awg, GeneratorBox),
            node=cast(Node, made(w.node, "node")),
            scope=_box(boxes, w.scope, ScopeBox),
            awg_channel=w.awg_channel,
            scope_channel=w.scope_channel,
            cable=cable(w),
            noise_v=w.noise_v,
            inputs=tuple(Input(_box(boxes, one.awg, GeneratorBox), one.channel, cable(one)) for one in w.inputs),
            outputs=tuple(Output(one.channel, one.delay_s) for one in w.outputs),
            sync=w.sync,
            sync_delay_s=w.sync_delay_s,
        )

    wires = [wire(w) for w in bench.wires]
    for described, made_wire in zip(bench.wires, wires, strict=True):
        made_wire.scope.faults = faults.of[described.scope]
    return Plant(wires, seed=bench.seed, oversample=bench.oversample, log=log, faults=faults.of)


def _gridded(bench: VirtualBench, boxes: Mapping[str, object], log: SwitchLog) -> Adjustable:
    from sim_devices.bench.grid import Grid  # here, for torch
    from sim_devices.twin import Twin

    (grid,) = bench.grids
    sources, programs = (
        [(_box(boxes, name, SourceBox), channel) for name, channel in some] for some in (grid.sources, grid.programs)
    )
    meters = [_box(boxes, name, Keithley2400) for name in grid.meters]
    node = cast(Twin, made(grid.node, "node"))
    return Grid(sources, meters, node, grid.per_volt, grid.a_per_unit, programs=programs, seed=bench.seed, log=log)


def _staged(bench: VirtualBench, boxes: Mapping[str, object], log: SwitchLog) -> Adjustable:
    from sim_devices.bench.scene import Scene  # here, for torch
    from sim_devices.instruments.scpi_camera import ScpiCamera
    from sim_devices.instruments.scpi_display import ScpiDisplay
    from sim_devices.twin import Twin

    (scene,) = bench.scenes
    display, camera = _box(boxes, scene.display, ScpiDisplay), _box(boxes, scene.camera, ScpiCamera)
    return Scene(display, camera, cast(Twin, made(scene.node, "node")), seed=bench.seed, log=log)


def _box(boxes: Mapping[str, object], name: str, kind: type[B]) -> B:
    box = boxes.get(name)
    box = next((part for part in getattr(box, "parts", ()) if isinstance(part, kind)), box)
    if not isinstance(box, kind):
        raise ConfigError(
            "a wire ends at a box that is not there or not of its kind",
            where="wires",
            got=f'"{name}": {type(box).__name__ if name in boxes else "no such box"}',
            allowed=f"a {kind.__name__}; there are {', '.join(boxes)}",
        )
    return box


def made(part: Part, where: str, **given: object) -> object:
    """The object that `part` describes, with the settings that are `given` besides.

    Raises:
        ConfigError: no such module, class or setting; or the class itself refuses.
    """
    target = _found(part.use, where)
    try:
        inspect.signature(target).bind(**{**part.settings, **given})
    except TypeError as error:
        takes = [name for name in inspect.signature(target).parameters if name not in given]
        raise ConfigError(
            f"{part.use} does not take these settings", where=where, got=str(error), allowed=", ".join(takes)
        ) from error
    return target(**{**part.settings, **given})


def _found(use: str, where: str) -> type[Any]:
    name, _, attribute = use.partition(":")
    try:
        found = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f'cannot import "{use}"',
            where=where,
            got=str(error),
            allowed="module:Class",
            todo="check the spelling of the module",
        ) from error
    if not isinstance(found, type):
        raise ConfigError(f'"{use}" is not a class', where=where, got=type(found).__name__, allowed="module:Class")
    return found
