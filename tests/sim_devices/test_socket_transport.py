"""Raw SCPI socket, with plain sockets and with stock PyVISA."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import pyvisa
from memory_box import MemoryBox

from hil.errors import ConfigError
from sim_devices.transports.socket import SocketServer


@pytest.fixture
def box() -> MemoryBox:
    return MemoryBox()


@pytest.fixture
def server(box: MemoryBox) -> Iterator[SocketServer]:
    server = SocketServer(box)
    server.start()
    yield server
    server.close()


@pytest.fixture
def client(server: SocketServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


def read(client: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        more = client.recv(count - len(got))
        assert more, f"closed after {len(got)} of {count} bytes"
        got += more
    return bytes(got)


def test_stock_pyvisa(server: SocketServer) -> None:
    opened = pyvisa.ResourceManager("@py").open_resource(server.resource, read_termination="\n", write_termination="\n")
    assert opened.query("*IDN?") == "Maker,memory,0,1.0"
    values = np.arange(-500, 500, dtype=np.int16)
    opened.write_binary_values("PUT ", values, datatype="h")
    assert np.array_equal(opened.query_binary_values("GET?", datatype="h", container=np.ndarray), values)
    opened.close()


def test_pipelined_messages_in_one_segment(client: socket.socket, box: MemoryBox) -> None:
    client.sendall(b"A\nB 'x'\n\n*IDN?\nPUT #15\n\n\n\n\n\nGET?\n*IDN")
    idn = b"Maker,memory,0,1.0\n"
    assert read(client, len(idn) + 9) == idn + b"#15\n\n\n\n\n\n"
    client.sendall(b"?\n")
    assert read(client, len(idn)) == idn
    assert box.messages == [b"A", b"B 'x'", b"*IDN?", b"*IDN?"]


def test_message_in_single_bytes(client: socket.socket) -> None:
    for byte in b"PUT #212ab\ncd\n\n#15x\n\nGET?\n":
        client.sendall(bytes([byte]))
    assert read(client, 17) == b"#212ab\ncd\n\n#15x\n\n"


@pytest.mark.parametrize("size", [0, 1, 65_520, 65_536, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_blocks_of_every_size_both_ways(client: socket.socket, size: int) -> None:
    payload = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    block = b"#%d%d" % (len(str(size)), size) + payload
    for _ in range(2):
        client.sendall(b"PUT " + block + b"\nGET?\n")
        assert read(client, len(block) + 1) == block + b"\n"


def test_two_blocks_and_a_command_between_them(client: socket.socket, box: MemoryBox) -> None:
    client.sendall(b"PUT #13\n\n\n,#12\n\n;X\nGET?\n")
    assert read(client, 15) == b"#13\n\n\n,#12\n\n;X\n"
    assert box.held == b"#13\n\n\n,#12\n\n;X"


def test_carriage_return_before_the_newline(box: MemoryBox) -> None:
    server = SocketServer(box, terminator=b"\r\n")
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as client:
        client.sendall(b"*IDN?\r\n")
        assert read(client, 20) == b"Maker,memory,0,1.0\r\n"
    server.close()


def test_several_clients_at_once(server: SocketServer) -> None:
    wrong: list[bytes] = []

    def ask(number: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=3) as mine:
            for _ in range(100):
                mine.sendall(b"*IDN?\n")
                reply = read(mine, 19)
                if reply != b"Maker,memory,0,1.0\n":
                    wrong.append(b"%d " % number + reply)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_half_a_message_of_a_client_that_left_is_never_executed(server: SocketServer, box: MemoryBox) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as gone:
        gone.sendall(b"OUTP 1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as client:
        client.sendall(b"*IDN?\n")
        read(client, 19)
    assert box.messages == [b"*IDN?"]


def test_closed_server_is_noticed(server: SocketServer, client: socket.socket) -> None:
    client.sendall(b"*IDN?\n")
    read(client, 19)
    server.close()
    assert client.recv(1) == b""
    server.close()


def test_absurd_block_ends_the_connection(client: socket.socket) -> None:
    client.sendall(b"PUT #9999999999")
    assert client.recv(10) == b""


def test_only_this_machine() -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        SocketServer(MemoryBox(), host="0.0.0.0")


def test_write_write_query_does_not_wait_for_a_delayed_acknowledgement(client: socket.socket) -> None:
    rounds = []
    for _ in range(20):
        began = time.perf_counter()
        client.sendall(b"A\n")
        client.sendall(b"B\n")
        client.sendall(b"*IDN?\n")
        read(client, 19)
        rounds.append(time.perf_counter() - began)
    assert min(rounds) < 0.03  # with a delayed acknowledgement each would take 44 ms
