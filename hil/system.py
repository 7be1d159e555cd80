"""Differences between Linux, macOS and Windows, in one place: no other module asks which system it runs on.

                     where Python has it                        elsewhere
    lock of a file   flock (fcntl); inherited with the file     filelock.lock_descriptor; each process locks for itself
    a process        pidfd and /proc (Linux)                    psutil: the pid and when it was started
    a worker         forked by a fork server (Linux)            a program of its own, over a socket with secrets
    a pipe           non-blocking, select                       a thread at each end
    an account       st_uid, bits of the mode                   the folder is the account's own; its access list guards it
    a serial line    TIOCEXCL; a pseudo-terminal                opened for one program anyway; none, ConfigError

Each choice follows what this Python has (`fcntl`, `os.pidfd_open`, ...). Linux takes the left column, macOS too but for pidfd
and /proc, Windows the right one. The right one is tested on Linux, with the left one taken away; see docs/decisions/0029.

Source: flock(2), pidfd_open(2), proc_pid_status(5), tty_ioctl(4); Windows: LockFileEx, CreateProcessW (creation flags).
"""

from __future__ import annotations

import ctypes
import errno
import getpass
import os
import queue
import select
import signal
import socket
import stat
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hil.errors import ConfigError

POSIX = True
try:
    import fcntl
    import termios
except ImportError:  # Windows
    POSIX = False

