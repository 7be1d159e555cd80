"""Reading and writing of all files of runs, benches and experiments: read within bounds, written whole or not at all.

reading    a regular file (a link to one is followed), never a pipe or a device that could block; its size is looked at
           before it is read; text is UTF-8 whatever the locale says, with or without a byte order mark
writing    no link is followed, in the last part of the path; a regular file; temporaries are new
removing   a folder and what is in it; a link is removed, never followed
JSON       deep, huge or broken text becomes our error
tensors    a safetensors file that fits into the memory that is free
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from hil.errors import HilError, RunError
from hil.system import free_memory, open_file, put, synced

MOST_BYTES = 1 << 30  # of any one file that is read whole
MOST_TEXT_BYTES = 1 << 28
MOST_LINE_BYTES = 1 << 24
MOST_HEADER_BYTES = 100_000_000  # as safetensors has it
MEMORY_SHARE = 0.5  # of what is free, for one file of tensors: its bytes are there twice while they become tensors
ENDS = "json|jsonl|toml|html|safetensors|svg|pdf|csv"
TEMPORARY = re.compile(rf"\.[\w.-]+\.(?:{ENDS})\.\d+\.part")  # as `write_atomic` names them
KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link"),
)
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
    with opened(path, error, most) as stream:
        try:
            payload = stream.read(most + 1)
        except (OSError, MemoryError) as fault:
            raise error("cannot read this file", where=str(path), got=getattr(fault, "strerror", "") or str(fault)) from fault
    if len(payload) > most:
        raise error("a file that grows while it is read", where=str(path), allowed=f"at most {most:,} bytes")
    return payload


def opened(path: Path, error: type[HilError] = RunError, most: int | None = None) -> IO[bytes]:
    """Open a regular file, to be read in pieces.

    Args:
        path: of the file.
        error: class of what is raised; see `read_bytes`.
        most: bytes, None for any size.
    """
    try:
        file = open_file(path, os.O_RDONLY)
    except (OSError, ValueError) as fault:  # ValueError: a name with a NUL in it
        raise error("cannot read this file", where=str(path), got=getattr(fault, "strerror", "") or str(fault)) from fault
    facts = os.fstat(file)
    if stat.S_ISREG(facts.st_mode) and (most is None or facts.st_size <= most):
        return os.fdopen(file, "rb")
    os.close(file)
    if not stat.S_ISREG(facts.st_mode):
        raise error("not a regular file", where=str(path), got=kind_of(facts.st_mode), allowed="a regular file")
    raise error("a file too large", where=str(path), got=f"{facts.st_size:,} bytes", allowed=f"at most {most:,} bytes")


def lines(stream: IO[bytes], where: str, most: int = MOST_LINE_BYTES, error: type[HilError] = RunError) -> Iterator[bytes]:
    """Yield the lines, each with its end. Raises: error: one is longer than `most` bytes, or the file cannot be read on."""
    try:
        while line := stream.readline(most + 1):
            if len(line) > most:
                raise error("a line too long", where=where, got=f"over {most:,} bytes", allowed=f"at most {most:,} bytes")
            yield line
    except OSError as fault:
        raise error("cannot read this file", where=where, got=fault.strerror or str(fault)) from fault


def there(path: Path) -> bool:
    """True if something has this name, a link that leads nowhere included."""
    return os.path.lexists(path)


def read_tensors(path: Path, error: type[HilError] = RunError) -> bytes:
    """The bytes of a safetensors file, which must be as long as its header says before they are read.

    Raises:
        error: as of `read_bytes`; larger than the free memory allows, or of another length.
    """
    most = int(MEMORY_SHARE * free_memory(MOST_BYTES))
    with opened(path, error, most) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        held = loads(stream.read(length), str(path), error) if 2 <= length <= min(MOST_HEADER_BYTES, size - 8) else None
    parts = [part.get("data_offsets") for part in held.values() if isinstance(part, dict)] if isinstance(held, dict) else []
    ends = [part[1] for part in parts if isinstance(part, list) and len(part) == 2 and isinstance(part[1], int)]
    if not isinstance(held, dict) or size != 8 + length + max(ends, default=0):
        raise error("a damaged file", where=str(path), got=f"{size:,} bytes", allowed="as many as its header says")
    return read_bytes(path, most, error)


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
    except (ValueError, RecursionError, MemoryError) as fault:  # ValueError: also bytes that are no text, too many digits
        got = str(fault) if isinstance(fault, ValueError) else "nested too deeply"
        raise error("a damaged file", where=where, got=got, allowed="JSON") from fault


def read_object(path: Path, most: int = MOST_TEXT_BYTES, error: type[HilError] = RunError) -> dict[str, Any]:
    """The JSON object in a file. Raises: error: as of `read_text` and `loads`, or another kind of value."""
    value = loads(read_text(path, most, error), str(path), error)
    if not isinstance(value, dict):
        raise error("a damaged file", where=str(path), got=f"a {type(value).__name__}, not an object", allowed="JSON")
    return value


def open_to_write(path: Path, flags: int = os.O_TRUNC, mode: int = 0o644) -> int:
    """Open a regular file to write, and return its descriptor; the file is made if it is not there.

    Args:
        path: of the file.
        flags: O_TRUNC, O_APPEND, O_EXCL, O_RDWR.
        mode: permissions of a new file.

    Raises:
        OSError: it is a link, no regular file, or cannot be opened.
    """
    access = 0 if flags & os.O_RDWR else os.O_WRONLY
    early = flags & ~os.O_TRUNC  # nothing is cut before it is known to be a regular file
    file = open_file(path, access | early | os.O_CREAT, mode, follow=False)
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


def written(file: int, payload: bytes) -> None:
    """Write all of `payload` to a descriptor. Raises: OSError."""
    view = memoryview(payload)
    while view:
        view = view[os.write(file, view) :]


def append(path: Path, payload: bytes, durable: bool = False) -> None:
    """Write `payload` at the end of a file; what is not written as a whole is taken back.

    Args:
        path: of the file.
        payload: to be added.
        durable: it is on the disk when this returns; else with the system.

    Raises:
        OSError: it cannot be written, or this is no regular file.
    """
    file = open_to_write(path, os.O_APPEND)
    try:
        before = os.fstat(file).st_size
        try:
            written(file, payload)
            if durable:
                os.fsync(file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, before)  # half a line is worse than none
            raise
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
        file = open_to_write(temporary, os.O_EXCL)
        try:
            written(file, payload)
            os.fsync(file)
        finally:
            os.close(file)
        put(temporary, path)
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


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it; links are removed, never followed. What cannot be removed stays."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path, ignore_errors=True)  # it walks by descriptors, and refuses a link
        else:
            path.unlink()
    except (OSError, ValueError):
        return


def sweep(folder: Path) -> None:
    """Remove the temporaries that killed processes left in `folder`, and nothing else."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def kind_of(mode: int) -> str:
    """Name the kind of file that this `st_mode` says."""
    device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return next((word for test, word in KINDS if test(mode)), "a device" if device else "a file of another kind")


def slug(name: str, otherwise: str) -> str:
    """Return `name` as a part of a file's name: letters, digits, "_", "." and "-", at most 80.

    Args:
        name: any text.
        otherwise: where nothing is left of it.
    """
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or otherwise


def new_path(folder: Path, name: str) -> Path:
    """A path in `folder` that does not exist yet, with the time in its name, whatever `name` holds."""
    stem = folder / f"{slug(name, 'run')}-{datetime.now():%Y%m%d-%H%M%S}"
    tries = (stem if n == 0 else stem.with_name(f"{stem.name}-{n}") for n in range(1000))
    return next(path for path in tries if not there(path))
