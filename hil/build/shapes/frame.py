"""The frame shape: an image is shown, an image is seen. drivers/frame/device.py; the light between them: drivers/frame/node.py.

[instruments.slm]     use = "drivers.scpi_display:ScpiDisplay"   resource = "TCPIP::…"     or "drivers.slmsuite:SLM", of, …
[instruments.camera]  use = "drivers.scpi_camera:ScpiCamera"     resource = "TCPIP::…"     or "drivers.genicam:Camera", …
[node]       drive = "slm"   read = "camera"
[frame]      exposure = "2 ms", drive, settle, saturated, rest_level, mask        FrameSettings
[show]       rows = 8, columns = 8, mask, …       macropixels of the display      Area
[look]       rows = 16, columns = 16, top, …      and of the camera
[optics]     mirror = { of = "flipper.voltage", full = "5 V" }, laser, lamp, wait           left out: the light is held
[virtual]    seed, transport, linger_s, log_path, faults
[virtual.NAME]      simulated instruments             [virtual.node]      the twin between display and camera

Other instruments stand beside the node: hil/build/auxiliaries.py. A display and a camera that only the package of their maker
reaches have no address: a host owns both (hil/build/own_device.py), and the guardian makes the others safe.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from rich.console import Console

from calibration.certificate import Instrument
from drivers.frame.device import Area, FrameSettings
from drivers.frame.node import OPTICS, FrameNode, Knob, Knobs
from drivers.frame.scpi import ScpiFrame
from hil.build.auxiliaries import Table, auxiliary_names
from hil.build.bench import (
    LINK_S,
    SIMULATED,
    Opened,
    Opening,
    check_address,
    lingering,
    provenance_of,
    role,
)
from hil.build.own_device import hosted_recipe
from hil.build.virtual import BenchTable, OnPlant, check_simulated, no_virtual, serve_all
from hil.config.bench import BenchFile, InstrumentTable
from hil.config.read import Holds, Section
from hil.config.resolve import UNTOUCHED, blaming, choice, keeps, resolve
from hil.device import Device, Provenance
from hil.errors import ConfigError
from hil.guardian.client import Guard
from hil.host.charge import Limits, Recipe
from hil.host.client import Hosted
from hil.run.outputs import HELD
from hil.settings import no_such
from hil.units import quantity
from sim_devices.bench.description import Part, VirtualBench, VirtualScene
from sim_devices.bench.served import spawn

FRAME = "hil.build.frame:frame"
SHOWS, SEES = ("write", "close"), ("read", "close")


class Roles(Section):
    """[node].

    Args:
        drive: the instrument that shows images.
        read: the instrument that takes frames.
    """

    drive: str
    read: str


class KnobTable(Section):
    """A number of an instrument beside the node that is programmed.

    Args:
        of: "NAME.SETTING", as the driver of that instrument calls it.
        full: its value at 1.
    """

    of: str
    full: float | str


class OpticsTable(Section):
    """[optics]: the light, programmed as shares of what is full. With it the exposure is programmed too.

    Args:
        mirror: brings in the mirror, past the medium.
        laser: power of the laser.
        lamp: of an even light on the camera.
        wait: after one of them was set.
    """

    mirror: KnobTable
    laser: KnobTable
    lamp: KnobTable
    wait: float | str = 0.0


class FrameBench(BenchFile):
    """A bench file of the frame shape."""

    node: Roles
    frame: Annotated[dict[str, Any], Holds(FrameSettings)] = Field(default_factory=dict)
    show: Annotated[dict[str, Any], Holds(Area)]
    look: Annotated[dict[str, Any], Holds(Area)]
    optics: OpticsTable | None = None
    virtual: BenchTable | None = None
    _settings: FrameSettings | None = PrivateAttr(default=None)
    _areas: dict[str, Area] = PrivateAttr(default_factory=dict)

    @property
    def timing(self) -> FrameSettings:
        """[frame], checked."""
        assert self._settings is not None  # it was read from a file
        return self._settings

    @property
    def areas(self) -> tuple[Area, Area]:
        """[show] and [look], checked."""
        return self._areas["show"], self._areas["look"]

    @property
    def roles(self) -> tuple[str, str]:
        """Names of the display and the camera."""
        return self.node.drive, self.node.read

    @property
    def hosted(self) -> bool:
        """The display and the camera have no wire of ours: the package of their maker reaches them."""
        return not _speaks(self.instruments[self.node.drive])

    def settle(self, place: str) -> None:
        """Check the tables and roles.

        Raises:
            ConfigError: a role that names no instrument, or a setting that makes no sense.
        """
        super().settle(place)
        self._settings = choice("frame", self.frame, f"{place}: [frame]", made=FrameSettings).build()
        self._areas = {
            name: choice("area", table, f"{place}: [{name}]", made=Area).build()
            for name, table in (("show", self.show), ("look", self.look))
        }
        tables = [role(self, name, key) for name, key in zip(self.roles, ("drive", "read"), strict=True)]
        for table, parts, kind in ((tables[0], SHOWS, "a display"), (tables[1], SEES, "a camera")):
            keeps(resolve(table.use, place), parts, kind, table.use, f"{place}: [node]")
        if _speaks(tables[0]) != _speaks(tables[1]):
            raise ConfigError(
                "one of display and camera has a wire, the other only the package of its maker", where=f"{place}: [node]",
                got=", ".join(table.use for table in tables), allowed="both of one kind, so that one process has both",
                outputs=UNTOUCHED, todo="serve the one without a wire by SCPI, or reach both by packages",
            )  # fmt: skip
        given = [key for key in ("resource", "timeout_s") if any(getattr(table, key) is not None for table in tables)]
        if self.hosted and (given or self.virtual is not None):
            raise ConfigError(
                "a display and a camera of a maker's package have no wire", where=f"{place}: [node]",
                got=", ".join([*given, *["[virtual]"] * (self.virtual is not None)]), outputs=UNTOUCHED,
                allowed="settings of the package; its own simulator, where it has one",
                todo="remove these, or name drivers that speak SCPI",
            )  # fmt: skip
        check_simulated(self, self.virtual, (*self.roles, *auxiliary_names(self, self.roles)))
        if self.optics is not None and self.timing.mask:
            raise ConfigError(
                "a mask and the light cannot both be programmed", where=f"{place}: [frame] mask", got="mask, and [optics]",
                allowed="one of them", outputs=UNTOUCHED, todo="remove mask, or [optics]",
            )  # fmt: skip
        if self.optics is not None:
            beside = auxiliary_names(self, self.roles)
            for key in OPTICS:
                knob = getattr(self.optics, key, None)
                if knob is not None and knob.of.partition(".")[0] not in beside:
                    raise ConfigError(
                        "no instrument beside the node has this number", where=f"{place}: [optics] {key}", got=f'"{knob.of}"',
                        allowed=", ".join(f"{name}.SETTING" for name in beside) or "an instrument with set = {…}",
                        outputs=UNTOUCHED, todo="correct the name, or give that instrument set = {…}, what it holds at first",
                    )  # fmt: skip


class FrameShape:
    """A display and a camera, and light between them."""

    Bench: ClassVar[type[BenchFile]] = FrameBench
    calibration: ClassVar[str] = "calibration.camera.sequence:camera"

    @contextmanager
    def open(self, bench: FrameBench, opening: Opening) -> Iterator[Opened]:
        """See hil.build.bench.Shape."""
        yield _hosted(bench, opening) if bench.hosted else _wired(bench, opening)

    def settings(self, bench: FrameBench) -> Mapping[str, Mapping[str, Any]]:
        """Return [node], [frame], [show], [look] and [optics]: they decide what is measured."""
        show, look = ({key: value for key, value in asdict(area).items() if value is not None} for area in bench.areas)
        optics = {} if bench.optics is None else {"optics": bench.optics.model_dump()}
        return {"node": bench.node.model_dump(), "frame": asdict(bench.timing), "show": show, "look": look, **optics}

    def serve(self, bench: FrameBench, out: Console) -> None:
        """See hil.build.bench.Shape."""
        serve_all(description(bench), bench.virtual, out)


def _wired(bench: FrameBench, opening: Opening) -> Opened:
    """Open a display and a camera that speak SCPI."""
    names = (*bench.roles, *auxiliary_names(bench, bench.roles))
    longest_s = max(bench.instruments[name].timeout_s or LINK_S for name in bench.roles)
    opening.check_silence(bench.timing.settle_s + 2 * longest_s, "[frame]")
    for name in names:
        check_address(bench.instruments[name], bench.virtual is not None, "TCPIP::…")
    described = lingering(description(bench), opening.run) if bench.virtual is not None else None
    with blaming(bench.virtual.place if bench.virtual is not None else bench.place):
        served = None if described is None else opening.stack.enter_context(spawn(described))
    table = Table(opening, names, bench.roles, served)
    knobs = _knobs(bench, table.drivers)
    auxiliaries = table.watched([bench.node.drive])
    auxiliaries.start()
    origin = provenance_of(bench, table.found)
    display, camera = (table.drivers[name] for name in bench.roles)
    display.provenance = camera.provenance = origin
    with blaming(f"{bench.place}: [frame]"):
        inner = ScpiFrame(display, camera, *bench.areas, bench.timing, exposures=knobs is not None)
    node = FrameNode(inner, inner.own, auxiliaries, knobs, opening.care, table.guard.beat)
    device: Device = node if served is None else OnPlant(node, served)
    twin = {} if bench.virtual is None else {"use": bench.virtual.node.use, **bench.virtual.node.settings()}
    facts = {"bench": bench.name, **twin}
    return Opened(
        device, None, facts, table.lines, table.guard, bench.twin, opening.patience, table.found, origin, node.notes
    )  # fmt: skip


class _Both:
    """The host of display and camera, and the guardian of the instruments beside them. Args: guard: None: there are none."""

    def __init__(self, device: Hosted, guard: Guard | None) -> None:
        self._device, self._guard = device, guard

    def beat(self) -> None:
        """Tell both that this program makes progress."""
        self._device.beat()
        if self._guard is not None:
            self._guard.beat()

    def rest(self, error: BaseException | None) -> None:
        """Make all outputs safe now, because `error` has ended the work, or because it is done."""
        if self._guard is None:
            self._device.close()
        else:
            self._guard.rest(error)  # it closes the device in its turn

    @property
    def outputs_after(self) -> str:
        """Say what is known of the outputs once guardian and host have made them safe."""
        return HELD if self._guard is None else f"{self._guard.outputs_after}; display: {HELD}"


def _hosted(bench: FrameBench, opening: Opening) -> Opened:
    """Open a display and a camera that only the package of their maker reaches."""
    beside = auxiliary_names(bench, bench.roles)
    for name in beside:
        check_address(bench.instruments[name], False, "TCPIP::…")
    table = Table(opening, beside, (), None, elsewhere=bench.roles) if beside else None
    display, camera = (bench.instruments[name] for name in bench.roles)
    made = {"display": _made(display), "camera": _made(camera)}
    show, look = (asdict(area) for area in bench.areas)
    settings = {**made, "show": show, "look": look, **asdict(bench.timing), "exposures": bench.optics is not None}
    waits = bench.guardian
    limits = Limits(silence_s=waits.silence_s, deadline_s=waits.silence_s, patience_s=max(waits.patience_s, 1.0))
    recipe = Recipe(FRAME, settings, f"{bench.place}: [node]")
    device = hosted_recipe(recipe, limits, opening.run, opening.stack, 0, False, made)
    origin = device.spec.provenance
    found = {name: _identity(bench.instruments[name], origin) for name in bench.roles}
    lines = {name: f"{who.model} of {who.maker}   {device.description}" for name, who in found.items()}
    if table is None:
        node: Any = device
        guard = _Both(device, None)
    else:
        knobs = _knobs(bench, table.drivers)
        table.closed_by(device.close, bench.roles)
        auxiliaries = table.watched(())
        auxiliaries.start()
        guard = _Both(device, table.guard)
        node = FrameNode(device, (), auxiliaries, knobs, opening.care, guard.beat)
        lines, found = {**lines, **table.lines}, {**found, **table.found}
    facts = {"bench": bench.name}
    return Opened(node, None, facts, lines, guard, bench.twin, opening.patience, found, origin)


def _speaks(table: InstrumentTable) -> bool:
    """True if the driver has a conversation with its instrument over a wire of ours."""
    return "scpi" in inspect.signature(resolve(table.use, table.place)).parameters


def _made(table: InstrumentTable) -> dict[str, Any]:
    return {"use": table.choice.use, **table.choice.settings}


def _identity(table: InstrumentTable, origin: Provenance) -> Instrument:
    """Return the identity that the file states: a package does not tell it in one way."""
    digest = hashlib.blake2b(json.dumps(_made(table), sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
    settings = table.choice.settings
    serial = str(settings.get("serial") or digest)
    package, _, driver = table.choice.use.rpartition(".")[2].partition(":")
    model = str(settings.get("of") or driver).rpartition(":")[2]
    return Instrument(package, model, f"{SIMULATED}{serial}" if origin == "twin" else serial, "")


def _knobs(bench: FrameBench, drivers: Mapping[str, Any]) -> Knobs | None:
    """The numbers that [optics] names. Raises: ConfigError, OutOfRange: nothing was set."""
    table = bench.optics
    if table is None:
        return None
    place = f"{bench.place}: [optics]"

    def knob(key: str, given: KnobTable) -> Knob:
        name, _, number = given.of.partition(".")
        ports = drivers[name].holdable()
        if number not in ports:
            raise no_such("setting", number, ports, f"{place} {key}")
        port = ports[number]
        full = quantity(given.full, "dimensionless" if port.unit == "1" else port.unit, f"{place} {key} full")
        with blaming(f"{place} {key}"):
            port.check(torch.tensor([0.0, full], dtype=torch.float64)[:, None])
        return Knob(drivers[name], number, full)

    settle_s = quantity(table.wait, "second", f"{place} wait")
    return Knobs(knob("mirror", table.mirror), knob("laser", table.laser), knob("lamp", table.lamp), settle_s)


def description(bench: FrameBench) -> VirtualBench:
    """The simulated side of `bench`.

    Raises:
        ConfigError: the file has none.
    """
    table = bench.virtual
    if table is None:
        raise no_virtual(bench)
    scene = VirtualScene(bench.node.drive, bench.node.read, Part(table.node.use, table.node.choice.settings))
    return table.bench(scenes=(scene,))
