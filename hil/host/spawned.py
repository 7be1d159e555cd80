r"""python -m hil.host.spawned: a worker where none can be forked. It imports what a worker needs, and then waits to be needed.

stdin    {"port", "host", "worker"}\n     a port of 127.0.0.1, and two secrets in hexadecimal; its end is that of the host
stdout   the host's own: how the outputs were left
stderr   what is printed

It connects to the port, says the worker's secret, and hears the host's before it does anything; see hil/host/starter.py.
"""

from __future__ import annotations

import hmac
import os
import socket

from hil.child import deaf, importing
from hil.errors import Desync
from hil.files import loads

MEET_S = 10.0
MOST = 1 << 12


def main() -> None:
    """Become a worker, or end if nobody needs one."""
    with importing():
        from hil.host.worker import begin
    line = b""
    while not line.endswith(b"\n"):
        if not (piece := os.read(0, MOST)):
            return
        line += piece
    told = loads(line, "worker", Desync)
    end = met(int(told["port"]), bytes.fromhex(told["worker"]), bytes.fromhex(told["host"]))
    alive, output = os.dup(0), os.dup(2)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)  # what the device's code starts must not read from the host
    os.close(nowhere)
    begin(end, alive, output)


def met(port: int, secret: bytes, due: bytes) -> socket.socket:
    """Connect to the host.

    Args:
        port: of this computer.
        secret: to be said.
        due: what the host answers, bytes.

    Raises:
        OSError: nobody listens. Desync: somebody else does.
    """
    end = socket.create_connection(("127.0.0.1", port), MEET_S)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.sendall(secret)
    said = b""
    while len(said) < len(due) and (piece := end.recv(len(due) - len(said))):
        said += piece
    if not hmac.compare_digest(said, due):
        end.close()
        raise Desync("another program listens at the port of the host", where="worker", got=f"port {port}")
    end.settimeout(None)
    return end


if __name__ == "__main__":
    deaf()
    main()
