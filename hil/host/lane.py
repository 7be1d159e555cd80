"""A short way for shots between a trainer and the host that it started: one socket of this computer, beside the gRPC service.

    trainer  ->  the token, as many bytes as it has
    then     {"call", "shape"} body -> {"call", "shape"} body, or {"call", "fault"}          messages of hil/host/frames.py

A call of gRPC takes half a millisecond and four threads, most of what a small shot costs. Limits, order of calls, session and
faults are those of the service, which answers here too. One call is under way at a time; whoever finds the lane taken, or gone,
calls Shot or Forward. Any fault of the socket, and a Ctrl-C, close it, so that a late answer is never read.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from hil.errors import Desync, Disconnected, HilError
from hil.foreign import mapped
from hil.host.faults import error_of, table_of
from hil.host.frames import Bytes, Wire
from hil.host.session import same

LOOPBACK = "127.0.0.1"
HELLO_S = 5.0
Drive = Callable[[str, int, list[int], Bytes], tuple[list[int], Bytes]]


class LaneLost(Exception):
    """The lane has ended: nothing more comes on it."""


class Lane:
    """The trainer's end.

    Args:
        port: of the host.
        token: of the session.

    Raises:
        OSError: nobody listens.
    """

    def __init__(self, port: int, token: str) -> None:
        end = socket.create_connection((LOOPBACK, port), HELLO_S)
        try:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.sendall(token.encode())
        except BaseException:
            end.close()
            raise
        self._wire, self._free = Wire(end), threading.Lock()
        self._open = True

    def take(self) -> bool:
        """True if it is open, and nobody else's call is under way; `ask` gives it back."""
        return self._open and self._free.acquire(blocking=False)

    def ask(self, number: int, shape: Sequence[int], data: Bytes, until_s: float) -> tuple[list[int], memoryview]:
        """Shape and bytes of the answer to a shot. Only after `take`.

        Args:
            number: of the call.
            shape: of the array.
            data: its bytes, float32.
            until_s: when to give up, by time.monotonic.

        Raises:
            TimeoutError: no answer in time. LaneLost: the socket is gone, or out of step. HilError: what the host says.
        """
        whole = False
        try:
            self._wire.send({"call": number, "shape": list(shape)}, data, until_s)
            head, body = self._wire.receive(until_s)
            if head.get("call") != number:
                raise LaneLost(f"the answer to call {head.get('call')}, not {number}")
            whole = True
        except TimeoutError:
            raise
        except (OSError, HilError) as error:
            raise LaneLost(str(error).splitlines()[0]) from error
        finally:
            if not whole:
                self.close()
            self._free.release()
        if "fault" in head:
            raise error_of(head["fault"])
        return [int(n) for n in head["shape"]], body

    def close(self) -> None:
        """Close it. May be called twice."""
        self._open = False
        self._wire.close()


class Lanes:
    """The host's end: listens to this computer.

    Args:
        token: whoever says another one is not heard.
        drive: answers a shot: token, number of the call, shape, bytes.

    port: where.
    """

    def __init__(self, token: str, drive: Drive) -> None:
        self._token, self._drive = token, drive
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, name="lanes", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(end,), name="lane", daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        with end, suppress(OSError, Disconnected, Desync):
            end.settimeout(HELLO_S)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            said = b""
            while len(said) < len(self._token) and (piece := end.recv(len(self._token) - len(said))):
                said += piece
            if not same(said.decode("latin-1"), self._token):
                return
            end.settimeout(None)
            wire = Wire(end)
            while True:
                head, body = wire.receive()
                answer, found = self._answered(head, body)
                wire.send({"call": head.get("call"), **answer}, found)

    def _answered(self, head: dict[str, object], body: Bytes) -> tuple[dict[str, object], Bytes]:
        try:
            number, shape = head.get("call"), head.get("shape")
            good = isinstance(number, int) and isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
            if not good:
                raise Desync("not a shot", where="host", got=str(head)[:80], allowed="a number and a shape")
            assert isinstance(number, int)
            assert isinstance(shape, list)
            found, answer = self._drive(self._token, number, shape, body)
        except HilError as error:
            return {"fault": table_of(error)}, b""
        except Exception as error:  # noqa: BLE001 - told whole
            return {"fault": table_of(mapped(error, "host"))}, b""
        return {"shape": found}, answer