INHERITS = POSIX  # a child can be given open files, and shares the locks on them
FORKS = all(map(hasattr, (os, os, socket, socket), ("fork", "pidfd_open", "send_fds", "SOCK_SEQPACKET")))  # hil/host/forks.py
PIPES_SELECT = hasattr(os, "set_blocking") and os.name != "nt"
MODES = hasattr(os, "geteuid")  # the mode of a file says who may write to it
LINKS_REFUSED = getattr(os, "O_NOFOLLOW", 0)
QUIET = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))  # a pipe must not block
LOCKED_BYTES = 0 if POSIX else 1  # at the begin of a locked file, which nobody else can read on Windows
BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
STOPS = tuple(
    signal.Signals(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""What asks a program to end: a user, a batch system, the end of the terminal (SIGBREAK on Windows)."""
HANGUP = getattr(signal, "SIGHUP", None)  # the end of the terminal, of which a program may be independent
PIPE_BYTES = 1 << 16
PIECES = 1024  # that may wait for a thread that writes
REPLACE_S = 1.0
ZOMBIE = "Z"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)


# -- Files ------------------------------------------------------------------------------------------------------------


def open_file(path: Path, flags: int, mode: int = 0o777, follow: bool = True) -> int:
    """Open a file as `os.open` does, without waiting for anybody at the other end of a pipe, and as bytes.

    Args:
        path: of the file.
        flags: O_RDONLY, O_CREAT, ...
        mode: permissions of a new file.
        follow: a link in the last part of the path is followed, or else refused.

    Raises:
        OSError: it cannot be opened, or is a link that must not be followed.
    """
    if not follow and not LINKS_REFUSED and os.path.islink(path):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.open(path, flags | QUIET | (0 if follow else LINKS_REFUSED), mode)


def read_at(file: int, count: int, offset: int) -> bytes:
    """Read up to `count` bytes of an open file from `offset` on. Raises: OSError."""
    if hasattr(os, "pread"):
        return os.pread(file, count, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, count)


def write_at(file: int, data: bytes | memoryview, offset: int) -> int:
    """Write into an open file at `offset`; return how many bytes it took. Raises: OSError."""
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.write(file, data)


def to_disk(file: int) -> None:
    """Wait until what was written to an open file is on the disk. Raises: OSError."""
    getattr(os, "fdatasync", os.fsync)(file)


def synced(path: Path) -> None:
    """A file or a folder onto the disk; a folder only where one can be opened. Raises: OSError."""
    if not MODES and path.is_dir():
        return
    file = open_file(path, os.O_RDONLY if MODES else os.O_RDWR)  # Windows brings to the disk what may be written to
    try:
        os.fsync(file)
    finally:
        os.close(file)


def put(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`, in place of what is there.

    Windows refuses that while somebody reads the old one, so it is tried again for a moment.

    Raises:
        OSError: it cannot be renamed.
    """
    end = time.monotonic() + REPLACE_S
    while True:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            if MODES or time.monotonic() > end:
                raise
        time.sleep(REPLACE_S / 100)


def set_mode(file: int, mode: int) -> None:
    """Give an open file this mode, whatever the umask says. Raises: OSError."""
    if MODES:
        os.fchmod(file, mode)


def try_lock(file: int, shared: bool = False) -> bool:
    """Lock an open file without waiting. True: locked. False: somebody else has it locked.

    Args:
        file: open; who closes it, or ends, lets go of the lock.
        shared: with others who lock it so; where there is no flock the lock is for one alone.

    Raises:
        OSError: this disk cannot lock (ENOLCK, ENOTSUP, ENOSYS, EIO: NFS, FUSE), which says nothing of anybody else.
    """
    if not POSIX:
        from filelock import lock_descriptor

        return lock_descriptor(file, blocking=False)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as fault:
        if fault.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            return False
        raise
    return True


# -- Accounts ---------------------------------------------------------------------------------------------------------


def user() -> int | str:
    """The account: its number, or its name where there are no numbers."""
    return os.getuid() if hasattr(os, "getuid") else getpass.getuser()


def own(facts: os.stat_result) -> bool:
    """True if a file belongs to this account, or where the mode does not say so."""
    return not MODES or facts.st_uid == os.geteuid()


def open_to_others(facts: os.stat_result, bits: int) -> bool:
    """True if the mode grants any of `bits`, such as 0o022, to others; False where modes do not say who may."""
    return MODES and bool(stat.S_IMODE(facts.st_mode) & bits)


def own_folder() -> Path:
    """Return where this account keeps what no other account may write to, for all of its sessions."""
    if MODES:
        return Path(f"/tmp/hil-{user()}")
    return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "hil-locks"


def folders_of_all() -> tuple[Path, ...]:
    """Return where every account can make files, the best first."""
    return (Path("/run/lock"), Path("/tmp")) if MODES else (Path(os.environ.get("PUBLIC") or Path.home().parent / "Public"),)


# -- Processes --------------------------------------------------------------------------------------------------------


class Process:
    """A process that was not started from here, so that another one that is given its pid later is not taken for it.

    pid: as given. handle: becomes readable at its end; None where the system has no such thing.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.handle: int | None = None
        with suppress(OSError, AttributeError):  # gone already, an old kernel, another system
            self.handle = os.pidfd_open(pid)
        if self.handle is None:
            import psutil

            self._known: Any = None
            with suppress(psutil.Error):
                self._known = psutil.Process(pid)

    def gone(self, wait_s: float = 0.0) -> bool:
        """Wait up to `wait_s` for its end; return whether it ended."""
        if self.handle is not None:
            return bool(select.select([self.handle], [], [], wait_s)[0])
        import psutil

        try:
            if self._known is None or not self._known.is_running():
                return True
            self._known.wait(wait_s)
        except psutil.TimeoutExpired:
            return False
        except psutil.NoSuchProcess:
            return True
        return True

    def dying(self) -> bool:
        """True if it is killed, or ended, while one of its threads hangs in the kernel, on a disk perhaps.

        The system does not say that it is gone before that thread is, which may be never.
        """
        if self.gone():
            return True
        if self.handle is None:
            import psutil

            try:
                return bool(self._known.status() == psutil.STATUS_ZOMBIE)
            except psutil.Error:
                return False
        with suppress(OSError, ValueError):
            lines = Path(f"/proc/{self.pid}/status").read_text("utf-8", "replace").splitlines()  # a name may be any bytes
            said = dict(line.split(":", 1) for line in lines if ":" in line)
            killed = (int(said["SigPnd"], 16) | int(said["ShdPnd"], 16)) >> (signal.SIGKILL - 1) & 1
            return bool(killed) or said["State"].split()[0] == ZOMBIE
        return False

    def close(self) -> None:
        """Let go of its handle: nothing can be asked afterwards."""
        if self.handle is not None:
            os.close(self.handle)

    def kill(self) -> None:
        """End it at once; it may be gone already, or belong to another account by now."""
        if self.handle is not None:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        elif self._known is not None:
            import psutil

            with suppress(psutil.Error):
                self._known.kill()


def alive(pid: int) -> bool:
    """True if there is a process with this pid."""
    import psutil

    try:
        return bool(psutil.pid_exists(pid))
    except OverflowError:  # no pid at all
        return False


def started_s(pid: int) -> float | None:
    """When the process with this pid was started, s since 1970; None: there is none, or it must not be looked at."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError):
        return None


def host_name() -> str:
    """The name of this computer."""
    return socket.gethostname()


def send_to_main(number: signal.Signals) -> None:
    """Send a signal to the main thread of this process, from any thread; a system call that it waits in is interrupted."""
    ident = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and ident is not None:
        signal.pthread_kill(ident, number)
        return
    import _thread

    _thread.interrupt_main(number)


def apart(files: tuple[int, ...] = ()) -> dict[str, Any]:
    """Arguments of `subprocess.Popen` for a process that neither Ctrl-C nor the end of the terminal reaches.

    Args:
        files: open files that it inherits; none where INHERITS is False.
    """
    if POSIX:
        return {"start_new_session": True, "pass_fds": files} if files else {"start_new_session": True}
    flags = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
    return {"creationflags": sum(getattr(subprocess, name, 0) for name in flags)}


def end_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started `apart`, with all that it started itself."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    import psutil

    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    process.kill()


def free_memory(otherwise: int) -> int:
    """Bytes that can be had without swapping; `otherwise` where the system does not say."""
    import psutil

    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):
        return otherwise


def keep_memory() -> None:
    """Let glibc keep large blocks that are freed for the next ones, as long as this process lives; do nothing elsewhere.

    By default a block above 32 MB goes back to the system, and the next one comes anew, each page cleared at its first use:
    that took longer than what an array of neurons computes with it.

    Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another system, or another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)


def clock_s() -> float:
    """Seconds of a clock that never goes back, and goes on while the computer sleeps where there is such a one."""
    return time.monotonic() if BOOT_CLOCK is None else time.clock_gettime(BOOT_CLOCK)


# -- Pipes ------------------------------------------------------------------------------------------------------------


class Inlet:
    """The end of a pipe that is read from, without ever waiting.

    Args:
        file: its descriptor, which stays the caller's.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._came: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.arrived = threading.Event()
        if PIPES_SELECT:
            os.set_blocking(file, False)
        else:  # a copy: the caller may close his while the thread reads
            threading.Thread(target=self._read, args=(os.dup(file),), name="pipe, read", daemon=True).start()

    def take(self) -> bytes:
        """Take what has arrived; b"" at the end of the pipe. Raises: OSError: BlockingIOError if nothing has, or another."""
        if PIPES_SELECT:
            return os.read(self.file, PIPE_BYTES)
        self.arrived.clear()
        try:
            data = self._came.get_nowait()
        except queue.Empty:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        if not data:
            self._came.put(data)  # the end stays
        if not self._came.empty():
            self.arrived.set()
        return data

    def _read(self, file: int) -> None:
        data = b"more"
        while data:
            try:
                data = os.read(file, PIPE_BYTES)
            except OSError:
                data = b""
            self._came.put(data)
            self.arrived.set()
        os.close(file)


class Outlet:
    """The end of a pipe that is written to, without ever waiting.

    Args:
        file: its descriptor; it is closed with this object.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._open = True
        self._fault: OSError | None = None
        self._due: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        if PIPES_SELECT:
            os.set_blocking(file, False)
        else:
            threading.Thread(target=self._write, name="pipe, write", daemon=True).start()

    @property
    def full(self) -> bool:
        """True if it takes nothing, because nobody reads; known only where a thread writes."""
        return self._fault is None and self._due.qsize() >= PIECES

    def put(self, data: bytes) -> int:
        """Write; return how many bytes are taken. Raises: OSError: it is full (BlockingIOError), or nobody reads any more."""
        if not self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if PIPES_SELECT:
            return os.write(self.file, data)
        if self._fault is not None:
            raise self._fault
        if self.full:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._due.put(data)
        return len(data)

    def close(self) -> None:
        """Let the reader see the end, after what was put. May be called twice."""
        if self._open:
            self._open = False
            if PIPES_SELECT:
                with suppress(OSError):
                    os.close(self.file)
            else:
                self._due.put(b"")

    def _write(self) -> None:
        while data := self._due.get():
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self.file, view) :]
            except OSError as fault:
                self._fault = fault
        os.close(self.file)


def ready(inlet: Inlet, outlet: Outlet | None, process: Process | None, wait_s: float) -> tuple[bool, bool, bool]:
    """Wait until something has arrived, can be written, or a process is gone, `wait_s` at most: which of the three.

    The end of a process is seen within `wait_s` where it has no handle.
    """
    if PIPES_SELECT:
        handle = process.handle if process is not None else None
        waits = [inlet.file, *([handle] if handle is not None else [])]
        heard, free, _ = select.select(waits, [outlet.file] if outlet is not None else [], [], wait_s)
        return inlet.file in heard, bool(free), handle in heard
    if outlet is not None and not outlet.full:
        return inlet.arrived.is_set(), True, False
    came = inlet.arrived.wait(wait_s)
    return came, False, not came and process is not None and process.gone()


# -- Lines and addresses ----------------------------------------------------------------------------------------------

LINE_ERRORS: tuple[type[Exception], ...] = (OSError, TypeError, *((termios.error,) if POSIX else ()))
"""What pyserial lets out of a dead port: TypeError when it is closed under a read, termios.error (no OSError) of a flush."""


def for_us_alone(port: object, alone: bool) -> None:
    """Refuse a serial line to every other program but root's, or no longer; a pseudo-terminal stays as it is.

    A pseudo-terminal would go on refusing when a killed program is gone. Windows opens a port for one program anyway.

    Args:
        port: as pyserial has it; its `fd` is the descriptor, None while it is closed. There is none on Windows.
        alone: refuse it.
    """
    file = getattr(port, "fd", None)
    if POSIX and file is not None:
        with suppress(OSError):  # a system without it, or a dead port
            if not os.ttyname(file).startswith(("/dev/pts/", "/dev/ttys")):  # Linux, macOS
                fcntl.ioctl(file, termios.TIOCEXCL if alone else termios.TIOCNXCL)


def serial_name(number: int) -> str:
    """The name of serial port `number` of the system, from 1."""
    return f"COM{number}" if os.name == "nt" else f"/dev/ttyS{max(0, number - 1)}"


def pseudo_terminal(what: str) -> tuple[int, int]:
    """Open a pseudo-terminal, raw at both ends: master, slave.

    Args:
        what: it stands for, in the message.

    Raises:
        ConfigError: this system has none.
    """
    try:
        import pty
        import tty
    except ImportError as error:
        raise ConfigError(
            "a simulated serial line needs a pseudo-terminal, which this system does not have", where=what,
            allowed="Linux or macOS", todo="simulate the board there, or connect a real one",
        ) from error  # fmt: skip
    ends = pty.openpty()
    for end in ends:
        tty.setraw(end)
    return ends


def listen_again(bound: socket.socket) -> None:
    """Let a socket listen at a port whose last connections have just ended, and never beside another one."""
    if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows: SO_REUSEADDR would share the port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
