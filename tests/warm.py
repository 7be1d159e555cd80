"""A process that has imported what hil's processes need, and forks them, so that a test need not wait for torch each time.

    listen()                  in the process that begins the tests: a server, which imports nothing before it is asked
    Warm                      in place of subprocess.Popen: `python -P -m MODULE` of MODULES, `python -P -c CODE` and
                              `python -P FILE.py` come from that server
    python warm.py FILE PID   the server: the descriptor of its socket, and the process with which it ends

A process that comes from here has what a started one would have: the arguments, environment, working directory, descriptors,
ignored signals and session that the caller asks for, one thread, and a pid that can be killed. What it has not: imports of its
own, a parent that is the caller, a command line in /proc, an end of the interpreter, figures that are drawn (marked `drawn`). A
test about these is marked `cold`, or starts python without -P, and what such a program starts knows nothing of this.
"""

from __future__ import annotations

import gc
import io
import json
import os
import select
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

MODULES = ("hil", "hil.guardian", "hil.host", "hil.host.forks", "sim_devices.bench.served", "sim_devices.bench.board")
IMPORTED = (
    "drivers.scpi_talk", "hil.guardian.process", "hil.host.process", "hil.host.worker", *MODULES[4:],
    "scipy.signal", "hil.cli", "hil.commands.train", "torch._dynamo", "pint", "hil.build.bench", "hil.data.kinds",
    "hil.report.page", "matplotlib.backends.backend_svg",
)  # fmt: skip
SETTINGS = {"stdin", "stdout", "stderr", "text", "encoding", "errors", "env", "cwd", "pass_fds", "start_new_session"}
VARIABLE = "HIL_TESTS_WARM"  # where the server listens; set to nothing: every process is started
HEAD, CODE = struct.Struct("<I"), struct.Struct("<i")
MOST_FILES = 64
GONE = 255
PYTHON = sys.executable


def limits() -> list[tuple[int, int]]:
    """What this process may use."""
    import resource

    return [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]


HERE = hasattr(os, "pidfd_open")
LIMITS = limits() if HERE else []


def listen() -> None:
    """Start the server of this process and of all that it starts, unless there is one."""
    if VARIABLE in os.environ or not HERE:
        return
    path = str(Path(tempfile.mkdtemp(prefix="hil-warm-")) / "socket")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(64)
        subprocess.Popen(
            [sys.executable, "-P", __file__, str(door.fileno()), str(os.getpid())], stdin=subprocess.DEVNULL,
            pass_fds=[door.fileno()], env={**os.environ, "PYTHONPATH": ""}, start_new_session=True,
        )  # fmt: skip
    os.environ[VARIABLE] = path


# ---- in the place of subprocess.Popen ------------------------------------------------------------------------------------


