"""Instruments of QCoDeS as a Device: their parameters are set and read; see drivers/parameters.py.

    [device]
    use = "drivers.qcodes:QCoDeS"
    instruments = { dac = { of = "qcodes_contrib_drivers.drivers.QDevil.QDAC2:QDac2", address = "TCPIP::…" } }
    drive = ["dac.ch01.dc_constant_V", …]      a parameter, also of a channel or a submodule

The name of an instrument is also the one that QCoDeS knows it by. Source: https://microsoft.github.io/Qcodes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from drivers.packages import needed
from drivers.parameters import Package, Parameters, followed, made


class _QCoDeS:
    """See drivers.parameters.Package."""

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        needed("qcodes", "qcodes")
        found = made(table, name)
        return found, "mock_instruments" in type(found).__module__

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        followed(instrument, parameter).set(value)

    def get(self, instrument: Any, parameter: str) -> Any:
        return followed(instrument, parameter).get()

    def close(self, instrument: Any) -> None:
        instrument.close()


class QCoDeS(Parameters):
    """A Device of parameters of QCoDeS; its settings are those of Parameters."""

    package: ClassVar[Package] = _QCoDeS()
