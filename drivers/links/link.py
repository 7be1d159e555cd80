"""A wire that carries whole messages of bytes, and whether it can be trusted.

A message goes out whole (`write`), a reply comes back whole (`read_text`, `read_block`). Between a write and its reply nobody
else may speak: that pair is the atom, `with link.transaction():`. Over a raw socket nothing marks which reply belongs to which
question, so after a fault the late answer to the last question would be taken for the answer to the next one. A Link therefore
turns *dirty* on every fault and refuses to carry data until three things have happened, in this order:

    clear() or reopen()            the wire holds nothing old any more
    with link.reidentifying():     the instrument says who it is, and the caller checks that
    leaving that block             the link is clean again

Source: IEEE 488.2-1992, section 6 (message exchange protocol), for what may follow what.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from hil.errors import ConfigError, DirtySession, LinkError

SLOWEST_BYTES_PER_S = 100_000.0
"""A large transfer may take its timeout plus its size over this rate; slower than this counts as no progress."""


class Spoken(Protocol):
    """The common part of all wires, of messages or of frames."""

    @property
    def name(self) -> str:
        """The resource string or the port: how messages and journals call this wire."""

    def write(self, *parts: bytes | memoryview) -> None:
        """Send `parts`, joined, as one message; the link adds the terminator that the wire needs.

        Raises:
            LinkTimeout: the other end does not take the bytes.
            Desync: an unread reply was waiting: the last exchange was not finished.
            Disconnected, DirtySession.
        """

    def transaction(self) -> AbstractContextManager[None]:
        """Own the wire for a write and its reply; other threads wait. May be nested."""

    def distrust(self, reason: str) -> None:
        """Turn dirty: the caller found that a reply made no sense."""

    def reidentifying(self) -> AbstractContextManager[None]:
        """A transaction that is allowed on a dirty link once it was cleared or reopened; success makes the link clean."""

    def clear(self) -> None:
        """Throw away what is in flight. The link is dirty until it has been identified."""

    def reopen(self) -> None:
        """Close and open again, with the same settings. The link is dirty until it has been identified.

        Raises:
            OpenFailed: nobody answers.
        """

    def close(self) -> None:
        """Close the wire; may be called twice."""


class Link(Spoken, Protocol):
    """A wire that a driver speaks over; VisaLink and SerialLink are Links."""

    @property
    def timeout_s(self) -> float:
        """Longest silence that is waited for, in s; it may be set at any time."""

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None: ...

    @property
    def dirty(self) -> bool:
        """True from a fault until the instrument was identified again."""

    def read_text(self) -> str:
        """Read one reply, without its terminator.

        Raises:
            LinkTimeout, Disconnected, DirtySession.
            Desync: more than one reply, or bytes that are not ASCII.
        """

    def read_block(self, item_bytes: int, limit_bytes: int) -> memoryview:
        """The payload of one IEEE 488.2 definite-length block, as writable bytes in a buffer of its own.

        Args:
            item_bytes: the payload must hold whole items of this size.
            limit_bytes: a header that announces more is refused before anything is allocated.

        Raises:
            BadBlock: header, size or terminator are not what the standard says.
            LinkTimeout, Disconnected, DirtySession.
        """


class Messages(Link, Protocol):
    """A Link whose wire marks the end of a message itself, so that a reply may hold any bytes without saying how many."""

    def read_message(self) -> bytes:
        """Read one reply of any bytes; newline and carriage return at its end are left out.

        Raises:
            LinkTimeout, Disconnected, DirtySession, Desync: see Link.
        """


class Trust:
    """The state of a wire, trusted or dirty, with the lock that keeps transactions whole; every wire holds one.

    Args:
        name: the link's name, for messages.
        beat: called whenever the wire is used: a sign of life of the program. What it raises stops that use.
    """

    def __init__(self, name: str, beat: Callable[[], None] | None = None) -> None:
        self._name = name
        self._beat = beat
        self._lock = threading.RLock()
        self._fault = ""
        self._emptied = True
        self._probing = False

    @property
    def dirty(self) -> bool:
        """True from a fault until `reidentifying` succeeded."""
        return bool(self._fault)

    def lose(self, reason: str) -> None:
        """Turn dirty. The first reason is kept: it is the cause, later ones are consequences."""
        self._fault = self._fault or reason
        self._emptied = False

    def emptied(self, how: str) -> None:
        """The wire was cleared or reopened: it may be used to identify, and for nothing else."""
        self._fault = self._fault or how
        self._emptied = True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the wire for one conversation, after a `beat`; Ctrl-C in the middle of it turns the wire dirty."""
        if self._beat is not None:
            self._beat()
        with self._lock:
            try:
                yield
            except (KeyboardInterrupt, SystemExit) as stop:
                self.lose(f"{type(stop).__name__} in the middle of an exchange")
                raise

    @contextmanager
    def use(self) -> Iterator[None]:
        """Hold the wire for one write or read. Whatever stops it half way makes the link dirty.

        Raises:
            DirtySession: nothing was sent.
        """
        with self.transaction():
            if self._fault and not (self._probing and self._emptied):
                raise self._refusal("the link was not identified again after a fault")
            try:
                yield
            except LinkError as fault:
                self.lose(fault.what)
                raise

    @contextmanager
    def reidentifying(self) -> Iterator[None]:
        """Lift the ban for one identification on a dirty wire; leaving it without an error makes the wire trusted again.

        Raises:
            DirtySession: the wire was neither cleared nor reopened after the fault.
        """
        with self.transaction():
            if self._fault and not self._emptied:
                raise self._refusal("the link still holds what was in flight at the fault")
            self._probing = True
            try:
                yield
                if self._emptied:
                    self._fault = ""
            finally:
                self._probing = False

    def _refusal(self, what: str) -> DirtySession:
        return DirtySession(
            what,
            where=self._name,
            got=f"an earlier fault: {self._fault}",
            allowed="clear() or reopen(), then an identification",
            outputs="as they were before the fault; nothing was sent now",
            todo="call recover() of the instrument's session, then set the instrument again and repeat the shot",
        )


