"""Instruments of QCoDeS as a Device: their parameters are set and read; see drivers/parameters.py.

    [device]
    use = "drivers.qcodes:QCoDeS"
    instruments = { dac = { of = "qcodes_contrib_drivers.drivers.QDevil.QDAC2:QDac2", address = "TCPIP::…" } }
    drive = ["dac.ch01.dc_constant_V", …]      a parameter, also of a channel or a submodule

One beside a node, which holds what it is set to: Adapter; see drivers/adapter.py.
The name of an instrument is also the one that QCoDeS knows it by. Source: https://microsoft.github.io/Qcodes
"""

from __future__ import annotations

from typing import ClassVar

from drivers.adapter import PackageAdapter
from drivers.packages import Holding, Package, QCoDeSPackage
from drivers.parameters import Parameters


class QCoDeS(Parameters):
    """A Device of parameters of QCoDeS; its settings are those of Parameters."""

    package: ClassVar[Package] = QCoDeSPackage()


class Adapter(PackageAdapter):
    """An instrument of QCoDeS beside a node; its settings are those of PackageAdapter."""

    package: ClassVar[Holding] = QCoDeSPackage()
    talk: ClassVar[str] = "drivers.package_talk:qcodes"
    takes: ClassVar[str] = "address"
