"""A Link through PyVISA: NI-VISA where it is installed, else PyVISA-py.

    TCPIP::host::hislip0[,port]::INSTR     HiSLIP, to be preferred: replies carry the id of their question
    TCPIP::host[,port]::inst0::INSTR       VXI-11
    TCPIP::host::5025::SOCKET              bytes and nothing else; some instruments speak nothing better
    USB::0x0957::0x2A07::MY123::INSTR      USBTMC

Which bytes mark the end of a message depends on the wire, so each kind has its own file: stream.py, hislip.py, vxi11.py, and
viread.py for what viRead has to read. This file opens, chooses, guards and translates: every exception of PyVISA, PyVISA-py and
the sockets becomes one of hil.errors here. With PyVISA-py the session's own socket is used, because its SOCKET session (0.8.1)
reports an end of file as silence, waits for ever in a write that nobody takes, cannot switch Nagle's algorithm off, and reads
blocks a hundred times slower than the socket.

Source: VPP-4.3 (VISA), VPP-4.3.3 (completion and error codes); pyvisa_py/tcpip.py, version 0.8.1.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Protocol

import pyvisa
import pyvisa_py.protocols.hislip
import pyvisa_py.protocols.rpc
import pyvisa_py.tcpip
from pyvisa.constants import ResourceAttribute, StatusCode
from pyvisa.errors import VisaIOError
from pyvisa.resources import MessageBasedResource
from pyvisa_py.highlevel import PyVisaLibrary
from pyvisa_py.protocols.rpc import RPCError
from pyvisa_py.tcpip import TCPIPInstrHiSLIP, TCPIPInstrVxi11, TCPIPSocketSession

from drivers.links.block import Reply, read_block
from drivers.links.hislip import LOCK_WAIT_S, Granted, HislipWire
from drivers.links.link import Trusted, checked_timeout
from drivers.links.stream import BenchSocket, SocketStream, gone, out_of_step, timed_out
from drivers.links.viread import VisaBytes, VisaCalls, VisaMessages
from drivers.links.vxi11 import Vxi11Wire
from drivers.resource import standard
from hil.errors import ConfigError, ContractError, LinkError, OpenFailed

FOREIGN = (
    pyvisa.errors.Error,
    OSError,  # sockets; ConnectionError and TimeoutError among them
    EOFError,
    RuntimeError,  # PyVISA-py's HiSLIP: "Connection was dropped by server", protocol errors
    RPCError,
    ValueError,  # UnicodeDecodeError among them
    AssertionError,  # PyVISA-py's HiSLIP checks headers with assert
    NotImplementedError,
    struct.error,
)
TIMED_OUT = {StatusCode.error_timeout}
LOST = {
    StatusCode.error_connection_lost,
    StatusCode.error_io,
    StatusCode.error_system_error,
    StatusCode.error_invalid_object,
    StatusCode.error_no_listeners,
}
ENDED = {StatusCode.success, StatusCode.success_termination_character_read}


class Wire(Reply, Protocol):
    """A kind of wire: sends messages and is the Reply that comes back."""

    timeout_s: float

    def send(self, parts: Sequence[memoryview]) -> None:
        """Send `parts`, joined, as one message."""

    def line(self) -> bytes:
        """Read one text reply, without its terminator."""


class VisaLink(Trusted):
    """A VISA resource as a Link.

    Args:
        resource: a VISA resource string.
        timeout_s: longest silence while reading or writing; a large block may take its time beyond it.
        open_timeout_s: longest wait for the connection.
        backend: "" for NI-VISA when present and PyVISA-py otherwise, "@py" to force the latter.
        terminator: what ends a message on a SOCKET resource. Other resources mark the end themselves.
        beat: see Trust.

    Raises:
        ConfigError: not a VISA resource string, or a serial port (SerialLink is for those).
        OpenFailed: nobody answers at this address, or a program of another computer has locked the instrument.
    """

    def __init__(
        self,
        resource: str,
        *,
        timeout_s: float = 5.0,
        open_timeout_s: float = 3.0,
        backend: str = "",
        terminator: bytes = b"\n",
        beat: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(_checked_resource(resource), beat)
        self._timeout_s = checked_timeout(timeout_s, resource)
        self._open_timeout_s = checked_timeout(open_timeout_s, resource)
        self._backend, self._terminator = backend, terminator
        self._resource: MessageBasedResource | None = None
        self._wire: Wire | None = None
        self._lock: Granted = "none"
        self._open()

    @property
    def locked(self) -> bool:
        """The instrument keeps other computers out; not every kind of wire and of instrument can."""
        return self._lock == "granted"

    @property
    def timeout_s(self) -> float:
        """Longest silence that is waited for, in s."""
        return self._timeout_s

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None:
        with self._trust.transaction():
            self._timeout_s = checked_timeout(seconds, self._name)
            if self._wire is not None and self._resource is not None:
                self._wire.timeout_s = self._timeout_s
                self._resource.timeout = _milliseconds(self._timeout_s)

    def write(self, *parts: bytes | memoryview) -> None:
        """Send `parts` as one message; arrays must be contiguous."""
        views = [_flat(part, self._name) for part in parts]
        with self._guarded("write") as wire:
            wire.send(views)

    def read_text(self) -> str:
        """Read one text reply; see Link.read_text."""
        with self._guarded("read") as wire:
            line = wire.line()
            try:
                return line.decode("ascii")
            except UnicodeDecodeError as error:
                raise out_of_step("the reply is not ASCII text", self._name, line, "ASCII") from error

    def read_message(self) -> bytes:
        """Read one reply of any bytes; see Messages. Not over a SOCKET, where newlines in it would end it."""
        with self._guarded("read") as wire:
            return wire.line()

    def read_block(self, item_bytes: int, limit_bytes: int) -> memoryview:
        """Read one IEEE 488.2 block; see Link.read_block."""
        with self._guarded("read") as wire:
            return read_block(wire, item_bytes, limit_bytes, self._name)

    def clear(self) -> None:
        """Clear the device where the wire can; a SOCKET is opened anew, so that a late reply dies with the old connection."""
        with self._trust.transaction():
            self._trust.lose("cleared")
            if not isinstance(self._wire, HislipWire | Vxi11Wire | VisaMessages):
                self.reopen()
                return
            with self._translated("clear"):
                self._wire.clear()
            self._trust.emptied("cleared")

    def reopen(self) -> None:
        """Close the resource and open it again; the link stays dirty until the instrument is identified."""
        with self._trust.transaction():
            self.close()
            self._open()
            self._trust.emptied("reopened")

    def close(self) -> None:
        """Close the resource; may be called twice, and never fails on a dead wire."""
        with self._trust.transaction():
            resource, self._resource, self._wire = self._resource, None, None
            if resource is not None:
                with suppress(*FOREIGN):  # a dead wire cannot be closed politely, and is closed all the same
                    resource.close()

    def _open(self) -> None:
        def connect() -> MessageBasedResource:
            manager = library(self._backend)
            spelled = standard(self._name, brackets=not isinstance(manager.visalib, PyVisaLibrary))
            opened = manager.open_resource(spelled, open_timeout=_milliseconds(self._open_timeout_s))
            if not isinstance(opened, MessageBasedResource):
                opened.close()
                raise TypeError(f"{type(opened).__name__} does not carry messages")
            return opened

        resource = _within(self._open_timeout_s, connect, self._name)
        try:
            resource.timeout = _milliseconds(self._timeout_s)
            wire = self._wire_of(resource)
            self._lock = _lock(wire)
        except (*FOREIGN, LinkError) as error:
            with suppress(*FOREIGN):
                resource.close()
            raise _not_opened(self._name, error) from error
        if self._lock == "refused":
            with suppress(*FOREIGN):
                resource.close()
            raise OpenFailed(
                "another program has locked this instrument", where=self._name,
                got=f"no lock within {LOCK_WAIT_S:g} s", outputs="as they were; nothing was sent",
                todo="end that program, which may run on another computer, or unlock the instrument there",
            )  # fmt: skip
        self._resource, self._wire = resource, wire

    def _wire_of(self, resource: MessageBasedResource) -> Wire:
        session = _python_session(resource)
        if isinstance(session, TCPIPSocketSession) and isinstance(session.interface, socket.socket):
            _refuse_unconnected(session.interface)
            session.interface = BenchSocket.adopt(session.interface)
            return SocketStream(session.interface, self._terminator, self._name, self._timeout_s)
        if isinstance(session, TCPIPInstrHiSLIP) and isinstance(vars(session.interface).get("_sync"), socket.socket):
            return HislipWire(session.interface, self._name, self._timeout_s)
        if isinstance(session, TCPIPInstrVxi11) and isinstance(session.interface.sock, socket.socket):
            session.interface.sock = BenchSocket.adopt(session.interface.sock)
            return Vxi11Wire(session, self._name, self._timeout_s)
        calls = _calls(resource)
        if standard(self._name).endswith("::SOCKET"):
            resource.set_visa_attribute(ResourceAttribute.termchar, self._terminator[-1])
            return VisaBytes(calls, self._terminator, self._name, self._timeout_s)
        return VisaMessages(calls, self._name, self._timeout_s)

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[Wire]:
        with self._trust.use(), self._translated(doing):
            if self._wire is None:
                raise gone(self._name, "a closed link")
            yield self._wire

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except FOREIGN as error:
            raise _translation(error, self._name, doing, self._timeout_s) from error


def _lock(wire: Wire) -> Granted:
    if isinstance(wire, Vxi11Wire):
        with suppress(TimeoutError, RPCError, EOFError, struct.error):  # not every instrument has a status byte to ask for
            return wire.lock()
    return wire.lock() if isinstance(wire, HislipWire) else "none"


@cache
def library(backend: str = "") -> pyvisa.ResourceManager:
    """Return the VISA library, shared by the process and never closed.

    Looking for it takes a tenth of a second, so it is kept; who will have no time later looks for it beforehand.

    Raises:
        OSError, ValueError: none works here.
    """
    for module in (pyvisa_py.tcpip, pyvisa_py.protocols.hislip, pyvisa_py.protocols.rpc):
        module.socket = _Sockets()
    return pyvisa.ResourceManager(backend)


class _EitherSocket(socket.socket):
    """A socket that becomes an IPv6 one when it is connected to such an address: PyVISA-py makes IPv4 sockets only."""

    def connect(self, address: Any) -> None:
        self._suit(address)
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        self._suit(address)
        return super().connect_ex(address)

    def _suit(self, address: Any) -> None:
        if ":" in address[0] and self.family == socket.AF_INET:
            kind, silence_s = self.type, self.gettimeout()
            self.close()
            self.__init__(socket.AF_INET6, kind)  # type: ignore[misc]
            self.settimeout(silence_s)


class _Sockets:
    """The module `socket` for PyVISA-py, with sockets for either kind of address."""

    socket = _EitherSocket

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)


def list_resources(backend: str = "") -> tuple[str, ...]:
    """List the instruments that VISA finds by itself: USB, serial ports, and what answers a VXI-11 broadcast on the network.

    Instruments that announce themselves are those of drivers/links/discovery.py.

    Raises:
        OpenFailed: no VISA library works here.
    """
    try:
        with _without_zeroconf(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyVISA-py warns of what it cannot discover, at every call
            return tuple(sorted(library(backend).list_resources()))
    except FOREIGN as error:
        raise _not_opened("VISA", error) from error


@contextmanager
def _without_zeroconf() -> Iterator[None]:
    """PyVISA-py asks for HiSLIP with it, one second more, and forgets the port that was announced."""
    before = pyvisa_py.tcpip.zeroconf
    pyvisa_py.tcpip.zeroconf = None
    try:
        yield
    finally:
        pyvisa_py.tcpip.zeroconf = before


def _checked_resource(resource: str) -> str:
    if resource.strip().upper().startswith("ASRL"):
        raise ConfigError(
            "serial ports are not opened through VISA",
            where=resource,
            allowed="TCPIP, USB and GPIB instruments; in Python, SerialLink with the name of the port",
            outputs="unchanged; nothing was opened",
            todo="connect the instrument over one of these, or name a driver for a serial line",
        )
    standard(resource)
    return resource.strip()


def _within(seconds: float, connect: Callable[[], MessageBasedResource], name: str) -> MessageBasedResource:
    """`connect()`, or OpenFailed when it takes longer: no backend keeps its open timeout in every case.

    The attempt goes on in its thread; should it succeed after all, it closes what it opened.
    """
    outcome: Future[MessageBasedResource] = Future()

    def attempt() -> None:
        try:
            resource = connect()
        except Exception as error:  # noqa: BLE001 - handed over whole to the thread that waits
            if outcome.set_running_or_notify_cancel():
                outcome.set_exception(error)
            return
        if outcome.set_running_or_notify_cancel():
            outcome.set_result(resource)
        else:
            resource.close()

    threading.Thread(target=attempt, name=f"open {name}", daemon=True).start()
    try:
        wait([outcome], seconds)
    finally:
        abandoned = outcome.cancel()  # False when the attempt is over
    if abandoned:
        raise _open_failed(name, f"no connection within {seconds:g} s")
    try:
        return outcome.result()
    except Exception as error:
        raise _not_opened(name, error) from error


def _refuse_unconnected(sock: socket.socket) -> None:
    """Raise if the connection was refused: PyVISA-py takes it for an open one."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    sock.getpeername()  # fails too when the error has been asked for before


