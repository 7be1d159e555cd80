"""Every file that a run, a bench or an experiment is made of is opened here: read within bounds, written whole or not at all.

reading    a regular file (a link to one is followed), never a pipe or a device that could block; its size is looked at
           before it is read; text is UTF-8 whatever the locale says, with or without a byte order mark
writing    no link is followed, in the last part of the path; a regular file; temporaries are new
locking    flock, which whoever inherits the open file shares; only "would block" means that another one has it
JSON       deep, huge or broken text becomes our error
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from hil.errors import HilError, RunError

MOST_BYTES = 1 << 30  # of any one file that is read whole
MOST_TEXT_BYTES = 1 << 28
KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISLNK, "a link"))
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip


def read_bytes(path: Path, most: int = MOST_BYTES, error: type[HilError] = RunError) -> bytes:
    """The whole of a regular file.

    Args:
        path: of the file; a link to a regular file is followed.
        most: bytes; a larger file is refused before it is read.
        error: the class of the error that is raised.

    Raises:
        error: there is no such file, it is no regular file, too large, or cannot be read.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)  # a pipe must not block
        try:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode):
                raise error("not a regular file", where=str(path), got=kind_of(facts.st_mode), allowed="a regular file")
            if facts.st_size > most:
                raise error(
                    "a file too large", where=str(path), got=f"{facts.st_size:,} bytes", allowed=f"at most {most:,} bytes"
                )
            with os.fdopen(os.dup(file), "rb") as stream:
                payload = stream.read(most + 1)
        finally:
            os.close(file)
    except (OSError, ValueError) as fault:  # ValueError: a name with a NUL in it
        raise error("cannot read this file", where=str(path), got=getattr(fault, "strerror", "") or str(fault)) from fault
    if len(payload) > most:
        raise error("a file that grows while it is read", where=str(path), allowed=f"at most {most:,} bytes")
    return payload


def read_text(path: Path, most: int = MOST_TEXT_BYTES, error: type[HilError] = RunError) -> str:
    """The text of a regular file in UTF-8; line ends become newlines. Arguments and errors as of `read_bytes`.

    Raises:
        error: besides, it is not UTF-8; the message names the encoding that it seems to be in.
    """
    return decoded(read_bytes(path, most, error), str(path), error)


def decoded(payload: bytes, where: str, error: type[HilError] = RunError) -> str:
    """`payload` as UTF-8 text, a byte order mark left out, line ends as newlines. Raises: error: it is another encoding."""
    for mark, name in MARKS:
        if payload.startswith(mark):
            raise error("text in another encoding", where=where, got=name, allowed="UTF-8", todo="save the file as UTF-8")
    try:
        text = payload.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as fault:
        line = payload.count(b"\n", 0, fault.start) + 1
        raise error(
            "text in another encoding", where=f"{where}: line {line}",
            got=f"byte 0x{payload[fault.start]:02x}, perhaps Latin-1 or Windows-1252", allowed="UTF-8",
            todo="save the file as UTF-8",
        ) from fault  # fmt: skip
    return text.replace("\r\n", "\n").replace("\r", "\n")


def loads(text: str | bytes, where: str, error: type[HilError] = RunError) -> Any:
    """The value of JSON `text`.

    Raises:
        error: no JSON, nested too deeply, or a number too long.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:  # ValueError: also bytes that are no text, integers of too many digits
        got = "nested too deeply" if isinstance(fault, RecursionError) else str(fault)
        raise error("a damaged file", where=where, got=got, allowed="JSON") from fault


def read_object(path: Path, most: int = MOST_TEXT_BYTES, error: type[HilError] = RunError) -> dict[str, Any]:
    """The JSON object in a file. Raises: error: as of `read_text` and `loads`, or another kind of value."""
    value = loads(read_text(path, most, error), str(path), error)
    if not isinstance(value, dict):
        raise error("a damaged file", where=str(path), got=type(value).__name__, allowed="a JSON object")
    return value


def open_to_write(path: Path, flags: int = os.O_TRUNC, mode: int = 0o644) -> int:
    """A descriptor to write a regular file with; made if it is not there. flags: O_TRUNC, O_APPEND, O_EXCL, O_RDWR.

    Raises:
        OSError: it is a link, no regular file, or cannot be opened.
    """
    access = 0 if flags & os.O_RDWR else os.O_WRONLY
    early = flags & ~os.O_TRUNC  # nothing is cut before it is known to be a regular file
    file = os.open(path, access | early | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, f"not a regular file but {kind_of(facts.st_mode)}", str(path))
        if flags & os.O_TRUNC:
            os.ftruncate(file, 0)
    except OSError:
        os.close(file)
        raise
    return file


def try_lock(file: int, shared: bool = False) -> bool:
    """Lock an open file with flock, without waiting. True: locked. False: somebody else has it locked.

    Raises:
        OSError: this disk cannot lock (ENOLCK, ENOTSUP, ENOSYS, EIO: NFS, FUSE), which says nothing of anybody else.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as fault:
        if fault.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            return False
        raise
    return True


def synced(path: Path) -> None:
    """A file or a folder onto the disk. Raises: OSError."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_atomic(path: Path, payload: bytes) -> None:
    """Put `payload` at `path` wholly or not at all, and durably; a link at `path` is replaced, not followed.

    Raises:
        RunError: the disk is full or the folder is not writable; what stood at `path` is unharmed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # of an earlier process with this number
        with os.fdopen(open_to_write(temporary, os.O_EXCL), "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        synced(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            allowed="a writable folder with free space",
            todo="free space or choose another --run folder, then hil resume",
        ) from error


def kind_of(mode: int) -> str:
    """What a file of this `st_mode` is, in words."""
    device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return next((word for test, word in KINDS if test(mode)), "a device" if device else "a file of another kind")


def slug(name: str, otherwise: str) -> str:
    """`name` as a part of a file's name: letters, digits, "_", "." and "-", at most 80. otherwise: where nothing is left."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or otherwise
