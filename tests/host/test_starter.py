"""A worker where none can be forked: who gets in, and who holds the device. tests/test_system.py trains through one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.errors import Desync, RunError
from hil.host.locks import hold
from hil.host.spawned import met
from hil.host.starter import SECRET_BYTES, _let_in

SECRET, ANSWER, OTHER = (bytes([n]) * SECRET_BYTES for n in (1, 2, 3))


@pytest.fixture
def waits() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has not ended."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


@pytest.fixture
def door() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def test_only_who_knows_the_secret_gets_in(door: socket.socket, waits: subprocess.Popen[bytes]) -> None:
    silent, wrong, short, right = (socket.create_connection(door.getsockname()) for _ in range(4))
    with silent, wrong, short, right:
        wrong.sendall(OTHER)
        short.sendall(SECRET[:-1])
        right.sendall(SECRET)
        with _let_in(door, SECRET, waits) as end:
            assert end.getpeername() == right.getsockname()
        for one in (silent, wrong, short):
            one.settimeout(5.0)
            try:
                assert one.recv(1) == b""
            except ConnectionResetError:
                continue


def test_a_process_that_ends_is_waited_for_no_longer(door: socket.socket, waits: subprocess.Popen[bytes]) -> None:
    waits.kill()
    with pytest.raises(OSError, match="ended with status"):
        _let_in(door, SECRET, waits)


@pytest.mark.parametrize("answer", [OTHER, ANSWER[:-1], b""])
def test_a_worker_serves_no_stranger(door: socket.socket, answer: bytes) -> None:
    def pretend() -> None:
        with door.accept()[0] as end:
            end.sendall(answer)
            end.shutdown(socket.SHUT_WR)
            end.recv(SECRET_BYTES)

    stranger = threading.Thread(target=pretend)
    stranger.start()
    with pytest.raises(Desync, match="another program"):
        met(door.getsockname()[1], SECRET, ANSWER)
    stranger.join()


def test_one_host_at_a_time_holds_a_device(tmp_path: Path) -> None:
    path = str(tmp_path / "device.lock")
    (first,) = hold([path], 0.0)
    with pytest.raises(RunError, match="still has this device"):
        hold([path], 0.0)
    later = threading.Timer(0.3, os.close, (first,))
    later.start()
    (second,) = hold([path], 10.0)
    os.close(second)
    with pytest.raises(RunError, match="cannot be locked"):
        hold([str(tmp_path / "none" / "device.lock")], 0.0)
