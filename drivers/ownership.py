"""One owner per instrument: an advisory lock on a file, held by whoever has it open.

    /tmp/hil-<uid>/<slug>-<hash>.lock      flock(LOCK_EX | LOCK_NB);  the folder is ours alone, mode 0700, and no symbolic link
    content                                {"pid", "run", "since", "command", "safe": null or the safe state}   or nothing

The kernel lets go of the lock when the last process that holds the file open is gone, so a lock cannot be left behind. A
process that inherits the open file shares the lock: who watches over a trainer goes on owning its instruments without a gap.

The content is emptied only when the outputs were verified to be safe. Found in a file that nobody locks, a safe state says that
its instrument was left by a program that could not verify it: make it safe first.

The folder is the same for every session of a user: a path that depends on the environment would let a job started by cron and
one started at a desk both own the instrument, and a folder that goes away at the last logout would free it under a running job.

Source: flock(2); VPP-4.3 (VISA) 4.3.1.1, resource strings.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hil.errors import RunError

FOLDER_MODE = 0o700
CONTENT_CAP = 1 << 16  # bytes
MOMENT_S = 0.5  # who only looks, or ends just now, holds a lock no longer than this
WELL_KNOWN = {"111", "1024", "4880", "5024", "5025"}
"""Ports behind which an instrument itself listens: VXI-11, HiSLIP, SCPI telnet and socket."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds an instrument. run: its folder, or "". since: ISO 8601."""

    pid: int
    run: str
    since: str
    command: str

    def __str__(self) -> str:
        run = f", run {self.run}" if self.run else ""
        return f"process {self.pid} ({self.command}){run}, since {self.since}"


def canonical(resource: str) -> str:
    """One text for all spellings of an address.

    Names are not resolved: an instrument that is addressed by name here and by number there has two locks.

    >>> canonical("tcpip0::Scope.Lab::hislip0::INSTR") == canonical("TCPIP::scope.lab::5025::SOCKET")
    True
    >>> canonical("TCPIP::127.0.0.1::hislip0,40001::INSTR")
    'tcpip/127.0.0.1/40001'
    """
    if "::" not in resource:  # a serial port
        return f"serial/{os.path.realpath(resource) if resource.startswith('/') else resource.upper()}"
    kind, *parts = resource.strip().split("::")
    parts = [part.strip() for part in parts if part.strip()]
    bus, number = re.sub(r"\d+$", "", kind).upper(), kind[len(kind.rstrip("0123456789")) :] or "0"
    if bus == "TCPIP" and parts:
        return _network(parts)
    if bus == "USB" and len(parts) >= 3:
        with suppress(ValueError):
            return f"usb/{int(parts[0], 0):04x}/{int(parts[1], 0):04x}/{parts[2].upper()}"
    return "/".join([f"{bus.lower()}{number}", *(part.upper() for part in parts if part.upper() != "INSTR")])


def _network(parts: Sequence[str]) -> str:
    """Host, and the port unless it is one of the instrument itself; a gateway's further names stay apart."""
    text, _, port = parts[0].partition(",")
    host = text.lower().rstrip(".")
    host = "127.0.0.1" if host == "localhost" else host
    with suppress(ValueError):
        host = str(ipaddress.ip_address(host.strip("[]")))
    device = ""
    if len(parts) > 1 and parts[-1].upper() == "SOCKET":
        port = parts[1]
    elif len(parts) > 1 and parts[1].upper() != "INSTR":
        name, _, after = parts[1].lower().partition(",")
        known = re.fullmatch(r"(inst|hislip)0?", name) is not None
        device, port = ("", after or port) if known else (parts[1].lower(), port)
    return "/".join(["tcpip", host, *([device] if device else []), *([port] if port and port not in WELL_KNOWN else [])])


