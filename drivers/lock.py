"""One owner per instrument on a machine, whoever started it: locks on two files, held by whoever has them open.

    the machine's   /run/lock/hil-locks/<slug>-<hash>.lock    mode 0666 in a folder of mode 1777: any account can lock it
    content         {"pid", "run", "since", "command", "virtual", "user"}   or nothing; told, and never acted upon
    the user's      /tmp/hil-<uid>/<slug>-<hash>.lock         the folder is ours alone, mode 0700, and no symbolic link
    content         the same and "safe": null or the safe state   or nothing

The kernel lets go of a lock (flock) when the last process that holds the file open is gone, so a lock cannot be left behind. A
process that inherits the open file shares the lock: who watches over a trainer goes on owning its instruments without a gap.
That is why the locks are on descriptors that are opened here. On Windows, which has no flock, nobody inherits them, the folders
are others, and access lists stand for the modes: see hil/system.py.

The content is emptied only when the outputs were verified to be safe. Found in the user's file that nobody locks, a safe state
says that its instrument was left by a program that could not verify it: make it safe first. What to send to an instrument is
read from the user's own file alone, which nobody else can write. The machine's file can be written by anybody; that another
account left an instrument is told, and then its outputs are unknown until opening it resets it.

Both folders are the same for every session of a user: a path that depends on the environment would let a job started by cron
and one started at a desk both own the instrument, and a folder that goes away at the last logout would free it under a running
job. HIL_LOCKS names another folder for the user's files, for tests; the machine's lock is taken all the same.
HIL_MACHINE_LOCKS names another one for the machine's, for tests of instruments that nobody else can reach.

Source: flock(2); proc_sys_fs(5), protected_regular; VPP-4.3 (VISA) 4.3.1.1, resource strings.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from drivers.resource import canonical as canonical  # part of this module's face
from hil import system
from hil.errors import HilError, RunError
from hil.files import kind_of, loads
from hil.system import LOCKED_BYTES, try_lock

FOLDER_MODE, FILE_MODE = 0o700, 0o600
MACHINE_MODE, MACHINE_FILE_MODE = 0o1777, 0o666
MACHINE = " (machine)"  # ends the name of the machine's lock in `Owned.files`
CONTENT_CAP = 1 << 16  # bytes
MOMENT_S = 0.5  # who only looks, or ends just now, holds a lock no longer than this


@dataclass(frozen=True, slots=True)
class Owner:
    """The program that holds an instrument.

    Args:
        run: its folder, or "".
        since: ISO 8601.
        virtual: it ends with its owner.
    """

    pid: int
    run: str
    since: str
    command: str
    virtual: bool = False

    def __str__(self) -> str:
        run = f", run {self.run}" if self.run else ""
        return f"process {self.pid} ({self.command}){run}, since {self.since}"


class Owned:
    """Resources held by this process. Made by `take`; use it with `with`, or call `close`.

    found: canonical resource -> what a program of this user left that could not say that its outputs were safe.
    strangers: canonical resource -> who left it, of another account; nothing is known of its outputs.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._files: dict[str, int] = {}
        self._safe: dict[str, object] = {}  # what was written for those that were reached
        self._spared: set[str] = set()
        self._names: dict[str, str] = {}
        self._checking = threading.Lock()
        self.found: dict[str, Mapping[str, Any]] = {}
        self.strangers: dict[str, str] = {}

    @property
    def files(self) -> Mapping[str, int]:
        """Map each locked resource to its open file.

        The machine's own file has the same name with MACHINE after it. Whoever inherits all of them shares the lock.
        """
        return dict(self._files)

    @property
    def folder(self) -> Path:
        """Folder of the lock files of this account."""
        return folder()

    def add(self, resource: str) -> None:
        """Raises: RunError: another program owns it, or it cannot be locked."""
        one = self._names[resource] = canonical(resource)
        if one in self._files:
            return
        common = self._files[one + MACHINE] = locked(one + MACHINE, resource)
        own = self._files[one] = locked(one, resource)
        before, safe = _read(common), _read(own).get("safe")
        if isinstance(safe, Mapping) and _trusted(own):
            self.found[one] = safe
        elif (before.get("user", system.user()) != system.user() and not before.get("virtual")) or safe is not None:
            self.strangers[one] = _holder(before or _read(own))
        _written(common, self._owner, None, resource)
        _written(own, self._owner, self.found.get(one), resource)

    def write(self, resource: str, safe: object) -> None:
        """Write who owns it and how it is made safe (None while it is safe). Raises: RunError: the disk is full."""
        one = self._name(resource)
        self._safe[one] = safe
        _written(self._files[one], self._owner, safe, resource)

    def check(self) -> tuple[Path, ...]:
        """Lock files that were removed under this program, and which it has made and locked anew. Call it now and then.

        Raises:
            RunError: meanwhile another program has taken one, or it cannot be locked.
        """
        again: list[Path] = []
        if self._checking.acquire(blocking=False):
            try:
                for name, handle in self._files.items():
                    if retake(name, handle):
                        one = name.removesuffix(MACHINE)
                        safe = None if name != one else self._safe.get(one, self.found.get(one))
                        _written(handle, self._owner, safe, one)
                        again.append(_path(name))
            finally:
                self._checking.release()
        return tuple(again)

    def release(self, unverified: Sequence[str] = ()) -> None:
        """Let go; the files of `unverified` resources keep their content. May be called twice.

        A resource that was never reached leaves no file, so a misspelt name does not; see `spare`.
        """
        self._let_go({self._name(resource) for resource in unverified})

    def _name(self, resource: str) -> str:
        """Return the name of `resource` when it was taken: the link to a serial port goes away when it is unplugged."""
        return self._names.get(resource) or canonical(resource)

    def spare(self, one: str) -> None:
        """Keep what was found of this canonical resource, unless the instrument is reached: it could not be carried out."""
        self._spared.add(one)

    def close(self) -> None:
        """Let go without a word: what is written stays."""
        self._spared |= set(self.found)
        self._let_go(set(self._safe))

    def _let_go(self, kept: set[str]) -> None:
        for name, handle in self._files.items():
            one = name.removesuffix(MACHINE)
            reached = one in self._safe
            with suppress(OSError):  # a full disk
                if one not in (kept if reached else self._spared):
                    settle(name, handle, remove=not reached or self._owner.virtual)
            os.close(handle)
        self._files = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def take(resources: Sequence[str], owner: Owner) -> Owned:
    """Lock all of `resources`, or none.

    Raises:
        RunError: one of them is owned by another program, which is named, or cannot be locked; nothing was sent.
    """
    sweep()
    owned = Owned(owner)
    try:
        for resource in resources:
            owned.add(resource)
    except BaseException:
        owned.close()
        raise
    return owned


