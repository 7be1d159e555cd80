"""Shape "levels": one instrument holds levels and measures at each of them; all neurons share it in time.

[instruments.NAME]   use = "acme_g1:AcmeG1"       a driver with drive, reading, sweep, output, safe_state, close
[node]               source = "NAME"
[levels]             most = 100                   levels in one sweep
[virtual]            use, and its settings        the simulated instrument; without this table the bench is real
"""

from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from hil.build.bench import LINK_S, Opened, check_address, check_roles, instrument, lingering, provenance_of, role
from hil.config.bench import BenchFile
from hil.config.read import Section, Using
from hil.device import Spec
from hil.errors import ConfigError
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import spawn


class Roles(Section):
    """[node]. source: the instrument that drives and reads."""

    source: str


class LevelsTable(Section):
    """[levels]. most: levels in one sweep."""

    most: Annotated[int, Field(ge=1, le=100)] = 100


class LevelsBench(BenchFile):
    """The tables of a bench file of this shape; BenchFile has the tables that all shapes share."""

    node: Roles
    levels: LevelsTable = Field(default_factory=LevelsTable)
    virtual: Using | None = None

    def settle(self, place: str) -> None:  # called once, when the whole file has been checked
        super().settle(place)
        role(self, self.node.source, "source")
        check_roles(self, (self.node.source,))


class Levels:
    """The Device: (batch, n) volts -> (batch, n) amperes."""

    def __init__(self, driver: Any, most: int, provenance: Any) -> None:
        self._driver, self._most = driver, most
        self.spec = Spec(driver.drive, driver.reading, provenance=provenance)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = self.spec.inputs.check(x).flatten().tolist()  # the whole batch is checked before anything is sent
        found = [
            current for k in range(0, len(values), self._most) for current in self._driver.sweep(values[k : k + self._most])
        ]
        return torch.tensor(found).view_as(x)

    def close(self) -> None:
        self._driver.close()


class Shape:
    """One source that also measures."""

    Bench: ClassVar = LevelsBench
    calibration: ClassVar = ""  # or "my_lab.steps:mine", the steps of hil calibrate

    @contextmanager
    def open(self, bench, opening):
        name = bench.node.source
        table = bench.instruments[name]
        check_address(table, bench.virtual is not None, "TCPIP::192.168.1.20::hislip0::INSTR")
        opening.check_silence(2 * (table.timeout_s or LINK_S), "the source")
        if bench.virtual is None:
            address = table.resource
        else:
            box = VirtualBox(name, bench.virtual.use, bench.virtual.choice.settings)
            served = opening.stack.enter_context(spawn(lingering(VirtualBench((box,)), opening.run)))
            address = served.resources[name]
        guard = opening.guarded([address])  # 1. own the instrument, and start the guardian
        driver, who, line = opening.scpi(name, address, guard)  # 2. open it, its output off
        opening.stack.push(guard.leaving(driver.close))  # 3. leaving closes it, whatever happens
        guard.watch(opening.safe_states({name: driver}))  # 4. the guardian knows what safe means: now an output may go on
        driver.output(True)
        found = {name: instrument(who)}
        origin = provenance_of(bench, found)
        device = Levels(driver, bench.levels.most, origin)
        yield Opened(device, None, {"bench": bench.name}, {name: line}, guard, bench.twin, opening.patience, found, origin)

    def settings(self, bench):
        """What changes a measurement, besides the settings of the instruments: a calibration holds for these alone."""
        return {"levels": {"most": bench.levels.most}}

    def serve(self, bench, out):
        raise ConfigError("this shape serves no bench of its own", where=bench.place, outputs="untouched; nothing was opened")
