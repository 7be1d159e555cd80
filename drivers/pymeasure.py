"""Instruments of PyMeasure as a Device: their properties are set and read; see drivers/parameters.py.

    [device]
    use = "drivers.pymeasure:PyMeasure"
    instruments = { smu = { of = "pymeasure.instruments.keithley:Keithley2400", adapter = "GPIB::4" } }
    drive = ["smu.source_voltage"]      read = ["smu.current"]      a property, also of a channel: "smu.ch_1.voltage"
    hold = { "smu.compliance_current" = 1e-3, "smu.source_enabled" = true }
    safe = { "smu.source_enabled" = false }

One beside a node, which holds what it is set to: Adapter; see drivers/adapter.py.
Source: https://pymeasure.readthedocs.io
"""

from __future__ import annotations

from typing import ClassVar

from drivers.adapter import PackageAdapter
from drivers.packages import Holding, Package, PyMeasurePackage
from drivers.parameters import Parameters


class PyMeasure(Parameters):
    """A Device of properties of PyMeasure; its settings are those of Parameters."""

    package: ClassVar[Package] = PyMeasurePackage()


class Adapter(PackageAdapter):
    """An instrument of PyMeasure beside a node; its settings are those of PackageAdapter."""

    package: ClassVar[Holding] = PyMeasurePackage()
    talk: ClassVar[str] = "drivers.package_talk:pymeasure"
    takes: ClassVar[str] = "adapter"
