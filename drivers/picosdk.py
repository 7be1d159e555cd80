"""A PicoScope of the 5000 series through the maker's package: an opened unit, and the calls of its library.

    address     "GQ918/0053"                                     serial number, the library where the system finds it
                "/opt/picoscope/lib/libps5000a.so::GQ918/0053"   path of the library, and serial number

A call returns a status; any but PICO_OK is an error of ours. On the power of USB alone a unit says so when it is opened, and
is told that this is meant. One program alone can open a unit.

Source: PicoScope 5000 Series (A API) Programmer's Guide, "ps5000aOpenUnit", "ps5000aChangePowerSource"; picosdk 1.1.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from drivers.package_talk import anew
from drivers.packages import needed
from drivers.safe import SafeState, Talk
from drivers.scpi import Identity
from hil.errors import (
    UNTOUCHED,
    CommandRefused,
    ConfigError,
    ContractError,
    HilError,
    LinkError,
    OpenFailed,
    WrongInstrument,
)

MAKER, SIMULATED = "Pico Technology", "simulated"  # what a simulated library says of itself
TALK = f"{__name__}:over"
RESOLUTIONS = {8: 0, 12: 1, 14: 2}  # bits -> number of the API
DC_VOLTAGE = 8  # a waveform
FIRMWARE, MODEL, SERIAL = 0, 3, 4  # lines about a unit
ON_USB = ("PICO_POWER_SUPPLY_NOT_CONNECTED", "PICO_USB3_0_DEVICE_NON_USB3_0_PORT")
LOST = ("PICO_NOT_RESPONDING", "PICO_NOT_FOUND", "PICO_INVALID_HANDLE", "PICO_POWER_SUPPLY_UNDERVOLTAGE")


class Unit:
    """An opened unit, and the calls of the library, one at a time: it is not safe to make two.

    Args:
        address: "SERIAL", or "PATH::SERIAL".
        bits: of the converter.
        called: its name on the bench.
        beat: called with every call.
    """

    def __init__(self, address: str, bits: int, called: str, beat: Callable[[], None]) -> None:
        path, _, self.serial = address.rpartition("::")
        self.where, self._beat, self._lock = f"{called} at {self.serial or 'any'}", beat, threading.RLock()
        self.api, self.bits = _library(path), bits
        self._tags: Mapping[int, str] = needed("picosdk.constants", "picosdk").PICO_STATUS_LOOKUP
        self._handle: ctypes.c_int16 | None = None
        self._who: Identity | None = None
        self.begin()

    @property
    def opened(self) -> bool:
        """True until it is given back."""
        return self._handle is not None

    def begin(self) -> None:
        """Open the unit. Raises: OpenFailed: it is not there, or another program has it."""
        handle, serial = ctypes.c_int16(), self.serial.encode() or None
        status = self.api.ps5000aOpenUnit(ctypes.byref(handle), serial, RESOLUTIONS[self.bits])
        if self._tags.get(status) in ON_USB:
            status = self.api.ps5000aChangePowerSource(handle, status)
        if status:
            raise OpenFailed(
                "the PicoScope does not open", where=self.where, got=self._told(status), allowed="PICO_OK",
                outputs="as they were", todo="look at its cable and serial number, and close other programs that use it",
            )  # fmt: skip
        self._handle = handle

    def call(self, name: str, *values: Any, doing: str = "") -> None:
        """Call a function of the library. Raises: LinkError: the unit is gone. CommandRefused: it refuses."""
        with self._lock:
            if self._handle is None:
                raise ContractError("the PicoScope is closed", where=self.where, outputs="0 V", todo="make a new one")
            self._beat()
            status = getattr(self.api, f"ps5000a{name}")(self._handle, *values)
        if status:
            tag = self._told(status)
            kind = LinkError if tag in LOST else CommandRefused
            raise kind(f"{doing or name} failed", where=self.where, got=tag, allowed="PICO_OK",
                       outputs="at rest, or inside their limits", todo="look at its cable and its settings")  # fmt: skip

    def info(self, which: int) -> str:
        """Return a line about the unit."""
        text, size = ctypes.create_string_buffer(64), ctypes.c_int16()
        self.call("GetUnitInfo", text, 64, ctypes.byref(size), which)
        return text.value.decode("ascii", "replace")

    def number(self, name: str, kind: Any, *values: Any) -> Any:
        """Call a function whose last argument is a number that it answers with."""
        found = kind()
        self.call(name, *values, ctypes.byref(found))
        return found.value

    def identity(self) -> Identity:
        """Ask the unit who it is."""
        return Identity(MAKER, self.info(MODEL), self.info(SERIAL), self.info(FIRMWARE))

    def identify(self) -> Identity:
        """See that the same unit answers as before; return who it is. Raises: WrongInstrument."""
        found = self.identity()
        self._who = self._who or found
        if found.serial != self._who.serial:
            raise WrongInstrument(
                "another unit answers", where=self.where, got=str(found), allowed=str(self._who), outputs="as they were",
                todo="connect the same unit again, or write its serial number",
            )  # fmt: skip
        return found

    def anew(self) -> None:
        """Give the unit back, and open it again. Raises: OpenFailed, WrongInstrument."""
        with suppress(HilError):
            self.close()
        self.begin()
        self.identify()

    def silence(self) -> None:
        """Give 0 V, whatever was played. Raises: CommandRefused, LinkError."""
        self.call("SetSigGenBuiltInV2", 0, 0, DC_VOLTAGE, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, 0, doing="0 V at the output")

    def close(self) -> None:
        """Give the unit back."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                self.api.ps5000aCloseUnit(handle)

    def _told(self, status: int) -> str:
        return self._tags.get(status, f"status {status}")


def _library(path: str) -> Any:
    """Load the maker's library, and return it as its package wraps it. Raises: ConfigError: one of both is not installed."""
    if path:
        with _blamed(path):
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)  # from now on found by its name
        folder, known = str(Path(path).parent), os.environ.get("LD_LIBRARY_PATH", "")
        if folder not in known.split(os.pathsep):
            os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (folder, known)))  # where the package looks
    with _blamed(path or "ps5000a"):
        return needed("picosdk.ps5000a", "picosdk").ps5000a


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    try:
        yield
    except HilError:
        raise
    except Exception as error:  # CannotFindPicoSDKError, OSError, AttributeError of an old library
        raise ConfigError(
            "the library ps5000a of the maker cannot be loaded", where="PicoScope", got=f"{what}: {error}", outputs=UNTOUCHED,
            todo='install the PicoSDK, or write where it is: resource = "/opt/picoscope/lib/libps5000a.so::SERIAL"',
        ) from error  # fmt: skip


class _Units:
    """The package as PackageTalk uses it: 0 V is all that is ever asked for."""

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        """Open a unit."""
        unit = Unit(str(table["address"]), 8, name, lambda: None)
        return unit, SIMULATED in unit.identity().firmware

    def who(self, instrument: Any) -> Identity:
        """Ask a unit who it is."""
        found: Identity = instrument.identity()
        return found

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        """Give 0 V."""
        instrument.silence()

    def get(self, instrument: Any, parameter: str) -> Any:
        """Return True: silence() raises where the unit does not say that it gives 0 V."""
        return True

    def close(self, instrument: Any) -> None:
        """Give a unit back."""
        instrument.close()

    release = close


@contextmanager
def over(state: SafeState) -> Iterator[Talk]:
    """Open the unit of `state`; see drivers.package_talk.anew."""
    with anew(_Units(), state) as talk:
        yield talk