class Warm(subprocess.Popen[Any]):
    """subprocess.Popen, whose processes come from the server if they can.

    cold: True while a test wants none of it. drawn: True while a test wants their figures drawn.
    """

    cold = drawn = False
    _server: socket.socket | None = None

    def __init__(self, args: Any, *more: Any, **settings: Any) -> None:
        self._asks_for = settings
        self._can = (
            bool(os.environ.get(VARIABLE)) and not self.cold
            and not more and not isinstance(args, str) and list(args[:2]) == [PYTHON, "-P"] and kind(args[2:]) is not None
            and SETTINGS.issuperset(settings) and limits() == LIMITS
        )  # fmt: skip
        super().__init__(args, *more, **settings)

    def _execute_child(self, args: Any, *more: Any) -> None:
        if not self._can:
            super()._execute_child(args, *more)  # type: ignore[misc]
            return
        ends = more[9:15]  # of the pipes: the child's and ours for stdin, ours and the child's for stdout and for stderr
        given = [number if one == -1 else one for number, one in enumerate((ends[0], ends[3], ends[5]))]
        asks, pass_fds = self._asks_for, self._asks_for.get("pass_fds", ())
        place = os.open(asks.get("cwd") or os.curdir, os.O_RDONLY | os.O_DIRECTORY)
        told = {
            "words": [str(word) for word in args[2:]], "env": dict(asks.get("env") or os.environ),
            "drawn": self.drawn, "session": asks.get("start_new_session", False), "files": [0, 1, 2, *pass_fds],
            "ignored": [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN],
        }  # fmt: skip
        self._server = socket.socket(socket.AF_UNIX)
        try:
            self._server.connect(os.environ[VARIABLE])
            body = json.dumps(told).encode()
            socket.send_fds(self._server, [HEAD.pack(len(body))], [place, *given, *pass_fds])
            self._server.sendall(body)
            self.pid = HEAD.unpack(_read(self._server, HEAD.size))[0]
            self._child_created = True
        finally:
            os.close(place)
            self._close_pipe_fds(*ends)  # type: ignore[attr-defined]

    def _asked(self, within_s: float | None) -> int | None:
        """Its exit status, waited for."""
        if self.returncode is None and self._server is not None and select.select([self._server], [], [], within_s)[0]:
            with self._waitpid_lock:  # type: ignore[attr-defined]
                if self.returncode is None:  # no other thread has taken it
                    said = self._server.recv(CODE.size)
                    self.returncode = CODE.unpack(said)[0] if said else GONE
                    with suppress(OSError), self._server:
                        self._server.sendall(b"!")  # its pid may go to another process now
                        self._server.recv(1)  # ends when the process has left the table, as one that was waited for has
        return self.returncode

    def _internal_poll(self, *more: Any, **named: Any) -> int | None:
        return super()._internal_poll(*more, **named) if self._server is None else self._asked(0.0)  # type: ignore[misc, no-any-return]

    def _wait(self, timeout: float | None) -> int:
        if self._server is None:
            return super()._wait(timeout)  # type: ignore[misc, no-any-return]
        code = self._asked(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code


def kind(words: Sequence[str]) -> str | None:
    """What the words after `python -P` are, "-m", "-c" or "file", if a warm process can be that."""
    if words[0] == "-c" or (words[0] == "-m" and words[1] in MODULES):
        return words[0]
    return "file" if str(words[0]).endswith(".py") else None


def _read(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = end.recv(count - len(data))
        if not piece:
            raise OSError("the server of warm processes is gone")
        data += piece
    return data


# ---- the server ----------------------------------------------------------------------------------------------------------


def serve(door: socket.socket, parent: int) -> None:
    """Fork what is asked for, and say how it ended, until the parent has ended; one thread makes that sound."""
    watched = selectors.DefaultSelector()
    watched.register(door, selectors.EVENT_READ, asked)
    watched.register(os.pidfd_open(parent), selectors.EVENT_READ)
    watched.select()
    imports()
    while True:
        for key, _ in watched.select():
            if key.data is None:
                return
            key.data(watched, key.fileobj)


def asked(watched: selectors.BaseSelector, door: socket.socket) -> None:
    """Somebody wants a process."""
    end = door.accept()[0]
    with suppress(OSError, struct.error):  # who asks was killed meanwhile
        pid = begun(end)
        watched.register(os.pidfd_open(pid), selectors.EVENT_READ, partial(ended, pid, end))


def ended(pid: int, end: socket.socket, watched: selectors.BaseSelector, handle: int) -> None:
    """A process has ended: say how, and keep its pid until that was read, as the kernel does."""
    watched.unregister(handle)
    os.close(handle)
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    with suppress(OSError):
        end.sendall(CODE.pack(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status))
    watched.register(end, selectors.EVENT_READ, partial(read, pid))


def read(pid: int, watched: selectors.BaseSelector, end: socket.socket) -> None:
    """Its end was read, or nobody wants to know."""
    watched.unregister(end)
    os.waitpid(pid, 0)
    end.close()


def imports() -> None:
    """Import what the processes need; what is missing here, they import themselves."""
    sys.path.append(str(Path(__file__).parents[1]))
    gc.disable()
    for module in IMPORTED:
        __import__(module)
    once_in_all()
    gc.freeze()
    gc.enable()
    subprocess.Popen = Warm  # type: ignore[misc]  # for what a process from here starts itself


def once_in_all() -> None:
    """Do what each process would do again: look for a library of VISA, which starts a dozen programs."""
    from drivers.links.visa_link import library

    library()


def begun(end: socket.socket) -> int:
    """Fork one process, say its pid, and return it."""
    head, files, _, _ = socket.recv_fds(end, HEAD.size, MOST_FILES)
    told = json.loads(_read(end, HEAD.unpack(head)[0]))
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            become(told, files)
            code = run(told["words"])
        finally:
            os._exit(code)
    for file in files:
        os.close(file)
    end.sendall(HEAD.pack(pid))
    return pid


def become(told: Mapping[str, Any], files: Sequence[int]) -> None:
    """Have what a started process would have."""
    import random

    import numpy as np

    if told["session"]:
        os.setsid()
    os.fchdir(files[0])
    only(dict(zip(told["files"], files[1:], strict=True)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in told["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(told["env"])
    named = [os.path.abspath(entry) for entry in told["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [*named, *(entry for entry in sys.path if entry not in named)]
    sys.argv[:] = told["words"] if kind(told["words"]) == "file" else [told["words"][0], *told["words"][2:]]
    sys.stdin = open(0, encoding="locale", closefd=False)  # noqa: SIM115, as long as it lives
    sys.stdout = open(1, "w", encoding="locale", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="locale", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    random.seed()
    np.random.seed()  # noqa: NPY002
    if not told["drawn"]:
        from matplotlib.figure import Figure

        from hil.report import figure

        Figure.savefig, figure._drawn = blank, once(figure._drawn)  # type: ignore[method-assign]


def blank(figure: object, to: IO[Any] | Path | str, **_: object) -> None:
    """In place of Figure.savefig."""
    page = '<svg viewBox="0 0 1 1"></svg>'
    if isinstance(to, Path | str):
        Path(to).write_text(page, encoding="utf-8")
    else:
        to.write(page.encode() if isinstance(to, io.BytesIO) else page)


def once(drawn: Callable[..., Any]) -> Callable[..., Any]:
    """In place of hil.report.figure._drawn: while nothing is saved, a figure is made as on the page and not again for print."""
    from matplotlib.figure import Figure

    from hil.report.figure import PRINT

    def made(figure: Any, look: Any) -> Any:
        return Figure() if look is PRINT and Figure.savefig is blank else drawn(figure, look)

    return made


def only(wanted: Mapping[int, int]) -> None:
    """Have these descriptors, from others, and none but these."""
    import fcntl

    above = max(*wanted, *wanted.values()) + 1
    moved = {number: fcntl.fcntl(file, fcntl.F_DUPFD, above) for number, file in wanted.items()}
    os.closerange(0, above)
    for number, file in moved.items():
        os.dup2(file, number)
    os.closerange(above, max(moved.values()) + 1)


def run(words: Sequence[str]) -> int:
    """What `python` with these words does; the exit status."""
    import runpy
    import traceback

    code = 0
    try:
        match kind(words):
            case "-m":
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            case "file":
                runpy.run_path(words[0], run_name="__main__")
            case _:
                main = sys.modules["__main__"] = ModuleType("__main__")
                exec(compile(words[1], "<string>", "exec"), vars(main))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (whatever it is: it is this process's end)
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    folder = Path(listening.getsockname()).parent
    serve(listening, int(sys.argv[2]))
    shutil.rmtree(folder)
