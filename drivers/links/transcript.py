"""Transcript of a wire, both ways, as JSON lines: to read after a fault, and to check a driver later without the box.

    {"format": 1, "name": "TCPIP::…", "opened": "2026-01-31T12:00:00+00:00", "driver": "module:Class", "settings": {…}}
                                                                                  a line for every time the file is opened
    {"t": 0.0021, "dir": ">", "kind": "write", "bytes": 5, "text": "*IDN?"}      t: seconds since then
    {"t": 0.0034, "dir": "<", "kind": "text",  "bytes": 31, "text": "Keysight …"}
    {"t": 0.0410, "dir": "<", "kind": "block", "bytes": 4, "hex": "80018002"}
    {"t": 0.0500, "dir": ">", "kind": "write", "bytes": 65560, "head": "53…", "crc32": 3735928559}     more than `full_bytes`
    {"t": 5.0610, "dir": "<", "kind": "error", "of": "text", "error": "LinkTimeout", "what": "…", "got": "…"}
    {"t": 9.0000, "kind": "full", "what": "…"}                                    the file has its largest size; nothing follows

kind: write · text, block, exact (replies, by how they were read) · drain · clear, reopen, close · error, as it was raised, in
the place of what did not come. A block is its payload. What a dirty link refused was never on the wire, and is not here either.
scripted.py plays such a file.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from zlib import crc32

from drivers.links.link import Link, Spoken
from drivers.spiking.session import FrameLink
from hil.errors import DirtySession, HilError, RunError
from hil.files import open_to_write
from hil.telling import Background

FORMAT = 1
FULL_BYTES = 4096
LIMIT_BYTES = 64 << 20
HEAD_BYTES = 32
LINES = 1 << 14
CLOSE_S = 2.0
READABLE = frozenset(range(0x20, 0x7F)) | frozenset(b"\r\n\t")

Piece = bytes | memoryview


class WireLog:
    """The file of one wire.

    Writing it neither fails a conversation nor holds it up: an output must be switched off whatever the disk says, or does
    not say. A thread writes; a disk that stays behind by more than LINES ends the transcript.

    Args:
        path: appended to.
        name: of the link.
        full_bytes: longer messages are kept as head, length and CRC-32.
        limit_bytes: largest file; what comes after is not kept, and the last line says so.
        facts: what else its first line says.
        clock: seconds from any origin.

    Raises:
        RunError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        full_bytes: int = FULL_BYTES,
        limit_bytes: int = LIMIT_BYTES,
        facts: Mapping[str, object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self._full, self._limit, self._clock = path, full_bytes, limit_bytes, clock
        self._origin, self._lock, self._stopped = clock(), threading.Lock(), False
        self._fault: OSError | None = None
        self._disk = Background(f"transcript of {name}", LINES)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(open_to_write(path, os.O_APPEND), "ab")
            self._size = self._file.tell()
        except OSError as error:
            raise self._unwritable(error) from error
        opened = datetime.now(UTC).isoformat(timespec="seconds")
        self._write({"format": FORMAT, "name": name, "opened": opened, **(facts or {})})

    def note(self, direction: str, kind: str, *data: Piece, **facts: object) -> None:
        """Write one line, with the time.

        Args:
            direction: ">" to the instrument, "<" from it.
            kind: of the exchange.
            *data: the message, in pieces.
            **facts: anything else to be said.
        """
        line: dict[str, Any] = {"t": round(self._clock() - self._origin, 6), "dir": direction, "kind": kind}
        self._write({**line, **(described(data, self._full) if data else {}), **facts})

    def close(self) -> None:
        """Write what is left and close the file; may be called twice.

        Raises:
            RunError: something could not be written.
        """
        self._disk.later(self._file.close)
        if not self._disk.drain(CLOSE_S):
            self._stopped = True
            self._fault = self._fault or OSError(errno.ETIMEDOUT, "the disk does not answer")
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise self._unwritable(fault) from fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        with suppress(RunError):  # what is under way, an output that is not off perhaps, matters more
            self.close()

    def _write(self, line: dict[str, Any]) -> None:
        with self._lock:
            if self._stopped or self._file.closed:
                return
            text = json.dumps(line, default=str).encode() + b"\n"
            if self._size + len(text) > self._limit:
                self._stopped = True
                what = f"the transcript has its largest size, {self._limit} bytes; nothing that follows is kept"
                text = json.dumps({"t": line.get("t", 0.0), "kind": "full", "what": what}).encode() + b"\n"
            self._size += len(text)
            if not self._disk.later(partial(self._put, text)):
                self._stopped, self._fault = True, OSError(errno.ETIMEDOUT, "the disk does not keep up")

    def _put(self, text: bytes) -> None:
        if self._fault is None and not self._file.closed:
            try:
                self._file.write(text)
                self._file.flush()
            except OSError as error:
                self._stopped, self._fault = True, error

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"the transcript cannot be written: {error.strerror or error}", where=str(self.path),
            allowed="a writable folder with free space", outputs="as the instruments were left; the conversation went on",
            todo="free space, or train without --wire",
        )  # fmt: skip


