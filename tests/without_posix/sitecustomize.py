"""A Python in which hil finds nothing that only POSIX has, for a test: put this folder first in PYTHONPATH.

It is for the modules of hil, drivers, sim_devices and calibration alone: Python's library and the packages keep what they have,
as they have ways of their own on Windows. What is not taken away: the kernel's files, its sockets, and how its paths look.
"""

from __future__ import annotations

import builtins
import os
import select
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

OURS = tuple(
    str(Path(__file__).resolve().parents[2] / top) + os.sep for top in ("hil", "drivers", "sim_devices", "calibration")
)
MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty", "_posixsubprocess"}
ON_WINDOWS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
OS = """
O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG chown confstr fchmod fchown fdatasync fork
forkpty get_blocking getegid geteuid getgid getloadavg getpgid getpgrp getpriority getresuid getsid getuid killpg lchown mkfifo
nice openpty pidfd_open pipe2 posix_fallocate posix_spawn pread preadv pwrite pwritev register_at_fork sched_getaffinity
sched_setaffinity sendfile set_blocking setgid setpgid setsid setuid statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait
wait3 wait4 waitid
"""
GONE = {
    "os": set(OS.split()),
    "signal": {name for name in dir(signal) if name.startswith("SIG") and name not in ON_WINDOWS}
    | {"alarm", "pause", "pidfd_send_signal", "pthread_kill", "pthread_sigmask", "setitimer", "sigpending", "sigwait"},
    "time": {name for name in dir(time) if name.startswith(("CLOCK_", "clock_", "pthread_"))},
    "socket": {"AF_UNIX", "MSG_DONTWAIT", "MSG_NOSIGNAL", "SO_REUSEPORT", "send_fds", "recv_fds"},
    "select": {"poll", "epoll", "kqueue"},
    "subprocess": set(),
}


class Popen(subprocess.Popen[Any]):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        for name in ("pass_fds", "preexec_fn", "start_new_session", "user", "group", "process_group"):
            if settings.get(name):
                raise ValueError(f"{name} is not supported on Windows platforms")
        super().__init__(*arguments, **settings)


def only_sockets(*waits: Any) -> Any:
    for one in [one for these in waits[:3] for one in these]:
        if not isinstance(one, socket.socket):
            raise OSError(10038, "An operation was attempted on something that is not a socket")
    return select.select(*waits)


OTHER: Mapping[str, Mapping[str, Any]] = {
    "select": {"select": only_sockets},
    "subprocess": {"Popen": Popen},
    "signal": {"valid_signals": lambda: {getattr(signal, name) for name in ON_WINDOWS if name[3] != "_"}},
}


class Without(types.ModuleType):
    """A module of Python's library, as hil sees it."""

    def __init__(self, whole: types.ModuleType) -> None:
        super().__init__(whole.__name__)
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        whole: types.ModuleType = self.__dict__["_whole"]
        if name in GONE[whole.__name__]:
            raise AttributeError(f"module {whole.__name__!r} has no attribute {name!r} on this platform")
        return OTHER.get(whole.__name__, {}).get(name, getattr(whole, name))


KNOWN = {module.__name__: Without(module) for module in (os, select, signal, socket, subprocess, time)}


def install(inner: Callable[..., types.ModuleType]) -> None:
    def imported(name: str, *more: Any, **named: Any) -> types.ModuleType:
        table = more[0] if more else named.get("globals")
        if table is not None and str(table.get("__file__") or "").startswith(OURS):
            if name.partition(".")[0] in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in KNOWN:
                return KNOWN[name]
        return inner(name, *more, **named)

    builtins.__import__ = imported


install(builtins.__import__)
sys.without_posix = True  # type: ignore[attr-defined]
