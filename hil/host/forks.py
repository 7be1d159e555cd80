r"""python -m hil.host.forks DESCRIPTOR: forks workers. It has imported what a worker needs, so that one begins in milliseconds.

    fork\n  + 3 descriptors: socket, pipe that ends with the host, pipe for what is printed     ->
                                                                                               <-  PID\n
    wait PID\n                                                                                 ->
                                                                                               <-  STATUS\n   of its end
    (end of file)                            ->  ends; a worker sees the end of the host by itself

It has one thread and opens no device: that is what makes forking sound. Its socket keeps messages apart (SOCK_SEQPACKET).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from hil.child import deaf, importing

MOST = 256
READY = b"ready"


def main() -> None:
    """Fork workers until the host has ended."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    with importing():
        from hil.host.worker import begin
    control.send(READY)
    while True:
        try:
            message, files, _, _ = socket.recv_fds(control, MOST, 3)
        except OSError:
            return
        if not message:
            return
        word, _, rest = message.decode().partition(" ")
        try:
            answer = _forked(control, files, begin) if word == "fork" else _status(int(rest))
            control.send(str(answer).encode())
        except OSError:
            return
        finally:
            for file in files:
                with suppress(OSError):
                    os.close(file)


def _forked(control: socket.socket, files: list[int], begin: Callable[[socket.socket, int, int], None]) -> int:
    """Fork a worker, which does not return from `begin`, and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        control.close()
        begin(socket.socket(fileno=files[0]), files[1], files[2])
    finally:
        os._exit(1)  # begin() does not return; what it raises must not go on here, as a second fork server


def _status(pid: int) -> int:
    """Exit status of a worker that has ended; negative: the number of the signal that ended it."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 0


if __name__ == "__main__":
    deaf()
    main()