def described(data: Sequence[Piece], full_bytes: int = FULL_BYTES) -> dict[str, Any]:
    """The keys of a message: all of it, or its head, length and CRC-32."""
    size = sum(memoryview(piece).nbytes for piece in data)
    if size > full_bytes:
        crc = 0
        for piece in data:
            crc = crc32(piece, crc)
        return {"bytes": size, "head": b"".join(bytes(memoryview(p).cast("B")[:HEAD_BYTES]) for p in data)[:HEAD_BYTES].hex(),
                "crc32": crc}  # fmt: skip
    whole = b"".join(data)
    return {"bytes": size, "text": whole.decode("ascii")} if READABLE.issuperset(whole) else {"bytes": size, "hex": whole.hex()}


class _Wire:
    """A wire whose conversation is written down."""

    def __init__(self, inner: Spoken, log: WireLog) -> None:
        self._wire, self._log = inner, log

    @property
    def name(self) -> str:
        return self._wire.name

    def write(self, *parts: Piece) -> None:
        try:
            self._wire.write(*parts)
        except DirtySession:
            raise
        except HilError as error:
            self._log.note(">", "write", *parts)
            self._failed("write", error)
            raise
        self._log.note(">", "write", *parts)

    def clear(self) -> None:
        with self._noting("clear"):
            self._wire.clear()
        self._log.note(">", "clear")

    def reopen(self) -> None:
        with self._noting("reopen"):
            self._wire.reopen()
        self._log.note(">", "reopen")

    def distrust(self, reason: str) -> None:
        self._wire.distrust(reason)

    def transaction(self) -> AbstractContextManager[None]:
        return self._wire.transaction()

    def reidentifying(self) -> AbstractContextManager[None]:
        return self._wire.reidentifying()

    def close(self) -> None:
        self._wire.close()
        self._log.note(">", "close")

    @contextmanager
    def _noting(self, kind: str) -> Iterator[None]:
        try:
            yield
        except DirtySession:
            raise
        except HilError as error:
            self._failed(kind, error)
            raise

    def _failed(self, kind: str, error: HilError) -> None:
        self._log.note("<", "error", of=kind, error=type(error).__name__, what=error.what, got=error.got)


class Transcribed(_Wire):
    """A Link around a Link.

    Args:
        inner: closed with this one.
        log: closed by whoever made it.
    """

    def __init__(self, inner: Link, log: WireLog) -> None:
        super().__init__(inner, log)
        self._inner = inner

    @property
    def timeout_s(self) -> float:
        """Longest silence that is waited for, in s; that of the inner link."""
        return self._inner.timeout_s

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None:
        self._inner.timeout_s = seconds

    @property
    def dirty(self) -> bool:
        """True if the inner link is dirty."""
        return self._inner.dirty

    def read_text(self) -> str:
        """Read one text reply and note it, or the error."""
        with self._noting("text"):
            reply = self._inner.read_text()
        self._log.note("<", "text", reply.encode("latin-1", "replace"))
        return reply

    def read_message(self) -> bytes:
        """Read one reply of any bytes and note it, or the error."""
        inner: Any = self._inner
        with self._noting("text"):
            reply: bytes = inner.read_message()
        self._log.note("<", "text", reply)
        return reply

    def read_block(self, item_bytes: int, limit_bytes: int) -> memoryview:
        """Read one block and note its payload, or the error."""
        with self._noting("block"):
            payload = self._inner.read_block(item_bytes, limit_bytes)
        self._log.note("<", "block", payload)
        return payload


class TranscribedFrames(_Wire):
    """The same around a FrameLink."""

    def __init__(self, inner: FrameLink, log: WireLog) -> None:
        super().__init__(inner, log)
        self._inner = inner

    def read_exact(self, count: int) -> bytes:
        """Read `count` bytes and note them, or the error."""
        with self._noting("exact"):
            data = self._inner.read_exact(count)
        self._log.note("<", "exact", data)
        return data

    def drain(self) -> bytes:
        """Take what is on the line, and note it."""
        with self._noting("drain"):
            waste = self._inner.drain()
        self._log.note("<", "drain", waste)
        return waste