def write(handle: int, owner: Owner, safe: object = None) -> None:
    """Write into a lock file that this process holds."""
    table = {
        "pid": owner.pid, "run": owner.run, "since": owner.since, "command": owner.command, "virtual": owner.virtual,
        "user": system.user(), "safe": safe,
    }  # fmt: skip
    content = (json.dumps(table) + "\n").encode()
    system.write_at(handle, content, LOCKED_BYTES)
    os.ftruncate(handle, LOCKED_BYTES + len(content))


def _written(handle: int, owner: Owner, safe: object, resource: str) -> None:
    try:
        write(handle, owner, safe)
    except OSError as error:
        raise RunError(
            "the lock file cannot be written", where=resource, got=error.strerror or str(error),
            outputs="as they were; nothing was sent", todo=f"free space at {folder()} and {machine_folder()}",
        ) from error  # fmt: skip


def settle(name: str, handle: int, remove: bool) -> None:
    """Empty a lock file: nothing is left to be told of the resource.

    Args:
        name: a key of `Owned.files`.
        handle: its open file, locked.
        remove: nor will this file be needed again.
    """
    os.ftruncate(handle, 0)
    if remove:
        with suppress(FileNotFoundError, PermissionError):  # of another account: it stays, and is empty
            _path(name).unlink()  # while it is locked: who waits for it sees that it is gone


def retake(name: str, handle: int) -> bool:
    """Lock the file of `name` again, under the same handle, if it was removed or replaced meanwhile. True: it was.

    Args:
        name: a key of `Owned.files`.
        handle: its open file.

    Raises:
        RunError: another program has taken it, or it cannot be locked.
    """
    path = _path(name)
    if _is_at(path, handle):
        return False
    try:
        new = locked(name, name.removesuffix(MACHINE))
    except RunError as error:
        error.what = f"its lock file was removed while this program had it, and now {error.what}"
        error.outputs = "as they were; they are made safe now"
        error.todo = f"leave {path.parent} alone while a program runs, then hil resume"
        raise
    os.dup2(new, handle, inheritable=False)
    os.close(new)
    return True


