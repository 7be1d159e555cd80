"""Instruments of PyMeasure as a Device: their properties are set and read; see drivers/parameters.py.

    [device]
    use = "drivers.pymeasure:PyMeasure"
    instruments = { smu = { of = "pymeasure.instruments.keithley:Keithley2400", adapter = "GPIB::4" } }
    drive = ["smu.source_voltage"]      read = ["smu.current"]      a property, also of a channel: "smu.ch_1.voltage"
    hold = { "smu.compliance_current" = 1e-3, "smu.source_enabled" = true }
    safe = { "smu.source_enabled" = false }

Source: https://pymeasure.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from drivers.packages import needed
from drivers.parameters import Package, Parameters, followed, made


class _PyMeasure:
    """See drivers.parameters.Package."""

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        needed("pymeasure", "pymeasure")
        found = made(table)
        return found, type(found).__module__ == "pymeasure.instruments.fakes"

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        owner, _, name = parameter.rpartition(".")
        where = followed(instrument, owner)
        if not hasattr(type(where), name):
            raise AttributeError(f"{type(where).__name__} has no {name}")  # setattr would make one
        setattr(where, name, value)

    def get(self, instrument: Any, parameter: str) -> Any:
        return followed(instrument, parameter)

    def close(self, instrument: Any) -> None:
        instrument.shutdown()
        instrument.adapter.close()


class PyMeasure(Parameters):
    """A Device of properties of PyMeasure; its settings are those of Parameters."""

    package: ClassVar[Package] = _PyMeasure()