class Owned:
    """Resources held by this process. Made by `take`; use it with `with`, or call `close`.

    found: canonical resource -> what a program left that could not say that its outputs were safe.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._files: dict[str, int] = {}
        self.found: dict[str, Mapping[str, Any]] = {}

    @property
    def files(self) -> Mapping[str, int]:
        """Canonical resource -> open file; whoever inherits it shares the lock."""
        return dict(self._files)

    @property
    def folder(self) -> Path:
        return folder()

    def add(self, resource: str) -> None:
        """Raises: RunError: another program owns it."""
        one = canonical(resource)
        if one in self._files:
            return
        handle = self._files[one] = _locked(resource)
        safe = _believed(handle).get("safe")
        if isinstance(safe, Mapping):
            self.found[one] = safe
        write(handle, self._owner, safe)

    def write(self, resource: str, safe: object) -> None:
        """Who owns it, and how it is made safe; None as long as it is."""
        write(self._files[canonical(resource)], self._owner, safe)

    def release(self, unverified: Sequence[str] = ()) -> None:
        """Let go; the files of `unverified` resources keep their content. May be called twice."""
        kept = {canonical(resource) for resource in unverified}
        for one, handle in self._files.items():
            if one not in kept:
                os.ftruncate(handle, 0)
            os.close(handle)
        self._files = {}

    def close(self) -> None:
        """Let go without a word: what is written stays."""
        for handle in self._files.values():
            os.close(handle)
        self._files = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def take(resources: Sequence[str], owner: Owner) -> Owned:
    """All of `resources`, or none.

    Raises:
        RunError: one of them is owned by another program, which is named; nothing was sent.
    """
    owned = Owned(owner)
    try:
        for resource in resources:
            owned.add(resource)
    except BaseException:
        owned.close()
        raise
    return owned


def write(handle: int, owner: Owner, safe: object) -> None:
    """Into a lock file that this process holds."""
    table = {"pid": owner.pid, "run": owner.run, "since": owner.since, "command": owner.command, "safe": safe}
    content = (json.dumps(table) + "\n").encode()
    os.pwrite(handle, content, 0)
    os.ftruncate(handle, len(content))


def folder() -> Path:
    """Where the locks are.

    Raises:
        RunError: it is not ours alone.
    """
    path = Path(os.environ.get("HIL_LOCKS") or f"/tmp/hil-{os.getuid()}")
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=FOLDER_MODE)
        found = path.lstat()
    except OSError as error:
        raise _no_lock(path, error.strerror or str(error)) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise _no_lock(path, f"{stat.filemode(found.st_mode)}, user {found.st_uid}")
    return path


def lock_file(resource: str) -> Path:
    """Raises: RunError: see `folder`."""
    one = canonical(resource)
    slug = re.sub(r"[^a-z0-9.]+", "-", one.lower()).strip("-")[:60]
    return folder() / f"{slug}-{hashlib.sha256(one.encode()).hexdigest()[:12]}.lock"


def left_unsafe() -> dict[Path, Mapping[str, Any]]:
    """Lock files that nobody holds and that still tell of outputs which were not verified to be safe."""
    found = {}
    for path in sorted(folder().glob("*.lock")):
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                content = _believed(handle)
                if isinstance(content.get("safe"), Mapping):
                    found[path] = content
            finally:
                os.close(handle)
    return found


def _locked(resource: str) -> int:
    path, end = lock_file(resource), time.monotonic() + MOMENT_S
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _no_lock(path, error.strerror or str(error)) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
                return handle
            os.close(handle)  # somebody removed the file in between
        except BlockingIOError as error:
            holder = _holder(_read(handle))
            os.close(handle)
            if time.monotonic() < end:
                time.sleep(MOMENT_S / 20)
                continue
            raise _in_use(resource, holder) from error
        except OSError as error:
            os.close(handle)
            raise _no_lock(path, error.strerror or str(error)) from error


def _read(handle: int) -> Mapping[str, Any]:
    """Empty when there is nothing, or nothing whole: then its writer had not come to switch anything on."""
    try:
        table = json.loads(os.pread(handle, CONTENT_CAP, 0))
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, Mapping) else {}


def _believed(handle: int) -> Mapping[str, Any]:
    """The content of a file of this user, or of root: it says what is sent to an instrument, and not everybody may say that."""
    return _read(handle) if os.fstat(handle).st_uid in (os.getuid(), 0) else {}


def _holder(table: Mapping[str, Any]) -> str:
    try:
        return str(Owner(int(table["pid"]), str(table["run"]), str(table["since"]), str(table["command"])))
    except (KeyError, ValueError, TypeError):
        return "a program that did not say who it is"


def _in_use(resource: str, holder: str) -> RunError:
    return RunError(
        "another program owns this instrument", where=resource, got=holder, allowed="one program at a time",
        outputs="untouched; nothing was sent", todo="wait until it has ended, or stop it: Ctrl-C there, or kill -TERM",
    )  # fmt: skip


def _no_lock(path: Path, got: str) -> RunError:
    return RunError(
        "instruments cannot be locked", where=str(path), got=got, allowed=f"a folder of user {os.getuid()} alone, mode 0700",
        outputs="untouched; nothing was opened", todo="see who made it and remove it, or set HIL_LOCKS to a folder of your own",
    )  # fmt: skip