def _first_cause(error: BaseException) -> str:
    """Return the system's own words: PyVISA-py wraps a refused connection into "resource not present"."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return f"{type(error).__name__}: {error}"


def _not_opened(name: str, error: Exception) -> OpenFailed:
    """Explain why a resource could not be opened: lack of power or cable only if it was asked and did not answer."""
    said = _first_cause(error)
    if "Bad file descriptor" in said:  # of PyVISA-py: the socket that it could not connect
        said = "no connection came about: the host is not known, or no way leads to it"
    first, *_ = str(error).splitlines() or [""]
    if isinstance(error, ValueError) and "install" in str(error):  # PyVISA-py, of PyUSB, libusb, linux-gpib, PyVICP
        return OpenFailed(
            "this computer lacks a package for such an instrument", where=name, got=" ".join(str(error).split()),
            outputs="as they were; nothing was sent", todo=_package(str(error), first),
        )  # fmt: skip
    if isinstance(error, OSError) and "VISA" in str(error) and error.errno is None:  # of PyVISA: no library
        return OpenFailed(
            "no VISA library works here", where=name, got=first, outputs="as they were; nothing was sent",
            todo="install pyvisa-py, or NI-VISA",
        )  # fmt: skip
    if isinstance(error, ValueError | TypeError) and ("No class registered" in first or "carry messages" in first):
        return OpenFailed(
            "the VISA library cannot talk over such a resource", where=name, got=first,
            outputs="as they were; nothing was sent", allowed="TCPIP, USB and GPIB instruments",
            todo="correct the address, or install NI-VISA",
        )  # fmt: skip
    if found := re.search(r"error creating link: (\d+)", said):
        return _no_link(name, int(found[1]))
    if said.startswith("ConnectionRefused") and re.fullmatch(r"TCPIP[0-9]*::[^,]*::inst[0-9]+::INSTR", _spelled(name)):
        return OpenFailed(
            "no VXI-11 port mapper answers at this address", where=name, got=said, allowed="port 111 of the host",
            outputs="as they were; nothing was sent",
            todo="check power, cable and address; where the port of VXI-11 is known, write it: TCPIP::host,PORT::inst0::INSTR",
        )  # fmt: skip
    if said.startswith("gaierror"):
        return OpenFailed(
            "this host name is not known", where=name, got=said, outputs="as they were; nothing was sent",
            todo="correct the name, or write the number of the address",
        )  # fmt: skip
    if "Access denied" in said or said.startswith("PermissionError"):
        return OpenFailed(
            "this user may not open the instrument", where=name, got=said, outputs="as they were; nothing was sent",
            todo="give the user access to the device, on Linux by a udev rule",
        )  # fmt: skip
    return _open_failed(name, said)


def _spelled(name: str) -> str:
    try:
        return standard(name)
    except ConfigError:
        return name


def _no_link(name: str, error: int) -> OpenFailed:
    """Explain why VXI-11's create_link failed (its table of errors is in drivers/links/vxi11.py)."""
    what, todo = {
        3: ("the instrument has no device of this name", "write inst0, or the name that its manual gives, such as gpib0,5"),
        9: ("the instrument takes no more connections", "end another program that has it open, or switch it off and on"),
        11: ("another program has locked this instrument", "end that program, or unlock the instrument there"),
    }.get(error, ("the instrument does not let itself be opened", "look at its network settings, or switch it off and on"))
    return OpenFailed(what, where=name, got=f"VXI-11 error {error}", outputs="as they were; nothing was sent", todo=todo)