def folder() -> Path:
    """Return the folder of the user's lock files.

    Raises:
        RunError: it is not ours alone.
    """
    given = os.environ.get("HIL_LOCKS")
    path = Path(given) if given else system.own_folder()
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=FOLDER_MODE)
        found = path.lstat()
    except OSError as error:
        raise _no_lock(path, error.strerror or str(error)) from error
    if not stat.S_ISDIR(found.st_mode) or not system.own(found) or system.open_to_others(found, 0o077):
        raise _no_lock(path, f"{stat.filemode(found.st_mode)}, user {found.st_uid}")
    return path


def machine_folder() -> Path:
    """Return the folder of the machine's lock files: in the first folder of all accounts, so that all choose the same.

    Raises:
        RunError: not every account can lock files there.
    """
    given = os.environ.get("HIL_MACHINE_LOCKS")
    tops = system.folders_of_all()
    path = Path(given) if given else next((top for top in tops if _for_all(top)), tops[-1]) / "hil-locks"
    end = time.monotonic() + MOMENT_S
    while True:
        try:
            with suppress(FileExistsError):
                path.mkdir(mode=FOLDER_MODE)
            if _for_all(path):
                return path
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode) and system.own(found):  # new, or made by a program that came no further
                path.chmod(MACHINE_MODE)
                continue
        except OSError as error:
            raise _no_lock(path, error.strerror or str(error), machine=True) from error
        if time.monotonic() > end:
            raise _no_lock(path, f"{stat.filemode(found.st_mode)}, user {found.st_uid}", machine=True)
        time.sleep(MOMENT_S / 20)  # another account may have made it just now


def lock_file(resource: str) -> Path:
    """The user's. Raises: RunError: see `folder`."""
    return _path(canonical(resource))


def machine_file(resource: str) -> Path:
    """The machine's. Raises: RunError: see `machine_folder`."""
    return _path(canonical(resource) + MACHINE)


def left_unsafe() -> dict[Path, Mapping[str, Any]]:
    """Lock files that nobody holds and that still tell of outputs which were not verified to be safe."""
    found = {}

    def look(path: Path, handle: int) -> None:
        content = _read(handle)
        if isinstance(content.get("safe"), Mapping) and _trusted(handle):
            found[path] = content

    _each_free(folder(), look)
    return found


def sweep() -> None:
    """Remove the lock files that nobody holds and that have nothing to say any more.

    These are the empty ones, those of virtual benches, whose ports ended with them, and the logs of the guardians of those.
    """

    def clear(path: Path, handle: int) -> None:
        if not os.fstat(handle).st_size or _read(handle).get("virtual") is True:
            path.unlink()

    for place in (folder(), machine_folder()):
        _each_free(place, clear)
    for log in folder().glob("guardian-*.jsonl"):
        with suppress(OSError, ValueError):
            if not system.alive(int(log.stem.removeprefix("guardian-"))) and '"virtual": true' in log.read_text("utf-8"):
                log.unlink()


def _each_free(place: Path, do: Callable[[Path, int], None]) -> None:
    """Call `do` with each lock file that nobody holds, locked meanwhile."""
    for path in sorted(place.glob("*.lock")):
        with suppress(OSError):  # another account's, or none that is a file
            handle = system.open_file(path, os.O_RDWR, follow=False)
            try:
                if _refused(os.fstat(handle)) is None and try_lock(handle) and _is_at(path, handle):
                    do(path, handle)
            finally:
                os.close(handle)


def _path(name: str) -> Path:
    """Return the path of the file for a key of `Owned.files`."""
    one = name.removesuffix(MACHINE)
    slug = re.sub(r"[^a-z0-9.]+", "-", one.lower()).strip("-")[:60]
    place = folder() if one == name else machine_folder()
    return place / f"{slug}-{hashlib.sha256(one.encode()).hexdigest()[:12]}.lock"