class Trusted:
    """The common part of the wires here: a name, and a Trust. Arguments as of Trust."""

    def __init__(self, name: str, beat: Callable[[], None] | None = None) -> None:
        self._name, self._trust = name, Trust(name, beat)

    @property
    def name(self) -> str:
        """Name of the link, for messages."""
        return self._name

    @property
    def dirty(self) -> bool:
        """True from a fault until the instrument was identified again."""
        return self._trust.dirty

    def transaction(self) -> AbstractContextManager[None]:
        """Hold the wire for one conversation, against other threads too."""
        return self._trust.transaction()

    def distrust(self, reason: str) -> None:
        """Turn dirty for `reason`: something that was read made no sense."""
        self._trust.lose(reason)

    def reidentifying(self) -> AbstractContextManager[None]:
        """Allow one identification on a dirty wire; it is trusted again when that ends without an error."""
        return self._trust.reidentifying()


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock."""

    end_s: float

    @classmethod
    def after(cls, timeout_s: float, size_bytes: int = 0, bytes_per_s: float = SLOWEST_BYTES_PER_S) -> Deadline:
        """Return the deadline from now: the timeout, and the time that `size_bytes` may take on a slow wire."""
        return cls(time.monotonic() + timeout_s + size_bytes / bytes_per_s)

    def left_s(self) -> float:
        """Seconds left.

        Raises:
            TimeoutError: none.
        """
        left = self.end_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left


def checked_timeout(seconds: float, where: str) -> float:
    """Return `seconds`, or raise ConfigError: a wait must be positive and must end."""
    if not 0 < seconds < 86_400:  # also catches NaN
        raise ConfigError("a timeout must be positive and finite", where=where, got=f"{seconds} s", allowed="0 to 86400 s")
    return float(seconds)
