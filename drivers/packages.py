"""Packages of instrument makers and labs, which hil does not need: imported when a device that uses one is opened.

A `Package` is how instruments of one are opened, set, asked and closed by names of parameters: what PyMeasure and QCoDeS are to
drivers/parameters.py, which makes a device of parameters, and to drivers/adapter.py, which holds them beside a node.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

from drivers.scpi import Identity
from hil.errors import UNTOUCHED, ConfigError, Desync


class Package(Protocol):
    """A package's way to open instruments, and to work their parameters."""

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        """Open an instrument of a table; return it, and whether it is simulated."""

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        """Set a parameter."""

    def get(self, instrument: Any, parameter: str) -> Any:
        """Ask for a parameter."""

    def close(self, instrument: Any) -> None:
        """Give an instrument back."""


class Holding(Package, Protocol):
    """A package whose instruments can stand beside a node."""

    def who(self, instrument: Any) -> Identity:
        """Ask an instrument who it is; its class stands for the model of one that cannot say."""

    def release(self, instrument: Any) -> None:
        """Close the wire of an instrument, and leave what it holds."""


class PyMeasurePackage:
    """Properties of PyMeasure, also of a channel: "ch_1.voltage"."""

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        """See Package."""
        needed("pymeasure", "pymeasure")
        found = made(table)
        return found, type(found).__module__ == "pymeasure.instruments.fakes"

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        """See Package. Raises: AttributeError: there is no such property."""
        owner, _, name = parameter.rpartition(".")
        where = followed(instrument, owner)
        if not hasattr(type(where), name):
            raise AttributeError(f"{type(where).__name__} has no {name}")  # setattr would make one
        setattr(where, name, value)

    def get(self, instrument: Any, parameter: str) -> Any:
        """See Package."""
        return followed(instrument, parameter)

    def close(self, instrument: Any) -> None:
        """See Package."""
        instrument.shutdown()
        instrument.adapter.close()

    def who(self, instrument: Any) -> Identity:
        """See Holding. An answer of another form than that to *IDN? stands whole for the model, so that a change is seen."""
        if not hasattr(type(instrument), "id"):
            return nameless(instrument)
        try:
            said = str(instrument.id).strip()
        except NotImplementedError:  # what PyMeasure says of an instrument that speaks no SCPI
            return nameless(instrument)
        try:
            return Identity.parse(said)
        except Desync:
            return Identity("", said[:80], "", "")

    def release(self, instrument: Any) -> None:
        """See Holding. `shutdown` would set what its class takes for safe."""
        instrument.adapter.close()


class QCoDeSPackage:
    """Parameters of QCoDeS, also of a channel or a submodule: "ch01.dc_constant_V"."""

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        """See Package."""
        needed("qcodes", "qcodes")
        found = made(table, name)
        return found, "mock_instruments" in type(found).__module__

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        """See Package."""
        followed(instrument, parameter).set(value)

    def get(self, instrument: Any, parameter: str) -> Any:
        """See Package."""
        return followed(instrument, parameter).get()

    def close(self, instrument: Any) -> None:
        """See Package."""
        instrument.close()

    def who(self, instrument: Any) -> Identity:
        """See Holding."""
        said = {key: str(value or "") for key, value in instrument.get_idn().items()}
        if not said.get("model"):
            return nameless(instrument)
        return Identity(*(said.get(key, "") for key in ("vendor", "model", "serial", "firmware")))

    def release(self, instrument: Any) -> None:
        """See Holding."""
        instrument.close()


def nameless(instrument: Any) -> Identity:
    """Name an instrument that cannot say who it is."""
    return Identity("", type(instrument).__name__, "", "")


def needed(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its name.
        extra: of hil that installs it.

    Raises:
        ConfigError: it is not installed, or cannot be imported; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"the package {module.partition('.')[0]} cannot be imported", where=f"extra {extra}", got=str(error),
            allowed="an installed package", outputs=UNTOUCHED, todo=f"pip install 'hil[{extra}]'",
        ) from error  # fmt: skip


def made(table: Mapping[str, Any], *first: Any, **more: Any) -> Any:
    """The object of `of = "module:Class"`, made with `first`, the other keys of its table, and `more`.

    Raises:
        ConfigError: there is no such class.
    """
    settings = dict(table)
    of = str(settings.pop("of", ""))
    module, _, kind = of.partition(":")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            "no such driver", where=of or "a driver", got=str(error), allowed="module:Class", outputs=UNTOUCHED,
            todo="correct the name; the package of the driver says where it is",
        ) from error  # fmt: skip
    return found(*first, **settings, **more)


def followed(thing: Any, path: str) -> Any:
    """The attribute that a dotted path names. Raises: AttributeError."""
    for part in path.split(".") if path else ():
        thing = getattr(thing, part)
    return thing