def locked(name: str, resource: str) -> int:
    """Open the file of `name` and lock it; return its descriptor.

    Args:
        name: a key of `Owned.files`.
        resource: for messages.

    Raises:
        RunError: another program has it, or it cannot be locked.
    """
    path, machine, end = _path(name), name.endswith(MACHINE), time.monotonic() + MOMENT_S
    while True:
        handle = -1
        try:
            handle = _opened(path, MACHINE_FILE_MODE if machine else FILE_MODE)
            if refused := _refused(os.fstat(handle)):
                raise _no_lock(path, refused, machine)
            if try_lock(handle):
                if _is_at(path, handle):
                    return handle
            elif time.monotonic() > end:
                raise _in_use(resource, _holder(_read(handle)))
        except OSError as error:
            if handle >= 0:
                os.close(handle)
                raise _no_locks_here(path, error) from error
            if not isinstance(error, PermissionError) or time.monotonic() > end:  # its maker may not have come to set its mode
                raise _no_lock(path, error.strerror or str(error), machine) from error
        except BaseException:
            if handle >= 0:
                os.close(handle)
            raise
        if handle >= 0:
            os.close(handle)  # somebody has it, or removed it in between
        time.sleep(MOMENT_S / 50)


def _opened(path: Path, mode: int) -> int:
    """Open a lock file, and make it if it is not there.

    The first try is without O_CREAT: in a folder with the sticky bit Linux refuses O_CREAT for what is there and belongs to
    another account.
    """
    while True:
        with suppress(FileNotFoundError):
            return system.open_file(path, os.O_RDWR, follow=False)  # neither a link nor a pipe gets us anywhere
        with suppress(FileExistsError):
            handle = system.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode, follow=False)
            system.set_mode(handle, mode)
            return handle


def _refused(facts: os.stat_result) -> str | None:
    """Say what keeps a file from being a lock file, or None."""
    if not stat.S_ISREG(facts.st_mode):
        return kind_of(facts.st_mode)
    return "a file with several names" if facts.st_nlink > 1 else None  # it may be anybody's precious one


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except OSError:
        return False


def _for_all(path: Path) -> bool:
    """A folder in which any account can make files, and only their owners can remove them."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and (not system.MODES or stat.S_IMODE(mode) & MACHINE_MODE == MACHINE_MODE)


def _trusted(handle: int) -> bool:
    """True if it was written by this user or by root, and by nobody else."""
    facts = os.fstat(handle)
    return (system.own(facts) or facts.st_uid == 0) and not system.open_to_others(facts, 0o022)


def _read(handle: int) -> Mapping[str, Any]:
    """Empty when there is nothing, or nothing whole: then its writer had not come to switch anything on."""
    try:
        table = loads(system.read_at(handle, CONTENT_CAP, LOCKED_BYTES), "lock file")
    except HilError:
        return {}
    return table if isinstance(table, Mapping) else {}


def _holder(table: Mapping[str, Any]) -> str:
    try:
        said = str(Owner(int(table["pid"]), str(table["run"]), str(table["since"]), str(table["command"])))
    except (KeyError, ValueError, TypeError, OverflowError):
        return "a program that did not say who it is"
    user = table.get("user")
    said += f", user {user}" if isinstance(user, int | str) and user != system.user() else ""
    return "".join(c for c in said if c.isprintable())[:600]  # anybody may have written it


def _in_use(resource: str, holder: str) -> RunError:
    return RunError(
        "another program owns this instrument", where=resource, got=holder, allowed="one program at a time",
        outputs="untouched; nothing was sent", todo="wait until it has ended, or stop it: Ctrl-C there, or kill -TERM",
    )  # fmt: skip


def _no_lock(path: Path, got: str, machine: bool = False) -> RunError:
    return RunError(
        "instruments cannot be locked", where=str(path), got=got,
        allowed="a folder for all accounts, mode 1777, with plain files of mode 0666" if machine
        else f"a folder of user {system.user()} alone, mode 0700",
        outputs="untouched; nothing was opened", todo="see who made it and remove it, as its owner or as root",
    )  # fmt: skip


def _no_locks_here(path: Path, error: OSError) -> RunError:
    return RunError(
        "this disk cannot lock files", where=str(path), got=error.strerror or str(error),
        allowed="a local disk: neither NFS nor FUSE without flock", outputs="untouched; nothing was opened",
        todo=f"mount a local disk, such as tmpfs, at {path.parent.parent}",
    )  # fmt: skip