def _package(said: str, first: str) -> str:
    if "libusb" in said:
        return "install libusb: pip install libusb-package"
    if "PyUSB" in said:
        return "install PyUSB: pip install pyusb libusb-package"
    return first


def _open_failed(name: str, got: str) -> OpenFailed:
    return OpenFailed(
        "nobody answers at this address",
        where=name,
        got=got,
        outputs="as they were; nothing was sent",
        todo="check power, cable and address, that no other program is connected, and that a virtual bench is being served",
    )


def _translation(error: Exception, name: str, doing: str, timeout_s: float) -> LinkError:
    """A foreign exception in our words. Everything that is not a timeout or a loss means: out of step."""
    said = f"{type(error).__name__} in a {doing}: {error}"
    if isinstance(error, VisaIOError):
        if error.error_code in TIMED_OUT:
            return timed_out(name, said, timeout_s)
        if error.error_code in LOST:
            return gone(name, said)
    elif isinstance(error, TimeoutError):
        return timed_out(name, said, timeout_s)
    elif isinstance(error, OSError | EOFError | RPCError) or "dropped" in str(error):
        return gone(name, said)
    return out_of_step(said, name, b"", "an answer that keeps the protocol")


def _python_session(resource: MessageBasedResource) -> object:
    """PyVISA-py's session object behind a resource, or None with another backend."""
    library = resource.visalib
    return library.sessions[resource.session] if isinstance(library, PyVisaLibrary) else None


def _calls(resource: MessageBasedResource) -> VisaCalls:
    library: Any = resource.visalib

    def read(count: int) -> tuple[bytes, bool]:
        with resource.ignore_warning(StatusCode.success_device_not_present, StatusCode.success_max_count_read):
            data, status = library.read(resource.session, count)
        return bytes(data), status in ENDED

    def write(message: bytes) -> int:
        taken, _status = library.write(resource.session, message)
        return int(taken)

    def terminate_reads(on: bool) -> None:
        resource.set_visa_attribute(ResourceAttribute.termchar_enabled, on)

    return VisaCalls(read, write, resource.clear, terminate_reads)


def _flat(part: bytes | memoryview, where: str) -> memoryview:
    view = memoryview(part)
    if not view.c_contiguous:
        raise ContractError("a part of a message must be contiguous", where=where, got=f"strides {view.strides}")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
